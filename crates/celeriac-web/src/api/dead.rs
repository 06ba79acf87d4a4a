//! Looks at dead letters, edits, replays and discards them.

use super::{bounded, page};
use crate::extract::{Document, Json, Name, Query};
use crate::problem::Problem;
use crate::schema::{DeadChange, DeadDeed, DeadLetter, DeadList, DeadQuery, DeadSelection};
use crate::server::Shared;
use axum::extract::State;
use celeriac_core::QueueName;
use celeriac_core::dead::DeadReason;
use celeriac_core::document::{self, count, object};
use celeriac_core::operate::{self, DeadEdit};
use celeriac_core::store::{DeadFilter, Page, Replay};
use celeriac_wire::Value;
use std::sync::Arc;

/// The most dead letters that one request replays or discards.
const DEAD_MAX: usize = 1000;
/// As many when the request says nothing.
const DEAD: usize = 100;

fn queue(name: Option<&str>) -> Result<Option<QueueName>, Problem> {
    name.map(QueueName::parse).transpose().map_err(Problem::from)
}

fn reason(name: Option<&str>) -> Result<Option<DeadReason>, Problem> {
    name.map(str::parse).transpose().map_err(|text: String| Problem::invalid(text))
}

/// List dead letters
///
/// The oldest first.
#[utoipa::path(
    get, path = "/api/v1/dead", tag = "dead", security(("token" = ["viewer"])),
    params(DeadQuery),
    responses((status = 200, description = "A page of dead letters", body = DeadList))
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<DeadQuery>,
) -> Result<Document, Problem> {
    let page = page(query.cursor.as_deref(), query.limit)?;
    let filter = DeadFilter {
        queue: queue(query.queue.as_deref())?,
        task: query.task,
        reason: reason(query.reason.as_deref())?,
        detail: query.contains,
        ..DeadFilter::default()
    };
    let store = &shared.parts.store;
    let letters = store.dead_list(&filter, page).await?;
    let last = letters.last().filter(|_| letters.len() == page.count_max);
    let next = last.map_or(Value::Null, |one| Value::from(one.number.to_string()));
    let items = letters.iter().map(document::dead_letter).collect();
    let total = count(store.dead_count(&filter).await?);
    Ok(Document::ok(object([("items", Value::Array(items)), ("next", next), ("total", total)])))
}

/// Show a dead letter
///
/// With its message and history.
#[utoipa::path(
    get, path = "/api/v1/dead/{number}", tag = "dead", security(("token" = ["viewer"])),
    params(("number" = i64, Path, description = "Its number")),
    responses((status = 200, description = "The dead letter", body = DeadLetter))
)]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Name(number): Name,
) -> Result<Document, Problem> {
    let missing = || Problem::not_found(format!("there is no dead letter {number}"));
    let filter = DeadFilter {
        number: Some(number.parse().map_err(|_| missing())?),
        ..DeadFilter::default()
    };
    let letters = shared.parts.store.dead_list(&filter, Page { after: 0, count_max: 1 }).await?;
    let letter = letters.first().ok_or_else(missing)?;
    Ok(Document::ok(document::dead_letter(letter)))
}

/// Put dead letters back into their queues
#[utoipa::path(
    post, path = "/api/v1/dead/replay", tag = "dead", security(("token" = ["operator"])),
    request_body = DeadSelection,
    responses((status = 200, description = "They are in their queues", body = DeadDeed))
)]
pub(crate) async fn replay(
    State(shared): State<Arc<Shared>>,
    Json { value: selection, .. }: Json<DeadSelection>,
) -> Result<Document, Problem> {
    let (filter, limit) = selected(&selection)?;
    let replay =
        Replay { queue: queue(selection.to.as_deref())?, keep_retries: selection.keep_retries };
    let store = &shared.parts.store;
    let numbers = store.dead_replay(&filter, &replay, limit).await?;
    let left = store.dead_count(&filter).await?;
    Ok(deed(&numbers, left))
}

/// Delete dead letters for good
#[utoipa::path(
    post, path = "/api/v1/dead/discard", tag = "dead", security(("token" = ["admin"])),
    request_body = DeadSelection,
    responses((status = 200, description = "They are gone", body = DeadDeed))
)]
pub(crate) async fn discard(
    State(shared): State<Arc<Shared>>,
    Json { value: selection, .. }: Json<DeadSelection>,
) -> Result<Document, Problem> {
    let (filter, limit) = selected(&selection)?;
    if selection.to.is_some() || selection.keep_retries {
        return Err(Problem::invalid("to and keep_retries are for a replay"));
    }
    let store = &shared.parts.store;
    let letters = store.dead_list(&filter, Page { after: 0, count_max: limit }).await?;
    let numbers: Vec<i64> = letters.iter().map(|letter| letter.number).collect();
    let discarded = store.dead_discard(&numbers).await?;
    tracing::warn!(discarded, "dead letters were deleted over HTTP");
    let left = store.dead_count(&filter).await?;
    Ok(deed(&numbers, left))
}

/// Change the arguments or the queue of a dead letter
///
/// Before a replay. What is left out stays as it is.
#[utoipa::path(
    post, path = "/api/v1/dead/{number}/edit", tag = "dead", security(("token" = ["operator"])),
    params(("number" = i64, Path, description = "Its number")),
    request_body = DeadChange,
    responses((status = 200, description = "The dead letter as it is now", body = DeadLetter))
)]
pub(crate) async fn edit(
    State(shared): State<Arc<Shared>>,
    Name(number): Name,
    Json { value: change, .. }: Json<DeadChange>,
) -> Result<Document, Problem> {
    let missing = || Problem::not_found(format!("there is no dead letter {number}"));
    let name: i64 = number.parse().map_err(|_| missing())?;
    let queue = queue(change.queue.as_deref())?;
    let edit = DeadEdit { args: change.args, kwargs: change.kwargs, queue };
    if edit.is_empty() {
        return Err(Problem::invalid("nothing to edit").hint("give args, kwargs or queue"));
    }
    operate::edit_dead(&*shared.parts.store, name, edit).await?;
    show(State(shared), Name(number)).await
}

fn deed(numbers: &[i64], left: u64) -> Document {
    let numbers = numbers.iter().map(|number| Value::from(*number)).collect();
    Document::ok(object([("numbers", Value::Array(numbers)), ("left", count(left))]))
}

/// What touches every dead letter must be asked for in words.
fn selected(selection: &DeadSelection) -> Result<(DeadFilter, usize), Problem> {
    if selection.ids.len() > DEAD_MAX {
        return Err(Problem::invalid(format!("ids has at most {DEAD_MAX} entries")));
    }
    let filter = DeadFilter {
        ids: selection.ids.clone(),
        queue: queue(selection.queue.as_deref())?,
        task: selection.task.clone(),
        reason: reason(selection.reason.as_deref())?,
        detail: selection.contains.clone(),
        ..DeadFilter::default()
    };
    if !selection.all && filter == DeadFilter::default() {
        return Err(Problem::invalid("which dead letters?")
            .hint("give ids, a filter such as reason, or \"all\": true"));
    }
    Ok((filter, bounded(selection.limit, DEAD, DEAD_MAX)?))
}
