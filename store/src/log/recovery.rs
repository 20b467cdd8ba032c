//! Opening the log that is there: a torn tail is cut, corruption is refused.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::SHARD;
use super::format::{Decoded, SEGMENT_HEADER_BYTES};
use super::scan::{Scanner, Step, proof_of_corruption, written_after};
use super::segment::{Segment, io_error};
use crate::{Position, Result, StoreError};

/// A log as it was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// Bytes of a torn tail that were cut.
    pub(crate) torn_bytes: u64,
    /// Records from the checkpoint on.
    pub(crate) records: u64,
}

/// Opens the segments in `dir` and hands every record from `checkpoint` on to `each`. Everything before the
/// checkpoint is known to have been durable.
pub(crate) fn recover(
    dir: &Path,
    log: Uuid,
    checkpoint: u64,
    mut each: impl FnMut(Decoded) -> Result<()>,
) -> Result<Recovered> {
    let segments = open_segments(dir, log, checkpoint)?;
    let corrupt = |at, what: String| StoreError::Corrupt { position: Position::new(SHARD, at), what };
    let Some(last) = segments.last() else {
        if checkpoint > 0 {
            return Err(corrupt(0, format!("{} holds no segment, and records were stored", dir.display())));
        }
        let first = Arc::new(Segment::create(dir, log, Position::ZERO)?);
        return Ok(Recovered { segments: vec![first], end: SEGMENT_HEADER_BYTES, torn_bytes: 0, records: 0 });
    };
    let last_end = last.first + last.file_bytes()?;
    if last_end < checkpoint {
        let what = format!("the log ends here, and the index knows records up to {checkpoint}");
        return Err(corrupt(last_end, what));
    }
    // What is dispatched again is taken for durable.
    last.sync()?;
    let start = segments.first().map_or(0, |s| s.first);
    let mut scanner = Scanner::new(SHARD, &segments, checkpoint.max(start));
    let mut records = 0;
    let (at, what) = loop {
        match scanner.step()? {
            Step::Record(decoded) => {
                each(*decoded)?;
                records += 1;
            }
            Step::End { at } => break (at, None),
            Step::Bad { at, what } => break (at, Some(what)),
        }
    };
    if at < last.first {
        // Sealed segments were synced before the next one was made.
        return Err(corrupt(at, what.unwrap_or_else(|| "records are missing".into())));
    }
    let torn_bytes = written_after(last, at)?;
    if torn_bytes > 0 || what.is_some() {
        let what = what.unwrap_or_else(|| "nothing was written here, and bytes follow".into());
        if let Some(proof) = proof_of_corruption(SHARD, last, at)? {
            let proof = Position::new(SHARD, proof);
            return Err(corrupt(at, format!("{what}; the record at {proof} shows that it was on disk once")));
        }
        tracing::warn!(position = %Position::new(SHARD, at), bytes = torn_bytes, what, "cut the torn tail of the log: \
            these bytes were never acknowledged as durable");
    }
    // Also without a torn tail: what was reserved ahead is given back, and reserved again when it is needed.
    last.cut(at - last.first)?;
    Ok(Recovered { segments, end: at, torn_bytes, records })
}

fn open_segments(dir: &Path, log: Uuid, checkpoint: u64) -> Result<Vec<Arc<Segment>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io_error("list", dir, &e))? {
        let path = entry.map_err(|e| io_error("list", dir, &e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match name.strip_suffix(".seg").and_then(|stem| stem.parse::<Position>().ok()) {
            Some(first) => found.push((first, path)),
            None => {
                tracing::warn!(path = %path.display(), "this file is not a segment of the log; it is left alone")
            }
        }
    }
    found.sort();
    let count = found.len();
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(count);
    for (index, (first, path)) in found.into_iter().enumerate() {
        if index + 1 == count && checkpoint <= first.offset() && never_begun(&path)? {
            tracing::warn!(path = %path.display(), "removed a segment that was never begun");
            std::fs::remove_file(&path).map_err(|e| io_error("remove", &path, &e))?;
            continue;
        }
        let segment = Segment::open(path, log, first)?;
        if let Some(before) = segments.last() {
            let end = before.first + before.file_bytes()?;
            if end != segment.first {
                return Err(StoreError::Corrupt {
                    position: Position::new(SHARD, end.min(segment.first)),
                    what: format!(
                        "segment {} ends at {end}, and the next begins at {}",
                        before.path.display(),
                        segment.first
                    ),
                });
            }
        }
        segments.push(Arc::new(segment));
    }
    Ok(segments)
}

/// Whether the process died between making the file and its header, which is synced before any record: then nothing but
/// reserved space is in it.
fn never_begun(path: &Path) -> Result<bool> {
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
