//! Medians, and what the system says of memory, files and the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use super::{Error, Result};
use crate::memory::{self, Memory};

/// The middle of the values; of an even number of them, the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if sorted.len().is_multiple_of(2) {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    }
}

/// `count` in a second.
pub(super) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// What to say of a machine that has had something else to do in the last minute.
pub(super) fn busy() -> Option<String> {
    let load: f64 = std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()?;
    let cores = std::thread::available_parallelism().ok()?.get();
    (load > cores as f64 / 2.0).then(|| format!("the machine is busy (load {load} on {cores} cores)"))
}

/// Resident memory of this process in bytes.
pub(super) fn resident() -> Result<u64> {
    resident_in(memory::OWN)
}

/// Resident memory of another process in bytes.
pub(super) fn resident_of(pid: u32) -> Result<u64> {
    resident_in(&format!("/proc/{pid}/statm"))
}

fn resident_in(path: &str) -> Result<u64> {
    let statm = about_process(path)?;
    let memory =
        Memory::parse(&statm).ok_or_else(|| Error::Other(format!("{path} says `{}`", statm.trim())))?;
    Ok(memory.resident_bytes)
}

/// Processor time that all threads of a process have used.
pub(super) fn cpu_of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = about_process(&path)?;
    // The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = ticks[..] else {
        return Err(Error::Other(format!("{path} says `{}`", stat.trim())));
    };
    Ok(Duration::from_secs_f64((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn about_process(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::Other(format!("{path}: {error}; does the process run, and is it yours?")))
}

/// Resident memory once it has not fallen for `calm`: the allocator gives freed memory back some seconds later, and only where
/// something is allocated meanwhile.
pub(super) async fn resident_settled(calm: Duration) -> Result<u64> {
    let (mut lowest, mut since) = (resident()?, Instant::now());
    let until = Instant::now() + 5 * calm;
    while since.elapsed() < calm && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for size in [64, 4 << 10, 64 << 10] {
            std::hint::black_box(vec![1_u8; size]);
        }
        let now = resident()?;
        if now < lowest {
            (lowest, since) = (now, Instant::now());
        }
    }
    resident()
}

/// Bytes this process has had read from the disk itself, not from the page cache.
pub(super) fn read_from_disk() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let field = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    let bytes = field.and_then(|bytes| bytes.trim().parse().ok());
    bytes.ok_or_else(|| Error::Other("/proc/self/io has no read_bytes".into()))
}

/// The files in a directory and those below it, by name.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of the files in a directory and below. One that goes meanwhile does not count.
pub(super) fn file_bytes(dir: &Path) -> Result<u64> {
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    Ok(files(dir)?.iter().map(length).sum())
}

/// Bytes that were written into the files in a directory and below: without room that is only reserved, in whole blocks. A
/// file that goes meanwhile does not count.
pub(super) fn written_bytes(dir: &Path) -> Result<u64> {
    let files = files(dir).map_err(|error| Error::Other(format!("directory {}: {error}", dir.display())))?;
    let mut bytes = 0;
    for path in files {
        let Ok(file) = File::open(path) else { continue };
        let mut at = 0;
        // ENXIO: there is no data from here on.
        while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
            at = seek(&file, SeekFrom::Hole(data)).map_err(std::io::Error::from)?;
            bytes += at - data;
        }
    }
    Ok(bytes)
}

/// Bytes of a directory's files once they have not changed for half a second: what a database no longer needs, it deletes in
/// the background.
pub(super) async fn file_bytes_settled(dir: &Path) -> Result<u64> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut bytes = file_bytes(dir)?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = file_bytes(dir)?;
        if now == bytes || Instant::now() > until {
            return Ok(now);
        }
        bytes = now;
    }
}

/// Takes the files of a directory out of the page cache. Blocks.
pub(super) fn drop_cache(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let file = File::open(&path)?;
        // What is not on disk yet cannot be dropped.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(std::io::Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn reserved_room_is_not_written() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = File::create(dir.path().join("a")).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 16 << 20).unwrap();
        std::io::Write::write_all(&mut &file, &[1; 100_000]).unwrap();
        file.sync_all().unwrap();
        let written = written_bytes(dir.path()).unwrap();
        assert!((100_000..1 << 20).contains(&written), "{written}");
        assert_eq!(file_bytes(dir.path()).unwrap(), 16 << 20);
    }

    #[test]
    fn the_system_says_what_it_is_asked() {
        assert!(resident().unwrap() > 1 << 20);
        read_from_disk().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 100]).unwrap();
        std::fs::write(dir.path().join("below/b"), [0; 23]).unwrap();
        assert_eq!(file_bytes(dir.path()).unwrap(), 123);
        let own = std::process::id();
        assert!(resident_of(own).unwrap() > 1 << 20);
        let before = cpu_of(own).unwrap();
        while cpu_of(own).unwrap() == before {
            std::hint::black_box(vec![1_u8; 1 << 16]);
        }
        drop_cache(dir.path()).unwrap();
    }
}
