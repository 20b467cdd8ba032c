//! `tidemill clients`: the clients of a running hub.

use std::num::NonZeroUsize;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{Address, shown};
use super::text::{bytes, number, table};
use super::{Failed, print};
use crate::api::clients::LIMIT_MAX;
use crate::api::clients::answer::{Client, Page, Subscription};

const PATH: &str = "/api/v1/clients";

/// List, show and send away the clients of a running hub
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List clients: those with a connection and those with a session only
    List(List),
    /// Show one client with its subscriptions
    Show(Show),
    /// Close a client's connection
    Kick(Kick),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only clients whose identifier begins so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Only clients with a connection
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only clients without a connection
    #[arg(long)]
    offline: bool,
    /// Begin after this client, in the order of identifiers
    #[arg(long, value_name = "CLIENT")]
    after: Option<String>,
    /// End after so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
    /// Print what the hub answers as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: Address,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The client identifier; write `--` before one that begins with `-`
    #[arg(value_name = "CLIENT", value_parser = NonEmptyStringValueParser::new())]
    client: String,
    /// Print what the hub answers as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: Address,
}

#[derive(Debug, clap::Args)]
struct Kick {
    /// The client identifier; write `--` before one that begins with `-`
    #[arg(value_name = "CLIENT", value_parser = NonEmptyStringValueParser::new())]
    client: String,
    /// End its session as well, also if it has no connection
    #[arg(long)]
    end_session: bool,
    #[command(flatten)]
    hub: Address,
}

pub(super) async fn run(args: Args) -> Result<(), Failed> {
    match args.command {
        Command::List(list) => {
            let page = list.ask().await?;
            print(&if list.json { json(&page)? } else { listed(&page) })
        }
        Command::Show(show) => {
            let response = show.hub.request(Method::GET, PATH, Some(&show.client), &[]).await?;
            let client: Client = answer(response).await?;
            print(&if show.json { json(&client)? } else { told(&client) })
        }
        Command::Kick(kick) => {
            let query = [("end_session", kick.end_session.to_string())];
            kick.hub.request(Method::DELETE, PATH, Some(&kick.client), &query).await?;
            let done = if kick.end_session { "its session has ended" } else { "sent away" };
            print(&format!("{}: {done}\n", shown(&kick.client)))
        }
    }
}

impl List {
    /// Asks for page after page until there are as many clients as are wanted, or no more.
    async fn ask(&self) -> Result<Page, Failed> {
        let mut all = Page { clients: Vec::new(), next: self.after.clone() };
        loop {
            let wanted = self.limit.get().saturating_sub(all.clients.len());
            let mut query = vec![("limit", wanted.min(LIMIT_MAX).to_string())];
            query.extend(self.prefix.clone().map(|prefix| ("prefix", prefix)));
            query.extend(all.next.take().map(|after| ("after", after)));
            query.extend((self.online || self.offline).then(|| ("online", self.online.to_string())));
            let page: Page = answer(self.hub.get(PATH, &query).await?).await?;
            all.clients.extend(page.clients);
            all.next = page.next;
            if all.next.is_none() || all.clients.len() >= self.limit.get() {
                return Ok(all);
            }
        }
    }
}

async fn answer<T: DeserializeOwned>(response: Response) -> Result<T, Failed> {
    response.json().await.map_err(not_understood)
}

fn json<T: Serialize>(answer: &T) -> Result<String, Failed> {
    serde_json::to_string_pretty(answer).map(|text| text + "\n").map_err(not_understood)
}

fn not_understood(error: impl std::fmt::Display) -> Failed {
    Failed::because(format!("the hub's answer: {error}"))
}

/// A number of things, or `-`.
fn known(count: Option<usize>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| number(count as u64))
}

fn text(value: Option<&str>) -> String {
    value.map_or_else(|| "-".to_owned(), shown)
}

fn state(client: &Client) -> &'static str {
    if client.online { "online" } else { "offline" }
}

/// A word of a command line, for a shell.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A table with a line for each client.
fn listed(page: &Page) -> String {
    if page.clients.is_empty() {
        return "no clients\n".to_owned();
    }
    let heads = ["client", "state", "since", "address", "version", "subscriptions", "lag", "in flight"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for client in &page.clients {
        let (connection, session) = (client.connection.as_ref(), client.session.as_ref());
        rows.push(vec![
            shown(&client.client),
            state(client).to_owned(),
            text(client.since.as_deref()),
            connection.map_or("-".to_owned(), |connection| connection.address.to_string()),
            text(connection.map(|connection| &*connection.version)),
            known(session.map(|session| session.subscription_count)),
            session.map_or("-".to_owned(), |session| number(session.lag)),
            known(session.map(|session| session.in_flight)),
        ]);
    }
    let mut out = table(&rows, &[1, 2, 3, 4]);
    for client in &page.clients {
        if let Some(error) = &client.error {
            out += &format!("{}: {}\n", shown(&client.client), shown(error));
        }
    }
    if let Some(next) = &page.next {
        out += &format!("there are more: --after={}\n", word(&shown(next)));
    }
    out
}

/// Everything about one client.
fn told(client: &Client) -> String {
    let mut rows = vec![
        ("client", shown(&client.client)),
        (state(client), client.since.as_deref().map_or("-".to_owned(), |since| format!("since {since}"))),
    ];
    if let Some(error) = &client.error {
        rows.push(("error", shown(error)));
    }
    if let Some(connection) = &client.connection {
        let sum = |messages, in_all| format!("{} ({} in all)", number(messages), bytes(in_all));
        let keep_alive_s = Some(connection.keep_alive_s).filter(|seconds| *seconds > 0);
        rows.extend([
            ("user", text(connection.user.as_deref())),
            ("address", connection.address.to_string()),
            ("listener", shown(&connection.listener)),
            ("MQTT version", shown(&connection.version)),
            ("keep alive", keep_alive_s.map_or("none".to_owned(), seconds)),
            ("messages from it", sum(connection.messages_in, connection.bytes_in)),
            ("messages to it", sum(connection.messages_out, connection.bytes_out)),
            ("waiting for its socket", bytes(connection.waiting_bytes as u64)),
        ]);
    }
    if let Some(session) = &client.session {
        rows.extend([
            ("session expiry", session.session_expiry_s.map_or("never".to_owned(), seconds)),
            ("in flight to it", known(Some(session.in_flight))),
            ("in flight from it", known(Some(session.in_flight_in))),
            ("lag", number(session.lag)),
        ]);
    }
    if let Some(expires) = &client.expires {
        rows.push(("expires", shown(expires)));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut out = table(&rows, &[1]);
    let subscriptions = client.session.as_ref().and_then(|session| session.subscriptions.as_deref());
    if let Some(subscriptions) = subscriptions.filter(|subscriptions| !subscriptions.is_empty()) {
        let mut rows = vec![["subscription", "QoS", "queue", "cursor", "lag"].map(str::to_owned).to_vec()];
        for Subscription { filter, qos, queue, cursor, lag } in subscriptions {
            rows.push(vec![shown(filter), qos.to_string(), queue.to_string(), number(*cursor), number(*lag)]);
        }
        out += "\n";
        out += &table(&rows, &[]);
    }
    out
}

fn seconds(count: impl Into<u64>) -> String {
    format!("{} s", number(count.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Page {
        let answer = serde_json::json!({
            "clients": [
                { "client": "car-1\u{1b}[2J", "online": true, "since": "2026-01-31T12:00:00.000Z", "user": "fleet",
                  "address": "10.0.0.7:40123", "listener": "devices", "version": "5.0", "keep_alive_s": 60, "waiting_bytes": 2048,
                  "messages_in": 1234, "messages_out": 5, "bytes_in": 90_000, "bytes_out": 700,
                  "session_expiry_s": null, "in_flight": 3, "in_flight_in": 1, "subscription_count": 2, "lag": 1_200_003,
                  "subscriptions": [
                      { "filter": "cars/1/#", "qos": 1, "queue": 7, "cursor": 12_345, "lag": 3 },
                      { "filter": "$share/jobs/work", "qos": 2, "queue": 8, "cursor": 0, "lag": 1_200_000 },
                  ] },
                { "client": "car-2", "online": false, "since": "2026-01-30T12:00:00.000Z", "expires": "2026-02-01T12:00:00.000Z",
                  "session_expiry_s": 172_800, "in_flight": 0, "in_flight_in": 0, "subscription_count": 1, "lag": 9 },
                { "client": "car-3", "online": true, "error": "it waits for the store and did not answer" },
            ],
            "next": "--car's",
        });
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn lists_are_tables() {
        insta::assert_snapshot!(listed(&clients()));
    }

    #[test]
    fn one_client_is_told_in_full() {
        let all: Vec<String> = clients().clients.iter().map(told).collect();
        insta::assert_snapshot!(all.join("\n---\n"));
    }
}
