//! `tidemill pub`: publish messages to a running hub.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::api::shown;
use super::check::counted;
use super::passwd::first_line;
use super::{Failed, print};
use crate::client::{
    Acked, Client, ClientError, ClientOptions, ClientTls, Publish, Qos, ReasonCode, TlsFault,
};
use crate::mqtt::codec::PublishProperties;

/// Largest message read from a file or standard input, in bytes: MQTT's own limit on a packet.
const MESSAGE_BYTES_MAX: u64 = 268_435_455;
/// Publishes that wait for their acknowledgement at once.
const INFLIGHT: usize = 64;
/// How long to wait for the hub's answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publish messages to a running hub
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Topic to publish to: vehicles/v1/telemetry
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The message
    #[arg(value_name = "MESSAGE", required_unless_present = "file")]
    message: Option<String>,
    /// Read the message from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once
    #[arg(long, value_name = "QOS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Keep the message as the topic's retained message
    #[arg(long)]
    retain: bool,
    /// User property; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Publish it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Client identifier; without one, the hub makes one up
    #[arg(long, value_name = "ID", default_value = "")]
    client_id: String,
    /// User to log in as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the user's password from standard input, its first line
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// The hub's MQTT address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// Speak TLS, and trust what the certificates of this PEM file have signed
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show this certificate (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: Args) -> Result<(), Failed> {
    let password = password(&args)?;
    let publish = message(&args)?;
    let addresses = addresses(&args.mqtt).await?;
    let tls = tls(&args)?;
    let options = |address| ClientOptions {
        tls: tls.clone(),
        username: args.user.as_deref().map(Into::into),
        password: password.clone(),
        ..ClientOptions::new(address, args.client_id.as_str())
    };
    let published = async {
        let client = connect(&addresses, options).await?;
        let refused = send(&client, &publish, args.count).await?;
        client.disconnect().await;
        Ok::<_, ClientError>(refused)
    };
    let failed = |error: ClientError| {
        Failed::because(match hint(&error, &args) {
            Some(hint) => format!("{}: {error}; {hint}", args.mqtt),
            None => format!("publishing to `{}` at {}: {error}", args.topic, args.mqtt),
        })
    };
    if let Some(refused) = published.await.map_err(failed)? {
        return Err(failed(ClientError::Refused { reason: refused, text: None }));
    }
    let (count, bytes) = (args.count, counted(publish.payload.len(), "byte"));
    print(&format!("published {count} to `{}`, {bytes} each, QoS {}\n", shown(&args.topic), args.qos))
}

/// What to do where there is no connection.
fn hint(error: &ClientError, args: &Args) -> Option<&'static str> {
    match error {
        ClientError::Connect { .. } | ClientError::Silent => {
            Some("is a hub running, and is this its --mqtt address?")
        }
        ClientError::SpeaksTls => {
            Some("speak it too: name the PEM file of the authority that signed its certificate with --ca")
        }
        ClientError::Tls { fault, .. } => match fault {
            Some(TlsFault::Identity) if args.cert.is_none() => {
                Some("it wants a certificate of yours: name its files with --cert and --key")
            }
            Some(TlsFault::Identity) => Some("it does not take the certificate of --cert"),
            Some(TlsFault::Name) => Some(
                "call it in --mqtt by a name that its certificate is for, or give it a certificate for this one",
            ),
            Some(TlsFault::Trust) => Some("is it signed by what is in the file of --ca, and still good?"),
            None => Some("does this port speak TLS?"),
        },
        _ => None,
    }
}

/// What `--mqtt` names: at least one address.
async fn addresses(mqtt: &str) -> Result<Vec<SocketAddr>, Failed> {
    let failed = |what: String| {
        Failed::because(format!(
            "--mqtt `{}`: {what}; write it as 127.0.0.1:1883 or localhost:1883",
            shown(mqtt)
        ))
    };
    let found = tokio::net::lookup_host(mqtt).await.map_err(|error| failed(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(found) }
}

/// The user's password, if there is one.
fn password(args: &Args) -> Result<Option<Bytes>, Failed> {
    if !args.password_stdin {
        return Ok(None);
    }
    if args.file.as_deref() == Some(Path::new("-")) {
        return Err(Failed::because("--password-stdin and --file - both read standard input; name a file"));
    }
    Ok(Some(first_line()?.into()))
}

/// TLS, if `--ca` asks for it.
fn tls(args: &Args) -> Result<Option<ClientTls>, Failed> {
    let Some(ca) = &args.ca else { return Ok(None) };
    let host = args.mqtt.rsplit_once(':').map_or(args.mqtt.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loaded = ClientTls::load(host, ca, args.cert.as_deref().zip(args.key.as_deref()));
    loaded.map(Some).map_err(|error| Failed::because(format!("TLS: {error}")))
}

/// Connects to the first address that answers: a name may have one of IPv6 where the hub listens on IPv4 only.
async fn connect(
    addresses: &[SocketAddr],
    options: impl Fn(SocketAddr) -> ClientOptions,
) -> Result<Client, ClientError> {
    let mut failed = ClientError::Silent;
    for address in addresses {
        match Client::connect(options(*address)).await {
            // Nothing comes in: this client does not subscribe.
            Ok((client, _inbox)) => return Ok(client),
            Err(error @ ClientError::Connect { .. }) => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

/// Sends a message so many times and waits for what acknowledges them; the first refusal, if there was one.
async fn send(client: &Client, publish: &Publish, count: u64) -> Result<Option<ReasonCode>, ClientError> {
    let mut waiting: VecDeque<Acked> = VecDeque::with_capacity(INFLIGHT);
    let mut refused = None;
    let mut note = |reason: ReasonCode| {
        if reason.is_error() {
            refused.get_or_insert(reason);
        }
    };
    for _ in 0..count {
        if waiting.len() == INFLIGHT
            && let Some(acked) = waiting.pop_front()
        {
            note(acknowledged(acked).await?);
        }
        waiting.push_back(client.publish(publish.clone()).await?);
    }
    for acked in waiting {
        note(acknowledged(acked).await?);
    }
    Ok(refused)
}

async fn acknowledged(acked: Acked) -> Result<ReasonCode, ClientError> {
    tokio::time::timeout(PATIENCE, acked).await.unwrap_or(Err(ClientError::Silent))
}

fn message(args: &Args) -> Result<Publish, Failed> {
    let payload = match (&args.message, &args.file) {
        (Some(message), _) => Bytes::copy_from_slice(message.as_bytes()),
        (None, Some(path)) => read(path)?,
        (None, None) => Bytes::new(),
    };
    let user_properties =
        args.property.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
    Ok(Publish {
        qos: Qos::from_bits(args.qos).unwrap_or_default(),
        retain: args.retain,
        topic: args.topic.as_str().into(),
        properties: PublishProperties { user_properties, ..PublishProperties::default() },
        payload,
        ..Publish::default()
    })
}

/// Reads a file, or standard input for `-`.
fn read(path: &Path) -> Result<Bytes, Failed> {
    let failed = |error: std::io::Error| Failed::because(format!("--file {}: {error}", path.display()));
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut payload = Vec::new();
    source.by_ref().take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut payload).map_err(failed)?;
    if payload.len() as u64 > MESSAGE_BYTES_MAX {
        let error = format!(
            "--file {}: it has more than {MESSAGE_BYTES_MAX} bytes, the most that MQTT can carry",
            path.display()
        );
        return Err(Failed::because(error));
    }
    Ok(payload.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_split_at_the_first_sign() {
        assert_eq!(property("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(property("a").is_err());
    }
}
