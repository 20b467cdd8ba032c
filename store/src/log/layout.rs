//! [`Layout`]: records on their way into the log, made ready by whoever appends them.
//!
//! The log writer is one thread: what can be done before a record has its place is done here, on the threads of those who append.

use bytes::BytesMut;
use smallvec::SmallVec;

use super::format;
use crate::queue::routes::Routes;
use crate::queue::table::SlotIndex;
use crate::{NewRecord, Retain};

/// Queues that are looked at together before the first of them gets its entry.
const AHEAD: usize = 64;
/// Topics that are looked up together: more would not overlap more, and each takes memory on its way.
const TOPICS: usize = 64;
/// A layout that waits takes no more for its queues than its records do, but at least this.
const WAITING_QUEUES_BYTES: usize = 64 << 10;

/// Records as they will be on disk but for their stamps, and where they go.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    bytes: BytesMut,
    records: Vec<Laid>,
    /// Queues that the records enter, those of one after those of the other.
    queues: Vec<SlotIndex>,
    /// The routes that say so; with others they have to be asked again.
    generation: u64,
    /// Shards that the records go to, and how many bytes to each.
    shards: SmallVec<[(u16, usize); 1]>,
}

/// One record of a [`Layout`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Laid {
    /// Bytes it takes in the log.
    pub(crate) size: u32,
    pub(crate) crc: u32,
    /// Of those that follow each other without another topic in between, the number.
    topic: u32,
    /// Of its queues, the number after the last one's.
    queues_end: u32,
    pub(crate) shard: u16,
    pub(crate) retain: Retain,
    kept: bool,
}

impl Layout {
    /// Nothing yet, with room for so many records that take so many bytes.
    pub(crate) fn with_room(records: usize, bytes: usize) -> Self {
        Layout {
            bytes: BytesMut::with_capacity(bytes),
            records: Vec::with_capacity(records),
            ..Layout::default()
        }
    }

    /// Adds a record. `kept`: when a retained message that is written again was stored first; it enters no queue.
    pub(crate) fn push(&mut self, record: &NewRecord, kept: Option<i64>) {
        let start = self.bytes.len();
        let crc = format::lay_out(record, kept, &mut self.bytes);
        self.records.push(Laid {
            size: (self.bytes.len() - start) as u32,
            crc,
            topic: 0,
            queues_end: 0,
            shard: 0,
            retain: record.retain,
            kept: kept.is_some(),
        });
    }

    /// Looks up where the records go, unless that was done with the same routes.
    pub(crate) fn route(&mut self, routes: &Routes) {
        if self.generation == routes.generation() {
            return;
        }
        self.generation = routes.generation();
        // What comes together is often of one topic.
        let mut topics: SmallVec<[&str; 8]> = SmallVec::new();
        let mut rest = &self.bytes[..];
        for laid in &mut self.records {
            let (record, later) = rest.split_at(laid.size as usize);
            rest = later;
            let topic = format::topic_of(record);
            if topics.last() != Some(&topic) {
                topics.push(topic);
            }
            laid.topic = topics.len() as u32 - 1;
        }
        self.queues.clear();
        self.shards.clear();
        let mut found = Vec::with_capacity(4 * topics.len().min(TOPICS));
        let (mut of_topic, mut from) = (0..0, 0);
        let (mut number, mut shard) = (None, 0);
        for laid in &mut self.records {
            if number != Some(laid.topic) {
                number = Some(laid.topic);
                let (first, at) = (laid.topic as usize / TOPICS * TOPICS, laid.topic as usize % TOPICS);
                if at == 0 {
                    let some = topics.get(first..topics.len().min(first + TOPICS)).unwrap_or_default();
                    routes.queues(some, &mut found);
                    from = 0;
                }
                let is_its = |(topic, _): &&(u32, u32)| *topic as usize == at;
                let count = found.iter().skip(from).take_while(is_its).count();
                of_topic = from..from + count;
                from += count;
                shard = topics.get(first + at).map_or(0, |topic| routes.shard(topic));
            }
            laid.shard = shard;
            let size = laid.size as usize;
            match self.shards.iter_mut().find(|(shard, _)| *shard == laid.shard) {
                Some((_, bytes)) => *bytes += size,
                None => self.shards.push((laid.shard, size)),
            }
            if !laid.kept {
                let queues = found.get(of_topic.clone()).unwrap_or_default();
                self.queues.extend(queues.iter().map(|(_, queue)| *queue));
            }
            laid.queues_end = self.queues.len() as u32;
        }
    }

    /// The same ahead of time, unless its queues would take more memory than its records while it waits for the log writer.
    pub(crate) fn route_early(&mut self, routes: &Routes) {
        self.route(routes);
        if self.queues.len() * size_of::<SlotIndex>() > self.bytes.len().max(WAITING_QUEUES_BYTES) {
            self.queues = Vec::new();
            self.generation = 0;
        }
    }

    /// How many records it has.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many queues its records enter, one after the other.
    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Bytes that the records take in the log.
    pub(crate) fn log_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory it takes while it waits, about.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Laid>() + self.queues.len() * size_of::<SlotIndex>()
    }

    /// Shards that the records go to, and how many bytes to each.
    pub(crate) fn shards(&self) -> &[(u16, usize)] {
        &self.shards
    }

    /// The records in order, with their bytes: those that follow each other in one shard together.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&[Laid], &[u8])> {
        let mut rest = &self.bytes[..];
        self.records.chunk_by(|one, next| one.shard == next.shard).map(move |run| {
            let size = run.iter().map(|laid| laid.size as usize).sum();
            let (bytes, later) = rest.split_at(size);
            rest = later;
            (run, bytes)
        })
    }

    /// The records in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entering<'_>> {
        let (mut start, mut from, mut approached) = (0, 0, 0);
        self.records.iter().map(move |laid| {
            let (end, to) = (start + laid.size as usize, laid.queues_end as usize);
            let record = self.bytes.get(start..end).unwrap_or_default();
            let queues = self.queues.get(from..to).unwrap_or_default();
            let mut ahead = &[][..];
            if to > approached {
                let begin = approached;
                approached = (begin + AHEAD).max(to).min(self.queues.len());
                ahead = self.queues.get(begin..approached).unwrap_or_default();
            }
            (start, from) = (end, to);
            Entering { retain: laid.retain, record, queues, ahead }
        })
    }
}

/// A record about to enter its queues.
pub(crate) struct Entering<'a> {
    pub(crate) retain: Retain,
    pub(crate) record: &'a [u8],
    pub(crate) queues: &'a [SlotIndex],
    /// These queues and those of some records after this one, unless a record before had them here.
    pub(crate) ahead: &'a [SlotIndex],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Streams;

    fn record(topic: &'static str) -> NewRecord {
        NewRecord {
            topic: topic.into(),
            properties: Default::default(),
            payload: "payload".into(),
            attributes: 0,
            retain: Retain::No,
        }
    }

    fn queues(layout: &Layout) -> Vec<&[SlotIndex]> {
        layout.entries().map(|entering| entering.queues).collect()
    }

    #[test]
    fn each_record_has_its_queues_by_the_routes_that_count() {
        let mut routes = Routes::new(Streams::only_one());
        routes.add("a/+", 7);
        routes.add("a/b", 3);
        let mut layout = Layout::default();
        for topic in ["a/b", "a/b", "x", "a/c", "a/b"] {
            layout.push(&record(topic), None);
        }
        layout.push(&record("a/b"), Some(1));
        layout.push(&record("a/b"), None);
        layout.route(&routes);
        let none: &[SlotIndex] = &[];
        assert_eq!(queues(&layout), [&[3, 7][..], &[3, 7], none, &[7], &[3, 7], none, &[3, 7]]);
        routes.remove("a/+", 7);
        assert_eq!(queues(&layout)[3], [7], "until it is asked again");
        layout.route(&routes);
        assert_eq!(queues(&layout), [&[3][..], &[3], none, none, &[3], none, &[3]]);
    }

    #[test]
    fn every_queue_is_looked_at_once_before_it_gets_its_entry() {
        let mut routes = Routes::new(Streams::only_one());
        (0..AHEAD as u32 / 2 + 3).for_each(|queue| routes.add("a/#", queue));
        let mut layout = Layout::default();
        (0..9).for_each(|_| layout.push(&record("a/b"), None));
        layout.route(&routes);
        let (mut ahead, mut entered) = (Vec::new(), Vec::new());
        for entering in layout.entries() {
            assert_eq!(format::topic_of(entering.record), "a/b");
            ahead.extend_from_slice(entering.ahead);
            entered.extend_from_slice(entering.queues);
            assert!(ahead.len() >= entered.len());
        }
        assert_eq!(ahead, entered);
        assert_eq!(entered.len(), 9 * (AHEAD / 2 + 3));
    }

    #[test]
    fn many_topics_and_many_queues_come_out_the_same() {
        let mut routes = Routes::new(Streams::only_one());
        for queue in 0..300 {
            routes.add(&format!("t/{}", queue / 2), queue);
        }
        let mut layout = Layout::default();
        let topics: Vec<u32> = (0..3 * TOPICS as u32 + 7).map(|n| n * 7 % 160).collect();
        for topic in &topics {
            let topic = bytestring::ByteString::from(format!("t/{topic}"));
            layout.push(&NewRecord { topic, ..record("") }, None);
        }
        layout.route_early(&routes);
        let expected = |topic: &u32| if *topic < 150 { vec![topic * 2, topic * 2 + 1] } else { vec![] };
        assert!(queues(&layout).into_iter().eq(topics.iter().map(expected)));

        (0..WAITING_QUEUES_BYTES as u32).for_each(|queue| routes.add("#", 300 + queue));
        layout.route_early(&routes);
        assert_eq!(layout.queues.capacity(), 0, "they would take more than the records");
        layout.route(&routes);
        let all = queues(&layout);
        assert!(all.iter().all(|queues| queues.len() >= WAITING_QUEUES_BYTES));
    }

    #[test]
    fn runs_hold_every_byte() {
        let mut layout = Layout::default();
        ["a", "b", "a"].iter().for_each(|topic| layout.push(&record(topic), None));
        layout.route(&Routes::new(Streams::only_one()));
        let runs: Vec<_> = layout.runs().map(|(run, bytes)| (run.len(), bytes.len())).collect();
        assert_eq!(runs, [(3, layout.log_bytes())]);
        assert_eq!(layout.shards(), [(0, layout.log_bytes())]);
    }
}
