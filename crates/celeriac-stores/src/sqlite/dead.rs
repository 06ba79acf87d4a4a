//! Dead letters: list, replay, edit, discard.

use super::Context;
use super::error::{corrupt, wrap};
use super::plan::{self, Limits};
use super::rows::{
    DEAD_BYTES, DEAD_LETTERS, change_counter, history_of, instant, message_of, micros, queue_of,
};
use celeriac_core::dead::DeadLetter;
use celeriac_core::store::{DeadFilter, Outgoing, Page, Plan, Replay};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Headers, Message, Properties};
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

const COLUMNS: &str = "number, queue, reason, detail, died_at, enqueued_at, history, headers, \
                       properties, content_type, content_encoding, body";

/// A filter as SQL: the condition and its parameters.
fn condition(filter: &DeadFilter) -> (String, Vec<SqlValue>) {
    let mut sql = String::from("1");
    let mut values = Vec::new();
    let mut and = |text: &str, value: String| {
        sql.push_str(" AND ");
        sql.push_str(text);
        values.push(SqlValue::Text(value));
    };
    if let Some(queue) = &filter.queue {
        and("queue = ?", queue.to_string());
    }
    if let Some(reason) = filter.reason {
        and("reason = ?", reason.as_str().to_owned());
    }
    if let Some(detail) = &filter.detail {
        and("instr(detail, ?) > 0", detail.clone());
    }
    match filter.task.as_deref().map(|task| (task, task.strip_suffix('*'))) {
        Some((_, Some(prefix))) => and("instr(task, ?) = 1", prefix.to_owned()),
        Some((task, None)) => and("task = ?", task.to_owned()),
        None => {}
    }
    if let Some(number) = filter.number {
        and("number = CAST(? AS INTEGER)", number.to_string());
    }
    if let Some(before) = filter.before {
        sql.push_str(" AND died_at < ?");
        values.push(SqlValue::Integer(micros(before)));
    }
    if !filter.ids.is_empty() {
        // Numbers as integers, so that both halves find their rows by an index.
        let numbers: Vec<i64> = filter.ids.iter().filter_map(|id| id.parse().ok()).collect();
        let marks = |count: usize| vec!["?"; count].join(", ");
        sql.push_str(" AND number IN (SELECT number FROM dead WHERE task_id IN (");
        sql.push_str(&marks(filter.ids.len()));
        sql.push_str(") UNION SELECT number FROM dead WHERE number IN (");
        sql.push_str(&marks(numbers.len()));
        sql.push_str("))");
        values.extend(filter.ids.iter().map(|id| SqlValue::Text(id.clone())));
        values.extend(numbers.into_iter().map(SqlValue::Integer));
    }
    (sql, values)
}

pub(super) fn list(
    connection: &Connection,
    filter: &DeadFilter,
    page: Page,
) -> Result<Vec<DeadLetter>, StoreError> {
    let fail = wrap("list dead letters");
    let (condition, mut values) = condition(filter);
    values.push(SqlValue::Integer(page.after));
    values.push(SqlValue::Integer(page.count_max as i64));
    let sql = format!(
        "SELECT {COLUMNS} FROM dead WHERE {condition} AND number > ? ORDER BY number LIMIT ?"
    );
    let mut statement = connection.prepare(&sql).map_err(&fail)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(&fail)?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let reason: String = row.get(2).map_err(&fail)?;
        let history: String = row.get(6).map_err(&fail)?;
        letters.push(DeadLetter {
            number: row.get(0).map_err(&fail)?,
            queue: queue_of(&row.get::<_, String>(1).map_err(&fail)?)?,
            reason: reason.parse().map_err(|error: String| corrupt(error))?,
            detail: row.get(3).map_err(&fail)?,
            died_at: instant(row.get(4).map_err(&fail)?),
            enqueued_at: instant(row.get(5).map_err(&fail)?),
            history: history_of(Some(&history)).unwrap_or_default(),
            message: message_of(row, 7).or_else(|_| damaged(row))?,
        });
    }
    Ok(letters)
}

/// A letter whose headers or properties cannot be read, with their text in a header of its own, so
/// that people see it and can mend it with `dead edit`.
fn damaged(row: &Row<'_>) -> Result<Message, StoreError> {
    let fail = wrap("read a damaged dead letter");
    let bytes = |index: usize| -> Result<Vec<u8>, StoreError> {
        let bytes = row.get_ref(index).map_err(&fail)?;
        Ok(bytes.as_bytes_or_null().ok().flatten().unwrap_or_default().to_vec())
    };
    let text = |index: usize| Ok(String::from_utf8_lossy(&bytes(index)?).into_owned());
    let mut message = Message {
        headers: Headers::default(),
        properties: Properties::default(),
        content_type: text(9)?,
        content_encoding: text(10)?,
        body: bytes(11)?.into(),
    };
    message.headers.insert("celeriac_damaged_headers", text(7)?);
    message.headers.insert("celeriac_damaged_properties", text(8)?);
    Ok(message)
}

pub(super) fn count(connection: &Connection, filter: &DeadFilter) -> Result<u64, StoreError> {
    let (condition, values) = condition(filter);
    let sql = format!("SELECT count(*) FROM dead WHERE {condition}");
    let count: i64 = connection
        .query_row(&sql, params_from_iter(values), |row| row.get(0))
        .map_err(wrap("count dead letters"))?;
    Ok(count.unsigned_abs())
}

pub(super) fn replay(
    connection: &Connection,
    context: &Context,
    filter: &DeadFilter,
    replay: &Replay,
    count_max: usize,
) -> Result<Vec<i64>, StoreError> {
    let letters = list(connection, filter, Page { after: 0, count_max })?;
    let mut plan = Plan::default();
    let mut numbers = Vec::with_capacity(letters.len());
    for letter in letters {
        numbers.push(letter.number);
        let mut message = letter.message;
        if !replay.keep_retries {
            message.headers.set_retries(0);
        }
        // Its time and its expiry were those of the first life.
        message.headers.set_eta(None).set_expires(None);
        message.properties.set_expiration(None);
        forget_failure(connection, message.headers.id().unwrap_or_default())?;
        // The rest of its chain was marked as failed with it, and may run now.
        let read = codec::read(&message, Accept::default());
        let embed = read.map(|read| read.body.embed).unwrap_or_default();
        for step in embed.chain().unwrap_or_default() {
            forget_failure(connection, step.task_id().unwrap_or_default())?;
        }
        plan.publish.push(Outgoing {
            once: None,
            queue: replay.queue.clone().unwrap_or(letter.queue),
            message,
            history: letter.history,
            enqueued_at: None,
        });
    }
    plan::write(connection, context, plan, None, Limits::NotUnique)?;
    discard(connection, &numbers)?;
    Ok(numbers)
}

/// A replayed task may succeed after all, so the result of its first life must not stand in the way.
fn forget_failure(connection: &Connection, task_id: &str) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM result WHERE task_id = ?1 AND status <> 'SUCCESS'",
        "DELETE FROM revoked WHERE task_id = ?1",
    ] {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([task_id]))
            .map_err(wrap("forget a failed result"))?;
    }
    Ok(())
}

pub(super) fn edit(
    connection: &Connection,
    context: &Context,
    number: i64,
    outgoing: &Outgoing,
) -> Result<(), StoreError> {
    let message = &outgoing.message;
    let (headers, properties) = (message.headers.to_json(), message.properties.to_json());
    let bytes = headers.len() + properties.len() + message.body.len();
    let id = message.headers.id().unwrap_or_default();
    let task = message.headers.task().unwrap_or_default();
    plan::check_size(context, id, bytes, Limits::Enforced)?;
    let old: Option<i64> = connection
        .prepare_cached("SELECT bytes FROM dead WHERE number = ?1")
        .and_then(|mut statement| statement.query_row([number], |row| row.get(0)).optional())
        .map_err(wrap("edit a dead letter"))?;
    let Some(old) = old else {
        let what = format!("there is no dead letter {number}");
        return Err(StoreError::new(ErrorKind::NotFound, what).hint("see `celeriac dead list`"));
    };
    let new: i64 = connection
        .query_row(
            "UPDATE dead SET queue = ?2, headers = ?3, properties = ?4, content_type = ?5, \
             content_encoding = ?6, body = ?7, task_id = ?8, task = ?9, \
             bytes = octet_length(?3) + octet_length(?4) + octet_length(?7) + octet_length(history) \
             WHERE number = ?1 RETURNING bytes",
            rusqlite::params![
                number,
                outgoing.queue.as_str(),
                headers,
                properties,
                message.content_type,
                message.content_encoding,
                &message.body[..],
                id,
                task,
            ],
            |row| row.get(0),
        )
        .map_err(wrap("edit a dead letter"))?;
    change_counter(connection, DEAD_BYTES, new - old)
}

pub(super) fn discard(connection: &Connection, numbers: &[i64]) -> Result<u64, StoreError> {
    let mut gone = 0;
    for number in numbers {
        let bytes: Option<i64> = connection
            .prepare_cached("DELETE FROM dead WHERE number = ?1 RETURNING bytes")
            .and_then(|mut statement| statement.query_row([number], |row| row.get(0)).optional())
            .map_err(wrap("discard a dead letter"))?;
        if let Some(bytes) = bytes {
            change_counter(connection, DEAD_LETTERS, -1)?;
            change_counter(connection, DEAD_BYTES, -bytes)?;
            gone += 1;
        }
    }
    Ok(gone)
}
