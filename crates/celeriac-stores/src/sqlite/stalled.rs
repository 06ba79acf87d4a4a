//! Chords that wait for members of whom nobody hears.

use super::Context;
use super::error::{corrupt, wrap};
use super::rows::micros;
use celeriac_core::StoreError;
use celeriac_core::store::StalledChord;
use celeriac_wire::{Signature, Value};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

/// Chords in which nobody has ended since `before`, and of which no message is here: those of which one is,
/// are looked at again after as long a time.
pub(super) fn list(
    connection: &Connection,
    context: &Context,
    before: Timestamp,
    count_max: usize,
) -> Result<Vec<StalledChord>, StoreError> {
    let fail = wrap("look for stalled chords");
    let mut statement = connection
        .prepare_cached(
            "SELECT grp, size FROM chord WHERE done = 0 AND counted > 0 AND created_at < ?1 \
             ORDER BY created_at LIMIT ?2",
        )
        .map_err(&fail)?;
    let found = statement
        .query_map((micros(before), count_max as i64), |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(&fail)?;
    let found: Vec<(String, Option<u32>)> = found.collect::<Result<_, _>>().map_err(&fail)?;
    let mut stalled = Vec::new();
    for (group, size) in found {
        if waits(connection, &group)? {
            connection
                .prepare_cached("UPDATE chord SET created_at = ?2 WHERE grp = ?1")
                .and_then(|mut touch| touch.execute((&group, micros(context.clock.wall()))))
                .map_err(&fail)?;
        } else if let Some((present, body)) = parts(connection, &group)? {
            stalled.push(StalledChord { group, size, added: 0, present, body });
        }
    }
    Ok(stalled)
}

/// Whether a message of the group is in some queue.
fn waits(connection: &Connection, group: &str) -> Result<bool, StoreError> {
    let member = format!("%{}%", Value::from(group));
    connection
        .prepare_cached("SELECT 1 FROM message_body WHERE headers LIKE ?1 LIMIT 1")
        .and_then(|mut statement| statement.query_row([member], |_| Ok(())).optional())
        .map(|found| found.is_some())
        .map_err(wrap("look for the members of a chord"))
}

fn parts(
    connection: &Connection,
    group: &str,
) -> Result<Option<(Vec<i64>, Signature)>, StoreError> {
    let fail = wrap("read a stalled chord");
    let mut statement = connection
        .prepare_cached("SELECT idx, body FROM chord_part WHERE grp = ?1 ORDER BY idx")
        .map_err(&fail)?;
    let rows = statement.query_map([group], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&fail)?;
    let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>().map_err(&fail)?;
    let Some((_, body)) = rows.first() else { return Ok(None) };
    let wrong = |text: String| corrupt(format!("read the body of chord {group}: {text}"));
    let body = Value::parse(body.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let body = Signature::from_value(body).map_err(|error| wrong(error.to_string()))?;
    Ok(Some((rows.iter().map(|(index, _)| *index).collect(), body)))
}
