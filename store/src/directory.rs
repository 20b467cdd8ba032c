//! The data directory: its lock, its format, the log's identity.
//!
//! ```text
//! FORMAT   what wrote it, its format's number and the log's UUID
//! LOCK     locked by the process that has it open, and holds its number
//! log/     segments
//! index/   RocksDB: queues; derived from the log
//! meta/    RocksDB: catalogue, cursors, documents, retained pointers, dead letters
//! ```

use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::log::segment::{io_error, sync_dir};
use crate::{Result, StoreError};

/// The format that this code writes, and the newest it reads.
const FORMAT: u32 = 1;

/// An open and locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) log_id: Uuid,
    /// Closing it lets another process have the directory.
    _lock: File,
}

impl Directory {
    /// Locks the directory, and makes it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create(path)?;
        // Looked at before anything is written: a directory that is refused stays as it was.
        if read_format(path)?.is_none() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        let log_id = match read_format(path)? {
            Some(id) => id,
            None => create_format(path)?,
        };
        for name in ["log", "index", "meta"] {
            create(&path.join(name))?;
        }
        sync_dir(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        Ok(Directory { path: path.to_owned(), log_id, _lock: lock })
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory that nobody else may look into: payloads are not for every user of the machine.
fn create(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| io_error("create directory", path, &e))
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

fn read_format(dir: &Path) -> Result<Option<Uuid>> {
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
    words.next().and_then(|id| id.parse().ok()).ok_or_else(bad).map(Some)
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

fn create_format(dir: &Path) -> Result<Uuid> {
    let id = Uuid::new_v4();
    let (new, path) = (dir.join("FORMAT.new"), dir.join("FORMAT"));
    let mut file = File::create(&new).map_err(|e| io_error("create", &new, &e))?;
    file.write_all(format!("tidemill data {FORMAT}\nlog {id}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| io_error("write", &new, &e))?;
    std::fs::rename(&new, &path).map_err(|e| io_error("rename", &new, &e))?;
    sync_dir(dir)?;
    Ok(id)
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
