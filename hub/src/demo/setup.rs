//! The configuration of the demo's hub: everything on free loopback ports.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::{self, Config, ConfigError, Flags, Source};

/// The rules, in the language that users write.
const RULES: &str = include_str!("rules.yaml");

/// The hub's configuration: data in `dir`, events to `function` and into the file `archive`.
pub(super) fn config(dir: &Path, function: SocketAddr, archive: &Path) -> Result<Config, ConfigError> {
    let text = RULES
        .replace("@FUNCTION@", &function.to_string())
        .replace("@ARCHIVE@", &archive.display().to_string().replace('\\', "\\\\").replace('"', "\\\""));
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let flags = Flags {
        data_dir: Some(dir.to_owned()),
        mqtt: vec![any_port],
        http: Some(any_port),
        ..Flags::default()
    };
    config::load(&Source { flags, inline: Some(("demo.yaml".to_owned(), text)), ..Source::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_s_rules_are_good() {
        let function = SocketAddr::from(([127, 0, 0, 1], 20_000));
        let config = config(Path::new("/tmp/data"), function, Path::new("/tmp/a \"b\".jsonl"));
        let set = config.unwrap_or_else(|error| panic!("{}", error.render())).rules.set;
        assert_eq!((set.connections.len(), set.rules.len()), (2, 4));
    }
}
