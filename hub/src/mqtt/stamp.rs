//! [`Stamp`]: what changes when a file does.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// When a file was written, its size, its number; nothing if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    /// Of a file as it is now.
    pub(super) fn of(path: &Path) -> Stamp {
        let of =
            |metadata: std::fs::Metadata| Some((metadata.modified().ok()?, metadata.len(), metadata.ino()));
        Stamp(std::fs::metadata(path).ok().and_then(of))
    }
}
