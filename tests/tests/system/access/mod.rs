//! Who may connect, and who may do what.
//!
//! # Layout
//! - [`ownership`] whose a session is
//! - [`passwords`] the password file and `tidemill passwd`
//! - [`reload`] sources that change
//! - [`rules`] rules about topics: reason codes, reload, explaining
//! - [`scram`] enhanced authentication, with somebody else's client
//! - [`tokens`] JSON Web Tokens and the URL of their keys
//! - [`hook`] the HTTP endpoint

mod hook;
mod ownership;
mod passwords;
mod reload;
mod rules;
mod scram;
mod tokens;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_tests::mqtt::{Client, Connect, Packet};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::passwd;

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a hub in `dir` with this configuration.
pub(super) async fn hub_in(dir: TempDir, configuration: &str) -> Tidemill {
    fs::write(dir.path().join("tidemill.yaml"), configuration).unwrap();
    Tidemill::start_in(dir, vec!["--config".into(), "tidemill.yaml".into()]).await
}

/// Starts a hub with this configuration, and with these users in the file `passwords`.
pub(super) async fn hub(configuration: &str, users: &[(&str, &str)]) -> Tidemill {
    let dir = tempfile::Builder::new().prefix("tidemill-access-").tempdir().unwrap();
    for (user, password) in users {
        passwd(dir.path(), user, password, &[]);
    }
    hub_in(dir, configuration).await
}

/// The reason code with which a CONNECT is answered.
pub(super) async fn connack(hub: SocketAddr, connect: &Connect) -> io::Result<u8> {
    let (mut writer, mut reader) = Client::open(hub, connect.level).await?;
    writer.raw(&connect.encode()).await?;
    match reader.next().await? {
        Some(Packet::ConnAck { reason, .. }) => Ok(reason),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}
