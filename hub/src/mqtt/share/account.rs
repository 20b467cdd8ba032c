//! [`Account`]: what a group has done of its queue, as it is written down.
//!
//! ```text
//! u8   version of this layout: 1
//! u64  offset to read on at
//! u32  offsets below it that are not done, each: u64
//! u32  offsets from it on that are done, each: u64
//! ```
//!
//! The group's durable cursor knows only its lowest offset that is not done. What is done behind it is here, as far as
//! QoS 2 needs it; what is not done stays as small as the windows of the group's members.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// What is below it was read.
    pub(super) next: u64,
    /// What of that is not done.
    pub(super) open: Vec<u64>,
    /// What of the rest is done: by sessions that had it in flight before a restart.
    pub(super) ahead: Vec<u64>,
}

impl Account {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(17 + 8 * (self.open.len() + self.ahead.len()));
        out.put_u8(VERSION);
        out.put_u64(self.next);
        for offsets in [&self.open, &self.ahead] {
            out.put_u32(offsets.len() as u32);
            offsets.iter().for_each(|offset| out.put_u64(*offset));
        }
        out.freeze()
    }

    /// What [`Account::encode`] wrote; `None` for anything else.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Account> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let next = bytes.try_get_u64().ok()?;
        let mut offsets = || {
            let count = bytes.try_get_u32().ok()?;
            (0..count).map(|_| bytes.try_get_u64().ok()).collect::<Option<Vec<u64>>>()
        };
        let (open, ahead) = (offsets()?, offsets()?);
        bytes.is_empty().then_some(Account { next, open, ahead })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_account_comes_back(
            next: u64,
            open in vec(any::<u64>(), 0..9),
            ahead in vec(any::<u64>(), 0..9),
            cut in any::<usize>(),
        ) {
            let account = Account { next, open, ahead };
            let bytes = account.encode();
            prop_assert_eq!(Account::decode(bytes.clone()), Some(account));
            prop_assert_eq!(Account::decode(bytes.slice(..cut % bytes.len())), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..60)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = Account::decode(bytes.into());
        }
    }

    /// As the program wrote it; never to be changed.
    const VERSION_1: &[u8] =
        b"\x01\0\0\0\0\0\0\0\x09\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\0\x0c";

    #[test]
    fn version_1_is_read() {
        let account = Account { next: 9, open: vec![3, 5], ahead: vec![12] };
        assert_eq!(account.encode(), VERSION_1);
        assert_eq!(Account::decode(Bytes::from_static(VERSION_1)), Some(account));
        assert_eq!(Account::decode(Bytes::from_static(b"\x02")), None);
    }
}
