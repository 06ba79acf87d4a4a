//! Remote control over Celery's own channels: kombu's pidbox (wire specification 7, 2.10).

use super::bell::Subscription;
use super::pack::Pack;
use super::script::MAILBOX;
use super::{Core, RedisStore};
use async_trait::async_trait;
use celeriac_core::store::{Inbox, Mailbox, Requests};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::control::CONTROL_EXCHANGE;
use celeriac_wire::{ControlReply, ControlRequest, Envelope, Message, ReplyTo};
use redis::Value as Answer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The largest request or reply, as an envelope in bytes.
const LETTER_BYTES_MAX: usize = 8 << 20;
/// The most replies to one inbox; more are dropped.
const REPLIES_MAX: i64 = 10_000;
/// How long the table of inboxes stays after its last use (kombu 5.7, wire specification 2.3), and
/// replies that nobody collects, in milliseconds.
const LIFE: i64 = 3_600_000;
/// How long an inbox of ours stays that nobody closes.
const INBOX_LIFE: Duration = Duration::from_mins(10);

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

fn argument(core: &Core, op: &str, id: &str, fields: usize) -> Pack {
    let mut argument = Pack::default();
    argument.map(4 + fields);
    core.pack_head(&mut argument);
    argument.text("op").text(op).text("id").text(id);
    argument
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
        let mut argument = argument(core, "reply", &to.routing_key, 3);
        argument.text("letter").bytes(&bytes).text("ttl").number(LIFE);
        argument.text("max").number(REPLIES_MAX);
        core.link.script("send a reply", &MAILBOX, argument.into_bytes()).await.map(drop)
    }

    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError> {
        let core = &self.core;
        let to = ReplyTo::inbox(id);
        let mut argument = argument(core, "open", id, 2);
        argument.text("ttl").number(LIFE).text("life").number(INBOX_LIFE.as_micros() as i64);
        core.link.script("open an inbox", &MAILBOX, argument.into_bytes()).await?;
        let list = core.keys.list(&to.queue(), 0);
        core.bell.watch_lists(std::iter::once(list.clone()));
        Ok(Box::new(Letters { core: Arc::clone(core), to, list, taken: None }))
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

/// An inbox: a list that repliers push to. A reply is removed by its bytes after it was read, so that
/// a wait that is dropped loses none.
#[derive(Debug)]
struct Letters {
    core: Arc<Core>,
    to: ReplyTo,
    list: String,
    /// The reply that was returned last and still stands in the list.
    taken: Option<Vec<u8>>,
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.core.bell.forget_list(&self.list);
    }
}

impl Letters {
    /// Removes what was returned before. May be done twice: no two replies have the same bytes.
    async fn forget_taken(&mut self) -> Result<(), StoreError> {
        let Some(taken) = &self.taken else { return Ok(()) };
        let mut remove = redis::cmd("LREM");
        remove.arg(&self.list).arg(-1).arg(&taken[..]);
        self.core.link.call("read replies", &remove).await?;
        self.taken = None;
        Ok(())
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
            self.forget_taken().await?;
            let seen = self.core.bell.count();
            let mut look = redis::cmd("LINDEX");
            look.arg(&self.list).arg(-1);
            if let Answer::BulkString(bytes) = self.core.link.call("read replies", &look).await? {
                let read = Envelope::parse(&bytes)
                    .and_then(|envelope| ControlReply::from_message(&envelope.message));
                self.taken = Some(bytes);
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
        let argument = argument(&self.core, "close", &self.to.routing_key, 0);
        self.core.link.script("close an inbox", &MAILBOX, argument.into_bytes()).await.map(drop)
    }
}
