//! Clients that are known by the certificate they show. Whether it is good was found out by TLS.

use bytestring::ByteString;
use serde::Deserialize;

use super::super::peer::Certificate;
use super::identity::{Identity, Login};

/// The keys of `certificates:`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSettings {
    /// What is the user name.
    pub user: Part,
}

/// A part of a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The whole subject.
    Subject,
    /// The first DNS name.
    Dns,
}

impl CertificateSettings {
    /// Who has shown a certificate, if that has the part which names users.
    pub(super) fn admit(self, login: &Login<'_>) -> Option<Identity> {
        let user = self.user.of(login.certificate?).filter(|user| !user.is_empty())?;
        Some(Identity { user: Some(user), ..Identity::default() })
    }
}

impl Part {
    fn of(self, certificate: &Certificate) -> Option<ByteString> {
        let name = match self {
            Part::CommonName => certificate.common_name.as_deref(),
            Part::Subject => Some(&*certificate.subject),
            Part::Dns => certificate.dns_names.first().map(|name| &**name),
        };
        name.map(ByteString::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_certificate_is_the_user() {
        let certificate = Certificate {
            common_name: Some("car-7".to_owned()),
            subject: "CN=car-7, O=Example".to_owned(),
            dns_names: Vec::new(),
        };
        let client = ByteString::from("c");
        let login = Login {
            client: &client,
            user: None,
            password: None,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            listener: "",
            certificate: Some(&certificate),
        };
        let user = |user| CertificateSettings { user }.admit(&login).and_then(|identity| identity.user);
        assert_eq!(user(Part::CommonName).as_deref(), Some("car-7"));
        assert_eq!(user(Part::Subject).as_deref(), Some("CN=car-7, O=Example"));
        assert_eq!(user(Part::Dns), None);
    }
}
