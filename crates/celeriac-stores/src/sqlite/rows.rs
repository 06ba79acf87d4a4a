//! Rows and values: how messages, results and times stand in the tables.

use super::error::{corrupt, wrap};
use celeriac_core::dead::Attempt;
use celeriac_core::lease::Suspicion;
use celeriac_core::store::{Outgoing, ResultRecord};
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::{Headers, Message, Properties, ResultMeta, Value};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

/// `message.state` of a message that any worker may take.
pub(super) const READY: i64 = 0;
/// `message.state` of a message that waits for its time.
pub(super) const SCHEDULED: i64 = 1;
/// `message.state` of a message that a worker holds.
pub(super) const LEASED: i64 = 2;
/// `message.state` of a message that runs only where no other suspect runs.
pub(super) const SUSPECT: i64 = 3;
/// `message.state` of a message whose worker died after it was acknowledged: whoever takes it sets it
/// aside.
pub(super) const LOST: i64 = 4;

/// `message.acknowledged` of a message that the worker which holds it has acknowledged.
pub(super) const BY_ITS_WORKER: i64 = 1;
/// `message.acknowledged` of a message that a worker had acknowledged which left it behind.
pub(super) const BY_ONE_THAT_LEFT: i64 = 2;

/// `node.state` of a node whose lease stands.
pub(super) const ALIVE: i64 = 0;
/// `node.state` of a node that signed off.
pub(super) const SIGNED_OFF: i64 = 1;
/// `node.state` of a node that was found dead.
pub(super) const DIED: i64 = 2;

pub(super) fn micros(instant: Timestamp) -> i64 {
    instant.as_microsecond()
}

pub(super) fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// The state in which a message waits.
pub(super) fn waiting_state(suspicion: Suspicion) -> i64 {
    if suspicion.is_suspect() { SUSPECT } else { READY }
}

/// Takes `count` numbers from the sequence that rows and ranks share; returns the first.
pub(super) fn take_numbers(connection: &Connection, count: usize) -> Result<i64, StoreError> {
    let count = count as i64;
    let last: i64 = connection
        .prepare_cached(
            "UPDATE counter SET value = value + ?1 WHERE name = 'sequence' RETURNING value",
        )
        .and_then(|mut statement| statement.query_row([count], |row| row.get(0)))
        .map_err(wrap("number messages"))?;
    Ok(last - count + 1)
}

/// The counter of all dead letters.
pub(super) const DEAD_LETTERS: &str = "dead letters";
/// The counter of their bytes.
pub(super) const DEAD_BYTES: &str = "dead bytes";

/// Reads a counter; 0 for one that does not exist.
pub(super) fn counter(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    let value: Option<i64> = connection
        .prepare_cached("SELECT value FROM counter WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .map_err(wrap("read a counter"))?;
    Ok(value.unwrap_or(0))
}

/// Adds to a counter, which never falls below 0.
pub(super) fn change_counter(
    connection: &Connection,
    name: &str,
    by: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO counter VALUES (?1, max(?2, 0)) \
             ON CONFLICT (name) DO UPDATE SET value = max(value + ?2, 0)",
        )
        .and_then(|mut statement| statement.execute((name, by)))
        .map_err(wrap("change a counter"))?;
    Ok(())
}

/// Changes the depth of a queue.
pub(super) fn change_depth(
    connection: &Connection,
    queue: &str,
    by: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO counter VALUES ('depth:' || ?1, max(?2, 0)) \
             ON CONFLICT (name) DO UPDATE SET value = max(value + ?2, 0)",
        )
        .and_then(|mut statement| statement.execute((queue, by)))
        .map_err(wrap("count a queue's messages"))?;
    Ok(())
}

/// Deletes a message with its body and gives back the key that it held.
pub(super) fn delete_message(connection: &Connection, row: i64) -> Result<(), StoreError> {
    let fail = wrap("delete a message");
    let locks: Option<i64> = connection
        .prepare_cached("DELETE FROM message WHERE row = ?1 RETURNING locks")
        .and_then(|mut statement| statement.query_row([row], |row| row.get(0)).optional())
        .map_err(&fail)?;
    if locks.is_some_and(|locks| locks != 0) {
        super::unique::unlock(connection, row)?;
    }
    connection
        .prepare_cached("DELETE FROM message_body WHERE row = ?1")
        .and_then(|mut statement| statement.execute([row]))
        .map_err(&fail)?;
    Ok(())
}

pub(super) fn history_text(history: &[Attempt]) -> Result<Option<String>, StoreError> {
    if history.is_empty() {
        return Ok(None);
    }
    celeriac_wire::to_value(history)
        .map(|value| Some(value.to_string()))
        .map_err(|error| corrupt(format!("write a message's history: {error}")))
}

pub(super) fn history_of(text: Option<&str>) -> Result<Vec<Attempt>, StoreError> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    Value::parse(text.as_bytes())
        .and_then(celeriac_wire::from_value)
        .map_err(|error| corrupt(format!("read a message's history: {error}")))
}

pub(super) fn queue_of(name: &str) -> Result<QueueName, StoreError> {
    QueueName::parse(name).map_err(|error| corrupt(format!("read a stored queue name: {error}")))
}

/// The five columns headers, properties, content type, content encoding and body, from `first` on.
pub(super) fn message_of(row: &Row<'_>, first: usize) -> Result<Message, StoreError> {
    let fail = wrap("read a message");
    let headers: String = row.get(first).map_err(&fail)?;
    let properties: String = row.get(first + 1).map_err(&fail)?;
    let body: Vec<u8> = row.get(first + 4).map_err(&fail)?;
    Ok(Message {
        headers: Headers::parse(headers.as_bytes())
            .map_err(|error| corrupt(format!("read a message's headers: {error}")))?,
        properties: Properties::parse(properties.as_bytes())
            .map_err(|error| corrupt(format!("read a message's properties: {error}")))?,
        content_type: row.get(first + 2).map_err(&fail)?,
        content_encoding: row.get(first + 3).map_err(&fail)?,
        body: body.into(),
    })
}

/// Queue, `enqueued_at`, history and the five columns of the message, from column 0.
pub(super) fn outgoing_of(row: &Row<'_>, first: usize) -> Result<Outgoing, StoreError> {
    let fail = wrap("read a message");
    let history: Option<String> = row.get(first + 2).map_err(&fail)?;
    Ok(Outgoing {
        once: None,
        queue: queue_of(&row.get::<_, String>(first).map_err(&fail)?)?,
        message: message_of(row, first + 3)?,
        history: history_of(history.as_deref())?,
        enqueued_at: Some(instant(row.get(first + 1).map_err(&fail)?)),
    })
}

/// The columns of a result, in the order that [`record_of`] reads.
pub(super) const RECORD: &str =
    "meta, task, queue, worker, enqueued_at, started_at, written_at, retries";

pub(super) fn record_of(row: &Row<'_>) -> Result<ResultRecord, StoreError> {
    let fail = wrap("read a result");
    let meta: String = row.get("meta").map_err(&fail)?;
    let optional = |name: &str| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.get::<_, Option<i64>>(name).map_err(&fail)?.map(instant))
    };
    Ok(ResultRecord {
        meta: ResultMeta::parse(meta.as_bytes())
            .map_err(|error| corrupt(format!("read a result: {error}")))?,
        task: row.get("task").map_err(&fail)?,
        queue: row.get("queue").map_err(&fail)?,
        worker: row.get("worker").map_err(&fail)?,
        enqueued_at: optional("enqueued_at")?,
        started_at: optional("started_at")?,
        written_at: instant(row.get("written_at").map_err(&fail)?),
        retries: row.get("retries").map_err(&fail)?,
    })
}
