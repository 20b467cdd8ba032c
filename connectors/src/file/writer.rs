//! The open file: append, flush, torn lines, rotation.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::config::ConnectionConfig;
use super::encode::LINE_START;

/// Bytes read at once on the way back to the start of the last line.
const STEP_BYTES: u64 = 64 * 1024;

/// Appends to the file of a connection. Owned by one connection, and locked against other processes.
pub(super) struct Writer {
    config: Arc<ConnectionConfig>,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Device and inode: whether the path still leads to this file.
    identity: (u64, u64),
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Somebody else has it open.
    #[error("another connection or process is writing to it")]
    Locked,
    /// A directory, a socket, a device.
    #[error("it is no regular file")]
    NoFile,
    /// Everything else.
    #[error("{action}: {error}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        error: io::Error,
    },
}

fn io(action: &'static str) -> impl FnOnce(io::Error) -> WriteError {
    move |error| WriteError::Io { action, error }
}

impl Writer {
    pub(super) fn new(config: Arc<ConnectionConfig>) -> Self {
        Self { config, open: None }
    }

    /// Appends whole lines; with `fsync` they are on the disk when it returns.
    ///
    /// After a failure none of the lines counts as written: what got into the file is cut off again, and the file is
    /// opened anew for the next batch. So a failed flush is never followed by one that seems to succeed for the same
    /// bytes: the batch is written again.
    pub(super) fn append(&mut self, lines: &[u8], fsync: bool) -> Result<(), WriteError> {
        self.ensure_open()?;
        let Some(open) = &mut self.open else { return Err(WriteError::NoFile) };
        let before = open.file.metadata().map_err(io("looking at it"))?.len();
        let result = open.write(lines, fsync);
        if result.is_err() {
            // If this fails as well, the next opening finds the torn line.
            let _ = open.file.set_len(before);
            self.open = None;
        }
        result
    }

    /// Opens the file if it is not open, or if the path no longer leads to the open one: it was moved away
    /// (logrotate) or deleted.
    pub(super) fn ensure_open(&mut self) -> Result<(), WriteError> {
        if let Some(open) = &self.open {
            match std::fs::metadata(&self.config.path) {
                Ok(metadata) if identity(&metadata) == open.identity => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(WriteError::Io { action: "looking at it", error }),
            }
            self.open = None;
        }
        self.open = Some(Open::at(&self.config.path)?);
        Ok(())
    }
}

impl Open {
    fn at(path: &Path) -> Result<Self, WriteError> {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            // Opening a named pipe would wait for its reader.
            return Err(WriteError::NoFile);
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io("opening it"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Locked),
            Err(TryLockError::Error(error)) => return Err(WriteError::Io { action: "locking it", error }),
        }
        let metadata = file.metadata().map_err(io("looking at it"))?;
        if metadata.len() == 0 {
            sync_directory(path).map_err(io("flushing its directory"))?;
        }
        mend(&mut file, metadata.len()).map_err(io("mending its last line"))?;
        Ok(Self { file, identity: identity(&metadata) })
    }

    fn write(&mut self, lines: &[u8], fsync: bool) -> Result<(), WriteError> {
        self.file.write_all(lines).map_err(io("writing"))?;
        if fsync {
            self.file.sync_data().map_err(io("flushing"))?;
        }
        Ok(())
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Makes a new file's name as durable as its content will be.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Sees to it that the file ends with a whole line, as a crash may have left it torn. A line that is whole but for
/// its end gets its end. Half a line of ours is cut off: its event was never confirmed and will come again. Anything
/// else is left as it is and closed with a line break.
fn mend(file: &mut File, length: u64) -> io::Result<()> {
    let start = last_line_start(file, length)?;
    if start == length {
        return Ok(());
    }
    if is_ours(file, start)? && !is_whole(file, start)? {
        tracing::warn!(bytes = length - start, "cut off an unfinished line left by a crash");
        return file.set_len(start);
    }
    file.write_all(b"\n")
}

/// Where the last line starts; the end of the file if it ends with a line break.
fn last_line_start(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP_BYTES);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Whether the line begins like ours, as far as it goes.
fn is_ours(file: &mut File, start: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(start))?;
    let mut beginning = Vec::new();
    file.take(LINE_START.len() as u64).read_to_end(&mut beginning)?;
    Ok(LINE_START.starts_with(&beginning))
}

/// Whether the line is a JSON document. It is read in pieces: it may be long.
fn is_whole(file: &mut File, start: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(start))?;
    match serde_json::from_reader::<_, IgnoredAny>(BufReader::new(file)) {
        Ok(IgnoredAny) => Ok(true),
        Err(error) if error.is_io() => Err(error.into()),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: &Path) -> Writer {
        Writer::new(Arc::new(ConnectionConfig { name: "test".to_owned(), path: path.to_owned() }))
    }

    /// Appends `next` to a file that held `before`; what it holds afterwards.
    fn appended(before: &str, next: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, before).unwrap();
        writer(&path).append(next.as_bytes(), true).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let whole = "{\"specversion\":\"1.0\",\"id\":\"a\"}\n";
        for torn in [
            "{",
            "{\"specversion\":\"1.",
            "{\"specversion\":\"1.0\",\"id\":\"b",
            &format!("{}{}", whole.trim_end().trim_end_matches('}'), "x".repeat(200_000)),
        ] {
            assert_eq!(appended(&format!("{whole}{torn}"), "next\n"), format!("{whole}next\n"));
            assert_eq!(appended(torn, "next\n"), "next\n");
        }
    }

    #[test]
    fn a_last_line_without_its_end_gets_it() {
        let whole = "{\"specversion\":\"1.0\",\"id\":\"a\"}";
        assert_eq!(appended(whole, "next\n"), format!("{whole}\nnext\n"));
        assert_eq!(appended("somebody's notes", "next\n"), "somebody's notes\nnext\n");
        assert_eq!(appended("", "next\n"), "next\n");
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut writer = writer(&path);
        writer.append(b"one\n", true).unwrap();
        std::fs::rename(&path, dir.path().join("events.jsonl.1")).unwrap();
        writer.append(b"two\n", false).unwrap();
        std::fs::remove_file(&path).unwrap();
        writer.append(b"three\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("events.jsonl.1")).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn two_writers_do_not_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut first = writer(&path);
        first.append(b"one\n", true).unwrap();
        assert!(matches!(writer(&path).append(b"two\n", true), Err(WriteError::Locked)));
        drop(first);
        writer(&path).append(b"two\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(writer(dir.path()).append(b"x\n", true), Err(WriteError::NoFile)));
        let nowhere = writer(&dir.path().join("no/such/place")).append(b"x\n", true);
        assert!(matches!(nowhere, Err(WriteError::Io { error, .. }) if error.kind() == ErrorKind::NotFound));
    }
}
