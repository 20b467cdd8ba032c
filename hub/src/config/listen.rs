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
    let open = listen.iter().filter(|address| !address.ip().is_loopback());
    open.map(|address| {
        let message = format!(
            "{section} address {address} can be reached from other machines, and anyone who reaches it is let in"
        );
        match place {
            Place::Flag(flag) => {
                let hint = format!(
                    "{first}add --allow-anonymous if the network around it is trusted, or listen on 127.0.0.1"
                );
                flag_diagnostic(flag, &address.to_string(), message, Some(&hint))
            }
            Place::File(node) => {
                let hint = format!(
                    "{first}say `{section}: {{ allow_anonymous: true }}` if the network around it is trusted, or listen on 127.0.0.1"
                );
                node.diagnostic(message).with_hint(hint)
            }
        }
    })
    .collect()
}

/// An address that something else has.
pub(super) fn taken(section: &str, address: SocketAddr, other: &str, place: &Place<'_>) -> Diagnostic {
    let message = format!("{section} address {address} cannot be listened on: {other} has its port");
    let hint = "give one of them another port";
    match place {
        Place::Flag(flag) => flag_diagnostic(flag, &address.to_string(), message, Some(hint)),
        Place::File(node) => node.diagnostic(message).with_hint(hint),
    }
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
