//! [`Pool`]: a few threads for what may block on the disk, so that no async thread does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::{Result, StoreError};

/// Threads of the pool.
const THREADS: usize = 2;
/// Jobs that may wait for a thread; callers wait past it.
const JOBS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// The threads and their common mailbox.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Option<SyncSender<Job>>,
    room: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new() -> Result<Self> {
        // Permits are taken first, so that sending never waits.
        let (jobs, mailbox) = sync_channel::<Job>(JOBS_MAX);
        let mailbox = Arc::new(Mutex::new(mailbox));
        let threads = (0..THREADS)
            .map(|n| {
                let mailbox = mailbox.clone();
                spawn(&format!("store-read-{n}"), move || work(&mailbox))
            })
            .collect::<Result<_>>()?;
        Ok(Pool { jobs: Some(jobs), room: Arc::new(Semaphore::new(JOBS_MAX)), threads })
    }

    /// Runs a job on one of the threads and waits for what it returns.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The thread is there for others as well.
            let done = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
                tracing::error!("a job of the store failed with a panic; only whoever asked for it is told");
                Err(StoreError::Panicked)
            });
            // Whoever went away does not need the answer.
            let _ = reply.send(done);
            drop(room);
        });
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a job that may take minutes on a thread of its own, and waits for what it returns. Callers bound how many there are.
    pub(crate) async fn run_long<T: Send + 'static>(
        &self,
        name: &str,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        spawn(name, move || drop(reply.send(job())))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(mailbox: &Mutex<Receiver<Job>>) {
    loop {
        let job = mailbox.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Starts a named thread.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| StoreError::Io {
        action: "start thread",
        path: name.into(),
        error: error.to_string(),
    })
}

/// Starts a thread that the store cannot be without; see [`vital`].
pub(crate) fn spawn_vital(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = name.to_owned();
    spawn(name, move || vital(&thread, body))
}

/// Does what the store cannot do by half: a panic in it ends the process, which then starts from what is on disk.
pub(crate) fn vital(part: &str, body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        tracing::error!(part, "a part of the store panicked; the process ends");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_takes_no_thread_with_it() {
        let pool = Pool::new().unwrap();
        for _ in 0..=THREADS {
            let failed = pool.run(|| -> Result<()> { panic!("of a test") }).await;
            assert!(matches!(failed, Err(StoreError::Panicked)), "{failed:?}");
        }
        assert!(matches!(pool.run(|| Ok(7)).await, Ok(7)));
    }
}
