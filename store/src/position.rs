//! [`Position`]: where a record stands in the log.

use std::fmt;

/// Where a record stands in the log: 16 bits of shard, 48 bits of byte offset in that shard.
///
/// Opaque outside the store. Positions of one shard grow in the log's order, so comparing two
/// of them says which record was stored first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

/// Bits of a position that hold the byte offset.
const OFFSET_BITS: u32 = 48;
/// The largest byte offset a shard can have (256 TiB).
pub(crate) const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;

impl Position {
    /// The position before every record of shard 0.
    pub const ZERO: Position = Position(0);

    /// Builds a position of `shard` at byte `offset` (only its low 48 bits are kept).
    #[must_use]
    pub fn new(shard: u16, offset: u64) -> Self {
        debug_assert!(offset <= OFFSET_MAX);
        Position((u64::from(shard) << OFFSET_BITS) | (offset & OFFSET_MAX))
    }

    /// The log shard.
    #[must_use]
    pub fn shard(self) -> u16 {
        (self.0 >> OFFSET_BITS) as u16
    }

    /// The byte offset within the shard.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.0 & OFFSET_MAX
    }

    /// The number that stands for this position outside (identifiers, the HTTP API).
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The position that [`Position::to_u64`] gave.
    #[must_use]
    pub fn from_u64(value: u64) -> Self {
        Position(value)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:012x}", self.shard(), self.offset())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("position `{text}` is not of the form SHARD-HEXOFFSET, as in 0-0000000004d2");
        let (shard, offset) = text.split_once('-').ok_or_else(bad)?;
        let shard = shard.parse().map_err(|_| bad())?;
        let offset = u64::from_str_radix(offset, 16).map_err(|_| bad())?;
        if offset > OFFSET_MAX {
            return Err(bad());
        }
        Ok(Position::new(shard, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_orders() {
        let a = Position::new(3, 0x4d2);
        assert_eq!(a.to_string(), "3-0000000004d2");
        assert_eq!(a.to_string().parse(), Ok(a));
        assert!("nonsense".parse::<Position>().is_err());
        assert!(Position::new(0, 1) < Position::new(0, 2));
    }
}
