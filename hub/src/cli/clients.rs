//! `tidemill clients`: the clients of a running hub.

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::{Address, shown};
use super::text::{bytes, number, table};
use super::{Failed, print};

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
    /// End after so many; the hub gives at most 1000 at a time
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: Address,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The client identifier
    #[arg(value_name = "CLIENT")]
    client: String,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: Address,
}

#[derive(Debug, clap::Args)]
struct Kick {
    /// The client identifier
    #[arg(value_name = "CLIENT")]
    client: String,
    /// End its session as well, also if it has no connection
    #[arg(long)]
    end_session: bool,
    #[command(flatten)]
    hub: Address,
}

/// A page as the hub answers it.
#[derive(Deserialize)]
struct Page {
    clients: Vec<Client>,
    next: Option<String>,
}

/// A client as the hub answers it. What is not known is absent.
#[derive(Deserialize)]
struct Client {
    client: String,
    online: bool,
    since: Option<String>,
    expires: Option<String>,
    error: Option<String>,
    user: Option<String>,
    address: Option<String>,
    listener: Option<String>,
    version: Option<String>,
    keep_alive_s: Option<u64>,
    waiting_bytes: Option<u64>,
    messages_in: Option<u64>,
    messages_out: Option<u64>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    session_expiry_s: Option<u64>,
    in_flight: Option<u64>,
    in_flight_in: Option<u64>,
    subscription_count: Option<u64>,
    lag: Option<u64>,
    #[serde(default)]
    subscriptions: Vec<Subscription>,
}

#[derive(Deserialize)]
struct Subscription {
    filter: String,
    qos: u8,
    queue: u64,
    cursor: u64,
    lag: u64,
}

pub(super) async fn run(args: Args) -> Result<(), Failed> {
    match args.command {
        Command::List(list) => {
            let mut query = vec![("limit", list.limit.to_string())];
            query.extend(list.prefix.clone().map(|prefix| ("prefix", prefix)));
            query.extend(list.after.clone().map(|after| ("after", after)));
            let online = (list.online || list.offline).then(|| ("online", list.online.to_string()));
            query.extend(online);
            let answer = list.hub.get(PATH, &query).await?;
            let answer: Value = answer.json().await.map_err(not_understood)?;
            print(&if list.json { format!("{answer:#}\n") } else { listed(&parsed(answer)?) })
        }
        Command::Show(show) => {
            let answer = show.hub.request(Method::GET, PATH, Some(&show.client), &[]).await?;
            let answer: Value = answer.json().await.map_err(not_understood)?;
            print(&if show.json { format!("{answer:#}\n") } else { told(&parsed(answer)?) })
        }
        Command::Kick(kick) => {
            let query = [("end_session", kick.end_session.to_string())];
            kick.hub.request(Method::DELETE, PATH, Some(&kick.client), &query).await?;
            Ok(())
        }
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(answer: Value) -> Result<T, Failed> {
    serde_json::from_value(answer).map_err(not_understood)
}

fn not_understood(error: impl std::fmt::Display) -> Failed {
    Failed::because(format!("the hub's answer: {error}"))
}

/// A value, or `-`.
fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

fn text(value: Option<&String>) -> String {
    value.map_or_else(|| "-".to_owned(), |text| shown(text))
}

fn state(client: &Client) -> &'static str {
    if client.online { "online" } else { "offline" }
}

/// A table with a line for each client.
fn listed(page: &Page) -> String {
    let heads = ["client", "state", "since", "address", "version", "subscriptions", "lag", "in flight"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for client in &page.clients {
        rows.push(vec![
            shown(&client.client),
            state(client).to_owned(),
            text(client.since.as_ref()),
            text(client.address.as_ref()),
            text(client.version.as_ref()),
            known(client.subscription_count),
            known(client.lag),
            known(client.in_flight),
        ]);
    }
    let mut out = table(&rows, &[1, 2, 3, 4]);
    for client in &page.clients {
        if let Some(error) = &client.error {
            out += &format!("{}: {}\n", shown(&client.client), shown(error));
        }
    }
    if let Some(next) = &page.next {
        out += &format!("there are more: --after '{}'\n", shown(next));
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
    if client.address.is_some() {
        let (in_, out) = (known(client.messages_in), known(client.messages_out));
        let (bytes_in, bytes_out) = (client.bytes_in.unwrap_or(0), client.bytes_out.unwrap_or(0));
        rows.extend([
            ("user", text(client.user.as_ref())),
            ("address", text(client.address.as_ref())),
            ("listener", text(client.listener.as_ref())),
            ("MQTT version", text(client.version.as_ref())),
            ("keep alive", client.keep_alive_s.filter(|s| *s > 0).map_or("none".to_owned(), seconds)),
            ("messages from it", format!("{in_} ({} in all)", bytes(bytes_in))),
            ("messages to it", format!("{out} ({} in all)", bytes(bytes_out))),
            ("waiting for its socket", bytes(client.waiting_bytes.unwrap_or(0))),
        ]);
    }
    if client.subscription_count.is_some() {
        rows.extend([
            ("session expiry", client.session_expiry_s.map_or("never".to_owned(), seconds)),
            ("in flight to it", known(client.in_flight)),
            ("in flight from it", known(client.in_flight_in)),
            ("lag", known(client.lag)),
        ]);
    }
    if let Some(expires) = &client.expires {
        rows.push(("expires", expires.clone()));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut out = table(&rows, &[1]);
    if !client.subscriptions.is_empty() {
        let mut rows = vec![["subscription", "QoS", "queue", "cursor", "lag"].map(str::to_owned).to_vec()];
        for Subscription { filter, qos, queue, cursor, lag } in &client.subscriptions {
            rows.push(vec![shown(filter), qos.to_string(), queue.to_string(), number(*cursor), number(*lag)]);
        }
        out += "\n";
        out += &table(&rows, &[]);
    }
    out
}

fn seconds(count: u64) -> String {
    format!("{} s", number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Value {
        serde_json::json!({
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
            "next": "car-3",
        })
    }

    #[test]
    fn lists_are_tables() {
        insta::assert_snapshot!(listed(&parsed(clients()).unwrap()));
    }

    #[test]
    fn one_client_is_told_in_full() {
        let page: Page = parsed(clients()).unwrap();
        let all: Vec<String> = page.clients.iter().map(told).collect();
        insta::assert_snapshot!(all.join("\n---\n"));
    }
}
