//! Opening the log that is there: a torn tail is cut, corruption is refused.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::ballast::is_ballast;
use super::cut::Cut;
use super::format::{Decoded, SEGMENT_HEADER_BYTES, SEGMENT_VERSION};
use super::merge::Merge;
use super::scan::{Step, proof_of_corruption, written_after};
use super::segment::{GONE, Segment, first_of, io_error, remove};
use crate::{Position, Result, StoreError};

/// A log as it was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// By number.
    pub(crate) shards: Vec<RecoveredShard>,
    /// Its end.
    pub(crate) cut: Cut,
    /// Bytes of torn tails that were cut.
    pub(crate) torn_bytes: u64,
    /// Records from the checkpoint on.
    pub(crate) records: u64,
}

/// A shard as it was found.
#[derive(Debug)]
pub(crate) struct RecoveredShard {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Where the next record goes.
    pub(crate) end: u64,
}

/// Opens the segments in `dir` and hands every record from `checkpoint` on to `each`, in the order of sequences, with the place
/// after it. Everything before the checkpoint is known to have been durable. Nothing is changed before all of it was read.
pub(crate) fn recover(
    dir: &Path,
    log: Uuid,
    shards: usize,
    checkpoint: &Cut,
    mut each: impl FnMut(Decoded, &Cut) -> Result<()>,
) -> Result<Recovered> {
    let chains = open_chains(dir, log, shards, checkpoint)?;
    let mut cut = Cut {
        sequence: checkpoint.sequence,
        time_ms: checkpoint.time_ms,
        ends: (0..).zip(&chains).map(|(shard, _)| (shard, checkpoint.end(shard))).collect(),
    };
    let walks = (0..).zip(&chains).map(|(shard, chain): (u16, &Vec<Arc<Segment>>)| {
        let start = chain.first().map_or(0, |segment| segment.first);
        (shard, &chain[..], checkpoint.end(shard).max(start), u64::MAX)
    });
    let mut merge = Merge::new(walks.collect());
    let mut ends: Vec<Option<Step>> = chains.iter().map(|_| None).collect();
    let mut records = 0;
    while let Some(decoded) = merge.next(|shard, end| {
        if let Some(place) = ends.get_mut(usize::from(shard)) {
            *place = Some(end);
        }
        Ok(())
    })? {
        let record = &decoded.record;
        if let Some((_, end)) = cut.ends.get_mut(usize::from(record.position.shard())) {
            *end = record.position.offset() + u64::from(record.size);
        }
        (cut.sequence, cut.time_ms) = (record.sequence + 1, decoded.stored_ms);
        each(*decoded, &cut)?;
        records += 1;
    }
    let tails = (0..).zip(&chains).zip(ends);
    let tails = tails.map(|((shard, chain), end)| Tail::examine(shard, chain, end));
    let tails = tails.collect::<Result<Vec<_>>>()?;

    cut.sequence = next_sequence(cut.sequence, &chains, &tails);
    let torn_bytes = tails.iter().map(|tail| tail.torn_bytes).sum();
    let shards = (0..).zip(chains).zip(tails);
    let shards = shards.map(|((shard, chain), tail)| tail.mend(dir, log, shard, chain, cut.sequence));
    let shards = shards.collect::<Result<Vec<_>>>()?;
    cut.ends = (0..).zip(&shards).map(|(shard, found)| (shard, found.end)).collect();
    remove_gone(dir)?;
    Ok(Recovered { shards, cut, torn_bytes, records })
}

/// A sequence that no record had: `dispatched` is the one after those that were read.
fn next_sequence(dispatched: u64, chains: &[Vec<Arc<Segment>>], tails: &[Tail]) -> u64 {
    let begun = chains.iter().flatten().map(|segment| segment.first_sequence);
    // In version 1 an offset was its record's sequence.
    let old =
        chains.iter().zip(tails).filter(|(chain, _)| chain.last().is_some_and(|last| last.version == 1));
    begun.chain(old.map(|(_, tail)| tail.at)).fold(dispatched.max(1), u64::max)
}

/// How a shard ends.
#[derive(Debug)]
struct Tail {
    /// Where the next record goes.
    at: u64,
    torn_bytes: u64,
    /// What is wrong with what is there, if something is.
    what: Option<String>,
}

impl Tail {
    /// Looks at what stopped the reading of a shard: its end, a torn tail, or corruption.
    fn examine(shard: u16, chain: &[Arc<Segment>], end: Option<Step>) -> Result<Self> {
        let (at, what) = match end {
            Some(Step::Bad { at, what }) => (at, Some(what)),
            Some(Step::End { at }) => (at, None),
            Some(Step::Record(_)) | None => (0, None),
        };
        let corrupt = |what| StoreError::Corrupt { position: Position::new(shard, at), what };
        let Some(last) = chain.last() else { return Ok(Tail { at, torn_bytes: 0, what: None }) };
        if at < last.first {
            // Sealed segments were synced before the next one was made.
            return Err(corrupt(what.unwrap_or_else(|| "records are missing".into())));
        }
        let torn_bytes = written_after(last, at)?;
        if torn_bytes == 0 && what.is_none() {
            return Ok(Tail { at, torn_bytes, what });
        }
        let what = what.unwrap_or_else(|| "nothing was written here, and bytes follow".into());
        if let Some(proof) = proof_of_corruption(shard, last, at)? {
            let proof = Position::new(shard, proof);
            return Err(corrupt(format!("{what}; the record at {proof} shows that it was on disk once")));
        }
        Ok(Tail { at, torn_bytes, what: Some(what) })
    }

    /// Cuts what is torn, and sees to it that there is a segment to go on with.
    fn mend(
        self,
        dir: &Path,
        log: Uuid,
        shard: u16,
        mut segments: Vec<Arc<Segment>>,
        sequence: u64,
    ) -> Result<RecoveredShard> {
        let Tail { mut at, torn_bytes, what } = self;
        let position = Position::new(shard, at);
        if let Some(what) = what {
            tracing::warn!(%position, bytes = torn_bytes, what, "cut the torn tail of the log: \
                these bytes were never acknowledged as durable");
        }
        if let Some(last) = segments.last() {
            // Also without a torn tail: what was reserved ahead is given back, and reserved again when it is needed.
            last.cut(at - last.first)?;
        }
        if segments.last().is_none_or(|last| last.version < SEGMENT_VERSION) {
            segments.push(Arc::new(Segment::create(dir, log, position, sequence)?));
            at += SEGMENT_HEADER_BYTES;
        }
        Ok(RecoveredShard { segments, end: at })
    }
}

/// Whether a file is that of a segment that was deleted.
fn is_gone(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(GONE.as_bytes())
}

/// Removes the files of segments that were deleted when the process died.
fn remove_gone(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(|e| io_error("list", dir, &e))? {
        let path = entry.map_err(|e| io_error("list", dir, &e))?.path();
        if is_gone(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The segments of each shard.
fn open_chains(dir: &Path, log: Uuid, shards: usize, checkpoint: &Cut) -> Result<Vec<Vec<Arc<Segment>>>> {
    let mut files: Vec<Vec<(Position, PathBuf)>> = vec![Vec::new(); shards];
    for entry in std::fs::read_dir(dir).map_err(|e| io_error("list", dir, &e))? {
        let path = entry.map_err(|e| io_error("list", dir, &e))?.path();
        if is_gone(&path) || is_ballast(&path) {
            continue;
        }
        let Some(first) = first_of(&path) else {
            tracing::warn!(path = %path.display(), "this file is not a segment of the log; it is left alone");
            continue;
        };
        match files.get_mut(usize::from(first.shard())) {
            Some(chain) => chain.push((first, path)),
            None => {
                let what = format!("segment {} is of a shard that no stream has", path.display());
                return Err(StoreError::Corrupt { position: first, what });
            }
        }
    }
    let chains = (0..).zip(files).map(|(shard, mut files)| {
        files.sort();
        open_chain(files, log, dir, Position::new(shard, checkpoint.end(shard)))
    });
    chains.collect()
}

fn open_chain(
    files: Vec<(Position, PathBuf)>,
    log: Uuid,
    dir: &Path,
    checkpoint: Position,
) -> Result<Vec<Arc<Segment>>> {
    let corrupt = |at, what| StoreError::Corrupt { position: Position::new(checkpoint.shard(), at), what };
    let count = files.len();
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(count);
    for (index, (first, path)) in files.into_iter().enumerate() {
        if index + 1 == count && checkpoint <= first && never_begun(&path)? {
            tracing::warn!(path = %path.display(), "removed a segment that was never begun");
            remove(&path)?;
            continue;
        }
        let segment = Segment::open(path, log, first)?;
        if let Some(before) = segments.last() {
            let end = before.first + before.file_bytes()?;
            if end != segment.first {
                let (path, next) = (before.path.display(), segment.first);
                let what = format!("segment {path} ends at {end}, and the next begins at {next}");
                return Err(corrupt(end.min(next), what));
            }
        }
        segments.push(Arc::new(segment));
    }
    let checkpoint = checkpoint.offset();
    let Some(last) = segments.last() else {
        let what = || format!("{} holds no segment of it, and records were stored", dir.display());
        return if checkpoint > 0 { Err(corrupt(0, what())) } else { Ok(segments) };
    };
    let end = last.first + last.file_bytes()?;
    if end < checkpoint {
        return Err(corrupt(
            end,
            format!("the log ends here, and the index knows records up to {checkpoint}"),
        ));
    }
    // What is dispatched again is taken for durable.
    last.sync()?;
    Ok(segments)
}

/// Whether the process died between making the file and its header, which is synced before any record: then nothing but
/// reserved space is in it.
pub(crate) fn never_begun(path: &Path) -> Result<bool> {
    let mut file = std::fs::File::open(path).map_err(|e| io_error("open", path, &e))?;
    let mut bytes = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let read = file.read(&mut bytes).map_err(|e| io_error("read", path, &e))?;
        length += read as u64;
        if read == 0 {
            return Ok(true);
        }
        if length >= SEGMENT_HEADER_BYTES && bytes.iter().take(read).any(|b| *b != 0) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewRecord, Options, Record, Retain, Store};

    fn numbered(topic: &str, number: u32) -> NewRecord {
        NewRecord {
            topic: topic.into(),
            properties: Default::default(),
            payload: number.to_string().into_bytes().into(),
            attributes: 0,
            retain: Retain::No,
        }
    }

    fn read(dir: &Path, log: Uuid, shards: u16) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        recover(dir, log, usize::from(shards), &Cut::default(), |decoded, after| {
            assert_eq!(after.sequence, decoded.record.sequence + 1);
            records.push(decoded.record);
            Ok(())
        })?;
        Ok(records)
    }

    /// A log whose batches adjoin in two shards, and what is in it.
    async fn log(dir: &Path, shards: u16) -> (Uuid, Vec<Record>) {
        let options = Options { shards, ..Options::new(dir) };
        let store = Store::open(options).unwrap();
        for n in 0..6 {
            store.append(vec![numbered("t", n), numbered("u", 100 + n)]).await.unwrap();
        }
        let log = store.log_id();
        drop(store);
        let records = read(&dir.join("log"), log, shards).unwrap();
        assert_eq!(records.len(), 12);
        (log, records)
    }

    /// Whatever is done to the end of a log: the records before it are there, exactly, or the log is refused.
    #[tokio::test]
    async fn every_cut_and_every_flipped_bit_of_a_tail_leaves_a_prefix_or_is_refused() {
        for shards in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let (id, all) = log(dir.path(), shards).await;
            let log = dir.path().join("log");
            let shard = all[0].position.shard();
            let file = log.join(format!("{}.seg", Position::new(shard, 0)));
            let whole = std::fs::read(&file).unwrap();
            let in_shard: Vec<&Record> = all.iter().filter(|r| r.position.shard() == shard).collect();
            let start = in_shard[in_shard.len() - 3].position.offset() as usize;
            let refused = std::cell::Cell::new(0);
            let try_out = |bytes: &[u8], damaged: u64, what: String| {
                std::fs::write(&file, bytes).unwrap();
                match read(&log, id, shards) {
                    Ok(found) => {
                        let left = |record: &&Record| {
                            let end = record.position.offset() + u64::from(record.size);
                            record.position.shard() != shard || end <= damaged
                        };
                        let expected: Vec<Record> = all.iter().filter(left).cloned().collect();
                        assert!(found == expected, "{what}: {} records, not {}", found.len(), expected.len());
                    }
                    Err(StoreError::Corrupt { position, .. }) => {
                        assert!(position.offset() <= damaged, "{what}: refused at {position}");
                        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{what}: nothing was changed");
                        refused.set(refused.get() + 1);
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            };
            for cut in start..=whole.len() {
                try_out(&whole[..cut], cut as u64, format!("cut at {cut}"));
            }
            assert!(refused.get() == 0, "a tail that is missing is torn");
            for bit in start * 8..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // The record that the bit is in, and everything after it, may go.
                try_out(&bytes, (bit / 8) as u64, format!("bit {bit} flipped"));
            }
            assert!(refused.get() > 0, "a damaged record before a durable one is corruption");
        }
    }

    /// Sealed segments were synced whole: nothing is missing there, and nothing is passed over.
    #[tokio::test]
    async fn every_cut_and_every_flipped_bit_of_a_sealed_segment_is_refused() {
        for shards in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let store =
                Store::open(Options { shards, segment_bytes: 150, ..Options::new(dir.path()) }).unwrap();
            for n in 0..6 {
                store.append(vec![numbered("t", n)]).await.unwrap();
            }
            let (id, end) =
                (store.log_id(), store.ends().into_iter().max_by_key(|end| end.offset()).unwrap());
            drop(store);
            let log = dir.path().join("log");
            assert_eq!(read(&log, id, shards).unwrap().len(), 6);
            let files = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
            let named = files.filter_map(|path| Some((first_of(&path)?, path.clone())));
            let mut chain: Vec<_> = named.filter(|(first, _)| first.shard() == end.shard()).collect();
            chain.sort();
            assert!(chain.len() > 2);
            for pair in chain.windows(2) {
                let ((_, file), (next, _)) = (&pair[0], &pair[1]);
                let whole = std::fs::read(file).unwrap();
                let try_out = |bytes: &[u8], what: String| {
                    std::fs::write(file, bytes).unwrap();
                    match read(&log, id, shards) {
                        Err(StoreError::Corrupt { position, .. }) => assert!(position <= *next, "{what}"),
                        other => panic!("{what}: {other:?}"),
                    }
                    assert_eq!(std::fs::read(file).unwrap(), bytes, "{what}: nothing was changed");
                };
                for cut in 0..whole.len() {
                    try_out(&whole[..cut], format!("cut at {cut}"));
                }
                for bit in 0..whole.len() * 8 {
                    let mut bytes = whole.clone();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    try_out(&bytes, format!("bit {bit} flipped"));
                }
                std::fs::write(file, &whole).unwrap();
            }
        }
    }
}
