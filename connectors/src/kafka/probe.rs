//! Whether the cluster answers and the topic exists.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;

use super::config::TargetConfig;
use super::producer::Producers;
use super::send::classify;
use crate::SendError;

/// How long to wait for metadata.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the metadata of the topic, or of the cluster when the topic differs from event to event.
pub(super) async fn probe(producers: &Producers, config: &Arc<TargetConfig>) -> Result<(), SendError> {
    let generation = producers.current().await?;
    let config = Arc::clone(config);
    let place = producers.place(&config);
    let asked = tokio::task::spawn_blocking(move || {
        let topic = config.topic.constant();
        let metadata = generation.producer().client().fetch_metadata(topic, TIMEOUT);
        let reason = generation.trouble().reason();
        let outcome = match metadata {
            Ok(metadata) => match metadata.topics().iter().find_map(|topic| topic.error()) {
                Some(code) if topic.is_some() => Err(KafkaError::MetadataFetch(code.into())),
                _ => Ok(()),
            },
            Err(error) => Err(error),
        };
        outcome.map_err(|error| match generation.trouble().refused() {
            Some(refused) => refused,
            None => classify(&place, &config, &error, reason.as_deref()),
        })
    });
    asked.await.unwrap_or_else(|_| Err(SendError::retry("the probe did not end")))
}
