//! Remote control over Celery's own channels: kombu's pidbox (wire specification 7, 2.10).

use super::bell::Subscription;
use super::dead::texts;
use super::keys::SEPARATOR;
use super::{Core, RedisStore};
use async_trait::async_trait;
use celeriac_core::store::{Inbox, Mailbox, Requests};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::control::{CONTROL_EXCHANGE, REPLY_EXCHANGE};
use celeriac_wire::{ControlReply, ControlRequest, Envelope, Message, ReplyTo};
use redis::{Pipeline, Value as Answer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The largest request or reply, as an envelope in bytes.
const LETTER_BYTES_MAX: usize = 8 << 20;
/// The most replies that wait in one inbox; the oldest go.
const REPLIES_MAX: i64 = 10_000;
/// How long replies wait in an inbox that nobody closes, in seconds.
const REPLY_LIFE: i64 = 600;
/// How long kombu 5.7 keeps the table of inboxes after its last use (2.3), in milliseconds.
const TABLE_LIFE: i64 = 3_600_000;

/// A message as kombu's readers want it, with a tag of its own.
pub(super) fn envelope(
    core: &Core,
    what: &str,
    mut message: Message,
) -> Result<Vec<u8>, StoreError> {
    message
        .properties
        .set_delivery_tag(&celeriac_core::clock::task_id(&*core.clock, &*core.entropy));
    let bytes = Envelope::new(message).to_bytes();
    if bytes.len() > LETTER_BYTES_MAX {
        let text = format!("{what}: it has {} bytes, at most {LETTER_BYTES_MAX} go", bytes.len());
        return Err(StoreError::new(ErrorKind::TooLarge, text));
    }
    Ok(bytes)
}

/// A fanout exchange's channel (wire specification 2.10).
pub(super) fn channel(core: &Core, rest: &str) -> String {
    format!("{}/{}.{rest}", core.keys.prefix, core.keys.database)
}

/// The table of the inboxes.
fn table(core: &Core, name: &str) -> String {
    format!("{}_kombu.{name}.{REPLY_EXCHANGE}", core.keys.prefix)
}

/// The line of an inbox in the table: routing key, no pattern, queue.
fn member(to: &ReplyTo) -> String {
    format!("{}{SEPARATOR}{SEPARATOR}{}", to.routing_key, to.queue())
}

#[async_trait]
impl Mailbox for RedisStore {
    async fn broadcast(&self, request: &ControlRequest) -> Result<(), StoreError> {
        let bytes = envelope(&self.core, "send a request", request.to_message())?;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel(&self.core, CONTROL_EXCHANGE)).arg(bytes);
        self.core.link.call("send a request", &publish).await.map(drop)
    }

    async fn listen(&self, _node: &str) -> Result<Box<dyn Requests>, StoreError> {
        let channel = channel(&self.core, CONTROL_EXCHANGE);
        let subscription = self.core.bell.subscribe(&channel, false).await;
        Ok(Box::new(Listener { subscription, _core: Arc::clone(&self.core) }))
    }

    async fn reply(&self, to: &ReplyTo, reply: &ControlReply) -> Result<(), StoreError> {
        let core = &self.core;
        let bytes = envelope(core, "send a reply", reply.to_message(to))?;
        let mut table_of = redis::cmd("SMEMBERS");
        table_of.arg(table(core, "binding"));
        let members = texts(core.link.call("look for an inbox", &table_of).await?);
        let mut pipeline = Pipeline::new();
        for member in members {
            let mut parts = member.split(SEPARATOR);
            if parts.next() == Some(to.routing_key.as_str())
                && let Some(queue) = parts.nth(1)
            {
                let list = core.keys.list(queue, 0);
                pipeline.cmd("LPUSH").arg(&list).arg(&bytes);
                pipeline.cmd("LTRIM").arg(&list).arg(0).arg(REPLIES_MAX - 1);
                pipeline.cmd("EXPIRE").arg(&list).arg(REPLY_LIFE);
            }
        }
        core.link.pipeline("send a reply", &pipeline).await.map(drop)
    }

    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError> {
        let core = &self.core;
        let to = ReplyTo::inbox(id);
        let until = core.now().as_millisecond() + TABLE_LIFE;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SADD").arg(table(core, "binding")).arg(member(&to));
        let deadlines = format!("{}_kombu.binding_deadlines", core.keys.prefix);
        pipeline.cmd("ZADD").arg(deadlines).arg("GT").arg(until).arg(REPLY_EXCHANGE);
        core.link.pipeline("open an inbox", &pipeline).await?;
        let list = core.keys.list(&to.queue(), 0);
        core.bell.watch_lists(std::iter::once(list.clone()));
        Ok(Box::new(Letters { core: Arc::clone(core), to, list }))
    }

    fn has_stock_nodes(&self) -> bool {
        true
    }
}

/// Hears requests.
struct Listener {
    subscription: Subscription,
    /// Keeps the store's listening alive.
    _core: Arc<Core>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Listener").field(&self.subscription).finish()
    }
}

#[async_trait]
impl Requests for Listener {
    async fn next(&mut self) -> Result<ControlRequest, StoreError> {
        loop {
            let Some(payload) = self.subscription.next().await else {
                return Err(StoreError::new(ErrorKind::Unavailable, "listen to requests: ended"));
            };
            let read = Envelope::parse(&payload).and_then(|envelope| {
                let request = ControlRequest::from_message(&envelope.message)?;
                Ok(request)
            });
            match read {
                Ok(request) => return Ok(request),
                Err(error) => tracing::warn!(%error, "a request cannot be read"),
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// An inbox: a list that repliers push to.
#[derive(Debug)]
struct Letters {
    core: Arc<Core>,
    to: ReplyTo,
    list: String,
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.core.bell.forget_list(&self.list);
    }
}

#[async_trait]
impl Inbox for Letters {
    fn reply_to(&self) -> &ReplyTo {
        &self.to
    }

    async fn next(&mut self, timeout: Duration) -> Result<Option<ControlReply>, StoreError> {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.core.bell.count();
            let mut pop = redis::cmd("RPOP");
            pop.arg(&self.list);
            if let Answer::BulkString(bytes) = self.core.link.call("read replies", &pop).await? {
                let read = Envelope::parse(&bytes).and_then(|envelope| {
                    let reply = ControlReply::from_message(&envelope.message)?;
                    Ok(reply)
                });
                match read {
                    Ok(reply) => return Ok(Some(reply)),
                    Err(error) => tracing::warn!(%error, "a reply cannot be read"),
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.core.bell.wait(seen, left).await;
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for name in ["binding", "binding_permanent"] {
            pipeline.cmd("SREM").arg(table(&self.core, name)).arg(member(&self.to));
        }
        pipeline.cmd("DEL").arg(&self.list);
        self.core.link.pipeline("close an inbox", &pipeline).await.map(drop)
    }
}
