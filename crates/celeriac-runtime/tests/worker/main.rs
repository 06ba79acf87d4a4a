//! The pure parts of the worker: what runs, and what happens to it, step by step.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]

mod control;
mod decide;
mod machine;

use celeriac_core::QueueName;
use celeriac_core::lease::{Lease, Suspicion};
use celeriac_core::outcome::Outcome;
use celeriac_core::store::Delivery;
use celeriac_runtime::{Handler, Registry, RunContext, TaskPolicy};
use celeriac_wire::{Body, Message};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::sync::Arc;

/// A task that is never run here.
struct Named(&'static str, TaskPolicy);

impl Handler for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn policy(&self) -> &TaskPolicy {
        &self.1
    }

    fn run(&self, _run: RunContext, _body: Body) -> BoxFuture<'static, Outcome> {
        Box::pin(std::future::ready(Outcome::Ignore))
    }
}

/// A registry that knows `t.known`.
fn registry(policy: TaskPolicy) -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.add(Arc::new(Named("t.known", policy))).unwrap();
    Arc::new(registry)
}

/// A delivery of `t.known` with this row as lease and id.
fn delivery(row: i64) -> Delivery {
    let message = Message::new("t.known", &row.to_string(), Body::default().to_bytes());
    Delivery {
        lease: Lease { row, token: row },
        queue: QueueName::parse("celery").unwrap(),
        message,
        enqueued_at: Timestamp::UNIX_EPOCH,
        redelivered: false,
        suspicion: Suspicion::default(),
        history: Vec::new(),
        revoked: false,
        acknowledged: false,
    }
}
