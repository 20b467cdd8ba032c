//! Open files: each connection is one, and the usual soft limit of 1024 is for programs with few of them.

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
