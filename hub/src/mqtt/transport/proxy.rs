//! The header of the PROXY protocol, version 2: who is really at the other end of a connection that a load balancer
//! hands on.
//!
//! The header is demanded where it is configured. Who can reach such a listener past the load balancer can say that it
//! is anybody, so that it should be open to the load balancer alone.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Addresses, Command, Header, Protocol, Type, TypeLengthValues};
use tokio::net::TcpStream;

use super::super::peer::Certificate;

/// Bytes of a header before what it says: its length are the last two of them.
const HEAD_BYTES: usize = 16;
/// Longest header, in bytes.
const HEADER_BYTES_MAX: usize = 4096;
/// Of what says about TLS: flags, and whether the client's certificate was found good (0).
const TLS_HEAD_BYTES: usize = 5;
/// Flags: the client has shown a certificate, in this connection or in this TLS session.
const SHOWN_CERTIFICATE: u8 = 0x02 | 0x04;
/// Bytes before the value of a field: its type and its length.
const FIELD_HEAD_BYTES: usize = 3;
/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 4;

/// What a load balancer says of a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Its address; `None` if the load balancer speaks for itself, or does not know.
    pub(super) address: Option<SocketAddr>,
    /// Its certificate, which the load balancer has found good.
    pub(super) certificate: Option<Certificate>,
}

/// Reads the header, and nothing after it.
pub(super) async fn read(socket: &TcpStream) -> io::Result<Told> {
    let mut header = vec![0; HEAD_BYTES];
    fill(socket, &mut header).await?;
    let length = match (header.starts_with(ppp::v2::PROTOCOL_PREFIX), header.last_chunk::<2>()) {
        (true, Some(length)) => usize::from(u16::from_be_bytes(*length)),
        _ => return Err(invalid("it begins with no header of the PROXY protocol, version 2")),
    };
    if HEAD_BYTES + length > HEADER_BYTES_MAX {
        return Err(invalid(&format!("a header of more than {HEADER_BYTES_MAX} bytes")));
    }
    header.resize(HEAD_BYTES + length, 0);
    fill(socket, header.get_mut(HEAD_BYTES..).unwrap_or_default()).await?;
    parse(&header)
}

/// Reads until `buffer` is full.
async fn fill(socket: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What a whole header says.
fn parse(bytes: &[u8]) -> io::Result<Told> {
    let header = Header::try_from(bytes).map_err(|error| invalid(&error.to_string()))?;
    let mut told = Told::default();
    let mut at = bytes.len() - header.tlv_bytes().len();
    for field in header.tlvs() {
        let field = field.map_err(|error| invalid(&error.to_string()))?;
        at += FIELD_HEAD_BYTES;
        match field.kind {
            kind if kind == Type::CRC32C as u8 => check(bytes, at, &field.value)?,
            kind if kind == Type::SSL as u8 => told.certificate = certificate(&field.value)?,
            _ => {}
        }
        at += field.value.len();
    }
    if header.command == Command::Local {
        // A check of the load balancer's own.
        return Ok(Told::default());
    }
    told.address = match (header.protocol, header.addresses) {
        (Protocol::Stream, Addresses::IPv4(ip)) => {
            Some((IpAddr::V4(ip.source_address), ip.source_port).into())
        }
        (Protocol::Stream, Addresses::IPv6(ip)) => {
            Some((IpAddr::V6(ip.source_address), ip.source_port).into())
        }
        _ => None,
    };
    Ok(told)
}

/// Compares the checksum, whose value stands at `at`, with the header's own: counted with 0 in its place.
fn check(bytes: &[u8], at: usize, value: &[u8]) -> io::Result<()> {
    let stated = value.try_into().map(u32::from_be_bytes).map_err(|_| invalid("a checksum that is none"))?;
    let mut counted = crc32c::crc32c(bytes.get(..at).unwrap_or_default());
    counted = crc32c::crc32c_append(counted, &[0; CHECKSUM_BYTES]);
    counted = crc32c::crc32c_append(counted, bytes.get(at + CHECKSUM_BYTES..).unwrap_or_default());
    if counted == stated { Ok(()) } else { Err(invalid("its checksum is wrong")) }
}

/// The certificate that the load balancer says it has checked.
fn certificate(value: &[u8]) -> io::Result<Option<Certificate>> {
    let Some((head, fields)) = value.split_first_chunk::<TLS_HEAD_BYTES>() else {
        return Err(invalid("what it says of TLS is too short"));
    };
    let [flags, verified @ ..] = head;
    if flags & SHOWN_CERTIFICATE == 0 || *verified != [0; 4] {
        return Ok(None);
    }
    for field in TypeLengthValues::from(fields) {
        let field = field.map_err(|error| invalid(&error.to_string()))?;
        if field.kind == Type::SSLCommonName as u8 {
            let name = String::from_utf8(field.value.into_owned());
            let name = name.map_err(|_| invalid("a common name that is not UTF-8"))?;
            return Ok(Some(Certificate::of_common_name(name)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Builder, Version};
    use proptest::prelude::*;

    use super::*;

    const V4: ([u8; 4], [u8; 4], u16, u16) = ([10, 0, 0, 7], [10, 0, 0, 1], 40_000, 8883);

    fn addresses() -> Addresses {
        let (source, destination, from, to) = V4;
        Addresses::IPv4(ppp::v2::IPv4::new(source, destination, from, to))
    }

    fn header(command: Command, addresses: Addresses, fields: &[(u8, &[u8])]) -> Vec<u8> {
        let builder = Builder::with_addresses(Version::Two | command, Protocol::Stream, addresses);
        let with = |builder: Builder, (kind, value): &(u8, &[u8])| builder.write_tlv(*kind, value).unwrap();
        fields.iter().fold(builder, with).build().unwrap()
    }

    fn tls(flags: u8, verified: u8, name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).unwrap().to_be_bytes();
        [&[flags, 0, 0, 0, verified, 0x22], &length[..], name].concat()
    }

    #[test]
    fn the_client_is_who_the_load_balancer_says() {
        let told = parse(&header(Command::Proxy, addresses(), &[])).unwrap();
        assert_eq!(told, Told { address: Some("10.0.0.7:40000".parse().unwrap()), certificate: None });
        let local = parse(&header(Command::Local, addresses(), &[(0x20, &tls(7, 0, b"lb"))])).unwrap();
        assert_eq!(local, Told::default());
        let unknown = parse(&header(Command::Proxy, Addresses::Unspecified, &[])).unwrap();
        assert_eq!(unknown, Told::default());
    }

    #[test]
    fn a_name_counts_only_when_the_certificate_was_found_good() {
        let name = |flags, verified| {
            let told =
                parse(&header(Command::Proxy, addresses(), &[(0x20, &tls(flags, verified, b"car-7"))]));
            told.unwrap().certificate.and_then(|certificate| certificate.common_name)
        };
        assert_eq!(name(0x03, 0).as_deref(), Some("car-7"));
        assert_eq!(name(0x05, 0).as_deref(), Some("car-7"));
        assert_eq!(name(0x01, 0), None);
        assert_eq!(name(0x03, 1), None);
        assert!(parse(&header(Command::Proxy, addresses(), &[(0x20, &tls(7, 0, b"\xFF"))])).is_err());
        assert!(parse(&header(Command::Proxy, addresses(), &[(0x20, b"ab")])).is_err());
    }

    #[test]
    fn a_checksum_that_is_there_is_right() {
        let mut bytes = header(Command::Proxy, addresses(), &[(0x05, b"id"), (0x03, &[0; 4]), (0x04, b"x")]);
        let at = bytes.len() - 4 - 4;
        let sum = crc32c::crc32c(&bytes).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&sum);
        assert!(parse(&bytes).is_ok());
        bytes[at] ^= 1;
        assert!(parse(&bytes).is_err());
        assert!(parse(&header(Command::Proxy, addresses(), &[(0x03, &[0; 3])])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(fields: Vec<u8>, family: u8) {
            let mut bytes = ppp::v2::PROTOCOL_PREFIX.to_vec();
            bytes.extend([0x21, family]);
            bytes.extend(u16::try_from(fields.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(&fields);
            let _ = parse(&bytes);
            let _ = parse(&fields);
        }
    }
}
