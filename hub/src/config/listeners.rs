//! `mqtt.listeners`: each entry by itself and beside the others, and the files that it names.

use tidemill_rules::Diagnostic;
use tidemill_rules::yaml::Node;

use super::listen::{self, Place};
use crate::mqtt::access::settings::{Settings, SourceKind, SourceSettings};
use crate::mqtt::{self, ListenerOptions};

/// What to do where a name can be claimed.
const CLAIMED_HINT: &str = "give it `tls` of its own, another source in `authentication`, or an address that the load \
                            balancer alone reaches on this machine; or say `anonymous: true` if the network is trusted";

/// What to do where nobody is asked.
const ASKED_HINT: &str = "name one of its sources, such as one with `certificates`, leave `authentication` out for all of them, \
                          or say `anonymous: true`: a certificate that `tls` demands is demanded all the same";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What cannot be.
    pub(super) problems: Vec<Diagnostic>,
    /// What can be, and will hardly be meant.
    pub(super) warnings: Vec<Diagnostic>,
}

/// Looks at the entries of `mqtt:`, the file's map.
pub(super) fn check(mqtt: &Node, options: &mqtt::Options, access: &Settings) -> Found {
    let mut found = Found::default();
    let all = options.all_listeners();
    let nodes = mqtt.get("listeners").and_then(Node::as_seq).unwrap_or_default();
    for (at, (listener, node)) in options.listeners.iter().zip(nodes).enumerate() {
        let key = |key| node.get(key).unwrap_or(node);
        let before = all.get(..options.listen.len() + at).unwrap_or_default();
        if let Err(error) = listener.check(before) {
            found.problems.push(key(error.key).diagnostic(error.to_string()).with_hint_if(error.hint));
        }
        let sources =
            listener.authentication.as_ref().map_or(!access.authentication.is_empty(), |own| !own.is_empty());
        let anonymous = listener.anonymous.unwrap_or(options.allow_anonymous);
        if !anonymous && !sources && !access.authentication.is_empty() {
            found.problems.push(key("authentication").diagnostic(format!(
                "listener `{}` asks nobody, so that nobody is let in: `access.authentication` is there to be asked",
                listener.name
            )).with_hint(ASKED_HINT));
        } else {
            let allowed = anonymous || sources || listener.authenticates();
            found.problems.extend(listen::check(
                "mqtt",
                &[listener.address],
                allowed,
                &Place::File(key("address")),
            ));
        }
        if !anonymous && claimed(listener, access) {
            found.problems.push(key("proxy_protocol").diagnostic(format!(
                "listener `{}`: the certificates' names come from whoever reaches {}, and nothing else is asked",
                listener.name, listener.address
            )).with_hint(CLAIMED_HINT));
        }
        let Some(tls) = &listener.tls else { continue };
        let (list, error) = match tls.load() {
            Ok(loaded) => (&mut found.warnings, loaded.doubt),
            Err(error) => (&mut found.problems, Some(error)),
        };
        list.extend(error.map(|error| {
            let node = key("tls").get(error.key).unwrap_or(key("tls"));
            node.diagnostic(format!("listener `{}`: {}", listener.name, error.what)).with_hint_if(error.hint)
        }));
    }
    found
}

/// Whether certificates are all that is asked for, and a PROXY protocol header from another machine is what tells of them.
fn claimed(listener: &ListenerOptions, access: &Settings) -> bool {
    let asked = |source: &&SourceSettings| {
        listener.authentication.as_ref().is_none_or(|names| names.contains(&source.name))
    };
    let mut kinds = access.authentication.iter().filter(asked).map(|source| &source.kind).peekable();
    let from_elsewhere =
        listener.proxy_protocol && listener.tls.is_none() && !listener.address.ip().is_loopback();
    from_elsewhere && kinds.peek().is_some() && kinds.all(|kind| matches!(kind, SourceKind::Certificates(_)))
}
