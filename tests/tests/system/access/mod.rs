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

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tidemill_tests::mqtt::encode::DISCONNECT;
use tidemill_tests::mqtt::{Client, Connect, Packet};
use tidemill_tests::services::Tidemill;
use tidemill_tests::services::tidemill::folder_of;

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a hub with this configuration, and with these users in the file `passwords`.
pub(super) async fn hub(configuration: &str, users: &[(&str, &str)]) -> Tidemill {
    Tidemill::start_with_config_in(folder_of(users), configuration).await
}

/// The reason code with which a CONNECT is answered. Who is let in goes again, and its session is over.
pub(super) async fn connack(hub: SocketAddr, connect: &Connect) -> io::Result<u8> {
    let (mut writer, mut reader) = Client::open(hub, connect.level).await?;
    writer.raw(&connect.encode()).await?;
    let reason = match reader.next().await? {
        Some(Packet::ConnAck { reason, .. }) => reason,
        other => return Err(io::Error::other(format!("{other:?}"))),
    };
    if reason == 0 {
        writer.raw(&DISCONNECT).await?;
        reader.until_closed().await;
    }
    Ok(reason)
}
