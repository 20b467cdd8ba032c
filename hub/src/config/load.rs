//! [`load`]: the file, the files it includes and the flags, into one [`Config`] that was found good.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidemill_connectors::Connections;
use tidemill_rules::yaml::{self, Node};
use tidemill_rules::{Diagnostic, RuleSet};

use super::access;
use super::flags::{Flags, flag_diagnostic};
use super::listen::{self, Place};
use super::listeners::{self, Found};
use super::sense::{self, at};
use super::settings::{HttpSettings, Settings, Telemetry, Top};
use super::streams;
use crate::mqtt;

/// Largest configuration or rule file in bytes; a larger one is surely not what was meant.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Everything a hub needs to know, checked.
pub struct Config {
    /// The store.
    pub store: tidemill_store::Options,
    /// The broker.
    pub mqtt: mqtt::Options,
    /// Who may connect, and who may do what.
    pub access: mqtt::access::settings::Settings,
    /// The HTTP API.
    pub http: HttpSettings,
    /// Logs.
    pub telemetry: Telemetry,
    /// Rules and where they send.
    pub rules: Rules,
    /// What can be, and will hardly be meant: a certificate that has expired.
    pub warnings: Vec<Diagnostic>,
}

/// A rule set whose connections and targets were found good.
pub struct Rules {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// Their destinations.
    pub connections: Connections,
}

/// What to load: a file or a text in memory, and the flags.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The flags; their `config` names the file.
    pub flags: Flags,
    /// What stands before the file's name on the command line, if it is not `--config`.
    pub named_by: Option<&'static str>,
    /// A configuration that stands for the file (name and text): the demo's.
    pub inline: Option<(String, String)>,
}

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigError(pub Vec<Diagnostic>);

impl fmt::Display for ConfigError {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Every problem with the lines around it, for people.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.iter().map(|diagnostic| diagnostic.render().trim_end().to_owned() + "\n").collect()
    }
}

/// Reads and checks everything. Opens nothing but files to read.
pub fn load(source: &Source) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let flags = &source.flags;
    let main = match (&source.inline, &flags.config) {
        (Some((name, text)), _) => parse(name.clone(), text.clone(), &mut problems),
        (None, Some(path)) => read_flag(source.named_by.unwrap_or("--config"), path, &mut problems),
        (None, None) => None,
    };
    let settings = settings(main.as_ref(), &mut problems);
    let base = flags.config.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let mut documents = Vec::new();
    if let Some(main) = main.as_ref().filter(|main| main.as_map().is_some()) {
        documents.push(main.clone());
        documents.extend(included(main, base, &mut problems));
    }
    documents.extend(flags.rules.iter().filter_map(|path| read_flag("--rules", path, &mut problems)));
    let rules = rules(&documents, &mut problems);
    let (mut mqtt, mut http) = (settings.mqtt, settings.http);
    let mut access = main.as_ref().map(|main| access::read(main, &mut problems)).unwrap_or_default();
    problems.extend(apply_listen(flags, main.as_ref(), &mut mqtt, &mut http, &access));
    if let Some(main) = &main {
        problems.extend(access::unknown(main, &mqtt));
    }
    access::apply(&mut access, &mqtt);
    let mqtt_node = main.as_ref().and_then(|main| main.get("mqtt"));
    let found = mqtt_node.map_or_else(Found::default, |node| listeners::check(node, &mqtt, &access));
    problems.extend(found.problems);
    let mut warnings = found.warnings;
    if let (Some(main), Some(idle)) = (&main, mqtt.idle()) {
        warnings.push(at(main, "mqtt", idle.key).diagnostic(idle.to_string()));
    }
    let Top { data_dir, flush, .. } = settings.top;
    problems.extend(sense::no_dir(flags, main.as_ref(), data_dir.as_deref()));
    let dir = flags.data_dir.clone().or(data_dir).unwrap_or_else(|| "tidemill-data".into());
    let flush = flags.flush.or(flush).map(Into::into).unwrap_or_default();
    let mut store = settings.log.options(&dir, flush);
    if let Some(main) = &main {
        store.streams = streams::read(main, &store, &mut problems);
        problems.extend(streams::useless(
            at(main, "log", "retention"),
            "`log.retention`",
            &settings.log.retention,
        ));
        problems.extend(sense::useless(main, &settings.log, &http, &settings.telemetry));
        problems.extend(sense::mismatch(main, &mqtt, &store));
    }
    match rules {
        Some(rules) if problems.is_empty() => {
            Ok(Config { store, mqtt, access, http, telemetry: settings.telemetry, rules, warnings })
        }
        _ => Err(ConfigError(problems)),
    }
}

/// The plain settings of the file; the defaults where there are none or they are wrong.
fn settings(main: Option<&Node>, problems: &mut Vec<Diagnostic>) -> Settings {
    let Some(main) = main else { return Settings::default() };
    if main.as_map().is_none() {
        // An empty file is one with everything left out.
        if !main.is_null() {
            let message = "a configuration is a map of keys, such as `data_dir: ./tidemill-data`";
            problems.push(main.diagnostic(message));
        }
        return Settings::default();
    }
    Settings {
        top: decode(main, problems),
        log: section(main, "log", problems),
        mqtt: section(main, "mqtt", problems),
        http: section(main, "http", problems),
        telemetry: section(main, "telemetry", problems),
    }
}

/// One of the file's sections; its defaults if it is not there.
fn section<T: DeserializeOwned + Default>(main: &Node, key: &str, problems: &mut Vec<Diagnostic>) -> T {
    main.get(key).map(|section| decode(section, problems)).unwrap_or_default()
}

/// Decodes a map. An entry that cannot be is reported and left out, so that every other one is looked at as well.
pub(super) fn decode<T: DeserializeOwned + Default>(map: &Node, problems: &mut Vec<Diagnostic>) -> T {
    let mut map = map.clone();
    loop {
        let errors = match map.decode() {
            Ok(decoded) => return decoded,
            Err(errors) => errors,
        };
        let bad = errors.first().and_then(|error| entry_of(&map, error)).map(str::to_owned);
        problems.extend(errors.into_iter().map(with_example).map(|error| named(&map, error)));
        match bad {
            Some(key) => map = map.without(&[&key]),
            None => return T::default(),
        }
    }
}

/// The key of the entry that a problem is in: the last one that begins before it.
fn entry_of<'a>(map: &'a Node, problem: &Diagnostic) -> Option<&'a str> {
    let place = (problem.line, problem.column);
    let mut keys = map.as_map()?.iter().map(|(key, _)| key);
    keys.rfind(|key| (key.line(), key.column()) <= place)?.as_str()
}

/// A problem of a value says whose it is: logs show no line around it.
fn named(map: &Node, problem: Diagnostic) -> Diagnostic {
    let Some(key) = entry_of(map, &problem) else { return problem };
    let is_its = |value: &Node| (value.line(), value.column()) == (problem.line, problem.column);
    match map.get(key).is_some_and(is_its) {
        true => Diagnostic { message: format!("`{key}`: {}", problem.message), ..problem },
        false => problem,
    }
}

/// The standard library says of an address that it is none, and neither which one nor how one is written.
fn with_example(mut problem: Diagnostic) -> Diagnostic {
    if problem.message != "invalid socket address syntax" {
        return problem;
    }
    let line = problem.source.text.lines().nth(problem.line - 1).unwrap_or_default();
    let value: String = line.chars().skip(problem.column - 1).take(problem.length).collect();
    let value = value.trim_matches(['"', '\'']);
    problem.message = format!("`{value}` is no address");
    problem.with_hint("write an IP address and a port, as in `127.0.0.1:1883`")
}

/// Loads the rules and checks what they connect to; `None` if anything is wrong.
fn rules(documents: &[Node], problems: &mut Vec<Diagnostic>) -> Option<Rules> {
    let set = tidemill_rules::load(documents).map_err(|errors| problems.extend(errors)).ok()?;
    let connections = Connections::check(&set).map_err(|errors| problems.extend(errors)).ok()?;
    Some(Rules { set: Arc::new(set), connections })
}

/// The documents of `include: [files]`, which are relative to the file that includes them.
fn included(main: &Node, base: &Path, problems: &mut Vec<Diagnostic>) -> Vec<Node> {
    let Some(include) = main.get("include") else { return Vec::new() };
    let Some(entries) = include.as_seq() else {
        problems.push(include.diagnostic("`include` is a list of files, such as `[rules.yaml]`"));
        return Vec::new();
    };
    let mut documents = Vec::new();
    for entry in entries {
        let Some(name) = entry.as_str() else {
            problems.push(entry.diagnostic("an included file is named by its path, a string"));
            continue;
        };
        match read(&base.join(name)) {
            Ok((name, text)) => documents.extend(parse(name, text, problems)),
            Err(error) => {
                let message = format!("cannot read included file `{name}`: {error}");
                let hint = "paths are relative to the file that includes them";
                problems.push(entry.diagnostic(message).with_hint(hint));
            }
        }
    }
    documents
}

/// Puts the addresses of flags in the place of the file's, and refuses what should not be open.
fn apply_listen(
    flags: &Flags,
    main: Option<&Node>,
    mqtt: &mut mqtt::Options,
    http: &mut HttpSettings,
    access: &mqtt::access::settings::Settings,
) -> Vec<Diagnostic> {
    let place = |section, flagged: bool, flag: &'static str| match main {
        Some(main) if !flagged && main.get(section).is_some() => Place::File(at(main, section, "listen")),
        _ => Place::Flag(flag),
    };
    if !flags.mqtt.is_empty() {
        mqtt.listen.clone_from(&flags.mqtt);
        mqtt.listeners.clear();
    }
    let short = main.and_then(|main| main.get("mqtt")).and_then(|mqtt| mqtt.get("listen"));
    if !mqtt.listeners.is_empty() && short.is_none() {
        // The default is for those who name no address at all.
        mqtt.listen.clear();
    }
    if let Some(address) = flags.http {
        http.listen = address;
    }
    mqtt.allow_anonymous |= flags.allow_anonymous;
    http.allow_anonymous |= flags.allow_anonymous;
    let mqtt_place = place("mqtt", !flags.mqtt.is_empty(), "--mqtt");
    let http_place = place("http", flags.http.is_some(), "--http");
    let asked = !access.authentication.is_empty();
    let mut problems = listen::check("mqtt", &mqtt.listen, mqtt.allow_anonymous || asked, &mqtt_place);
    problems.extend(listen::check("http", &[http.listen], http.allow_anonymous, &http_place));
    for (at, address) in mqtt.listen.iter().enumerate() {
        let before = mqtt.listen.iter().take(at).find(|before| mqtt::share_port(**before, *address));
        problems.extend(
            before.map(|before| listen::taken("mqtt", *address, &format!("`{before}`"), &mqtt_place)),
        );
    }
    let listeners = mqtt.all_listeners();
    let other = listeners.iter().find(|listener| mqtt::share_port(listener.address, http.listen));
    problems.extend(other.map(|other| {
        listen::taken("http", http.listen, &format!("MQTT listener `{}`", other.name), &http_place)
    }));
    problems
}

fn parse(name: String, text: String, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    yaml::parse(Arc::new(yaml::Source { name, text })).map_err(|errors| problems.extend(errors)).ok()
}

/// Reads and parses a file that a flag names.
fn read_flag(flag: &str, path: &Path, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    match read(path) {
        Ok((name, text)) => parse(name, text, problems),
        Err(error) => {
            let value = path.display().to_string();
            let message = format!("cannot read `{value}`: {error}");
            problems.push(flag_diagnostic(flag, &value, message, None));
            None
        }
    }
}

/// A file's name for people, and its text.
fn read(path: &Path) -> Result<(String, String), String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, and configuration files have at most {FILE_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok((path.display().to_string(), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::inline::{inline, problems};

    #[test]
    fn without_a_file_everything_is_on_loopback() {
        let config = load(&Source::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.mqtt.listen, ["127.0.0.1:1883".parse().unwrap()]);
        assert_eq!(config.http.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.store.dir, Path::new("tidemill-data"));
        assert_eq!(config.rules.set.rules.len(), 0);
    }

    #[test]
    fn settings_have_units_and_flags_win() {
        let text = "data_dir: /var/lib/tidemill\nflush: async\nlog: { segment_bytes: 64MiB, checkpoint_interval: 50ms, \
                    shards: 4, retention: { time: 7d, bytes: 10GB }, queue_ttl: 1h }\n\
                    http: { listen: \"127.0.0.1:9090\" }\ntelemetry: { log: json, level: warn }\n";
        let flags = Flags { http: Some("127.0.0.1:7070".parse().unwrap()), ..Flags::default() };
        let config = inline(text, flags).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.store.dir, Path::new("/var/lib/tidemill"));
        assert_eq!(
            (config.store.segment_bytes, config.store.flush),
            (64 << 20, tidemill_store::Flush::Async)
        );
        assert_eq!(config.http.listen, "127.0.0.1:7070".parse().unwrap());
        let kept = config.store.retention;
        let week = std::time::Duration::from_secs(7 * 24 * 3600);
        assert_eq!((config.store.shards, kept.time, kept.bytes), (4, Some(week), Some(10_000_000_000)));
        assert_eq!(config.store.queue_ttl.as_secs(), 3600);
    }

    #[test]
    fn an_empty_file_is_good() {
        assert_eq!(problems(""), "");
        assert_eq!(problems("# nothing\n"), "");
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let text = "flsh: sync\nhttp:\n  listen: 0.0.0.0:8080\ninclude: [missing.yaml, 7]\n";
        insta::assert_snapshot!(problems(text));
    }

    #[test]
    fn each_key_of_each_section_is_looked_at() {
        let text = "rulez: []\nmqtt: { lisen: [], listen: [\"localhost\"], inflight_max: many }\n\
                    http: { listen: localhost:80, tails_max: 0, connections_max: 0 }\n\
                    log: { segment_bytes: 10, checkpoint_interval: 0s, async_flush_interval: 0s }\n\
                    data_dir: \"\"\nflush: often\ntelemetry: { log: xml, level: loud }\n";
        insta::assert_snapshot!(problems(text));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_shown_as_it_was_named() {
        let flags =
            Flags { config: Some("/none/such.yaml".into()), data_dir: Some("".into()), ..Flags::default() };
        let error = load(&Source { flags, named_by: Some("tidemill check"), inline: None }).err();
        insta::assert_snapshot!(error.map(|error| error.render()).unwrap_or_default());
    }

    #[test]
    fn listening_beyond_loopback_has_to_be_asked_for() {
        insta::assert_snapshot!(problems("mqtt:\n  listen: [\"0.0.0.0:1883\"]\n"));
        let allowed = "mqtt: { listen: [\"0.0.0.0:1883\"], allow_anonymous: true }\n";
        assert_eq!(problems(allowed), "");
        let flags = Flags { mqtt: vec!["0.0.0.0:1883".parse().unwrap()], ..Flags::default() };
        let error =
            load(&Source { flags: flags.clone(), ..Source::default() }).err().map(|error| error.render());
        insta::assert_snapshot!(error.unwrap_or_default());
        let flags = Flags { allow_anonymous: true, ..flags };
        assert!(load(&Source { flags, ..Source::default() }).is_ok());
    }

    #[test]
    fn names_that_anybody_can_claim_are_no_authentication() {
        let told = |listener: &str, more: &str| {
            problems(&format!(
                "mqtt: {{ listeners: [ {{ name: far, proxy_protocol: true, {listener} }} ] }}\n\
                 access: {{ authentication: [ {{ name: plates, certificates: }} {more} ] }}\n"
            ))
        };
        let far = "address: \"10.0.0.1:1884\"";
        let refused = told(far, "");
        assert!(refused.contains("come from whoever reaches 10.0.0.1:1884"), "{refused}");
        let passwords = ", { name: devices, passwords: { file: /dev/null } }";
        assert_eq!(told(far, passwords), "");
        assert_ne!(told(&format!("{far}, authentication: [plates]"), passwords), "");
        assert_eq!(told(&format!("{far}, anonymous: true"), ""), "");
        assert_eq!(told("address: \"127.0.0.1:1884\"", ""), "");
    }

    #[test]
    fn listeners_take_the_place_of_the_default_address_and_flags_that_of_both() {
        let text = "mqtt: { listeners: [ { name: devices, address: \"127.0.0.1:1\" } ] }\n";
        let addresses = |text: &str, flags| -> Vec<String> {
            let config = inline(text, flags).unwrap_or_else(|error| panic!("{}", error.render()));
            let all = config.mqtt.all_listeners();
            all.iter().map(|listener| format!("{} {}", listener.name, listener.address)).collect()
        };
        assert_eq!(addresses(text, Flags::default()), ["devices 127.0.0.1:1"]);
        let both = text.replace("listeners:", "listen: [\"127.0.0.1:2\"], listeners:");
        assert_eq!(addresses(&both, Flags::default()), ["127.0.0.1:2 127.0.0.1:2", "devices 127.0.0.1:1"]);
        let flags = Flags { mqtt: vec!["127.0.0.1:3".parse().unwrap()], ..Flags::default() };
        assert_eq!(addresses(&both, flags), ["127.0.0.1:3 127.0.0.1:3"]);
    }

    #[test]
    fn no_address_is_listened_on_twice() {
        let of_http = "http: { listen: \"127.0.0.1:7\" }\n";
        for (text, place, words) in [
            (
                "mqtt: { listen: [\"127.0.0.1:7\", \"127.0.0.1:7\"] }\n",
                "tidemill.yaml:1:17",
                "`127.0.0.1:7` has its port",
            ),
            (
                "mqtt: { listen: [\"127.0.0.1:7\", \"0.0.0.0:7\"], allow_anonymous: true }\n",
                "tidemill.yaml:1:17",
                "`127.0.0.1:7` has its port",
            ),
            (
                &format!("{of_http}mqtt: {{ listen: [\"127.0.0.1:7\"] }}\n"),
                "tidemill.yaml:1:17",
                "`127.0.0.1:7` has its port",
            ),
            (
                &format!("{of_http}mqtt: {{ listeners: [ {{ name: near, address: \"127.0.0.1:7\" }} ] }}\n"),
                "tidemill.yaml:1:17",
                "MQTT listener `near` has its port",
            ),
            ("mqtt: { listen: [\"127.0.0.1:8080\"] }\n", "command line:1:8", "has its port"),
        ] {
            let told = problems(text);
            assert!(told.contains(place) && told.contains(words), "{text}{told}");
            assert!(told.contains("help: give one of them another port"), "{told}");
            assert_eq!(told.matches('×').count(), 1, "{told}");
        }
        for good in
            ["127.0.0.1:0\", \"127.0.0.1:0", "127.0.0.1:7\", \"127.0.0.2:7", "127.0.0.1:7\", \"[::1]:7"]
        {
            assert_eq!(problems(&format!("mqtt: {{ listen: [\"{good}\"] }}\n")), "");
        }
        let local = "127.0.0.1:7".parse().unwrap();
        let flags = Flags { mqtt: vec![local], http: Some(local), ..Flags::default() };
        let error = load(&Source { flags, ..Source::default() }).err().map(|error| error.render());
        assert!(error.is_some_and(|told| told.contains("--http 127.0.0.1:7")));
    }

    #[test]
    fn every_listener_is_looked_at() {
        insta::assert_snapshot!(problems(
            "mqtt:\n  listeners:\n    - { name: near, address: \"127.0.0.1:1\" }\n    \
             - { name: far, address: \"0.0.0.0:2\" }\n    - { name: near, address: \"127.0.0.1:3\" }\n"
        ));
        insta::assert_snapshot!(problems("mqtt: { listeners: [ { name: a, adress: \"127.0.0.1:1\" } ] }\n"));
    }

    #[test]
    fn origins_are_as_browsers_say_them() {
        let told = |origin: &str| {
            problems(&format!(
                "mqtt: {{ listeners: [ {{ name: web, address: \"127.0.0.1:1\", protocol: websocket,\n  \
                 origins: [\"https://a.example.com\", \"{origin}\"] }} ] }}\n"
            ))
        };
        for good in ["http://localhost:8000", "https://[::1]:8443", "null"] {
            assert_eq!(told(good), "");
        }
        for (bad, right) in [
            ("map.example.com", "write it as `https://map.example.com`"),
            ("http://map.example.com/", "write it as `http://map.example.com`"),
            ("https://map.example.com:443", "write it as `https://map.example.com`"),
            ("", "write it as `https://console.example.com`"),
            ("https://*.example.com", "write out each one"),
        ] {
            let told = told(bad);
            assert!(told.contains(right) && told.contains("tidemill.yaml:2:12"), "{told}");
        }
    }

    #[test]
    fn included_files_are_found_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "main.yaml",
            "include: [more.yaml]\nrules:\n  - name: a\n    from: { mqtt: [\"t\"] }\n    to: [ { out: } ]\n",
        );
        write("more.yaml", "connections:\n  out: { file: { path: out.jsonl } }\n");
        let flags = Flags { config: Some(dir.path().join("main.yaml")), ..Flags::default() };
        let config =
            load(&Source { flags, ..Source::default() }).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!((config.rules.set.connections.len(), config.rules.set.rules.len()), (1, 1));
    }
}
