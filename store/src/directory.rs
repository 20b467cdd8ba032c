//! The data directory: its lock, its format, the log's identity.
//!
//! ```text
//! FORMAT   what wrote it, its format's number and the log's UUID
//! LOCK     locked by the process that has it open, and holds its number
//! log/     segments
//! index/   RocksDB: queues; derived from the log
//! index.new/, index.old/  only while the index is derived again; what a crash leaves of them is settled at the next open
//! staging/ files on their way into the index; what is found there belongs to nothing
//! meta/    RocksDB: catalogue, cursors, documents, retained pointers, dead letters
//! ```

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::fault::{self, Point};
use crate::log::segment::{io_error, sync_dir};
use crate::queue::alive::Alive;
use crate::queue::index::Index;
use crate::{Result, StoreError};

/// The format that this code writes, and the newest it reads.
const FORMAT: u32 = 2;

/// An index that is being derived again.
const INDEX_NEW: &str = "index.new";
/// The one that it replaces.
const INDEX_OLD: &str = "index.old";

/// An open and locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) log_id: Uuid,
    /// The format it was found in.
    format: u32,
    /// Closing it lets another process have the directory.
    _lock: File,
}

impl Directory {
    /// Locks the directory, and makes it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        make(path)?;
        // Looked at before anything is written: a directory that is refused stays as it was.
        if read_format(path)?.is_none() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        let (format, log_id) = match read_format(path)? {
            Some(found) => found,
            None => {
                let id = Uuid::new_v4();
                write_format(path, id)?;
                (FORMAT, id)
            }
        };
        settle_index(path)?;
        for name in ["log", "index", "meta", "staging"] {
            create(&path.join(name))?;
        }
        sync_dir(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        Ok(Directory { path: path.to_owned(), log_id, format, _lock: lock })
    }

    /// Locks a directory that is there, and changes nothing else in it.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        let missing = || match path.exists() {
            true => StoreError::NoDirectory { dir: path.to_owned() },
            false => StoreError::Absent { dir: path.to_owned() },
        };
        read_format(path)?.ok_or_else(missing)?;
        let lock = lock(path)?;
        // Read once more: whoever had the lock may have written it.
        let (format, log_id) = read_format(path)?.ok_or_else(missing)?;
        Ok(Directory { path: path.to_owned(), log_id, format, _lock: lock })
    }

    /// Whether everything in it is as this program writes it.
    pub(crate) fn is_current(&self) -> bool {
        self.format == FORMAT
    }

    /// Where the index is that counts, also after a crash while it was replaced.
    pub(crate) fn index_path(&self) -> PathBuf {
        let (index, new, old) = (self.part("index"), self.part(INDEX_NEW), self.part(INDEX_OLD));
        if !index.exists() && old.exists() && new.exists() { new } else { index }
    }

    /// Ends what a crash interrupted while the index was replaced.
    pub(crate) fn settle(&self) -> Result<()> {
        settle_index(&self.path)
    }

    /// A fresh directory for an index that is to replace the one that counts, and its staging directory.
    pub(crate) fn begin_index(&self) -> Result<(PathBuf, PathBuf)> {
        let (new, staging) = (self.part(INDEX_NEW), self.part("staging"));
        if staging.exists() {
            remove_all(&staging)?;
        }
        create(&new)?;
        create(&staging)?;
        Ok((new, staging))
    }

    /// Puts the new index, which is whole, in the place of the old one.
    pub(crate) fn replace_index(&self) -> Result<()> {
        let (index, new, old) = (self.part("index"), self.part(INDEX_NEW), self.part(INDEX_OLD));
        sync_dir(&new)?;
        if index.exists() {
            rename(&index, &old)?;
        }
        sync_dir(&self.path)?;
        rename(&new, &index)?;
        sync_dir(&self.path)?;
        if old.exists() { remove_all(&old) } else { Ok(()) }
    }

    /// Whether an earlier version wrote it.
    pub(crate) fn is_earlier(&self) -> bool {
        self.format < FORMAT
    }

    /// Says that the directory has this program's format, once everything in it was read well: an older program refuses it from
    /// then on.
    pub(crate) fn upgrade(&self) -> Result<()> {
        if self.format == FORMAT {
            return Ok(());
        }
        write_format(&self.path, self.log_id)?;
        tracing::info!(from = self.format, to = FORMAT, "the data directory has a newer format now");
        Ok(())
    }

    /// Opens the index. One of an earlier format is derived from the log again.
    pub(crate) fn open_index(&self, cache_bytes: usize, alive: Arc<Alive>) -> Result<Index> {
        let (path, staging) = (self.part("index"), self.part("staging"));
        if self.format < FORMAT {
            remove_all(&path)?;
            create(&path)?;
        }
        remove_all(&staging)?;
        create(&staging)?;
        Index::open(&path, staging, cache_bytes, alive)
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes the data directory.
fn make(path: &Path) -> Result<()> {
    let made = create_private(path);
    made.map_err(|error| StoreError::CannotMake { dir: path.to_owned(), error: error.to_string() })
}

/// Makes a directory in it.
fn create(path: &Path) -> Result<()> {
    create_private(path).map_err(|e| io_error("create directory", path, &e))
}

/// Makes a directory that nobody else may look into: payloads are not for every user of the machine.
fn create_private(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::hit(Point::Rename, from)
        .and_then(|()| std::fs::rename(from, to))
        .map_err(|e| io_error("rename", from, &e))
}

/// Ends what a crash interrupted while an index was replaced. The old one is only moved away once the new one is whole.
fn settle_index(dir: &Path) -> Result<()> {
    let (index, new, old) = (dir.join("index"), dir.join(INDEX_NEW), dir.join(INDEX_OLD));
    if !index.exists() && old.exists() {
        rename(if new.exists() { &new } else { &old }, &index)?;
        sync_dir(dir)?;
    }
    for rest in [new, old] {
        if rest.exists() {
            remove_all(&rest)?;
        }
    }
    Ok(())
}

/// Removes a directory of ours with all that is in it.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    std::fs::remove_dir_all(path).map_err(|e| io_error("remove", path, &e))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| io_error("open", &path, &e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "unknown process".to_owned(),
                holder => holder.to_owned(),
            };
            return Err(StoreError::Locked { dir: dir.to_owned(), holder });
        }
        Err(errno) => return Err(io_error("lock", &path, &errno.into())),
    }
    let text = format!("process {}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(text.as_bytes()))
        .map_err(|e| io_error("write", &path, &e))?;
    Ok(file)
}

fn read_format(dir: &Path) -> Result<Option<(u32, Uuid)>> {
    let path = dir.join("FORMAT");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &path, &error)),
    };
    let mut words = text.split_whitespace();
    let bad = || StoreError::Io {
        action: "read",
        path: path.clone(),
        error: "it does not say `tidemill data NUMBER log UUID`; this is no data directory of tidemill"
            .into(),
    };
    if (words.next(), words.next()) != (Some("tidemill"), Some("data")) {
        return Err(bad());
    }
    let found: u32 = words.next().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    if found > FORMAT {
        return Err(StoreError::Newer { dir: dir.to_owned(), found, supported: FORMAT });
    }
    if words.next() != Some("log") {
        return Err(bad());
    }
    words.next().and_then(|id| id.parse().ok()).map(|id| (found, id)).ok_or_else(bad).map(Some)
}

fn refuse_foreign(dir: &Path) -> Result<()> {
    let others = std::fs::read_dir(dir)
        .map_err(|e| io_error("list", dir, &e))?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .find(|name| !["LOCK", "FORMAT.new", "lost+found"].iter().any(|ours| name == ours));
    match others {
        Some(found) => Err(StoreError::Foreign { dir: dir.to_owned(), found: found.display().to_string() }),
        None => Ok(()),
    }
}

/// Writes the file as a whole: after a power cut it is the old one or the new one.
fn write_format(dir: &Path, id: Uuid) -> Result<()> {
    let (new, path) = (dir.join("FORMAT.new"), dir.join("FORMAT"));
    let mut file = fault::hit(Point::Create, &new)
        .and_then(|()| File::create(&new))
        .map_err(|e| io_error("create", &new, &e))?;
    fault::hit(Point::Write, &new)
        .and_then(|()| file.write_all(format!("tidemill data {FORMAT}\nlog {id}\n").as_bytes()))
        .and_then(|()| fault::hit(Point::Sync, &new))
        .and_then(|()| file.sync_all())
        .map_err(|e| io_error("write", &new, &e))?;
    fault::hit(Point::Rename, &new)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|e| io_error("rename", &new, &e))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_and_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let id = first.log_id;
        let error = Directory::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Locked { holder, .. } if holder.starts_with("process ")),
            "{error}"
        );
        drop(first);
        assert_eq!(Directory::open(dir.path()).unwrap().log_id, id);
    }

    #[test]
    fn refuses_newer_and_foreign() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("FORMAT"), "tidemill data 99\nsomething else\n").unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(StoreError::Newer { found: 99, .. })));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("holiday.jpg"), "").unwrap();
        let error = Directory::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("holiday.jpg"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was left in it");
    }
}
