//! Targets that do what a test says, over a real store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidemill_connectors::{BatchMax, Fault, Follow, OutEvent, SendError, Sink, Target};
use tidemill_rules::{Retry, RuleSet, Template, yaml};
use tidemill_store::faults::hold_documents;
use tidemill_store::{Cursor, CursorKey, CursorPlace, Options, QueueInfo, ReadRequest, Start, Store};

use super::map::Mapper;
use super::status::{State, TargetStatus};
use super::task::{Plan, Stop, supervise};
use crate::identity::EventIds;
use crate::message::{self, Properties};
use crate::mqtt::codec::Qos;

const RULES: &str = r#"
connections:
  out: { file: { path: unused } }
rules:
  - name: all
    from: { mqtt: ["t/#"] }
    data: { n: "{{ data.n }}" }
    to: [ { out: } ]
"#;

/// What a target does with an event, by the event's number.
type Behaviour = dyn Fn(u64, u32) -> Result<(), SendError> + Send + Sync;

/// A destination whose answers a test writes.
struct Scripted {
    behaviour: Box<Behaviour>,
    seen: Mutex<Seen>,
    batch: usize,
}

#[derive(Default)]
struct Seen {
    /// Numbers of confirmed events, in order.
    confirmed: Vec<u64>,
    ids: Vec<String>,
    attempts: HashMap<u64, u32>,
    sends: usize,
    batch_max: usize,
}

impl Scripted {
    fn new(behaviour: impl Fn(u64, u32) -> Result<(), SendError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Scripted { behaviour: Box::new(behaviour), seen: Mutex::default(), batch: 4 })
    }

    fn confirmed(&self) -> Vec<u64> {
        self.seen.lock().confirmed.clone()
    }
}

struct Handle(Arc<Scripted>);

impl Target for Handle {
    fn describe(&self) -> String {
        "a script".to_owned()
    }

    fn templates(&self) -> &[Template] {
        &[]
    }

    fn batch_max(&self) -> BatchMax {
        BatchMax { events: self.0.batch, bytes: 1 << 20 }
    }

    fn open(&self) -> Result<Box<dyn Sink>, SendError> {
        Ok(Box::new(Handle(Arc::clone(&self.0))))
    }
}

#[async_trait]
impl Sink for Handle {
    async fn send(&mut self, batch: &[OutEvent]) -> Vec<Result<(), SendError>> {
        tokio::task::yield_now().await;
        let mut seen = self.0.seen.lock();
        seen.sends += 1;
        seen.batch_max = seen.batch_max.max(batch.len());
        let mut held: HashMap<u64, SendError> = HashMap::new();
        let mut outcomes = Vec::new();
        for event in batch {
            if let Some(error) = held.get(&event.order_key) {
                outcomes.push(Err(error.clone()));
                continue;
            }
            let data: serde_json::Value = serde_json::from_slice(event.event.data.as_ref().unwrap()).unwrap();
            let number = data["n"].as_u64().unwrap();
            let attempt = seen.attempts.entry(number).or_default();
            *attempt += 1;
            let outcome = (self.0.behaviour)(number, *attempt);
            match &outcome {
                Ok(()) => {
                    seen.confirmed.push(number);
                    seen.ids.push(event.event.id.clone());
                }
                Err(error) if error.follow == Follow::GiveUp => {}
                Err(error) => {
                    held.insert(event.order_key, error.clone());
                }
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn probe(&mut self) -> Result<(), SendError> {
        Ok(())
    }
}

fn error(follow: Follow) -> SendError {
    SendError { fault: Fault::Theirs, follow, message: "scripted".to_owned(), retry_after: None }
}

/// A store with one rule's queue.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    set: Arc<RuleSet>,
    queue: QueueInfo,
    source: QueueInfo,
}

impl Bench {
    async fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path());
        let store = tokio::task::spawn_blocking(|| Store::open(options)).await.unwrap().unwrap();
        let source = yaml::Source { name: "rules.yaml".to_owned(), text: RULES.to_owned() };
        let set = Arc::new(tidemill_rules::load(&[yaml::parse(Arc::new(source)).unwrap()]).unwrap());
        let source = store.open_union("router", &["t/#".to_owned()]).await.unwrap();
        let queue = store.open_derived("rule/all").await.unwrap();
        Bench { dir, store, set, queue, source }
    }

    /// Publishes numbers, each to the topic `t/<key>`, and derives the rule's queue from them.
    async fn publish(&self, numbers: impl IntoIterator<Item = (u64, &'static str)>) {
        let (count, _) = self.append(numbers).await;
        self.derive(count).await;
    }

    /// How many there were, and the sequence of the first.
    async fn append(&self, numbers: impl IntoIterator<Item = (u64, &'static str)>) -> (usize, u64) {
        let properties = Properties { client: "c".into(), ..Properties::default() }.encode().unwrap();
        let records = numbers.into_iter().map(|(number, key)| {
            let payload = if key == "bad" { "no json".to_owned() } else { format!(r#"{{"n":{number}}}"#) };
            let topic = format!("t/{key}").into();
            message::record(topic, properties.clone(), Bytes::from(payload), Qos::AtLeastOnce, false)
        });
        let records: Vec<_> = records.collect();
        let count = records.len();
        let first = self.store.next_sequence();
        self.store.append(records).await.unwrap();
        (count, first)
    }

    /// Derives the rule's queue from the newest records.
    async fn derive(&self, count: usize) {
        let request = ReadRequest {
            queue: self.source.id,
            from: self.store.queue_end(self.source.id).unwrap() - count as u64,
            records_max: count,
            bytes_max: 1 << 20,
            durable: true,
        };
        let read = self.store.read(request).await.unwrap();
        assert_eq!(read.records.len(), count);
        let key = CursorKey { owner: "router".to_owned(), queue: self.source.id };
        let place = CursorPlace { offset: read.next, sequence: read.records.last().unwrap().1.sequence };
        let entries = read.records.iter().map(|(_, record)| (self.queue.id, record.pointer())).collect();
        self.store.derive(key, place, entries).await.unwrap();
    }

    fn key(&self) -> CursorKey {
        CursorKey { owner: "target/all/out".to_owned(), queue: self.queue.id }
    }

    async fn deliver(&self, script: &Arc<Scripted>, retry: Retry) -> Running {
        let Cursor { id, place } = self.store.open_cursor(self.key(), Start::Earliest).await.unwrap();
        let status = Arc::new(TargetStatus::new(place.offset, 0));
        let mapper = Mapper {
            set: Arc::clone(&self.set),
            rule: 0,
            target: Arc::new(Handle(Arc::clone(script))),
            ids: EventIds::of(&self.store),
        };
        let stop = Stop::default();
        let plan = Plan {
            store: self.store.clone(),
            target: "out".to_owned(),
            mapper: Arc::new(mapper),
            key: self.key(),
            cursor: id,
            done: place.sequence,
            retry,
            status: Arc::clone(&status),
            stop: stop.clone(),
        };
        Running { task: tokio::spawn(supervise(plan)), status, stop, queue: self.queue.clone() }
    }
}

struct Running {
    task: tokio::task::JoinHandle<()>,
    status: Arc<TargetStatus>,
    stop: Stop,
    queue: QueueInfo,
}

impl Running {
    async fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let waited = async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn until_cursor(&self, offset: u64) {
        self.until(&format!("cursor at {offset}"), || self.status.cursor() == offset).await;
    }

    async fn stop(self) {
        self.stop.soft.cancel();
        self.task.await.unwrap();
    }
}

fn fast() -> Retry {
    Retry { first: Duration::from_millis(1), max: Duration::from_millis(5), ..Retry::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn delivers_in_batches_and_goes_on_after_a_restart() {
    let bench = Bench::new().await;
    bench.publish((0..10).map(|n| (n, "a"))).await;
    let script = Scripted::new(|_, _| Ok(()));
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(10).await;
    bench.publish((10..12).map(|n| (n, "a"))).await;
    running.until_cursor(12).await;
    running.stop().await;
    assert_eq!(script.confirmed(), (0..12).collect::<Vec<_>>());
    assert!(script.seen.lock().batch_max <= 4);

    bench.store.checkpoint().await.unwrap();
    bench.publish([(12, "a")]).await;
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(13).await;
    running.stop().await;
    assert_eq!(
        script.confirmed(),
        (0..13).collect::<Vec<_>>(),
        "nothing is sent again after an orderly stop"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_is_lag_and_everything_arrives_in_order() {
    let bench = Bench::new().await;
    bench.publish((0..20).map(|n| (n, if n % 2 == 0 { "a" } else { "b" }))).await;
    // Number 3 fails five times, and with it all later ones of its topic.
    let script = Scripted::new(
        |number, attempt| if number == 3 && attempt <= 5 { Err(error(Follow::Retry)) } else { Ok(()) },
    );
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(20).await;
    let snapshot = running.status.snapshot(&bench.store, running.queue.id);
    running.stop().await;
    let confirmed = script.confirmed();
    let of = |rest| confirmed.iter().copied().filter(|n| n % 2 == rest).collect::<Vec<_>>();
    assert_eq!(of(0), (0..20).step_by(2).collect::<Vec<_>>());
    assert_eq!(of(1), (1..20).step_by(2).collect::<Vec<_>>());
    assert_eq!((snapshot.state, snapshot.delivered, snapshot.lag), (State::Running, 20, 0));
    assert!(snapshot.retries >= 5 && snapshot.last_error.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_limits_nothing_is_given_up_and_the_cursor_stays() {
    let bench = Bench::new().await;
    bench.publish((0..6).map(|n| (n, "a"))).await;
    let script = Scripted::new(|number, _| if number == 1 { Err(error(Follow::Retry)) } else { Ok(()) });
    let running = bench.deliver(&script, fast()).await;
    running.until("many attempts", || script.seen.lock().attempts.get(&1).is_some_and(|n| *n > 20)).await;
    assert_eq!(running.status.cursor(), 1, "the cursor never passes what is not confirmed");
    let snapshot = running.status.snapshot(&bench.store, running.queue.id);
    assert_eq!((snapshot.state, snapshot.lag, snapshot.dead_letters), (State::Retrying, 5, 0));
    running.stop().await;
    assert_eq!(script.confirmed(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_attempts_counts_for_each_event_and_ends_in_a_dead_letter() {
    let bench = Bench::new().await;
    bench.publish((0..8).map(|n| (n, "a"))).await;
    let script = Scripted::new(|number, _| if number == 2 { Err(error(Follow::Retry)) } else { Ok(()) });
    let retry = Retry { attempts: Some(3), ..fast() };
    let running = bench.deliver(&script, retry).await;
    running.until_cursor(8).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [0, 1, 3, 4, 5, 6, 7], "the others are not counted with it");
    let letters = bench.store.dead_letters("target/all/out", 0, 10).await.unwrap();
    let told: Vec<_> =
        letters.iter().map(|(_, letter)| (letter.offset, letter.attempts, &*letter.error)).collect();
    assert_eq!(told, [(2, 3, "scripted")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_gave_everything_up_is_running_again() {
    let bench = Bench::new().await;
    bench.publish((0..2).map(|n| (n, "a"))).await;
    let script = Scripted::new(|_, _| Err(error(Follow::Retry)));
    let running = bench.deliver(&script, Retry { attempts: Some(2), ..fast() }).await;
    running.until_cursor(2).await;
    let snapshot = || running.status.snapshot(&bench.store, running.queue.id);
    running.until("nothing is pending", || snapshot().state == State::Running).await;
    assert_eq!((snapshot().lag, snapshot().dead_letters), (0, 2));
    assert_eq!(snapshot().last_error.as_deref(), Some("scripted"), "what failed last is kept");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_or_never_accepted_is_dead_at_once() {
    let bench = Bench::new().await;
    bench.publish([(0, "a"), (1, "bad"), (2, "a"), (3, "a")]).await;
    let script = Scripted::new(|number, _| if number == 2 { Err(error(Follow::GiveUp)) } else { Ok(()) });
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(4).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [0, 3]);
    let letters = bench.store.dead_letters("target/all/out", 0, 10).await.unwrap();
    let told: Vec<_> = letters.iter().map(|(_, letter)| (letter.offset, letter.attempts)).collect();
    assert_eq!(told, [(1, 0), (2, 1)]);
    assert!(letters[0].1.error.contains("data.n"), "{}", letters[0].1.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_waits_for_a_person_and_gives_nothing_up() {
    let bench = Bench::new().await;
    bench.publish((0..3).map(|n| (n, "a"))).await;
    let script = Scripted::new(|_, attempt| if attempt <= 6 { Err(error(Follow::Stop)) } else { Ok(()) });
    let retry = Retry { attempts: Some(2), ..fast() };
    let running = bench.deliver(&script, retry).await;
    let status = Arc::clone(&running.status);
    let (store, queue) = (bench.store.clone(), running.queue.id);
    running.until("stopped", move || status.snapshot(&store, queue).state == State::Stopped).await;
    running.until_cursor(3).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [0, 1, 2]);
    assert_eq!(bench.store.dead_letter_count("target/all/out").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_a_connector_ends_one_attempt_only() {
    let bench = Bench::new().await;
    bench.publish((0..3).map(|n| (n, "a"))).await;
    let script = Scripted::new(|number, attempt| {
        assert!(number != 1 || attempt > 1, "scripted panic");
        Ok(())
    });
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(3).await;
    running.stop().await;
    let seen = script.seen.lock();
    assert_eq!(seen.confirmed, [0, 0, 1, 2], "0 is sent again, then the rest");
    assert_eq!(seen.ids.iter().collect::<std::collections::HashSet<_>>().len(), 3, "under the same id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_stop_leaves_what_is_not_confirmed_for_the_next_start() {
    let bench = Bench::new().await;
    bench.publish((0..4).map(|n| (n, "a"))).await;
    let never = Scripted::new(|_, _| Err(error(Follow::Retry)));
    let slow = Retry { first: Duration::from_secs(60), max: Duration::from_secs(60), ..Retry::default() };
    let running = bench.deliver(&never, slow).await;
    running.until("one attempt", || never.seen.lock().sends == 1).await;
    running.stop().await;
    let script = Scripted::new(|_, _| Ok(()));
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(4).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_derived_anew_after_a_crash_are_not_sent_again() {
    let bench = Bench::new().await;
    let (count, first) = bench.append((0..5).map(|n| (n, "a"))).await;
    // As a crash leaves it: the cursor is durable, and the queue has to be derived again.
    let cursor = bench.store.open_cursor(bench.key(), Start::Earliest).await.unwrap();
    bench.store.commit(cursor.id, CursorPlace { offset: 3, sequence: first + 2 });
    let script = Scripted::new(|_, _| Ok(()));
    let running = bench.deliver(&script, fast()).await;
    bench.derive(count).await;
    running.until_cursor(5).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_time_ends_in_a_dead_letter_as_well() {
    let bench = Bench::new().await;
    bench.publish((0..2).map(|n| (n, "a"))).await;
    let script = Scripted::new(|number, _| if number == 0 { Err(error(Follow::Retry)) } else { Ok(()) });
    let retry = Retry { for_: Some(Duration::from_millis(50)), ..fast() };
    let running = bench.deliver(&script, retry).await;
    running.until_cursor(2).await;
    running.stop().await;
    assert_eq!(script.confirmed(), [1]);
    let letters = bench.store.dead_letters("target/all/out", 0, 10).await.unwrap();
    assert!(letters.len() == 1 && letters[0].1.attempts > 1, "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_cut_off_leaves_nobody_at_work() {
    let bench = Bench::new().await;
    let script = Scripted::new(|_, _| Ok(()));
    let running = bench.deliver(&script, fast()).await;
    // It waits for the store to write a dead letter.
    let held = hold_documents(bench.dir.path());
    bench.publish([(0, "bad")]).await;
    running.until("a dead letter", || held.has_struck()).await;
    running.task.abort();
    assert!(running.task.await.unwrap_err().is_cancelled());
    assert_eq!(Arc::strong_count(&script), 1, "the target is still in use");
    drop(held);
    let running = bench.deliver(&script, fast()).await;
    running.until_cursor(1).await;
    running.stop().await;
}
