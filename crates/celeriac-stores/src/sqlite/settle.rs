//! Settles deliveries: fate, results and what follows, if the lease still stands.

use super::Context;
use super::error::wrap;
use super::fetch::held;
use super::nodes::{Mark, return_row};
use super::plan::{self, Limits};
use super::rows::{
    DEAD_BYTES, DEAD_LETTERS, change_counter, change_depth, counter, delete_message, history_of,
    history_text, micros, take_numbers, waiting_state,
};
use celeriac_core::dead::{Attempt, DeadReason, remember};
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Suspicion;
use celeriac_core::store::{Fate, Place, Settled, Settlement};
use celeriac_core::{ErrorKind, StoreError};
use rusqlite::Connection;

/// Settles one delivery.
pub(super) fn settle(
    connection: &Connection,
    context: &Context,
    settlement: Settlement,
) -> Result<Settled, StoreError> {
    let Some(queue) = held(connection, settlement.lease)? else {
        return Ok(Settled::Fenced);
    };
    let row = settlement.lease.row;
    match settlement.fate {
        Fate::Done => {
            delete_message(connection, row)?;
            change_depth(connection, &queue, -1)?;
            reach(Step::SettleAdvances);
        }
        Fate::Release { place, attempt } => {
            release(connection, row, place, attempt)?;
            reach(Step::SettleReleased);
        }
        Fate::Lost { suspicion, attempt } => lose(connection, row, suspicion, attempt)?,
        Fate::Dead { reason, detail, attempt } => {
            set_aside(connection, context, row, reason, &detail, attempt)?;
            reach(Step::SettleSetAside);
        }
    }
    plan::write(
        connection,
        context,
        settlement.plan,
        settlement.finisher.as_ref(),
        Limits::SizeOnly,
    )?;
    Ok(Settled::Done)
}

/// Puts a leased message back.
fn release(
    connection: &Connection,
    row: i64,
    place: Place,
    attempt: Option<Attempt>,
) -> Result<(), StoreError> {
    let fail = wrap("return a message");
    let (suspicion, history): (Suspicion, Option<String>) = connection
        .prepare_cached("SELECT deaths_seen, deaths_counted, history FROM message WHERE row = ?1")
        .and_then(|mut statement| {
            statement.query_row([row], |row| {
                Ok((Suspicion { seen: row.get(0)?, counted: row.get(1)? }, row.get(2)?))
            })
        })
        .map_err(&fail)?;
    let mut history = history_of(history.as_deref())?;
    let begun = attempt.is_some();
    if let Some(attempt) = attempt {
        remember(&mut history, attempt);
    }
    let rank = match place {
        Place::Head => None,
        Place::Tail => Some(take_numbers(connection, 1)?),
    };
    connection
        .prepare_cached(
            "UPDATE message SET state = iif(acknowledged >= ?6, 4, ?2), \
             acknowledged = iif(acknowledged >= ?6, 2, 0), node = NULL, token = NULL, started_at = NULL, \
             rank = coalesce(?3, rank), history = ?4, redelivered = redelivered OR ?5 WHERE row = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                waiting_state(suspicion),
                rank,
                history_text(&history).unwrap_or_default(),
                begun,
                Mark::Taken.least(),
            ])
        })
        .map_err(&fail)?;
    Ok(())
}

/// Puts a message back whose child died, with the death on its record.
fn lose(
    connection: &Connection,
    row: i64,
    suspicion: Suspicion,
    attempt: Attempt,
) -> Result<(), StoreError> {
    let history: Option<String> = connection
        .prepare_cached("SELECT history FROM message WHERE row = ?1")
        .and_then(|mut statement| statement.query_row([row], |row| row.get(0)))
        .map_err(wrap("return a message"))?;
    let mut history = history_of(history.as_deref())?;
    remember(&mut history, attempt);
    return_row(connection, row, suspicion, history_text(&history)?.as_deref(), Mark::Taken)
}

/// Refuses one dead letter too many: the failure waits with its lease, nothing is dropped.
fn check_room(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    let limits = &context.limits;
    let letters = counter(connection, DEAD_LETTERS)?.unsigned_abs();
    let bytes = counter(connection, DEAD_BYTES)?.unsigned_abs();
    let what = if letters >= limits.dead_letters_max {
        format!("there are {letters} dead letters, the limit is {}", limits.dead_letters_max)
    } else if bytes >= limits.dead_bytes_max {
        format!("the dead letters have {bytes} bytes, the limit is {}", limits.dead_bytes_max)
    } else {
        return Ok(());
    };
    let hint = "replay or discard some (`celeriac dead list`), or raise dead_letters_max and \
                dead_bytes_max";
    Err(StoreError::new(ErrorKind::DeadFull, what).hint(hint))
}

/// Makes a message a dead letter.
pub(super) fn set_aside(
    connection: &Connection,
    context: &Context,
    row: i64,
    reason: DeadReason,
    detail: &str,
    attempt: Option<Attempt>,
) -> Result<(), StoreError> {
    check_room(connection, context)?;
    let fail = wrap("set a message aside");
    let (queue, history): (String, Option<String>) = connection
        .prepare_cached("SELECT queue, history FROM message WHERE row = ?1")
        .and_then(|mut statement| statement.query_row([row], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(&fail)?;
    // A history that cannot be read must not keep its message from being set aside.
    let mut history = history_of(history.as_deref()).unwrap_or_default();
    if let Some(attempt) = attempt {
        remember(&mut history, attempt);
    }
    let bytes: i64 = connection
        .prepare_cached(
            "INSERT INTO dead (queue, task_id, task, reason, detail, died_at, enqueued_at, history, \
             headers, properties, content_type, content_encoding, body, bytes) \
             SELECT m.queue, m.task_id, m.task, ?2, ?3, ?4, m.enqueued_at, ?5, \
             coalesce(b.headers, ''), coalesce(b.properties, ''), coalesce(b.content_type, ''), \
             coalesce(b.content_encoding, ''), coalesce(b.body, x''), \
             coalesce(octet_length(b.headers) + octet_length(b.properties) \
             + octet_length(b.body), 0) + octet_length(?5) \
             FROM message m LEFT JOIN message_body b USING (row) WHERE m.row = ?1 RETURNING bytes",
        )
        .and_then(|mut statement| {
            let params = rusqlite::params![
                row,
                reason.as_str(),
                detail,
                micros(context.clock.wall()),
                history_text(&history).unwrap_or_default().unwrap_or_else(|| "[]".to_owned()),
            ];
            statement.query_row(params, |row| row.get(0))
        })
        .map_err(&fail)?;
    change_counter(connection, DEAD_LETTERS, 1)?;
    change_counter(connection, DEAD_BYTES, bytes)?;
    delete_message(connection, row)?;
    change_depth(connection, &queue, -1)
}
