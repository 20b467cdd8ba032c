//! The pages of `docs/` say what is: every YAML file they show whole passes `tidemill check`, and the configuration they
//! show with every key at its default has every key, at its default.
//!
//! A fenced `yaml` block is a whole file when the line above it is `<!-- complete file -->`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidemill_hub::config::{self, Config, Flags, Source};

/// Stands above a block that is a whole file.
const MARK: &str = "<!-- complete file -->";
const FENCE: &str = "```";

/// A block of YAML on a page.
struct Block {
    /// Line of the page that its first line is.
    line: usize,
    complete: bool,
    text: String,
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut above = "";
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(language) = line.strip_prefix(FENCE) {
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != FENCE);
            let text: String = inside.flat_map(|line| [line, "\n"]).collect();
            if language == "yaml" {
                found.push(Block { line: at + 2, complete: above == MARK, text });
            }
        }
        above = line;
    }
    found
}

/// Writes the whole files of a page into `dir`, each under the page's name and its line.
fn write_complete(name: &str, dir: &Path) -> Vec<PathBuf> {
    let page = page(name);
    let complete: Vec<Block> = blocks(&page).into_iter().filter(|block| block.complete).collect();
    assert_eq!(complete.len(), page.matches(MARK).count(), "{name}: a mark without a block of YAML below it");
    let write = |block: Block| {
        let path = dir.join(format!("{name}-line-{}.yaml", block.line));
        std::fs::write(&path, block.text).unwrap();
        path
    };
    complete.into_iter().map(write).collect()
}

#[test]
fn every_whole_file_passes_check() {
    for (name, at_least) in [("configuration.md", 1), ("access.md", 1), ("rules.md", 1), ("connectors.md", 5)]
    {
        let dir = tempfile::tempdir().unwrap();
        let files = write_complete(name, dir.path());
        // That of access.md, which is read.
        std::fs::write(dir.path().join("passwords"), "# nobody yet\n").unwrap();
        assert!(files.len() >= at_least, "{name}: {} whole files", files.len());
        let checked = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .current_dir(dir.path())
            .arg("check")
            .args(&files)
            .output()
            .unwrap();
        let told =
            [checked.stdout, checked.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(checked.status.success(), "{name}:\n{told}");
    }
}

/// What a configuration says, but for rules and connections: each section with its values, one on a line.
fn settings(config: &Config) -> [(&'static str, String); 4] {
    [
        ("log", format!("{:#?}", config.store)),
        ("mqtt", format!("{:#?}", config.mqtt)),
        ("http", format!("{:#?}", config.http)),
        ("telemetry", format!("{:#?}", config.telemetry)),
    ]
}

#[test]
fn the_configuration_shows_every_key_at_its_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_complete("configuration.md", dir.path()).remove(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let load = |source: &Source| config::load(source).unwrap_or_else(|error| panic!("{}", error.render()));
    let flags = Flags { config: Some(file), ..Flags::default() };
    let shown = load(&Source { flags, ..Source::default() });
    let defaults = load(&Source::default());
    for ((section, shown), (_, default)) in settings(&shown).into_iter().zip(settings(&defaults)) {
        assert_eq!(shown, default, "`{section}` is not at its defaults");
        let below =
            text.split(&format!("\n{section}:\n")).nth(1).unwrap_or_else(|| panic!("no `{section}:`"));
        let below = below.split("\n\n").next().unwrap_or_default();
        for key in fields(&default) {
            // Three settings of the store stand outside of `log`.
            let (within, line) = match key {
                "dir" => (text.as_str(), "data_dir: ".to_owned()),
                "flush" => (text.as_str(), "flush: ".to_owned()),
                "streams" => (text.as_str(), "streams: ".to_owned()),
                key => (below, format!("  {key}: ")),
            };
            assert!(within.lines().any(|given| given.starts_with(&line)), "`{section}.{key}` is missing");
        }
    }
}

/// The names of a struct's fields, as its pretty `Debug` writes them: four spaces, the name, a colon.
fn fields(debug: &str) -> impl Iterator<Item = &str> {
    let own =
        debug.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
    own.filter_map(|line| line.split_once(": ").map(|(name, _)| name))
}

#[test]
fn blocks_are_told_apart() {
    let page = format!(
        "a\n{FENCE}yaml\nx: 1\n{FENCE}\n{MARK}\n{FENCE}yaml\ny: 2\n\nz: 3\n{FENCE}\n{FENCE}text\nyaml\n{FENCE}\n"
    );
    let found: Vec<(usize, bool, String)> =
        blocks(&page).into_iter().map(|block| (block.line, block.complete, block.text)).collect();
    assert_eq!(found, [(3, false, "x: 1\n".to_owned()), (7, true, "y: 2\n\nz: 3\n".to_owned())]);
}
