//! The event history, in a file of its own that is never waited for.

use super::error::{corrupt, wrap};
use celeriac_core::StoreError;
use celeriac_core::store::StampedEvent;
use celeriac_wire::{Event, Value};
use rusqlite::{Connection, Row};

/// Old events are deleted this many at a time.
const TRIM: u64 = 1000;

pub(super) fn emit(
    connection: &Connection,
    events: &[Event],
    events_max: u64,
) -> Result<(), StoreError> {
    let fail = wrap("store events");
    for event in events {
        let body = String::from_utf8_lossy(&event.to_bytes()).into_owned();
        connection
            .prepare_cached("INSERT INTO event (task_id, body) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((event.uuid(), body)))
            .map_err(&fail)?;
    }
    let newest = connection.last_insert_rowid().unsigned_abs();
    if newest > events_max && newest % TRIM < events.len() as u64 {
        connection
            .prepare_cached("DELETE FROM event WHERE number <= ?1")
            .and_then(|mut statement| statement.execute([newest.saturating_sub(events_max) as i64]))
            .map_err(&fail)?;
    }
    Ok(())
}

pub(super) fn since(
    connection: &Connection,
    after: i64,
    count_max: usize,
) -> Result<Vec<StampedEvent>, StoreError> {
    let fail = wrap("read events");
    let mut statement = connection
        .prepare_cached("SELECT number, body FROM event WHERE number > ?1 ORDER BY number LIMIT ?2")
        .map_err(&fail)?;
    let mut rows = statement.query((after, count_max as i64)).map_err(&fail)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        events.push(stamped(row)?);
    }
    Ok(events)
}

pub(super) fn of_task(
    connection: &Connection,
    task_id: &str,
) -> Result<Vec<StampedEvent>, StoreError> {
    let fail = wrap("read a task's events");
    let mut statement = connection
        .prepare_cached(
            "SELECT number, body FROM event WHERE task_id = ?1 ORDER BY number LIMIT 1000",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([task_id]).map_err(&fail)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        events.push(stamped(row)?);
    }
    Ok(events)
}

fn stamped(row: &Row<'_>) -> Result<StampedEvent, StoreError> {
    let fail = wrap("read an event");
    let text: String = row.get(1).map_err(&fail)?;
    let value = Value::parse(text.as_bytes())
        .map_err(|error| corrupt(format!("read an event: {error}")))?;
    let map = match value {
        Value::Object(map) => map,
        other => return Err(corrupt(format!("an event is {}", other.describe()))),
    };
    Ok(StampedEvent { number: row.get(0).map_err(&fail)?, event: Event::from_map(map) })
}
