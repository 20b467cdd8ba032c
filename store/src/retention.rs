//! The thread that deletes whole segments from the log's begin, as far as each shard's retention allows. It also has the catalogue look
//! for queues that are over their time.
//!
//! What a segment has that is still wanted is safe before it goes: retained messages are written again at the log's end, durably, and the
//! index has all its entries. A full disk has some room for that ([`crate::log::ballast`]). Then its file gets another name, which is what deletes it; a crash after that leaves a file that recovery
//! removes. The space is given back last, once no reader is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use crate::catalogue::Change;
use crate::log::age::{newest_ms, now_ms, oldest_ms};
use crate::log::segment::Segment;
use crate::log::shard::Shard;
use crate::log::writer::{Command, ask};
use crate::shared::SharedRef;
use crate::{Pointer, Result, Retention, StoreError};

/// Retained messages looked up at a time.
const PAGE_MESSAGES: usize = 1024;
/// Bytes of retained messages written again in one batch, about; appends wait for it.
const KEEP_BYTES: usize = 256 << 10;
/// Segments of a shard that go together, so that retained messages are looked for once.
const SEGMENTS_MAX: usize = 16;

/// How the thread is told to end.
#[derive(Debug, Default)]
pub(crate) struct RetentionSignal {
    stop: Mutex<bool>,
    wake: Condvar,
}

impl RetentionSignal {
    pub(crate) fn stop(&self) {
        *self.stop.lock() = true;
        self.wake.notify_all();
    }

    /// Waits for so long; false once the thread is to end.
    fn pause(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop {
            self.wake.wait_for(&mut stop, time);
        }
        !*stop
    }
}

/// The thread's own state.
pub(crate) struct Deleter {
    shared: SharedRef,
    writer: mpsc::Sender<Command>,
    changes: mpsc::Sender<Change>,
    /// Deleted; readers that were faster may still have them open.
    leaving: Vec<Arc<Segment>>,
    /// That something is in the way was said.
    told: bool,
}

impl Deleter {
    pub(crate) fn new(
        shared: SharedRef,
        writer: mpsc::Sender<Command>,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Deleter { shared, writer, changes, leaving: Vec::new(), told: false }
    }

    /// Runs until the store is closed or dropped.
    pub(crate) fn run(mut self) {
        while self.shared.retention.pause(self.shared.options.retention_interval) {
            // A mailbox that is full has worse to do, and the next one comes soon.
            let _ = self.changes.try_send(Change::Expire);
            let now_ms = now_ms();
            let mut failed = None;
            for number in 0..self.shared.log.shards().len() {
                if let Err(error) = self.look_at(number, now_ms) {
                    let error = self.make_room(error);
                    // That it was the room counts, whatever else a shard says.
                    failed =
                        failed.filter(|failed| matches!(failed, StoreError::Full { .. })).or(Some(error));
                }
            }
            self.free();
            if !matches!(failed, Some(StoreError::Full { .. })) {
                // Otherwise what was just given up would be taken again before it was of any use.
                self.shared.log.look_for_room();
            }
            match failed {
                Some(StoreError::Closed) => {}
                Some(error) if !self.told => {
                    tracing::warn!(%error, "old records cannot be deleted; it is tried again");
                    self.told = true;
                }
                Some(_) => {}
                None => self.told = false,
            }
        }
    }

    /// Has room to delete something next time, if there was none.
    fn make_room(&self, error: StoreError) -> StoreError {
        if !matches!(error, StoreError::Full { .. }) {
            return error;
        }
        let given_up = ask(&self.writer, |reply| Command::GiveUpBallast { full: error.clone(), reply });
        given_up.and_then(|given_up| given_up).err().unwrap_or(error)
    }

    /// Deletes from one shard what may go.
    fn look_at(&mut self, number: usize, now_ms: i64) -> Result<()> {
        let shared = self.shared.clone();
        let Some(shard) = shared.log.shards().get(number) else { return Ok(()) };
        if shard.retention == Retention::default() {
            return Ok(());
        }
        self.roll(shard, now_ms)?;
        let mut flushed = false;
        let mut most = SEGMENTS_MAX;
        loop {
            let segments = shard.segments.read().clone();
            let over = over(shard, &segments, now_ms)?.min(most);
            let indexed = shared.flushed_cut.end(shard.number);
            // Entries that wait in memory, or would be made again after a crash, must not be of records that are gone.
            let is_indexed = |count: &usize| segments.get(*count).is_some_and(|next| next.first <= indexed);
            let count = (1..=over).rev().find(is_indexed).unwrap_or(0);
            if count == 0 && over > 0 && !flushed {
                shared.indexer.checkpoint()?;
                flushed = true;
                continue;
            }
            let (Some(next), true) = (segments.get(count), count > 0) else { return Ok(()) };
            // History is being read: its queue would have holes.
            let Ok(_filling) = shared.filling.try_lock() else {
                tracing::debug!(shard = shard.number, "retention waits while a queue is filled with history");
                return Ok(());
            };
            let first = segments.first().map_or(0, |first| first.first);
            let kept_bytes = match self.keep_retained(shard.number, next.first) {
                Ok(kept_bytes) => kept_bytes,
                // Without room for what is kept, those go that have nothing to keep.
                Err(StoreError::Full { .. }) if most > 1 => {
                    most = 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for segment in segments.iter().take(count) {
                self.delete(shard, segment)?;
            }
            let deleted_bytes = next.first - first;
            drop(segments);
            self.free();
            // Retained messages that are more than may be kept would be written again without end.
            if kept_bytes * 2 > deleted_bytes || !shared.retention.pause(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    /// Ends the active segment once its first record is too old: what nobody adds to would be kept for ever.
    fn roll(&self, shard: &Shard, now_ms: i64) -> Result<()> {
        let Some(time) = shard.retention.time else { return Ok(()) };
        let segments = shard.segments.read().clone();
        let active = segments.len().saturating_sub(1);
        match oldest_ms(shard.number, &segments, active)? {
            Some(oldest) if is_older(oldest, now_ms, time) => {
                ask(&self.writer, |reply| Command::Roll { shard: shard.number, reply })?
            }
            _ => Ok(()),
        }
    }

    /// Has the retained messages written again whose records are in a shard before an offset. Durable when this returns; how many
    /// bytes they had.
    fn keep_retained(&self, shard: u16, to: u64) -> Result<u64> {
        let goes = |pointer: Pointer| pointer.position.shard() == shard && pointer.position.offset() < to;
        let mut after: Option<String> = None;
        let mut kept_bytes = 0;
        loop {
            // All are in the database: the index has been flushed past them.
            let page = self.shared.meta.retained_where(goes, after.as_deref(), PAGE_MESSAGES)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut pointers: Vec<Pointer> = page.iter().map(|(_, pointer)| *pointer).collect();
            pointers.sort_unstable();
            let mut rest = pointers.as_slice();
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take_while(|pointer| {
                    let is_first = bytes == 0;
                    bytes += pointer.size as usize;
                    is_first || bytes <= KEEP_BYTES
                });
                let (now, later) = rest.split_at(fits.count());
                kept_bytes += now.iter().map(|pointer| u64::from(pointer.size)).sum::<u64>();
                let records = self.shared.log.read_cold(now)?;
                ask(&self.writer, |reply| Command::Keep { records, reply })??;
                rest = later;
            }
            if page.len() < PAGE_MESSAGES {
                break;
            }
        }
        if kept_bytes > 0 {
            // Also where an earlier attempt wrote them, and came no further.
            self.shared.indexer.checkpoint()?;
        }
        Ok(kept_bytes)
    }

    /// Deletes the first segment of a shard.
    fn delete(&mut self, shard: &Shard, segment: &Arc<Segment>) -> Result<()> {
        let log = &self.shared.log;
        segment.retire(&log.dir).map_err(|error| log.refuse(error))?;
        let mut segments = shard.segments.write();
        segments.retain(|other| !Arc::ptr_eq(other, segment));
        let start = segments.first().map_or(0, |first| first.first);
        // Under the lock: whoever does not find the segment knows why.
        self.shared.alive.set_start(shard.number, start);
        drop(segments);
        let bytes = start.saturating_sub(segment.first);
        log.counters.deleted_segments.fetch_add(1, Ordering::Relaxed);
        log.counters.deleted_bytes.fetch_add(bytes, Ordering::Relaxed);
        tracing::info!(shard = shard.number, bytes, begins = %shard.position(start), "deleted the oldest segment");
        self.leaving.push(segment.clone());
        Ok(())
    }

    /// Gives back the space of segments that nobody reads any more.
    fn free(&mut self) {
        let signal = &self.shared.retention;
        self.leaving.retain(|segment| {
            if Arc::strong_count(segment) > 1 {
                return true;
            }
            if let Err(error) = segment.free(|pause| signal.pause(pause)) {
                tracing::warn!(%error, "the space of a deleted segment is given back at the next start");
            }
            false
        });
    }
}

/// How many segments at the begin of a shard may go. Never the active one.
fn over(shard: &Shard, segments: &[Arc<Segment>], now_ms: i64) -> Result<usize> {
    let Retention { time, bytes } = shard.retention;
    let end = shard.end();
    let mut count = 0;
    for (index, segment) in segments.iter().enumerate().take(segments.len().saturating_sub(1)) {
        let too_much = bytes.is_some_and(|bytes| end.saturating_sub(segment.first) > bytes);
        let too_old = match time {
            Some(time) if !too_much => is_older(newest_ms(shard.number, segments, index)?, now_ms, time),
            _ => false,
        };
        if !too_much && !too_old {
            break;
        }
        count += 1;
    }
    Ok(count)
}

fn is_older(time_ms: i64, now_ms: i64, than: Duration) -> bool {
    i64::try_from(than.as_millis()).is_ok_and(|than| now_ms.saturating_sub(time_ms) > than)
}
