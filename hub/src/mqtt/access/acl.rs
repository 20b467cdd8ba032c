//! [`Acl`]: rules about who may publish and subscribe to what, and [`Permissions`]: what they come to for one client.
//!
//! Rules are looked at in their order and the first that speaks of a topic decides. A subscription is allowed if every
//! topic it could bring is: a rule that denies part of it refuses all of it, unless a rule before has allowed that
//! part. What no rule speaks of is decided by what the client brought itself (a token's or a hook's grants), and then by
//! the default.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytestring::ByteString;

use super::cover;
use super::network::Network;
use super::pattern::{Names, Pattern};

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish a message.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
    /// Publish a message that stays as the topic's retained message; it must be allowed to publish it as well.
    Retain,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 3] = [Action::Publish, Action::Subscribe, Action::Retain];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
            Action::Retain => "retain",
        }
    }
}

/// What a rule does with what it speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// It may be done.
    Allow,
    /// It may not.
    #[default]
    Deny,
}

/// Whom a rule is about: all that is given must fit; a list fits if one of it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// User names.
    pub users: Option<Vec<String>>,
    /// Client identifiers.
    pub clients: Option<Vec<String>>,
    /// Groups.
    pub groups: Option<Vec<String>>,
    /// Names of listeners.
    pub listeners: Option<Vec<String>>,
    /// Where they come from.
    pub addresses: Option<Vec<Network>>,
    /// Only those who have not said who they are, or only those who have.
    pub anonymous: Option<bool>,
}

impl Who {
    fn is(&self, subject: &Subject) -> bool {
        let one_of = |list: &Option<Vec<String>>, value: Option<&str>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|value| list.iter().any(|item| item == value)))
        };
        let in_group = |groups: &Vec<String>| {
            groups.iter().any(|group| subject.groups.iter().any(|own| **own == **group))
        };
        one_of(&self.users, subject.user.as_deref())
            && one_of(&self.clients, Some(&*subject.client))
            && one_of(&self.listeners, Some(&*subject.listener))
            && self.groups.as_ref().is_none_or(in_group)
            && self.anonymous.is_none_or(|anonymous| anonymous == subject.user.is_none())
            && (self.addresses.as_ref())
                .is_none_or(|networks| networks.iter().any(|network| network.contains(subject.address)))
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// With which actions.
    pub actions: Vec<Action>,
    /// On which topics.
    pub topics: Vec<Pattern>,
    /// Whose.
    pub who: Who,
    /// `FILE:LINE` of it.
    pub place: String,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// What holds where none speaks.
    pub default: Effect,
}

/// Topic filters that a client brought with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Grants {
    publish: Vec<String>,
    subscribe: Vec<String>,
    retain: Vec<String>,
}

impl Grants {
    fn of(&self, action: Action) -> &[String] {
        match action {
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
            Action::Retain => &self.retain,
        }
    }

    /// The filters with the client's names in them; what is no filter grants nothing.
    fn resolve(&self, names: &Names<'_>) -> Grants {
        let resolve = |filters: &[String]| {
            filters.iter().filter_map(|text| Pattern::parse(text).ok()?.resolve(names)).collect()
        };
        Grants {
            publish: resolve(&self.publish),
            subscribe: resolve(&self.subscribe),
            retain: resolve(&self.retain),
        }
    }
}

/// Everything about a client that rules can ask for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its identifier.
    pub client: ByteString,
    /// Who it is.
    pub user: Option<ByteString>,
    /// What it belongs to.
    pub groups: Vec<ByteString>,
    /// The listener it came to.
    pub listener: String,
    /// Where it comes from.
    pub address: IpAddr,
    /// The common name of its certificate.
    pub common_name: Option<ByteString>,
}

impl Subject {
    fn names(&self) -> Names<'_> {
        Names { client: &self.client, user: self.user.as_deref(), common_name: self.common_name.as_deref() }
    }
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A rule, by its place.
    Rule(String),
    /// What the client brought.
    Grants,
    /// Nothing else did.
    Default,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Rule(place) => write!(f, "the rule at {place}"),
            By::Grants => f.write_str("the client's own permissions"),
            By::Default => f.write_str("the default: no rule speaks of it"),
        }
    }
}

/// A rule that is about this client.
#[derive(Debug)]
struct Line {
    /// Its index.
    rule: u32,
    /// Its topics with the client's names put in; `None` if they have no names to be put in.
    own: Option<Box<[Box<str>]>>,
}

/// What one client may do.
#[derive(Debug)]
pub struct Permissions {
    acl: Arc<Acl>,
    lines: Box<[Line]>,
    grants: Option<Grants>,
}

/// Where a decision was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Line(usize),
    Grants,
    Default,
}

impl Permissions {
    /// What the rules come to for this client.
    #[must_use]
    pub fn new(acl: &Arc<Acl>, subject: &Subject, grants: Option<&Grants>) -> Self {
        let names = subject.names();
        let about = acl.rules.iter().enumerate().filter(|(_, rule)| rule.who.is(subject));
        let lines = about.map(|(index, rule)| {
            let named = rule.topics.iter().any(|topic| topic.has_names());
            // What cannot be put in allows nothing, and denies all that it could be.
            let resolve = |topic: &Pattern| match rule.effect {
                Effect::Allow => topic.resolve(&names),
                Effect::Deny => Some(topic.resolve_widely(&names)),
            };
            let resolved = || rule.topics.iter().filter_map(resolve).map(String::into);
            Line { rule: u32::try_from(index).unwrap_or(u32::MAX), own: named.then(|| resolved().collect()) }
        });
        Permissions {
            lines: lines.collect(),
            acl: Arc::clone(acl),
            grants: grants.map(|grants| grants.resolve(&names)),
        }
    }

    /// Whether a message may be published to a topic.
    #[must_use]
    pub fn may_publish(&self, topic: &str, retain: bool) -> bool {
        self.name(Action::Publish, topic).0 && (!retain || self.name(Action::Retain, topic).0)
    }

    /// Whether a filter may be subscribed to. Of a shared subscription: the filter without group.
    #[must_use]
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.filter(filter).0
    }

    /// Whether an action may be done, and what decides it.
    #[must_use]
    pub fn explain(&self, action: Action, topic: &str) -> (bool, By) {
        let (allowed, at) = match action {
            Action::Subscribe => self.filter(topic),
            action => self.name(action, topic),
        };
        let by = match at {
            At::Line(line) => {
                let rule = self.lines.get(line).and_then(|line| self.rule(line));
                By::Rule(rule.map(|rule| rule.place.clone()).unwrap_or_default())
            }
            At::Grants => By::Grants,
            At::Default => By::Default,
        };
        (allowed, by)
    }

    fn rule(&self, line: &Line) -> Option<&Rule> {
        self.acl.rules.get(line.rule as usize)
    }

    /// Rules that speak of an action, with their topics.
    fn speaking(&self, action: Action) -> impl Iterator<Item = (usize, Effect, Topics<'_>)> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(move |(index, line)| {
            let rule = self.rule(line).filter(|rule| rule.actions.contains(&action))?;
            let topics = match &line.own {
                Some(own) => Topics::Own(own),
                None => Topics::Plain(&rule.topics),
            };
            Some((index, rule.effect, topics))
        })
    }

    /// Whether something may be published to one topic.
    fn name(&self, action: Action, topic: &str) -> (bool, At) {
        for (index, effect, topics) in self.speaking(action) {
            if topics.any(|filter| cover::covers(filter, topic)) {
                return (effect == Effect::Allow, At::Line(index));
            }
        }
        self.otherwise(action, topic)
    }

    /// Whether a filter may be subscribed to. A rule before that allows a part keeps it from a later one that denies
    /// it: every topic of that part has met a rule that allows it first, as each earlier denial was looked at alike.
    fn filter(&self, wanted: &str) -> (bool, At) {
        let mut allowed: Vec<Topics<'_>> = Vec::new();
        for (index, effect, topics) in self.speaking(Action::Subscribe) {
            match effect {
                Effect::Allow if topics.any(|filter| cover::covers(filter, wanted)) => {
                    return (true, At::Line(index));
                }
                Effect::Allow => allowed.push(topics),
                Effect::Deny => {
                    let left = |filter: &str| {
                        cover::meet(filter, wanted).is_some_and(|part| {
                            !allowed.iter().any(|before| before.any(|filter| cover::covers(filter, &part)))
                        })
                    };
                    if topics.any(left) {
                        return (false, At::Line(index));
                    }
                }
            }
        }
        self.otherwise(Action::Subscribe, wanted)
    }

    /// What holds where no rule speaks. What the server says of itself is for those only to whom it is granted.
    fn otherwise(&self, action: Action, topic: &str) -> (bool, At) {
        if let Some(grants) = &self.grants {
            return (grants.of(action).iter().any(|filter| cover::covers(filter, topic)), At::Grants);
        }
        let own = topic == "$SYS" || topic.starts_with("$SYS/");
        (self.acl.default == Effect::Allow && !own, At::Default)
    }
}

/// The topics of a rule for one client.
#[derive(Clone, Copy)]
enum Topics<'a> {
    Own(&'a [Box<str>]),
    Plain(&'a [Pattern]),
}

impl Topics<'_> {
    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Topics::Own(own) => own.iter().any(|filter| is(filter)),
            Topics::Plain(topics) => topics.iter().any(|topic| is(topic.text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(effect: Effect, topics: &[&str]) -> Rule {
        Rule {
            effect,
            actions: Action::ALL.to_vec(),
            topics: topics.iter().map(|topic| Pattern::parse(topic).unwrap()).collect(),
            who: Who::default(),
            place: format!("f:{topics:?}"),
        }
    }

    fn subject(client: &str, user: Option<&str>) -> Subject {
        Subject {
            client: client.into(),
            user: user.map(ByteString::from),
            groups: vec!["staff".into()],
            listener: "default".to_owned(),
            address: "10.1.2.3".parse().unwrap(),
            common_name: None,
        }
    }

    fn permissions(rules: Vec<Rule>, default: Effect) -> Permissions {
        Permissions::new(&Arc::new(Acl { rules, default }), &subject("c", Some("u")), None)
    }

    use Effect::{Allow, Deny};

    #[test]
    fn the_first_rule_that_speaks_decides() {
        let may = permissions(vec![rule(Deny, &["a/secret"]), rule(Allow, &["a/#"])], Deny);
        assert!(
            may.may_publish("a/b", true)
                && !may.may_publish("a/secret", false)
                && !may.may_publish("b", false)
        );
        assert!(!may.may_subscribe("a/#") && !may.may_subscribe("a/+") && !may.may_subscribe("#"));
        assert!(may.may_subscribe("a/b") && may.may_subscribe("a/b/#"));
        let may = permissions(vec![rule(Allow, &["a/b"]), rule(Deny, &["a/b"]), rule(Allow, &["a/#"])], Deny);
        assert!(may.may_subscribe("a/+"), "what is denied was allowed before");
        assert!(!may.may_subscribe("$SYS/#"));
        assert_eq!(may.explain(Action::Publish, "x"), (false, By::Default));
        assert_eq!(may.explain(Action::Publish, "a/b"), (true, By::Rule("f:[\"a/b\"]".to_owned())));
    }

    #[test]
    fn a_narrow_permission_gives_no_wide_subscription() {
        let may = permissions(vec![rule(Allow, &["a/b"])], Deny);
        assert!(may.may_subscribe("a/b"));
        for filter in ["#", "+/b", "a/+", "a/#", "a/b/#", "+/+"] {
            assert!(!may.may_subscribe(filter), "{filter}");
        }
    }

    #[test]
    fn what_the_server_says_needs_a_rule() {
        let may = permissions(Vec::new(), Allow);
        assert!(may.may_subscribe("#") && may.may_subscribe("$other/x") && !may.may_subscribe("$SYS/#"));
        let may = permissions(vec![rule(Allow, &["$SYS/#"])], Allow);
        assert!(may.may_subscribe("$SYS/broker/uptime"));
    }

    #[test]
    fn names_are_put_in_or_nothing_matches() {
        let rules = vec![rule(Allow, &["d/{client}/#", "u/{user}", "{cert.cn}/x"])];
        let acl = Arc::new(Acl { rules, default: Deny });
        let may = Permissions::new(&acl, &subject("c1", Some("bob")), None);
        assert!(
            may.may_publish("d/c1/t", false)
                && may.may_subscribe("d/c1/#")
                && may.may_publish("u/bob", false)
        );
        assert!(
            !may.may_publish("d/c2/t", false) && !may.may_subscribe("d/+/#") && !may.may_publish("/x", false)
        );
        for bad in ["+", "#", "a/b", ""] {
            let may = Permissions::new(&acl, &subject(bad, Some(bad)), None);
            assert!(!may.may_subscribe(&format!("d/{bad}/#")) && !may.may_publish("d/a/b", false), "{bad}");
            assert!(!may.may_publish("d//b", false) && !may.may_subscribe("u/+"), "{bad}");
        }
        let acl = Arc::new(Acl { rules: vec![rule(Allow, &["{client}/#"])], default: Allow });
        let may = Permissions::new(&acl, &subject("$SYS", None), None);
        assert!(!may.may_subscribe("$SYS/#"), "a name that begins with $ grants nothing of the server's");
    }

    #[test]
    fn a_name_that_is_missing_denies_all_that_it_could_be() {
        let rules = vec![rule(Deny, &["keys/{user}/#", "{cert.cn}/x"]), rule(Allow, &["#"])];
        let acl = Arc::new(Acl { rules, default: Deny });
        for user in [None, Some("a/b"), Some("+"), Some("")] {
            let may = Permissions::new(&acl, &subject("c", user), None);
            assert!(!may.may_publish("keys/bob/1", false) && !may.may_subscribe("keys/+/#"), "{user:?}");
            assert!(!may.may_publish("y/x", false) && may.may_publish("y/z", false), "{user:?}");
        }
        let may = Permissions::new(&acl, &subject("c", Some("bob")), None);
        assert!(!may.may_publish("keys/bob/1", false) && may.may_publish("keys/eve/1", false));
    }

    #[test]
    fn a_rule_is_about_those_it_names() {
        let of = |who: Who, subject: &Subject| {
            let rules = vec![Rule { who, ..rule(Allow, &["#"]) }];
            Permissions::new(&Arc::new(Acl { rules, default: Deny }), subject, None).may_publish("t", false)
        };
        let someone = subject("c", Some("u"));
        let list = |item: &str| Some(vec![item.to_owned()]);
        assert!(of(Who { users: list("u"), clients: list("c"), ..Who::default() }, &someone));
        assert!(!of(Who { users: list("u"), clients: list("d"), ..Who::default() }, &someone));
        assert!(of(Who { groups: list("staff"), listeners: list("default"), ..Who::default() }, &someone));
        assert!(!of(Who { groups: list("other"), ..Who::default() }, &someone));
        assert!(!of(Who { users: list("u"), ..Who::default() }, &subject("c", None)));
        assert!(of(Who { anonymous: Some(true), ..Who::default() }, &subject("c", None)));
        assert!(!of(Who { anonymous: Some(true), ..Who::default() }, &someone));
        let network = |text: &str| Some(vec![text.parse().unwrap()]);
        assert!(of(Who { addresses: network("10.0.0.0/8"), ..Who::default() }, &someone));
        assert!(!of(Who { addresses: network("10.2.0.0/16"), ..Who::default() }, &someone));
    }

    #[test]
    fn retaining_needs_both() {
        let rules = vec![Rule { actions: vec![Action::Publish], ..rule(Allow, &["a"]) }];
        let may = permissions(rules, Deny);
        assert!(may.may_publish("a", false) && !may.may_publish("a", true));
    }

    #[test]
    fn what_a_client_brings_comes_after_the_rules() {
        let grants = Grants {
            publish: vec!["o/{client}".into()],
            subscribe: vec!["a/#".into(), "bad#".into()],
            ..Grants::default()
        };
        let acl = Arc::new(Acl { rules: vec![rule(Deny, &["a/x"])], default: Allow });
        let may = Permissions::new(&acl, &subject("c", None), Some(&grants));
        assert!(
            may.may_publish("o/c", false) && !may.may_publish("o/d", false) && !may.may_publish("o/c", true)
        );
        assert!(may.may_subscribe("a/b") && !may.may_subscribe("a/#"));
        assert_eq!(may.explain(Action::Publish, "z"), (false, By::Grants));
    }

    fn small_filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+")];
        (prop::collection::vec(level, 1..3), any::<bool>()).prop_map(|(levels, all)| {
            let mut text = levels.join("/");
            if all {
                text.push_str("/#");
            }
            text
        })
    }

    proptest! {
        /// Whoever may subscribe may read every topic that comes, judged one by one.
        #[test]
        fn a_subscription_brings_nothing_that_is_denied(
            rules in prop::collection::vec((any::<bool>(), small_filter()), 0..6), wanted in small_filter(), open in any::<bool>()
        ) {
            let effect = |allow| if allow { Allow } else { Deny };
            let rules = rules.iter().map(|(allow, filter)| rule(effect(*allow), &[filter])).collect();
            let may = permissions(rules, effect(open));
            let texts = ["a", "b", "c"];
            let mut topics: Vec<String> = texts.map(str::to_owned).to_vec();
            let mut last = topics.clone();
            for _ in 0..3 {
                last = last.iter().flat_map(|topic| texts.map(|level| format!("{topic}/{level}"))).collect();
                topics.extend(last.iter().cloned());
            }
            let all = topics.iter().filter(|topic| cover::covers(&wanted, topic)).all(|topic| may.name(Action::Subscribe, topic).0);
            if may.may_subscribe(&wanted) {
                prop_assert!(all, "{} is granted", wanted);
            }
        }
    }
}
