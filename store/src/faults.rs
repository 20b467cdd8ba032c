//! What the tests of others call: documents and records that cannot be written for a while, or take long, and callers that panic. Not a
//! part of the interface.

use std::path::Path;

pub use crate::fault::Call;
use crate::fault::{Guard, Point, fail_nth, hold_nth, panic_nth};

const ENOSPC: i32 = 28;

/// Writes that are to fail or to wait, until it is dropped.
#[derive(Debug)]
pub struct Fault(Vec<Guard>);

impl Fault {
    /// Whether all of them have come.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.0.iter().all(Guard::struck)
    }
}

/// Makes the next `count` writes of documents, cursors and the catalogue of the store in `dir` fail, as on a disk that is full.
#[must_use]
pub fn fail_documents(dir: &Path, count: usize) -> Fault {
    Fault((0..count).map(|_| fail_nth(dir, Point::MetaWrite, 1, ENOSPC)).collect())
}

/// Makes the `n`-th write of queues to the catalogue fail (the next is 1), and no other.
#[must_use]
pub fn fail_nth_queues(dir: &Path, n: usize) -> Fault {
    Fault(vec![fail_nth(dir, Point::QueueRows, n, ENOSPC)])
}

/// Makes the next `count` writes to the log of the store in `dir` fail, as on a disk that is full.
#[must_use]
pub fn fail_appends(dir: &Path, count: usize) -> Fault {
    let log = dir.join("log");
    Fault((0..count).map(|_| fail_nth(&log, Point::Write, 1, ENOSPC)).collect())
}

/// Makes the next write of documents, cursors or the catalogue wait until what this returns is dropped.
#[must_use]
pub fn hold_documents(dir: &Path) -> Fault {
    Fault(vec![hold_nth(dir, Point::MetaWrite, 1)])
}

/// Makes the next write of documents, cursors or the catalogue panic, in the thread of the store that writes it.
#[must_use]
pub fn panic_in_document(dir: &Path) -> Fault {
    Fault(vec![panic_nth(dir, Point::MetaWrite, 1)])
}

/// Makes the `n`-th of these calls from now on (the first is 1) panic, in the task that makes it.
#[must_use]
pub fn panic_in(dir: &Path, call: Call, n: usize) -> Fault {
    Fault(vec![panic_nth(dir, Point::Call(call), n)])
}
