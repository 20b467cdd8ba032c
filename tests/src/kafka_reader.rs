//! [`TopicReader`]: reads a Kafka topic from its beginning.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;

use crate::services::Kafka;
use crate::wait;

/// How long questions about the topic may take.
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// A record of a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

impl KafkaRecord {
    /// A header as text.
    ///
    /// # Panics
    /// When it is there twice, or is no text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "header {name} is there twice: {:?}", self.headers);
        Some(std::str::from_utf8(value).expect("a header that is text"))
    }
}

/// Reads all partitions of a topic from the beginning, in a group of its own.
pub struct TopicReader {
    topic: String,
    consumer: StreamConsumer,
    partitions: Vec<i32>,
}

impl TopicReader {
    /// Opens a topic that exists.
    ///
    /// # Panics
    /// When Kafka does not answer.
    pub async fn open(kafka: &Kafka, topic: &str) -> TopicReader {
        let mut config = kafka.client();
        // The library wants a group even for a consumer that assigns itself.
        config.set("group.id", "tidemill-tests").set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "earliest");
        let consumer: StreamConsumer = config.create().expect("a Kafka consumer");
        let metadata = tokio::task::block_in_place(|| consumer.fetch_metadata(Some(topic), ASK_LIMIT));
        let metadata = metadata.expect("metadata from Kafka");
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions: Vec<i32> =
            found.expect("the topic").partitions().iter().map(|partition| partition.id()).collect();
        assert!(!partitions.is_empty(), "topic {topic} does not exist");
        let mut assignment = TopicPartitionList::new();
        for &partition in &partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("an assignment");
        TopicReader { topic: topic.to_owned(), consumer, partitions }
    }

    /// The next record.
    ///
    /// # Panics
    /// When none comes within `limit`.
    pub async fn next(&self, limit: Duration) -> KafkaRecord {
        let what = format!("a record of Kafka topic {}", self.topic);
        let message = wait::within(&what, limit, self.consumer.recv()).await;
        owned(&message.expect("Kafka is there"))
    }

    /// The next `count` records.
    ///
    /// # Panics
    /// When one of them does not come within `limit` after the one before.
    pub async fn take(&self, count: usize, limit: Duration) -> Vec<KafkaRecord> {
        let mut records = Vec::with_capacity(count);
        while records.len() < count {
            records.push(self.next(limit).await);
        }
        records
    }

    /// Records in the topic, all partitions together, read or not.
    ///
    /// # Panics
    /// When Kafka does not answer.
    #[must_use]
    pub fn size(&self) -> i64 {
        tokio::task::block_in_place(|| {
            let size = |partition: &i32| {
                let marks = self.consumer.fetch_watermarks(&self.topic, *partition, ASK_LIMIT);
                let (low, high) = marks.expect("watermarks from Kafka");
                high - low
            };
            self.partitions.iter().map(size).sum()
        })
    }
}

fn owned(message: &BorrowedMessage<'_>) -> KafkaRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect()
    });
    KafkaRecord {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        headers,
        value: message.payload().map(<[u8]>::to_vec),
    }
}
