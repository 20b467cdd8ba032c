//! [`Source`]: the queue that a request reads.

use axum::http::StatusCode;
use tidemill_store::{Position, QueueId, QueueInfo, QueueKind, ReadRequest, Store, StoreError};

use super::filter;
use super::params::{From, Params};
use crate::api::problem::Problem;

/// Queues looked at in one step, and in all, when a history is looked for.
const PAGE: usize = 512;
const SEARCHED_MAX: usize = 65_536;
/// Most queues whose first record is compared when a history is looked for.
const CANDIDATES_MAX: usize = 16;

/// A queue and where to begin in it.
pub(super) struct Source {
    pub(super) queue: QueueInfo,
    /// Only topics that match, when the queue holds more than was asked for.
    pub(super) filter: Option<String>,
    pub(super) start: u64,
    /// Gives the filter's queue back when the request is over.
    _held: Option<Held>,
}

/// A reference to a filter's queue.
struct Held {
    store: Store,
    queue: QueueId,
}

impl Drop for Held {
    fn drop(&mut self) {
        let (store, queue) = (self.store.clone(), self.queue);
        tokio::spawn(async move {
            if let Err(error) = store.release_filter(queue).await {
                tracing::debug!(queue = queue.0, %error, "giving back a filter queue");
            }
        });
    }
}

impl Source {
    /// Finds the queue for what was asked, or makes it for the time of the request.
    pub(super) async fn find(store: &Store, params: &Params) -> Result<Source, Problem> {
        let from = params.from()?;
        match (&params.filter, &params.queue) {
            (Some(filter), None) if from == From::Latest => Source::live(store, filter).await,
            (Some(filter), None) => Source::history(store, filter, from).await,
            (None, Some(name)) => Source::named(store, name, from).await,
            _ => {
                Err(Problem::bad_request("which records? neither or both of `filter` and `queue` were given")
                    .hint("ask with one of them: ?filter=vehicles/%2B/telemetry or ?queue=rule/overheat"))
            }
        }
    }

    async fn live(store: &Store, filter: &str) -> Result<Source, Problem> {
        let queue = store.open_filter(filter).await?;
        let held = Held { store: store.clone(), queue: queue.id };
        Ok(Source { start: queue.end, queue, filter: None, _held: Some(held) })
    }

    async fn named(store: &Store, name: &str, from: From) -> Result<Source, Problem> {
        let found = search(store, |queue| queue.name == name)?.into_iter().next();
        let queue = found.ok_or_else(|| {
            Problem::not_found(format!("there is no queue `{name}`")).hint("/api/v1/queues lists them")
        })?;
        let start = start(store, &queue, from).await?;
        Ok(Source { queue, filter: None, start, _held: None })
    }

    /// The oldest queue that has everything the filter matches.
    async fn history(store: &Store, filter: &str, from: From) -> Result<Source, Problem> {
        let exact = |queue: &QueueInfo| queue.kind == QueueKind::Filter && queue.name == filter;
        if let From::Offset(offset) = from {
            // An offset counts in one queue only.
            let queue = search(store, exact)?.into_iter().next().ok_or_else(|| {
                Problem::not_found(format!("offset {offset}: no queue has exactly the filter `{filter}`"))
                    .hint("offsets count within one queue: ask with queue=NAME, or begin at a time")
            })?;
            return Ok(Source { start: offset, queue, filter: None, _held: None });
        }
        let mut oldest: Option<(Position, QueueInfo)> = None;
        for queue in search(store, |queue| covers(queue, filter))? {
            let first = first_position(store, &queue).await?;
            if oldest.as_ref().is_none_or(|(position, _)| first < *position) {
                oldest = Some((first, queue));
            }
        }
        let (_, queue) = oldest.ok_or_else(|| no_history(filter))?;
        let start = start(store, &queue, from).await?;
        let filter = (!exact(&queue)).then(|| filter.to_owned());
        Ok(Source { queue, filter, start, _held: None })
    }
}

fn no_history(filter: &str) -> Problem {
    let error = format!(
        "no queue has the history of `{filter}`: nobody has subscribed to it yet, and no rule reads it"
    );
    Problem::new(StatusCode::NOT_FOUND, error).hint(
        "from=latest shows what comes from now on; a persistent session or a rule on the filter keeps its history",
    )
}

fn covers(queue: &QueueInfo, wanted: &str) -> bool {
    match &queue.kind {
        QueueKind::Filter => filter::covers(&queue.name, wanted),
        QueueKind::Union(filters) => filters.iter().any(|wide| filter::covers(wide, wanted)),
        QueueKind::Derived => false,
    }
}

/// Some queues for which `wanted` is true.
fn search(store: &Store, wanted: impl Fn(&QueueInfo) -> bool) -> Result<Vec<QueueInfo>, StoreError> {
    let (mut found, mut after, mut seen) = (Vec::new(), None, 0);
    while found.len() < CANDIDATES_MAX && seen < SEARCHED_MAX {
        let page = store.queues(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
        found.extend(page.into_iter().filter(&wanted));
    }
    found.truncate(CANDIDATES_MAX);
    Ok(found)
}

async fn start(store: &Store, queue: &QueueInfo, from: From) -> Result<u64, StoreError> {
    match from {
        From::Earliest => Ok(queue.first),
        From::Latest => Ok(queue.end),
        From::Time(time_ms) => store.offset_at(queue.id, time_ms).await,
        From::Offset(offset) => Ok(offset),
    }
}

/// Where the queue's first record stands in the log; the log's end if it has none.
async fn first_position(store: &Store, queue: &QueueInfo) -> Result<Position, StoreError> {
    let request =
        ReadRequest { queue: queue.id, from: queue.first, records_max: 1, bytes_max: 1, durable: true };
    let read = store.read(request).await?;
    Ok(read.records.first().map_or_else(|| store.end(), |(_, record)| record.position))
}
