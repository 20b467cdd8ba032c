//! [`ListenerOptions`]: an entry of `mqtt.listeners`.

use std::net::SocketAddr;

use serde::Deserialize;

use super::super::limits::ListenerLimits;

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
}

impl ListenerOptions {
    /// A plain TCP listener with nothing of its own, named after its address.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        ListenerOptions { name: address.to_string(), address, limits: ListenerLimits::default() }
    }

    /// Says what is wrong with one, given those before it.
    pub(crate) fn check(&self, before: &[ListenerOptions]) -> Result<(), String> {
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(format!("has a name that is none: 1 to {NAME_BYTES_MAX} bytes, as in `devices`"));
        }
        if before.iter().any(|other| other.name == *name) {
            return Err(format!("has two with the name `{name}`"));
        }
        if self.address.port() != 0
            && let Some(other) = before.iter().find(|other| other.address == self.address)
        {
            return Err(format!("has `{}` and `{name}` at the same address {}", other.name, self.address));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken_once() {
        let named = |name: &str, port| ListenerOptions {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            limits: ListenerLimits::default(),
        };
        let before = [named("a", 0), named("b", 1883)];
        assert_eq!(named("c", 0).check(&before), Ok(()));
        assert_eq!(named("c", 1884).check(&before), Ok(()));
        assert!(named("a", 1).check(&before).unwrap_err().contains("two with the name `a`"));
        assert!(named("c", 1883).check(&before).unwrap_err().contains("`b` and `c`"));
        assert!(named("", 1).check(&before).is_err());
        assert!(named("a\nb", 1).check(&before).is_err());
    }
}
