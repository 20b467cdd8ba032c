//! SIGKILL at random moments under QoS 2 in both directions: every message is in the log once and reaches every session
//! once, in its publisher's order; and of the members of a group one, once.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidemill_tests::environment::seed;
use tidemill_tests::kills::Kills;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Publish, Writer};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::api::Record;
use tidemill_tests::{report, wait};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const KILLS: Kills = Kills {
    count: 30,
    working_max: Duration::from_millis(200),
    starting: 0.2,
    starting_max: Duration::from_millis(100),
};
const PUBLISHERS: u32 = 4;
/// Messages that a publisher has on their way; it has hardly more identifiers, so that they are soon used again.
const WINDOW: u16 = 24;
const IDENTIFIERS: u16 = 30;
/// What the subscribers subscribe to.
const FILTERS: [&str; 2] = ["once/#", "once/+"];
/// What the members of a group subscribe to.
const SHARED: &str = "$share/group/once/#";
const MEMBERS: u32 = 3;
/// Messages that a member of the group leaves unanswered.
const LEFT: usize = 5;
const LIMIT: Duration = Duration::from_secs(60);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(5);

/// PUBREC, PUBREL and PUBCOMP.
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
/// The property of CONNECT.
const RECEIVE_MAXIMUM: u8 = 0x21;

/// What clients and test tell each other.
#[derive(Default)]
struct Common {
    /// Publishers begin no more messages.
    ending: AtomicBool,
    /// Messages that publishers know to be complete.
    completed: AtomicU64,
    /// Messages that came to subscribers, each counted once.
    received: AtomicU64,
    /// PUBLISH and PUBREL that were sent again.
    sent_again: AtomicU64,
    /// PUBLISH that a subscriber knew already.
    known_again: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn topic(publisher: u32) -> String {
    format!("once/{publisher}")
}

/// A client that comes back whenever it is cut off, and finds its session each time.
async fn connect(hub: SocketAddr, connect: &Connect, first: &mut bool) -> Client {
    let began = Instant::now();
    loop {
        if let Ok(client) = Client::try_connect(hub, connect).await {
            assert!(client.session_present || *first, "the session of {} is gone", connect.client);
            *first = false;
            return client;
        }
        assert!(began.elapsed() < LIMIT, "{} cannot connect", connect.client);
        tokio::time::sleep(RETRY).await;
    }
}

fn level(number: u32) -> Level {
    if number.is_multiple_of(2) { Level::V5 } else { Level::V311 }
}

/// A QoS 2 sender as the specification wants it (4.3.3, 4.4).
struct Publisher {
    number: u32,
    common: Arc<Common>,
    /// Messages on their way in the order in which they were first sent.
    in_flight: VecDeque<Sending>,
    next_message: u32,
    next_id: u16,
}

#[derive(Clone, Copy)]
struct Sending {
    id: u16,
    message: u32,
    released: bool,
}

impl Publisher {
    /// Publishes until told to end and everything is complete; how many messages that were.
    async fn run(mut self, hub: SocketAddr) -> u32 {
        let session = Connect::persistent(format!("publisher-{}", self.number)).level(level(self.number));
        let mut first = true;
        loop {
            let client = connect(hub, &session, &mut first).await;
            // Whatever the error, the hub was killed.
            if let Ok(count) = self.publish(client).await {
                return count;
            }
        }
    }

    async fn publish(&mut self, mut client: Client) -> io::Result<u32> {
        for sending in &self.in_flight {
            add(&self.common.sent_again);
            self.send(&mut client.writer, *sending, true).await?;
        }
        loop {
            let ending = self.common.ending.load(Ordering::Relaxed);
            while !ending && self.in_flight.len() < usize::from(WINDOW) {
                let sending = self.begin();
                self.send(&mut client.writer, sending, false).await?;
            }
            if ending && self.in_flight.is_empty() {
                client.disconnect().await;
                return Ok(self.next_message);
            }
            client.writer.flush().await?;
            let mut packet = Some(client.reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?);
            while let Some(answer) = packet {
                self.answered(answer, &mut client.writer).await?;
                packet = client.reader.buffered()?;
            }
        }
    }

    fn begin(&mut self) -> Sending {
        while self.in_flight.iter().any(|sending| sending.id == self.next_id) {
            self.next_id = self.next_id % IDENTIFIERS + 1;
        }
        let sending = Sending { id: self.next_id, message: self.next_message, released: false };
        self.next_id = self.next_id % IDENTIFIERS + 1;
        self.next_message += 1;
        self.in_flight.push_back(sending);
        sending
    }

    async fn send(&self, writer: &mut Writer, sending: Sending, dup: bool) -> io::Result<()> {
        if sending.released {
            return writer.acknowledge(PUBREL, sending.id).await;
        }
        let payload = sending.message.to_string();
        writer.publish(&Publish { dup, ..Publish::new(topic(self.number), payload, 2, sending.id) }).await
    }

    async fn answered(&mut self, packet: Packet, writer: &mut Writer) -> io::Result<()> {
        match packet {
            // 16: no matching subscribers, which is no refusal.
            Packet::PubRec { id, reason: 0 | 16 } => {
                let sending = self.in_flight.iter_mut().find(|sending| sending.id == id);
                sending.unwrap_or_else(|| panic!("PUBREC for {id}, which is not in flight")).released = true;
                writer.acknowledge(PUBREL, id).await
            }
            // 0x92: the hub knows nothing of it any more, since its PUBCOMP was lost.
            Packet::PubComp { id, reason: 0 | 0x92 } => {
                let at = self.in_flight.iter().position(|sending| sending.id == id && sending.released);
                self.in_flight
                    .remove(at.unwrap_or_else(|| panic!("PUBCOMP for {id}, which was not released")));
                add(&self.common.completed);
                Ok(())
            }
            other => panic!("publisher {} got {other:?}", self.number),
        }
    }
}

/// A QoS 2 receiver as the specification wants it: it takes a message when it comes, and knows its identifier until PUBREL.
struct Subscriber {
    number: u32,
    common: Arc<Common>,
    /// Identifiers of messages that were not released.
    unreleased: BTreeSet<u16>,
    /// By publisher, in the order in which they came.
    received: Vec<Vec<u32>>,
}

impl Subscriber {
    fn new(number: u32, common: &Arc<Common>) -> Self {
        let received = vec![Vec::new(); PUBLISHERS as usize];
        Subscriber { number, common: Arc::clone(common), unreleased: BTreeSet::new(), received }
    }

    fn session(&self) -> Connect {
        Connect::persistent(format!("subscriber-{}", self.number)).level(level(self.number))
    }

    /// Receives until as many messages have come as `expected` says once that is known, and shows that no more do.
    async fn run(mut self, hub: SocketAddr, mut expected: watch::Receiver<Option<usize>>) -> Self {
        let mut first = false;
        loop {
            let client = connect(hub, &self.session(), &mut first).await;
            // Whatever the error, the hub was killed.
            if self.receive(client, &mut expected).await.is_ok() {
                return self;
            }
        }
    }

    async fn receive(
        &mut self,
        mut client: Client,
        expected: &mut watch::Receiver<Option<usize>>,
    ) -> io::Result<()> {
        loop {
            let wanted = *expected.borrow_and_update();
            if wanted.is_some_and(|wanted| self.count() >= wanted) && self.unreleased.is_empty() {
                client.nothing_comes().await;
                client.disconnect().await;
                return Ok(());
            }
            client.writer.flush().await?;
            tokio::select! {
                packet = client.reader.next() => {
                    let packet = packet?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    self.take(packet, &mut client.writer).await?;
                    while let Some(packet) = client.reader.buffered()? {
                        self.take(packet, &mut client.writer).await?;
                    }
                }
                changed = expected.changed() => changed.expect("the test goes on"),
            }
        }
    }

    async fn take(&mut self, packet: Packet, writer: &mut Writer) -> io::Result<()> {
        match packet {
            Packet::Publish { qos: 2, dup, topic, id, payload, .. } => {
                self.arrived(dup, &topic, id, &payload);
                writer.acknowledge(PUBREC, id).await
            }
            Packet::PubRel { id, .. } => {
                self.unreleased.remove(&id);
                writer.acknowledge(PUBCOMP, id).await
            }
            other => panic!("subscriber {} got {other:?}", self.number),
        }
    }

    fn arrived(&mut self, dup: bool, topic: &str, id: u16, payload: &[u8]) {
        if self.unreleased.insert(id) {
            let publisher = topic.strip_prefix("once/").and_then(|number| number.parse().ok());
            let publisher: usize = publisher.expect("a topic of this test");
            let text = std::str::from_utf8(payload).expect("a number");
            self.received[publisher].push(text.parse().expect("a number"));
            add(&self.common.received);
        } else {
            assert!(
                dup,
                "message {payload:?} under identifier {id}, which is in use, is none that comes again"
            );
            add(&self.common.known_again);
        }
    }

    /// Takes as many messages as its Receive Maximum allows and goes away without a word.
    async fn leave_unanswered(&mut self, mut client: Client) {
        while self.unreleased.len() < LEFT {
            match client.packet().await {
                Packet::Publish { qos: 2, dup, topic, id, payload, .. } => {
                    self.arrived(dup, &topic, id, &payload);
                }
                other => panic!("subscriber {} got {other:?}", self.number),
            }
        }
    }

    fn count(&self) -> usize {
        self.received.iter().map(Vec::len).sum()
    }
}

/// Waits until some more messages are complete, and have come to a subscriber.
async fn some_completed(common: &Common) {
    for counter in [&common.completed, &common.received] {
        let wanted = counter.load(Ordering::Relaxed) + 40;
        let reached = async || (counter.load(Ordering::Relaxed) >= wanted).then_some(());
        wait::until("messages to go through", LIMIT, reached).await;
    }
}

/// Publishes while the hub is killed again and again; how many messages each publisher has published.
async fn publish_through_kills(
    name: &str,
    hub: &mut Tidemill,
    common: &Common,
    publishers: Vec<JoinHandle<u32>>,
) -> Vec<u32> {
    let seed = seed(name);
    let killed = KILLS.run(hub, seed, async || some_completed(common).await).await;
    some_completed(common).await;
    common.ending.store(true, Ordering::Relaxed);
    let mut published = Vec::new();
    for publisher in publishers {
        published.push(wait::within("a publisher's end", LIMIT, publisher).await.expect("a good publisher"));
    }
    let counts = [&common.sent_again, &common.known_again].map(|counter| counter.load(Ordering::Relaxed));
    report!(
        name,
        "{} kills, {} messages from {PUBLISHERS} publishers, who sent {} packets again; sessions knew {} messages that \
         came again; slowest start {:.1?}",
        KILLS.count,
        published.iter().sum::<u32>(),
        counts[0],
        counts[1],
        killed.start_max
    );
    assert!(
        counts.iter().all(|count| *count > 0),
        "no kill hit a message in flight: the test showed nothing"
    );
    published
}

fn start_publishers(hub: &Tidemill, common: &Arc<Common>) -> Vec<JoinHandle<u32>> {
    let publisher = |number| {
        let (in_flight, common) = (VecDeque::new(), Arc::clone(common));
        Publisher { number, common, in_flight, next_message: 0, next_id: 1 }.run(hub.mqtt())
    };
    (0..PUBLISHERS).map(|number| tokio::spawn(publisher(number))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_exactly_once() {
    let mut hub = Tidemill::start("").await;
    let common = Arc::new(Common::default());
    let (tell, expected) = watch::channel(None);
    let mut subscribers = Vec::new();
    for (number, filter) in (0..).zip(FILTERS) {
        let subscriber = Subscriber::new(number, &common);
        let mut client = Client::connect(hub.mqtt(), &subscriber.session()).await;
        client.subscribe(&[(filter, 2)]).await;
        client.disconnect().await;
        subscribers.push(tokio::spawn(subscriber.run(hub.mqtt(), expected.clone())));
    }
    let publishers = start_publishers(&hub, &common);
    let published = publish_through_kills("exactly_once", &mut hub, &common, publishers).await;
    tell.send_replace(Some(published.iter().sum::<u32>() as usize));

    let wanted: Vec<Vec<u32>> = published.iter().map(|count| (0..*count).collect()).collect();
    assert_each_once("the log", &stored(&hub).await, &wanted);
    for subscriber in subscribers {
        let subscriber =
            wait::within("a subscriber's end", LIMIT, subscriber).await.expect("a good subscriber");
        assert_each_once(&format!("subscriber {}", subscriber.number), &subscriber.received, &wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_once_to_a_group() {
    let mut hub = Tidemill::start("").await;
    let common = Arc::new(Common::default());
    let (tell, expected) = watch::channel(None);
    // Its messages stay open until the end, and the group's cursor with them.
    let mut away = Subscriber::new(MEMBERS, &common);
    let session =
        Connect { properties: vec![RECEIVE_MAXIMUM, 0, LEFT as u8], ..away.session().level(Level::V5) };
    let mut client = Client::connect(hub.mqtt(), &session).await;
    client.subscribe(&[(SHARED, 2)]).await;
    let publishers = start_publishers(&hub, &common);
    away.leave_unanswered(client).await;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let member = Subscriber::new(number, &common);
        let mut client = Client::connect(hub.mqtt(), &member.session()).await;
        client.subscribe(&[(SHARED, 2)]).await;
        drop(client);
        members.push(tokio::spawn(member.run(hub.mqtt(), expected.clone())));
    }
    let published = publish_through_kills("exactly_once_shared", &mut hub, &common, publishers).await;
    assert_eq!(away.unreleased.len(), LEFT);
    members.push(tokio::spawn(away.run(hub.mqtt(), expected.clone())));
    let total = published.iter().sum::<u32>().into();
    let all_came = async || (common.received.load(Ordering::Relaxed) >= total).then_some(());
    wait::until("all messages to come to the group", LIMIT, all_came).await;
    // What any of them gets from here on is too much.
    tell.send_replace(Some(0));

    let mut received = vec![Vec::new(); PUBLISHERS as usize];
    for member in members {
        let member = wait::within("a member's end", LIMIT, member).await.expect("a good member");
        assert!(member.received.iter().any(|received| !received.is_empty()), "a member got nothing");
        for (all, its) in received.iter_mut().zip(member.received) {
            all.extend(its);
        }
    }
    // Each member's are in order, those of all are in none.
    received.iter_mut().for_each(|numbers| numbers.sort_unstable());
    let wanted: Vec<Vec<u32>> = published.iter().map(|count| (0..*count).collect()).collect();
    assert_each_once("the group", &received, &wanted);
}

/// What the log has, by publisher.
async fn stored(hub: &Tidemill) -> Vec<Vec<u32>> {
    let (status, lines) = hub.get("/api/v1/records?filter=once/%2B&from=earliest").await;
    assert_eq!(status, 200, "{lines}");
    let mut stored = vec![Vec::new(); PUBLISHERS as usize];
    for line in lines.lines() {
        let record: Record = serde_json::from_str(line).expect("a record as JSON");
        let publisher = (0..PUBLISHERS).find(|publisher| topic(*publisher) == record.topic);
        let number = record.payload.and_then(|payload| payload.parse().ok()).expect("a number");
        stored[publisher.expect("a topic of this test") as usize].push(number);
    }
    stored
}

fn assert_each_once(place: &str, found: &[Vec<u32>], wanted: &[Vec<u32>]) {
    for (publisher, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let times = |number: &u32| found.iter().filter(|other| *other == number).count();
        let wrong: Vec<(u32, usize)> = if found == wanted {
            Vec::new()
        } else {
            wanted.iter().map(|number| (*number, times(number))).filter(|(_, times)| *times != 1).collect()
        };
        assert!(wrong.is_empty(), "{place}: of publisher {publisher} these came so many times: {wrong:?}");
        assert!(found == wanted, "{place}: messages of publisher {publisher} are not in order: {found:?}");
    }
}
