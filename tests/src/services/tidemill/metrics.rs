//! [`Metrics`]: Prometheus text exposition format, read strictly.

use std::collections::{BTreeMap, HashSet};

/// A sample: its value for one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name, with `_total`, `_bucket` and the like.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads a scrape. An error names the line that is not as the format wants it.
    pub fn parse(text: &str) -> Result<Metrics, String> {
        let mut metrics = Metrics::default();
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let bad = |what: &str| format!("{what}: {line}");
            if let Some(comment) = line.strip_prefix('#') {
                if let Some(declared) = comment.strip_prefix(" TYPE ") {
                    let (name, kind) = declared.split_once(' ').ok_or_else(|| bad("TYPE without a type"))?;
                    if metrics.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                        return Err(bad("a second TYPE"));
                    }
                }
                continue;
            }
            let sample = sample(line).ok_or_else(|| bad("not a sample"))?;
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(bad("the same sample twice"));
            }
            if metrics.declared(&sample.name).is_none() {
                return Err(bad("a sample without a TYPE before it"));
            }
            metrics.samples.push(sample);
        }
        match text.is_empty() || text.ends_with('\n') {
            true => Ok(metrics),
            false => Err("the last line does not end".to_owned()),
        }
    }

    /// The sum of the samples of this name that have these labels (and possibly others); `None` if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        let mut found = self.samples.iter().filter(matches).peekable();
        found.peek()?;
        Some(found.map(|sample| sample.value).sum())
    }

    /// The samples of this name by the value of one of their labels.
    #[must_use]
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<&str, f64> {
        let mut values = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            let value = sample.labels.get(label).map_or("", String::as_str);
            *values.entry(value).or_default() += sample.value;
        }
        values
    }

    /// Names of all samples.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The declared type of the family that a sample belongs to.
    fn declared(&self, name: &str) -> Option<&str> {
        let suffixes = ["", "_bucket", "_sum", "_count"];
        let families = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
        families.into_iter().find_map(|family| self.types.get(family)).map(String::as_str)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, read_labels(labels.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
        return None;
    }
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `key="value",…` with `\\`, `\"` and `\n` in values.
fn read_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.insert(key.to_owned(), value);
        let rest = rest.get(end + 1..)?;
        text = if rest.is_empty() { rest } else { rest.strip_prefix(',')? };
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total What.\n# TYPE a_total counter\na_total{rule=\"x\",to=\"a\\\"b,c\"} 3\na_total{rule=\"y\"} 4\n\
                        # TYPE b gauge\nb -1.5\n";

    #[test]
    fn reads_and_sums() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("a_total", &[("rule", "x"), ("to", "a\"b,c")]), Some(3.0));
        assert_eq!(metrics.sum("a_total", &[("rule", "z")]), None);
        assert_eq!(metrics.sum("b", &[]), Some(-1.5));
        assert_eq!(metrics.by_label("a_total", "rule"), [("x", 3.0), ("y", 4.0)].into());
        assert_eq!(metrics.names(), ["a_total", "b"]);
    }

    #[test]
    fn refuses_what_prometheus_would_refuse() {
        for bad in
            ["a 1\n", "# TYPE a counter\na{ 1\n", "# TYPE a counter\na x\n", "# TYPE a counter\na 1\na 2\n"]
        {
            assert!(Metrics::parse(bad).is_err(), "{bad}");
        }
    }
}
