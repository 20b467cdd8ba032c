//! [`Driver`]: one random step after the other, done to the store and to its model.

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidemill_store::{
    Collection, CursorKey, CursorPlace, DeadLetter, Due, FilterRequest, Flush, History, Keep, NewRecord,
    Options, QueueId, QueueInfo, QueueKind, ReadRequest, Retain, Start, Store, Watcher,
};

use crate::check;
use crate::model::{Derivation, Model, Queue};
use crate::random::Random;

const TOPICS: [&str; 11] = ["a", "a/x", "a/y", "a/x/1", "b", "b/x", "b/y/2", "$S/x", "c", "c//", "d/1/2/3"];
const FILTERS: [&str; 14] = [
    "#", "+", "a/#", "a/+", "a/x", "+/x", "b/+/2", "b/#", "$S/#", "a/x/1", "c/#", "+/+/#", "d/+/+/3", "none",
];
/// Cursors of the consumer that derives, and its source.
const ROUTER: &str = "router";
/// Longer than any round.
const NEVER: Duration = Duration::from_secs(3600);

pub(crate) struct Driver {
    pub(crate) dir: TempDir,
    pub(crate) options: Options,
    pub(crate) store: Option<Store>,
    pub(crate) model: Model,
    pub(crate) watcher: Watcher,
    /// Queue, offset and token.
    pub(crate) armed: Vec<(QueueId, u64, u64)>,
    serial: u64,
}

impl Driver {
    /// An empty store, opened in one of many ways.
    pub(crate) fn new(random: &mut Random, shards: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flush = random.pick(&[Flush::Sync, Flush::Async]);
        let options = Options {
            flush,
            shards,
            segment_bytes: random.number(600..4000),
            tail_cache_bytes: random.number(0..6000) as usize,
            index_buffer_bytes: random.number(500..20_000) as usize,
            queue_ttl: Duration::ZERO,
            checkpoint_interval: Duration::from_millis(random.number(1..30)),
            async_flush_interval: random.pick(&[Duration::from_millis(3), NEVER]),
            ..Options::new(dir.path())
        };
        let store = Some(Store::open(options.clone()).unwrap());
        let (watcher, armed) = (Watcher::new(), Vec::new());
        Driver { dir, options, store, model: Model::new(flush), watcher, armed, serial: 0 }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) async fn step(&mut self, random: &mut Random) {
        match random.number(0..100) {
            0..28 => self.append(random).await,
            28..38 => self.open_filter(random).await,
            38..43 => self.open_union(random).await,
            43..46 => self.release(random).await,
            46..48 => self.delete(random).await,
            48..56 => self.derive(random).await,
            56..64 => self.move_cursor(random).await,
            64..75 => self.read(random).await,
            75..78 => check::scan(self.store(), &self.model, random.pick(&FILTERS), 7).await,
            78..82 => {
                let limit = random.number(1..5) as usize;
                check::retained(self.store(), &self.model, random.pick(&FILTERS), limit).await;
            }
            82..85 => self.document(random).await,
            85..87 => self.dead_letter(random).await,
            87..92 => self.watch(random),
            92..94 => self.checkpoint().await,
            94 => self.sweep().await,
            95 => self.close(random).await,
            96 => self.retain(random).await,
            97 => self.lose_power(random).await,
            _ => self.die(random).await,
        }
        self.bells().await;
    }

    /// Records for one batch.
    pub(crate) fn batch(&mut self, random: &mut Random) -> Vec<NewRecord> {
        let count = if self.serial.is_multiple_of(7) { 40 } else { self.serial % 5 };
        let one = |_| {
            self.serial += 1;
            let mut payload = self.serial.to_string().into_bytes();
            payload.resize(payload.len() + random.index(200), b' ');
            let retain = match random.number(0..100) {
                0..15 => Retain::Set,
                15..25 => Retain::Clear,
                _ => Retain::No,
            };
            let (properties, attributes) =
                (Bytes::from(vec![7; random.index(5)]), random.number(0..256) as u8);
            let topic = random.pick(&TOPICS).into();
            NewRecord { topic, properties, payload: payload.into(), attributes, retain }
        };
        (0..count.max(1)).map(one).collect()
    }

    async fn append(&mut self, random: &mut Random) {
        let store = self.store().clone();
        let mut receipts = Vec::new();
        for _ in 0..random.number(1..5) {
            let batch = self.batch(random);
            receipts.push((batch.clone(), store.submit(batch).await.unwrap()));
        }
        for (batch, receipt) in receipts {
            let positions = receipt.await.unwrap().positions;
            assert_eq!(positions.len(), batch.len());
            for (new, position) in batch.into_iter().zip(positions) {
                let record = store.record_at(position).await.unwrap().unwrap();
                assert!(self.model.flush == Flush::Async || store.is_durable(position));
                self.stored(new, record);
            }
        }
    }

    /// Enters a record into the model, after a look at what the store made of it.
    pub(crate) fn stored(&mut self, new: NewRecord, record: tidemill_store::Record) {
        let found = (&record.topic, &record.properties, &record.payload, record.attributes, record.retain);
        assert_eq!(found, (&new.topic, &new.properties, &new.payload, new.attributes, new.retain));
        let before = self.model.records.last();
        assert_eq!(record.sequence, self.model.sequence);
        assert!(before.is_none_or(|before| before.time_ms <= record.time_ms));
        self.model.store(record);
    }

    async fn open_filter(&mut self, random: &mut Random) {
        let filter = random.pick(&FILTERS).to_owned();
        let keep = if random.chance(30) { Keep::Live } else { Keep::Durable };
        let since = match random.number(0..100) {
            0..60 => None,
            60..80 => Some((History::Earliest, i64::MIN)),
            _ => {
                let some = random.index(self.model.records.len() + 1);
                let time = self.model.records.get(some).map_or(i64::MAX, |record| record.time_ms);
                Some((History::Since(time), time))
            }
        };
        let history = since.map_or(History::None, |(history, _)| history);
        let request = FilterRequest { filter: filter.clone(), keep, history };
        let info = self.store().open_filters(vec![request]).await.unwrap().remove(0);
        let model = &mut self.model;
        if let Some(id) = model.named(&QueueKind::Filter, &filter) {
            let queue = model.queues.get_mut(&id).unwrap();
            if queue.live && keep == Keep::Durable {
                queue.live = false;
                queue.soft = queue.entries.len();
            }
            assert_eq!((info.id, info.end), (id, queue.end()));
            queue.references += 1;
            return;
        }
        let mut entries = Vec::new();
        if let Some((_, since)) = since.filter(|_| keep == Keep::Durable) {
            entries = model.matching(&filter);
            entries.retain(|place| model.records[*place].time_ms >= since);
        }
        assert_eq!(info.end - info.first, entries.len() as u64, "{history:?} of {filter}");
        self.made(&info, filter, entries, 1);
    }

    /// Enters a queue into the model that is new.
    fn made(&mut self, info: &QueueInfo, name: String, entries: Vec<usize>, references: usize) {
        let (kind, live, first) = (info.kind.clone(), info.live, info.first);
        let queue = Queue { kind, name, live, references, first, entries, soft: 0 };
        assert!(self.model.queues.insert(info.id, queue).is_none());
    }

    async fn open_union(&mut self, random: &mut Random) {
        let name = random.pick(&["u0", "u1"]).to_owned();
        let mut filters: Vec<String> =
            (0..random.number(0..4)).map(|_| random.pick(&FILTERS).to_owned()).collect();
        filters.sort();
        filters.dedup();
        self.union(&name, &filters).await;
    }

    async fn union(&mut self, name: &str, filters: &[String]) -> QueueId {
        let info = self.store().open_union(name, filters).await.unwrap();
        match self.model.named(&info.kind, name) {
            Some(id) => {
                assert_eq!(info.id, id);
                self.model.queues.get_mut(&id).unwrap().kind = QueueKind::Union(filters.to_vec());
            }
            None => self.made(&info, name.to_owned(), Vec::new(), 0),
        }
        info.id
    }

    /// Some queue, most of the time.
    fn some_queue(&self, random: &mut Random) -> Option<QueueId> {
        let ids: Vec<QueueId> = self.model.queues.keys().copied().collect();
        (!ids.is_empty()).then(|| random.pick(&ids))
    }

    async fn release(&mut self, random: &mut Random) {
        let Some(id) = self.some_queue(random) else { return };
        self.store().release_filters(vec![id]).await.unwrap();
        let queue = self.model.queues.get_mut(&id).unwrap();
        if queue.references == 1 {
            self.model.queues.remove(&id);
        } else {
            queue.references = queue.references.saturating_sub(1);
        }
    }

    async fn delete(&mut self, random: &mut Random) {
        let Some(id) = self.some_queue(random) else { return };
        if self.model.queues[&id].name != ROUTER {
            self.store().delete_queue(id).await.unwrap();
            self.model.queues.remove(&id);
        }
    }

    async fn sweep(&mut self) {
        let before = self.model.queues.len();
        self.model.queues.retain(|_, queue| queue.kind != QueueKind::Filter || queue.references > 0);
        assert_eq!(self.store().sweep().await.unwrap(), before - self.model.queues.len());
    }

    async fn derive(&mut self, random: &mut Random) {
        let source = self.union(ROUTER, &["a/#".into(), "b/#".into()]).await;
        let key = CursorKey { owner: ROUTER.into(), queue: source };
        let at = self.store().derived_to(&key).await.unwrap();
        assert_eq!(at, self.model.derivations.last().map(|derivation| derivation.place));
        let from = at.map_or(0, |place| place.offset);
        let records_max = random.number(1..30) as usize;
        let durable = random.chance(50);
        let request = ReadRequest { queue: source, from, records_max, bytes_max: 2000, durable };
        let batch = self.store().read(request).await.unwrap();
        let Some((_, last)) = batch.records.last() else { return };
        let mut derived = Vec::new();
        for name in ["d0", "d1"] {
            let info = self.store().open_derived(name).await.unwrap();
            if !self.model.queues.contains_key(&info.id) {
                self.made(&info, name.into(), Vec::new(), 0);
            }
            derived.push(info.id);
        }
        let wanted: Vec<_> =
            batch.records.iter().filter(|(_, record)| record.payload.len() % 3 > 0).collect();
        let to = |record: &tidemill_store::Record| derived[record.payload.len() % 3 - 1];
        let place = CursorPlace { offset: batch.next, sequence: last.sequence };
        let entries = wanted.iter().map(|(_, record)| (to(record), record.pointer())).collect();
        self.store().derive(key, place, entries).await.unwrap();
        let model = &mut self.model;
        let mut done = Vec::new();
        for (_, record) in wanted {
            let at = model.records.iter().position(|known| known.sequence == record.sequence).unwrap();
            model.queues.get_mut(&to(record)).unwrap().entries.push(at);
            done.push((to(record), at));
        }
        model.derivations.push(Derivation { place, entries: done });
    }

    async fn move_cursor(&mut self, random: &mut Random) {
        let Some(queue) = self.some_queue(random) else { return };
        let key = CursorKey { owner: random.pick(&["c0", "c1"]).to_owned(), queue };
        let (first, end) = (self.model.first(queue), self.model.queues[&queue].end());
        match self.model.cursors.get(&key).and_then(|places| places.last()).copied() {
            None => {
                let some = random.number(first..end + 1);
                let starts = [(Start::Earliest, first), (Start::Latest, end), (Start::Offset(some), some)];
                let (start, offset) = random.pick(&starts);
                let place = self.store().open_cursor(key.clone(), start).await.unwrap().place;
                assert_eq!(place, CursorPlace { offset, sequence: 0 });
                self.model.cursors.insert(key, vec![place]);
            }
            Some(place) if random.chance(30) => {
                let found = self.store().open_cursor(key.clone(), Start::Latest).await.unwrap();
                assert!(self.model.may_be_found(&key, place, found.place), "{key:?} {place:?} {found:?}");
            }
            Some(_) if random.chance(15) => {
                self.store().delete_cursor(&key).await.unwrap();
                self.model.cursors.remove(&key);
                assert!(
                    self.store().cursors(&key.owner, None, 100).await.unwrap().iter().all(|(k, _)| *k != key)
                );
            }
            Some(place) => {
                let later = self.model.entries(queue).skip_while(|(offset, _)| *offset < place.offset);
                let later: Vec<CursorPlace> = later
                    .map(|(offset, record)| CursorPlace { offset: offset + 1, sequence: record.sequence })
                    .collect();
                if !later.is_empty() {
                    let place = random.pick(&later);
                    let cursor = self.store().open_cursor(key.clone(), Start::Latest).await.unwrap();
                    self.store().commit(cursor.id, place);
                    self.model.cursors.get_mut(&key).unwrap().push(place);
                }
            }
        }
    }

    async fn read(&mut self, random: &mut Random) {
        let Some(queue) = self.some_queue(random) else { return };
        let (first, end) = (self.model.queues[&queue].first, self.model.queues[&queue].end());
        let from = random.number(first.saturating_sub(3)..end + 3);
        let (records_max, bytes_max) = (random.number(1..60) as usize, random.index(4000));
        let durable = random.chance(40);
        let request = ReadRequest { queue, from, records_max, bytes_max, durable };
        let batch = self.store().read(request).await.unwrap();
        let found: Vec<_> = batch.records.iter().map(|(offset, record)| (*offset, record)).collect();
        let expected: Vec<_> = self.model.entries(queue).skip_while(|(offset, _)| *offset < from).collect();
        assert!(expected.starts_with(&found), "{request:?}");
        assert!(found.len() <= records_max);
        let bytes: usize = found.iter().map(|(_, record)| record.size as usize).sum();
        assert!(bytes <= bytes_max || found.len() == 1, "{request:?}");
        let is_whole = !durable || self.model.flush == Flush::Sync;
        assert!(!found.is_empty() || expected.is_empty() || !is_whole, "{request:?}");
        assert!(!durable || found.iter().all(|(_, record)| self.store().is_durable(record.position)));
        // What is passed over is gone.
        assert_eq!(batch.next - from, found.len() as u64 + batch.skipped, "{request:?}");
        assert!(found.last().is_none_or(|(last, _)| batch.next > *last), "{request:?}");
        let rest = expected.get(found.len()).map_or(end.max(from), |(offset, _)| *offset);
        assert!(batch.next <= rest, "{request:?}: {} and not {rest}", batch.next);
        assert!(batch.end == end || (!is_whole && batch.end < end), "{request:?}");
        if let Some((offset, record)) = expected.first()
            && from >= first
        {
            let found = self.store().offset_at(queue, record.time_ms).await.unwrap();
            let is_late = |other: &tidemill_store::Record| other.time_ms >= record.time_ms;
            assert!(self.model.divides(queue, found, is_late), "{found} for {offset}");
        }
    }

    async fn document(&mut self, random: &mut Random) {
        let key = format!("k{}", random.number(0..8));
        let sessions = Collection::Sessions;
        let was = self.model.due.remove(&key);
        if random.chance(70) {
            let value = Bytes::from(vec![1; random.index(50)]);
            let is = random.chance(70).then(|| random.number(0..4) as i64 - 2);
            self.store().put_document(sessions, &key, value.clone(), Due { was, is }).await.unwrap();
            self.model.documents.insert(key.clone(), value);
            is.map(|is| self.model.due.insert(key.clone(), is));
        } else {
            self.store().delete_document(sessions, &key, was).await.unwrap();
            self.model.documents.remove(&key);
        }
        let found = self.store().document(sessions, &key).await.unwrap();
        assert_eq!(found.as_ref(), self.model.documents.get(&key));
        check::documents(self.store(), &self.model, random.number(1..4) as usize).await;
    }

    async fn dead_letter(&mut self, random: &mut Random) {
        if self.model.records.is_empty() {
            return;
        }
        let pointer = self.model.records[random.index(self.model.records.len())].pointer();
        let (offset, attempts) = (random.number(0..99), random.number(0..9) as u32);
        let letter = DeadLetter { pointer, offset, time_ms: -5, attempts, error: "é".into() };
        let owner = random.pick(&["o", "ow", ""]).to_owned();
        let letters = self.model.letters.entry(owner.clone()).or_default();
        letters.insert(pointer.position.to_u64(), letter.clone());
        let count = letters.len() as u64;
        assert_eq!(self.store().put_dead_letters(&owner, vec![letter]).await.unwrap(), count);
        check::letters(self.store(), &self.model).await;
    }

    fn watch(&mut self, random: &mut Random) {
        let Some(queue) = self.some_queue(random) else { return };
        if random.chance(15) {
            self.store().unwatch(queue, &self.watcher, None);
            self.armed.retain(|(armed, _, _)| *armed != queue);
            return;
        }
        self.serial += 1;
        let end = self.model.queues[&queue].end();
        let offset = random.number(end.saturating_sub(2)..end + 12);
        let lazy = self.model.flush == Flush::Async && self.options.async_flush_interval == NEVER;
        let durable = !lazy && random.chance(50);
        self.store().watch(queue, offset, durable, &self.watcher, self.serial).unwrap();
        self.armed.push((queue, offset, self.serial));
    }

    /// Those bells ring that should, and no others.
    async fn bells(&mut self) {
        let queues = &self.model.queues;
        let is_due = |(queue, offset, _): &(QueueId, u64, u64)| {
            queues.get(queue).is_none_or(|queue| *offset < queue.end())
        };
        let (mut due, armed): (Vec<_>, Vec<_>) = self.armed.drain(..).partition(is_due);
        self.armed = armed;
        let mut rung = self.watcher.take();
        loop {
            for token in rung {
                let at = due.iter().position(|(_, _, due)| *due == token);
                let at =
                    at.unwrap_or_else(|| panic!("{token} rings; due is {due:?}, armed {:?}", self.armed));
                due.swap_remove(at);
            }
            if due.is_empty() {
                return;
            }
            let ready = tokio::time::timeout(Duration::from_secs(20), self.watcher.ready());
            rung = ready.await.unwrap_or_else(|_| panic!("these should have rung: {due:?}"));
        }
    }

    async fn checkpoint(&mut self) {
        self.store().checkpoint().await.unwrap();
        let model = &mut self.model;
        model.derived_surely = model.derivations.len();
        model.queues.values_mut().for_each(|queue| queue.soft = 0);
        if model.flush == Flush::Sync {
            model.cursors.values_mut().for_each(|places| drop(places.drain(..places.len() - 1)));
        }
    }
}
