//! Nothing listens beyond loopback by accident: where nobody is asked who it is, whoever can connect can publish, read
//! and see everything. An address beyond loopback needs `access.authentication`, or `allow_anonymous: true` in so many
//! words. Nor does anything listen where something else does.

use std::net::SocketAddr;

use tidemill_rules::Diagnostic;
use tidemill_rules::yaml::Node;

use super::flags::flag_diagnostic;

/// Where a refused address was written.
pub(super) enum Place<'a> {
    /// With a flag: `--mqtt`.
    Flag(&'static str),
    /// In the file: what to mark there.
    File(&'a Node),
}

impl Place<'_> {
    fn problem(&self, address: SocketAddr, message: String, hint: &str) -> Diagnostic {
        match self {
            Place::Flag(flag) => flag_diagnostic(flag, &address.to_string(), message, Some(hint)),
            Place::File(node) => node.diagnostic(message).with_hint(hint),
        }
    }
}

/// Refuses addresses that others can reach, unless that was asked for.
pub(super) fn check(
    section: &str,
    listen: &[SocketAddr],
    allowed: bool,
    place: &Place<'_>,
) -> Vec<Diagnostic> {
    if allowed {
        return Vec::new();
    }
    // The HTTP API has no users of its own.
    let first = if section == "mqtt" { "say in `access.authentication` who may come in, or " } else { "" };
    let allow = match place {
        Place::Flag(_) => "add --allow-anonymous".to_owned(),
        Place::File(_) => format!("say `{section}: {{ allow_anonymous: true }}`"),
    };
    let hint = format!("{first}{allow} if the network around it is trusted, or listen on 127.0.0.1");
    let open = listen.iter().filter(|address| !address.ip().is_loopback());
    open.map(|address| {
        let message = format!(
            "{section} address {address} can be reached from other machines, and anyone who reaches it is let in"
        );
        place.problem(*address, message, &hint)
    })
    .collect()
}

/// An address that something else has.
pub(super) fn taken(section: &str, address: SocketAddr, other: &str, place: &Place<'_>) -> Diagnostic {
    let message = format!("{section} address {address} cannot be listened on: {other} has its port");
    place.problem(address, message, "give one of them another port")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allowed: bool) -> usize {
        check("mqtt", &[address.parse().unwrap()], allowed, &Place::Flag("--mqtt")).len()
    }

    #[test]
    fn only_loopback_needs_no_permission() {
        assert_eq!(refused("127.0.0.1:1883", false), 0);
        assert_eq!(refused("127.8.0.1:1883", false), 0);
        assert_eq!(refused("[::1]:1883", false), 0);
        assert_eq!(refused("0.0.0.0:1883", false), 1);
        assert_eq!(refused("[::]:1883", false), 1);
        assert_eq!(refused("10.0.0.1:1883", false), 1);
        assert_eq!(refused("10.0.0.1:1883", true), 0);
    }
}
