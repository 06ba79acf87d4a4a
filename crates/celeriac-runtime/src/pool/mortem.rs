//! How a task ended that cannot tell it itself, for pools whose app wants to hear of it.

use celeriac_core::outcome::ChildDeath;
use celeriac_core::store::Delivery;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// What is to be told.
#[derive(Clone, Debug)]
pub(crate) struct PostMortem {
    /// Of which message.
    pub(crate) delivery: Arc<Delivery>,
    /// When its run began, if it did.
    pub(crate) started_at: Option<Timestamp>,
    /// How it ended.
    pub(crate) end: End,
}

/// How a task ended that cannot tell it itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// It ran over its hard limit.
    TimedOut(Duration),
    /// Its child died, or was killed with its worker.
    Lost(ChildDeath),
    /// It was revoked while it ran.
    Terminated,
    /// It was revoked before it ran.
    Revoked,
    /// It came too late.
    Expired,
}

/// What Celery makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is over; its result is stored, and everybody knows.
    Over,
    /// It is to run again.
    Requeue,
    /// Its success had been stored before its child died.
    Succeeded,
}
