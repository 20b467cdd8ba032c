//! [`Data`]: a data directory opened to be looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::Directory;
use crate::log::ballast::is_ballast;
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::log::recovery::never_begun;
use crate::log::segment::{Segment, first_of, io_error};
use crate::meta::Meta;
use crate::queue::index::Index;
use crate::tools::{Findings, Place};
use crate::{Position, Result, StoreError};

/// Bytes of blocks of the index that are kept in memory.
pub(super) const INDEX_CACHE_BYTES: usize = 32 << 20;

/// A locked data directory. Whoever has it only reads.
pub(super) struct Data {
    pub(super) meta: Meta,
    /// Or why it cannot be read.
    pub(super) index: Result<Index>,
    /// By number.
    pub(super) chains: Vec<Chain>,
    /// Last, so that it is let go of last.
    pub(super) directory: Directory,
}

/// The segments of one shard, as far as they can be opened, in order.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) shard: u16,
    pub(super) segments: Vec<Arc<Segment>>,
    /// Offsets that no segment has, or one that cannot be opened: from, to.
    pub(super) holes: Vec<(u64, u64)>,
}

impl Data {
    /// Opens a directory that is there. What is wrong with its segments' files is told.
    pub(super) fn open(dir: &Path, findings: &mut Findings) -> Result<Self> {
        Data::of(Directory::find(dir)?, findings)
    }

    /// The same of a directory that is locked already.
    pub(super) fn of(directory: Directory, findings: &mut Findings) -> Result<Self> {
        let meta = Meta::open_to_read(&directory.part("meta"))?;
        let index = if directory.is_current() {
            Index::open_to_read(&directory.index_path(), INDEX_CACHE_BYTES)
        } else {
            let error = "it has an earlier format; `tidemill serve` derives it again when it starts".into();
            Err(StoreError::Database { database: "index", error })
        };
        let shards = meta.streams()?.into_iter().flat_map(|(_, shards)| shards);
        let shards = shards.map(|shard| usize::from(shard) + 1).max().unwrap_or(1);
        let chains = chains(&directory, shards, findings)?;
        Ok(Data { meta, index, chains, directory })
    }

    /// Where the log of each shard begins, by number.
    pub(super) fn starts(&self) -> Vec<u64> {
        self.chains.iter().map(Chain::start).collect()
    }
}

/// Bytes of the log's files.
pub(super) fn log_bytes(chains: &[Chain]) -> Result<u64> {
    chains.iter().flat_map(|chain| &chain.segments).map(|segment| segment.file_bytes()).sum()
}

impl Chain {
    /// The first offset that is there.
    pub(super) fn start(&self) -> u64 {
        let hole = self.holes.first().map(|(from, _)| *from);
        let first = self.segments.first().map(|segment| segment.first);
        hole.into_iter().chain(first).min().unwrap_or(0)
    }
}

fn chains(directory: &Directory, shards: usize, findings: &mut Findings) -> Result<Vec<Chain>> {
    let dir = directory.part("log");
    let mut files: Vec<Vec<(Position, PathBuf)>> = vec![Vec::new(); shards];
    for entry in std::fs::read_dir(&dir).map_err(|e| io_error("list", &dir, &e))? {
        let path = entry.map_err(|e| io_error("list", &dir, &e))?.path();
        if is_ballast(&path) {
            continue;
        }
        let Some(first) = first_of(&path) else {
            findings.note(format!("{} is not a segment of the log", path.display()));
            continue;
        };
        match files.get_mut(usize::from(first.shard())) {
            Some(chain) => chain.push((first, path)),
            None => findings.problem(
                Place::Log(first),
                format!("segment {} is of a shard that no stream has", path.display()),
            ),
        }
    }
    let chains = (0..).zip(files).map(|(shard, mut files)| {
        files.sort();
        chain(shard, files, directory, findings)
    });
    chains.collect()
}

fn chain(
    shard: u16,
    files: Vec<(Position, PathBuf)>,
    directory: &Directory,
    findings: &mut Findings,
) -> Result<Chain> {
    let mut chain = Chain { shard, segments: Vec::new(), holes: Vec::new() };
    let count = files.len();
    let mut end = None;
    for (index, (first, path)) in files.into_iter().enumerate() {
        let bytes = std::fs::metadata(&path).map_err(|e| io_error("stat", &path, &e))?.len();
        if index + 1 == count && never_begun(&path)? {
            findings.note(format!("{} was never begun: the next start removes it", path.display()));
            continue;
        }
        let at = first.offset();
        if let Some(end) = end
            && end != at
        {
            let what = format!("the segment before {} ends here, and it begins at {first}", path.display());
            findings.problem(Place::Log(Position::new(shard, at.min(end))), what);
            if end < at {
                chain.holes.push((end, at));
            }
        }
        end = Some(at + bytes);
        match Segment::open_to_read(path, directory.log_id, first) {
            Ok(segment) => chain.segments.push(Arc::new(segment)),
            Err(StoreError::Corrupt { what, .. }) => {
                findings.problem(Place::Log(first), what);
                chain.holes.push((at, at + bytes.max(SEGMENT_HEADER_BYTES)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(chain)
}
