//! The hub's HTTP API as the tests use it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Tidemill;
use super::metrics::Metrics;
use crate::wait;

/// An answer of the API comes sooner.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// `/api/v1/rules`.
#[derive(Clone, Debug, Deserialize)]
pub struct Rules {
    /// The router.
    pub router: Router,
    /// The rules in the order of their file.
    pub rules: Vec<Rule>,
}

/// The router.
#[derive(Clone, Debug, Deserialize)]
pub struct Router {
    /// Records looked at.
    pub records: u64,
    /// Records that are not JSON though a rule wanted that.
    pub not_json: u64,
    /// Records still to be looked at.
    pub lag: u64,
}

/// A rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Records it matched.
    pub matched: u64,
    /// Its targets.
    pub targets: Vec<Target>,
}

/// A target of a rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `running`, `retrying` or `stopped`.
    pub state: String,
    /// Its last failure.
    pub last_error: Option<String>,
    /// Events confirmed.
    pub delivered: u64,
    /// Events sent again.
    pub retries: u64,
    /// Events given up.
    pub dead_letters: u64,
    /// Lowest offset not done.
    pub cursor: u64,
    /// End of the rule's queue.
    pub end: u64,
    /// Entries between the two.
    pub lag: u64,
}

/// `/api/v1/queues`.
#[derive(Debug, Deserialize)]
struct Queues {
    queues: Vec<Queue>,
    readers_complete: bool,
    next: Option<u64>,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Its number.
    pub id: u64,
    /// `filter`, `union` or `derived`.
    pub kind: String,
    /// Its filter or name.
    pub name: String,
    /// Offset of its first entry.
    pub first: u64,
    /// Offset that its next entry will get.
    pub end: u64,
    /// Who reads it.
    pub readers: Vec<QueueReader>,
}

/// A cursor in a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct QueueReader {
    /// Whose.
    pub owner: String,
    /// Lowest offset not done.
    pub cursor: u64,
    /// Entries between it and the queue's end.
    pub lag: u64,
}

/// `/api/v1/dead-letters`.
#[derive(Clone, Debug, Deserialize)]
pub struct DeadLetters {
    /// How many the target has.
    pub count: u64,
    /// The first of them.
    pub dead_letters: Vec<DeadLetter>,
}

/// What a target gave up on.
#[derive(Clone, Debug, Deserialize)]
pub struct DeadLetter {
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up.
    pub error: String,
    /// The message.
    pub record: Option<Record>,
}

/// A record as the API shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// Its topic.
    pub topic: String,
    /// Its payload, if that is text.
    pub payload: Option<String>,
}

impl Tidemill {
    /// GET: status and body.
    ///
    /// # Panics
    /// When the hub does not answer.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = async {
            let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?;
            let answer = client.get(format!("http://{}{path}", self.http())).send().await?;
            let status = answer.status().as_u16();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        answer.await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// GET of JSON.
    ///
    /// # Panics
    /// When the answer is not status 200 and of this shape.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
    }

    /// A scrape of `/metrics`.
    ///
    /// # Panics
    /// When it is not as the text format wants it.
    pub async fn metrics(&self) -> Metrics {
        let (status, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "GET /metrics: {body}");
        Metrics::parse(&body).unwrap_or_else(|error| panic!("GET /metrics: {error}\n{body}"))
    }

    /// All rules.
    ///
    /// # Panics
    /// When the API does not answer as it should.
    pub async fn rules(&self) -> Rules {
        self.json("/api/v1/rules").await
    }

    /// A target of a rule.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn target(&self, rule: &str, target: &str) -> Target {
        let rules = self.rules().await;
        let found = rules.rules.iter().find(|found| found.name == rule);
        let found = found.and_then(|rule| rule.targets.iter().find(|found| found.name == target));
        found.unwrap_or_else(|| panic!("no target {target} of rule {rule} in {rules:?}")).clone()
    }

    /// All queues, by number.
    ///
    /// # Panics
    /// When the API does not answer as it should, or has not looked at all readers.
    pub async fn queues(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        let mut path = "/api/v1/queues?limit=1000".to_owned();
        loop {
            let page: Queues = self.json(&path).await;
            assert!(page.readers_complete, "too many readers for the API");
            queues.extend(page.queues);
            match page.next {
                Some(next) => path = format!("/api/v1/queues?limit=1000&after={next}"),
                None => return queues,
            }
        }
    }

    /// The queue of this name.
    ///
    /// # Panics
    /// When there is none.
    pub async fn queue(&self, name: &str) -> Queue {
        let queues = self.queues().await;
        let found = queues.iter().find(|queue| queue.name == name);
        found.unwrap_or_else(|| panic!("no queue {name} in {queues:?}")).clone()
    }

    /// Waits until the router and all targets have done everything that is in the log now.
    ///
    /// # Panics
    /// When they have not within `limit`, with what they say of themselves.
    pub async fn until_delivered(&self, limit: Duration) {
        let behind = async || {
            let rules = self.rules().await;
            let targets = rules.rules.iter().flat_map(|rule| {
                rule.targets.iter().map(|target| (format!("{}/{}", rule.name, target.name), target))
            });
            let targets = targets.filter(|(_, target)| target.lag > 0);
            let targets: Vec<_> =
                targets.map(|(name, target)| (name, target.lag, target.last_error.clone())).collect();
            (rules.router.lag, targets)
        };
        wait::until_eq("the lag of router and targets", limit, (0, Vec::new()), behind).await;
    }
}
