//! Where the store touches files: unit tests make chosen calls fail. Outside of them nothing is looked up.

/// What is about to be done to a file.
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
    /// The meta database is written.
    MetaWrite,
}

/// Fails if a test said so.
#[cfg(not(test))]
pub(crate) fn hit(_: Point, _: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use registry::{fail_nth, hit};

#[cfg(test)]
mod registry {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::Point;

    static FAULTS: Mutex<Vec<Arc<Fault>>> = Mutex::new(Vec::new());

    #[derive(Debug)]
    struct Fault {
        dir: PathBuf,
        point: Point,
        calls_left: AtomicUsize,
        errno: i32,
        struck: AtomicBool,
    }

    /// Takes the fault away when it is dropped.
    #[derive(Debug)]
    pub(crate) struct Guard(Arc<Fault>);

    impl Guard {
        /// Whether the call has come that failed.
        pub(crate) fn struck(&self) -> bool {
            self.0.struck.load(Ordering::SeqCst)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            FAULTS.lock().retain(|fault| !Arc::ptr_eq(fault, &self.0));
        }
    }

    /// Makes the `n`-th call from now on (the first is 1) of this kind below `dir` fail, and no other.
    pub(crate) fn fail_nth(dir: &Path, point: Point, n: usize, errno: i32) -> Guard {
        let (dir, calls_left) = (dir.to_owned(), AtomicUsize::new(n));
        let fault = Arc::new(Fault { dir, point, calls_left, errno, struck: AtomicBool::new(false) });
        FAULTS.lock().push(fault.clone());
        Guard(fault)
    }

    pub(crate) fn hit(point: Point, path: &Path) -> io::Result<()> {
        let faults = FAULTS.lock();
        for fault in faults.iter().filter(|fault| fault.point == point && path.starts_with(&fault.dir)) {
            let left = fault.calls_left.load(Ordering::SeqCst);
            fault.calls_left.store(left.saturating_sub(1), Ordering::SeqCst);
            if left == 1 {
                fault.struck.store(true, Ordering::SeqCst);
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
