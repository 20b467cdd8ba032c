//! [`EventIds`]: the CloudEvents `id` of a record: the log's own identity and the record's position in it.
//!
//! The same record has the same id in every rule, after every retry and replay, so whoever receives events can
//! drop duplicates; and no two records of any two logs share one.

use std::fmt::Write;

use tidemill_store::{Position, Store};

/// Makes the ids of one log.
#[derive(Clone, Debug)]
pub struct EventIds {
    log: String,
}

impl EventIds {
    /// The ids of this store's log.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        EventIds { log: store.log_id().to_string() }
    }

    /// The id of the record at a position.
    #[must_use]
    pub fn id(&self, position: Position) -> String {
        let mut id = String::with_capacity(self.log.len() + 16);
        self.write(position, &mut id);
        id
    }

    /// The same into a buffer whose content it replaces.
    pub fn write(&self, position: Position, id: &mut String) {
        id.clear();
        // Writing to a string does not fail.
        let _ = write!(id, "{}-{position}", self.log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_log_and_the_position() {
        let ids = EventIds { log: "8c7d".to_owned() };
        assert_eq!(ids.id(Position::new(0, 0x4d2)), "8c7d-0-0000000004d2");
        let mut id = "old".to_owned();
        ids.write(Position::new(1, 1), &mut id);
        assert_eq!(id, "8c7d-1-000000000001");
    }
}
