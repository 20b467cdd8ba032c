//! Open files: each connection is one, and the usual soft limit of 1024 is for programs with few of them.

use std::io::stderr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Failed;

/// Raises the soft limit of open files to the hard one. What cannot be raised stays as it is.
#[expect(clippy::unnecessary_wraps, reason = "a step of commands that can fail")]
pub(super) fn raise() -> Result<(), Failed> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Refused in some sandboxes; the hub then serves as many connections as it may.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    Ok(())
}

/// Makes room for so many open files at once. The system's table of a process doubles as it fills, and with several threads each
/// time stops whoever opens a file for as long as all processors need to notice: tens of milliseconds, in the
/// middle of a storm of connections. To be called while there is one thread.
pub(super) fn reserve(files: usize) {
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    let highest = current.map_or(u64::MAX, |limit| limit.saturating_sub(1)).min(files as u64);
    if let Ok(highest) = i32::try_from(highest) {
        // Closed at once; the table stays as large as it became. Without the room, connections are only slower to come.
        let _ = fcntl_dupfd_cloexec(stderr(), highest);
    }
}
