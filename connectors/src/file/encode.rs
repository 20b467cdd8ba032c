//! A batch as lines.

use super::config::TargetConfig;
use crate::cloudevents::json::{self, Layout};
use crate::outcome::Outcome;
use crate::{OutEvent, SendError};

/// How every line begins: by this an unfinished line of ours is told from somebody else's.
pub(super) const LINE_START: &[u8] = b"{\"specversion\":\"1.0\",";

/// The lines of a batch, and the outcome of each event if the lines can be written.
pub(super) fn encode(config: TargetConfig, batch: &[OutEvent]) -> (Vec<u8>, Vec<Outcome>) {
    let mut lines = Vec::new();
    let outcomes = batch
        .iter()
        .map(|event| {
            let start = lines.len();
            json::write_event(&mut lines, &event.event, Layout::OneLine);
            lines.push(b'\n');
            let length = lines.len() - start;
            if length > config.line_bytes_max {
                lines.truncate(start);
                let message = format!("its line has {length} bytes; `line_max` is {}", config.line_bytes_max);
                return Err(SendError::give_up(message));
            }
            Ok(())
        })
        .collect();
    (lines, outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_line_for_each_event_that_fits() {
        let config = TargetConfig { fsync: true, line_bytes_max: 1_024 };
        let mut long = testing::event("long", 0);
        long.event.subject = Some("x".repeat(1_024));
        let batch = [testing::event("a", 0), long, testing::event("b", 0)];
        let (lines, outcomes) = encode(config, &batch);
        let lines: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.starts_with(LINE_START)));
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }
}
