//! [`Place`]: the temporary directory, on a disk that is one.

use std::fmt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::report::number;
use super::{Error, Result};

/// File systems in memory: what they do says nothing about a disk.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// Left free on the disk whatever a row needs.
const RESERVE_BYTES: u64 = 500_000_000;

/// A temporary directory that is removed in the end.
pub(super) struct Place {
    dir: TempDir,
    /// The device and its file system.
    disk: (String, String),
}

impl Place {
    /// In `given`; otherwise in the system's directory for temporary files if that is on a disk, or else in the current one.
    pub(super) fn new(given: Option<&Path>) -> Result<Place> {
        let candidates = match given {
            Some(dir) => vec![dir.to_owned()],
            None => vec![std::env::temp_dir(), std::env::current_dir()?],
        };
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        for dir in &candidates {
            let failed = |error| Error::Other(format!("directory {}: {error}", dir.display()));
            let disk = disk_of(&mounts, &dir.canonicalize().map_err(failed)?);
            if IN_MEMORY.contains(&disk.1.as_str()) {
                continue;
            }
            let made = tempfile::Builder::new().prefix("tidemill-bench-").tempdir_in(dir);
            return Ok(Place { dir: made.map_err(failed)?, disk });
        }
        let names: Vec<String> = candidates.iter().map(|dir| dir.display().to_string()).collect();
        Err(Error::Other(format!(
            "{} is in memory, not on a disk; name a directory on a disk with --dir",
            names.join(" and ")
        )))
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn free_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.path()).map_err(std::io::Error::from)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Fails if fewer than so many bytes are free. What is in the directory already counts as free: rows use it again.
    pub(super) fn room_for(&self, bytes: u64) -> Result<()> {
        let free = self.free_bytes()? + super::measure::file_bytes(self.path())?;
        if free >= bytes + RESERVE_BYTES {
            return Ok(());
        }
        let megabytes = |bytes: u64| number((bytes / 1_000_000) as f64);
        Err(Error::Other(format!(
            "it needs {} MB in {} and {} MB are free; free space, or name another directory with --dir",
            megabytes(bytes + RESERVE_BYTES),
            self.path().display(),
            megabytes(free)
        )))
    }

    /// Removes it. A thread that was abandoned may make a file in between: then once more.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.dir.keep();
        super::remove(&path).or_else(|_| super::remove(&path)).map_err(|error| {
            Error::Other(format!("cannot remove {}: {error}; remove it by hand", path.display()))
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.free_bytes().unwrap_or_default() / 1_000_000_000;
        let (device, system) = &self.disk;
        write!(f, "{} ({system} on {device}, {free} GB free)", self.path().display())
    }
}

/// Device and type of the file system that a path is on, by the lines of /proc/self/mounts.
fn disk_of(mounts: &str, path: &Path) -> (String, String) {
    let mut found = (PathBuf::new(), ("unknown".to_owned(), "unknown".to_owned()));
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(system)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        // Of two mounts on one point, the later one is seen.
        if path.starts_with(point) && Path::new(point).components().count() >= found.0.components().count() {
            found = (point.into(), (device.to_owned(), system.to_owned()));
        }
    }
    found.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        let system = |path: &str| disk_of(mounts, Path::new(path)).1;
        assert_eq!([system("/home"), system("/tmp/y"), system("/tmp/x/z")], ["ext4", "tmpfs", "xfs"]);
    }

    #[test]
    fn too_little_space_is_told() {
        let place = Place::new(Some(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap();
        let error = place.room_for(u64::MAX / 2).unwrap_err().to_string();
        assert!(error.contains("are free") && error.contains("--dir"), "{error}");
        let path = place.path().to_owned();
        place.remove().unwrap();
        assert!(!path.exists());
    }
}
