//! Sizes, numbers and times for people; progress on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tidemill_store::tools::Progress;

/// Progress is told no more often.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// `12.3 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") }
}

/// `1,234,567`.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time in milliseconds since the Unix epoch as RFC 3339 in UTC; `-` without one.
pub(super) fn time(time_ms: Option<i64>) -> String {
    let Some(time_ms) = time_ms else { return "-".to_owned() };
    jiff::Timestamp::from_millisecond(time_ms)
        .map_or_else(|_| time_ms.to_string(), |time| format!("{time:.3}"))
}

/// A cell with more characters makes its own row wider, and not the column.
const CELL_CHARS_MAX: usize = 60;

/// Rows with their columns side by side: the first one left-aligned, the others right-aligned unless they are `left`.
pub(super) fn table(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.filter(|chars| *chars <= CELL_CHARS_MAX).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line += &if column == 0 || left.contains(&column) {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Tells how far a command is: over itself on a terminal, and now and then elsewhere.
pub(super) fn teller() -> impl FnMut(Progress) {
    let mut last = Instant::now();
    let mut err = std::io::stderr();
    let on_terminal = err.is_terminal();
    move |Progress { what, done, total }| {
        if last.elapsed() < TOLD_EVERY {
            return;
        }
        last = Instant::now();
        let text = match done.saturating_mul(100).checked_div(total) {
            Some(percent) => format!("{what}: {percent}% of {}", bytes(total)),
            None => format!("{what}: {}", number(done)),
        };
        // Nobody needs it who has closed it.
        let _ = if on_terminal { write!(err, "\r\x1b[K{text}") } else { writeln!(err, "{text}") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 2048, 3 << 30].map(bytes), ["5 B", "2.0 KiB", "3.0 GiB"]);
        assert_eq!(time(Some(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(
            table(&[vec!["a".into(), "1".into()], vec!["bc".into(), "23".into()]], &[]),
            "a    1\nbc  23\n"
        );
        let long = "x".repeat(CELL_CHARS_MAX + 1);
        let rows = [vec![long.clone(), "1".into()], vec!["bc".into(), "23".into()]];
        assert_eq!(table(&rows, &[]), format!("{long}   1\nbc  23\n"));
    }
}
