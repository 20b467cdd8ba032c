//! [`Identity`]: who somebody was found to be; [`Login`]: what there is to find out from.

use std::net::IpAddr;
use std::time::Duration;

use bytestring::ByteString;

use super::super::peer::Certificate;
use super::acl::Grants;
use super::digest::Hash;

/// Who a client is, in the eyes of a source of authentication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// Its user name; nobody in particular without one.
    pub user: Option<ByteString>,
    /// What the source says it belongs to.
    pub groups: Vec<ByteString>,
    /// What the source lets it do.
    pub grants: Option<Grants>,
    /// The key that signed for it, by its hash.
    pub key: Option<Hash>,
    /// How long it is so.
    pub good_for: Option<Duration>,
}

/// What a CONNECT and its connection say.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Login<'a> {
    /// The client identifier, the one that the server gives included.
    pub(in super::super) client: &'a ByteString,
    /// The user name.
    pub(in super::super) user: Option<&'a str>,
    /// The password.
    pub(in super::super) password: Option<&'a [u8]>,
    /// Where it comes from.
    pub(in super::super) address: IpAddr,
    /// The listener it came to.
    pub(in super::super) listener: &'a str,
    /// The certificate that it has shown, verified.
    pub(in super::super) certificate: Option<&'a Certificate>,
}
