//! Looks at queues, pauses and purges them.

use super::limits::reason;
use super::page;
use crate::extract::{Document, Json, Name, Query};
use crate::problem::Problem;
use crate::schema::{
    MessageList, PageQuery, PauseRequest, PurgeRequest, Purged, Queue, QueueList, QueueState,
};
use crate::server::Shared;
use axum::extract::State;
use celeriac_core::QueueName;
use celeriac_core::document::{self, count, object};
use celeriac_core::operate::waiting;
use celeriac_core::store::Page;
use celeriac_core::throttle::Target;
use celeriac_wire::Value;
use std::sync::Arc;

/// The most messages that one request deletes.
const PURGE_MAX: u64 = 10_000;
/// They are deleted so many at a time.
const BATCH: u64 = 500;

/// List queues
#[utoipa::path(
    get, path = "/api/v1/queues", tag = "queues", security(("token" = ["viewer"])),
    responses((status = 200, description = "Those with messages, dead letters, pauses, workers", body = QueueList))
)]
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    let queues = shared.parts.store.queues().await?;
    let items = queues.iter().map(document::queue).collect();
    Ok(Document::ok(object([("items", Value::Array(items))])))
}

/// Show a queue
#[utoipa::path(
    get, path = "/api/v1/queues/{queue}", tag = "queues", security(("token" = ["viewer"])),
    params(("queue" = String, Path, description = "The queue's name")),
    responses((status = 200, description = "The queue in numbers", body = Queue))
)]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    let queue = QueueName::parse(&name)?;
    let queues = shared.parts.store.queues().await?;
    let found = queues.iter().find(|view| view.name == queue.as_str());
    let found = found.ok_or_else(|| {
        Problem::not_found(format!("queue {queue} has no message, dead letter, pause or worker"))
    })?;
    Ok(Document::ok(document::queue(found)))
}

/// Look at waiting messages
///
/// The oldest first, without their bodies.
#[utoipa::path(
    get, path = "/api/v1/queues/{queue}/messages", tag = "queues", security(("token" = ["viewer"])),
    params(("queue" = String, Path, description = "The queue's name"), PageQuery),
    responses((status = 200, description = "A page of messages", body = MessageList))
)]
pub(crate) async fn messages(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Query(query): Query<PageQuery>,
) -> Result<Document, Problem> {
    let queue = QueueName::parse(&name)?;
    let page = page(query.cursor.as_deref(), query.limit)?;
    let stored = shared.parts.store.peek(&queue, page).await?;
    let last = stored.last().filter(|_| stored.len() == page.count_max);
    let next = last.map_or(Value::Null, |one| Value::from(one.row.to_string()));
    let items = stored.iter().map(document::stored).collect();
    Ok(Document::ok(object([("items", Value::Array(items)), ("next", next)])))
}

/// Pause a queue
///
/// No worker takes messages from it; what runs goes on.
#[utoipa::path(
    post, path = "/api/v1/queues/{queue}/pause", tag = "queues", security(("token" = ["operator"])),
    params(("queue" = String, Path, description = "The queue's name")),
    request_body = PauseRequest,
    responses((status = 200, description = "It is paused", body = QueueState))
)]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: request, .. }: Json<PauseRequest>,
) -> Result<Document, Problem> {
    let queue = QueueName::parse(&name)?;
    reason(&request.reason)?;
    shared.parts.store.pause(&Target::from(&queue), &request.reason).await?;
    Ok(state(&queue, true))
}

/// Resume a queue
#[utoipa::path(
    post, path = "/api/v1/queues/{queue}/resume", tag = "queues", security(("token" = ["operator"])),
    params(("queue" = String, Path, description = "The queue's name")),
    responses((status = 200, description = "It is not paused", body = QueueState))
)]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    let queue = QueueName::parse(&name)?;
    if !shared.parts.store.resume(&Target::from(&queue)).await? {
        return Err(Problem::conflict(format!("queue {queue} is not paused")));
    }
    Ok(state(&queue, false))
}

fn state(queue: &QueueName, paused: bool) -> Document {
    let name = Value::from(queue.as_str());
    Document::ok(object([("queue", name), ("paused", Value::from(paused))]))
}

/// Delete the waiting messages of a queue
///
/// At most 10 000 in one request, and only if as many wait as the request says. They are not saved: `celeriac
/// queue purge` on the command line saves them to a file first.
#[utoipa::path(
    post, path = "/api/v1/queues/{queue}/purge", tag = "queues", security(("token" = ["admin"])),
    params(("queue" = String, Path, description = "The queue's name")),
    request_body = PurgeRequest,
    responses((status = 200, description = "They are gone", body = Purged))
)]
pub(crate) async fn purge(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: request, .. }: Json<PurgeRequest>,
) -> Result<Document, Problem> {
    let queue = QueueName::parse(&name)?;
    let store = &*shared.parts.store;
    let there = waiting(store, &queue).await?;
    if there != request.expected {
        let expected = request.expected;
        let text = format!("{there} messages wait in queue {queue}, not {expected}");
        return Err(Problem::conflict(text).hint("nothing was deleted; look, then ask again"));
    }
    let most = there.min(PURGE_MAX);
    let (mut seen, mut purged, mut after) = (0, 0, 0);
    // What producers add meanwhile was not expected.
    while seen < most {
        let count_max = BATCH.min(most - seen) as usize;
        let stored = store.peek(&queue, Page { after, count_max }).await?;
        let Some(last) = stored.last() else { break };
        after = last.row;
        seen += stored.len() as u64;
        let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
        purged += store.remove(&rows).await?.len() as u64;
    }
    let left = waiting(store, &queue).await?;
    tracing::warn!(%queue, purged, "messages were deleted over HTTP");
    Ok(Document::ok(object([("purged", count(purged)), ("left", count(left))])))
}
