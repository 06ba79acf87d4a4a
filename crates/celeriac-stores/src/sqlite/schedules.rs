//! Entries that run at their time: rows of `entries`, what was fired of them in `occurrences`, and who
//! fires in `beat_leader`.

use super::error::{corrupt, wrap};
use super::plan::{self, Limits};
use super::rows::{counter, instant, micros};
use super::writer::Durability::{Relaxed, Synced};
use super::{Context, SqliteStore};
use crate::schedules::{SAME_TIME_MAX, TRIM_MAX, Texts, lines_max, state_of, texts_of, too_old};
use async_trait::async_trait;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{EntryRecord, Fire, Fired, Lead, Occurrence, Saved, Schedules};
use celeriac_core::{StoreError, clock};
use celeriac_wire::{State, Value};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};
use std::time::Duration;

/// The counter that no version of a removed entry is above.
const VERSIONS: &str = "entry versions";
/// The columns of an entry, in the order that [`record_of`] reads.
const COLUMNS: &str = "name, version, wake, entry, state";

#[async_trait]
impl Schedules for SqliteStore {
    async fn save_entries(&self, records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError> {
        self.write("save entries", Synced, move |connection, context| {
            let texts = texts_of(&records, &context.limits)?;
            let both = records.iter().zip(&texts);
            both.map(|(record, texts)| save(connection, record, texts)).collect()
        })
        .await
    }

    async fn remove_entry(&self, name: &str, version: u64) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.write("remove an entry", Synced, move |connection, _| {
            remove(connection, &name, version)
        })
        .await
    }

    async fn entry(&self, name: &str) -> Result<Option<EntryRecord>, StoreError> {
        let name = name.to_owned();
        self.read("read an entry", move |connection, _| {
            let sql = format!("SELECT {COLUMNS} FROM entries WHERE name = ?1");
            Ok(records(connection, &sql, [&name])?.pop())
        })
        .await
    }

    async fn entries(&self, after: &str, count_max: usize) -> Result<Vec<EntryRecord>, StoreError> {
        let after = after.to_owned();
        self.read("list entries", move |connection, _| {
            let sql =
                format!("SELECT {COLUMNS} FROM entries WHERE name > ?1 ORDER BY name LIMIT ?2");
            records(connection, &sql, (&after, count_max as i64))
        })
        .await
    }

    async fn entry_count(&self) -> Result<u64, StoreError> {
        self.read("count entries", |connection, _| {
            connection
                .prepare_cached("SELECT count(*) FROM entries")
                .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)))
                .map(i64::unsigned_abs)
                .map_err(wrap("count entries"))
        })
        .await
    }

    async fn due_entries(
        &self,
        now: Timestamp,
        count_max: usize,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        self.read("look for due entries", move |connection, _| {
            let sql = format!(
                "SELECT {COLUMNS} FROM entries WHERE wake IS NOT NULL AND wake <= ?1 \
                 ORDER BY wake, name LIMIT ?2"
            );
            records(connection, &sql, (micros(now), count_max as i64))
        })
        .await
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read("look for the next entry", |connection, _| {
            let wake: Option<i64> = connection
                .prepare_cached("SELECT min(wake) FROM entries WHERE wake IS NOT NULL")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .map_err(wrap("look for the next entry"))?;
            Ok(wake.map(instant))
        })
        .await
    }

    async fn lead(&self, holder: &str, lease: Duration) -> Result<Lead, StoreError> {
        let holder = holder.to_owned();
        self.write("lead", Relaxed, move |connection, context| {
            lead(connection, context, &holder, lease)
        })
        .await
    }

    async fn resign(&self, holder: &str, epoch: u64) -> Result<(), StoreError> {
        let holder = holder.to_owned();
        // Synced, because that rings the bell for the next leader.
        self.write("resign", Synced, move |connection, _| {
            connection
                .prepare_cached(
                    "UPDATE beat_leader SET holder = '', until = 0 WHERE holder = ?1 AND epoch = ?2",
                )
                .and_then(|mut statement| statement.execute((&holder, epoch as i64)))
                .map(drop)
                .map_err(wrap("resign"))
        })
        .await
    }

    async fn leader(&self) -> Result<Option<Lead>, StoreError> {
        self.read("ask who leads", standing).await
    }

    async fn fire(&self, epoch: Option<u64>, fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError> {
        reach(Step::FireBegins);
        let written = self.write("fire", Synced, move |connection, context| {
            fire_all(connection, context, epoch, fires).inspect(|_| reach(Step::FireWritten))
        });
        written.await.inspect(|_| reach(Step::FireCommitted))
    }

    async fn occurrences(
        &self,
        name: &str,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<Occurrence>, StoreError> {
        let name = name.to_owned();
        self.read("list occurrences", move |connection, context| {
            let old = micros(too_old(context.clock.wall(), &context.limits));
            let found = lines(
                connection,
                "SELECT name, document FROM occurrences WHERE name = ?1 AND due < ?2 AND fired > ?3 \
                 ORDER BY due DESC LIMIT ?4",
                (&name, micros(before), old, count_max as i64),
            )?;
            Ok(found.into_iter().map(|(_, occurrence)| occurrence).collect())
        })
        .await
    }

    async fn open_occurrences(
        &self,
        after: Timestamp,
        count_max: usize,
    ) -> Result<Vec<(String, Occurrence)>, StoreError> {
        self.read("list open occurrences", move |connection, context| {
            open_lines(connection, context, after, count_max)
        })
        .await
    }

    async fn end_occurrences(
        &self,
        ended: Vec<(String, Timestamp, State)>,
    ) -> Result<(), StoreError> {
        self.write("note how occurrences ended", Synced, move |connection, _| {
            ended.iter().try_for_each(|(name, due, state)| end(connection, name, *due, state))
        })
        .await
    }
}

/// Writes an entry if it has the version that the record says; 0 is for one that is not there.
fn save(connection: &Connection, record: &EntryRecord, texts: &Texts) -> Result<Saved, StoreError> {
    let fail = wrap("save an entry");
    let wake = record.wake.map(micros);
    if record.version == 0 {
        if version_of(connection, &record.name)?.is_some() {
            return Ok(Saved::Conflict);
        }
        let version = counter(connection, VERSIONS)? + 1;
        raise_versions(connection, version)?;
        connection
            .prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut statement| {
                statement.execute((&record.name, version, wake, &texts.entry, &texts.state))
            })
            .map_err(&fail)?;
        return Ok(Saved::Done(version.unsigned_abs()));
    }
    let written = connection
        .prepare_cached(
            "UPDATE entries SET version = version + 1, wake = ?3, entry = ?4, state = ?5 \
             WHERE name = ?1 AND version = ?2",
        )
        .and_then(|mut statement| {
            let version = record.version as i64;
            statement.execute((&record.name, version, wake, &texts.entry, &texts.state))
        })
        .map_err(&fail)?;
    Ok(if written == 1 { Saved::Done(record.version + 1) } else { Saved::Conflict })
}

fn version_of(connection: &Connection, name: &str) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT version FROM entries WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .map_err(wrap("read an entry's version"))
}

/// Lets every new entry have a greater version than this.
fn raise_versions(connection: &Connection, version: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO counter VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )
        .and_then(|mut statement| statement.execute((VERSIONS, version)))
        .map(drop)
        .map_err(wrap("count versions"))
}

fn remove(connection: &Connection, name: &str, version: u64) -> Result<bool, StoreError> {
    let removed = connection
        .prepare_cached("DELETE FROM entries WHERE name = ?1 AND version = ?2")
        .and_then(|mut statement| statement.execute((name, version as i64)))
        .map_err(wrap("remove an entry"))?;
    if removed > 0 {
        raise_versions(connection, version as i64)?;
    }
    Ok(removed > 0)
}

fn records(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<Vec<EntryRecord>, StoreError> {
    let fail = wrap("read entries");
    let mut statement = connection.prepare_cached(sql).map_err(&fail)?;
    let mut rows = statement.query(values).map_err(&fail)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        records.push(record_of(row)?);
    }
    Ok(records)
}

fn record_of(row: &Row<'_>) -> Result<EntryRecord, StoreError> {
    let fail = wrap("read an entry");
    let name: String = row.get(0).map_err(&fail)?;
    let document = |index: usize| {
        let text: String = row.get(index).map_err(&fail)?;
        Value::parse(text.as_bytes())
            .map_err(|error| corrupt(format!("read the entry {name:?}: {error}")))
    };
    Ok(EntryRecord {
        version: row.get::<_, i64>(1).map_err(&fail)?.unsigned_abs(),
        wake: row.get::<_, Option<i64>>(2).map_err(&fail)?.map(instant),
        entry: document(3)?,
        state: document(4)?,
        name,
    })
}

/// Who leads now.
fn standing(connection: &Connection, context: &Context) -> Result<Option<Lead>, StoreError> {
    let lead = connection
        .prepare_cached("SELECT holder, epoch, until FROM beat_leader WHERE until > ?1")
        .and_then(|mut statement| {
            let now = micros(context.clock.wall());
            statement
                .query_row([now], |row| {
                    Ok(Lead {
                        holder: row.get(0)?,
                        epoch: row.get::<_, i64>(1)?.unsigned_abs(),
                        until: instant(row.get(2)?),
                    })
                })
                .optional()
        })
        .map_err(wrap("ask who leads"))?;
    Ok(lead)
}

fn lead(
    connection: &Connection,
    context: &Context,
    holder: &str,
    lease: Duration,
) -> Result<Lead, StoreError> {
    let stands = standing(connection, context)?;
    if let Some(other) = stands.as_ref().filter(|lead| lead.holder != holder) {
        return Ok(other.clone());
    }
    let until = clock::after(context.clock.wall(), lease);
    let grows = i64::from(stands.is_none());
    let epoch: i64 = connection
        .prepare_cached(
            "INSERT INTO beat_leader VALUES (1, ?1, 1, ?2) ON CONFLICT (id) DO UPDATE \
             SET holder = excluded.holder, until = excluded.until, epoch = epoch + ?3 \
             RETURNING epoch",
        )
        .and_then(|mut statement| {
            statement.query_row((holder, micros(until), grows), |row| row.get(0))
        })
        .map_err(wrap("lead"))?;
    Ok(Lead { holder: holder.to_owned(), epoch: epoch.unsigned_abs(), until })
}

fn fire_all(
    connection: &Connection,
    context: &Context,
    epoch: Option<u64>,
    fires: Vec<Fire>,
) -> Result<Vec<Fired>, StoreError> {
    // What is refused is refused before it is known who leads, so that it does not depend on that.
    let states: Vec<String> =
        fires.iter().map(|fire| state_of(fire, &context.limits)).collect::<Result<_, _>>()?;
    if let Some(epoch) = epoch
        && standing(connection, context)?.is_none_or(|lead| lead.epoch != epoch)
    {
        return Ok(vec![Fired::Fenced; fires.len()]);
    }
    // As much goes as comes, so that what is too old never piles up.
    expire(connection, context, 2 * fires.len())?;
    let both = fires.into_iter().zip(states);
    both.map(|(one, state)| fire(connection, context, one, &state)).collect()
}

fn fire(
    connection: &Connection,
    context: &Context,
    fire: Fire,
    state: &str,
) -> Result<Fired, StoreError> {
    let mut version = 0;
    if let Some(expected) = fire.version {
        let advanced = connection
            .prepare_cached(
                "UPDATE entries SET version = version + 1, wake = ?3, state = ?4 \
                 WHERE name = ?1 AND version = ?2",
            )
            .and_then(|mut statement| {
                statement.execute((&fire.name, expected as i64, fire.wake.map(micros), state))
            })
            .map_err(wrap("advance an entry"))?;
        if advanced == 0 {
            return Ok(Fired::Changed);
        }
        version = expected + 1;
    }
    let occurrence = &fire.occurrence;
    let fresh = connection
        .prepare_cached("INSERT OR IGNORE INTO occurrences VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut statement| {
            statement.execute((
                &fire.name,
                micros(occurrence.due),
                micros(occurrence.fired),
                occurrence.is_open(),
                occurrence.to_value().to_string(),
            ))
        })
        .map_err(wrap("note an occurrence"))?;
    if fresh == 0 {
        return Ok(Fired::Taken(version));
    }
    trim(connection, context, &fire.name)?;
    let published = plan::write(connection, context, fire.plan, None, Limits::NoDepth)?;
    Ok(match published.duplicates.into_iter().next() {
        Some(other) => Fired::Held { version, holder: other.task_id },
        None => Fired::Done(version),
    })
}

/// Removes the oldest lines of an entry that has too many.
fn trim(connection: &Connection, context: &Context, name: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM occurrences WHERE name = ?1 AND due IN (SELECT due FROM occurrences \
             WHERE name = ?1 ORDER BY due DESC LIMIT ?2 OFFSET ?3)",
        )
        .and_then(|mut statement| statement.execute((name, TRIM_MAX, lines_max(&context.limits))))
        .map(drop)
        .map_err(wrap("trim occurrences"))
}

/// Removes lines that are too old, at most so many.
pub(super) fn expire(
    connection: &Connection,
    context: &Context,
    count_max: usize,
) -> Result<(), StoreError> {
    let old = micros(too_old(context.clock.wall(), &context.limits));
    connection
        .prepare_cached(
            "DELETE FROM occurrences WHERE (name, due) IN \
             (SELECT name, due FROM occurrences WHERE fired <= ?1 ORDER BY fired LIMIT ?2)",
        )
        .and_then(|mut statement| statement.execute((old, count_max as i64)))
        .map(drop)
        .map_err(wrap("expire occurrences"))
}

fn lines(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<Vec<(String, Occurrence)>, StoreError> {
    let fail = wrap("read occurrences");
    let mut statement = connection.prepare_cached(sql).map_err(&fail)?;
    let mut rows = statement.query(values).map_err(&fail)?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let (name, text): (String, String) =
            (row.get(0).map_err(&fail)?, row.get(1).map_err(&fail)?);
        let occurrence = occurrence_of(&name, &text)?;
        lines.push((name, occurrence));
    }
    Ok(lines)
}

fn occurrence_of(name: &str, text: &str) -> Result<Occurrence, StoreError> {
    let value = Value::parse(text.as_bytes()).ok();
    value
        .as_ref()
        .and_then(Occurrence::from_value)
        .ok_or_else(|| corrupt(format!("an occurrence of the entry {name:?} cannot be read")))
}

fn open_lines(
    connection: &Connection,
    context: &Context,
    after: Timestamp,
    count_max: usize,
) -> Result<Vec<(String, Occurrence)>, StoreError> {
    let old = too_old(context.clock.wall(), &context.limits);
    let mut page = lines(
        connection,
        "SELECT name, document FROM occurrences WHERE open = 1 AND fired > ?1 \
         ORDER BY fired, name, due LIMIT ?2",
        (micros(after.max(old)), count_max as i64),
    )?;
    let Some((name, last)) = page.last().filter(|_| page.len() == count_max) else {
        return Ok(page);
    };
    let rest = lines(
        connection,
        "SELECT name, document FROM occurrences WHERE open = 1 AND fired = ?1 \
         AND (name, due) > (?2, ?3) ORDER BY name, due LIMIT ?4",
        (micros(last.fired), name, micros(last.due), SAME_TIME_MAX as i64),
    )?;
    page.extend(rest);
    Ok(page)
}

/// Writes how an occurrence ended; one that is gone is passed over.
fn end(
    connection: &Connection,
    name: &str,
    due: Timestamp,
    state: &State,
) -> Result<(), StoreError> {
    let fail = wrap("note how an occurrence ended");
    let text: Option<String> = connection
        .prepare_cached("SELECT document FROM occurrences WHERE name = ?1 AND due = ?2")
        .and_then(|mut statement| {
            statement.query_row((name, micros(due)), |row| row.get(0)).optional()
        })
        .map_err(&fail)?;
    let Some(text) = text else { return Ok(()) };
    let ended = Occurrence { outcome: Some(state.clone()), ..occurrence_of(name, &text)? };
    connection
        .prepare_cached(
            "UPDATE occurrences SET open = 0, document = ?3 WHERE name = ?1 AND due = ?2",
        )
        .and_then(|mut statement| {
            statement.execute((name, micros(due), ended.to_value().to_string()))
        })
        .map(drop)
        .map_err(&fail)
}
