//! [`Streams`]: which shard of the log a topic belongs to.

use std::collections::BTreeMap;

use crate::meta::Meta;
use crate::queue::filter;
use crate::{Flush, Options, Result, Retention, StoreError};

/// Shards in all streams together, those that no topic goes to any more included.
const SHARDS_MAX: usize = 256;
/// The name under which the default stream's shards are kept.
const DEFAULT: &str = "";

/// The streams as they are configured, and every shard there is.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// In the order in which they are asked.
    streams: Vec<Stream>,
    /// Shards of the topics that none of them wants.
    default: Vec<u16>,
    /// By number.
    shards: Vec<ShardOptions>,
}

#[derive(Debug, Clone)]
struct Stream {
    filters: Vec<String>,
    shards: Vec<u16>,
}

/// What holds for one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShardOptions {
    pub(crate) flush: Flush,
    pub(crate) retention: Retention,
}

impl Streams {
    /// The default stream in one shard.
    #[cfg(test)]
    pub(crate) fn only_one() -> Self {
        Streams { streams: Vec::new(), default: vec![0], shards: vec![ShardOptions::default()] }
    }

    /// Finds the shards of the configured streams, and gives numbers to those that are new, durably. Shards of a stream that is
    /// not configured any more stay, to be read, for as long as the default stream keeps its records.
    pub(crate) fn open(meta: &Meta, options: &Options) -> Result<Self> {
        check(options)?;
        let mut known: BTreeMap<String, Vec<u16>> = meta.streams()?.into_iter().collect();
        let mut count = known.values().flatten().map(|shard| usize::from(*shard) + 1).max().unwrap_or(0);
        let mut changed = Vec::new();
        // The default stream comes first, so that its first shard is 0.
        let wanted = options.streams.iter().map(|stream| (&*stream.name, stream.shards));
        for (name, wanted) in std::iter::once((DEFAULT, options.shards)).chain(wanted) {
            let numbers = known.entry(name.to_owned()).or_default();
            let missing = usize::from(wanted).saturating_sub(numbers.len());
            if count + missing > SHARDS_MAX {
                let what = format!(
                    "{missing} more shards are wanted and {count} are there; all streams together, also earlier ones, \
                     have at most {SHARDS_MAX}"
                );
                return Err(bad(name, what));
            }
            if missing > 0 {
                numbers.extend((count..count + missing).filter_map(|number| u16::try_from(number).ok()));
                count += missing;
                changed.push((name.to_owned(), numbers.clone()));
            }
        }
        if !changed.is_empty() {
            meta.put_streams(&changed)?;
        }

        let Options { flush, retention, .. } = *options;
        let default_options = ShardOptions { flush, retention };
        let mut shards = vec![default_options; count];
        let mut configure = |name: &str, wanted: u16, options: ShardOptions| -> Vec<u16> {
            let numbers = known.get(name).map_or(&[][..], |numbers| &numbers[..]);
            for number in numbers {
                if let Some(shard) = shards.get_mut(usize::from(*number)) {
                    *shard = options;
                }
            }
            numbers.iter().copied().take(usize::from(wanted)).collect()
        };
        let default = configure(DEFAULT, options.shards, default_options);
        let streams = options.streams.iter().map(|stream| {
            let own = ShardOptions { flush: stream.flush, retention: stream.retention };
            let shards = configure(&stream.name, stream.shards, own);
            Stream { filters: stream.filters.clone(), shards }
        });
        Ok(Streams { streams: streams.collect(), default, shards })
    }

    /// What holds for each shard, by number.
    pub(crate) fn shards(&self) -> &[ShardOptions] {
        &self.shards
    }

    /// The shard of a topic: the same one always, so that its records stay in order on the disk as well.
    pub(crate) fn shard(&self, topic: &str) -> u16 {
        let wants = |stream: &&Stream| stream.filters.iter().any(|filter| filter::matches(filter, topic));
        let shards = self.streams.iter().find(wants).map_or(&self.default, |stream| &stream.shards);
        match &shards[..] {
            [only] => *only,
            shards => {
                let index = crc32c::crc32c(topic.as_bytes()) as usize % shards.len().max(1);
                shards.get(index).copied().unwrap_or_default()
            }
        }
    }
}

fn bad(stream: &str, what: impl Into<String>) -> StoreError {
    let stream = if stream == DEFAULT { "(default)" } else { stream };
    StoreError::BadStream { stream: stream.to_owned(), what: what.into() }
}

fn check(options: &Options) -> Result<()> {
    if options.shards == 0 {
        return Err(bad(DEFAULT, "it needs at least one shard"));
    }
    for (index, stream) in options.streams.iter().enumerate() {
        if stream.name == DEFAULT {
            return Err(bad(DEFAULT, "a stream with filters needs a name of its own"));
        }
        if options.streams.iter().take(index).any(|before| before.name == stream.name) {
            return Err(bad(&stream.name, "there is another one of this name"));
        }
        if stream.shards == 0 {
            return Err(bad(&stream.name, "it needs at least one shard"));
        }
        for text in &stream.filters {
            filter::check(text).map_err(|what| bad(&stream.name, format!("filter `{text}`: {what}")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamOptions;

    fn stream(name: &str, filter: &str, shards: u16) -> StreamOptions {
        let filters = vec![filter.to_owned()];
        let retention = Retention { time: None, bytes: Some(7) };
        StreamOptions { name: name.into(), filters, shards, flush: Flush::Async, retention }
    }

    #[test]
    fn numbers_stay_whatever_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path(), Flush::Sync).unwrap();
        let retention = Retention { time: None, bytes: Some(9) };
        let open = |shards, streams: &[StreamOptions]| {
            let options =
                Options { shards, streams: streams.to_vec(), retention, ..Options::new(dir.path()) };
            Streams::open(&meta, &options)
        };
        let default = ShardOptions { flush: Flush::Sync, retention };
        let only = open(1, &[]).unwrap();
        assert_eq!((only.shard("a/b"), only.shards().len()), (0, 1));

        let two = open(1, &[stream("fast", "f/#", 1), stream("more", "#", 2)]).unwrap();
        assert_eq!(two.shard("f/1"), 1);
        assert!([2, 3].contains(&two.shard("a/b")), "the first stream that matches");
        assert_eq!(two.shards()[1].flush, Flush::Async);
        assert_eq!(two.shards()[0], default);

        let more = open(3, &[stream("more", "m/#", 1)]).unwrap();
        assert_eq!(more.default, [0, 4, 5]);
        assert_eq!(more.shard("m/x"), 2, "the first of what it had");
        assert_eq!(more.shards()[1], default, "a stream that left");
        assert_eq!(more.shards()[3].retention.bytes, Some(7));
        let used: std::collections::BTreeSet<u16> = (0..100).map(|n| more.shard(&format!("t/{n}"))).collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 4, 5]);

        let again = open(1, &[stream("fast", "f/#", 1)]).unwrap();
        assert_eq!((again.shard("f/1"), again.shard("x"), again.shards().len()), (1, 0, 6));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path(), Flush::Sync).unwrap();
        let refused = |shards, streams: &[StreamOptions]| {
            let options = Options { shards, streams: streams.to_vec(), ..Options::new(dir.path()) };
            Streams::open(&meta, &options).unwrap_err().to_string()
        };
        assert!(refused(0, &[]).contains("at least one shard"));
        assert!(refused(1, &[stream("a", "#", 0)]).contains("stream `a`"));
        assert!(refused(1, &[stream("a", "#", 1), stream("a", "x", 1)]).contains("another one"));
        assert!(refused(1, &[stream("a", "x/#/y", 1)]).contains("x/#/y"));
        assert!(refused(1, &[stream("", "x", 1)]).contains("name"));
        assert!(refused(200, &[stream("a", "x", 57)]).contains("256"));
        assert_eq!(meta.streams().unwrap(), [], "nothing was changed");
    }
}
