//! [`Segment`]: one file of the log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use uuid::Uuid;

use super::format::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};
use crate::fault::{self, Point};
use crate::{Position, Result, StoreError};

/// Space is reserved in steps of this many bytes: a sync then seldom has to write the file's size, and a log that
/// takes little traffic takes little disk.
const PREALLOCATE_BYTES: u64 = 16 << 20;
/// A segment that goes gives its space back in steps of this many bytes: freeing all of it at once would hold up the file system,
/// and every append with it.
const FREE_BYTES: u64 = 2 << 20;
/// Between two of these steps.
const FREE_PAUSE: Duration = Duration::from_millis(5);
/// What the name of a segment ends with that was deleted, as long as its file is there.
pub(crate) const GONE: &str = ".gone";

/// One file of the log. Byte `n` of the file is position `first + n`.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    /// Of its format.
    pub(crate) version: u32,
    /// No record in it has a smaller sequence.
    pub(crate) first_sequence: u64,
    /// When its first record was stored, once it has one and that was asked for.
    pub(super) oldest_ms: OnceLock<i64>,
    /// No record in it was stored later; known once it is sealed and that was asked for.
    pub(super) newest_ms: OnceLock<i64>,
    file: File,
    /// A sync that failed. The system reports a failed write-back once, to whoever syncs next: another sync would then
    /// say that all is well with pages that are gone.
    failed: Mutex<Option<String>>,
}

/// What is on disk is not known any more: no one may be told that it is durable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SyncFailed(String);

impl From<SyncFailed> for StoreError {
    fn from(failed: SyncFailed) -> Self {
        StoreError::Poisoned { reason: failed.0 }
    }
}

/// The name of the segment that begins at `first`.
pub(crate) fn file_name(first: Position) -> String {
    format!("{first}.seg")
}

/// Where the segment of a file begins, by its name; `None` if that is not a segment's.
pub(crate) fn first_of(path: &Path) -> Option<Position> {
    path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()
}

/// Wraps what the system said of a file; a full disk has its own error.
pub(crate) fn io_error(action: &'static str, path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::Full { path: path.to_owned() }
        }
        std::io::ErrorKind::PermissionDenied => {
            let error = format!("{error}; see who owns it, and its permissions");
            StoreError::Io { action, path: path.to_owned(), error }
        }
        _ => StoreError::Io { action, path: path.to_owned(), error: error.to_string() },
    }
}

impl Segment {
    /// Makes the segment that begins at `first` and its entry in the directory durable.
    pub(crate) fn create(dir: &Path, log: Uuid, first: Position, first_sequence: u64) -> Result<Self> {
        let path = dir.join(file_name(first));
        // A header that could not be completed leaves a file without a record; it is made anew.
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(true);
        let file = fault::hit(Point::Create, &path)
            .and_then(|()| how.open(&path))
            .map_err(|e| io_error("create", &path, &e))?;
        let header = SegmentHeader { version: SEGMENT_VERSION, log, first, first_sequence };
        let segment = Segment::of(path, &header, file);
        let made = segment.begin(dir, &header);
        if made.is_err() {
            // Space is short: give back what the attempt took.
            let _ = remove(&segment.path);
        }
        made.map(|()| segment)
    }

    fn of(path: PathBuf, header: &SegmentHeader, file: File) -> Self {
        let SegmentHeader { version, first, first_sequence, .. } = *header;
        Segment {
            path,
            first: first.offset(),
            version,
            first_sequence,
            oldest_ms: OnceLock::new(),
            newest_ms: OnceLock::new(),
            file,
            failed: Mutex::default(),
        }
    }

    /// The header alone: a shard that nobody publishes to takes no more. Space for records is reserved with the first.
    fn begin(&self, dir: &Path, header: &SegmentHeader) -> Result<()> {
        self.write(&header.encode(), 0)?;
        self.sync()?;
        // Records in a file that a power cut takes out of its directory would be gone with it.
        sync_dir(dir).map_err(|error| StoreError::Poisoned { reason: error.to_string() })
    }

    /// Opens a segment that exists and checks that it is one of this log.
    pub(crate) fn open(path: PathBuf, log: Uuid, first: Position) -> Result<Self> {
        Segment::opened(path, log, first, OpenOptions::new().read(true).write(true))
    }

    /// The same, for one that is only looked at.
    pub(crate) fn open_to_read(path: PathBuf, log: Uuid, first: Position) -> Result<Self> {
        Segment::opened(path, log, first, OpenOptions::new().read(true))
    }

    fn opened(path: PathBuf, log: Uuid, first: Position, how: &OpenOptions) -> Result<Self> {
        let file = how.open(&path).map_err(|e| io_error("open", &path, &e))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let header = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => match SegmentHeader::decode(&bytes) {
                Ok(header) if header.log != log => {
                    Err(format!("it belongs to log {}, not {log}", header.log))
                }
                Ok(header) if header.first != first => Err(format!("it says it begins at {}", header.first)),
                header => header,
            },
            Err(error) => Err(format!("its header cannot be read: {error}")),
        };
        match header {
            Ok(header) => Ok(Segment::of(path, &header, file)),
            Err(what) => Err(StoreError::Corrupt {
                position: first,
                what: format!("segment {}: {what}", path.display()),
            }),
        }
    }

    /// Bytes of the file as it stands, reserved ones included.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| io_error("stat", &self.path, &e))
    }

    /// Makes sure that the file has its place on disk up to `end`, given that it has up to `reserved`; returns up to
    /// where it has now. `ahead`: also for what comes next, where the disk has room.
    pub(crate) fn reserve(&self, reserved: u64, end: u64, ahead: bool) -> Result<u64> {
        if end <= reserved {
            return Ok(reserved);
        }
        let reserve =
            |to: u64| fallocate(&self.file, FallocateFlags::empty(), reserved, to - reserved).map(|()| to);
        fault::hit(Point::Reserve, &self.path).map_err(|e| io_error("reserve space in", &self.path, &e))?;
        match reserve(if ahead { end.next_multiple_of(PREALLOCATE_BYTES) } else { end }) {
            Ok(to) => Ok(to),
            // A file system without preallocation: the write itself finds out about space.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(end),
            // The last of the disk is used up to what is really needed.
            Err(_) => reserve(end).map_err(|errno| io_error("reserve space in", &self.path, &errno.into())),
        }
    }

    /// Writes at `offset` of the file.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        fault::hit(Point::Write, &self.path)
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(|e| io_error("write", &self.path, &e))
    }

    /// `fdatasync`. Once it has failed it always fails.
    pub(crate) fn sync(&self) -> Result<(), SyncFailed> {
        self.synced_by(|| rustix::fs::fdatasync(&self.file).map_err(Into::into))
    }

    fn synced_by(&self, sync: impl FnOnce() -> std::io::Result<()>) -> Result<(), SyncFailed> {
        let mut failed = self.failed.lock();
        if failed.is_none()
            && let Err(error) = fault::hit(Point::Sync, &self.path).and_then(|()| sync())
        {
            *failed = Some(format!("sync {}: {error}", self.path.display()));
        }
        failed.clone().map_or(Ok(()), |reason| Err(SyncFailed(reason)))
    }

    /// Cuts the file at `offset`, durably: a sealed segment ends with its last record.
    pub(crate) fn cut(&self, offset: u64) -> Result<()> {
        fault::hit(Point::Truncate, &self.path)
            .and_then(|()| self.file.set_len(offset))
            .map_err(|e| io_error("truncate", &self.path, &e))?;
        Ok(self.synced_by(|| self.file.sync_all())?)
    }

    /// Reads `length` bytes at `offset` of the file, or what there is of them.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path, &error)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.freeze())
    }
}

impl Segment {
    /// Takes the segment out of the log: durable when this returns, and the file is still there for whoever has it open.
    pub(crate) fn retire(&self, dir: &Path) -> Result<()> {
        fault::hit(Point::Rename, &self.path)
            .and_then(|()| std::fs::rename(&self.path, self.gone_path()))
            .map_err(|e| io_error("rename", &self.path, &e))?;
        // Until this is known to be on disk, the next one must not go: a power cut would leave a hole.
        sync_dir(dir).map_err(|error| StoreError::Poisoned { reason: error.to_string() })
    }

    fn gone_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(GONE);
        name.into()
    }

    /// Gives back the space of a segment that was retired, in steps, as long as `goes_on` says so. Nobody may be reading it.
    pub(crate) fn free(&self, mut goes_on: impl FnMut(Duration) -> bool) -> Result<()> {
        let path = self.gone_path();
        let mut left = self.file_bytes()?;
        while left > 0 {
            left = left.saturating_sub(FREE_BYTES);
            fault::hit(Point::Truncate, &path)
                .and_then(|()| self.file.set_len(left))
                .map_err(|e| io_error("truncate", &path, &e))?;
            if !goes_on(FREE_PAUSE) {
                return Ok(());
            }
        }
        remove(&path)
    }
}

/// Removes a file of the log.
pub(crate) fn remove(path: &Path) -> Result<()> {
    fault::hit(Point::Remove, path)
        .and_then(|()| std::fs::remove_file(path))
        .map_err(|e| io_error("remove", path, &e))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(|e| io_error("open", dir, &e))?;
    fault::hit(Point::SyncDir, dir).and_then(|()| file.sync_all()).map_err(|e| io_error("sync", dir, &e))
}
