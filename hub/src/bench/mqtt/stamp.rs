//! [`Stamp`]: what a payload says of itself, so that every message can be accounted for.

/// Which message this is, and when it was meant to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The run of the bench, so that messages of another are known as such.
    pub(super) run: u32,
    /// Number of its publisher, from 0.
    pub(super) publisher: u32,
    /// Number of the message among those of its publisher, from 0.
    pub(super) sequence: u64,
    /// Nanoseconds of the load's clock at which it was to be sent. In a closed loop that is when it was.
    pub(super) intended_ns: u64,
}

/// A stamp's bytes: its fields in their order, big endian. They are the first of a payload, whatever its size.
pub(super) const STAMP_BYTES: usize = 24;

impl Stamp {
    pub(super) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&self.intended_ns.to_be_bytes());
        bytes
    }

    /// The stamp of a payload; `None` if it is too short to have one.
    pub(super) fn of(payload: &[u8]) -> Option<Stamp> {
        let (run, rest) = payload.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let intended_ns = rest.first_chunk()?;
        Some(Stamp {
            run: u32::from_be_bytes(*run),
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            intended_ns: u64::from_be_bytes(*intended_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_from_the_payload_it_is_in() {
        let stamp = Stamp { run: 7, publisher: 99, sequence: u64::MAX - 1, intended_ns: 1 << 40 };
        let mut payload = stamp.to_bytes().to_vec();
        payload.extend([0; 40]);
        assert_eq!(Stamp::of(&payload), Some(stamp));
        assert_eq!(Stamp::of(&payload[..STAMP_BYTES - 1]), None);
    }
}
