//! Remote control as kombu carries it: requests on a channel, replies in the asker's list (wire
//! specification 2.10, 7). Stock workers and stock clients take part.

use super::bell::Subscription;
use super::pack::Pack;
use super::packet::uuid;
use super::script::MAILBOX;
use super::{Core, RedisStore};
use async_trait::async_trait;
use celeriac_core::store::{Inbox, Mailbox, Requests};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::control::CONTROL_EXCHANGE;
use celeriac_wire::{ControlReply, ControlRequest, Envelope, Message, ReplyTo};
use redis::Value as Answer;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// The largest request or reply, as an envelope in bytes.
const LETTER_BYTES_MAX: usize = 8 << 20;
/// The most replies that wait in one inbox; more are dropped.
const REPLIES_MAX: i64 = 10_000;
/// The most replies between the connection that pops them and who collects them.
const COLLECTED_MAX: usize = 64;
/// How long a list of replies lives that nobody collects, in milliseconds. Also the least time to live
/// that kombu gives a table (transport/redis.py 5.7, `binding_ttl`).
const TTL: i64 = 3_600_000;
/// How long an inbox of ours stays that nobody closes.
const INBOX_LIFE: Duration = Duration::from_mins(10);
/// How long the server waits for a reply in one call.
const POP: Duration = Duration::from_secs(1);
/// How long an answer to that may take beside it.
const POP_DEADLINE: Duration = Duration::from_secs(4);
/// The pause before a broken connection is made anew.
const PAUSE: Duration = Duration::from_millis(100);

#[async_trait]
impl Mailbox for RedisStore {
    async fn broadcast(&self, request: &ControlRequest) -> Result<(), StoreError> {
        let core = &self.core;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(core.keys.channel(CONTROL_EXCHANGE));
        publish.arg(letter(core, "send a request", request.to_message())?);
        core.link.call("send a request", &publish).await.map(drop)
    }

    async fn listen(&self, _node: &str) -> Result<Box<dyn Requests>, StoreError> {
        let channel = self.core.keys.channel(CONTROL_EXCHANGE);
        let subscription = self.core.bell.subscribe(&channel, false).await;
        Ok(Box::new(Heard { core: Arc::clone(&self.core), channel, subscription }))
    }

    async fn reply(&self, to: &ReplyTo, reply: &ControlReply) -> Result<(), StoreError> {
        let core = &self.core;
        let letter = letter(core, "send a reply", reply.to_message(to))?;
        let mut argument = argument(core, "reply", &to.routing_key, 3);
        argument.text("letter").bytes(&letter).text("ttl").number(TTL);
        argument.text("max").number(REPLIES_MAX);
        core.link.script("send a reply", &MAILBOX, argument.into_bytes()).await.map(drop)
    }

    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError> {
        let core = &self.core;
        let to = ReplyTo::inbox(id);
        let mut argument = argument(core, "open", id, 2);
        argument.text("ttl").number(TTL);
        argument.text("life").number(INBOX_LIFE.as_micros() as i64);
        core.link.script("open an inbox", &MAILBOX, argument.into_bytes()).await?;
        let (sender, replies) = mpsc::channel(COLLECTED_MAX);
        let collecting = tokio::spawn(collect(Arc::clone(core), to.queue(), sender));
        Ok(Box::new(Letters { core: Arc::clone(core), to, replies, collecting }))
    }

    fn has_stock_nodes(&self) -> bool {
        true
    }
}

fn argument(core: &Core, op: &str, id: &str, fields: usize) -> Pack {
    let mut argument = Pack::default();
    argument.map(4 + fields);
    core.pack_head(&mut argument);
    argument.text("op").text(op).text("id").text(id);
    argument
}

/// The envelope of a message that is published, unless it is too large.
fn letter(core: &Core, what: &str, message: Message) -> Result<Vec<u8>, StoreError> {
    let bytes = envelope(core, message);
    if bytes.len() > LETTER_BYTES_MAX {
        let text = format!("{what}: it has {} bytes, at most {LETTER_BYTES_MAX} go", bytes.len());
        return Err(StoreError::new(ErrorKind::TooLarge, text));
    }
    Ok(bytes)
}

/// The envelope of a message with a tag of its own, without which kombu refuses it.
pub(super) fn envelope(core: &Core, message: Message) -> Vec<u8> {
    let mut envelope = Envelope::new(message);
    let tag = uuid(core.entropy.next_u64(), core.entropy.next_u64());
    envelope.message.properties.set_delivery_tag(&tag);
    envelope.to_bytes()
}

/// The requests that one node hears.
struct Heard {
    /// Keeps the store's ear alive.
    core: Arc<Core>,
    channel: String,
    subscription: Subscription,
}

impl fmt::Debug for Heard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Heard").field("channel", &self.channel).finish_non_exhaustive()
    }
}

#[async_trait]
impl Requests for Heard {
    async fn next(&mut self) -> Result<ControlRequest, StoreError> {
        loop {
            match self.subscription.next(&self.core.bell).await {
                Ok(heard) if heard.channel == self.channel => {
                    let read = Envelope::parse(&heard.payload);
                    let read =
                        read.and_then(|envelope| ControlRequest::from_message(&envelope.message));
                    match read {
                        Ok(request) => return Ok(request),
                        Err(error) => {
                            tracing::warn!(%error, "passed over a control request that cannot be read");
                        }
                    }
                }
                Ok(_other) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "control requests came faster than they were handled");
                }
                Err(RecvError::Closed) => {
                    let text = "listen to requests: the store is closed";
                    return Err(StoreError::new(ErrorKind::Unavailable, text));
                }
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One asker's inbox. A task of its own pops the replies, so that a dropped wait loses none.
struct Letters {
    core: Arc<Core>,
    to: ReplyTo,
    replies: mpsc::Receiver<Result<ControlReply, StoreError>>,
    collecting: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for Letters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Letters").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.collecting.abort();
    }
}

#[async_trait]
impl Inbox for Letters {
    fn reply_to(&self) -> &ReplyTo {
        &self.to
    }

    async fn next(&mut self, timeout: Duration) -> Result<Option<ControlReply>, StoreError> {
        match tokio::time::timeout(timeout, self.replies.recv()).await {
            Ok(Some(reply)) => reply.map(Some),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.collecting.abort();
        let argument = argument(&self.core, "close", &self.to.routing_key, 0);
        self.core.link.script("close an inbox", &MAILBOX, argument.into_bytes()).await.map(drop)
    }
}

/// Pops the replies of one inbox on a connection of its own, until nobody wants them.
async fn collect(
    core: Arc<Core>,
    queue: String,
    sender: mpsc::Sender<Result<ControlReply, StoreError>>,
) {
    let list = core.keys.list(&queue, 0);
    loop {
        let mut connection = match core.link.address().connect(None).await {
            Ok(connection) => connection,
            Err(error) => {
                if sender.send(Err(error)).await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while let Some(popped) = pop(&mut connection, &list).await {
            let Some(payload) = popped else { continue };
            let read = Envelope::parse(&payload);
            let read = read.and_then(|envelope| ControlReply::from_message(&envelope.message));
            match read {
                Ok(reply) => {
                    if sender.send(Ok(reply)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "passed over a control reply that cannot be read");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The next reply, nothing after a while; `None` when the connection is of no use any more.
async fn pop(connection: &mut MultiplexedConnection, list: &str) -> Option<Option<Vec<u8>>> {
    let mut pop = redis::cmd("BRPOP");
    pop.arg(list).arg(POP.as_secs());
    let call = connection.req_packed_command(&pop);
    match tokio::time::timeout(POP + POP_DEADLINE, call).await {
        Ok(Ok(Answer::Array(mut pair))) => match pair.pop() {
            Some(Answer::BulkString(payload)) => Some(Some(payload)),
            _ => Some(None),
        },
        Ok(Ok(Answer::Nil)) => Some(None),
        _ => None,
    }
}
