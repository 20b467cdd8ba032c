//! [`Ledger`]: what the hub acknowledged, what arrived, and in the end what is missing.

use std::collections::{HashMap, HashSet};

use super::expect::{STREAMS, Stream, streams};
use super::vehicle::Facts;

/// One report: which vehicle, which of its reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReportKey {
    pub(super) vehicle: u32,
    pub(super) seq: u64,
}

/// Published reports by what became of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    expected: HashMap<Stream, HashSet<ReportKey>>,
    /// Sent, and the connection ended before the acknowledgement: they may arrive or not.
    unconfirmed: HashSet<ReportKey>,
    acknowledged: u64,
}

impl Ledger {
    /// The hub acknowledged a report.
    pub(super) fn acknowledged(&mut self, key: ReportKey, facts: &Facts) {
        self.acknowledged += 1;
        for stream in streams(facts) {
            self.expected.entry(stream).or_default().insert(key);
        }
    }

    /// Nobody knows whether the hub has a report.
    pub(super) fn unconfirmed(&mut self, key: ReportKey) {
        self.unconfirmed.insert(key);
    }

    /// Reports acknowledged.
    pub(super) fn published(&self) -> u64 {
        self.acknowledged
    }

    /// Holds what arrived against what must have.
    pub(super) fn account(&self, arrivals: &Arrivals) -> Account {
        let none = HashSet::new();
        let streams = STREAMS.map(|stream| {
            let expected = self.expected.get(&stream).unwrap_or(&none);
            let arrived = arrivals.reports.get(&stream).unwrap_or(&none);
            let unexpected =
                arrived.difference(expected).filter(|key| !self.unconfirmed.contains(key)).count() as u64;
            StreamAccount {
                stream,
                expected: expected.len() as u64,
                arrived: arrived.len() as u64,
                lost: expected.difference(arrived).count() as u64,
                unexpected,
            }
        });
        Account {
            published: self.acknowledged,
            unconfirmed: self.unconfirmed.len() as u64,
            duplicates: arrivals.duplicates,
            unreadable: arrivals.unreadable,
            streams,
        }
    }
}

/// Events at their destinations. Duplicates are told by their CloudEvents `id`.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    ids: HashSet<(Stream, String)>,
    reports: HashMap<Stream, HashSet<ReportKey>>,
    duplicates: u64,
    unreadable: u64,
}

impl Arrivals {
    /// An event arrived.
    pub(super) fn arrived(&mut self, stream: Stream, id: &str, key: ReportKey) {
        if self.ids.insert((stream, id.to_owned())) {
            self.reports.entry(stream).or_default().insert(key);
        } else {
            self.duplicates += 1;
        }
    }

    /// Something arrived that is none of the demo's events.
    pub(super) fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// Takes in what arrived elsewhere.
    pub(super) fn merge(&mut self, other: Arrivals) {
        self.ids.extend(other.ids);
        for (stream, keys) in other.reports {
            self.reports.entry(stream).or_default().extend(keys);
        }
        self.duplicates += other.duplicates;
        self.unreadable += other.unreadable;
    }
}

/// What came of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Reports that the hub acknowledged.
    pub(super) published: u64,
    pub(super) unconfirmed: u64,
    /// Events that arrived again under the id of one that was there.
    pub(super) duplicates: u64,
    /// Arrivals that are none of the demo's events.
    pub(super) unreadable: u64,
    pub(super) streams: [StreamAccount; STREAMS.len()],
}

/// What came of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamAccount {
    pub(super) stream: Stream,
    pub(super) expected: u64,
    pub(super) arrived: u64,
    pub(super) lost: u64,
    /// Arrived though no rule wanted it.
    pub(super) unexpected: u64,
}

impl Account {
    /// Distinct events that arrived.
    pub(super) fn delivered(&self) -> u64 {
        self.streams.iter().map(|stream| stream.arrived).sum()
    }

    /// Events that must have arrived and did not.
    pub(super) fn lost(&self) -> u64 {
        self.streams.iter().map(|stream| stream.lost).sum()
    }

    /// Whether everything is as it must be.
    pub(super) fn is_clean(&self) -> bool {
        self.lost() == 0 && self.unreadable == 0 && self.streams.iter().all(|stream| stream.unexpected == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: Facts = Facts::Telemetry { temp_c: 115.0, soc_pct: 50.0, driving: true };
    const COOL: Facts = Facts::Telemetry { temp_c: 90.0, soc_pct: 50.0, driving: true };

    fn key(seq: u64) -> ReportKey {
        ReportKey { vehicle: 1, seq }
    }

    #[test]
    fn what_did_not_arrive_is_lost() {
        let (mut ledger, mut arrivals) = (Ledger::default(), Arrivals::default());
        ledger.acknowledged(key(1), &HOT);
        ledger.acknowledged(key(2), &COOL);
        arrivals.arrived(Stream::ArchiveFile, "id-1", key(1));
        arrivals.arrived(Stream::OverheatHttp, "id-1", key(1));
        let account = ledger.account(&arrivals);
        assert_eq!((account.published, account.delivered(), account.lost()), (2, 2, 1));
        assert!(!account.is_clean());
        arrivals.arrived(Stream::ArchiveFile, "id-2", key(2));
        assert!(ledger.account(&arrivals).is_clean());
    }

    #[test]
    fn duplicates_count_once_and_are_told() {
        let (mut ledger, mut arrivals) = (Ledger::default(), Arrivals::default());
        ledger.acknowledged(key(1), &COOL);
        arrivals.arrived(Stream::ArchiveFile, "id-1", key(1));
        arrivals.arrived(Stream::ArchiveFile, "id-1", key(1));
        let account = ledger.account(&arrivals);
        assert_eq!((account.delivered(), account.duplicates, account.lost()), (1, 1, 0));
    }

    #[test]
    fn events_that_no_rule_wanted_are_told_unless_their_report_is_in_doubt() {
        let (mut ledger, mut arrivals) = (Ledger::default(), Arrivals::default());
        ledger.acknowledged(key(1), &COOL);
        ledger.unconfirmed(key(2));
        arrivals.arrived(Stream::ArchiveFile, "id-1", key(1));
        arrivals.arrived(Stream::ArchiveFile, "id-2", key(2));
        assert!(ledger.account(&arrivals).is_clean());
        arrivals.arrived(Stream::OverheatHttp, "id-1", key(1));
        assert!(!ledger.account(&arrivals).is_clean());
    }
}
