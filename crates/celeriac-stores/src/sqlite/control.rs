//! Durable revocations and pauses.

use super::Context;
use super::error::{corrupt, wrap};
use super::rows::{instant, micros};
use super::rules::check_count;
use celeriac_core::lease::SUSPECT_AFTER;
use celeriac_core::store::{Pause, Revoke};
use celeriac_core::throttle::Target;
use celeriac_core::{QueueName, StoreError, clock};
use rusqlite::Connection;

/// The most revocations in one answer.
const REVOKES_MAX: i64 = 10_000;

pub(super) fn revoke(
    connection: &Connection,
    context: &Context,
    task_ids: &[String],
    terminate: bool,
) -> Result<(), StoreError> {
    let fail = wrap("revoke tasks");
    let now = context.clock.wall();
    let expires = micros(clock::after(now, context.limits.revoke_expires));
    connection
        .prepare_cached("DELETE FROM revoked WHERE expires_at <= ?1")
        .and_then(|mut statement| statement.execute([micros(now)]))
        .map_err(&fail)?;
    for id in task_ids {
        // REPLACE gives a new number, so that workers that have read the old one read it again.
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO revoked (task_id, terminate, expires_at) VALUES (?1, ?2, ?3)",
            )
            .and_then(|mut statement| statement.execute((id, terminate, expires)))
            .map_err(&fail)?;
        // A scheduled task does not wait for its time to be refused: its caller may be waiting.
        connection
            .prepare_cached(
                "UPDATE message SET state = CASE WHEN deaths_seen >= ?2 THEN 3 ELSE 0 END \
                 WHERE task_id = ?1 AND state = 1",
            )
            .and_then(|mut statement| statement.execute((id, SUSPECT_AFTER)))
            .map_err(&fail)?;
    }
    Ok(())
}

pub(super) fn unrevoke(
    connection: &Connection,
    context: &Context,
    task_ids: &[String],
) -> Result<u64, StoreError> {
    let fail = wrap("withdraw a revocation");
    let mut withdrawn = 0;
    for id in task_ids {
        withdrawn += connection
            .prepare_cached("DELETE FROM revoked WHERE task_id = ?1")
            .and_then(|mut statement| statement.execute([id]))
            .map_err(&fail)? as u64;
        // What became ready only to be refused waits for its time again.
        connection
            .prepare_cached(
                "UPDATE message SET state = 1 \
                 WHERE task_id = ?1 AND state IN (0, 3) AND due_at > ?2",
            )
            .and_then(|mut statement| statement.execute((id, micros(context.clock.wall()))))
            .map_err(&fail)?;
    }
    Ok(withdrawn)
}

pub(super) fn revokes_since(
    connection: &Connection,
    context: &Context,
    after: i64,
) -> Result<Vec<Revoke>, StoreError> {
    let now = micros(context.clock.wall());
    connection
        .prepare_cached(
            "SELECT number, task_id, terminate FROM revoked \
             WHERE number > ?1 AND expires_at > ?3 ORDER BY number LIMIT ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_map((after, REVOKES_MAX, now), |row| {
                    Ok(Revoke { number: row.get(0)?, task_id: row.get(1)?, terminate: row.get(2)? })
                })?
                .collect()
        })
        .map_err(wrap("read the revocations"))
}

pub(super) fn pause(
    connection: &Connection,
    context: &Context,
    target: &Target,
    reason: &str,
) -> Result<(), StoreError> {
    if let Target::Queue(name) = target {
        QueueName::parse(name)?;
    }
    check_count(connection, "SELECT count(*) FROM paused", "pauses")?;
    connection
        .prepare_cached(
            "INSERT INTO paused VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (kind, name) DO UPDATE SET reason = excluded.reason",
        )
        .and_then(|mut statement| {
            let since = micros(context.clock.wall());
            statement.execute((target.kind(), target.name(), since, reason))
        })
        .map_err(wrap("pause"))?;
    Ok(())
}

pub(super) fn resume(connection: &Connection, target: &Target) -> Result<bool, StoreError> {
    connection
        .prepare_cached("DELETE FROM paused WHERE kind = ?1 AND name = ?2")
        .and_then(|mut statement| statement.execute((target.kind(), target.name())))
        .map(|gone| gone > 0)
        .map_err(wrap("resume"))
}

pub(super) fn pauses(connection: &Connection) -> Result<Vec<Pause>, StoreError> {
    let rows: Vec<(String, String, i64, String)> = connection
        .prepare_cached("SELECT kind, name, since, reason FROM paused ORDER BY kind, name")
        .and_then(|mut statement| {
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })
        .map_err(wrap("read the pauses"))?;
    rows.into_iter()
        .map(|(kind, name, since, reason)| {
            let target = Target::of(&kind, &name)
                .ok_or_else(|| corrupt(format!("a pause has the unknown kind {kind:?}")))?;
            Ok(Pause { target, since: instant(since), reason })
        })
        .collect()
}
