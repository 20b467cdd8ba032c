//! [`ListenerOptions`]: an entry of `mqtt.listeners`.

use std::net::SocketAddr;

use serde::Deserialize;

use super::super::limits::ListenerLimits;
use super::tls::TlsOptions;

/// Longest name of a listener, in bytes: it is a label of metrics and stands in log lines.
const NAME_BYTES_MAX: usize = 64;

/// An address to listen on, and what holds for those who connect to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// What it is called in logs and metrics, and by whoever gives it a policy.
    pub name: String,
    /// Where to listen. Port 0 takes any free one.
    pub address: SocketAddr,
    /// What holds for its connections alone.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// What is asked here who clients are: names of `access.authentication`, in this order. Default: all of them.
    #[serde(default)]
    pub authentication: Option<Vec<String>>,
    /// Whether clients may come in here without saying who they are. Default: `mqtt.allow_anonymous`.
    #[serde(default)]
    pub anonymous: Option<bool>,
    /// What MQTT is spoken over. Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Where a WebSocket is asked for. Default: `/mqtt`.
    #[serde(default = "default_path")]
    pub path: String,
    /// Web pages that may open a WebSocket, by their origin as browsers say it: `https://console.example.com`. Empty, the
    /// default, lets pages from anywhere.
    #[serde(default)]
    pub origins: Vec<String>,
    /// TLS. Default: none.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// Whether a load balancer says who the client is, with a PROXY protocol header of version 2: it is
    /// then demanded. Default: no.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Connections that may wait to be accepted. Default: 4,096.
    #[serde(default = "default_backlog")]
    pub backlog: u32,
}

/// What MQTT is spoken over.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, or TLS over it.
    #[default]
    Tcp,
    /// WebSocket over that.
    Websocket,
}

/// What is wrong with a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listener `{name}`: {what}")]
pub struct ListenerError {
    /// Its name.
    pub name: String,
    /// The key it is about.
    pub key: &'static str,
    /// What is wrong, as in `the path has to begin with /`.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

fn default_path() -> String {
    "/mqtt".to_owned()
}

fn default_backlog() -> u32 {
    4096
}

impl ListenerOptions {
    /// A plain TCP listener with nothing of its own, named after its address.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        ListenerOptions {
            name: address.to_string(),
            address,
            protocol: Protocol::Tcp,
            path: default_path(),
            origins: Vec::new(),
            tls: None,
            proxy_protocol: false,
            backlog: default_backlog(),
            limits: ListenerLimits::default(),
            authentication: None,
            anonymous: None,
        }
    }

    /// Whether whoever is let in has proved who they are.
    pub(crate) fn authenticates(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsOptions::demands_certificate)
    }

    /// The key in which another listener differs that needs another socket, or other layers on it.
    fn differs(&self, other: &ListenerOptions) -> Option<&'static str> {
        let keys = [
            ("address", self.address == other.address),
            ("protocol", self.protocol == other.protocol),
            ("proxy_protocol", self.proxy_protocol == other.proxy_protocol),
            ("tls", self.tls.is_some() == other.tls.is_some()),
        ];
        keys.into_iter().find(|(_, same)| !same).map(|(key, _)| key)
    }

    /// Says what is wrong with one, given those before it. Looks at no files.
    pub(crate) fn check(&self, before: &[ListenerOptions]) -> Result<(), ListenerError> {
        let refuse =
            |key, what: String| Err(ListenerError { name: self.name.clone(), key, what, hint: None });
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let what = format!("a name has 1 to {NAME_BYTES_MAX} bytes, as in `devices`");
            return refuse("name", what);
        }
        if before.iter().any(|other| other.name == *name) {
            return refuse("name", "another listener has this name".to_owned());
        }
        let same = |other: &&ListenerOptions| share_port(other.address, self.address);
        if let Some(other) = before.iter().find(same) {
            return refuse("address", format!("`{}` listens on {} already", other.name, other.address));
        }
        if self.protocol == Protocol::Tcp && (self.path != default_path() || !self.origins.is_empty()) {
            let key = if self.origins.is_empty() { "path" } else { "origins" };
            return refuse(key, format!("`{key}` goes with `protocol: websocket`"));
        }
        if !self.path.starts_with('/') || self.path.contains(['?', '#', ' ']) {
            return refuse("path", format!("the path `{}` is none: write it as `/mqtt`", self.path));
        }
        if let Some((what, hint)) = self.origins.iter().find_map(|origin| never_said(origin)) {
            let (name, hint) = (self.name.clone(), Some(hint));
            return Err(ListenerError { name, key: "origins", what, hint });
        }
        if self.backlog == 0 {
            return refuse("backlog", "a backlog of 0 lets nothing through".to_owned());
        }
        if self.limits.connections_max == Some(0) {
            let what = "`limits.connections_max` is 0, which lets nothing through; leave it out for no limit";
            return refuse("limits", what.to_owned());
        }
        match &self.tls {
            Some(tls) => tls.check().or_else(|what| refuse("tls", what)),
            None => Ok(()),
        }
    }
}

/// What is wrong with an origin that no browser says, so that it lets nobody in, and what to write. Browsers say a scheme, a
/// host, and a port if it is not the scheme's own (RFC 6454, section 6.1), or `null` for a page without an origin.
fn never_said(origin: &str) -> Option<(String, String)> {
    let what = format!("`{origin}` is no origin as browsers say it, so that it lets nobody in");
    if origin.contains('*') {
        return Some((what, "write out each one, or leave `origins` out for all".to_owned()));
    }
    let (scheme, rest) = origin.split_once("://").unwrap_or(("https", origin));
    let host = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
    let host = match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(host),
        "http" => host.strip_suffix(":80").unwrap_or(host),
        _ => host,
    };
    let host = if host.is_empty() { "console.example.com" } else { host };
    let said = format!("{scheme}://{host}");
    (origin != said && origin != "null").then(|| (what, format!("write it as `{said}`")))
}

/// Whether only one of two addresses can be listened on. (Whether `[::]` takes those of IPv4 too is the system's to say.)
pub(crate) fn share_port(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same = one.ip() == other.ip() || all && one.is_ipv4() == other.is_ipv4();
    one.port() != 0 && one.port() == other.port() && same
}

/// Whether the listeners of a new configuration can take the place of those that are open without opening others.
pub(in crate::mqtt) fn check_same(
    open: &[&ListenerOptions],
    new: &[ListenerOptions],
) -> Result<(), ListenerError> {
    let refuse = |listener: &ListenerOptions, key, what: String| {
        let what = format!("{what}; listeners are opened and closed by a restart only");
        Err(ListenerError { name: listener.name.clone(), key, what, hint: None })
    };
    for listener in new {
        let Some(before) = open.iter().find(|open| open.name == listener.name) else {
            return refuse(listener, "name", "it is new".to_owned());
        };
        if let Some(key) = before.differs(listener) {
            return refuse(listener, key, format!("its `{key}` is not what it was"));
        }
    }
    match open.iter().find(|open| new.iter().all(|new| new.name != open.name)) {
        Some(gone) => refuse(gone, "name", "it is open and not in the configuration any more".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, port: u16) -> ListenerOptions {
        let plain = ListenerOptions::plain(SocketAddr::from(([127, 0, 0, 1], port)));
        ListenerOptions { name: name.to_owned(), ..plain }
    }

    fn refused(listener: &ListenerOptions) -> String {
        let before = [named("a", 0), named("b", 1883)];
        listener.check(&before).err().map(|error| format!("{}: {error}", error.key)).unwrap_or_default()
    }

    #[test]
    fn names_and_addresses_are_taken_once() {
        assert_eq!(refused(&named("c", 0)), "");
        assert_eq!(refused(&named("c", 1884)), "");
        assert_eq!(refused(&named("a", 1)), "name: listener `a`: another listener has this name");
        assert_eq!(
            refused(&named("c", 1883)),
            "address: listener `c`: `b` listens on 127.0.0.1:1883 already"
        );
        assert!(refused(&named("", 1)).starts_with("name: "));
        assert!(refused(&named("a\nb", 1)).starts_with("name: "));
    }

    #[test]
    fn a_limit_lets_something_through() {
        let limited = |connections_max| {
            let limits = ListenerLimits { connections_max, ..ListenerLimits::default() };
            refused(&ListenerOptions { limits, ..named("c", 1) })
        };
        assert!(limited(Some(0)).starts_with("limits: listener `c`: `limits.connections_max` is 0"));
        assert_eq!(limited(Some(1)) + &limited(None), "");
    }

    #[test]
    fn what_goes_with_a_websocket_is_for_one() {
        let path =
            |path: &str, protocol| ListenerOptions { path: path.to_owned(), protocol, ..named("c", 1) };
        assert_eq!(refused(&path("/", Protocol::Websocket)), "");
        assert!(refused(&path("/", Protocol::Tcp)).contains("goes with `protocol: websocket`"));
        assert!(refused(&path("mqtt", Protocol::Websocket)).contains("write it as `/mqtt`"));
        assert!(refused(&path("/a?b", Protocol::Websocket)).contains("write it as `/mqtt`"));
    }

    #[test]
    fn other_listeners_need_a_restart() {
        let (a, b) = (named("a", 1883), named("b", 8883));
        let told = |new: &[ListenerOptions]| {
            let told = check_same(&[&a, &b], new).err().map(|error| error.to_string()).unwrap_or_default();
            told.replace("; listeners are opened and closed by a restart only", "")
        };
        let limited = ListenerOptions { anonymous: Some(true), backlog: 1, ..b.clone() };
        assert_eq!(told(&[limited, a.clone()]), "");
        assert_eq!(
            told(std::slice::from_ref(&a)),
            "listener `b`: it is open and not in the configuration any more"
        );
        assert_eq!(told(&[a.clone(), named("c", 8883)]), "listener `c`: it is new");
        assert_eq!(told(&[a.clone(), named("b", 8884)]), "listener `b`: its `address` is not what it was");
        let websocket = ListenerOptions { protocol: Protocol::Websocket, ..b.clone() };
        assert_eq!(told(&[a.clone(), websocket]), "listener `b`: its `protocol` is not what it was");
        let behind = ListenerOptions { proxy_protocol: true, ..b.clone() };
        assert_eq!(told(&[a.clone(), behind]), "listener `b`: its `proxy_protocol` is not what it was");
    }
}
