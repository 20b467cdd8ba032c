//! Clients that send what no client should, some thousand connections of them, beside clients that behave: these notice
//! nothing, and what the hub took for the others it gives back.
//!
//! `TIDEMILL_MANGLE_SECONDS` is how long it goes on, `TIDEMILL_MANGLE_RATE` how many connections there are in a second.

use std::time::{Duration, Instant};

use tidemill_tests::environment::{seed, variable};
use tidemill_tests::ledger::{Arrivals, Message};
use tidemill_tests::load::{Load, Plan, Published};
use tidemill_tests::mangle::{self, Doors, Mangler};
use tidemill_tests::mqtt::{Client, Connect, Level, Packet};
use tidemill_tests::pki::Authority;
use tidemill_tests::report::quantile;
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::folder;
use tidemill_tests::{report, wait};
use tokio::sync::watch;
use tokio::time::sleep;

const SECONDS: u64 = 10;
const RATE: u32 = 300;
/// Clients that behave: 100 messages a second.
const PLAN: Plan =
    Plan { publishers: 5, every: Duration::from_millis(50), burst: 1, window: 100, payload_bytes: 200 };
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Sessions do not outlive the test.
const CONFIG: &str = "mqtt:\n  connect_timeout: 2s\n  session_expiry_max: 1s\n  listeners:\n";
/// A message waits so long for its acknowledgement at most; 99 of 100 a tenth of it.
const LATENCY_MAX: Duration = Duration::from_secs(5);
/// What caches and the allocator may have taken meanwhile.
const GROWTH_KIB_MAX: u64 = 64 << 10;
const LIMIT: Duration = Duration::from_secs(30);
/// Looks at the hub's memory.
const LOOKS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mangled_traffic_harms_nobody() {
    let seed = seed("mangle");
    let lasts = Duration::from_secs(variable("TIDEMILL_MANGLE_SECONDS").unwrap_or(SECONDS));
    let rate = variable("TIDEMILL_MANGLE_RATE").unwrap_or(RATE);
    report!("mangle", "{rate} connections/s for {lasts:?}");
    let dir = folder();
    let authority = Authority::new("mangle");
    authority.server(1).write(dir.path(), "server");
    let listeners = Doors::listeners("certificate: server.pem, key: server.key");
    let mut hub = Tidemill::start_configured(dir, &format!("{CONFIG}{listeners}")).await;

    let (total, known) = watch::channel(None);
    let mut listeners = Vec::new();
    for level in [Level::V5, Level::V311] {
        let connect = Connect::clean(format!("listener-{level:?}")).level(level);
        let mut client = Client::connect(hub.mqtt(), &connect).await;
        client.subscribe(&[("load/+", 1)]).await;
        listeners.push((level, tokio::spawn(listen(client, known.clone()))));
    }
    let load = Load::start(hub.mqtt(), PLAN);
    let acknowledged = async || (load.acknowledged() > 100).then_some(());
    wait::until("all to be connected", LIMIT, acknowledged).await;
    let sockets = hub.sockets();

    let plan = mangle::Plan { seed, rate, connect_timeout: CONNECT_TIMEOUT };
    let doors = Doors::of(hub.mqtt_addresses(), authority.client(None));
    let mangler = Mangler::start(doors, plan);
    let before = observe(&hub, &mangler, lasts).await;
    let account = mangler.stop().await;
    wait::until_eq("the hub's sockets", LIMIT, sockets, async || hub.sockets()).await;
    let after = hub.memory().anonymous_kib;
    let published = load.stop().await;

    let counts: Vec<u32> = published.iter().map(|one| one.sent.len() as u32).collect();
    total.send_replace(Some(counts.iter().map(|count| u64::from(*count)).sum()));
    for (level, listener) in listeners {
        let arrivals = listener.await.expect("a listener that was not cut off");
        let verdict = arrivals.verdict(&counts);
        report!("mangle", "those who behave, {level:?}: {verdict}");
        verdict.assert_good(&format!("{level:?}"));
    }
    let worst = check_publishers(&published);
    report!("mangle", "{account}");
    let metrics = hub.metrics().await;
    report!(
        "mangle",
        "refused, as the hub counts: {:?}",
        metrics.by_label("tidemill_mqtt_refused_total", "reason")
    );
    let failed = metrics.by_label("tidemill_mqtt_handshakes_failed_total", "layer");
    report!("mangle", "handshakes that failed: {failed:?}");
    report!(
        "mangle",
        "memory of its own {before} KiB early, {after} KiB after; {sockets} sockets before and after"
    );

    assert!(account.unopened == 0 && account.total() > lasts.as_secs() * u64::from(rate) / 4, "{account}");
    for layer in ["proxy", "tls", "websocket"] {
        assert!(
            failed.get(layer).is_some_and(|count| *count > 0.0),
            "no handshake failed in {layer}: {failed:?}"
        );
    }
    assert!(worst <= LATENCY_MAX, "an acknowledgement took {worst:?}");
    assert!(after <= before + GROWTH_KIB_MAX, "memory grew from {before} to {after} KiB");
    let log = hub.log();
    let trouble: Vec<&str> =
        log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).take(5).collect();
    assert!(trouble.is_empty(), "the hub logged {trouble:#?}");
    assert!(hub.terminate().await.success(), "a graceful stop");
}

/// Waits, and tells now and then how the hub is. Gives its memory when a quarter of the time is over.
async fn observe(hub: &Tidemill, mangler: &Mangler, lasts: Duration) -> u64 {
    let (began, mut early) = (Instant::now(), 0);
    for look in 1..=LOOKS {
        sleep((lasts * look / LOOKS).saturating_sub(began.elapsed())).await;
        let memory = hub.memory().anonymous_kib;
        if look <= LOOKS / 4 {
            early = early.max(memory);
        }
        if look % (LOOKS / 4) == 0 {
            report!(
                "mangle",
                "after {:.0?}: {} connections, {memory} KiB, {} sockets",
                began.elapsed(),
                mangler.account().total(),
                hub.sockets()
            );
        }
    }
    early
}

/// Takes all messages of those who behave, until there are as many as were published.
async fn listen(mut client: Client, mut total: watch::Receiver<Option<u64>>) -> Arrivals {
    let (mut arrivals, mut distinct) = (Arrivals::default(), 0);
    while total.borrow().is_none_or(|total| distinct < total) {
        let packet = tokio::select! {
            packet = client.reader.next() => packet.expect("an open connection"),
            _ = total.changed() => continue,
        };
        match packet {
            Some(Packet::Publish { id, payload, .. }) => {
                distinct += u64::from(arrivals.note(Message::of(&payload)));
                client.writer.puback(id).await.expect("an open connection");
                client.writer.flush().await.expect("an open connection");
            }
            other => panic!("a message was expected, not {other:?}"),
        }
    }
    client.nothing_comes().await;
    client.disconnect().await;
    arrivals
}

/// The longest that a message waited for its acknowledgement.
fn check_publishers(published: &[Published]) -> Duration {
    for one in published {
        assert_eq!((one.broken, one.refused, one.misordered_acks), (0, 0, 0), "cut off, refused, misordered");
    }
    let mut latencies: Vec<u32> =
        published.iter().flat_map(|one| one.acks.iter().map(|ack| ack.latency_us)).collect();
    latencies.sort_unstable();
    let at = |per_thousand| Duration::from_micros(quantile(&latencies, per_thousand).into());
    report!(
        "mangle",
        "acknowledged within {:.1?} (median), {:.1?} (99 of 100), {:.1?} (all)",
        at(500),
        at(990),
        at(1000)
    );
    assert!(at(990) <= LATENCY_MAX / 10, "99 of 100 acknowledgements took up to {:?}", at(990));
    at(1000)
}
