//! Entries of the schedule: looks at them, makes, changes and removes them.

use super::bounded;
use crate::extract::{Document, Json, Name, Query};
use crate::problem::Problem;
use crate::schema::{
    EntryChange, EntryRequest, HistoryQuery, NextQuery, NextTimes, OccurrenceList, ScheduleEntry,
    ScheduleList, ScheduleQuery,
};
use crate::server::Shared;
use axum::extract::State;
use axum::http::StatusCode;
use celeriac_core::StoreError;
use celeriac_core::beat::Entry;
use celeriac_core::clock::between;
use celeriac_core::document::entries as document;
use celeriac_core::document::{count, object, time};
use celeriac_core::operate::entries::{self, Kept};
use celeriac_core::schedule::Zone;
use celeriac_wire::{Map, Value, parse_iso};
use jiff::Timestamp;
use std::sync::Arc;

/// The next times that are shown if no number is said.
const TIMES: usize = 10;
/// The fields of an entry that only celeriac writes.
const OURS: [&str; 3] = ["source", "original", "owner_epoch"];

/// An ISO 8601 instant of a request, as precise as it is kept.
pub(super) fn instant(field: &str, text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{field}: {text:?} is no instant; write it as 2026-12-31T23:00:00Z");
    let instant = parse_iso(text).map_err(|_| wrong())?;
    Timestamp::from_microsecond(instant.as_microsecond()).map_err(|_| wrong())
}

/// The entry as it stands now.
fn answer(status: StatusCode, kept: &Kept) -> Document {
    Document(status, document::entry(kept))
}

/// Takes out the name, which a request about an entry may repeat; what else it may not say is refused.
fn without_name(name: &str, mut fields: Map, ours: &[&str]) -> Result<Map, Problem> {
    if let Some(other) = fields.remove("name").filter(|other| other.as_str() != Some(name)) {
        let text = format!("the entry is {name:?} and keeps its name, it does not become {other}");
        return Err(Problem::invalid(text).hint("remove it and add it under the other name"));
    }
    refuse(&fields, ours)?;
    Ok(fields)
}

fn refuse(fields: &Map, ours: &[&str]) -> Result<(), Problem> {
    match ours.iter().find(|name| fields.get(name).is_some()) {
        None => Ok(()),
        Some(name @ (&"owner" | &"owner_epoch")) => {
            let text = format!("{name}: an entry that is there changes its owner by itself");
            Err(Problem::invalid(text).hint("use POST /api/v1/schedules/{name}/give"))
        }
        Some(name) => Err(Problem::invalid(format!("{name}: it is celeriac that says so"))),
    }
}

fn read(fields: Map, zone: &Zone) -> Result<Entry, StoreError> {
    Entry::from_value(&Value::Object(fields), zone)
        .map_err(|error| StoreError::invalid(error.to_string()))
}

/// List entries
///
/// In the order of their names, with their next times.
#[utoipa::path(
    get, path = "/api/v1/schedules", tag = "schedules", security(("token" = ["viewer"])),
    params(ScheduleQuery),
    responses((status = 200, description = "A page of entries", body = ScheduleList))
)]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<ScheduleQuery>,
) -> Result<Document, Problem> {
    let store = &shared.parts.store;
    let limit = bounded(query.limit, super::PAGE, super::PAGE_MAX)?;
    let records = store.entries(query.after.as_deref().unwrap_or_default(), limit).await?;
    let last = records.last().filter(|_| records.len() == limit);
    let next = last.map_or(Value::Null, |last| Value::from(last.name.as_str()));
    let (mut items, mut unreadable) = (Vec::new(), Vec::new());
    for record in &records {
        match Kept::read(record) {
            Ok(kept) => items.push(document::entry(&kept)),
            Err(error) => unreadable.push(object([
                ("name", Value::from(record.name.as_str())),
                ("error", Value::from(error.to_string())),
            ])),
        }
    }
    Ok(Document::ok(object([
        ("items", Value::Array(items)),
        ("unreadable", Value::Array(unreadable)),
        ("next", next),
        ("total", count(store.entry_count().await?)),
        ("leader", document::leader(store.leader().await?.as_ref())),
    ])))
}

/// Add an entry
///
/// A beat acts on it within a second. With another scheduler as its `owner` it is that one that runs it.
#[utoipa::path(
    post, path = "/api/v1/schedules", tag = "schedules", security(("token" = ["operator"])),
    request_body = EntryRequest,
    responses((status = 201, description = "It is there", body = ScheduleEntry))
)]
pub(crate) async fn add(
    State(shared): State<Arc<Shared>>,
    Json { value: mut fields, .. }: Json<Map>,
) -> Result<Document, Problem> {
    refuse(&fields, &OURS)?;
    let next = match fields.remove("next") {
        None | Some(Value::Null) => None,
        Some(next) => {
            let text = next.as_str().map_or_else(|| next.to_string(), str::to_owned);
            Some(instant("next", &text).map_err(Problem::invalid)?)
        }
    };
    let entry = read(fields, &shared.options.zone)?;
    let now = shared.parts.clock.wall();
    let kept = entries::add_entry(&*shared.parts.store, entry, next, now).await?;
    Ok(answer(StatusCode::CREATED, &kept))
}

/// Show an entry
///
/// With its latest occurrence, where the task of that is, and the beat that leads.
#[utoipa::path(
    get, path = "/api/v1/schedules/{name}", tag = "schedules", security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "The entry's name")),
    responses((status = 200, description = "How it stands", body = ScheduleEntry))
)]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    let store = &shared.parts.store;
    let kept = entries::entry(&**store, &name).await?;
    let latest = store.occurrences(&name, Timestamp::MAX, 1).await?.into_iter().next();
    let phase = match latest.as_ref().and_then(|one| one.task_id.as_deref()) {
        Some(task_id) => Some(store.task(task_id).await?.phase),
        None => None,
    };
    let mut value = document::entry(&kept);
    if let Some(fields) = value.as_object_mut() {
        let latest = latest.map(|one| document::occurrence(&one, phase.as_ref()));
        fields.insert("latest", latest.unwrap_or(Value::Null));
        fields.insert("leader", document::leader(store.leader().await?.as_ref()));
        fields.insert("edited", kept.is_edited());
    }
    Ok(Document::ok(value))
}

/// Replace an entry
///
/// What is left out is as in a new entry. Its owner, its history and whether it is paused stay; its next time
/// changes only if its times do.
#[utoipa::path(
    put, path = "/api/v1/schedules/{name}", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    request_body = EntryRequest,
    responses((status = 200, description = "It is so now", body = ScheduleEntry))
)]
pub(crate) async fn replace(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: fields, .. }: Json<Map>,
) -> Result<Document, Problem> {
    let ours = [&OURS[..], &["owner", "next"]].concat();
    let mut fields = without_name(&name, fields, &ours)?;
    fields.insert("name", name.as_str());
    let says_enabled = fields.get("enabled").is_some_and(|value| !value.is_null());
    let entry = read(fields, &shared.options.zone)?;
    let now = shared.parts.clock.wall();
    let replaced = entries::change_entry(&*shared.parts.store, &name, now, |kept| {
        let old = kept.entry.clone();
        let enabled = if says_enabled { entry.enabled } else { old.enabled };
        kept.entry = Entry { enabled, owner: old.owner, source: old.source, ..entry.clone() };
        Ok(())
    });
    Ok(answer(StatusCode::OK, &replaced.await?))
}

/// Change an entry
///
/// Only the fields that are given; each of them as a whole. Its next time changes only if its times do.
#[utoipa::path(
    patch, path = "/api/v1/schedules/{name}", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    request_body = EntryChange,
    responses((status = 200, description = "It is so now", body = ScheduleEntry))
)]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: given, .. }: Json<Map>,
) -> Result<Document, Problem> {
    let ours = [&OURS[..], &["owner", "next"]].concat();
    let mut given = without_name(&name, given, &ours)?;
    // A limit belongs to the rule that it was given with.
    if given.get("misfire").is_some() && given.get("misfire_limit").is_none() {
        given.insert("misfire_limit", Value::Null);
    }
    let now = shared.parts.clock.wall();
    let changed = entries::change_entry(&*shared.parts.store, &name, now, |kept| {
        let mut fields = kept.entry.to_value().as_object().cloned().unwrap_or_default();
        for (field, value) in given.iter() {
            fields.insert(field, value.clone());
        }
        kept.entry = read(fields, &shared.options.zone)?;
        Ok(())
    });
    Ok(answer(StatusCode::OK, &changed.await?))
}

/// Remove an entry
///
/// What it has sent stays sent.
#[utoipa::path(
    delete, path = "/api/v1/schedules/{name}", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn remove(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    entries::remove_entry(&*shared.parts.store, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause an entry
///
/// Nobody runs it; what was sent goes on. No error where it is paused already.
#[utoipa::path(
    post, path = "/api/v1/schedules/{name}/pause", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    responses((status = 200, description = "It is paused", body = ScheduleEntry))
)]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    enable(&shared, &name, false).await
}

/// Resume an entry
///
/// What passed meanwhile is dealt with as its misfire rule says. No error where it is not paused.
#[utoipa::path(
    post, path = "/api/v1/schedules/{name}/resume", tag = "schedules", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "The entry's name")),
    responses((status = 200, description = "It goes on", body = ScheduleEntry))
)]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
) -> Result<Document, Problem> {
    enable(&shared, &name, true).await
}

async fn enable(shared: &Shared, name: &str, enabled: bool) -> Result<Document, Problem> {
    let now = shared.parts.clock.wall();
    let changed = entries::change_entry(&*shared.parts.store, name, now, |kept| {
        kept.entry.enabled = enabled;
        Ok(())
    });
    Ok(answer(StatusCode::OK, &changed.await?))
}

/// The next times of an entry
///
/// As if it were not paused.
#[utoipa::path(
    get, path = "/api/v1/schedules/{name}/next", tag = "schedules", security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "The entry's name"), NextQuery),
    responses((status = 200, description = "The times", body = NextTimes))
)]
pub(crate) async fn next(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Query(query): Query<NextQuery>,
) -> Result<Document, Problem> {
    let count = bounded(query.count, TIMES, super::PAGE_MAX)?;
    let zone = match &query.tz {
        None => None,
        Some(name) => {
            Some(Zone::named(name).map_err(|error| Problem::bad_request(format!("tz: {error}")))?)
        }
    };
    let kept = entries::entry(&*shared.parts.store, &name).await?;
    let zone = zone.unwrap_or_else(|| kept.entry.zone.clone());
    let now = shared.parts.clock.wall();
    let item = |at: Timestamp| {
        let local = at.to_zoned(zone.timezone().clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z");
        object([
            ("utc", time(Some(at))),
            ("local", Value::from(local.to_string())),
            ("in", Value::from(between(now, at).as_secs_f64())),
        ])
    };
    let items = kept.next_times(now).take(count).map(item).collect();
    Ok(Document::ok(object([("items", Value::Array(items)), ("zone", Value::from(zone.name()))])))
}

/// What was fired of an entry
///
/// Latest first, also of an entry that was removed, for as long as it is kept.
#[utoipa::path(
    get, path = "/api/v1/schedules/{name}/history", tag = "schedules",
    security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "The entry's name"), HistoryQuery),
    responses((status = 200, description = "A page of occurrences", body = OccurrenceList))
)]
pub(crate) async fn history(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Query(query): Query<HistoryQuery>,
) -> Result<Document, Problem> {
    let limit = bounded(query.limit, super::PAGE, super::PAGE_MAX)?;
    let before = match &query.before {
        None => Timestamp::MAX,
        Some(text) => instant("before", text).map_err(Problem::bad_request)?,
    };
    let store = &*shared.parts.store;
    let lines = store.occurrences(&name, before, limit).await?;
    if lines.is_empty() {
        // A name that nobody knows is an error, one that has not run an empty list.
        entries::entry(store, &name).await?;
    }
    let last = lines.last().filter(|_| lines.len() == limit);
    let items = lines.iter().map(|one| document::occurrence(one, None)).collect();
    let next = time(last.map(|last| last.due));
    Ok(Document::ok(object([("items", Value::Array(items)), ("next", next)])))
}
