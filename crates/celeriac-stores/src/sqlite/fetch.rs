//! Takes ready messages and leases them.

use super::Context;
use super::error::wrap;
use super::rows::{
    ALIVE, LEASED, READY, SCHEDULED, SUSPECT, history_of, instant, message_of, micros, queue_of,
    waiting_state,
};
use celeriac_core::lease::{Lease, Suspicion};
use celeriac_core::priority::STEPS;
use celeriac_core::store::{Delivery, FetchRequest};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeSet;

/// The most scheduled messages that one fetch makes ready.
const PROMOTE_MAX: i64 = 1000;

/// Leases up to `count_max` messages for a node.
pub(super) fn fetch(
    connection: &Connection,
    context: &Context,
    request: &FetchRequest,
    turn: usize,
) -> Result<Vec<Delivery>, StoreError> {
    check_alive(connection, request)?;
    promote_due(connection, context)?;
    let queues = open_queues(connection, &request.queues, turn)?;
    let mut rows = Vec::new();
    for step in STEPS {
        for queue in &queues {
            if request.suspects && rows.iter().all(|(_, suspect)| !suspect) {
                let suspect = candidates(connection, queue, step, SUSPECT, 1)?;
                rows.extend(suspect.into_iter().map(|row| (row, true)));
            }
            let free = request.count_max.saturating_sub(rows.len());
            if free > 0 {
                let ready = candidates(connection, queue, step, READY, free)?;
                rows.extend(ready.into_iter().map(|row| (row, false)));
            }
        }
    }
    rows.truncate(request.count_max);
    let revokes = any_revoked(connection)?;
    rows.into_iter().map(|(row, _)| lease(connection, context, request, row, revokes)).collect()
}

/// A sweep looks only at nodes that are alive: what another one leased would never come back.
fn check_alive(connection: &Connection, request: &FetchRequest) -> Result<(), StoreError> {
    let state: Option<i64> = connection
        .prepare_cached("SELECT state FROM node WHERE id = ?1")
        .and_then(|mut statement| {
            statement.query_row([request.node.0], |row| row.get(0)).optional()
        })
        .map_err(wrap("look for the fetching node"))?;
    if state == Some(ALIVE) {
        return Ok(());
    }
    let what = format!("fetch for node {}, which is not alive", request.node.0);
    Err(StoreError::new(ErrorKind::Conflict, what).hint("the worker has to register anew"))
}

/// Makes due messages ready, in the order of their times.
fn promote_due(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    let fail = wrap("make scheduled messages ready");
    let now = micros(context.clock.wall());
    let mut due = connection
        .prepare_cached(
            "SELECT row, deaths_seen, deaths_counted FROM message \
             WHERE state = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
        )
        .map_err(&fail)?;
    let rows: Vec<(i64, Suspicion)> = due
        .query_map((now, PROMOTE_MAX), |row| {
            Ok((row.get(0)?, Suspicion { seen: row.get(1)?, counted: row.get(2)? }))
        })
        .and_then(Iterator::collect)
        .map_err(&fail)?;
    if rows.is_empty() {
        return Ok(());
    }
    let first = super::rows::take_numbers(connection, rows.len())?;
    for (rank, (row, suspicion)) in (first..).zip(rows) {
        connection
            .prepare_cached("UPDATE message SET state = ?2, rank = ?3 WHERE row = ?1")
            .and_then(|mut statement| statement.execute((row, waiting_state(suspicion), rank)))
            .map_err(&fail)?;
    }
    Ok(())
}

/// The queues that are not paused, beginning with another one each turn.
fn open_queues(
    connection: &Connection,
    queues: &[QueueName],
    turn: usize,
) -> Result<Vec<QueueName>, StoreError> {
    let fail = wrap("read the pauses");
    let paused: BTreeSet<String> = connection
        .prepare_cached("SELECT queue FROM pause")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(fail)?;
    let mut named = BTreeSet::new();
    let mut open: Vec<_> = queues
        .iter()
        .filter(|queue| !paused.contains(queue.as_str()) && named.insert(queue.as_str()))
        .cloned()
        .collect();
    if !open.is_empty() {
        let by = turn % open.len();
        open.rotate_left(by);
    }
    Ok(open)
}

fn candidates(
    connection: &Connection,
    queue: &QueueName,
    step: u8,
    state: i64,
    count: usize,
) -> Result<Vec<i64>, StoreError> {
    // The state is written into the text so that the partial indexes apply.
    let sql = if state == SUSPECT {
        "SELECT row FROM message WHERE state = 3 AND queue = ?1 AND step = ?2 ORDER BY rank LIMIT ?3"
    } else {
        "SELECT row FROM message WHERE state = 0 AND queue = ?1 AND step = ?2 ORDER BY rank LIMIT ?3"
    };
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement.query_map((queue.as_str(), step, count as i64), |row| row.get(0))?.collect()
        })
        .map_err(wrap("look for ready messages"))
}

fn any_revoked(connection: &Connection) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM revoked)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(wrap("read the revocations"))
}

fn lease(
    connection: &Connection,
    context: &Context,
    request: &FetchRequest,
    row: i64,
    revokes: bool,
) -> Result<Delivery, StoreError> {
    let fail = wrap("lease a message");
    // Positive, so that it reads well in a table.
    let token = (context.entropy.next_u64() >> 1) as i64;
    connection
        .prepare_cached(
            "UPDATE message SET state = ?2, node = ?3, token = ?4, started_at = NULL WHERE row = ?1",
        )
        .and_then(|mut statement| statement.execute((row, LEASED, request.node.0, token)))
        .map_err(&fail)?;
    let mut statement = connection
        .prepare_cached(
            "SELECT m.queue, m.enqueued_at, m.redelivered, m.deaths_seen, m.deaths_counted, \
             m.history, m.task_id, b.headers, b.properties, b.content_type, b.content_encoding, b.body \
             FROM message m JOIN message_body b USING (row) WHERE m.row = ?1",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([row]).map_err(&fail)?;
    let found = rows
        .next()
        .map_err(&fail)?
        .ok_or_else(|| super::error::corrupt(format!("message {row} has no body")))?;
    let history: Option<String> = found.get(5).map_err(&fail)?;
    let task_id: String = found.get(6).map_err(&fail)?;
    Ok(Delivery {
        lease: Lease { row, token },
        queue: queue_of(&found.get::<_, String>(0).map_err(&fail)?)?,
        enqueued_at: instant(found.get(1).map_err(&fail)?),
        redelivered: found.get(2).map_err(&fail)?,
        suspicion: Suspicion {
            seen: found.get(3).map_err(&fail)?,
            counted: found.get(4).map_err(&fail)?,
        },
        history: history_of(history.as_deref())?,
        message: message_of(found, 7)?,
        revoked: revokes && is_revoked(connection, context, &task_id)?,
    })
}

/// Whether a revocation of this task stands.
pub(super) fn is_revoked(
    connection: &Connection,
    context: &Context,
    task_id: &str,
) -> Result<bool, StoreError> {
    let now = micros(context.clock.wall());
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM revoked WHERE task_id = ?1 AND expires_at > ?2)",
        )
        .and_then(|mut statement| statement.query_row((task_id, now), |row| row.get(0)))
        .map_err(wrap("read a revocation"))
}

/// Notes when deliveries began to run.
pub(super) fn mark_started(
    connection: &Connection,
    started: &[(Lease, Timestamp)],
) -> Result<(), StoreError> {
    for (lease, at) in started {
        connection
            .prepare_cached("UPDATE message SET started_at = ?3 WHERE row = ?1 AND token = ?2")
            .and_then(|mut statement| statement.execute((lease.row, lease.token, micros(*at))))
            .map_err(wrap("note that a task runs"))?;
    }
    Ok(())
}

/// When the next scheduled message of these queues becomes due.
pub(super) fn next_due(
    connection: &Connection,
    queues: &[QueueName],
) -> Result<Option<Timestamp>, StoreError> {
    let fail = wrap("look for scheduled messages");
    let mut statement = connection
        .prepare_cached(
            "SELECT due_at, queue FROM message WHERE state = 1 ORDER BY due_at LIMIT 1000",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([]).map_err(&fail)?;
    let mut last = None;
    while let Some(row) = rows.next().map_err(&fail)? {
        let (due, queue): (i64, String) = (row.get(0).map_err(&fail)?, row.get(1).map_err(&fail)?);
        if queues.iter().any(|name| name.as_str() == queue) {
            return Ok(Some(instant(due)));
        }
        last = Some(instant(due));
    }
    // A thousand earlier ones belong to others: looking again then is early enough.
    Ok(last)
}

/// Whether a lease stands, with the queue of its message.
pub(super) fn held(connection: &Connection, lease: Lease) -> Result<Option<String>, StoreError> {
    connection
        .prepare_cached("SELECT queue FROM message WHERE row = ?1 AND token = ?2 AND state = 2")
        .and_then(|mut statement| {
            statement.query_row((lease.row, lease.token), |row| row.get(0)).optional()
        })
        .map_err(wrap("check a lease"))
}

const _: () = assert!(READY == 0 && SCHEDULED == 1 && LEASED == 2 && SUSPECT == 3);
