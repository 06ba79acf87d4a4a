//! Locks of unique messages: held by the message's row, gone with it.

use super::Context;
use super::error::wrap;
use super::rows::micros;
use celeriac_core::unique::{Unique, Until};
use celeriac_core::{StoreError, clock};
use rusqlite::{Connection, OptionalExtension as _};

/// `message.locks` of a message that holds a key until it leaves.
pub(super) const UNTIL_GONE: i64 = 1;
/// `message.locks` of a message that holds a key until a worker takes it.
pub(super) const UNTIL_TAKEN: i64 = 2;

/// What came of a wish for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// The message holds it; the value for `message.locks`.
    Held(i64),
    /// This task holds it.
    Taken(String),
}

/// Takes the key for a row, unless another task has it.
///
/// Of a message that is `new` another one of the same id is a stranger as well; what goes on or is put
/// back (a retry, a copy whose original is removed next) takes the key of its own id over.
pub(super) fn lock(
    connection: &Connection,
    context: &Context,
    unique: &Unique,
    (task_id, row): (&str, i64),
    new: bool,
) -> Result<Locked, StoreError> {
    let fail = wrap("lock a unique task");
    let now = context.clock.wall();
    let holder: Option<(String, Option<i64>, Option<i64>)> = connection
        .prepare_cached("SELECT task_id, row, expires_at FROM unique_lock WHERE key = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([&unique.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })
        .map_err(&fail)?;
    let mut expires_at = unique.window.map(|window| micros(clock::after(now, window)));
    if let Some((holder, held_by, expires)) = holder {
        // A window does not begin again.
        if holder == task_id && (held_by.is_none() || !new) {
            expires_at = expires.or(expires_at);
        } else if held_by.is_some() || expires.is_some_and(|at| at > micros(now)) {
            return Ok(Locked::Taken(holder));
        }
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO unique_lock VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute((&unique.key, task_id, row, expires_at)))
        .map_err(&fail)?;
    Ok(Locked::Held(match unique.until {
        Until::Finished => UNTIL_GONE,
        Until::Started => UNTIL_TAKEN,
    }))
}

/// Gives the key of a row back; only its window may keep it taken.
pub(super) fn unlock(connection: &Connection, row: i64) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM unique_lock WHERE row = ?1 AND expires_at IS NULL",
        "UPDATE unique_lock SET row = NULL WHERE row = ?1",
    ] {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([row]))
            .map_err(wrap("unlock a unique task"))?;
    }
    Ok(())
}

/// Forgets keys whose window is over.
pub(super) fn expire(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM unique_lock WHERE expires_at IS NOT NULL AND expires_at <= ?1 \
             AND row IS NULL",
        )
        .and_then(|mut statement| statement.execute([micros(context.clock.wall())]))
        .map_err(wrap("forget unique tasks"))?;
    Ok(())
}
