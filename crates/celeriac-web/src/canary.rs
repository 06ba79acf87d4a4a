//! A canary: something goes through the broker and has to come back.

use crate::options::{Canary, WebParts};
use celeriac_core::clock;
use celeriac_core::store::ask;
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{ControlReply, ControlRequest, Map, Value};
use std::time::Duration;

/// How long a canary may take.
pub(crate) const CANARY_DEADLINE: Duration = Duration::from_secs(3);

/// Sends one and waits for it.
///
/// # Errors
/// A sentence: what did not come back.
pub(crate) async fn send(parts: &WebParts, canary: &Canary) -> Result<(), String> {
    let flight = async {
        match canary {
            Canary::Echo => echo(parts).await,
            Canary::Worker(node) => worker(parts, node).await,
        }
    };
    match tokio::time::timeout(CANARY_DEADLINE, flight).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("nothing came back within {} s", CANARY_DEADLINE.as_secs())),
    }
}

/// A message that is written to the broker, wakes its reader there and is read again.
async fn echo(parts: &WebParts) -> Result<(), StoreError> {
    let id = clock::task_id(&*parts.clock, &*parts.entropy);
    let mut inbox = parts.store.open_inbox(&id).await?;
    let reply = ControlReply::new(Some(&id), "celeriac", Value::from("canary"));
    let back = match parts.store.reply(inbox.reply_to(), &reply).await {
        Ok(()) => inbox.next(CANARY_DEADLINE).await,
        Err(error) => Err(error),
    };
    // What is left behind goes with time.
    let _closed = inbox.close().await;
    match back? {
        Some(reply) if reply.ticket.as_deref() == Some(&id) => Ok(()),
        _ => Err(lost("the broker did not give back what was sent to it")),
    }
}

/// A request that a worker hears at the broker, takes through its loop and answers.
async fn worker(parts: &WebParts, node: &str) -> Result<(), StoreError> {
    let id = clock::task_id(&*parts.clock, &*parts.entropy);
    let request = ControlRequest::new("ping", Map::new()).to(&[node.to_owned()]);
    let replies = ask(&*parts.store, &id, request, CANARY_DEADLINE, Some(1)).await?;
    // A worker whose loop does not turn answers with an error.
    match replies.iter().flat_map(|reply| reply.answers.values()).next() {
        Some(answer) if answer.get("ok").is_some() => Ok(()),
        Some(answer) => Err(lost(&format!("the worker answered {answer}"))),
        None => Err(lost("the worker did not answer through the broker")),
    }
}

fn lost(text: &str) -> StoreError {
    StoreError::new(ErrorKind::Unavailable, text)
}
