//! [`Desk`]: where appends are handed in.
//!
//! A small one that has nobody before it is carried out at once, by whoever hands it in: to wake the log writer's thread for each record, and
//! to be interrupted by it, costs more than to append one. All else waits for the thread, and the longer it takes, the larger its batches
//! are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::layout::Layout;
use super::writer::{Command, Writer};
use crate::pool::vital;
use crate::{Appended, Result, StoreError};

/// Larger appends wait for the thread: a network thread has other connections.
const AT_ONCE_BYTES_MAX: usize = 4 << 10;
/// An append that takes longer says that the disk or the machine is slow: for a while all of them wait for the thread.
const SLOW: Duration = Duration::from_millis(2);
const SLOW_FOR: Duration = Duration::from_secs(1);

/// See the module's text.
pub(crate) struct Desk {
    end: Mutex<End>,
    /// Appends that were left for the thread and are not carried out: what the same hands give in later comes after them.
    waiting: AtomicUsize,
}

struct End {
    writer: Writer,
    /// When appends may be carried out at once again.
    slow_until: Option<Instant>,
    /// The thread has ended, and nobody syncs what would be written now.
    closed: bool,
}

impl Desk {
    pub(crate) fn new(writer: Writer) -> Self {
        let end = End { writer, slow_until: None, closed: false };
        Desk { end: Mutex::new(end), waiting: AtomicUsize::new(0) }
    }

    /// Carries an append out, if that is done at once; else it is to be left for the thread.
    pub(crate) fn append(&self, mut layout: Layout) -> Result<oneshot::Receiver<Result<Appended>>, Layout> {
        if layout.log_bytes() > AT_ONCE_BYTES_MAX || self.waiting.load(Ordering::Acquire) > 0 {
            return Err(layout);
        }
        let Some(mut end) = self.end.try_lock() else { return Err(layout) };
        let began = Instant::now();
        if end.closed
            || end.slow_until.is_some_and(|until| began < until)
            || !end.writer.takes_at_once(&mut layout)
        {
            return Err(layout);
        }
        let (reply, receipt) = oneshot::channel();
        // A record half entered into the queues is worse than a start from what is on disk.
        vital("an append", || end.writer.append_at_once(layout, reply));
        end.slow_until = (began.elapsed() > SLOW).then(|| began + SLOW_FOR);
        Ok(receipt)
    }

    /// Leaves an append for the thread.
    pub(crate) fn leave(&self, mailbox: &mpsc::Sender<Command>, append: Command) -> Result<()> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        mailbox.try_send(append).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            StoreError::Closed
        })
    }

    /// The thread: runs until the store is closed or dropped, to the last command in the mailbox.
    pub(crate) fn run(&self, mut mailbox: mpsc::Receiver<Command>) {
        while let Some(first) = mailbox.blocking_recv() {
            let appends = self.end.lock().writer.carry_out(first, &mut mailbox);
            self.waiting.fetch_sub(appends, Ordering::AcqRel);
        }
        self.end.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewRecord, Options, Retain, Store};

    fn record(payload_bytes: usize) -> NewRecord {
        NewRecord {
            topic: "a/b".into(),
            properties: Default::default(),
            payload: vec![b'x'; payload_bytes].into(),
            attributes: 0,
            retain: Retain::No,
        }
    }

    fn layout(payload_bytes: usize) -> Layout {
        let mut layout = Layout::default();
        layout.push(&record(payload_bytes), None);
        layout
    }

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options { segment_bytes: 64 << 10, ..Options::new(dir.path()) }).unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn what_is_small_is_done_at_once_while_all_is_well() {
        let (_dir, store) = open();
        let desk = &store.0.desk;
        // The first one makes room on the disk.
        store.append(vec![record(1)]).await.unwrap();
        desk.append(layout(1)).unwrap().await.unwrap().unwrap();
        assert!(desk.append(layout(AT_ONCE_BYTES_MAX)).is_err(), "large");
        desk.end.lock().slow_until = Some(Instant::now() + Duration::from_secs(3600));
        assert!(desk.append(layout(1)).is_err(), "the machine is slow");
        desk.end.lock().slow_until = None;
        assert!(desk.append(layout(1)).is_ok());
        store.close().await.unwrap();
        assert!(desk.append(layout(1)).is_err(), "closed");
        assert!(matches!(store.append(vec![record(1)]).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_segment_that_is_full_is_the_threads_matter() {
        let (_dir, store) = open();
        store.append(vec![record(60 << 10)]).await.unwrap();
        let full = |refused: &Result<_, Layout>| refused.is_err();
        let mut done = 0;
        while !full(&store.0.desk.append(layout(1 << 10))) {
            done += 1;
        }
        assert!(done <= 4, "{done} KiB more than a segment has");
        store.append(vec![record(1 << 10)]).await.unwrap();
        assert!(store.0.desk.append(layout(1 << 10)).is_ok(), "the next one has room");
    }

    #[tokio::test]
    #[expect(
        clippy::await_holding_lock,
        reason = "whoever submits does not wait for it, which is what is shown"
    )]
    async fn none_overtakes_one_that_waits() {
        let (_dir, store) = open();
        store.append(vec![record(1)]).await.unwrap();
        let first = {
            let _busy = store.0.desk.end.lock();
            let first = store.submit(vec![record(1)]).await.unwrap();
            assert_eq!(store.0.desk.waiting.load(Ordering::Acquire), 1, "left for the thread");
            first
        };
        let second = store.submit(vec![record(1)]).await.unwrap();
        assert!(first.await.unwrap().sequence < second.await.unwrap().sequence);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everyone_s_appends_keep_their_order_whoever_carries_them_out() {
        let (_dir, store) = open();
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut receipts = Vec::new();
                    for n in 0..300 {
                        let bytes = if n % 7 == task { 5 << 10 } else { 16 };
                        receipts.push(store.submit(vec![record(bytes)]).await.unwrap());
                    }
                    let mut sequences = Vec::new();
                    for receipt in receipts {
                        sequences.push(receipt.await.unwrap().sequence);
                    }
                    sequences
                })
            })
            .collect();
        for task in tasks {
            let sequences = task.await.unwrap();
            assert_eq!(sequences.len(), 300);
            assert!(sequences.is_sorted(), "{sequences:?}");
        }
        assert_eq!(store.stats().records, 1200);
    }
}
