//! [`Row`]: what can be measured, by its short name.

use std::fmt;

use clap::ValueEnum;

/// A row of the table, in the order in which they are measured: later ones use what earlier ones have prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Row {
    /// Append, batches of 64, one filter queue, async
    Append,
    /// Append, sync, 64 concurrent appenders of one record
    Sync,
    /// Memory of idle durable queues
    Memory,
    /// Append with 1,000,000 filter queues, three of them for each record
    Million,
    /// Open after an orderly stop, 1,000,000 queues and 10 M records
    OpenClean,
    /// Open after SIGKILL, the same
    OpenCrash,
    /// Index bytes of an entry in a busy queue
    IndexBusy,
    /// Index bytes of an entry in a queue that seldom gets one
    IndexCold,
    /// 1,000 records for 10,000 offline sessions
    Offline,
    /// 100 readers that follow one queue
    Tail,
    /// Catching up in a cold queue of 2 GB
    CatchUp,
    /// Checkpoint of 1,000,000 cursors
    Cursors,
    /// Appending while retention deletes 1 GB
    Retention,
}

impl Row {
    /// Bytes on disk that it needs at most, what earlier rows have prepared for it included.
    pub(super) fn disk_bytes(self, quick: bool) -> u64 {
        let full_mb = match self {
            Row::Append | Row::IndexBusy => 1_500,
            Row::Sync | Row::Offline | Row::Tail => 500,
            Row::Memory | Row::Cursors => 1_000,
            Row::IndexCold | Row::Retention => 2_500,
            Row::CatchUp => 3_000,
            Row::Million => 4_000,
            Row::OpenClean | Row::OpenCrash => 6_000,
        };
        (if quick { 200 } else { full_mb }) * 1_000_000
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// The rows to measure, each once and in their order; all if none is named.
pub(super) fn selected(named: &[Row]) -> Vec<Row> {
    let all = Row::value_variants().iter().copied();
    all.filter(|row| named.is_empty() || named.contains(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_measured_once_and_in_their_order() {
        assert_eq!(selected(&[Row::Tail, Row::Append, Row::Tail]), [Row::Append, Row::Tail]);
        assert_eq!(selected(&[]).len(), Row::value_variants().len());
    }

    #[test]
    fn an_unknown_name_is_told_with_all_names() {
        let error = Row::from_str("fast", false).unwrap_err();
        assert!(error.contains("fast"), "{error}");
        assert_eq!(Row::from_str("open-crash", false), Ok(Row::OpenCrash));
        assert_eq!(Row::OpenCrash.to_string(), "open-crash");
    }
}
