//! Reads, fences and expires results.

use super::Context;
use super::error::wrap;
use super::fetch::held;
use super::plan::store_result;
use super::rows::{RECORD, micros, record_of};
use celeriac_core::StoreError;
use celeriac_core::lease::Lease;
use celeriac_core::store::ResultRecord;
use rusqlite::Connection;

pub(super) fn store_state(
    connection: &Connection,
    context: &Context,
    lease: Lease,
    record: &ResultRecord,
) -> Result<bool, StoreError> {
    Ok(held(connection, lease)?.is_some() && store_result(connection, context, record)?)
}

pub(super) fn read(
    connection: &Connection,
    task_id: &str,
) -> Result<Option<ResultRecord>, StoreError> {
    let fail = wrap("read a result");
    let sql = format!("SELECT {RECORD} FROM result WHERE task_id = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(&fail)?;
    let mut rows = statement.query([task_id]).map_err(&fail)?;
    rows.next().map_err(&fail)?.map(record_of).transpose()
}

pub(super) fn forget(connection: &Connection, task_id: &str) -> Result<bool, StoreError> {
    connection
        .prepare_cached("DELETE FROM result WHERE task_id = ?1")
        .and_then(|mut statement| statement.execute([task_id]))
        .map(|gone| gone > 0)
        .map_err(wrap("forget a result"))
}

pub(super) fn expire(
    connection: &Connection,
    context: &Context,
    count_max: usize,
) -> Result<usize, StoreError> {
    let now = micros(context.clock.wall());
    let chords_kept =
        context.limits.result_expires.map_or(i64::MAX, |span| span.as_micros() as i64);
    connection
        .prepare_cached("DELETE FROM chord WHERE done = 1 AND created_at < ?1")
        .and_then(|mut statement| statement.execute([now.saturating_sub(chords_kept)]))
        .map_err(wrap("expire chords"))?;
    super::schedules::expire(connection, context, count_max)?;
    connection
        .prepare_cached(
            "DELETE FROM result WHERE row IN \
             (SELECT row FROM result WHERE expires_at IS NOT NULL AND expires_at <= ?1 LIMIT ?2)",
        )
        .and_then(|mut statement| statement.execute((now, count_max as i64)))
        .map_err(wrap("expire results"))
}
