//! How a task ended that cannot tell it itself, for pools whose app wants to hear of it.

use celeriac_core::outcome::{ChildDeath, TracedEvent};
use celeriac_core::store::Delivery;
use celeriac_wire::Map;
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
    /// Its child, or its worker, died so often that it never runs again.
    Poison(ChildDeath),
    /// It has ended, but perhaps nobody sends the body of its chord.
    Part,
    /// It was revoked while it ran, and told so by this signal.
    Terminated(i32),
    /// It was revoked before it ran; by these stamps, if any.
    Revoked(Map),
    /// It came too late.
    Expired,
}

/// What Celery makes of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// What becomes of the message.
    pub(crate) fate: ToldFate,
    /// The events that Celery would send.
    pub(crate) events: Option<Vec<TracedEvent>>,
    /// After what time its chord is to be looked at, see [`Traced::look_again`].
    ///
    /// [`Traced::look_again`]: celeriac_core::outcome::Traced::look_again
    pub(crate) look_again: Option<Duration>,
}

/// What becomes of a message of whose end the app was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldFate {
    /// It is over; its result is stored, and everybody knows.
    Over,
    /// It is to run again.
    Requeue,
    /// Its success had been stored before its child died.
    Succeeded,
}

/// What happens to a worker, for the app's receivers of signals of Celery's main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It takes tasks.
    Ready,
    /// It has sent a heartbeat.
    Heartbeat,
    /// It was told to stop, by this signal: it lets tasks finish, or (`cold`) does not.
    Stopping { signal: &'static str, cold: bool },
    /// It has stopped, and its children with it.
    Stopped,
}
