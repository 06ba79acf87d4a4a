//! Moving messages: what a mover holds meanwhile, and what goes once.

use super::Context;
use super::error::wrap;
use super::fetch::{Purpose, check_alive, lease};
use super::rows::{LEASED, LOST, micros};
use celeriac_core::store::{Delivery, NodeId, ONCE_KEPT, Outgoing};
use celeriac_core::{ErrorKind, StoreError, clock};
use rusqlite::{Connection, OptionalExtension as _};

/// Leases waiting messages for a node that does not run them.
pub(super) fn hold(
    connection: &Connection,
    context: &Context,
    node: NodeId,
    rows: &[i64],
) -> Result<Vec<Delivery>, StoreError> {
    check_alive(connection, node)?;
    let mut deliveries = Vec::with_capacity(rows.len());
    for row in rows {
        let waits: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM message WHERE row = ?1 AND state NOT IN (?2, ?3))",
            )
            .and_then(|mut statement| {
                statement.query_row((row, LEASED, LOST), |found| found.get(0))
            })
            .map_err(wrap("hold a message"))?;
        if !waits {
            continue;
        }
        match lease(connection, context, node, *row, Purpose::Move) {
            Ok(delivery) => deliveries.push(delivery),
            // The next worker sets it aside.
            Err(error) if error.kind() == ErrorKind::Corrupt => give_up(connection, *row)?,
            Err(error) => return Err(error),
        }
    }
    Ok(deliveries)
}

fn give_up(connection: &Connection, row: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE message SET state = iif(due_at IS NULL, 0, 1), node = NULL, token = NULL WHERE row = ?1",
        )
        .and_then(|mut statement| statement.execute([row]))
        .map_err(wrap("leave a damaged message where it is"))?;
    Ok(())
}

/// The task that was sent with the message's key before; from now on it is this one.
pub(super) fn sent_before(
    connection: &Connection,
    context: &Context,
    outgoing: &Outgoing,
) -> Result<Option<String>, StoreError> {
    let Some(key) = &outgoing.once else { return Ok(None) };
    let fail = wrap("look whether a message was sent");
    let now = context.clock.wall();
    let sent: Option<String> = connection
        .prepare_cached("SELECT task_id FROM once WHERE key = ?1 AND until > ?2")
        .and_then(|mut statement| {
            statement.query_row((key, micros(now)), |row| row.get(0)).optional()
        })
        .map_err(&fail)?;
    if sent.is_none() {
        let id = outgoing.message.headers.id().unwrap_or_default();
        connection
            .prepare_cached("INSERT OR REPLACE INTO once VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| {
                statement.execute((key, id, micros(clock::after(now, ONCE_KEPT))))
            })
            .map_err(&fail)?;
    }
    Ok(sent)
}

/// Forgets these keys.
pub(super) fn forget(connection: &Connection, keys: &[String]) -> Result<(), StoreError> {
    for key in keys {
        connection
            .prepare_cached("DELETE FROM once WHERE key = ?1")
            .and_then(|mut statement| statement.execute([key]))
            .map_err(wrap("forget what was sent"))?;
    }
    Ok(())
}

/// Forgets keys whose time is over.
pub(super) fn expire(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM once WHERE until <= ?1")
        .and_then(|mut statement| statement.execute([micros(context.clock.wall())]))
        .map_err(wrap("forget what was sent"))?;
    Ok(())
}
