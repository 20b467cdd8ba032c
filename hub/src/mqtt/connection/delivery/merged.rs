//! Subscriptions that overlap: a message that several of them match is sent once (3.3.4), with the highest QoS that any of
//! them was granted, the identifiers of all, and the retain flag as published if one of them asks for that. One with No Local
//! does not count for what the client published itself. An acknowledgement moves the cursors of all.
//!
//! Each subscription is a cursor over a queue of its own, and a record has one sequence in all of them. So the queues are read
//! side by side and merged by it, up to where all of them are complete: the lowest of what the store had entered into queues
//! before they were read, the end of what was read of a queue that has more, and what a queue that was not read has first.
//! Cursors may stand at different places, after a crash or since one subscription is newer; a record that only
//! one of them has left is sent for that one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use smallvec::SmallVec;
use tidemill_store::{ReadBatch, ReadRequest, Record, Retain};

use super::super::super::codec::{Qos, SubscriptionId};
use super::super::super::session::{Source, Sources, SubscriptionKey};
use super::super::{Close, Connection};
use super::offer::{Offer, Sent};
use super::unavailable;
use crate::message::Head;

/// What was read of one queue.
struct Run {
    key: SubscriptionKey,
    records: VecDeque<(u64, Record)>,
    /// Where to read on after them.
    next: u64,
    /// Whether the queue has more then.
    more: bool,
}

/// Records of several queues in the order of the log, each once.
struct Merge {
    runs: Vec<Run>,
    /// The first sequence of each run that has records.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Below this sequence nothing is missing.
    limit: u64,
}

impl Merge {
    fn new(limit: u64) -> Merge {
        Merge { runs: Vec::new(), order: BinaryHeap::new(), limit }
    }

    /// Adds what was read of a queue.
    fn add(&mut self, key: SubscriptionKey, batch: ReadBatch) {
        let more = batch.next < batch.end;
        if more {
            self.limit = self.limit.min(batch.records.last().map_or(0, |(_, record)| record.sequence + 1));
        }
        if let Some((_, first)) = batch.records.first() {
            self.order.push(Reverse((first.sequence, self.runs.len())));
        }
        self.runs.push(Run { key, records: batch.records.into(), next: batch.next, more });
    }

    /// The next record below the limit, and all the places where it stands.
    fn next(&mut self) -> Option<(Record, Sources)> {
        let Reverse((sequence, _)) = *self.order.peek()?;
        if sequence >= self.limit {
            return None;
        }
        let (mut found, mut sources) = (None, Sources::new());
        while let Some(Reverse((first, index))) = self.order.peek().copied()
            && first == sequence
        {
            self.order.pop();
            let Some(run) = self.runs.get_mut(index) else { continue };
            if let Some((offset, record)) = run.records.pop_front() {
                sources.push(Source { subscription: run.key, offset });
                found = Some(record);
            }
            if let Some((_, following)) = run.records.front() {
                self.order.push(Reverse((following.sequence, index)));
            }
        }
        Some((found?, sources))
    }
}

/// How a message goes out for all that match it.
#[derive(Default)]
struct Together {
    /// The highest that was granted.
    granted: Qos,
    as_published: bool,
    ids: SmallVec<[SubscriptionId; 4]>,
    sources: Sources,
}

impl Connection {
    /// Reads the queues of subscriptions that overlap `key`, once; how many records that were. The group stays ready
    /// until all of its queues are at their ends.
    pub(super) async fn send_merged(&mut self, key: SubscriptionKey, room: usize) -> Result<usize, Close> {
        // In this order: what is before this sequence can be read from here on, and has rung.
        let readable = self.shared.store.dispatched_sequence();
        let tokens = self.mail.bell.take();
        self.hear(&tokens)?;
        let picked = self.delivery.overlaps.pick(key);
        let mut merge = Merge::new(readable.min(picked.limit));
        let mut looked_at = 0;
        for member in &picked.members {
            let Some(subscription) = self.session.subscriptions.get(*member) else { continue };
            let space = (self.shared.options.out_buffer_bytes_max as usize).saturating_sub(self.output.len());
            let request = ReadRequest {
                queue: subscription.queue,
                from: subscription.cursor.next(),
                records_max: room.div_ceil(picked.members.len()),
                bytes_max: space.div_ceil(picked.members.len()).max(1),
                durable: false,
            };
            let batch = self.shared.store.read(request).await.map_err(|error| unavailable(&error))?;
            looked_at += batch.records.len();
            merge.add(*member, batch);
        }
        let mut left = room;
        while left > 0
            && self.has_room()
            && let Some((record, sources)) = merge.next()
        {
            self.send_together(&record, sources);
            left -= 1;
        }
        for run in &merge.runs {
            self.end_run(run, merge.limit)?;
        }
        if self.delivery.overlaps.is_ready(key) {
            self.delivery.put_ready(key);
        }
        Ok(looked_at)
    }

    /// Sends a record once for all the places where it stands, and moves their cursors past it.
    fn send_together(&mut self, record: &Record, standing: Sources) {
        let together = self.together(record, &standing);
        let sent = if together.sources.is_empty() {
            Sent::Done
        } else {
            self.offer(Offer {
                record,
                sources: together.sources.clone(),
                granted: together.granted,
                retain: together.as_published && record.retain != Retain::No,
                subscription_ids: &together.ids,
                no_local: false,
            })
        };
        for Source { subscription: key, offset } in standing {
            let Some(subscription) = self.session.subscriptions.get_mut(key) else { continue };
            let cursor = &mut subscription.cursor;
            // What is not in the log any more was passed over.
            self.tally.skipped += offset.saturating_sub(cursor.next());
            if sent == Sent::InFlight && together.sources.iter().any(|source| source.subscription == key) {
                cursor.take(offset, record.sequence);
            } else {
                cursor.pass(offset, record.sequence);
            }
            self.delivery.note_moved(key);
        }
    }

    /// What the subscriptions at these places ask for together.
    fn together(&self, record: &Record, standing: &[Source]) -> Together {
        let mut together = Together::default();
        for source in standing {
            let Some(subscription) = self.session.subscriptions.get(source.subscription) else { continue };
            let options = subscription.options;
            if options.no_local && self.is_own(record) {
                continue;
            }
            together.granted = together.granted.max(options.qos);
            together.as_published |= options.retain_as_published;
            together.ids.extend(subscription.id);
            together.sources.push(*source);
        }
        together.ids.sort_unstable_by_key(|id| id.get());
        together
    }

    /// Whether the client published it.
    fn is_own(&self, record: &Record) -> bool {
        Head::decode(&record.properties).is_ok_and(|head| head.client == &*self.session.client)
    }

    /// Notes where a queue stands after its turn. What it had below `limit` was sent.
    fn end_run(&mut self, run: &Run, limit: u64) -> Result<(), Close> {
        if let Some((_, first)) = run.records.front() {
            self.delivery.overlaps.set_head(run.key, Some(first.sequence));
            return Ok(());
        }
        if let Some(subscription) = self.session.subscriptions.get_mut(run.key) {
            self.tally.skipped += run.next.saturating_sub(subscription.cursor.next());
            subscription.cursor.skip_to(run.next);
            self.delivery.note_moved(run.key);
        }
        if run.more {
            self.delivery.overlaps.set_head(run.key, Some(limit));
            return Ok(());
        }
        self.delivery.overlaps.set_head(run.key, None);
        self.watch(run.key, run.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::empty_record;

    /// What a read of a queue answers that has records of these sequences at the offsets of their places.
    fn read(queue: &[u64], from: usize, records_max: usize, readable: u64) -> ReadBatch {
        let end = queue.partition_point(|sequence| *sequence < readable);
        let next = (from + records_max).min(end);
        let records = queue.get(from..next).unwrap_or_default().iter().zip(from as u64..);
        ReadBatch {
            records: records.map(|(sequence, offset)| (offset, empty_record(*sequence))).collect(),
            next: next as u64,
            skipped: 0,
            end: end as u64,
        }
    }

    proptest! {
        /// Records that arrive while queues are read one after the other come once each, in order, and for all.
        #[test]
        fn each_once_in_order_for_all_that_have_it(
            queues in proptest::collection::vec(proptest::collection::btree_set(0..60_u64, 0..40), 1..5),
            starts in proptest::collection::vec(0..40_usize, 5),
            arriving in proptest::collection::vec(0..9_u64, 1..40),
            records_max in 1..8_usize,
            room in 1..9_usize,
        ) {
            let queues: Vec<Vec<u64>> = queues.into_iter().map(|queue| queue.into_iter().collect()).collect();
            let starts: Vec<usize> =
                queues.iter().zip(&starts).map(|(queue, start)| (*start).min(queue.len())).collect();
            let mut places = starts.clone();
            let (mut sent, mut readable) = (Vec::new(), 0);
            let mut arriving = arriving.into_iter().chain(std::iter::repeat(60));
            for _ in 0..400 {
                let mut merge = Merge::new(readable);
                for (index, queue) in queues.iter().enumerate() {
                    // More arrives before each read.
                    readable = 60.min(readable + arriving.next().unwrap_or_default());
                    let batch = read(queue, places[index], records_max, readable);
                    merge.add(SubscriptionKey(index), batch);
                }
                for _ in 0..room {
                    let Some((record, sources)) = merge.next() else { break };
                    for source in &sources {
                        let place = &mut places[source.subscription.0];
                        prop_assert_eq!(*place as u64, source.offset);
                        *place += 1;
                    }
                    let mut members: Vec<usize> = sources.iter().map(|source| source.subscription.0).collect();
                    members.sort_unstable();
                    sent.push((record.sequence, members));
                }
            }
            let expected: Vec<(u64, Vec<usize>)> = (0..60)
                .map(|sequence| {
                    let has = |(index, queue): (usize, &Vec<u64>)| {
                        queue[starts[index]..].contains(&sequence).then_some(index)
                    };
                    (sequence, queues.iter().enumerate().filter_map(has).collect::<Vec<_>>())
                })
                .filter(|(_, members)| !members.is_empty())
                .collect();
            prop_assert_eq!(sent, expected);
        }
    }

    #[test]
    fn nothing_is_sent_while_a_queue_has_more_that_was_not_read() {
        let mut merge = Merge::new(u64::MAX);
        merge.add(SubscriptionKey(0), read(&[5, 9], 0, 2, 100));
        merge.add(SubscriptionKey(1), read(&[5, 7, 9], 0, 1, 100));
        let (first, sources) = merge.next().unwrap();
        assert_eq!((first.sequence, sources.len()), (5, 2));
        assert!(merge.next().is_none(), "the other queue may have something before 9");
        assert_eq!(merge.limit, 6);
        // All that was read is gone from the log, and there is more: nothing is known.
        let gone = ReadBatch { records: Vec::new(), next: 3, skipped: 3, end: 9 };
        merge.add(SubscriptionKey(2), gone);
        assert_eq!(merge.limit, 0);
    }
}
