//! [`Segment`]: one file of the log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use uuid::Uuid;

use super::format::{SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};
use crate::{Position, Result, StoreError};

/// Space is reserved in steps of this many bytes: a sync then seldom has to write the file's size, and a log that
/// takes little traffic takes little disk.
const PREALLOCATE_BYTES: u64 = 16 << 20;

/// One file of the log. Byte `n` of the file is position `first + n`.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
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
    pub(crate) fn create(dir: &Path, log: Uuid, first: Position) -> Result<Self> {
        let path = dir.join(file_name(first));
        // A header that could not be completed leaves a file without a record; it is made anew.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| io_error("create", &path, &e))?;
        let segment = Segment { path, first: first.offset(), file, failed: Mutex::default() };
        let made = segment.begin(dir, log, first);
        if made.is_err() {
            // Space is short: give back what the attempt took.
            let _ = std::fs::remove_file(&segment.path);
        }
        made.map(|()| segment)
    }

    fn begin(&self, dir: &Path, log: Uuid, first: Position) -> Result<()> {
        self.reserve(0, SEGMENT_HEADER_BYTES)?;
        let header = SegmentHeader { version: SEGMENT_VERSION, log, first };
        self.write(&header.encode(), 0)?;
        self.sync()?;
        sync_dir(dir)
    }

    /// Opens a segment that exists and checks that it is one of this log.
    pub(crate) fn open(path: PathBuf, log: Uuid, first: Position) -> Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| io_error("open", &path, &e))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let what = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => match SegmentHeader::decode(&bytes) {
                Ok(header) if header.log != log => {
                    Some(format!("it belongs to log {}, not {log}", header.log))
                }
                Ok(header) if header.first != first => Some(format!("it says it begins at {}", header.first)),
                Ok(_) => None,
                Err(what) => Some(what),
            },
            Err(error) => Some(format!("its header cannot be read: {error}")),
        };
        match what {
            None => Ok(Segment { path, first: first.offset(), file, failed: Mutex::default() }),
            Some(what) => Err(StoreError::Corrupt {
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
    /// where it has now.
    pub(crate) fn reserve(&self, reserved: u64, end: u64) -> Result<u64> {
        if end <= reserved {
            return Ok(reserved);
        }
        let reserve =
            |to: u64| fallocate(&self.file, FallocateFlags::empty(), reserved, to - reserved).map(|()| to);
        match reserve(end.next_multiple_of(PREALLOCATE_BYTES)) {
            Ok(to) => Ok(to),
            // A file system without preallocation: the write itself finds out about space.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(end),
            // The last of the disk is used up to what is really needed.
            Err(_) => reserve(end).map_err(|errno| io_error("reserve space in", &self.path, &errno.into())),
        }
    }

    /// Writes at `offset` of the file.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| io_error("write", &self.path, &e))
    }

    /// `fdatasync`. Once it has failed it always fails.
    pub(crate) fn sync(&self) -> Result<(), SyncFailed> {
        self.synced_by(|| rustix::fs::fdatasync(&self.file).map_err(Into::into))
    }

    fn synced_by(&self, sync: impl FnOnce() -> std::io::Result<()>) -> Result<(), SyncFailed> {
        let mut failed = self.failed.lock();
        if failed.is_none()
            && let Err(error) = sync()
        {
            *failed = Some(format!("sync {}: {error}", self.path.display()));
        }
        failed.clone().map_or(Ok(()), |reason| Err(SyncFailed(reason)))
    }

    /// Cuts the file at `offset`, durably: a sealed segment ends with its last record.
    pub(crate) fn cut(&self, offset: u64) -> Result<()> {
        self.file.set_len(offset).map_err(|e| io_error("truncate", &self.path, &e))?;
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

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(|e| io_error("open", dir, &e))?;
    file.sync_all().map_err(|e| io_error("sync", dir, &e))
}
