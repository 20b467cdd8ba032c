//! What the machine can do without a store: bare system calls over the same bytes. All of it blocks.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::pwritev;

use super::{Error, Result, measure};

/// Space is reserved in steps of this many bytes, as a log does that has to know that it has it.
const RESERVE_BYTES: u64 = 16 << 20;
/// Bytes of one read of [`read_files`].
const READ_BYTES: usize = 1 << 20;

/// A new file that grows.
struct Growing {
    file: File,
    reserved: u64,
}

impl Growing {
    fn create(path: &Path) -> Result<Growing> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Growing { file, reserved: 0 })
    }

    fn reserve(&mut self, end: u64) -> Result<()> {
        if end > self.reserved {
            fallocate(&self.file, FallocateFlags::empty(), self.reserved, RESERVE_BYTES)
                .map_err(std::io::Error::from)?;
            self.reserved += RESERVE_BYTES;
        }
        Ok(())
    }
}

/// Records a second that `pwritev` appends to a new file, `batch` of them of `record_bytes` each with each call.
pub(super) fn append(path: &Path, records: u64, batch: usize, record_bytes: usize) -> Result<f64> {
    let bytes = vec![b'x'; batch * record_bytes];
    let slices: Vec<IoSlice<'_>> = bytes.chunks(record_bytes).map(IoSlice::new).collect();
    let mut growing = Growing::create(path)?;
    let began = Instant::now();
    let mut end = 0;
    for _ in 0..records / batch as u64 {
        growing.reserve(end + bytes.len() as u64)?;
        let written = pwritev(&growing.file, &slices, end).map_err(std::io::Error::from)?;
        if written != bytes.len() {
            return Err(Error::Other(format!("pwritev wrote {written} of {} bytes", bytes.len())));
        }
        end += written as u64;
    }
    let rate = measure::rate(records, began.elapsed());
    // So that the next measurement does not share the disk with this one.
    growing.file.sync_all()?;
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Records a second when each is written and synced by itself, for `length`.
pub(super) fn append_synced(path: &Path, record_bytes: usize, length: Duration) -> Result<f64> {
    let record = vec![b'x'; record_bytes];
    let mut growing = Growing::create(path)?;
    growing.reserve(1)?;
    // The file itself and its reserved space, which the first sync would have to write as well.
    growing.file.sync_all()?;
    let (mut end, mut records) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < length {
        growing.reserve(end + record_bytes as u64)?;
        growing.file.write_all_at(&record, end)?;
        fdatasync(&growing.file).map_err(std::io::Error::from)?;
        end += record_bytes as u64;
        records += 1;
    }
    let rate = measure::rate(records, began.elapsed());
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Reads the files of a directory from the first to the last; their bytes and the time it took.
pub(super) fn read_files(dir: &Path) -> Result<(u64, Duration)> {
    let files = measure::files(dir)?;
    let mut buffer = vec![0; READ_BYTES];
    let began = Instant::now();
    let mut bytes = 0;
    for path in files {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Ok((bytes, began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_calls_do_what_they_are_measured_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(append(&dir.path().join("a"), 640, 64, 256).unwrap() > 0.0);
        assert!(append_synced(&dir.path().join("b"), 256, Duration::from_millis(5)).unwrap() > 0.0);
        assert_eq!(measure::file_bytes(dir.path()).unwrap(), 0, "they leave nothing");
        std::fs::write(dir.path().join("c"), vec![1; 3_000_000]).unwrap();
        assert_eq!(read_files(dir.path()).unwrap().0, 3_000_000);
    }
}
