//! Figures that a test has shown, printed so that they can be found again in any output: lines that start with `shown:`.

use std::fmt::Display;
use std::io::Write;

/// Prints a figure: `shown: kill: acknowledged 41250`.
///
/// The test harness hides what `println!` prints in a test that passes, so this writes to standard error itself.
pub fn shown(test: &str, what: impl Display) {
    let line = format!("shown: {test}: {what}\n");
    // A closed standard error is no reason to fail a test.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// [`shown`] with a format: `report!("kill", "acknowledged {n}")`.
#[macro_export]
macro_rules! report {
    ($test:expr, $($format:tt)+) => {
        $crate::report::shown($test, format_args!($($format)+))
    };
}

/// A figure of a sorted list: `per_thousand` 500 is the median, 990 the 99th percentile. 0 of an empty list.
#[must_use]
pub fn quantile(sorted: &[u32], per_thousand: usize) -> u32 {
    let at = (sorted.len() * per_thousand / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}
