//! Shared subscriptions (4.8.2): a group is one cursor over the queue of its filter, and its members take turns.
//!
//! A member says how many messages it has room for whenever it asks ([`Group::pull`]). Whoever asks reads for all: what
//! was read goes round the members that have room, one each, and they are told. A message is done when its
//! member has acknowledged it. What a member with QoS 1 leaves behind goes to the others ([`Group::leave`]); a QoS 2
//! message that was sent stays with its session (MQTT-4.8.2-4, -5). With no member connected, the
//! cursor stands still and nothing is lost.
//!
//! After a restart the group reads on at its durable cursor. What it gave with QoS 2 does not come again: sessions know in their
//! documents what they have in flight, and the group writes down what is done ([`Account`]) before a session's document forgets
//! it ([`Groups::keep`]).
//!
//! # Layout
//! - `group`: one group and its members
//! - `account`: what a group has done, as it is written down

mod account;
mod group;

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use parking_lot::Mutex;
use tidemill_store::{Collection, CursorKey, CursorPlace, QueueId, Start, Store, StoreError};
use tracing::error;

use self::account::Account;
use super::session::{Cursor, InFlight, Session, Step, Subscription, SubscriptionKey};
use super::sessions;
use super::told::seldom;

pub(super) use self::group::Group;

/// Documents read at a time.
const PAGE: usize = 256;

/// The groups of a broker.
#[derive(Default)]
pub(super) struct Groups {
    all: Mutex<HashMap<CursorKey, Arc<Group>>>,
    /// Held while a group comes into being or ends.
    changes: tokio::sync::Mutex<()>,
}

/// Names the cursor of a group.
fn group_key(group: &str, queue: QueueId) -> CursorKey {
    CursorKey { owner: format!("share/{group}"), queue }
}

/// Names the account of a group. (The name of a group has no `/`.)
fn document_key(group: &CursorKey) -> String {
    format!("{}/{}", group.owner, group.queue.0)
}

impl Groups {
    /// A subscription joins a group. If it is the group's first, the group starts at the queue's end, unless
    /// (`fresh` is false) it is being recovered.
    pub(super) async fn enlist(
        &self,
        store: &Store,
        group: &str,
        (queue, end): (QueueId, u64),
        fresh: bool,
    ) -> Result<(), StoreError> {
        let _changes = self.changes.lock().await;
        let key = group_key(group, queue);
        if let Some(group) = self.all.lock().get(&key) {
            group.state.lock().subscribers += 1;
            return Ok(());
        }
        let end = CursorPlace { offset: end, sequence: 0 };
        let (cursor, account) = if fresh {
            (sessions::new_cursor(store, key.clone(), end).await?, None)
        } else {
            let cursor = store.open_cursor(key.clone(), Start::Offset(end.offset)).await?;
            (Cursor::kept(cursor), read_account(store, &key).await?)
        };
        let group = Group::new(key.clone(), cursor, account);
        self.all.lock().insert(key, Arc::new(group));
        Ok(())
    }

    /// After a restart: a session has a QoS 2 message of this group in flight.
    pub(super) fn hold(&self, group: &str, queue: QueueId, offset: u64) {
        if let Some(group) = self.all.lock().get(&group_key(group, queue)) {
            group.hold(offset);
        }
    }

    /// After a restart: deletes the accounts of groups that ended without that.
    pub(super) async fn sweep(&self, store: &Store) -> Result<(), StoreError> {
        let known: HashSet<String> = self.all.lock().keys().map(document_key).collect();
        let mut after: Option<String> = None;
        loop {
            let page = store.documents(Collection::Groups, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, _) in page.iter().filter(|(key, _)| !known.contains(key)) {
                store.delete_document(Collection::Groups, key, None).await?;
            }
        }
    }

    /// Writes down what the groups of these subscriptions have done. Whoever writes the document of a session first does this for
    /// its groups: a QoS 2 message must be known as done when no session has it in flight any more.
    pub(super) async fn keep<'a>(
        &self,
        store: &Store,
        subscriptions: impl IntoIterator<Item = &'a Subscription>,
    ) -> Result<(), StoreError> {
        for subscription in subscriptions {
            if let Some(group) = self.find(subscription) {
                group.keep(store).await?;
            }
        }
        Ok(())
    }

    /// A subscription is gone. The last one takes the group with it.
    pub(super) async fn withdraw(&self, store: &Store, gone: &Subscription) {
        let _changes = self.changes.lock().await;
        let Some(group) = self.find(gone) else { return };
        let last = {
            let mut state = group.state.lock();
            state.subscribers = state.subscribers.saturating_sub(1);
            state.subscribers == 0
        };
        if last {
            self.all.lock().remove(&group.key);
            if let Err(error) = store.delete_cursor(&group.key).await {
                seldom!(warn, owner = group.key.owner, %error, "could not delete the cursor of a shared subscription");
            }
            if group.has_account()
                && let Err(error) =
                    store.delete_document(Collection::Groups, &document_key(&group.key), None).await
            {
                seldom!(warn, owner = group.key.owner, %error, "could not delete the account of a shared subscription");
            }
        }
    }

    /// The group of a subscription.
    pub(super) fn find(&self, subscription: &Subscription) -> Option<Arc<Group>> {
        let key = group_key(subscription.group()?, subscription.queue);
        self.all.lock().get(&key).cloned()
    }

    /// The delivery of a message has ended, or will never: if it came from a group, the group's cursor may move.
    pub(super) fn finish(&self, store: &Store, session: &Session, done: &InFlight) {
        for source in &done.sources {
            if let Some(subscription) = session.subscriptions.get(source.subscription)
                && subscription.is_shared()
                && let Some(group) = self.find(subscription)
            {
                group.done(store, source.offset, done.step);
            }
        }
    }

    /// Subscriptions of a session without a connection are about to go: the QoS 2 messages in flight from them are completed
    /// there (3.10.4), without telling their groups, whose cursors would wait for them for ever.
    pub(super) fn let_go(&self, store: &Store, session: &Session, gone: &[SubscriptionKey]) {
        if gone.is_empty() {
            return;
        }
        for (_, sent) in session.window.in_order() {
            // What has QoS 1 was given back when its connection ended.
            if sent.step != Step::Puback
                && sent.sources.iter().any(|source| gone.contains(&source.subscription))
            {
                self.finish(store, session, &sent);
            }
        }
    }
}

/// The account of a group. Without one that can be read, what is in flight comes again.
async fn read_account(store: &Store, key: &CursorKey) -> Result<Option<Account>, StoreError> {
    let Some(document) = store.document(Collection::Groups, &document_key(key)).await? else {
        return Ok(None);
    };
    let account = Account::decode(document);
    if account.is_none() {
        error!(
            owner = key.owner,
            "the account of a shared subscription cannot be read; messages may come again"
        );
    }
    Ok(account)
}

/// Takes what a client with QoS 1 has in flight from shared subscriptions out of its session, by subscription: it is
/// for other members now.
pub(super) fn give_back(session: &mut Session) -> Vec<(SubscriptionKey, u64)> {
    let mut given = Vec::new();
    for (id, sent) in session.window.in_order() {
        // What comes from a shared subscription comes from that one only.
        let [source] = sent.sources[..] else { continue };
        let shared = session.subscriptions.get(source.subscription).is_some_and(Subscription::is_shared);
        if shared && sent.step == Step::Puback {
            session.window.abandon(id);
            given.push((source.subscription, source.offset));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Qos, SubscriptionOptions};
    use super::super::registry::Mail;
    use super::super::session::{Source, Sources};
    use super::*;
    use crate::message;
    use bytes::Bytes;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_member_completes_on_its_own_holds_no_group_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(tidemill_store::Options::new(dir.path())).unwrap();
        let (groups, mail) = (Groups::default(), Arc::new(Mail::default()));
        let queue = store.open_filter("a").await.unwrap();
        groups.enlist(&store, "g", (queue.id, queue.end), true).await.unwrap();
        let append = |qos| message::record("a".into(), Bytes::new(), Bytes::new(), qos, false);
        store
            .append([Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce].map(append).to_vec())
            .await
            .unwrap();

        let mut session = Session::new("c".into(), 60);
        let cursor = Cursor::at(CursorPlace { offset: queue.end, sequence: 0 });
        let subscription =
            Subscription::new("$share/g/a".into(), SubscriptionOptions::default(), None, queue.id, cursor);
        let key = session.subscriptions.insert(subscription.unwrap());
        let group = groups.find(session.subscriptions.get(key).unwrap()).unwrap();
        group.join(&mail);
        let pulled = group.pull(&store, &mail, 3, &mut 0).await.unwrap().unwrap();
        let first = pulled[0].0;
        for ((offset, record), qos) in
            pulled.iter().zip([Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce])
        {
            let sources = Sources::from_buf([Source { subscription: key, offset: *offset }]);
            session.window.send(sources, record.pointer(), qos, false).unwrap();
        }
        group.leave(&mail, []);
        groups.let_go(&store, &session, &[]);
        assert_eq!(group.place().offset, first);
        groups.let_go(&store, &session, &[key]);
        assert_eq!(group.place().offset, first + 2, "the one with QoS 1 is for others");
        store.close().await.unwrap();
    }
}
