//! Runs entries: now, or by another scheduler that asks for each occurrence.

use super::schedules::instant;
use crate::extract::{Document, Json, Name};
use crate::problem::Problem;
use crate::schema::{FireRequest, Fired, GiveRequest, RunSent, ScheduleEntry};
use crate::server::Shared;
use axum::extract::State;
use axum::http::StatusCode;
use celeriac_core::beat::Owner;
use celeriac_core::document::entries as document;
use celeriac_core::document::{object, time};
use celeriac_core::operate::entries::{self, Token};
use celeriac_core::{ErrorKind, clock};
use celeriac_wire::Value;
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How far ahead of our clock another scheduler's may be.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(1);
/// How long an entry that is given away waits for what is due to be run.
const GIVE_PATIENCE: Duration = Duration::from_secs(3);
/// How often that is looked at, at least.
const GIVE_EVERY: Duration = Duration::from_millis(250);

/// Run an entry now
///
/// Beside its schedule, which goes on as it was; also if it is paused or another scheduler's.
#[utoipa::path(
    post, path = "/api/v1/schedules/{name}/run", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    responses((status = 202, description = "Its task is sent", body = RunSent))
)]
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    let parts = &shared.parts;
    let kept = entries::entry(&*parts.store, &name).await?;
    let task_id = clock::task_id(&*parts.clock, &*parts.entropy);
    let prepared = parts.publisher.prepare(kept.entry.signature(&task_id)).await?;
    let (note, now) = ("run by hand", parts.clock.wall());
    entries::run_entry(&*parts.store, &name, &task_id, note, prepared.plan, now).await?;
    if let Some(afterwards) = prepared.afterwards {
        afterwards.await;
    }
    let fields = [("name", Value::from(name)), ("task_id", Value::from(task_id))];
    Ok(Document(StatusCode::ACCEPTED, object(fields)))
}

/// Ask for an occurrence, as another scheduler
///
/// 201: run it, nobody else will. `already-run` (409): it was run, the detail says by whom. `not-owner`
/// (410): the entry belongs to the one that the detail names, with its epoch. `paused` (423): nobody runs it.
/// 404: there is no such entry. One whose answer was lost is `already-run` when it is asked for again.
#[utoipa::path(
    post, path = "/api/v1/schedules/{name}/fire", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    request_body = FireRequest,
    responses((status = 201, description = "Run it", body = Fired))
)]
pub(crate) async fn fire(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: request, .. }: Json<FireRequest>,
) -> Result<Document, Problem> {
    let due = instant("scheduled_for", &request.scheduled_for).map_err(Problem::invalid)?;
    let now = shared.parts.clock.wall();
    if due.duration_since(now) > AHEAD_MAX {
        let text = format!("scheduled_for: {due} is more than a minute ahead, it is {now} here");
        return Err(Problem::invalid(text).hint("compare the clocks, and ask when it is due"));
    }
    if request.owner == Owner::BEAT {
        let text = "owner: a beat of celeriac does not ask";
        return Err(Problem::invalid(text).hint("give the name under which you own the entry"));
    }
    let store = &*shared.parts.store;
    let epoch = match request.owner_epoch {
        Some(epoch) => epoch,
        None => entries::entry(store, &name).await?.entry.owner.epoch,
    };
    let owner = Owner { name: request.owner, epoch };
    let (status, kind, text) = match entries::take_occurrence(store, &name, due, &owner, now)
        .await?
    {
        Token::Run => {
            return Ok(Document(
                StatusCode::CREATED,
                object([
                    ("name", Value::from(name)),
                    ("scheduled_for", time(Some(due))),
                    ("owner", Value::from(owner.name)),
                    ("owner_epoch", Value::from(owner.epoch)),
                ]),
            ));
        }
        Token::Already(by) => {
            (StatusCode::CONFLICT, "already-run", format!("{name:?} at {due}: {by}"))
        }
        Token::NotOwner(Owner { name: other, epoch }) => {
            let text = format!("the entry {name:?} belongs to {other}, epoch {epoch}");
            (StatusCode::GONE, "not-owner", text)
        }
        Token::Paused => (StatusCode::LOCKED, "paused", format!("the entry {name:?} is paused")),
    };
    Err(Problem::new(status, kind, text))
}

/// Give an entry to another scheduler, or to beat
///
/// The former owner is refused from now on. No occurrence is lost: beat makes up for what it finds due, and
/// before another scheduler gets the entry, what is due is waited for, for some seconds, until the former
/// owner has run it. `conflict` (409): it has not, and `next` is not that time or an earlier one.
#[utoipa::path(
    post, path = "/api/v1/schedules/{name}/give", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    request_body = GiveRequest,
    responses((status = 200, description = "It belongs to the new owner", body = ScheduleEntry))
)]
pub(crate) async fn give(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: request, .. }: Json<GiveRequest>,
) -> Result<Document, Problem> {
    let next = request.next.as_deref().map(|text| instant("next", text));
    let next = next.transpose().map_err(Problem::invalid)?;
    let (store, clock) = (&*shared.parts.store, &*shared.parts.clock);
    let deadline = Instant::now() + GIVE_PATIENCE;
    loop {
        let seen = store.changes();
        let given = entries::give_entry(store, clock, &name, &request.owner, next).await;
        let left = deadline.saturating_duration_since(Instant::now());
        match given {
            Err(error) if error.kind() == ErrorKind::Conflict && !left.is_zero() => {
                store.wait_change(seen, left.min(GIVE_EVERY)).await;
            }
            given => return Ok(Document::ok(document::entry(&given?))),
        }
    }
}
