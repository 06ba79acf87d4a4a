//! Looks at tasks, cancels and retries them.

use super::bounded;
use crate::extract::{Document, Json, Name, Query};
use crate::problem::Problem;
use crate::schema::{CancelRequest, Deed, Task, TaskList, TaskQuery, WaitQuery};
use crate::server::Shared;
use axum::extract::State;
use celeriac_core::document::{self, object};
use celeriac_core::operate::{self, Retried};
use celeriac_core::store::{Phase, TaskFilter};
use celeriac_wire::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// The most tasks of a list.
const TASKS_MAX: usize = 1000;
/// The longest wait for a result, in seconds: shorter than the deadline of a request.
const WAIT_MAX: f64 = 25.0;
const PHASES: [&str; 7] = ["queued", "scheduled", "retry", "reserved", "running", "done", "dead"];

/// List tasks
///
/// The newest first. A task that stays as it is is on one page exactly; one that changes while the pages are
/// read may be missed or seen again.
#[utoipa::path(
    get, path = "/api/v1/tasks", tag = "tasks", security(("token" = ["viewer"])),
    params(TaskQuery),
    responses((status = 200, description = "The tasks", body = TaskList))
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<TaskQuery>,
) -> Result<Document, Problem> {
    if let Some(state) = &query.state {
        let result = !state.is_empty() && state.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        if !result && !PHASES.contains(&state.as_str()) {
            let text = format!("unknown state {state:?}");
            let hint = format!("use {}, or a result state in capitals", PHASES.join(", "));
            return Err(Problem::bad_request(text).hint(hint));
        }
    }
    let limit = bounded(query.limit, super::PAGE, TASKS_MAX)?;
    let TaskQuery { state, task, queue, cursor, .. } = query;
    let filter = TaskFilter { state, task, queue, after: cursor, count_max: limit };
    let page = shared.parts.store.tasks(&filter).await?;
    let items = page.views.iter().map(document::task).collect();
    let next = document::text(page.next.as_deref());
    Ok(Document::ok(object([("items", Value::Array(items)), ("next", next)])))
}

/// Show a task
///
/// With or without a running worker.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}", tag = "tasks", security(("token" = ["viewer"])),
    params(("id" = String, Path, description = "The task's id")),
    responses((status = 200, description = "What is true of it", body = Task))
)]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Name(id): Name,
) -> Result<Document, Problem> {
    let view = shared.parts.store.task(&id).await?;
    if view.phase == Phase::Unknown && view.result.is_none() {
        return Err(unknown(&id));
    }
    Ok(Document::ok(document::task(&view)))
}

/// The result of a task
///
/// Celery's result document; of a task that has not ended, one with the state `PENDING` or the state that was
/// reported last.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/result", tag = "tasks", security(("token" = ["viewer"])),
    params(("id" = String, Path, description = "The task's id"), WaitQuery),
    responses((status = 200, description = "The result document", body = Object))
)]
pub(crate) async fn result(
    State(shared): State<Arc<Shared>>,
    Name(id): Name,
    Query(query): Query<WaitQuery>,
) -> Result<Document, Problem> {
    let wait = query.wait.unwrap_or(0.0);
    if !(0.0..=WAIT_MAX).contains(&wait) {
        let text = format!("wait is {wait}; it is 0 to {WAIT_MAX} seconds");
        return Err(Problem::bad_request(text));
    }
    let store = &shared.parts.store;
    let record = if wait > 0.0 {
        store.wait_result(&id, Duration::from_secs_f64(wait)).await?
    } else {
        store.result(&id).await?
    };
    let document = match record {
        Some(record) => record.meta.as_map().clone(),
        // What Celery's AsyncResult says of a task that nobody knows as well.
        None => Map::from([
            ("task_id", Value::from(id.as_str())),
            ("status", Value::from("PENDING")),
            ("result", Value::Null),
        ]),
    };
    Ok(Document::ok(Value::Object(document)))
}

/// Cancel a task
///
/// A waiting one never runs; a running one is told to stop.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/cancel", tag = "tasks", security(("token" = ["operator"])),
    params(("id" = String, Path, description = "The task's id")),
    request_body = CancelRequest,
    responses((status = 200, description = "What becomes of it", body = Deed))
)]
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Name(id): Name,
    Json { value: request, .. }: Json<CancelRequest>,
) -> Result<Document, Problem> {
    let phase = operate::cancel(&*shared.parts.store, &id, request.keep_running).await?;
    let note = operate::cancelled(&phase, request.keep_running);
    if matches!(phase, Phase::Done | Phase::Dead { .. }) {
        return Err(Problem::conflict(format!("task {id} {note}")));
    }
    Ok(deed(&id, note))
}

/// Run a task again now
///
/// A dead letter is replayed, a waiting retry or a scheduled task does not wait any longer.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/retry", tag = "tasks", security(("token" = ["operator"])),
    params(("id" = String, Path, description = "The task's id")),
    responses((status = 200, description = "It is in its queue", body = Deed))
)]
pub(crate) async fn retry(
    State(shared): State<Arc<Shared>>,
    Name(id): Name,
) -> Result<Document, Problem> {
    match operate::retry(&*shared.parts.store, &id).await? {
        Retried::Replayed(number) => {
            Ok(deed(&id, &format!("dead letter {number} is back in its queue")))
        }
        Retried::RunsNow => Ok(deed(&id, "it runs as soon as a worker is free")),
        Retried::Unknown => Err(unknown(&id)),
        Retried::JustTaken => Err(Problem::conflict(format!("task {id} has just been taken"))),
        Retried::Done => {
            Err(Problem::conflict(format!("task {id} is done and its message is gone"))
                .hint("send it again with POST /api/v1/tasks"))
        }
        Retried::Nothing(phase) => {
            Err(Problem::conflict(format!("task {id} is {phase}, there is nothing to retry")))
        }
    }
}

fn deed(id: &str, note: &str) -> Document {
    Document::ok(object([("task_id", Value::from(id)), ("note", Value::from(note))]))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("nothing is known of task {id}"))
        .hint("it was never sent here, or its result has expired")
}
