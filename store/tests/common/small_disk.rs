//! A small file system of its own, that tests fill.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, gone with the value.
pub(crate) struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None`, and a word about it, where this process may not mount.
    pub(crate) fn mount(path: &'a Path, mebibytes: u32) -> Option<Self> {
        let options = format!("size={mebibytes}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output().ok();
        if !mount.is_some_and(|mount| mount.status.success()) {
            println!("skipped: this needs the right to mount a file system");
            return None;
        }
        Some(SmallDisk(path))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all the room there is left, as another program might, but for so many bytes.
    pub(crate) fn fill(&self, but: u64) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(but)).unwrap();
    }

    /// Gives it back.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
