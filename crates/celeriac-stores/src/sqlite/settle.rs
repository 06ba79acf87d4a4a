//! Settles deliveries: fate, results and what follows, if the lease still stands.

use super::Context;
use super::error::wrap;
use super::fetch::held;
use super::plan::{self, Limits};
use super::rows::{
    change_depth, delete_message, history_of, history_text, micros, take_numbers, waiting_state,
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
            "UPDATE message SET state = ?2, node = NULL, token = NULL, started_at = NULL, \
             rank = coalesce(?3, rank), history = ?4, redelivered = redelivered OR ?5 WHERE row = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                waiting_state(suspicion),
                rank,
                history_text(&history).unwrap_or_default(),
                begun,
            ])
        })
        .map_err(&fail)?;
    Ok(())
}

/// Refuses one dead letter too many: the failure waits with its lease, nothing is dropped.
fn check_room(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    let fail = wrap("count the dead letters");
    let max = context.limits.dead_letters_max;
    // Two looks at the ends of the table; only near the bound are the letters counted.
    let mut count: i64 = connection
        .prepare_cached(
            "SELECT coalesce((SELECT max(number) FROM dead) - (SELECT min(number) FROM dead) + 1, 0)",
        )
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(&fail)?;
    if count.unsigned_abs() >= max {
        count = connection
            .prepare_cached("SELECT count(*) FROM dead")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(&fail)?;
    }
    if count.unsigned_abs() < max {
        return Ok(());
    }
    let what = format!("there are {count} dead letters, the limit is {max}");
    Err(StoreError::new(ErrorKind::Full, what)
        .hint("replay or discard some (`celeriac dead list`), or raise dead_letters_max"))
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
    let mut history = history_of(history.as_deref())?;
    if let Some(attempt) = attempt {
        remember(&mut history, attempt);
    }
    connection
        .prepare_cached(
            "INSERT INTO dead (queue, task_id, task, reason, detail, died_at, enqueued_at, history, \
             headers, properties, content_type, content_encoding, body) \
             SELECT m.queue, m.task_id, m.task, ?2, ?3, ?4, m.enqueued_at, ?5, b.headers, \
             b.properties, b.content_type, b.content_encoding, b.body \
             FROM message m JOIN message_body b USING (row) WHERE m.row = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                reason.as_str(),
                detail,
                micros(context.clock.wall()),
                history_text(&history).unwrap_or_default().unwrap_or_else(|| "[]".to_owned()),
            ])
        })
        .map_err(&fail)?;
    delete_message(connection, row)?;
    change_depth(connection, &queue, -1)
}
