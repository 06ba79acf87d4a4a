//! Writes a plan: messages, results, chord starts and chord parts, in one transaction.

use super::Context;
use super::error::wrap;
use super::lanes::lane_of;
use super::moves;
use super::rows::{READY, SCHEDULED, change_depth, history_text, micros, take_numbers};
use super::rules;
use super::unique::{self, Locked};
use crate::rules::Rules;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::limits::{CHORD_CASCADE_MAX, TASK_ID_BYTES_MAX};
use celeriac_core::store::{
    ChordDone, ChordFinisher, ChordPart, Duplicate, Outgoing, Plan, Published, ResultRecord,
};
use celeriac_core::throttle::{KEY_BYTES_MAX, KEY_HEADER};
use celeriac_core::unique::{Unique, may_be_dropped};
use celeriac_core::{ErrorKind, StoreError, priority, state};
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Headers, Signature, State, Value};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeMap;

/// Writes everything of a plan, and what follows the chords it completes.
pub(super) fn write(
    connection: &Connection,
    context: &Context,
    plan: Plan,
    finisher: Option<&ChordFinisher>,
    limits: Limits,
) -> Result<Published, StoreError> {
    let mut next = Some(plan);
    let mut published = Published::default();
    for level in 0..CHORD_CASCADE_MAX {
        let Some(mut plan) = next.take() else {
            return Ok(published);
        };
        if let Some(routed) = plan.routed.first() {
            let name = &routed.exchange.name;
            return Err(StoreError::invalid(format!(
                "a message for exchange {name:?} cannot be sent: this store has no exchanges"
            )));
        }
        let duplicates = publish(connection, context, &plan.publish, limits)?;
        if level == 0 {
            published.duplicates = duplicates;
        }
        for record in &plan.results {
            store_result(connection, context, record)?;
        }
        let mut complete = Vec::new();
        for chord in &plan.chords {
            complete.extend(start_chord(connection, context, &chord.group, chord.size)?);
        }
        for part in std::mem::take(&mut plan.parts) {
            complete.extend(count_part(connection, context, &part)?);
        }
        for done in &complete {
            let follows = finisher.map(|finish| finish(done)).unwrap_or_default();
            next.get_or_insert_with(Plan::default).extend(follows);
        }
    }
    match next {
        None => Ok(published),
        Some(_) => Err(StoreError::new(
            ErrorKind::Internal,
            format!("more than {CHORD_CASCADE_MAX} nested chords completed at once"),
        )),
    }
}

/// How much a message may grow while it lives: a retry adds an eta and counts up.
const RETRY_ROOM: usize = 1024;

/// Whether the limits of a publisher are enforced: what a worker sends on behalf of work that was
/// accepted already (retries, next steps) must not be lost to a depth limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limits {
    /// A client: size, depth and uniqueness.
    Enforced,
    /// An operator who puts something back: it must not vanish as a duplicate.
    NotUnique,
    /// A beat: size and uniqueness.
    NoDepth,
    /// A worker.
    SizeOnly,
}

fn publish(
    connection: &Connection,
    context: &Context,
    batch: &[Outgoing],
    limits: Limits,
) -> Result<Vec<Duplicate>, StoreError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut per_queue: BTreeMap<&str, i64> = BTreeMap::new();
    for outgoing in batch {
        *per_queue.entry(outgoing.queue.as_str()).or_default() += 1;
    }
    if !matches!(limits, Limits::SizeOnly | Limits::NoDepth) {
        check_depth(connection, context, &per_queue)?;
    }
    let rules = rules::load(connection)?;
    let first = take_numbers(connection, batch.len())?;
    let mut duplicates = Vec::new();
    for (index, outgoing) in batch.iter().enumerate() {
        let row = first + index as i64;
        if let Some(task_id) = moves::sent_before(connection, context, outgoing)? {
            duplicates.push(Duplicate { index, task_id });
            *per_queue.entry(outgoing.queue.as_str()).or_default() -= 1;
            continue;
        }
        match insert(connection, context, &rules, row, outgoing, limits)? {
            None => {}
            Some(task_id) => {
                duplicates.push(Duplicate { index, task_id });
                *per_queue.entry(outgoing.queue.as_str()).or_default() -= 1;
            }
        }
    }
    for (queue, count) in per_queue {
        change_depth(connection, queue, count)?;
    }
    Ok(duplicates)
}

/// The key that limits are counted for, if the message has one.
fn key_of(headers: &Headers) -> Result<&str, StoreError> {
    let key = headers.get(KEY_HEADER).and_then(Value::as_str).unwrap_or_default();
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a key has {} bytes, at most {KEY_BYTES_MAX} are allowed",
            key.len()
        )));
    }
    Ok(key)
}

fn check_depth(
    connection: &Connection,
    context: &Context,
    per_queue: &BTreeMap<&str, i64>,
) -> Result<(), StoreError> {
    for (queue, count) in per_queue {
        let depth: i64 = connection
            .prepare_cached("SELECT value FROM counter WHERE name = 'depth:' || ?1")
            .and_then(|mut statement| statement.query_row([queue], |row| row.get(0)).optional())
            .map_err(wrap("read a queue's depth"))?
            .unwrap_or(0);
        let max = context.limits.queue_depth_max;
        if u64::try_from(depth.saturating_add(*count)).unwrap_or(0) > max {
            return Err(StoreError::new(
                ErrorKind::Full,
                format!("queue {queue} holds {depth} messages, its limit is {max}"),
            )
            .hint("start more workers, purge the queue, or raise queue_depth_max"));
        }
    }
    Ok(())
}

/// Writes a message; the answer is the task that already holds its key, if it is unique.
fn insert(
    connection: &Connection,
    context: &Context,
    rules: &Rules,
    row: i64,
    outgoing: &Outgoing,
    limits: Limits,
) -> Result<Option<String>, StoreError> {
    let message = &outgoing.message;
    let headers = message.headers.to_json();
    let properties = message.properties.to_json();
    // An older message has in its body what is decided by before it is delivered.
    let older = (!message.is_protocol_2()).then(|| codec::read(message, Accept::default()));
    let old = older.and_then(Result::ok).and_then(|read| read.upgraded);
    let known = &old.as_ref().unwrap_or(message).headers;
    let id = known.id().unwrap_or_default();
    let task = known.task().unwrap_or_default();
    let bytes = headers.len() + properties.len() + message.body.len();
    check_size(context, id, bytes, limits)?;
    // An unreadable eta is found by the worker, which sets the message aside with its bytes.
    let due = known.eta().ok().flatten().filter(|eta| *eta > context.clock.wall());
    let state = if due.is_some() { SCHEDULED } else { READY };
    let key = key_of(&message.headers)?;
    let in_lane = !key.is_empty() || rules.restricts(outgoing.queue.as_str(), task);
    // What had a life before is put back: it must not vanish as a duplicate.
    let new =
        matches!(limits, Limits::Enforced | Limits::NoDepth) && outgoing.enqueued_at.is_none();
    let locks = match Unique::of(&message.headers) {
        None => 0,
        Some(wish) => match unique::lock(connection, context, &wish, (id, row), new)? {
            Locked::Held(until) => until,
            Locked::Taken(holder) if new && may_be_dropped(&message.headers) => {
                return Ok(Some(holder));
            }
            // It runs beside the holder of the key, and holds nothing itself.
            Locked::Taken(_) => 0,
        },
    };
    let lane = if in_lane { lane_of(connection, outgoing.queue.as_str(), task, key)? } else { 0 };
    let enqueued_at = outgoing.enqueued_at.unwrap_or_else(|| context.clock.wall());
    let fail = wrap("enqueue a message");
    connection
        .prepare_cached(
            "INSERT INTO message (row, queue, step, rank, state, due_at, enqueued_at, task_id, \
             task, retries, history, lane, locks) \
             VALUES (?1, ?2, ?3, ?1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                outgoing.queue.as_str(),
                priority::step(message.properties.priority()),
                state,
                due.map(micros),
                micros(enqueued_at),
                id,
                task,
                known.retries(),
                history_text(&outgoing.history).unwrap_or_default(),
                lane,
                locks,
            ])
        })
        .map_err(&fail)?;
    connection
        .prepare_cached("INSERT INTO message_body VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                headers,
                properties,
                message.content_type,
                message.content_encoding,
                &message.body[..],
            ])
        })
        .map_err(&fail)?;
    Ok(None)
}

pub(super) fn check_size(
    context: &Context,
    id: &str,
    bytes: usize,
    limits: Limits,
) -> Result<(), StoreError> {
    if id.len() > TASK_ID_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a task id has {} bytes, at most {TASK_ID_BYTES_MAX} are allowed",
            id.len()
        )));
    }
    let max = context.limits.message_bytes_max;
    let room = if limits == Limits::SizeOnly { RETRY_ROOM } else { 0 };
    if bytes > max.saturating_add(room) {
        return Err(StoreError::new(
            ErrorKind::TooLarge,
            format!("the message of task {id} has {bytes} bytes, the limit is {max}"),
        )
        .hint("store large data elsewhere and send its address, or raise message_bytes_max"));
    }
    Ok(())
}

/// Stores a result where its state may stand; `false` where it may not.
pub(super) fn store_result(
    connection: &Connection,
    context: &Context,
    record: &ResultRecord,
) -> Result<bool, StoreError> {
    let id = record.meta.task_id().unwrap_or_default();
    let fail = wrap("store a result");
    let current: Option<String> = connection
        .prepare_cached("SELECT status FROM result WHERE task_id = ?1")
        .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
        .map_err(&fail)?;
    let next = record.meta.state();
    if current.is_some_and(|current| !state::may_overwrite(&State::parse(&current), &next)) {
        return Ok(false);
    }
    let text = String::from_utf8(record.meta.to_bytes())
        .map_err(|error| StoreError::invalid(format!("the result of {id} is not text: {error}")))?;
    let max = context.limits.result_bytes_max;
    if text.len() > max {
        return Err(StoreError::new(
            ErrorKind::TooLarge,
            format!("the result of task {id} has {} bytes, the limit is {max}", text.len()),
        )
        .hint("store large data elsewhere and return its address, or raise result_bytes_max"));
    }
    let expires = context.limits.result_expires.filter(|_| next.is_ready());
    let expires = expires.map(|span| micros(celeriac_core::clock::after(record.written_at, span)));
    connection
        .prepare_cached(
            "INSERT INTO result (task_id, status, meta, task, queue, worker, enqueued_at, \
             started_at, written_at, retries, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (task_id) DO UPDATE SET status = excluded.status, meta = excluded.meta, \
             task = coalesce(excluded.task, task), queue = coalesce(excluded.queue, queue), \
             worker = excluded.worker, enqueued_at = coalesce(excluded.enqueued_at, enqueued_at), \
             started_at = excluded.started_at, written_at = excluded.written_at, \
             retries = excluded.retries, expires_at = excluded.expires_at",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                id,
                next.as_str(),
                text,
                record.task,
                record.queue,
                record.worker,
                record.enqueued_at.map(micros),
                record.started_at.map(micros),
                micros(record.written_at),
                record.retries,
                expires,
            ])
        })
        .map_err(&fail)?;
    Ok(true)
}

/// Notes a chord's size; returns its parts if all of them came before.
fn start_chord(
    connection: &Connection,
    context: &Context,
    group: &str,
    size: u32,
) -> Result<Option<ChordDone>, StoreError> {
    let complete: bool = connection
        .prepare_cached(
            "INSERT INTO chord (grp, size, created_at) VALUES (?1, ?2, ?3) \
             ON CONFLICT (grp) DO UPDATE SET size = excluded.size \
             RETURNING done = 0 AND counted > 0 AND counted >= size",
        )
        .and_then(|mut statement| {
            statement.query_row((group, size, micros(context.clock.wall())), |row| row.get(0))
        })
        .map_err(wrap("start a chord"))?;
    if complete { finish_chord(connection, group).map(Some) } else { Ok(None) }
}

/// Counts a finished member, once per task id; returns the parts when it was the last.
fn count_part(
    connection: &Connection,
    context: &Context,
    part: &ChordPart,
) -> Result<Option<ChordDone>, StoreError> {
    let fail = wrap("count a chord's part");
    let done: Option<bool> = connection
        .prepare_cached("SELECT done FROM chord WHERE grp = ?1")
        .and_then(|mut statement| statement.query_row([&part.group], |row| row.get(0)).optional())
        .map_err(&fail)?;
    match done {
        Some(true) => return Ok(None),
        Some(false) => {}
        None => {
            connection
                .prepare_cached("INSERT INTO chord (grp, created_at) VALUES (?1, ?2)")
                .and_then(|mut statement| {
                    statement.execute((&part.group, micros(context.clock.wall())))
                })
                .map_err(&fail)?;
        }
    }
    let new = connection
        .prepare_cached("INSERT OR IGNORE INTO chord_part VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                part.group,
                part.task_id,
                part.index,
                part.state.as_str(),
                part.result.to_string(),
                Value::Object(part.body.clone().into_map()).to_string(),
            ])
        })
        .map_err(&fail)?;
    if new == 0 {
        return Ok(None);
    }
    // Counted in the chord's row: counting the parts each time would take the square of their number.
    let complete: bool = connection
        .prepare_cached(
            "UPDATE chord SET counted = counted + 1, created_at = ?2 WHERE grp = ?1 \
             RETURNING size IS NOT NULL AND counted >= size",
        )
        .and_then(|mut statement| {
            let now = micros(context.clock.wall());
            statement.query_row((&part.group, now), |row| row.get(0))
        })
        .map_err(&fail)?;
    if complete { finish_chord(connection, &part.group).map(Some) } else { Ok(None) }
}

fn finish_chord(connection: &Connection, group: &str) -> Result<ChordDone, StoreError> {
    reach(Step::ChordCompleted);
    let fail = wrap("complete a chord");
    let corrupt = |error: &dyn std::fmt::Display| {
        super::error::corrupt(format!("read a part of chord {group}: {error}"))
    };
    let mut statement = connection
        .prepare_cached(
            "SELECT task_id, idx, state, result, body FROM chord_part WHERE grp = ?1 ORDER BY idx",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([group]).map_err(&fail)?;
    let mut parts = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let text = |index: usize| row.get::<_, String>(index).map_err(&fail);
        let value = |text: String| Value::parse(text.as_bytes()).map_err(|error| corrupt(&error));
        parts.push(ChordPart {
            group: group.to_owned(),
            task_id: text(0)?,
            index: row.get(1).map_err(&fail)?,
            state: State::parse(&text(2)?),
            result: value(text(3)?)?,
            body: Signature::from_value(value(text(4)?)?).map_err(|error| corrupt(&error))?,
        });
    }
    for sql in ["DELETE FROM chord_part WHERE grp = ?1", "UPDATE chord SET done = 1 WHERE grp = ?1"]
    {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([group]))
            .map_err(&fail)?;
    }
    Ok(ChordDone { parts, layout: None })
}
