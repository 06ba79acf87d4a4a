//! Waiting messages by row: peek, and removal for purge and move.

use super::error::wrap;
use super::rows::{LEASED, LOST, change_depth, delete_message, outgoing_of};
use celeriac_core::store::{Page, Stored};
use celeriac_core::{QueueName, StoreError};
use rusqlite::{Connection, OptionalExtension as _};

pub(super) fn peek(
    connection: &Connection,
    queue: &QueueName,
    page: Page,
) -> Result<Vec<Stored>, StoreError> {
    let fail = wrap("look into a queue");
    let mut statement = connection
        .prepare_cached(
            "SELECT m.row, m.queue, m.enqueued_at, m.history, b.headers, b.properties, \
             b.content_type, b.content_encoding, b.body \
             FROM message m JOIN message_body b USING (row) \
             WHERE m.queue = ?1 AND m.row > ?2 AND m.state NOT IN (2, 4) ORDER BY m.row LIMIT ?3",
        )
        .map_err(&fail)?;
    let mut rows =
        statement.query((queue.as_str(), page.after, page.count_max as i64)).map_err(&fail)?;
    let mut stored = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        stored.push(Stored { row: row.get(0).map_err(&fail)?, outgoing: outgoing_of(row, 1)? });
    }
    Ok(stored)
}

pub(super) fn remove(connection: &Connection, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
    let mut removed = Vec::with_capacity(rows.len());
    for row in rows {
        let waiting: Option<String> = connection
            .prepare_cached("SELECT queue FROM message WHERE row = ?1 AND state NOT IN (?2, ?3)")
            .and_then(|mut statement| {
                statement.query_row((row, LEASED, LOST), |found| found.get(0)).optional()
            })
            .map_err(wrap("remove a message"))?;
        if let Some(queue) = waiting {
            delete_message(connection, *row)?;
            change_depth(connection, &queue, -1)?;
            removed.push(*row);
        }
    }
    Ok(removed)
}
