//! The shape of `tidemill.yaml` beside `connections`, `rules` and `include`, which have their own readers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidemill_rules::units;
use tidemill_store::{Flush, Retention};

use crate::mqtt;

/// The file's outermost keys. Those that are read by themselves, so that each tells what is wrong in it, are only
/// named here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Top {
    /// Where the log and its indexes live; relative to the working directory.
    pub data_dir: Option<PathBuf>,
    /// How durable a message is before it is acknowledged.
    pub flush: Option<FlushSetting>,
    #[serde(rename = "log")]
    _log: IgnoredAny,
    #[serde(rename = "streams")]
    _streams: IgnoredAny,
    #[serde(rename = "access")]
    _access: IgnoredAny,
    #[serde(rename = "mqtt")]
    _mqtt: IgnoredAny,
    #[serde(rename = "http")]
    _http: IgnoredAny,
    #[serde(rename = "telemetry")]
    _telemetry: IgnoredAny,
    #[serde(rename = "include")]
    _include: IgnoredAny,
    #[serde(rename = "connections")]
    _connections: IgnoredAny,
    #[serde(rename = "rules")]
    _rules: IgnoredAny,
}

/// Everything that has a plain value. Every key may be left out.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Plain values without a section.
    pub top: Top,
    /// The store's sizes and intervals.
    pub log: LogSettings,
    /// The broker.
    pub mqtt: mqtt::Options,
    /// The HTTP API.
    pub http: HttpSettings,
    /// Logs.
    pub telemetry: Telemetry,
}

/// [`Flush`] as written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FlushSetting {
    /// Acknowledge after fdatasync: survives a power cut.
    Sync,
    /// Acknowledge after the write: survives the death of the process.
    Async,
}

impl From<FlushSetting> for Flush {
    fn from(setting: FlushSetting) -> Self {
        match setting {
            FlushSetting::Sync => Flush::Sync,
            FlushSetting::Async => Flush::Async,
        }
    }
}

/// The keys of `log:`. See [`tidemill_store::Options`] for what each one bounds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSettings {
    shards: Option<u16>,
    pub(super) retention: RetentionSettings,
    #[serde(deserialize_with = "units::size_option")]
    segment_bytes: Option<u64>,
    #[serde(deserialize_with = "units::size_option")]
    tail_cache_bytes: Option<u64>,
    #[serde(deserialize_with = "units::size_option")]
    append_queue_bytes: Option<u64>,
    #[serde(deserialize_with = "units::size_option")]
    index_buffer_bytes: Option<u64>,
    #[serde(deserialize_with = "units::size_option")]
    index_cache_bytes: Option<u64>,
    #[serde(deserialize_with = "units::size_option")]
    live_queues_bytes: Option<u64>,
    #[serde(deserialize_with = "units::duration_option")]
    queue_ttl: Option<Duration>,
    #[serde(deserialize_with = "units::size_option")]
    record_bytes_max: Option<u64>,
    #[serde(deserialize_with = "units::duration_option")]
    checkpoint_interval: Option<Duration>,
    #[serde(deserialize_with = "units::duration_option")]
    async_flush_interval: Option<Duration>,
    #[serde(deserialize_with = "units::duration_option")]
    retention_interval: Option<Duration>,
}

/// [`Retention`] as written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionSettings {
    #[serde(deserialize_with = "units::duration_option")]
    pub time: Option<Duration>,
    #[serde(deserialize_with = "units::size_option")]
    pub bytes: Option<u64>,
}

impl RetentionSettings {
    /// The keys whose value keeps nothing.
    pub(super) fn useless(&self) -> Vec<&'static str> {
        let zero = [("time", self.time == Some(Duration::ZERO)), ("bytes", self.bytes == Some(0))];
        zero.into_iter().filter_map(|(key, is_zero)| is_zero.then_some(key)).collect()
    }
}

impl From<RetentionSettings> for Retention {
    fn from(RetentionSettings { time, bytes }: RetentionSettings) -> Self {
        Retention { time, bytes }
    }
}

impl LogSettings {
    /// The store's options with what was set.
    pub(super) fn options(&self, dir: &Path, flush: Flush) -> tidemill_store::Options {
        let mut options = tidemill_store::Options::new(dir);
        options.flush = flush;
        set_size(&mut options.tail_cache_bytes, self.tail_cache_bytes);
        set_size(&mut options.append_queue_bytes, self.append_queue_bytes);
        set_size(&mut options.index_buffer_bytes, self.index_buffer_bytes);
        set_size(&mut options.index_cache_bytes, self.index_cache_bytes);
        set_size(&mut options.live_queues_bytes, self.live_queues_bytes);
        set(&mut options.segment_bytes, self.segment_bytes);
        set(&mut options.shards, self.shards);
        set(&mut options.queue_ttl, self.queue_ttl);
        options.retention = self.retention.into();
        set(
            &mut options.record_bytes_max,
            self.record_bytes_max.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
        );
        set(&mut options.checkpoint_interval, self.checkpoint_interval);
        set(&mut options.async_flush_interval, self.async_flush_interval);
        set(&mut options.retention_interval, self.retention_interval);
        options
    }

    /// The keys whose value is of no use.
    pub(super) fn useless(&self) -> Vec<&'static str> {
        let zero = [
            ("shards", self.shards == Some(0)),
            ("segment_bytes", self.segment_bytes == Some(0)),
            ("append_queue_bytes", self.append_queue_bytes == Some(0)),
            ("index_buffer_bytes", self.index_buffer_bytes == Some(0)),
            ("record_bytes_max", self.record_bytes_max == Some(0)),
            ("checkpoint_interval", self.checkpoint_interval == Some(Duration::ZERO)),
            ("async_flush_interval", self.async_flush_interval == Some(Duration::ZERO)),
            ("retention_interval", self.retention_interval == Some(Duration::ZERO)),
        ];
        zero.into_iter().filter_map(|(key, is_zero)| is_zero.then_some(key)).collect()
    }
}

fn set<T>(value: &mut T, setting: Option<T>) {
    if let Some(setting) = setting {
        *value = setting;
    }
}

fn set_size(value: &mut usize, setting: Option<u64>) {
    set(value, setting.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)));
}

/// The keys of `http:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Says in so many words that anyone who reaches a `listen` beyond loopback may read everything. Also answers requests
    /// for names that are not this machine's own.
    pub allow_anonymous: bool,
    /// Most connections at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// Most requests of `/api/v1/records` at once; each reads the log.
    pub tails_max: usize,
}

impl HttpSettings {
    /// The keys whose value is of no use.
    pub(super) fn useless(&self) -> Vec<&'static str> {
        let zero = [("connections_max", self.connections_max == 0), ("tails_max", self.tails_max == 0)];
        zero.into_iter().filter_map(|(key, is_zero)| is_zero.then_some(key)).collect()
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_anonymous: false,
            connections_max: 512,
            tails_max: 64,
        }
    }
}

/// The keys of `telemetry:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How log lines are written to standard error.
    pub log: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,tidemill_hub::router=debug`.
    pub level: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry { log: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}
