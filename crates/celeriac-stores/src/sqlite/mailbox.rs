//! Remote control in the events file: requests with growing numbers, and replies by inbox. Both hold
//! kombu's envelopes. Nothing is synced, and what nobody collects goes with time.

use super::bell::Bell;
use super::error::wrap;
use super::events::last_number;
use super::rows::micros;
use super::writer::Durability::Relaxed;
use super::writer::Writer;
use super::{Context, Reader, SqliteStore, read};
use async_trait::async_trait;
use celeriac_core::store::{Inbox, Mailbox, Requests};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{ControlReply, ControlRequest, Envelope, Message, ParseError, ReplyTo};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most requests kept; a listener that is further behind misses the oldest.
const REQUESTS_MAX: i64 = 1000;
/// How long a request is kept: nobody waits so long for a reply.
const REQUEST_LIFE: Duration = Duration::from_mins(1);
/// The most replies to one inbox; more are dropped.
const REPLIES_MAX: i64 = 10_000;
/// The largest request or reply, as an envelope in bytes.
const LETTER_BYTES_MAX: usize = 8 << 20;
/// How long an inbox stays that nobody closes.
const INBOX_LIFE: Duration = Duration::from_mins(10);
/// The most requests or replies read at once.
const READ_MAX: i64 = 100;
/// A listener looks so often although nothing rang.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[async_trait]
impl Mailbox for SqliteStore {
    async fn broadcast(&self, request: &ControlRequest) -> Result<(), StoreError> {
        let envelope = envelope("send a request", request.to_message())?;
        let context = Arc::clone(&self.context);
        let sent = self.event_writer.write("send a request", Relaxed, move |connection| {
            broadcast(connection, &context, &envelope)
        });
        sent.await.inspect(|()| self.news.ring_everywhere())
    }

    async fn listen(&self, _node: &str) -> Result<Box<dyn Requests>, StoreError> {
        let reader = Arc::clone(&self.event_reader);
        let after =
            read(&reader, "listen to requests", |connection| last_number(connection, "request"))
                .await?;
        Ok(Box::new(Heard { reader, bell: self.news.clone(), after, waiting: VecDeque::new() }))
    }

    async fn reply(&self, to: &ReplyTo, reply: &ControlReply) -> Result<(), StoreError> {
        let envelope = envelope("send a reply", reply.to_message(to))?;
        let id = to.routing_key.clone();
        let sent = self
            .event_writer
            .write("send a reply", Relaxed, move |connection| reply_to(connection, &id, &envelope));
        sent.await.inspect(|()| self.news.ring_everywhere())
    }

    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError> {
        let (to, key) = (ReplyTo::inbox(id), id.to_owned());
        let context = Arc::clone(&self.context);
        self.event_writer
            .write("open an inbox", Relaxed, move |connection| open(connection, &context, &key))
            .await?;
        Ok(Box::new(Letters {
            reader: Arc::clone(&self.event_reader),
            writer: Arc::clone(&self.event_writer),
            bell: self.news.clone(),
            to,
            after: 0,
            waiting: VecDeque::new(),
        }))
    }

    fn has_stock_nodes(&self) -> bool {
        false
    }
}

/// The text of a message, unless it is too large.
fn envelope(what: &str, message: Message) -> Result<String, StoreError> {
    let bytes = Envelope::new(message).to_bytes();
    if bytes.len() > LETTER_BYTES_MAX {
        let text = format!("{what}: it has {} bytes, at most {LETTER_BYTES_MAX} go", bytes.len());
        return Err(StoreError::new(ErrorKind::TooLarge, text));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn broadcast(connection: &Connection, context: &Context, envelope: &str) -> Result<(), StoreError> {
    let fail = wrap("send a request");
    let now = micros(context.clock.wall());
    connection
        .prepare_cached("INSERT INTO request (sent_at, envelope) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute((now, envelope)))
        .map_err(&fail)?;
    let oldest = connection.last_insert_rowid() - REQUESTS_MAX;
    let life = i64::try_from(REQUEST_LIFE.as_micros()).unwrap_or(i64::MAX);
    connection
        .prepare_cached("DELETE FROM request WHERE number <= ?1 OR sent_at < ?2")
        .and_then(|mut statement| statement.execute((oldest, now.saturating_sub(life))))
        .map_err(&fail)?;
    Ok(())
}

fn reply_to(connection: &Connection, inbox: &str, envelope: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO reply (inbox, envelope) SELECT ?1, ?2 \
             WHERE EXISTS (SELECT 1 FROM inbox WHERE id = ?1) \
             AND (SELECT count(*) FROM reply WHERE inbox = ?1) < ?3",
        )
        .and_then(|mut statement| statement.execute((inbox, envelope, REPLIES_MAX)))
        .map(|_| ())
        .map_err(wrap("send a reply"))
}

fn open(connection: &Connection, context: &Context, id: &str) -> Result<(), StoreError> {
    let fail = wrap("open an inbox");
    let now = context.clock.wall();
    let life = i64::try_from(INBOX_LIFE.as_micros()).unwrap_or(i64::MAX);
    connection
        .prepare_cached("DELETE FROM inbox WHERE opened_at < ?1")
        .and_then(|mut statement| statement.execute([micros(now).saturating_sub(life)]))
        .map_err(&fail)?;
    connection
        .prepare_cached("DELETE FROM reply WHERE inbox NOT IN (SELECT id FROM inbox)")
        .and_then(|mut statement| statement.execute([]))
        .map_err(&fail)?;
    connection
        .prepare_cached("INSERT INTO inbox (id, opened_at) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute((id, micros(now))))
        .map_err(&fail)?;
    Ok(())
}

/// Envelopes with a number above `after`, oldest first.
fn envelopes(
    connection: &Connection,
    inbox: Option<&str>,
    after: i64,
) -> Result<Vec<(i64, String)>, StoreError> {
    let fail = wrap("read requests and replies");
    let sql = match inbox {
        None => "SELECT number, envelope FROM request WHERE number > ?2 ORDER BY number LIMIT ?3",
        Some(_) => {
            "SELECT number, envelope FROM reply WHERE inbox = ?1 AND number > ?2 \
             ORDER BY number LIMIT ?3"
        }
    };
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let key = inbox.unwrap_or_default();
            statement
                .query_map((key, after, READ_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .map_err(fail)
}

/// Reads one envelope; what cannot be read is nobody's and stops nobody.
fn letter<T>(text: &str, read: fn(&Message) -> Result<T, ParseError>) -> Option<T> {
    let letter = Envelope::parse(text.as_bytes()).and_then(|envelope| read(&envelope.message));
    letter.inspect_err(|error| tracing::warn!(%error, "passed over a broken control message")).ok()
}

/// The requests that one node hears.
struct Heard {
    reader: Arc<Reader>,
    bell: Bell,
    after: i64,
    waiting: VecDeque<ControlRequest>,
}

impl fmt::Debug for Heard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Heard").field("after", &self.after).finish_non_exhaustive()
    }
}

#[async_trait]
impl Requests for Heard {
    async fn next(&mut self) -> Result<ControlRequest, StoreError> {
        loop {
            if let Some(request) = self.waiting.pop_front() {
                return Ok(request);
            }
            let seen = self.bell.count();
            let after = self.after;
            let found = read(&self.reader, "listen to requests", move |connection| {
                envelopes(connection, None, after)
            })
            .await?;
            if let Some((last, _)) = found.last() {
                self.after = *last;
                let requests =
                    found.iter().filter_map(|(_, text)| letter(text, ControlRequest::from_message));
                self.waiting.extend(requests);
            } else {
                self.bell.wait(seen, LOOK_AGAIN).await;
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One asker's inbox.
struct Letters {
    reader: Arc<Reader>,
    writer: Arc<Writer>,
    bell: Bell,
    to: ReplyTo,
    after: i64,
    waiting: VecDeque<ControlReply>,
}

impl fmt::Debug for Letters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Letters").field("to", &self.to).finish_non_exhaustive()
    }
}

#[async_trait]
impl Inbox for Letters {
    fn reply_to(&self) -> &ReplyTo {
        &self.to
    }

    async fn next(&mut self, timeout: Duration) -> Result<Option<ControlReply>, StoreError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            if let Some(reply) = self.waiting.pop_front() {
                return Ok(Some(reply));
            }
            let seen = self.bell.count();
            let (id, after) = (self.to.routing_key.clone(), self.after);
            let found = read(&self.reader, "collect replies", move |connection| {
                envelopes(connection, Some(&id), after)
            })
            .await?;
            if let Some((last, _)) = found.last() {
                self.after = *last;
                let replies =
                    found.iter().filter_map(|(_, text)| letter(text, ControlReply::from_message));
                self.waiting.extend(replies);
                continue;
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.bell.wait(seen, left.min(LOOK_AGAIN)).await;
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        let id = self.to.routing_key;
        self.writer
            .write("close an inbox", Relaxed, move |connection| {
                let fail = wrap("close an inbox");
                connection.execute("DELETE FROM inbox WHERE id = ?1", [&id]).map_err(&fail)?;
                connection.execute("DELETE FROM reply WHERE inbox = ?1", [&id]).map_err(&fail)?;
                Ok(())
            })
            .await
    }
}
