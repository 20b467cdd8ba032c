//! [`Net`]: the connections of a scenario, all on one thread.
//!
//! A turn waits for events (epoll, edge-triggered: no system call changes what is waited for), reads each connection that has
//! something with one call into a buffer that all share, and hands the packets to the scenario. What the scenario has to say is
//! gathered for each connection and written with one call by [`Net::flush`]. A connection that is idle has no buffers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::Target;
use super::wire::{self, Delivery, Incoming, PACKET_BYTES_MAX};
use crate::bench::{Error, Result};
use crate::mqtt::codec::{Packet, Qos, ReasonCode};

/// Bytes read with one call, beside the begin of a packet from the call before.
const READ_BYTES: usize = 256 << 10;
/// Events taken with one call.
const EVENTS: usize = 1024;
/// Connections between their first SYN and their last answer: fewer than fit into the shortest backlog that brokers listen with
/// (100), since a SYN that does not fit comes again only after a second.
const OPENING_MAX: usize = 64;
/// Descriptors that are in use beside those of connections.
const SPARE_DESCRIPTORS: usize = 32;
/// How long nothing may happen before what is missing counts as not coming.
pub(super) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// The same for connections: a SYN that a full queue refused comes again after 1, 3, 7, 15, 31 and 63 seconds.
const OPENING_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 40 });
/// How long a turn waits that has nothing else to do; a wish to stop is seen after this.
pub(super) const TURN: Duration = Duration::from_millis(50);

/// Who takes what comes.
pub(super) trait Receive {
    /// A message for a connection that has subscribed. `out` is what that connection will write.
    fn delivery(
        &mut self,
        connection: usize,
        delivery: Delivery<'_>,
        out: &mut Vec<u8>,
        now_ns: u64,
    ) -> Result<()>;

    /// A message that a connection had published is acknowledged.
    fn acknowledged(&mut self, connection: usize, id: u16, reason: ReasonCode) -> Result<()>;
}

/// For connections that no message is meant for.
pub(super) struct Nothing;

impl Receive for Nothing {
    fn delivery(&mut self, connection: usize, _: Delivery<'_>, _: &mut Vec<u8>, _: u64) -> Result<()> {
        Err(Error::Other(format!("connection {connection} got a message, and nothing was published to it")))
    }

    fn acknowledged(&mut self, connection: usize, id: u16, _: ReasonCode) -> Result<()> {
        Err(Error::Other(format!("connection {connection} got PUBACK {id}, and it has published nothing")))
    }
}

/// Who connects, and to what it subscribes.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) client_id: String,
    /// Whether the session begins anew and ends with its connection.
    pub(super) clean: bool,
    pub(super) subscribe: Option<(String, Qos)>,
}

#[derive(Debug)]
enum Stage {
    /// CONNECT is on its way; this SUBSCRIBE comes after its answer, if any.
    Connecting(Option<Vec<u8>>),
    Subscribing,
    Open,
    /// Its end is not an error any more.
    Leaving,
}

struct Connection {
    stream: TcpStream,
    stage: Stage,
    /// The begin of a packet.
    rest: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
    /// Whether the socket took all it was last given.
    writable: bool,
    /// Whether its end was told. It may come after bytes that are read with a call of their own, and is told only once.
    ending: bool,
    /// Whether it is in the list of those that have something to write.
    listed: bool,
}

/// The connections of a scenario.
pub(super) struct Net {
    target: Target,
    epoll: OwnedFd,
    began: Instant,
    connections: Vec<Option<Connection>>,
    opening: usize,
    open: usize,
    /// Connections with something to write.
    to_write: Vec<usize>,
    /// Connections that may have more to read than one call took.
    to_read: Vec<usize>,
    events: Vec<epoll::Event>,
    buffer: Box<[u8]>,
}

impl Net {
    pub(super) fn new(target: &Target) -> Result<Net> {
        Ok(Net {
            target: target.clone(),
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?,
            began: Instant::now(),
            connections: Vec::new(),
            opening: 0,
            open: 0,
            to_write: Vec::new(),
            to_read: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; PACKET_BYTES_MAX + READ_BYTES].into(),
        })
    }

    /// Makes room for so many descriptors now. The table of a process with several threads grows step by step, and each step waits
    /// for all cores: some milliseconds that a timed scenario would count.
    pub(super) fn reserve(&self, connections: usize) -> Result<()> {
        let highest = i32::try_from(self.epoll.as_raw_fd() as usize + connections + SPARE_DESCRIPTORS);
        let highest = highest.map_err(|error| Error::Other(error.to_string()))?;
        match fcntl_dupfd_cloexec(&self.epoll, highest) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Other(format!(
                "{connections} connections need as many open files, and the system refuses: {error}; raise `ulimit -n`"
            ))),
        }
    }

    /// Nanoseconds since this was made.
    pub(super) fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Connections that are accepted, and have subscribed if they were to.
    pub(super) fn open_count(&self) -> usize {
        self.open
    }

    /// Whether another connection may be begun now.
    pub(super) fn may_open(&self) -> bool {
        self.opening < OPENING_MAX
    }

    /// Begins a connection. Its number is one more than that of the one before, from 0.
    pub(super) fn open(&mut self, session: &Session) -> Result<usize> {
        let number = self.prepare(session)?;
        self.connect(number)?;
        Ok(number)
    }

    /// Makes all that a connection needs but the connection.
    pub(super) fn prepare(&mut self, session: &Session) -> Result<usize> {
        let Target { address, version, .. } = self.target;
        let stream = socket(address)?;
        let number = self.connections.len();
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(number as u64), flags)
            .map_err(io::Error::from)?;
        let subscribe = session.subscribe.as_ref();
        let subscribe = subscribe.map(|(filter, qos)| wire::subscribe(filter, *qos, version)).transpose()?;
        self.connections.push(Some(Connection {
            stream,
            stage: Stage::Connecting(subscribe),
            rest: Vec::new(),
            out: wire::connect(&session.client_id, session.clean, version)?,
            written: 0,
            writable: false,
            ending: false,
            listed: true,
        }));
        Ok(number)
    }

    /// Begins a connection that was prepared.
    fn connect(&mut self, number: usize) -> Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return Ok(()) };
        match rustix::net::connect(&connection.stream, &self.target.address) {
            // Over loopback it stands at once.
            Ok(()) => connection.writable = true,
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(self.connect_error(&error.into())),
        }
        self.to_write.push(number);
        self.opening += 1;
        Ok(())
    }

    /// Opens all connections that were prepared, as devices do that come back after an outage: each sends its CONNECT as soon as
    /// its own connection stands, and none waits for another's.
    pub(super) fn storm(&mut self, receive: &mut impl Receive) -> Result<()> {
        for number in 0..self.connections.len() {
            self.connect(number)?;
            self.flush()?;
        }
        self.open_all([], receive)
    }

    /// Opens these connections, a bounded number at a time, and waits until all are.
    pub(super) fn open_all(
        &mut self,
        sessions: impl IntoIterator<Item = Session>,
        receive: &mut impl Receive,
    ) -> Result<()> {
        let mut sessions = sessions.into_iter().peekable();
        let mut since = (self.open, Instant::now());
        while self.opening > 0 || sessions.peek().is_some() {
            while self.may_open()
                && let Some(session) = sessions.next()
            {
                self.open(&session)?;
            }
            self.flush()?;
            self.turn(TURN, receive)?;
            if since.0 != self.open {
                since = (self.open, Instant::now());
            } else if since.1.elapsed() > OPENING_PATIENCE {
                return Err(Error::Other(format!(
                    "{}: no answer to {} of {} connections for {OPENING_PATIENCE:?}; look in the broker's log and at its \
                     limits of connections and open files",
                    self.target.address,
                    self.opening,
                    self.connections.len()
                )));
            }
        }
        self.flush()
    }

    /// Subscribes an open connection.
    pub(super) fn subscribe(&mut self, number: usize, filter: &str, qos: Qos) -> Result<()> {
        let packet = wire::subscribe(filter, qos, self.target.version)?;
        if let Some(Some(connection)) = self.connections.get_mut(number) {
            connection.stage = Stage::Subscribing;
            self.open -= 1;
            self.opening += 1;
        }
        if let Some(out) = self.output(number) {
            out.extend(packet);
        }
        Ok(())
    }

    /// What a connection will write with the next [`Net::flush`]; `None` if it has ended.
    pub(super) fn output(&mut self, number: usize) -> Option<&mut Vec<u8>> {
        let connection = self.connections.get_mut(number)?.as_mut()?;
        if !connection.listed {
            connection.listed = true;
            self.to_write.push(number);
        }
        Some(&mut connection.out)
    }

    /// Waits at most so long for something to happen, and takes what has come.
    pub(super) fn turn(&mut self, wait: Duration, receive: &mut impl Receive) -> Result<()> {
        self.target.stop.check()?;
        let wait = if self.to_read.is_empty() { wait } else { Duration::ZERO };
        let wait = Timespec::try_from(wait).map_err(|error| Error::Other(error.to_string()))?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut to_read = std::mem::take(&mut self.to_read);
        for event in &self.events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            let Some(Some(connection)) = self.connections.get_mut(number) else { continue };
            if flags.contains(EventFlags::OUT) {
                connection.writable = true;
                self.to_write.extend(connection.list(number));
            }
            connection.ending |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if connection.ending || flags.contains(EventFlags::IN) {
                to_read.push(number);
            }
        }
        for number in to_read {
            self.read(number, receive)?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize, receive: &mut impl Receive) -> Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return Ok(()) };
        let kept = connection.rest.len();
        let (begin, room) = self.buffer.split_at_mut(kept);
        begin.copy_from_slice(&connection.rest);
        let room_bytes = room.len();
        let read = match connection.stream.read(room) {
            Ok(0) => return self.ended(number, None),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.to_read.push(number);
                return Ok(());
            }
            Err(error) => return self.ended(number, Some(&error)),
        };
        if read == room_bytes || connection.ending {
            self.to_read.push(number);
        }
        let now_ns = self.began.elapsed().as_nanos() as u64;
        let mut bytes = self.buffer.get(..kept + read).unwrap_or_default();
        while let Some((incoming, used)) = wire::first(bytes, self.target.version)? {
            match incoming {
                Incoming::Publish(delivery) => {
                    receive.delivery(number, delivery, &mut connection.out, now_ns)?;
                }
                Incoming::Puback { id, reason } => receive.acknowledged(number, id, reason)?,
                Incoming::Other(packet) => {
                    let opened = connection.answered(number, *packet)?;
                    self.opening -= usize::from(opened);
                    self.open += usize::from(opened);
                }
            }
            bytes = bytes.get(used..).unwrap_or_default();
        }
        connection.rest.clear();
        connection.rest.extend_from_slice(bytes);
        self.to_write.extend(connection.list(number));
        Ok(())
    }

    /// Writes what there is to write. What a socket does not take now is written when it has room again.
    pub(super) fn flush(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.to_write) {
            let Some(Some(connection)) = self.connections.get_mut(number) else { continue };
            connection.listed = false;
            if let Err(error) = connection.write() {
                self.ended(number, Some(&error))?;
            }
        }
        Ok(())
    }

    /// The connection has ended. That is an error unless it was to.
    fn ended(&mut self, number: usize, why: Option<&io::Error>) -> Result<()> {
        let Some(ended) = self.connections.get_mut(number).and_then(Option::take) else { return Ok(()) };
        match (ended.stage, why) {
            (Stage::Leaving, _) => {
                self.open -= 1;
                Ok(())
            }
            (Stage::Connecting(_), Some(error)) => Err(self.connect_error(error)),
            (stage, why) => {
                let why = why.map_or_else(String::new, |error| format!(": {error}"));
                let when = match stage {
                    Stage::Connecting(_) => " before it answered CONNECT",
                    Stage::Subscribing => " before it answered SUBSCRIBE",
                    _ => "",
                };
                Err(Error::Other(format!(
                    "{} closed connection {number}{when}{why}; look in the broker's log",
                    self.target.address
                )))
            }
        }
    }

    fn connect_error(&self, error: &io::Error) -> Error {
        let hint = match error.kind() {
            ErrorKind::ConnectionRefused => "; is a broker listening there? (--host, --port)",
            _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => "; raise `ulimit -n`",
            _ => "",
        };
        Error::Other(format!("connecting to {}: {error}{hint}", self.target.address))
    }

    /// From now on no end of a connection is an error.
    pub(super) fn let_go(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            if matches!(connection.stage, Stage::Connecting(_) | Stage::Subscribing) {
                self.opening -= 1;
                self.open += 1;
            }
            connection.stage = Stage::Leaving;
        }
    }

    /// Waits until every connection has ended.
    pub(super) fn until_gone(&mut self, receive: &mut impl Receive) -> Result<()> {
        let began = Instant::now();
        while self.open > 0 {
            self.flush()?;
            self.turn(TURN, receive)?;
            if began.elapsed() > PATIENCE {
                return Err(Error::Other(format!(
                    "{}: {} connections are still open {PATIENCE:?} after they were to end",
                    self.target.address, self.open
                )));
            }
        }
        Ok(())
    }

    /// Says goodbye on every connection and waits until the broker has closed them: it then knows that their clients are gone.
    pub(super) fn leave(&mut self, receive: &mut impl Receive) -> Result<()> {
        let disconnect = wire::disconnect(self.target.version)?;
        for number in 0..self.connections.len() {
            if let Some(out) = self.output(number) {
                out.extend(&disconnect);
            }
        }
        self.let_go();
        self.until_gone(receive)
    }
}

impl Connection {
    /// Its number if it has something to write and is not in the list of those yet.
    fn list(&mut self, number: usize) -> Option<usize> {
        let unlisted = !self.out.is_empty() && !std::mem::replace(&mut self.listed, true);
        unlisted.then_some(number)
    }

    /// Takes an answer; whether it was the last one to wait for.
    fn answered(&mut self, number: usize, packet: Packet) -> Result<bool> {
        let refused = |what: &str, reason: ReasonCode| {
            Err(Error::Other(format!("the broker refused {what} of connection {number}: {reason}")))
        };
        match (&mut self.stage, packet) {
            (Stage::Connecting(_), Packet::Connack(connack)) if connack.reason.is_error() => {
                refused("the CONNECT", connack.reason)
            }
            (Stage::Connecting(subscribe), Packet::Connack(_)) => match subscribe.take() {
                Some(packet) => {
                    self.out.extend(packet);
                    self.stage = Stage::Subscribing;
                    Ok(false)
                }
                None => {
                    self.stage = Stage::Open;
                    Ok(true)
                }
            },
            (Stage::Subscribing, Packet::Suback(suback)) => {
                if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
                    return refused("the SUBSCRIBE", *reason);
                }
                self.stage = Stage::Open;
                Ok(true)
            }
            (Stage::Leaving, _) => Ok(false),
            (_, Packet::Disconnect(disconnect)) => refused("more", disconnect.reason),
            (stage, packet) => Err(Error::Other(format!(
                "the broker broke the protocol: a {:?} for connection {number} while it was {stage:?}",
                packet.kind()
            ))),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.writable && self.written < self.out.len() {
            let left = self.out.get(self.written..).unwrap_or_default();
            match self.stream.write(left) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }
}

/// A socket for a connection to this address.
fn socket(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    set_tcp_nodelay(&socket, true)?;
    Ok(TcpStream::from(socket))
}
