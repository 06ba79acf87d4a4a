//! Looks at a store from outside, step by step, whether or not it can be used.

use crate::error::StoreError;
use async_trait::async_trait;
use celeriac_wire::Message;
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// One step on the way to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name: `URL`, `DNS`, `TCP`, `TLS`, `AUTH`, `PING` and the like.
    pub name: &'static str,
    /// What was found, or why it failed, for people.
    pub told: String,
    /// What to do where it failed; `None` where it went well.
    pub failed: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What becomes of messages when the server has no memory left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Writes are refused.
    #[default]
    Refuses,
    /// Keys with a time to live go.
    Results,
    /// Any key goes.
    Messages,
}

/// Messages that workers of Celery hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unacked {
    /// All of them.
    pub count: u64,
    /// Those that are overdue.
    pub overdue: u64,
    /// Those that Celery will never find again.
    pub lost: u64,
    /// When the oldest was taken.
    pub oldest: Option<Timestamp>,
}

/// A queue, as far as it can be told without workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Its name.
    pub name: String,
    /// Messages that wait, by priority step; the first runs first.
    pub waiting: [u64; 4],
    /// celeriac's workers that consume it.
    pub consumers: u64,
}

impl QueueFacts {
    /// All that wait.
    pub fn total(&self) -> u64 {
        self.waiting.iter().sum()
    }
}

/// Something that nobody will remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its key.
    pub key: String,
    /// What it is.
    pub what: &'static str,
    /// For how long nobody has touched it.
    pub idle: Duration,
}

/// What is known of a store.
#[expect(clippy::struct_excessive_bools, reason = "independent answers to as many questions")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreFacts {
    /// What it is, with its version.
    pub server: String,
    /// What it lacks to be used at all; a sentence.
    pub too_old: Option<String>,
    /// Why this program cannot work with what is stored; a sentence.
    pub format: Option<String>,
    /// Whether it takes no writes.
    pub replica: bool,
    /// Its memory policy by name, where it has one.
    pub policy: Option<String>,
    /// What that means.
    pub eviction: Eviction,
    /// Bytes used and allowed; `None` where nothing is.
    pub memory: Option<(u64, u64)>,
    /// Why what is queued does not survive a restart; `None` where it does.
    pub volatile: Option<String>,
    /// How far the store's clock is ahead of this machine's, in microseconds, half the time of the
    /// question taken off; `None` where they are the same clock.
    pub clock_ahead: Option<i64>,
    /// Whether it asks for a password; `None` where that means nothing.
    pub asks_password: Option<bool>,
    /// Whether it is on this machine.
    pub local: bool,
    /// Whether the way there is encrypted, and to whom it should be.
    pub encrypted: bool,
    /// After how long Celery's workers' messages go back.
    pub redelivers_after: Option<Duration>,
    /// Its queues.
    pub queues: Vec<QueueFacts>,
    /// What Celery's workers hold.
    pub unacked: Unacked,
    /// Clients that listen as workers of Celery do.
    pub strangers: u64,
    /// celeriac's workers that are alive.
    pub nodes: u64,
    /// What nobody will remove.
    pub leftovers: Vec<Leftover>,
    /// Damage; a sentence each.
    pub damage: Vec<String>,
    /// Whether there was more than was looked at.
    pub cut: bool,
}

/// A message that a worker of Celery holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldElsewhere {
    /// Since when.
    pub since: Timestamp,
    /// When the store gives it back, unless its worker acknowledges it.
    pub returns_at: Timestamp,
}

/// A message that waits in a queue which no celeriac has ever used.
#[derive(Clone, Debug, PartialEq)]
pub struct Unlisted {
    /// The queue.
    pub queue: String,
    /// How many messages run before it.
    pub position: u64,
    /// The message.
    pub message: Message,
}

/// Looks at a store. Nothing is written except by [`Diagnose::clean`].
#[async_trait]
pub trait Diagnose: fmt::Debug + Send + Sync {
    /// Goes to the store step by step and stops at the first that fails. Each step has a deadline.
    async fn reach(&self) -> Vec<Step>;

    /// What is true of it. `idle`: for how long leftovers were not touched.
    ///
    /// # Errors
    /// It cannot be reached, or refuses to be asked.
    async fn facts(&self, idle: Duration) -> Result<StoreFacts, StoreError>;

    /// Removes leftovers that are still what they were; returns how many.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    async fn clean(&self, leftovers: &[Leftover], idle: Duration) -> Result<u64, StoreError>;

    /// The waiting message of a task in a queue that [`Inspect`](super::Inspect) does not know, for only
    /// programs of Celery have used it. Of each queue only the first 100,000 are looked at.
    ///
    /// # Errors
    /// It cannot be reached.
    async fn unlisted(&self, task_id: &str) -> Result<Option<Unlisted>, StoreError>;

    /// The message of a task in the hands of a worker of Celery. Only the first 100,000 are looked at.
    ///
    /// # Errors
    /// It cannot be reached.
    async fn held_elsewhere(&self, task_id: &str) -> Result<Option<HeldElsewhere>, StoreError>;
}
