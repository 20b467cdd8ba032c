//! `tidemill access check`: what rules say about somebody, and which one decides.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;

use super::api::shown;
use super::{Failed, print};
use crate::config::{self, Flags, Source};
use crate::mqtt;
use crate::mqtt::access::acl::{Action, Permissions, Subject};
use crate::mqtt::access::settings::groups_of;
use crate::mqtt::codec::topic::{Requested, check_name};

/// Tell what access rules say about somebody
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Whether somebody may do something, and which rule decides. Status 1 if not
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The user; without one, somebody who has not said who it is
    #[arg(long)]
    user: Option<String>,
    /// The client identifier
    #[arg(long, default_value = "client")]
    client: String,
    /// A group that a token or an endpoint names; may be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// The listener; without one, none that a rule names
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Where the client comes from
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The common name of its certificate
    #[arg(long, value_name = "NAME")]
    cn: Option<String>,
    /// What it wants to do
    action: Wanted,
    /// The topic, or the filter to subscribe to
    topic: String,
}

/// [`Action`] as written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    /// Publish to a topic
    Publish,
    /// Subscribe to a filter
    Subscribe,
    /// Publish a retained message to a topic, which needs `publish` too
    Retain,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let Command::Check(check) = &args.command;
    let flags = Flags { config: Some(check.config.clone()), ..Flags::default() };
    let loaded = config::load(&Source { flags, ..Source::default() });
    let config = loaded.map_err(|error| {
        eprint!("{}", error.render());
        Failed::because("the configuration is not good")
    })?;
    let topic = &*check.topic;
    let (wanted, filter) = match check.action {
        Wanted::Subscribe => {
            let requested = Requested::parse(topic)
                .ok_or_else(|| Failed::because(format!("`{topic}` is no topic filter")))?;
            (&[Action::Subscribe][..], requested.filter)
        }
        publishing => {
            check_name(topic).map_err(|error| Failed::because(format!("`{topic}`: {}", error.what)))?;
            const BOTH: &[Action] = &[Action::Publish, Action::Retain];
            (if matches!(publishing, Wanted::Retain) { BOTH } else { &[Action::Publish][..] }, topic)
        }
    };
    if let Some(name) = &check.listener {
        known(name, &config.mqtt)?;
    }
    if !matches!(check.action, Wanted::Subscribe) && mqtt::sys::is_own(topic) {
        let action = if matches!(check.action, Wanted::Retain) { Action::Retain } else { Action::Publish };
        print(&format!("denied: {} {topic}: by the hub: topics under $SYS/ are its own\n", action.name()))?;
        return Err(Failed::told());
    }
    let Some(acl) = config.access.acl else {
        return print("allowed: there are no access rules\n");
    };
    let permissions = Permissions::new(&Arc::new(acl), &subject(check, &config.access.groups), None);
    let mut all = true;
    for action in wanted {
        let (allowed, by) = permissions.explain(*action, filter);
        all &= allowed;
        let verdict = if allowed { "allowed" } else { "denied" };
        print(&format!("{verdict}: {} {filter}: by {by}\n", action.name()))?;
    }
    if all { Ok(()) } else { Err(Failed::told()) }
}

/// Refuses a listener that there is not.
fn known(name: &str, options: &mqtt::Options) -> Result<(), Failed> {
    let listeners = options.all_listeners();
    if listeners.iter().any(|listener| listener.name == name) {
        return Ok(());
    }
    let names: Vec<String> =
        listeners.iter().map(|listener| format!("`{}`", shown(&listener.name))).collect();
    let error = format!("--listener: there is no listener `{}`; there are {}", shown(name), names.join(", "));
    Err(Failed::because(error))
}

fn subject(check: &Check, groups: &[(String, Vec<String>)]) -> Subject {
    let configured = groups_of(groups, check.user.as_deref());
    Subject {
        client: check.client.as_str().into(),
        user: check.user.as_deref().map(Into::into),
        groups: check.group.iter().map(String::as_str).chain(configured).map(Into::into).collect(),
        listener: check.listener.clone().unwrap_or_default(),
        address: check.address,
        common_name: check.cn.as_deref().map(Into::into),
    }
}
