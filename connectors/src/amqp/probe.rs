//! Whether the broker can be reached and the exchange is there.

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::config::TargetConfig;
use super::errors::classify;
use super::link::Links;
use crate::SendError;

/// Opens a channel of its own and declares the exchange passively, which only asks whether it exists.
pub(super) async fn probe(links: &Links, config: &TargetConfig) -> Result<(), SendError> {
    let open = links.open().await?;
    let place = links.place(config);
    // The default exchange always exists and cannot be declared.
    if !config.exchange.as_str().is_empty() {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let asked = open.channel.exchange_declare(
            config.exchange.clone(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        );
        match timeout(links.config().timeout, asked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(classify(&place, &error)),
            Err(_) => {
                return Err(SendError::retry(format!(
                    "{place}: no answer within {:?}",
                    links.config().timeout
                )));
            }
        }
    }
    // Closing is a courtesy; dropping the channel closes it as well.
    let _ = timeout(links.config().timeout, open.channel.close(200, "probed".into())).await;
    Ok(())
}
