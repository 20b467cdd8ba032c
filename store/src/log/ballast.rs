//! [`Ballast`]: room on the disk that is given up when it is full, so that retention can make more.
//!
//! To delete a segment takes some room first: retained messages in it are written again, and both databases say so. When a full disk has
//! none, the file `ballast` beside the segments is cut to nothing. New records, which would take what retention needs, are then refused until
//! the file has its room again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::Log;
use super::segment::{io_error, remove};
use crate::fault::{self, Point};
use crate::{Result, StoreError, database};

/// What is set aside.
const BALLAST_BYTES: u64 = 16 << 20;
// RocksDB goes on after a full disk once there is room for one buffer, and retained messages need some as well.
const _: () = assert!(BALLAST_BYTES >= 2 * database::WRITE_BUFFER_BYTES as u64);
/// A disk with so many bytes is not full.
const ROOM_BYTES: u64 = 4 << 20;
/// The file's name.
const NAME: &str = "ballast";

/// The file that sets room aside, if it could be made.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    held: AtomicBool,
    given_up: AtomicBool,
}

/// Whether a file of the log's directory is the ballast.
pub(crate) fn is_ballast(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == NAME)
}

/// Bytes that the disk of a directory has left.
fn room(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |disk| disk.f_bavail * disk.f_frsize)
}

impl Ballast {
    /// Finds the ballast in the log's directory. It is given up at once where there is no room to open the databases, and made where
    /// there is room for it.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let (held, given_up) = match std::fs::metadata(&path) {
            Ok(found) => (found.len() >= BALLAST_BYTES, found.len() < BALLAST_BYTES),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (false, false),
            Err(error) => return Err(io_error("stat", &path, &error)),
        };
        let ballast = Ballast { path, held: held.into(), given_up: given_up.into() };
        if held && room(dir) < ROOM_BYTES {
            ballast.give_up()?;
        } else {
            ballast.take();
        }
        Ok(ballast)
    }

    /// Whether what the disk has left is retention's.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Gives the room back to the disk. The file stays, so that a restart knows.
    fn give_up(&self) -> Result<()> {
        if !self.held.load(Ordering::Acquire) {
            return Ok(());
        }
        self.given_up.store(true, Ordering::Release);
        fault::hit(Point::Truncate, &self.path)
            .and_then(|()| File::create(&self.path).map(drop))
            .map_err(|error| io_error("truncate", &self.path, &error))?;
        self.held.store(false, Ordering::Release);
        tracing::warn!(
            bytes = BALLAST_BYTES,
            "the disk is full: its last room is given to retention; new records are refused until there is more"
        );
        Ok(())
    }

    /// Takes the room from the disk, if it can be had. The first time, it leaves some.
    fn take(&self) {
        let least = BALLAST_BYTES + if self.is_given_up() { 0 } else { ROOM_BYTES };
        if self.held.load(Ordering::Acquire) || self.path.parent().is_none_or(|dir| room(dir) < least) {
            return;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        let taken = file.and_then(|file| {
            fault::hit(Point::Reserve, &self.path)?;
            fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES).map_err(Into::into)
        });
        match taken {
            Ok(()) => {
                self.held.store(true, Ordering::Release);
                self.given_up.store(false, Ordering::Release);
            }
            Err(error) => {
                if error.kind() == std::io::ErrorKind::Unsupported {
                    // A file system that cannot set room aside has none to give up, whatever file was found there.
                    self.given_up.store(false, Ordering::Release);
                }
                // What it took goes back; an empty file would be one that was given up.
                let _ = if self.is_given_up() {
                    File::create(&self.path).is_ok()
                } else {
                    remove(&self.path).is_ok()
                };
                tracing::debug!(%error, path = %self.path.display(), "no room could be set aside");
            }
        }
    }
}

impl Log {
    /// Why no new records are taken, if the disk's last room is retention's.
    pub(super) fn refuses_records(&self) -> Result<()> {
        if !self.ballast.is_given_up() {
            return Ok(());
        }
        Err(self.full.lock().clone().unwrap_or_else(|| StoreError::Full { path: self.dir.clone() }))
    }

    /// Gives the last room of a full disk to retention, which found none. For the thread that appends: nothing it writes may come between.
    pub(super) fn give_up_ballast(&self, error: StoreError) -> Result<()> {
        self.ballast.give_up()?;
        if self.ballast.is_given_up() {
            self.full.lock().get_or_insert(error);
        }
        Ok(())
    }

    /// Forgets that the disk was full once there is room again: where nobody sends records to a hub that says it is not ready, no append
    /// would find out.
    pub(crate) fn look_for_room(&self) {
        if self.full.lock().is_none() && !self.ballast.is_given_up() {
            return;
        }
        self.ballast.take();
        let mut full = self.full.lock();
        let room = room(&self.dir);
        if full.is_some() && room >= ROOM_BYTES && !self.ballast.is_given_up() {
            tracing::warn!(room, "there is room again; records are taken");
            *full = None;
        }
    }
}
