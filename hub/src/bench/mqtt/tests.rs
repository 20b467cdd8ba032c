//! The load against a broker that breaks its promises: what it does wrong is counted, exactly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;

use super::drive::{self, Brake, Until};
use super::flow::{Account, Flow};
use super::net::Net;
use super::outcome::Outcome;
use super::scenario::Scenario;
use super::shape::Shape;
use super::{Stop, Target};
use crate::mqtt::codec::{Ack, Decoder, Packet, PacketId, Publish, Qos, ReasonCode, Suback, Version};

const MESSAGES: u64 = 100;
const LOST: usize = 10;
const TWICE: usize = 20;
/// It comes after the next one.
const LATE: usize = 30;

/// A broker for one publisher. It acknowledges everything, and loses, doubles and swaps messages if it is `bad`.
#[derive(Default)]
struct Fake {
    bad: bool,
    subscribers: Vec<TcpStream>,
    published: usize,
    held: Option<Publish>,
}

impl Fake {
    fn start(bad: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Mutex::new(Fake { bad, ..Fake::default() }));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let fake = Arc::clone(&fake);
                std::thread::spawn(move || serve(stream.unwrap(), &fake));
            }
        });
        address
    }

    fn deliver(&mut self, version: Version, publish: Publish) {
        let number = self.published;
        self.published += 1;
        let publish = match number {
            LOST if self.bad => return,
            LATE if self.bad => {
                self.held = Some(publish);
                return;
            }
            _ => publish,
        };
        let copies = if self.bad && number == TWICE { 2 } else { 1 };
        let deliveries = std::iter::repeat_n(publish, copies).chain(self.held.take());
        let mut out = BytesMut::new();
        deliveries.for_each(|publish| Packet::Publish(publish).encode(version, &mut out).unwrap());
        for mut subscriber in &self.subscribers {
            subscriber.write_all(&out).unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, fake: &Mutex<Fake>) {
    let mut decoder = Decoder::server(1 << 20);
    let mut input = BytesMut::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return;
        }
        input.extend_from_slice(&chunk[..read]);
        while let Some(packet) = decoder.decode(&mut input).unwrap() {
            let version = decoder.version().unwrap();
            let answer = match packet {
                Packet::Connect(_) => Packet::Connack(Box::default()),
                Packet::Subscribe(subscribe) => {
                    fake.lock().unwrap().subscribers.push(stream.try_clone().unwrap());
                    let reasons = [ReasonCode::GRANTED_QOS_1].into_iter().collect();
                    Packet::Suback(Suback { id: subscribe.id, properties: Default::default(), reasons })
                }
                Packet::Publish(publish) => {
                    let id: Option<PacketId> = publish.id;
                    fake.lock().unwrap().deliver(version, publish);
                    let Some(id) = id else { continue };
                    Packet::Puback(Ack::new(id, ReasonCode::SUCCESS))
                }
                Packet::Puback(_) => continue,
                Packet::Disconnect(_) => return,
                other => panic!("{other:?}"),
            };
            let mut out = BytesMut::new();
            answer.encode(version, &mut out).unwrap();
            stream.write_all(&out).unwrap();
        }
    }
}

fn run(bad: bool, qos: Qos, version: Version) -> (Account, Option<String>) {
    let address = Fake::start(bad);
    let target = Target { address, version, pid: None, data_dir: None, stop: Stop::default() };
    let mut net = Net::new(&target).unwrap();
    let mut flow = Flow::new(Shape::FanIn(1), qos, 64, version);
    flow.connect_subscribers(&mut net, true).unwrap();
    flow.connect_publishers(&mut net).unwrap();
    let (brake, until) = (Brake::Window(MESSAGES), Until::Sent(MESSAGES));
    drive::run(&mut flow, &mut net, &target, brake, until).unwrap();
    let mut outcome = Outcome::new(Scenario::FanInQos1);
    outcome.push_account(&flow);
    (flow.account(), outcome.broken())
}

fn all(acknowledged: u64) -> Account {
    Account { sent: MESSAGES, acknowledged, delivered: MESSAGES, ..Account::default() }
}

#[test]
fn an_honest_broker_is_found_to_be_one() {
    for version in [Version::V311, Version::V5] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            assert_eq!(run(false, qos, version), (all(MESSAGES), None));
        }
    }
}

#[test]
fn what_a_broker_loses_doubles_and_swaps_is_counted() {
    let expected = Account { delivered: MESSAGES - 1, lost: 1, duplicated: 1, reordered: 1, ..all(MESSAGES) };
    let (account, broken) = run(true, Qos::AtLeastOnce, Version::V311);
    assert_eq!(account, expected);
    assert_eq!(
        broken.as_deref(),
        Some("fan-in-qos1: 1 acknowledged messages were lost, 1 messages were out of order")
    );
    assert_eq!(run(true, Qos::AtMostOnce, Version::V5), (expected, None), "QoS 0 promises nothing");
}

#[test]
fn nobody_there_is_told_with_what_to_do() {
    // A port that was just given back: nobody listens.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = Target { address, ..Target::unknown(std::process::id()) };
    let mut net = Net::new(&target).unwrap();
    let mut flow = Flow::new(Shape::FanIn(1), Qos::AtMostOnce, 64, Version::V311);
    let error = flow.connect_subscribers(&mut net, true).unwrap_err().to_string();
    assert!(error.starts_with(&format!("connecting to {address}: Connection refused")), "{error}");
    assert!(error.ends_with("is a broker listening there? (--host, --port)"), "{error}");
}

#[test]
fn a_wish_to_stop_ends_every_wait() {
    let stop = Stop::default();
    stop.pause(Duration::from_millis(1)).unwrap();
    stop.wish();
    assert_eq!(stop.pause(Duration::from_secs(3600)).unwrap_err().to_string(), "stopped");
}
