//! [`Line`]: what was measured and what is required of it, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::json;

use crate::cli::Failed;

/// What is required of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Must {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At least this part of the limit.
    OfLimit(f64),
    /// At most so many times the limit.
    UpTo(f64),
}

/// One measured value.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The row's short name; a row with two requirements has two lines.
    pub(super) row: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What the value is held against, measured in the same run and in the same unit.
    pub(super) limit: Option<f64>,
    pub(super) must: Must,
    /// What else to know.
    pub(super) note: String,
}

impl Line {
    pub(super) fn new(row: &'static str, value: f64, unit: &'static str, must: Must) -> Line {
        Line { row, value, unit, limit: None, must, note: String::new() }
    }

    pub(super) fn limit(self, limit: f64) -> Line {
        Line { limit: Some(limit), ..self }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Line {
        Line { note: note.into(), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0.0).map(|limit| self.value / limit)
    }

    /// Whether the requirement is met; `None` if there is no limit to hold the value against.
    pub(super) fn ok(&self) -> Option<bool> {
        let against = |met: &dyn Fn(f64) -> bool| self.limit.map(|_| self.ratio().is_some_and(met));
        match self.must {
            Must::AtLeast(least) => Some(self.value >= least),
            Must::AtMost(most) => Some(self.value <= most),
            Must::OfLimit(part) => against(&|ratio| ratio >= part),
            Must::UpTo(times) => against(&|ratio| ratio <= times),
        }
    }

    fn must(&self) -> String {
        match self.must {
            Must::AtLeast(least) => format!(">= {}", number(least)),
            Must::AtMost(most) => format!("<= {}", number(most)),
            Must::OfLimit(part) => format!(">= {part} x limit"),
            Must::UpTo(1.0) => "<= limit".to_owned(),
            Must::UpTo(times) => format!("<= {times} x limit"),
        }
    }

    /// A JSON object and a line's end.
    pub(super) fn json(&self) -> String {
        let object = json!({
            "row": self.row, "value": self.value, "unit": self.unit, "limit": self.limit, "ratio": self.ratio(),
            "must": self.must(), "ok": self.ok(), "note": self.note,
        });
        format!("{object}\n")
    }
}

/// The table for people, with these names above values and limits.
pub(super) fn table(lines: &[Line], [value, limit]: [&str; 2]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ =
        writeln!(out, "{:<21} {value:>12} {:<16} {limit:>12} {:>7}  {:<14} ", "row", "unit", "ratio", "must");
    for line in lines {
        let limit = line.limit.map_or_else(String::new, number);
        let ratio = line.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let verdict = match line.ok() {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        let text = format!(
            "{:<21} {:>12} {:<16} {limit:>12} {ratio:>7}  {:<14} {verdict:<6}  {}",
            line.row,
            number(line.value),
            line.unit,
            line.must(),
            line.note
        );
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

/// Fails if a requirement is missed, unless sizes were so small (`quick`) that figures mean nothing.
pub(super) fn met(lines: &[Line], quick: bool) -> Result<(), Failed> {
    let missed = lines.iter().filter(|line| line.ok() == Some(false)).count();
    if missed > 0 && !quick {
        return Err(Failed::because(format!("{missed} of {} requirements are missed", lines.len())));
    }
    Ok(())
}

/// A number as people read it: thousands grouped, and decimals only where they matter.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 {
        return if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        vec![
            Line::new("append", 1_234_567.8, "records/s", Must::OfLimit(0.5)).limit(2_000_000.0),
            Line::new("sync-fdatasyncs", 12.25, "records/sync", Must::AtLeast(16.0)),
            Line::new("memory", 249.5, "B/queue", Must::AtMost(250.0)).note("1,000,000 queues"),
            Line::new("open-crash", 4.5, "s", Must::UpTo(1.0)).limit(3.5).note("64 MB dispatched again"),
        ]
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        insta::assert_snapshot!(table(&lines(), ["value", "limit"]));
        insta::assert_snapshot!(lines().iter().map(Line::json).collect::<String>());
    }

    #[test]
    fn a_requirement_is_met_or_not() {
        let ok: Vec<Option<bool>> = lines().iter().map(Line::ok).collect();
        assert_eq!(ok, [true, false, true, false].map(Some));
        assert!(
            met(&lines()[..1], false).is_ok() && met(&lines(), false).is_err() && met(&lines(), true).is_ok()
        );
        let unlimited = Line::new("append", 1.0, "records/s", Must::OfLimit(0.5));
        assert_eq!(unlimited.ok(), None);
        assert_eq!(unlimited.limit(0.0).ok(), Some(false), "a limit of nothing proves nothing");
    }

    #[test]
    fn numbers_are_grouped() {
        let shown = [0.0, 3.0, 2.5, 99.999, 100.4, 1000.0, 1234567.0, -1234.0].map(number);
        assert_eq!(shown, ["0", "3", "2.50", "100.00", "100", "1,000", "1,234,567", "-1,234"]);
    }
}
