//! `access:`: sources of authentication, groups, and rules about topics.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidemill_rules::Diagnostic;
use tidemill_rules::yaml::Node;

use super::load::decode;
use crate::mqtt;
use crate::mqtt::access::acl::{Acl, Action, Effect, Rule, Who};
use crate::mqtt::access::jwks;
use crate::mqtt::access::network::Network;
use crate::mqtt::access::passwords::{PasswordFileError, Users};
use crate::mqtt::access::pattern::Pattern;
use crate::mqtt::access::settings::{Policy, Settings, SourceKind, SourceSettings};

/// What a source looks like, for those who wrote something else.
const SOURCE_EXAMPLE: &str = "as in `- { name: devices, passwords: { file: /etc/tidemill/passwords } }`";
/// What a rule looks like.
const RULE_EXAMPLE: &str = "as in `- { allow: [publish, subscribe], topics: [\"devices/{client}/#\"] }`";
/// The kinds of sources.
const KINDS: [&str; 4] = ["passwords", "jwt", "certificates", "http"];

/// The keys of `access:`, those with readers of their own only named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AccessSettings {
    default: Option<Verdict>,
    #[serde(rename = "authentication")]
    _authentication: IgnoredAny,
    #[serde(rename = "groups")]
    _groups: IgnoredAny,
    #[serde(rename = "rules")]
    _rules: IgnoredAny,
}

/// [`Effect`] as written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

/// The keys of a source.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SourceKeys {
    name: Option<String>,
    #[serde(rename = "passwords")]
    _passwords: IgnoredAny,
    #[serde(rename = "jwt")]
    _jwt: IgnoredAny,
    #[serde(rename = "certificates")]
    _certificates: IgnoredAny,
    #[serde(rename = "http")]
    _http: IgnoredAny,
}

/// The keys of `passwords:`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PasswordSettings {
    file: PathBuf,
}

/// The keys of a rule.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RuleSettings {
    #[serde(rename = "allow")]
    _allow: IgnoredAny,
    #[serde(rename = "deny")]
    _deny: IgnoredAny,
    topics: Vec<String>,
    users: Option<Vec<String>>,
    clients: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    listeners: Option<Vec<String>>,
    addresses: Option<Vec<String>>,
    anonymous: Option<bool>,
}

/// Says where keys have nothing after them. They would count as left out, which lets in, or allows, more than a list in
/// which nothing stands.
fn empty(node: &Node, keys: &[&str]) -> Vec<Diagnostic> {
    let nulls = keys.iter().filter_map(|key| Some((key, node.get(key).filter(|value| value.is_null())?)));
    let problem = |(key, value): (&&str, &Node)| {
        let problem = value.diagnostic(format!("`{key}` has no value"));
        problem.with_hint(format!("give it one, or leave `{key}` out"))
    };
    nulls.map(problem).collect()
}

/// What `access:` says. What is wrong is left out and told.
pub(super) fn read(main: &Node, problems: &mut Vec<Diagnostic>) -> Settings {
    let Some(section) = main.get("access") else { return Settings::default() };
    let before = problems.len();
    let keys: AccessSettings = decode(section, problems);
    let entries = |key, example: &str, problems: &mut Vec<Diagnostic>| {
        let Some(node) = section.get(key) else { return Vec::new() };
        let list = node.as_seq();
        if list.is_none() {
            problems.push(node.diagnostic(format!("`access.{key}` is a list")).with_hint(example));
        }
        list.unwrap_or_default().to_vec()
    };
    problems.extend(empty(section, &["default"]));
    let mut settings = Settings::default();
    for entry in entries("authentication", SOURCE_EXAMPLE, problems) {
        let source = source(&entry, problems);
        if let Some(source) = &source
            && settings.authentication.iter().any(|before| before.name == source.name)
        {
            let place = entry.get("name").unwrap_or(&entry);
            problems.push(place.diagnostic(format!("another source before is called `{}`", source.name)));
        }
        settings.authentication.extend(source);
    }
    settings.groups = groups(section, problems);
    let rules = entries("rules", RULE_EXAMPLE, problems);
    let rules: Vec<Rule> = rules.iter().filter_map(|entry| rule(entry, problems)).collect();
    let default = match keys.default {
        Some(Verdict::Allow) => Effect::Allow,
        _ => Effect::Deny,
    };
    let has_rules = section.get("rules").is_some() || keys.default.is_some();
    settings.acl = has_rules.then_some(Acl { rules, default });
    // What is wrong is left out, and says nothing about what is meant.
    if problems.len() == before {
        problems.extend(nobody_may(section, &settings));
    }
    settings
}

/// Rules with which nobody may do anything, whoever it is.
fn nobody_may(section: &Node, settings: &Settings) -> Option<Diagnostic> {
    let acl = settings.acl.as_ref()?;
    let has_topics = |source: &SourceSettings| {
        !matches!(source.kind, SourceKind::Passwords(_) | SourceKind::Certificates(_))
    };
    let none = acl.rules.is_empty()
        && acl.default == Effect::Deny
        && !settings.authentication.iter().any(has_topics);
    let problem = || section.diagnostic("without a rule nobody may publish or subscribe to anything");
    none.then(|| problem().with_hint("add `rules`, or say `default: allow`"))
}

/// Users by their group.
fn groups(section: &Node, problems: &mut Vec<Diagnostic>) -> Vec<(String, Vec<String>)> {
    let Some(node) = section.get("groups") else { return Vec::new() };
    let Some(entries) = node.as_map() else {
        let problem = node.diagnostic("`access.groups` is a map of groups to lists of users");
        problems.push(problem.with_hint("as in `{ operators: [alice, bob] }`"));
        return Vec::new();
    };
    let group = |(key, users): &(Node, Node)| {
        let users: Result<Vec<String>, _> = users.decode();
        let name = key.as_str().unwrap_or_default().to_owned();
        users.map(|users| (name, users)).map_err(|errors| problems.extend(errors)).ok()
    };
    entries.iter().filter_map(group).collect()
}

/// One source; `None` if it is none, which is told.
fn source(entry: &Node, problems: &mut Vec<Diagnostic>) -> Option<SourceSettings> {
    if entry.as_map().is_none() {
        problems.push(entry.diagnostic("a source of authentication is a map").with_hint(SOURCE_EXAMPLE));
        return None;
    }
    let before = problems.len();
    let keys: SourceKeys = decode(entry, problems);
    let name = keys.name.unwrap_or_default();
    if name.is_empty() {
        let problem = entry.diagnostic("this source has no `name`; listeners and metrics call it by one");
        problems.push(problem.with_hint(SOURCE_EXAMPLE));
    }
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| entry.get(kind).is_some()).collect();
    let [kind] = kinds[..] else {
        let hint = format!("it has one of `passwords`, `jwt`, `certificates` and `http`, {SOURCE_EXAMPLE}");
        problems.push(entry.diagnostic(format!("source `{name}` has no kind, or several")).with_hint(hint));
        return None;
    };
    let node = entry.get(kind).map(Node::or_empty_map)?;
    let kind = match kind {
        "passwords" => passwords(&node, &name, problems),
        "jwt" => jwt(&node, &name, problems),
        "certificates" => SourceKind::Certificates(decode(&node, problems)),
        _ => http(&node, &name, problems),
    };
    (problems.len() == before).then_some(SourceSettings { name, kind })
}

fn passwords(node: &Node, name: &str, problems: &mut Vec<Diagnostic>) -> SourceKind {
    let PasswordSettings { file } = decode(node, problems);
    if file.as_os_str().is_empty() {
        let problem = node.diagnostic(format!("source `{name}` names no `file`"));
        problems.push(problem.with_hint("write one with `tidemill passwd FILE USER`"));
    } else if let Err(error) = Users::read(&file) {
        let hint = match &error {
            PasswordFileError::File { .. } => {
                "write it with `tidemill passwd FILE USER`; its path is relative to the working directory"
            }
            _ => "mend that line, or take it out and give the user a password with `tidemill passwd`",
        };
        let place = node.get("file").unwrap_or(node);
        problems.push(place.diagnostic(format!("source `{name}`: {error}")).with_hint(hint));
    }
    SourceKind::Passwords(file)
}

fn jwt(node: &Node, name: &str, problems: &mut Vec<Diagnostic>) -> SourceKind {
    let settings: mqtt::access::jwt::JwtSettings = decode(node, problems);
    problems.extend(empty(node, &["client"]));
    let keys = &settings.keys;
    let given = [keys.file.is_some(), keys.url.is_some(), keys.secret.is_some()];
    let at = |key| node.get(key).unwrap_or(node);
    if given.into_iter().filter(|given| *given).count() != 1 {
        let problem =
            at("keys").diagnostic(format!("source `{name}` has no place to take keys from, or several"));
        problems.push(problem.with_hint("`keys` has one of `file`, `url` and `secret`"));
    }
    if let Some(url) = &keys.url {
        let place = at("keys").get("url").unwrap_or(node);
        problems.extend(not_a_url(place, url));
    }
    if settings.algorithms.is_empty() {
        let problem = at("algorithms").diagnostic(format!("source `{name}` takes no algorithm"));
        problems.push(problem.with_hint("leave it out for all that need no shared secret"));
    }
    if let Some(error) = keys.file.as_deref().and_then(|file| jwks::read(file).err()) {
        let place = at("keys").get("file").unwrap_or(node);
        let hint = "name a PEM file with a public key, or a JSON file with a JWK or a JWK set; its path is relative to the \
                    working directory";
        problems.push(place.diagnostic(format!("source `{name}`: {error}")).with_hint(hint));
    }
    let with_secret = settings.algorithms.iter().any(|algorithm| format!("{algorithm:?}").starts_with("HS"));
    if keys.secret.is_some() && !with_secret {
        let problem =
            at("keys").diagnostic(format!("source `{name}` has a secret, and takes no algorithm with one"));
        problems.push(problem.with_hint("say `algorithms: [HS256]`"));
    }
    if settings.user.is_empty() {
        problems.push(at("user").diagnostic(format!("source `{name}`: no claim is the user name")));
    }
    SourceKind::Jwt(Box::new(settings))
}

fn http(node: &Node, name: &str, problems: &mut Vec<Diagnostic>) -> SourceKind {
    let settings: mqtt::access::hook::HookSettings = decode(node, problems);
    let at = |key| node.get(key).unwrap_or(node);
    problems.extend(not_a_url(at("url"), &settings.url));
    for (key, zero) in [("timeout", settings.timeout.is_zero()), ("requests_max", settings.requests_max == 0)]
    {
        if zero {
            let problem =
                at(key).diagnostic(format!("source `{name}`: `{key}` is 0, with which nobody is let in"));
            problems.push(problem.with_hint("leave it out for the default"));
        }
    }
    SourceKind::Http(Box::new(settings))
}

fn not_a_url(place: &Node, url: &str) -> Option<Diagnostic> {
    let good = reqwest::Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
    let problem = || place.diagnostic(format!("`{url}` is no URL to ask"));
    (!good).then(|| problem().with_hint("as in `https://auth.example.com/mqtt`"))
}

/// One rule; `None` if it is none, which is told.
fn rule(entry: &Node, problems: &mut Vec<Diagnostic>) -> Option<Rule> {
    if entry.as_map().is_none() {
        problems.push(entry.diagnostic("a rule is a map").with_hint(RULE_EXAMPLE));
        return None;
    }
    let before = problems.len();
    let settings: RuleSettings = decode(entry, problems);
    problems.extend(empty(entry, &["users", "clients", "groups", "listeners", "addresses", "anonymous"]));
    let (effect, actions) = match (entry.get("allow"), entry.get("deny")) {
        (Some(actions), None) => (Effect::Allow, actions),
        (None, Some(actions)) => (Effect::Deny, actions),
        _ => {
            problems.push(entry.diagnostic("a rule has either `allow` or `deny`").with_hint(RULE_EXAMPLE));
            return None;
        }
    };
    let actions = actions_of(actions, problems);
    let at = |key| entry.get(key).unwrap_or(entry);
    if settings.topics.is_empty() {
        let problem = at("topics").diagnostic("this rule is about no topic");
        problems.push(problem.with_hint("`topics: [\"#\"]` is about all but those that begin with `$`"));
    }
    let mut topics = Vec::new();
    for node in at("topics").as_seq().unwrap_or_default() {
        let text = node.as_str().unwrap_or_default();
        match Pattern::parse(text) {
            Ok(pattern) => topics.push(pattern),
            Err(error) => problems.push(node.diagnostic(format!("topic filter `{text}`: {error}"))),
        }
    }
    let addresses = settings.addresses.map(|texts| {
        let nodes = at("addresses").as_seq().unwrap_or_default();
        let parse = |(text, node): (&String, &Node)| {
            let parsed = text.parse::<Network>();
            parsed.map_err(|what| problems.push(node.diagnostic(format!("`{text}` is {what}")))).ok()
        };
        texts.iter().zip(nodes).filter_map(parse).collect()
    });
    let RuleSettings { users, clients, groups, listeners, anonymous, .. } = settings;
    let who = Who { users, clients, groups, listeners, addresses, anonymous };
    let place = format!("{}:{}", entry.source().name, entry.line());
    (problems.len() == before).then_some(Rule { effect, actions, topics, who, place })
}

/// `all`, or a list of actions.
fn actions_of(node: &Node, problems: &mut Vec<Diagnostic>) -> Vec<Action> {
    const HINT: &str = "`all`, or a list of `publish`, `subscribe` and `retain`";
    let named = |node: &Node| Action::ALL.into_iter().find(|action| node.as_str() == Some(action.name()));
    let Some(items) = node.as_seq() else {
        if node.as_str() == Some("all") {
            return Action::ALL.to_vec();
        }
        problems.push(match (named(node), node.as_str()) {
            (Some(action), _) => {
                let action = action.name();
                let problem =
                    node.diagnostic(format!("`{action}` is one action, and a list of them is needed"));
                problem.with_hint(format!("put it in brackets: `[{action}]`"))
            }
            (None, Some(word)) => node.diagnostic(format!("`{word}` is no action")).with_hint(HINT),
            (None, None) => node.expected("a list of actions").with_hint(HINT),
        });
        return Vec::new();
    };
    if items.is_empty() {
        problems.push(node.diagnostic("a rule needs actions").with_hint(HINT));
    }
    let mut actions = Vec::new();
    for item in items {
        match (named(item), item.as_str()) {
            (Some(action), _) => actions.push(action),
            (None, Some(word)) => {
                problems.push(item.diagnostic(format!("`{word}` is no action")).with_hint(HINT))
            }
            (None, None) => problems.push(item.expected("an action").with_hint(HINT)),
        }
    }
    actions
}

/// Names of sources and listeners that there are not.
pub(super) fn unknown(main: &Node, mqtt: &mqtt::Options) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let of = |node: Option<&Node>, key: &str| -> Vec<Node> {
        node.and_then(|node| node.get(key)).and_then(Node::as_seq).unwrap_or_default().to_vec()
    };
    // A source that is wrong was told of; here it counts by its name.
    let sources = of(main.get("access"), "authentication");
    let named =
        |name: &str| sources.iter().any(|source| source.get("name").and_then(Node::as_str) == Some(name));
    for listener in of(main.get("mqtt"), "listeners") {
        problems.extend(empty(&listener, &["authentication", "anonymous"]));
        for node in of(Some(&listener), "authentication") {
            let name = node.as_str().unwrap_or_default();
            if !named(name) {
                let problem = node.diagnostic(format!("there is no source of authentication `{name}`"));
                problems.push(problem.with_hint("name one of `access.authentication`"));
            }
        }
    }
    let listeners = mqtt.all_listeners();
    for rule in of(main.get("access"), "rules") {
        for node in of(Some(&rule), "listeners") {
            let name = node.as_str().unwrap_or_default();
            if !listeners.iter().any(|listener| listener.name == name) {
                let problem = node.diagnostic(format!("there is no listener `{name}`"));
                problems.push(problem.with_hint(
                    "name one of `mqtt.listeners`; one of `mqtt.listen` is called by its address",
                ));
            }
        }
    }
    problems
}

/// Adds what listeners say.
pub(super) fn apply(access: &mut Settings, mqtt: &mqtt::Options) {
    access.anonymous = mqtt.allow_anonymous;
    let policies = mqtt.all_listeners().into_iter().map(|listener| {
        (listener.name, Policy { authentication: listener.authentication, anonymous: listener.anonymous })
    });
    access.listeners = policies.collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::config::inline::{inline, problems};

    #[test]
    fn what_is_written_is_what_holds() {
        let text = "mqtt: { listeners: [ { name: near, address: \"127.0.0.1:0\", authentication: [tokens], anonymous: true } ] }\n\
                    access:\n  authentication:\n    - { name: devices, passwords: { file: /dev/null } }\n    \
                    - { name: tokens, jwt: { keys: { secret: \"${KEY}\" }, algorithms: [HS256], issuers: [me] } }\n    \
                    - { name: plates, certificates: }\n    \
                    - { name: shop, http: { url: \"https://shop.example.com/mqtt\", headers: { authorization: \"Bearer ${T}\" } } }\n  \
                    groups: { ops: [alice] }\n  rules:\n    \
                    - { allow: all, topics: [\"#\", \"$SYS/#\"], groups: [ops], addresses: [\"10.0.0.0/8\"], listeners: [near] }\n    \
                    - { deny: [retain], topics: [\"a/{user}\"] }\n  default: allow\n";
        let access =
            inline(text, Flags::default()).unwrap_or_else(|error| panic!("{}", error.render())).access;
        let names: Vec<&str> = access.authentication.iter().map(|source| &*source.name).collect();
        assert_eq!(names, ["devices", "tokens", "plates", "shop"]);
        let acl = access.acl.unwrap();
        assert_eq!((acl.rules.len(), acl.default), (2, Effect::Allow));
        let places: Vec<&str> = acl.rules.iter().map(|rule| &*rule.place).collect();
        assert_eq!(places, ["tidemill.yaml:10", "tidemill.yaml:11"]);
        assert_eq!(acl.rules.last().map(|rule| &rule.actions[..]), Some(&[Action::Retain][..]));
        let [(near, policy)] = &access.listeners[..] else { panic!("{:?}", access.listeners) };
        assert_eq!((&**near, policy.anonymous), ("near", Some(true)));
        assert!(inline("", Flags::default()).is_ok_and(|config| config.access.acl.is_none()));
    }

    #[test]
    fn every_problem_of_access_has_its_place() {
        let text = "mqtt: { listeners: [ { name: near, address: \"127.0.0.1:0\", authentication: [nobody] } ] }\n\
                    access:\n  authenticaton: []\n  authentication:\n    - { passwords: { file: /dev/null } }\n    - { name: a }\n    \
                    - { name: b, passwords: {}, jwt: {} }\n    - { name: c, passwords: {} }\n    \
                    - { name: d, jwt: { keys: {}, algorithms: [none] } }\n    - { name: e, jwt: { keys: { secret: x } } }\n    \
                    - { name: f, http: { url: ftp://x, timeout: 0s } }\n    - nothing\n    \
                    - { name: g, certificates: { user: nickname } }\n    - { name: h, certificates: {} }\n    - { name: h, certificates: {} }\n  \
                    groups: { ops: alice }\n  rules:\n    - { allow: [read], topics: [\"a#\", \"{name}/x\"] }\n    \
                    - { topics: [a] }\n    - { deny: all }\n    - { allow: [], topics: [a], addresses: [here], listeners: [far] }\n    \
                    - { allow: all, topics: [a], user: x }\n  default: maybe\n";
        insta::assert_snapshot!(problems(text));
        assert!(problems("access: { default: deny }\n").contains("nobody may publish"));
        assert!(problems("access: { rules: {} }\n").contains("`access.rules` is a list"));
    }

    #[test]
    fn a_mistake_in_the_only_rule_is_one_problem() {
        for (actions, told, hint) in [
            ("publish", "`publish` is one action", "`[publish]`"),
            ("read", "`read` is no action", "`all`, or a list"),
            ("[read]", "`read` is no action", "`all`, or a list"),
            ("", "expected a list of actions, found", "`all`, or a list"),
            ("[[]]", "expected an action, found a list", "`all`, or a list"),
            ("[]", "a rule needs actions", "`all`, or a list"),
        ] {
            let told_all =
                problems(&format!("access:\n  rules:\n    - allow: {actions}\n      topics: [a]\n"));
            assert!(told_all.contains(told) && told_all.contains(hint), "{actions}: {told_all}");
            assert!(told_all.contains("tidemill.yaml:3:"), "{actions}: {told_all}");
            assert_eq!(told_all.matches('×').count(), 1, "{actions}: {told_all}");
        }
        let told =
            problems("access: { default: maybe, authentication: [ { name: a, http: { url: x } } ] }\n");
        assert_eq!(told.matches('×').count(), 2, "{told}");
    }

    #[test]
    fn files_that_sources_name_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let told = |source: &str| {
            let source = source.replace("FILE", &file.display().to_string());
            problems(&format!(
                "access:\n  authentication:\n    - name: s\n      {source}\n  default: allow\n"
            ))
        };
        let (passwords, keys) = ("passwords: { file: FILE }", "jwt: { keys: { file: FILE } }");
        for (source, text, wanted) in [
            (
                passwords,
                None,
                &["source `s`: password file", "No such file", "tidemill passwd FILE USER"][..],
            ),
            (passwords, Some("bob\n"), &["file:1: it has no `:`", "mend that line"]),
            (keys, None, &["source `s`: key file", "No such file", "PEM"]),
            (keys, Some("-"), &["source `s`: key file", "JWK set"]),
        ] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let told = told(source);
            // The text is wrapped for people.
            let flat = told.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
            assert!(told.contains("tidemill.yaml:4:"), "{told}");
            assert_eq!(told.matches('×').count(), 1, "{told}");
            wanted.iter().for_each(|words| assert!(flat.contains(words), "{words}: {flat}"));
            let _ = std::fs::remove_file(&file);
        }
        std::fs::write(&file, "# nobody yet\n").unwrap();
        assert_eq!(told(passwords), "");
    }

    #[test]
    fn what_has_no_value_is_not_everybody() {
        for key in ["users", "clients", "groups", "listeners", "addresses", "anonymous"] {
            let told = problems(&format!(
                "access:\n  rules:\n    - allow: all\n      topics: [\"#\"]\n      {key}:\n"
            ));
            assert!(
                told.contains(&format!("`{key}` has no value")) && told.contains("tidemill.yaml:5"),
                "{told}"
            );
        }
        assert!(problems("access: { default: }\n").contains("`default` has no value"));
        let access = "access: { authentication: [ { name: a, passwords: { file: /dev/null } } ] }\n";
        let listener =
            "mqtt: { listeners: [ { name: far, address: \"127.0.0.1:1883\", authentication: } ] }\n";
        assert!(problems(&format!("{access}{listener}")).contains("`authentication` has no value"));
    }

    #[test]
    fn who_asks_may_listen_beyond_loopback() {
        let access = "access: { authentication: [ { name: a, passwords: { file: /dev/null } } ] }\n";
        let open = "mqtt: { listeners: [ { name: far, address: \"0.0.0.0:1883\" } ] }\n";
        assert_eq!(problems(&format!("{access}{open}")), "");
        assert_eq!(problems(&format!("{access}mqtt: {{ listen: [\"0.0.0.0:1883\"] }}\n")), "");
        assert!(problems(open).contains("anyone who reaches it is let in"));
        let silent = open.replacen(" }", ", authentication: [] }", 1);
        let told = problems(&format!("{access}{silent}"));
        assert!(told.contains("asks nobody, so that nobody is let in"), "{told}");
        assert_eq!(told.matches('×').count(), 1, "{told}");
        assert!(problems(&silent).contains("anyone who reaches it is let in"));
        assert_eq!(
            problems(&format!(
                "{access}{}",
                open.replacen(" }", ", authentication: [], anonymous: true }", 1)
            )),
            ""
        );
        assert!(problems("access: { rules: [ { allow: all, topics: [\"#\"] } ] }\nmqtt: { listen: [\"0.0.0.0:1883\"] }\n").contains("let in"));
    }
}
