//! [`StoreError`]: what can go wrong, named with the thing, the value and the place.

use std::path::PathBuf;

use crate::{Position, QueueId};

/// Why the store refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data directory.
    #[error(
        "data directory {dir} is in use by another process ({holder}); stop it or choose another directory"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says of the holder.
        holder: String,
    },
    /// The data directory was written by a newer version.
    #[error(
        "data directory {dir} has format {found}, and this program reads up to {supported}; run a newer tidemill, or another data directory"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },
    /// The data directory is not there, and could not be made.
    #[error(
        "data directory {dir} cannot be made: {error}; choose one below a directory that this user may write to"
    )]
    CannotMake {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A file could not be used.
    #[error("{action} {path}: {error}")]
    Io {
        /// What was tried, as in `open`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// The disk is full. Reads and cursors go on; new records are refused until there is room.
    #[error(
        "no space left for {path}: nothing new is stored; free space, and publishing works again by itself"
    )]
    Full {
        /// The file that could not grow: a segment, or one of a database.
        path: PathBuf,
    },
    /// An `fdatasync` failed: what is on disk is unknown, so nothing is acknowledged any more.
    #[error("the log is poisoned: {reason}; check the disk, then restart the process")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// The store itself is at fault.
    #[error("the store failed with a panic; what it was asked for may not be done")]
    Panicked,
    /// Bytes in the log are not what was written.
    #[error("corrupt record at position {position}: {what}")]
    Corrupt {
        /// Where.
        position: Position,
        /// What is wrong.
        what: String,
    },
    /// A record is larger than the store takes.
    #[error("record of {size} bytes for topic `{topic}` is over the limit of {max} bytes (record_bytes_max)")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Bytes of the record.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// A directory that is not empty and was not made by the store.
    #[error(
        "directory {dir} is no data directory of tidemill: it has `{found}` and no file FORMAT; choose another one"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// There is no data directory where one was looked for.
    #[error(
        "{dir} is no data directory of tidemill: it has no file FORMAT; name the one that `tidemill serve` uses"
    )]
    NoDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// Nothing is there where a data directory was looked for.
    #[error("data directory {dir} does not exist; name the one that `tidemill serve` uses")]
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// No record begins at a position.
    #[error("no record begins at position {0}; take one that was printed with a record")]
    NoRecord(Position),
    /// Retention has deleted the record.
    #[error("the record at position {0} was deleted by retention")]
    Gone(Position),
    /// No such queue.
    #[error("queue {} does not exist", .0.0)]
    NoQueue(QueueId),
    /// A topic filter that cannot be.
    #[error("topic filter `{filter}`: {what}")]
    BadFilter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A stream that cannot be.
    #[error("stream `{stream}`: {what}")]
    BadStream {
        /// Its name.
        stream: String,
        /// What is wrong with it.
        what: String,
    },
    /// RocksDB failed.
    #[error("{database} database: {error}")]
    Database {
        /// `index` or `meta`.
        database: &'static str,
        /// What RocksDB said.
        error: String,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}
