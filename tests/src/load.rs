//! Publishers with QoS 1 that keep a steady rate, connect again when the hub was killed, and send again what it had
//! not acknowledged, as a device would.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use crate::ledger::{Message, topic};
use crate::mqtt::{Client, Connect, Packet, Publish};

/// After the load was stopped, its publishers may take this long to get their last messages acknowledged.
const FINISH_LIMIT: Duration = Duration::from_secs(60);
/// A publisher that cannot connect tries again after this.
const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of publishers.
    pub publishers: u32,
    /// How often each of them publishes.
    pub every: Duration,
    /// How many messages each of them publishes then.
    pub burst: u32,
    /// Most messages of each that await their acknowledgement; a publisher that has as many waits.
    pub window: usize,
    /// Bytes of a payload.
    pub payload_bytes: usize,
}

impl Plan {
    /// Messages per second of all publishers together.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.publishers * self.burst) / self.every.as_secs_f64()
    }
}

/// Running publishers.
pub struct Load {
    stop: watch::Sender<bool>,
    acknowledged: Arc<AtomicU64>,
    began: Instant,
    tasks: Vec<JoinHandle<Published>>,
}

/// What one publisher did.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// How often each of its messages was sent. All of them were acknowledged in the end.
    pub sent: Vec<u16>,
    /// Its acknowledgements in the order they came.
    pub acks: Vec<Ack>,
    /// How often it lost its connection.
    pub broken: u32,
    /// Acknowledgements that refused a message.
    pub refused: u32,
    /// Acknowledgements that were not for the oldest message in flight (MQTT 5.0, section 4.6).
    pub misordered_acks: u32,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// When it came, since the load began.
    pub at: Duration,
    /// How long after the message was (last) sent, in microseconds.
    pub latency_us: u32,
}

impl Load {
    /// Starts the publishers. Publisher `p` publishes to `load/p`.
    #[must_use]
    pub fn start(hub: SocketAddr, plan: Plan) -> Load {
        let (stop, stopped) = watch::channel(false);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let tasks = (0..plan.publishers)
            .map(|publisher| {
                let publisher = Publisher {
                    publisher,
                    plan,
                    hub,
                    began,
                    stopped: stopped.clone(),
                    acknowledged: acknowledged.clone(),
                    in_flight: VecDeque::new(),
                    published: Published::default(),
                };
                tokio::spawn(publisher.run())
            })
            .collect();
        Load { stop, acknowledged, began, tasks }
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// When the load began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Stops publishing and waits until all that was published is acknowledged.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn stop(self) -> Vec<Published> {
        self.stop.send(true).expect("publishers run until they are stopped");
        let mut published = Vec::new();
        for task in self.tasks {
            let one = tokio::time::timeout(FINISH_LIMIT, task).await;
            let one = one.expect("what was published is acknowledged soon after the load stopped");
            published.push(one.expect("a publisher does not panic"));
        }
        published
    }
}

struct Publisher {
    publisher: u32,
    plan: Plan,
    hub: SocketAddr,
    began: Instant,
    stopped: watch::Receiver<bool>,
    acknowledged: Arc<AtomicU64>,
    /// Numbers that await their acknowledgement, and when they were sent.
    in_flight: VecDeque<(u32, Instant)>,
    published: Published,
}

impl Publisher {
    async fn run(mut self) -> Published {
        let mut ticks = tokio::time::interval(self.plan.every);
        // What a publisher could not send in time it sends later, so the rate is kept if the hub can take it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let connect = Connect::clean(format!("publisher-{}", self.publisher));
        loop {
            if let Ok(client) = Client::try_connect(self.hub, &connect).await {
                if self.connected(client, &mut ticks).await.is_ok() {
                    return self.published;
                }
                self.published.broken += 1;
            }
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    /// Publishes over one connection; returns `Ok` when everything was published and acknowledged.
    async fn connected(&mut self, mut client: Client, ticks: &mut Interval) -> io::Result<()> {
        for at in 0..self.in_flight.len() {
            self.send(&mut client, at).await?;
        }
        client.writer.flush().await?;
        loop {
            let stopping = *self.stopped.borrow();
            if stopping && self.in_flight.is_empty() {
                return Ok(());
            }
            let room = self.in_flight.len() + self.plan.burst as usize <= self.plan.window;
            tokio::select! {
                packet = client.reader.next() => {
                    self.received(packet?)?;
                    while let Some(packet) = client.reader.buffered()? {
                        self.received(Some(packet))?;
                    }
                }
                _ = ticks.tick(), if room && !stopping => {
                    for _ in 0..self.plan.burst {
                        let number = self.published.sent.len() as u32;
                        self.published.sent.push(0);
                        // In flight even if sending fails: it will be sent again.
                        self.in_flight.push_back((number, Instant::now()));
                        self.send(&mut client, self.in_flight.len() - 1).await?;
                    }
                    client.writer.flush().await?;
                }
                _ = self.stopped.changed(), if !stopping => {}
            }
        }
    }

    /// Sends the message at this place of those in flight.
    async fn send(&mut self, client: &mut Client, at: usize) -> io::Result<()> {
        let (number, sent_at) = &mut self.in_flight[at];
        *sent_at = Instant::now();
        let number = *number;
        let sent = &mut self.published.sent[number as usize];
        *sent = sent.saturating_add(1);
        let message = Message { publisher: self.publisher, number };
        let payload = message.payload(self.plan.payload_bytes);
        client.writer.publish(&Publish::new(topic(self.publisher), payload, 1, id(number))).await
    }

    fn received(&mut self, packet: Option<Packet>) -> io::Result<()> {
        let (id, reason) = match packet {
            Some(Packet::PubAck { id, reason }) => (id, reason),
            other => return Err(io::Error::other(format!("instead of PUBACK came {other:?}"))),
        };
        if reason >= 0x80 {
            self.published.refused += 1;
        }
        let at = self.in_flight.iter().position(|(number, _)| self::id(*number) == id);
        let at = at.ok_or_else(|| io::Error::other(format!("PUBACK of {id}, which is not in flight")))?;
        self.published.misordered_acks += u32::from(at != 0);
        let (_, sent) = self.in_flight.remove(at).expect("found there");
        let latency_us = sent.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
        self.published.acks.push(Ack { at: self.began.elapsed(), latency_us });
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The packet identifier of a number: never 0, and unique as long as the window is less than 65,535.
fn id(number: u32) -> u16 {
    (number % u32::from(u16::MAX)) as u16 + 1
}
