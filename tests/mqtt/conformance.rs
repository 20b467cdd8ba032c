//! `CONFORMANCE.md` says of every statement what proves it, and names only tests that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The statements of MQTT 5.0 (OASIS Standard of 7 March 2019, Appendix B): section, first and last number.
const V5: &[(&str, u32, u32)] = &[
    ("1.5.4", 1, 3),
    ("1.5.5", 1, 1),
    ("1.5.7", 1, 1),
    ("2.1.3", 1, 1),
    ("2.2.1", 2, 6),
    ("2.2.2", 1, 1),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 30),
    ("3.1.3", 1, 12),
    ("3.1.4", 1, 6),
    ("3.2.0", 1, 2),
    ("3.2.2", 1, 22),
    ("3.3.1", 1, 13),
    ("3.3.2", 1, 20),
    ("3.3.4", 1, 10),
    ("3.4.2", 1, 3),
    ("3.5.2", 1, 3),
    ("3.6.1", 1, 1),
    ("3.6.2", 1, 3),
    ("3.7.2", 1, 3),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 5),
    ("3.8.4", 1, 8),
    ("3.9.2", 1, 2),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.11.2", 1, 2),
    ("3.11.3", 1, 2),
    ("3.12.4", 1, 1),
    ("3.14.0", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.2", 1, 4),
    ("3.14.4", 1, 3),
    ("3.15.1", 1, 1),
    ("3.15.2", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2.0", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 5),
    ("4.3.3", 1, 13),
    ("4.4.0", 1, 2),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.0", 1, 1),
    ("4.7.1", 1, 2),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.2", 1, 6),
    ("4.9.0", 1, 3),
    ("4.12.0", 1, 7),
    ("4.12.1", 1, 2),
    ("4.13.1", 1, 1),
    ("4.13.2", 1, 1),
    ("6.0.0", 1, 4),
];

/// How many these are.
const V5_COUNT: usize = 251;

/// The statements of MQTT 3.1.1 (OASIS Standard of 29 October 2014, Appendix B).
const V311: &[(&str, u32, u32)] = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];

/// Statements of 5.0 that say what a client does, and leave a server nothing to do: those may be without a test.
const V5_CLIENT: &[&str] = &[
    "2.2.1-3", "3.1.2-20", "3.1.2-21", "3.1.2-30", "3.2.2-4", "3.2.2-5", "3.2.2-11", "3.2.2-14", "3.2.2-15",
    "3.2.2-17", "3.2.2-18", "3.2.2-21", "3.3.2-9", "3.3.2-10", "3.3.4-6", "3.3.4-7", "3.3.4-8", "4.5.0-2",
    "4.12.0-3", "4.12.0-7", "4.12.1-1", "6.0.0-3",
];

/// The same of 3.1.1, and 7.0.0-1, which binds servers that connect to other servers.
const V311_CLIENT: &[&str] = &[
    "2.3.1-2", "2.3.1-3", "3.1.2-23", "3.1.3-7", "3.14.4-1", "3.14.4-2", "4.5.0-2", "6.0.0-3", "7.0.0-1",
    "7.1.2-1",
];

/// The folder of this test.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mqtt")
}

fn numbers(statements: &[(&str, u32, u32)]) -> BTreeSet<String> {
    let all = statements.iter();
    all.flat_map(|(section, first, last)| (*first..=*last).map(move |n| format!("{section}-{n}"))).collect()
}

/// The rows of the table below a heading: statement, and what the last column says.
fn rows(document: &str, heading: &str) -> BTreeMap<String, String> {
    let from = document.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let section = &document[from + heading.len() + 2..];
    let end = section.find("\n## ").unwrap_or(section.len());
    let mut rows = BTreeMap::new();
    for line in section[..end].lines() {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let Some(number) = cells.next().and_then(|cell| cell.strip_prefix("MQTT-")) else { continue };
        let last = cells.next_back().unwrap_or_default().to_owned();
        assert!(rows.insert(number.to_owned(), last).is_none(), "{heading}: {number} has two rows");
    }
    rows
}

/// `module::function` of all tests of this binary.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder()).expect("the folder of this test") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let module = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a source file");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line == "#[tokio::test]" || line == "#[test]" {
                let function = lines.next().and_then(|line| line.split_once("fn ")).expect("a function").1;
                found.insert(format!("{module}::{}", function.split('(').next().unwrap_or_default()));
            }
        }
    }
    found
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_statement_has_its_test() {
    let document = fs::read_to_string(folder().join("CONFORMANCE.md")).expect("the document");
    let tests = tests();
    assert!(tests.len() > 100, "the tests are found: {tests:?}");
    assert_eq!(numbers(V5).len(), V5_COUNT);
    for (version, statements, client_only) in [("MQTT 5.0", V5, V5_CLIENT), ("MQTT 3.1.1", V311, V311_CLIENT)]
    {
        let all = numbers(statements);
        let client_only: BTreeSet<String> = client_only.iter().map(|&number| number.to_owned()).collect();
        assert!(client_only.is_subset(&all), "{version}: a number that does not exist");
        let server = rows(&document, &format!("## {version}"));
        let client = rows(&document, &format!("## {version}: statements that bind clients only"));
        let wanted: Vec<&String> = all.difference(&client_only).collect();
        assert_eq!(server.keys().collect::<Vec<_>>(), wanted, "{version}: statements with a row");
        assert_eq!(client.keys().collect::<Vec<_>>(), client_only.iter().collect::<Vec<_>>());
        for (number, cell) in &server {
            assert!(quoted(cell).next().is_some(), "{version}: {number} has no test");
        }
        for (number, cell) in server.iter().chain(&client) {
            for test in quoted(cell) {
                assert!(tests.contains(test), "{version}: {number} names `{test}`, which does not exist");
            }
        }
    }
}
