//! [`Mischief`]: what is done on one connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::said::Said;
use super::way::{Doors, Layer, Stream, Way};
use super::{Account, Plan, damage, traffic};
use crate::mqtt::Level;
use crate::mqtt::encode::{self, PINGREQ};

/// Clients that share their names, so that they take each other's sessions.
const CLIENTS: u32 = 50;
/// A hub that has nothing more to say for so long is left.
const QUIET: Duration = Duration::from_millis(200);
/// Over this a hub is stuck.
const LIMIT: Duration = Duration::from_secs(20);

/// What is done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mischief {
    /// Bits are flipped.
    Flip,
    /// Bytes are replaced.
    Set,
    /// The end is missing.
    Cut,
    /// A packet comes twice.
    Double,
    /// Packets come in another order.
    Shuffle,
    /// Parts of packets stand in others.
    Splice,
    /// Lengths lie.
    Lie,
    /// It is no MQTT.
    Noise,
    /// The PROXY protocol header is damaged.
    Header,
    /// Records of TLS are damaged, those of its handshake too.
    Records,
    /// Frames of a WebSocket are damaged, and the request for it.
    Frames,
    /// Everything is right, but comes byte by byte: it must be answered.
    Drip,
    /// A CONNECT that never ends: it must be cut when it is time.
    Stall,
    /// The client sends no more, but listens: it must be closed.
    HalfClose,
    /// It breaks in the middle of a packet.
    Reset,
    /// It ends as soon as it has begun.
    Brief,
    /// It asks for much and reads none of it.
    Deaf,
}

impl Mischief {
    fn of(random: &mut StdRng) -> Mischief {
        match random.random_range(0..100) {
            0..8 => Mischief::Flip,
            8..16 => Mischief::Set,
            16..21 => Mischief::Cut,
            21..26 => Mischief::Double,
            26..31 => Mischief::Shuffle,
            31..38 => Mischief::Splice,
            38..45 => Mischief::Lie,
            45..48 => Mischief::Noise,
            48..51 => Mischief::Header,
            51..54 => Mischief::Records,
            54..58 => Mischief::Frames,
            58..63 => Mischief::Drip,
            63..65 => Mischief::Stall,
            65..70 => Mischief::HalfClose,
            70..78 => Mischief::Reset,
            78..98 => Mischief::Brief,
            _ => Mischief::Deaf,
        }
    }

    /// The layer below MQTT that is damaged.
    fn layer(self) -> Option<Layer> {
        match self {
            Mischief::Header => Some(Layer::Proxy),
            Mischief::Records => Some(Layer::Tls),
            Mischief::Frames => Some(Layer::Web),
            _ => None,
        }
    }
}

/// What came of a connection.
pub(super) struct Done {
    mischief: Mischief,
    way: Way,
    sent: u64,
    said: Said,
    closed: bool,
    opened: bool,
}

impl Done {
    pub(super) fn add_to(self, account: &mut Account) {
        *account.connections.entry(self.mischief).or_default() += 1;
        *account.ways.entry(self.way).or_default() += 1;
        account.sent += self.sent;
        account.received += self.said.bytes;
        account.closed += u64::from(self.closed);
        account.unopened += u64::from(!self.opened);
        for refusal in self.said.refusals {
            *account.refusals.entry(refusal).or_default() += 1;
        }
    }
}

/// Opens connection `number` of the plan and does on it what chance says.
///
/// # Panics
/// When the hub does what it must not.
pub(super) async fn connection(doors: &Doors, plan: Plan, number: u64) -> Done {
    let mut random = StdRng::seed_from_u64(plan.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mischief = Mischief::of(&mut random);
    let way = Way::of(mischief.layer(), &mut random);
    let mut done = Done { mischief, way, sent: 0, said: Said::default(), closed: false, opened: false };
    let Ok(Ok(socket)) = timeout(LIMIT, doors.knock(way)).await else { return done };
    done.opened = true;
    let wrong = |wrong| format!("seed {}, connection {number} ({mischief:?}, {way}): {wrong}", plan.seed);
    match enter(doors, socket, mischief, way, plan, &mut random).await {
        Ok(Some((stream, below))) => {
            let mut connection = Connection { stream, below, done, random, number, reset: false };
            connection.run(plan).await.unwrap_or_else(|what| panic!("{}", wrong(what)));
            connection.done
        }
        Ok(None) => {
            done.closed = true;
            done
        }
        Err(what) => panic!("{}", wrong(what)),
    }
}

/// Puts the layers on; or does not get so far, and gives what the first of them begins with. `None` when the hub
/// wants nothing of a layer that is damaged. An error is what the hub must not do.
async fn enter(
    doors: &Doors,
    socket: TcpStream,
    mischief: Mischief,
    way: Way,
    plan: Plan,
    random: &mut StdRng,
) -> Result<Option<(Box<dyn Stream>, Option<&'static [u8]>)>, String> {
    let early = match mischief {
        Mischief::Stall => 0.4,
        Mischief::Brief => 0.3,
        _ => 0.0,
    };
    if let Some(beginning) = way.beginning().filter(|_| random.random_bool(early)) {
        return Ok(Some((Box::new(socket), Some(beginning))));
    }
    let began = Instant::now();
    let limit = plan.connect_timeout + LIMIT;
    match timeout(limit, doors.enter(socket, way, mischief.layer(), random)).await {
        Ok(Ok(stream)) => Ok(Some((stream, None))),
        // A hub that is busy elsewhere may find that its time for it is over.
        Ok(Err(_)) if mischief.layer().is_some() || began.elapsed() > plan.connect_timeout / 2 => Ok(None),
        Ok(Err(error)) => Err(format!("a good handshake failed: {error}")),
        Err(_) => Err(format!("a handshake went on for {limit:?}")),
    }
}

/// Whether it is not an end, but frames that no server sends.
fn is_nonsense(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other
}

struct Connection {
    stream: Box<dyn Stream>,
    /// It has not got as far as MQTT: the layer below begins so.
    below: Option<&'static [u8]>,
    done: Done,
    random: StdRng,
    number: u64,
    /// Whether sending has failed: the connection was reset, of which reading then says no more than that it is over.
    reset: bool,
}

impl Connection {
    /// An error is what the hub must not do.
    async fn run(&mut self, plan: Plan) -> Result<(), String> {
        let level = if self.random.random_bool(0.5) { Level::V5 } else { Level::V311 };
        let mischief = self.done.mischief;
        let client = match mischief {
            Mischief::Drip => format!("dripping-{}", self.number),
            _ => format!("mangled-{}", self.random.random_range(0..CLIENTS)),
        };
        let packets = match self.below {
            Some(beginning) => vec![Bytes::from_static(beginning)],
            None => traffic::session(level, &client, &mut self.random),
        };
        let random = &mut self.random;
        let bytes = match mischief {
            Mischief::Flip => damage::flip(&packets, random),
            Mischief::Set => damage::set(&packets, random),
            Mischief::Cut => damage::cut(&packets, random),
            Mischief::Double => damage::double(&packets, random),
            Mischief::Shuffle => damage::shuffle(&packets, random),
            Mischief::Splice => damage::splice(&packets, random),
            Mischief::Lie => damage::lie(&packets, random),
            Mischief::Noise => damage::noise(random),
            // Damaged on its way.
            Mischief::Header | Mischief::Records | Mischief::Frames => packets.concat(),
            Mischief::Drip => return self.drip(&packets).await,
            Mischief::Stall => return self.stall(&packets, plan.connect_timeout).await,
            Mischief::HalfClose => return self.half_close(&packets).await,
            Mischief::Reset => {
                let bytes = damage::cut(&packets, random);
                let _ = self.send(&bytes).await;
                return self.reset();
            }
            Mischief::Brief => {
                let bytes = packets.concat();
                let length = [0, 0, 1, 2, bytes.len()][random.random_range(0..5)];
                let _ = self.send(&bytes[..length]).await;
                return Ok(());
            }
            Mischief::Deaf => return self.deaf(level, &packets).await,
        };
        let ended = self.send(&bytes).await.err().map(|error| error.kind());
        self.reset = matches!(ended, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        self.listen(QUIET).await
    }

    /// Sends in some pieces. The hub may close meanwhile, so an error says nothing.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = if self.random.random_bool(0.6) {
                rest.len()
            } else {
                self.random.random_range(1..=rest.len())
            };
            let (piece, later) = rest.split_at(length);
            let write = async {
                self.stream.write_all(piece).await?;
                self.stream.flush().await
            };
            timeout(LIMIT, write).await??;
            self.done.sent += piece.len() as u64;
            rest = later;
            if !rest.is_empty() {
                sleep(Duration::from_millis(self.random.random_range(0..3))).await;
            }
        }
        Ok(())
    }

    /// Reads until the hub closes, or is quiet for so long.
    async fn listen(&mut self, quiet: Duration) -> Result<(), String> {
        let mut buffer = [0; 4096];
        let began = Instant::now();
        // Others publish what this one hears, so it may never be quiet.
        while began.elapsed() < 5 * quiet {
            match timeout(quiet, self.stream.read(&mut buffer)).await {
                Err(_) => return Ok(()),
                Ok(Ok(0)) => {
                    self.done.closed = true;
                    let whole = self.reset || self.done.said.is_whole();
                    return if whole { Ok(()) } else { Err("it ended in the middle of a packet".to_owned()) };
                }
                Ok(Err(error)) if is_nonsense(&error) => return Err(error.to_string()),
                Ok(Err(_)) => {
                    self.done.closed = true;
                    return Ok(());
                }
                Ok(Ok(length)) => self.done.said.hear(&buffer[..length])?,
            }
        }
        Ok(())
    }

    /// Byte by byte, with a PINGREQ at the end, which is answered when all before it was taken.
    async fn drip(&mut self, packets: &[Bytes]) -> Result<(), String> {
        let already = packets.iter().filter(|packet| packet[..] == PINGREQ).count() as u32;
        let bytes = [&packets.concat()[..], &PINGREQ].concat();
        let (mut read, mut write) = tokio::io::split(&mut self.stream);
        let (said, sent) = (&mut self.done.said, &mut self.done.sent);
        let drip = async {
            for byte in bytes {
                let closed = |error| format!("it closed: {error}");
                write.write_all(&[byte]).await.map_err(closed)?;
                write.flush().await.map_err(closed)?;
                *sent += 1;
                tokio::task::yield_now().await;
            }
            Ok::<_, String>(())
        };
        let hear = async {
            let mut buffer = [0; 4096];
            while said.pongs <= already {
                match read.read(&mut buffer).await {
                    Ok(0) | Err(_) => {
                        return Err(format!("valid packets were refused: {:x?}", said.refusals));
                    }
                    Ok(length) => said.hear(&buffer[..length])?,
                }
            }
            Ok(())
        };
        let both = async { tokio::try_join!(drip, hear) };
        timeout(LIMIT, both).await.map_err(|_| format!("no PINGRESP in {LIMIT:?}"))?.map(|_| ())
    }

    /// A CONNECT whose last byte never comes.
    async fn stall(&mut self, packets: &[Bytes], connect_timeout: Duration) -> Result<(), String> {
        let began = Instant::now();
        let connect = packets.first().map_or(&[][..], |connect| &connect[..connect.len() - 1]);
        for byte in connect {
            if self.stream.write_all(&[*byte]).await.is_err() || self.stream.flush().await.is_err() {
                break;
            }
            self.done.sent += 1;
            sleep(Duration::from_millis(self.random.random_range(10..100))).await;
            if began.elapsed() > connect_timeout {
                break;
            }
        }
        self.until_closed(connect_timeout + LIMIT).await?;
        if began.elapsed() < connect_timeout / 2 {
            return Err(format!("it closed after {:?} already", began.elapsed()));
        }
        Ok(())
    }

    async fn half_close(&mut self, packets: &[Bytes]) -> Result<(), String> {
        let _ = self.send(&packets.concat()).await;
        // Layers have something to write for it.
        let _ = timeout(LIMIT, self.stream.shutdown()).await;
        self.until_closed(LIMIT).await
    }

    async fn until_closed(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            match tokio::time::timeout_at(deadline, self.stream.read(&mut buffer)).await {
                Err(_) => return Err(format!("it was still open after {limit:?}")),
                Ok(Err(error)) if is_nonsense(&error) => return Err(error.to_string()),
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(length)) => self.done.said.hear(&buffer[..length])?,
            }
        }
        self.done.closed = true;
        Ok(())
    }

    /// The end is a RST.
    fn reset(&mut self) -> Result<(), String> {
        let linger = self.stream.socket().set_zero_linger();
        linger.map_err(|error| format!("a socket without linger: {error}"))
    }

    /// Hears everything that is published, publishes much itself, and reads nothing.
    async fn deaf(&mut self, level: Level, packets: &[Bytes]) -> Result<(), String> {
        let mut bytes = packets.concat();
        bytes.extend_from_slice(&encode::subscribe(level, 1000, &[("mangled/#", 1)]));
        let payload = vec![b'd'; 2000];
        for id in 1001..1051 {
            let publish = crate::mqtt::Publish::new("mangled/deaf", payload.clone(), 1, id);
            bytes.extend_from_slice(&publish.encode(level));
        }
        let _ = self.send(&bytes).await;
        sleep(Duration::from_millis(self.random.random_range(100..2000))).await;
        if self.random.random_bool(0.5) { self.reset() } else { Ok(()) }
    }
}
