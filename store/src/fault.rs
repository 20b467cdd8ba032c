//! Where the store touches files, and what its callers ask of it: tests make chosen calls fail, wait or panic. Outside of them nothing is
//! looked up.

/// What a caller asks of the store, in its own task.
#[cfg_attr(not(feature = "faults"), expect(unreachable_pub, reason = "with `faults` it is for others"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To store records.
    Submit,
    /// To write a document.
    PutDocument,
    /// To delete one.
    DeleteDocument,
    /// To take a watch away.
    Unwatch,
    /// To take references to queues back.
    Release,
}

/// What is about to be done to a file, or is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Bytes are written.
    Write,
    /// Space is reserved.
    Reserve,
    /// A file is made durable.
    Sync,
    /// The entries of a directory are.
    SyncDir,
    /// A file is cut.
    Truncate,
    /// A file is made.
    Create,
    /// A file gets its name.
    Rename,
    /// A file is removed.
    Remove,
    /// A file for the index is begun.
    IndexOpen,
    /// It is filled.
    IndexWrite,
    /// It is finished and made durable.
    IndexFinish,
    /// The index takes it in.
    IndexIngest,
    /// A reader looks into the index, or has looked up the block in which it begins.
    IndexRead,
    /// The meta database is written.
    MetaWrite,
    /// Queues are written to its catalogue.
    QueueRows,
    /// A caller asks.
    Call(Call),
}

/// Panics if a test said so.
pub(crate) fn called(call: Call, dir: &std::path::Path) {
    // A call has no file that could fail.
    let _ = hit(Point::Call(call), dir);
}

/// Fails or waits if a test said so.
#[cfg(not(any(test, feature = "faults")))]
pub(crate) fn hit(_: Point, _: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "faults")]
pub(crate) use registry::panic_nth;
#[cfg(any(test, feature = "faults"))]
pub(crate) use registry::{Guard, fail_nth, hit, hold_nth};

#[cfg(any(test, feature = "faults"))]
mod registry {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use parking_lot::{Condvar, Mutex};

    use super::Point;

    static FAULTS: Mutex<Vec<Arc<Fault>>> = Mutex::new(Vec::new());

    #[derive(Debug)]
    struct Fault {
        dir: PathBuf,
        point: Point,
        calls_left: AtomicUsize,
        strike: Strike,
        struck: AtomicBool,
    }

    /// What the call meets.
    #[derive(Debug)]
    enum Strike {
        /// It fails with this number.
        Fail(i32),
        /// It waits until this is true.
        Hold(Mutex<bool>, Condvar),
        /// It panics.
        #[cfg(feature = "faults")]
        Panic,
    }

    /// Takes the fault away when it is dropped, and lets go who waits.
    #[derive(Debug)]
    pub(crate) struct Guard(Arc<Fault>);

    impl Guard {
        /// Whether the call has come.
        pub(crate) fn struck(&self) -> bool {
            self.0.struck.load(Ordering::SeqCst)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            FAULTS.lock().retain(|fault| !Arc::ptr_eq(fault, &self.0));
            if let Strike::Hold(over, wake) = &self.0.strike {
                *over.lock() = true;
                wake.notify_all();
            }
        }
    }

    /// Makes the `n`-th call from now on (the first is 1) of this kind below `dir` fail, and no other.
    pub(crate) fn fail_nth(dir: &Path, point: Point, n: usize, errno: i32) -> Guard {
        strike_nth(dir, point, n, Strike::Fail(errno))
    }

    /// Makes that call wait instead, until the guard is dropped.
    pub(crate) fn hold_nth(dir: &Path, point: Point, n: usize) -> Guard {
        strike_nth(dir, point, n, Strike::Hold(Mutex::default(), Condvar::new()))
    }

    /// Makes that call panic instead.
    #[cfg(feature = "faults")]
    pub(crate) fn panic_nth(dir: &Path, point: Point, n: usize) -> Guard {
        strike_nth(dir, point, n, Strike::Panic)
    }

    fn strike_nth(dir: &Path, point: Point, n: usize, strike: Strike) -> Guard {
        let (dir, calls_left) = (dir.to_owned(), AtomicUsize::new(n));
        let fault = Arc::new(Fault { dir, point, calls_left, strike, struck: AtomicBool::new(false) });
        FAULTS.lock().push(fault.clone());
        Guard(fault)
    }

    pub(crate) fn hit(point: Point, path: &Path) -> io::Result<()> {
        let is_next = |fault: &&Arc<Fault>| {
            let is_here = fault.point == point && path.starts_with(&fault.dir);
            is_here
                && fault.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    == Ok(1)
        };
        // Nobody else waits for the list while one call is held.
        let struck = FAULTS.lock().iter().find(is_next).cloned();
        let Some(fault) = struck else { return Ok(()) };
        fault.struck.store(true, Ordering::SeqCst);
        match &fault.strike {
            Strike::Fail(errno) => Err(io::Error::from_raw_os_error(*errno)),
            Strike::Hold(over, wake) => {
                wake.wait_while(&mut over.lock(), |over| !*over);
                // Then it may fail.
                hit(point, path)
            }
            #[cfg(feature = "faults")]
            Strike::Panic => panic!("a test makes {point:?} panic"),
        }
    }
}

#[cfg(test)]
mod tests;
