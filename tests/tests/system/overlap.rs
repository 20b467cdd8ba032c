//! Subscriptions that overlap: whatever is subscribed to and unsubscribed from, acknowledged or left, a message comes once
//! while the session lives, in order, and says all that its subscriptions ask for.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tidemill_tests::environment::seed;
use tidemill_tests::mqtt::encode::packet;
use tidemill_tests::mqtt::{Client, Connect, Level, Packet, Properties, Property, Publish};
use tidemill_tests::report;
use tidemill_tests::services::Tidemill;

const FILTERS: [&str; 9] = ["#", "+/b", "a/#", "a/+", "a/b", "b/#", "b/+/c", "c", "a/b/#"];
const TOPICS: [&str; 8] = ["a", "a/a", "a/b", "a/b/c", "b/a/c", "b/b", "c", "d"];
const SEEDS: usize = 12;
const STEPS: usize = 120;
/// QoS 1 and 2 messages that the session has on their way at a time.
const RECEIVE_MAXIMUM: u8 = 5;

fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// A subscription as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    qos: u8,
    no_local: bool,
    id: u8,
}

/// A message that some subscription wants.
#[derive(Debug)]
struct Message {
    topic: &'static str,
    qos: u8,
    /// The session published it itself.
    own: bool,
    /// Filters of the subscriptions that want it.
    wanted: BTreeSet<&'static str>,
    /// What it must come with, as long as no subscription has changed since.
    expected: Option<(u8, Vec<u32>)>,
    came: bool,
}

/// The session, what it asked for, and what it is to get.
struct Model {
    level: Level,
    name: String,
    client: Client,
    publisher: Client,
    subscriptions: BTreeMap<&'static str, Asked>,
    messages: Vec<Message>,
    /// Received and not acknowledged: packet identifier and number of the message.
    held: Vec<(u16, u8, usize)>,
    /// Of those, what must come again since the session came back.
    again: BTreeMap<u16, usize>,
    /// The last of each topic and QoS that came for the first time.
    last: BTreeMap<(String, u8), usize>,
}

impl Model {
    async fn start(hub: &Tidemill, level: Level, name: String) -> Model {
        let client = connect(hub, level, &name).await;
        let publisher = Client::connect(hub.mqtt(), &Connect::clean(format!("{name}-publisher"))).await;
        Model {
            level,
            name,
            client,
            publisher,
            subscriptions: BTreeMap::new(),
            messages: Vec::new(),
            held: Vec::new(),
            again: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    async fn subscribe(&mut self, filter: &'static str, asked: Asked) {
        let mut body = vec![0, 1];
        if self.level == Level::V5 {
            body.extend(if asked.id > 0 { vec![2, 0x0b, asked.id] } else { vec![0] });
        }
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        body.push(asked.qos | u8::from(asked.no_local) << 2);
        self.client.writer.raw(&packet(0x82, &body)).await.unwrap();
        self.pump(|answer| matches!(answer, Packet::SubAck { .. })).await;
        self.subscriptions.insert(filter, asked);
        self.changed();
        if asked.no_local {
            self.no_more(filter, |message| message.own);
        }
    }

    async fn unsubscribe(&mut self, filter: &'static str) {
        let mut body = vec![0, 2];
        if self.level == Level::V5 {
            body.push(0);
        }
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        self.client.writer.raw(&packet(0xa2, &body)).await.unwrap();
        self.pump(|answer| matches!(answer, Packet::UnsubAck { .. })).await;
        self.subscriptions.remove(filter);
        self.changed();
        self.no_more(filter, |_| true);
    }

    /// A subscription wants these messages no longer, if they have not come yet.
    fn no_more(&mut self, filter: &str, which: impl Fn(&Message) -> bool) {
        for message in self.messages.iter_mut().filter(|message| which(message)) {
            message.wanted.remove(filter);
        }
    }

    /// What is yet to come may come with what was asked for before or with what is asked for now.
    fn changed(&mut self) {
        self.messages.iter_mut().for_each(|message| message.expected = None);
    }

    /// A message that is in the log when this returns.
    async fn publish(&mut self, topic: &'static str, qos: u8, own: bool) {
        let counts =
            |(filter, asked): &(&&'static str, &Asked)| matches(filter, topic) && !(own && asked.no_local);
        let wanted: Vec<(&'static str, Asked)> =
            self.subscriptions.iter().filter(counts).map(|(filter, asked)| (*filter, *asked)).collect();
        let granted = wanted.iter().map(|(_, asked)| asked.qos).max().unwrap_or_default();
        let mut ids: Vec<u32> =
            wanted.iter().map(|(_, asked)| u32::from(asked.id)).filter(|id| *id > 0).collect();
        ids.sort_unstable();
        let number = self.messages.len();
        self.messages.push(Message {
            topic,
            qos,
            own,
            wanted: wanted.into_iter().map(|(filter, _)| filter).collect(),
            expected: Some((qos.min(granted), ids)),
            came: false,
        });
        let publish = Publish::new(topic, number.to_string(), qos, 9);
        if own {
            self.client.writer.publish(&Publish { qos: 0, ..publish }).await.unwrap();
            self.messages[number].qos = 0;
            self.messages[number].expected.as_mut().unwrap().0 = 0;
            self.ping().await;
        } else {
            self.publisher.publish(publish).await;
            match qos {
                0 => {}
                1 => assert!(matches!(self.publisher.packet().await, Packet::PubAck { id: 9, .. })),
                _ => {
                    assert!(matches!(self.publisher.packet().await, Packet::PubRec { id: 9, .. }));
                    self.publisher.writer.acknowledge(6, 9).await.unwrap();
                    self.publisher.writer.flush().await.unwrap();
                    assert!(matches!(self.publisher.packet().await, Packet::PubComp { id: 9, .. }));
                }
            }
        }
        // What came before an acknowledged message is in the log as well.
        self.publisher.publish_acked(Publish::new("$barrier", "x", 1, 1)).await;
    }

    async fn ping(&mut self) {
        self.client.writer.ping().await.unwrap();
        self.pump(|answer| *answer == Packet::PingResp).await;
    }

    /// Takes what comes until the answer does.
    async fn pump(&mut self, is_answer: impl Fn(&Packet) -> bool) {
        loop {
            let next = self.client.packet().await;
            if is_answer(&next) {
                return;
            }
            self.take(next).await;
        }
    }

    async fn take(&mut self, packet: Packet) {
        let (dup, qos, id, topic, payload, properties) = match packet {
            Packet::Publish { dup, qos, id, topic, payload, properties, .. } => {
                (dup, qos, id, topic, payload, properties)
            }
            Packet::PubRel { id, .. } => {
                self.client.writer.acknowledge(7, id).await.unwrap();
                return self.client.writer.flush().await.unwrap();
            }
            other => panic!("{other:?} was not asked for"),
        };
        let number: usize = std::str::from_utf8(&payload).unwrap().parse().unwrap();
        if dup {
            assert_eq!(self.again.remove(&id), Some(number), "sent again, and was not left unacknowledged");
            assert!(self.held.contains(&(id, qos, number)), "with another QoS");
            return;
        }
        let came_before = self.last.insert((topic.clone(), qos), number);
        assert!(came_before.is_none_or(|before| before < number), "{topic}: {number} after {came_before:?}");
        let message = &mut self.messages[number];
        assert!(!std::mem::replace(&mut message.came, true), "{number} came twice: {message:?}");
        assert_eq!(topic, message.topic);
        assert!(qos <= message.qos);
        if let Some((expected, ids)) = &message.expected {
            assert!(!message.wanted.is_empty(), "nobody wants {number}: {message:?}");
            assert_eq!((qos, &subscription_ids(&properties)), (*expected, ids), "{message:?}");
        }
        if qos > 0 {
            self.held.push((id, qos, number));
            assert!(self.held.len() <= usize::from(RECEIVE_MAXIMUM), "Receive Maximum: {:?}", self.held);
        }
    }

    /// Acknowledges so many of what is held, in the order in which it came.
    async fn acknowledge(&mut self, count: usize) {
        // What is to come again comes first.
        while !self.again.is_empty() {
            let next = self.client.packet().await;
            self.take(next).await;
        }
        for (id, qos, _) in self.held.drain(..count.min(self.held.len())).collect::<Vec<_>>() {
            self.client.writer.acknowledge(if qos == 1 { 4 } else { 5 }, id).await.unwrap();
        }
        self.client.writer.flush().await.unwrap();
        self.ping().await;
    }

    /// Leaves and comes back.
    async fn come_back(&mut self, hub: &Tidemill) {
        self.client.writer.raw(&[0xe0, 0]).await.unwrap();
        while let Some(packet) = self.client.reader.next().await.unwrap() {
            if matches!(packet, Packet::Publish { .. }) {
                self.take(packet).await;
            }
        }
        self.client = connect(hub, self.level, &self.name).await;
        assert!(self.client.session_present);
        self.again = self.held.iter().map(|(id, _, number)| (*id, *number)).collect();
    }

    /// Everything that is wanted has come, and nothing else does.
    async fn end(mut self) -> usize {
        let missing =
            |model: &Model| model.messages.iter().any(|message| !message.wanted.is_empty() && !message.came);
        while missing(&self) || !self.held.is_empty() {
            if self.held.is_empty() {
                let next = self.client.packet().await;
                self.take(next).await;
            }
            self.acknowledge(usize::MAX).await;
        }
        self.ping().await;
        self.ping().await;
        self.client.disconnect().await;
        self.messages.iter().filter(|message| message.came).count()
    }
}

fn subscription_ids(properties: &Properties) -> Vec<u32> {
    let id = |property: &Property| match property {
        Property::Number(0x0b, id) => Some(*id),
        _ => None,
    };
    let mut ids: Vec<u32> = properties.0.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

/// A session that stays, with a Receive Maximum.
async fn connect(hub: &Tidemill, level: Level, name: &str) -> Client {
    let properties = vec![0x21, 0, RECEIVE_MAXIMUM];
    let connect = Connect { expiry_s: 200, properties, ..Connect::persistent(name).level(level) };
    Client::connect(hub.mqtt(), &connect).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_comes_once_whatever_subscriptions_come_and_go() {
    // Two shards, so that neighbours in the log are not neighbours in a file. 3.1.1 cannot say a Receive Maximum.
    let text = format!("flush: async\nlog: {{ shards: 2 }}\nmqtt: {{ inflight_max: {RECEIVE_MAXIMUM} }}\n");
    let hub = Tidemill::start_with_config(&text).await;
    let first = seed("overlap");
    let mut came = 0;
    for seed in (0..SEEDS as u64).map(|round| first.wrapping_add(round)) {
        println!("TIDEMILL_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let level = if seed % 3 == 0 { Level::V311 } else { Level::V5 };
        let mut model = Model::start(&hub, level, format!("overlap-{seed}")).await;
        for _ in 0..STEPS {
            match random.random_range(0..20) {
                0..=2 => {
                    let is_new = level == Level::V5;
                    let asked = Asked {
                        qos: random.random_range(0..3),
                        no_local: is_new && random.random_bool(0.3),
                        id: if is_new { random.random_range(0..4) } else { 0 },
                    };
                    let filter = FILTERS.choose(&mut random).unwrap();
                    model.subscribe(filter, asked).await;
                }
                3 => {
                    let filter = FILTERS.choose(&mut random).unwrap();
                    model.unsubscribe(filter).await;
                }
                4 => model.come_back(&hub).await,
                5..=7 => model.acknowledge(random.random_range(0..6)).await,
                8 => model.publish(TOPICS.choose(&mut random).unwrap(), 0, true).await,
                _ => {
                    let topic = TOPICS.choose(&mut random).unwrap();
                    model.publish(topic, random.random_range(0..3), false).await;
                }
            }
        }
        came += model.end().await;
    }
    assert!(came > SEEDS * STEPS / 10, "{came} messages prove little");
    report!(
        "overlap",
        "{came} messages to {SEEDS} sessions with overlapping subscriptions: each once, in order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_to_a_kill() {
    let mut hub = Tidemill::start("").await;
    let session = Connect::persistent("overlap-kill");
    let mut client = Client::connect(hub.mqtt(), &session).await;
    client.subscribe(&[("k/#", 1), ("k/+", 2), ("k/a", 0)]).await;
    let mut publisher = Client::connect(hub.mqtt(), &Connect::clean("overlap-kill-publisher")).await;
    for number in 0..200 {
        publisher.publish_acked(Publish::new("k/a", number.to_string(), 1, 1)).await;
    }
    for number in 0..80 {
        assert_eq!(client.message().await.payload, number.to_string());
    }
    hub.kill();
    hub.start_again().await;
    let mut client = Client::connect(hub.mqtt(), &session).await;
    // What was acknowledged just before may come again, from one of the subscriptions or from all.
    let first: usize = std::str::from_utf8(&client.message().await.payload).unwrap().parse().unwrap();
    assert!(first <= 80, "lost up to {first}");
    let mut next = first + 1;
    while next < 200 {
        let number: usize = std::str::from_utf8(&client.message().await.payload).unwrap().parse().unwrap();
        assert!(number <= next, "{next} is missing");
        next = next.max(number + 1);
    }
    client.nothing_comes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_comes_once_while_others_publish_as_fast_as_they_can() {
    const PUBLISHERS: usize = 3;
    const EACH: usize = 4000;
    let hub = Tidemill::start("").await;
    let mut clients = Vec::new();
    for session in [Connect::clean("overlap-live"), Connect::persistent("overlap-durable")] {
        let mut client = Client::connect(hub.mqtt(), &session).await;
        client.subscribe(&[("fast/#", 0), ("fast/+", 1), ("fast/3", 1), ("+/7", 2), ("fast/3/#", 0)]).await;
        clients.push(client);
    }
    let address = hub.mqtt();
    let publish = async |publisher: usize| {
        let mut client = Client::connect(address, &Connect::clean(format!("fast-{publisher}"))).await;
        for number in 0..EACH {
            let topic = format!("fast/{}", number % 10);
            let publish = Publish::new(topic, format!("{publisher} {number}"), (number % 2) as u8, 1);
            client.writer.publish(&publish).await.unwrap();
            if publish.qos > 0 {
                client.writer.flush().await.unwrap();
                assert!(matches!(client.packet().await, Packet::PubAck { .. }));
            }
        }
        client.disconnect().await;
    };
    let receive = async |mut client: Client| {
        let mut next = [0; PUBLISHERS];
        for _ in 0..PUBLISHERS * EACH {
            let arrived = client.message().await;
            let (publisher, number) = std::str::from_utf8(&arrived.payload).unwrap().split_once(' ').unwrap();
            let next = &mut next[publisher.parse::<usize>().unwrap()];
            assert_eq!(number.parse::<usize>().unwrap(), *next, "of {publisher}");
            *next += 1;
        }
        client.nothing_comes().await;
    };
    let [live, durable] = <[Client; 2]>::try_from(clients).ok().unwrap();
    tokio::join!(publish(0), publish(1), publish(2), receive(live), receive(durable));
}
