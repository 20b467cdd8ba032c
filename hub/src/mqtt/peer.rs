//! [`Peer`]: who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::listener::Listener;

/// Where a connection comes from, and what holds for it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address, or that of the client for which a load balancer speaks. Of IPv4 as such, also on a socket of IPv6.
    pub(super) address: SocketAddr,
    /// The listener it came to, and that one's policy.
    pub(super) listener: Arc<Listener>,
    /// The certificate it has proved to be its own; `None` if it has shown none.
    pub(super) certificate: Option<Arc<Certificate>>,
}

impl Peer {
    /// A peer that has shown its address, and nothing else.
    pub(super) fn new(address: SocketAddr, listener: &Arc<Listener>) -> Self {
        Peer { address: canonical(address), listener: Arc::clone(listener), certificate: None }
    }

    /// The address of the client for which a load balancer speaks.
    pub(super) fn set_address(&mut self, address: SocketAddr) {
        self.address = canonical(address);
    }
}

/// An address of IPv4 as such, also where it came over a socket of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a client's certificate says of it. Names are as they stand there: whoever puts one into a topic checks it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The first common name of the subject.
    pub(super) common_name: Option<String>,
    /// The subject, as in `CN=car-7, O=Example`; empty if a load balancer says only the common name.
    pub(super) subject: String,
    /// The DNS names among the subject's alternative names.
    pub(super) dns_names: Vec<String>,
}

impl Certificate {
    /// A certificate of which nothing else is known.
    pub(super) fn of_common_name(name: String) -> Self {
        Certificate { common_name: Some(name), ..Certificate::default() }
    }

    /// Reads one; `None` if it is none.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|names| &names.value.general_names);
        let dns_names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Some(Certificate {
            common_name: common_name.map(str::to_owned),
            subject: subject.to_string(),
            dns_names: dns_names.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_says_who_it_is_of() {
        let mut params = CertificateParams::new(["car-7.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "car-7");
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(read.common_name.as_deref(), Some("car-7"));
        assert_eq!(read.dns_names, ["car-7.example.com"]);
        assert!(read.subject.contains("O=Example"), "{}", read.subject);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Certificate::from_der(&bytes);
        }
    }
}
