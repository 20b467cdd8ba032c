//! [`Accounts`]: from where on the log has QoS 2 messages that no session document accounts for.
//!
//! A QoS 2 record says which client sent it and under which packet identifier, so that its PUBREC needs no document:
//! after a crash, recovery finds in the log what was received. How far back it has to look is written down now and then
//! ([`Accounts::keep`]): up to the oldest record that is in no session's document. A session that has such records
//! *holds* the place that the log had before the first of them, until its document is written. One that holds it for
//! long, because its client releases nothing, is asked to write its document.
//!
//! ```text
//! u8   version of this layout: 1
//! u16  shards, each: u64 position from which on is to be looked
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use foldhash::HashMap;
use parking_lot::Mutex;
use tidemill_store::{Collection, Due, Position, Store, StoreError};
use tracing::warn;

use super::registry::Mail;
use super::shared::Shared;
use super::told::seldom;

const VERSION: u8 = 1;
/// The document's key.
const KEY: &str = "accounts";
/// How often the place is written down if it has moved.
const EVERY: Duration = Duration::from_secs(1);
/// A session that has held a place for so many times [`EVERY`] is asked to write its document.
const PATIENCE: u64 = 4;
/// Places remembered; no newer one is, while a session that cannot be written holds the oldest for so long.
const MARKS_MAX: usize = 1024;

/// A place in the log; they are numbered as they come.
pub(super) type Mark = u64;

/// See the module's text.
#[derive(Default)]
pub(super) struct Accounts {
    inner: Mutex<Inner>,
    /// Number of the last mark.
    last: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Number of the first of `marks`.
    first: Mark,
    /// Ends of the log, from the oldest that is held.
    marks: VecDeque<Vec<Position>>,
    /// By client.
    holds: HashMap<ByteString, Hold>,
}

struct Hold {
    mark: Mark,
    mail: Arc<Mail>,
}

impl Inner {
    fn oldest(&self, last: Mark) -> Mark {
        self.holds.values().map(|hold| hold.mark).min().unwrap_or(last)
    }
}

impl Accounts {
    /// The last mark: whatever is appended from now on lies behind it.
    pub(super) fn mark(&self) -> Mark {
        self.last.load(Ordering::Acquire)
    }

    /// A session is about to append what its document does not account for, or has something else to write down soon.
    pub(super) fn hold(&self, client: &ByteString, mail: &Arc<Mail>) {
        let mut inner = self.inner.lock();
        let hold = Hold { mark: self.mark(), mail: Arc::clone(mail) };
        // What it held before is older.
        inner.holds.entry(client.clone()).and_modify(|held| held.mail = Arc::clone(mail)).or_insert(hold);
    }

    /// The document of a session was written, or is gone. It accounts for all but what was appended behind `rest`.
    pub(super) fn settle(&self, client: &ByteString, rest: Option<Mark>) {
        let mut inner = self.inner.lock();
        match rest {
            Some(mark) => {
                if let Some(hold) = inner.holds.get_mut(client) {
                    hold.mark = hold.mark.max(mark);
                }
            }
            None => {
                inner.holds.remove(client);
            }
        }
    }

    /// The log ends here, or ended here a moment ago. From where on it is to be looked at after a crash, and who should write their
    /// documents.
    fn advance(&self, ends: Vec<Position>) -> (Vec<Position>, Vec<Arc<Mail>>) {
        let mut inner = self.inner.lock();
        if inner.marks.len() < MARKS_MAX {
            inner.marks.push_back(ends);
        }
        let last = inner.first + inner.marks.len() as u64 - 1;
        self.last.store(last, Ordering::Release);
        let oldest = inner.oldest(last);
        while inner.first < oldest {
            inner.marks.pop_front();
            inner.first += 1;
        }
        let late = inner.holds.values().filter(|hold| hold.mark + PATIENCE <= last);
        let late = late.map(|hold| Arc::clone(&hold.mail)).collect();
        (inner.marks.front().cloned().unwrap_or_default(), late)
    }

    /// Writes down from where on the log is to be looked at, if that is not `written`. Gives what is written then.
    pub(super) async fn keep(
        &self,
        store: &Store,
        written: Option<Vec<Position>>,
    ) -> Result<Vec<Position>, StoreError> {
        let (from, late) = self.advance(store.ends());
        late.iter().for_each(|mail| mail.ask_to_write());
        if written.as_ref() != Some(&from) {
            store.put_document(Collection::Broker, KEY, encode(&from), Due::default()).await?;
        }
        Ok(from)
    }
}

/// Keeps the place for as long as the broker runs.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut written = None;
    loop {
        tokio::time::sleep(EVERY).await;
        match shared.accounts.keep(&shared.store, written.take()).await {
            Ok(from) => written = Some(from),
            Err(StoreError::Closed) => return,
            Err(error) => {
                seldom!(warn, %error, "recovery after a crash would take longer: how far sessions are written cannot be")
            }
        }
    }
}

/// From where on the log is to be looked at; `None` if that was never written.
pub(super) async fn kept(store: &Store) -> Result<Option<Vec<Position>>, StoreError> {
    let document = store.document(Collection::Broker, KEY).await?;
    let Some(document) = document else { return Ok(None) };
    let from = decode(document);
    if from.is_none() {
        warn!("how far sessions were written cannot be read; the whole log is looked at");
    }
    Ok(Some(from.unwrap_or_default()))
}

fn encode(from: &[Position]) -> Bytes {
    let mut out = BytesMut::with_capacity(3 + 8 * from.len());
    out.put_u8(VERSION);
    out.put_u16(from.len() as u16);
    from.iter().for_each(|position| out.put_u64(position.to_u64()));
    out.freeze()
}

fn decode(mut bytes: Bytes) -> Option<Vec<Position>> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let count = bytes.try_get_u16().ok()?;
    let from = (0..count).map(|_| bytes.try_get_u64().ok().map(Position::from_u64)).collect::<Option<_>>()?;
    bytes.is_empty().then_some(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(offset: u64) -> Vec<Position> {
        vec![Position::new(0, offset)]
    }

    #[test]
    fn the_place_is_that_of_the_oldest_hold() {
        let accounts = Accounts::default();
        let (a, b) = (ByteString::from("a"), ByteString::from("b"));
        let mail = Arc::new(Mail::default());
        assert_eq!(accounts.advance(ends(10)).0, ends(10));
        accounts.hold(&a, &mail);
        assert_eq!(accounts.advance(ends(20)).0, ends(10));
        accounts.hold(&b, &mail);
        let rest = accounts.mark();
        assert_eq!(accounts.advance(ends(30)).0, ends(10));
        accounts.hold(&a, &mail);
        assert_eq!(accounts.advance(ends(40)).0, ends(10), "holding again gives nothing up");
        accounts.settle(&a, Some(rest));
        assert_eq!(accounts.advance(ends(50)).0, ends(20));
        accounts.settle(&b, None);
        accounts.settle(&b, Some(rest));
        assert_eq!(accounts.advance(ends(60)).0, ends(20));
        accounts.settle(&a, None);
        assert_eq!(accounts.advance(ends(70)).0, ends(70));
        assert_eq!(accounts.inner.lock().marks.len(), 1);
    }

    #[test]
    fn who_holds_it_long_is_asked() {
        let accounts = Accounts::default();
        let mail = Arc::new(Mail::default());
        accounts.advance(ends(1));
        accounts.hold(&"a".into(), &mail);
        for at in 1..PATIENCE {
            assert!(accounts.advance(ends(at)).1.is_empty());
        }
        assert_eq!(accounts.advance(ends(PATIENCE)).1.len(), 1);
    }

    proptest! {
        #[test]
        fn the_document_comes_back(offsets in proptest::collection::vec(any::<u64>(), 0..9), cut in any::<usize>()) {
            let from: Vec<Position> = offsets.into_iter().map(Position::from_u64).collect();
            let bytes = encode(&from);
            prop_assert_eq!(decode(bytes.clone()), Some(from));
            prop_assert_eq!(decode(bytes.slice(..cut % bytes.len())), None);
        }
    }
}
