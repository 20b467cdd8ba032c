//! Connections for which there is no room: a client is told so if that costs little, for it will come again.
//!
//! Only the protocol's name and version are looked at, only so many are told at a time, and each has only so long; the others are
//! closed without a word. A client behind TLS or a WebSocket would have to be let in first: it is closed at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::codec::{Connack, ConnackProperties, Packet, ReasonCode, Version};
use super::super::limits::Limit;
use super::super::peer::Peer;
use super::super::shared::Shared;
use super::Threads;

/// How long a client has to say which version it speaks, and to take the answer.
const TELL_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes of a CONNECT that are looked at: fixed header, protocol name, protocol version.
const LOOK_BYTES: usize = 12;

/// Counts a connection that is refused, and has its client told.
pub(super) fn refuse(
    stream: std::net::TcpStream,
    peer: &Peer,
    limit: Limit,
    shared: &Shared,
    threads: &Threads,
) {
    let (reason, what) = match limit {
        Limit::ConnectionRate => (ReasonCode::CONNECTION_RATE_EXCEEDED, "connections come too fast"),
        _ => (ReasonCode::QUOTA_EXCEEDED, "there are as many connections as the server takes"),
    };
    tracing::debug!(peer = %peer.address, limit = limit.key(), "a connection is refused");
    shared.counters.refuse(reason);
    shared.counters.reached(limit);
    if !peer.listener.is_plain() {
        return;
    }
    let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned() else { return };
    if let Some(runtime) = threads.next() {
        runtime.spawn(async move {
            let _permit = permit;
            // Whoever does not take the answer in time does without.
            let _ = timeout(TELL_TIME_MAX, tell(stream, reason, what)).await;
        });
    }
}

/// Reads which version a client speaks, and answers in it.
async fn tell(stream: std::net::TcpStream, reason: ReasonCode, what: &'static str) -> io::Result<()> {
    let mut stream = TcpStream::from_std(stream)?;
    let mut start = [0; LOOK_BYTES];
    let mut filled = 0;
    let version = loop {
        let Some(room) = start.get_mut(filled..).filter(|room| !room.is_empty()) else { return Ok(()) };
        match stream.read(room).await? {
            0 => return Ok(()),
            count => filled += count,
        }
        match version(start.get(..filled).unwrap_or_default()) {
            Looked::Speaks(version) => break version,
            Looked::Short => {}
            Looked::Nonsense => return Ok(()),
        }
    };
    let properties = ConnackProperties { reason_string: Some(what.into()), ..Default::default() };
    let connack = Packet::Connack(Box::new(Connack { session_present: false, reason, properties }));
    let mut out = BytesMut::new();
    if connack.encode(version, &mut out).is_ok() {
        stream.write_all(&out).await?;
        stream.shutdown().await?;
        // Closing with something unread would take the answer from the client.
        while stream.read(&mut [0; 512]).await? > 0 {}
    }
    Ok(())
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// The beginning of a CONNECT.
    Speaks(Version),
    /// Too few to say.
    Short,
    /// No CONNECT of a version that this server speaks.
    Nonsense,
}

/// Looks at the beginning of a CONNECT (3.1.1, 3.1.2.1, 3.1.2.2).
fn version(start: &[u8]) -> Looked {
    let Some((first, rest)) = start.split_first() else { return Looked::Short };
    if *first != 0x10 {
        return Looked::Nonsense;
    }
    // The remaining length, whatever it is.
    let Some(length) = rest.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        return if rest.len() < 4 { Looked::Short } else { Looked::Nonsense };
    };
    const NAME: &[u8] = b"\0\x04MQTT";
    let rest = rest.get(length + 1..).unwrap_or_default();
    let compared = rest.len().min(NAME.len());
    if rest.get(..compared) != NAME.get(..compared) {
        return Looked::Nonsense;
    }
    match rest.get(NAME.len()) {
        None => Looked::Short,
        Some(4) => Looked::Speaks(Version::V311),
        Some(5) => Looked::Speaks(Version::V5),
        Some(_) => Looked::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_however_much_has_come() {
        let old = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a";
        let new = b"\x10\xff\xff\xff\x7f\0\x04MQTT\x05";
        for end in 0..=8 {
            assert_eq!(version(&old[..end]), Looked::Short, "{end}");
        }
        assert_eq!(version(old), Looked::Speaks(Version::V311));
        assert!((0..new.len()).all(|end| version(&new[..end]) == Looked::Short));
        assert_eq!(version(new), Looked::Speaks(Version::V5));
        assert_eq!(new.len(), LOOK_BYTES, "the longest there is");
        for bad in [
            &b"GET / HTTP"[..],
            b"\x10\xff\xff\xff\xff\x01",
            b"\x10\x0d\0\x06MQIsdp\x03",
            b"\x10\x0d\0\x04MQTT\x06",
        ] {
            assert_eq!(version(bad), Looked::Nonsense, "{bad:?}");
        }
    }
}
