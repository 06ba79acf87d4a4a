//! Remote control: requests to all nodes, replies to one asker (wire specification 7).

use crate::error::StoreError;
use async_trait::async_trait;
use celeriac_wire::{ControlReply, ControlRequest, ReplyTo};
use std::fmt;
use std::time::Duration;

/// The requests that one node hears: at most once, from the moment of [`Mailbox::listen`].
#[async_trait]
pub trait Requests: fmt::Debug + Send {
    /// Waits for the next request. Cancel safe: what is not returned is not lost.
    ///
    /// # Errors
    /// The store cannot be read now. The stream can be asked again, and may have missed requests.
    async fn next(&mut self) -> Result<ControlRequest, StoreError>;

    /// Stops listening and leaves nothing behind. A stream that is dropped instead leaves at most a
    /// name in the store, which goes with time.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Where one asker collects replies.
#[async_trait]
pub trait Inbox: fmt::Debug + Send {
    /// Where repliers send to.
    fn reply_to(&self) -> &ReplyTo;

    /// The next reply, or `None` when none came for so long. Cancel safe.
    async fn next(&mut self, timeout: Duration) -> Result<Option<ControlReply>, StoreError>;

    /// Removes the inbox with what is in it. One that is dropped instead, or whose process dies, is
    /// removed by the store after a while.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Carries remote control; at most once, like kombu's mailbox. Nothing here is durable: an order
/// that must not be lost is kept by [`Control`](super::Control).
#[async_trait]
pub trait Mailbox: fmt::Debug + Send + Sync {
    /// Sends a request to every node that listens now.
    ///
    /// # Errors
    /// `TooLarge`, or the store does not answer.
    async fn broadcast(&self, request: &ControlRequest) -> Result<(), StoreError>;

    /// Listens for the node of this name. When it returns, every later request is heard; a listener
    /// that is slower than the askers misses the oldest.
    async fn listen(&self, node: &str) -> Result<Box<dyn Requests>, StoreError>;

    /// Sends a reply. Without an inbox, or to a full one, it is dropped.
    async fn reply(&self, to: &ReplyTo, reply: &ControlReply) -> Result<(), StoreError>;

    /// Opens an inbox under an id that nobody else uses.
    async fn open_inbox(&self, id: &str) -> Result<Box<dyn Inbox>, StoreError>;

    /// Whether workers of Celery itself may be among the nodes. They know only what they are told:
    /// revocations have to be exchanged with them.
    fn has_stock_nodes(&self) -> bool;
}

/// Asks nodes and collects their replies: until none came for `timeout`, or `count_max` are there.
/// Each reply begins the wait anew (kombu 5.7.0 pidbox.py `Mailbox._collect`). `id` names the inbox
/// and marks the request; it must be new.
///
/// A dropped future leaves the inbox to the store's cleaning.
///
/// # Errors
/// The store's; replies that came before are lost with it.
pub async fn ask(
    mailbox: &dyn Mailbox,
    id: &str,
    request: ControlRequest,
    timeout: Duration,
    count_max: Option<usize>,
) -> Result<Vec<ControlReply>, StoreError> {
    let mut inbox = mailbox.open_inbox(id).await?;
    let request = request.asking(id, inbox.reply_to());
    let collected = collect(mailbox, &mut *inbox, id, &request, timeout, count_max).await;
    let closed = inbox.close().await;
    let replies = collected?;
    // The replies are here; what is left behind goes with time.
    if replies.is_empty() {
        closed?;
    }
    Ok(replies)
}

async fn collect(
    mailbox: &dyn Mailbox,
    inbox: &mut dyn Inbox,
    ticket: &str,
    request: &ControlRequest,
    timeout: Duration,
    count_max: Option<usize>,
) -> Result<Vec<ControlReply>, StoreError> {
    mailbox.broadcast(request).await?;
    let mut replies = Vec::new();
    while count_max.is_none_or(|max| replies.len() < max) {
        match inbox.next(timeout).await? {
            Some(reply) if reply.ticket.as_deref() == Some(ticket) => replies.push(reply),
            // Not ours: the answer to nothing that we asked.
            Some(_) => {}
            None => break,
        }
    }
    Ok(replies)
}
