//! The event history, in a file of its own that is never waited for, and the live stream of it.

use super::bell::Bell;
use super::error::{corrupt, wrap};
use super::writer::Durability::Relaxed;
use super::{Reader, SqliteStore, read};
use async_trait::async_trait;
use celeriac_core::StoreError;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{EventStream, Events, StampedEvent};
use celeriac_wire::{Event, Value};
use rusqlite::{Connection, OptionalExtension as _, Row};
use std::sync::Arc;
use std::time::Duration;

/// Old events are deleted this many at a time.
const TRIM: u64 = 1000;
/// The most events that a listener gets at once.
const BATCH_MAX: usize = 1000;
/// A listener looks so often although nothing rang.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[async_trait]
impl Events for SqliteStore {
    async fn emit(&self, events: Vec<Event>) -> Result<(), StoreError> {
        let max = self.context.limits.events_max;
        reach(Step::EventBegins);
        let emitted = self
            .event_writer
            .write("store events", Relaxed, move |connection| emit(connection, &events, max));
        emitted.await.inspect(|()| {
            // Other processes notice within 100 ms: no system call for each batch of events.
            self.news.ring();
            reach(Step::EventCommitted);
        })
    }

    async fn watch_events(&self) -> Result<Box<dyn EventStream>, StoreError> {
        let reader = Arc::clone(&self.event_reader);
        let after = read(&reader, "listen to events", newest).await?;
        Ok(Box::new(Watch { reader, bell: self.news.clone(), after }))
    }

    async fn events_since(
        &self,
        after: i64,
        count_max: usize,
    ) -> Result<Vec<StampedEvent>, StoreError> {
        read(&self.event_reader, "read events", move |connection| {
            since(connection, after, count_max)
        })
        .await
    }

    async fn events_of(&self, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
        let id = task_id.to_owned();
        read(&self.event_reader, "read a task's events", move |connection| of_task(connection, &id))
            .await
    }
}

/// One listener.
struct Watch {
    reader: Arc<Reader>,
    bell: Bell,
    after: i64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").field("after", &self.after).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStream for Watch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            let seen = self.bell.count();
            let after = self.after;
            let events = read(&self.reader, "listen to events", move |connection| {
                since(connection, after, BATCH_MAX)
            })
            .await?;
            if let Some(last) = events.last() {
                self.after = last.number;
                return Ok(events.into_iter().map(|stamped| stamped.event).collect());
            }
            self.bell.wait(seen, LOOK_AGAIN).await;
        }
    }
}

/// The number of the last event there ever was.
fn newest(connection: &Connection) -> Result<i64, StoreError> {
    last_number(connection, "event")
}

/// The last number that was given in a table, also when its row is gone.
pub(super) fn last_number(connection: &Connection, table: &str) -> Result<i64, StoreError> {
    connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([table], |row| row.get(0)).optional())
        .map(Option::unwrap_or_default)
        .map_err(wrap("look for the newest event"))
}

fn emit(connection: &Connection, events: &[Event], events_max: u64) -> Result<(), StoreError> {
    let fail = wrap("store events");
    for event in events {
        let body = String::from_utf8_lossy(&event.to_bytes()).into_owned();
        connection
            .prepare_cached("INSERT INTO event (task_id, body) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((event.uuid(), body)))
            .map_err(&fail)?;
        if let (Some("worker-heartbeat"), Some(node)) = (event.kind(), event.hostname()) {
            forget_last_beat(connection, node, connection.last_insert_rowid()).map_err(&fail)?;
        }
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

/// Heartbeats would push the history out: of each node only the last is kept.
fn forget_last_beat(connection: &Connection, node: &str, number: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM event WHERE number = (SELECT number FROM beat WHERE hostname = ?1)",
        )?
        .execute([node])?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO beat (hostname, number) VALUES (?1, ?2)")?
        .execute((node, number))?;
    Ok(())
}

fn since(
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

fn of_task(connection: &Connection, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
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
