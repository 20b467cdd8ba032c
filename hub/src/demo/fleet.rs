//! [`Fleet`]: the vehicles as MQTT 5 clients over TCP, each with a connection of its own, publishing at QoS 1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, ReportKey};
use super::vehicle::{Report, Vehicle, name};
use crate::client::{Client, ClientOptions};

/// Vehicles that may be connecting at once.
const CONNECTING_MAX: usize = 64;
/// How long to wait before connecting again after it failed.
const RECONNECT: Duration = Duration::from_millis(200);
/// How long to wait for an acknowledgement before the connection is given up.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
/// A vehicle loses its network once in so many seconds, on average.
const OFFLINE_EVERY_S: f64 = 60.0;

/// See the module's documentation.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    hub: SocketAddr,
    ledger: Mutex<Ledger>,
    online: AtomicU64,
    connecting: Semaphore,
    /// Time between two reports of a vehicle.
    every: Duration,
    /// Publishing begins for all at once.
    go: CancellationToken,
    stop: CancellationToken,
}

impl Fleet {
    /// Connects the vehicles; together they will send about `rate` reports in a second.
    pub(super) fn start(hub: SocketAddr, vehicles: u32, rate: u32, seed: u64) -> Fleet {
        let shared = Arc::new(Shared {
            hub,
            ledger: Mutex::default(),
            online: AtomicU64::new(0),
            connecting: Semaphore::new(CONNECTING_MAX),
            every: Duration::from_secs_f64(f64::from(vehicles) / f64::from(rate.max(1))),
            go: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..vehicles {
            // The first reports are spread over the time between two.
            let phase = shared.every.mul_f64(f64::from(number) / f64::from(vehicles));
            tasks.spawn(drive(Arc::clone(&shared), number, Vehicle::new(number, seed), phase));
        }
        Fleet { shared, tasks }
    }

    /// Begins publishing.
    pub(super) fn go(&self) {
        self.shared.go.cancel();
    }

    /// Vehicles connected now.
    pub(super) fn online(&self) -> u64 {
        self.shared.online.load(Relaxed)
    }

    /// Reports that the hub acknowledged.
    pub(super) fn published(&self) -> u64 {
        self.shared.ledger.lock().published()
    }

    /// Ends publishing, waits for what is under way, and gives the account book.
    pub(super) async fn stop(mut self) -> Ledger {
        self.shared.stop.cancel();
        self.shared.go.cancel();
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.shared.ledger.lock())
    }
}

/// The life of one vehicle: connected, offline for a while, connected again.
async fn drive(shared: Arc<Shared>, number: u32, mut vehicle: Vehicle, phase: Duration) {
    let mut ticks = None;
    while !shared.stop.is_cancelled() {
        let Some(client) = connect(&shared, number).await else { return };
        shared.online.fetch_add(1, Relaxed);
        shared.go.cancelled().await;
        let ticks = ticks.get_or_insert_with(|| {
            let mut ticks = interval_at(Instant::now() + phase, shared.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let offline = report(&shared, number, &mut vehicle, &client, ticks).await;
        shared.online.fetch_sub(1, Relaxed);
        client.disconnect().await;
        tokio::select! {
            () = sleep(offline) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Connects; `None` once the demo ends.
async fn connect(shared: &Shared, number: u32) -> Option<Client> {
    loop {
        let connecting = async {
            let _permit = shared.connecting.acquire().await.ok()?;
            // Vehicles only talk; what would come in is dropped.
            let connected = Client::connect(ClientOptions::new(shared.hub, name(number))).await;
            connected.ok().map(|(client, _inbox)| client)
        };
        tokio::select! {
            client = connecting => if client.is_some() { return client },
            () = shared.stop.cancelled() => return None,
        }
        tokio::select! {
            () = sleep(RECONNECT) => {}
            () = shared.stop.cancelled() => return None,
        }
    }
}

/// Reports until the network is lost, the connection fails or the demo ends; how long to stay offline.
async fn report(
    shared: &Shared,
    number: u32,
    vehicle: &mut Vehicle,
    client: &Client,
    ticks: &mut tokio::time::Interval,
) -> Duration {
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return Duration::ZERO,
        }
        let elapsed_s = last.elapsed().as_secs_f64();
        last = Instant::now();
        if let Some(offline_s) = vehicle.goes_offline(elapsed_s, OFFLINE_EVERY_S) {
            return Duration::from_secs_f64(offline_s);
        }
        let report = vehicle.report(elapsed_s);
        let key = ReportKey { vehicle: number, seq: report.seq };
        let facts = report.facts.clone();
        if acknowledged(client, report).await {
            shared.ledger.lock().acknowledged(key, &facts);
        } else {
            shared.ledger.lock().unconfirmed(key);
            return RECONNECT;
        }
    }
}

/// Publishes at QoS 1; whether the hub acknowledged that it has the report.
async fn acknowledged(client: &Client, report: Report) -> bool {
    let Report { topic, payload, .. } = report;
    matches!(timeout(ACKNOWLEDGED_WITHIN, client.publish_at_least_once(topic, payload)).await, Ok(Ok(())))
}
