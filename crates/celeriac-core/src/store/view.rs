//! What is true of a task or a queue, with or without a running worker.

use super::{NodeId, ResultRecord};
use crate::dead::{Attempt, DeadReason};
use crate::error::StoreError;
use async_trait::async_trait;
use celeriac_wire::Message;
use jiff::Timestamp;
use std::fmt;

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// No message, no result, no dead letter: never sent here, or expired.
    Unknown,
    /// Waits for its time.
    Scheduled {
        /// When it becomes due.
        until: Timestamp,
        /// Whether it waits for a retry.
        retry: bool,
    },
    /// Waits for a worker.
    Queued {
        /// How many messages run before it, if it can be told cheaply (up to 10 000).
        position: Option<u64>,
        /// Whether its queue, its task, its key or everything is paused.
        paused: bool,
        /// Whether a rate or concurrency limit holds it back now.
        limited: bool,
        /// Whether it will be thrown away when fetched.
        revoked: bool,
    },
    /// Held by a worker that has not begun it.
    Reserved {
        /// The worker.
        worker: String,
    },
    /// Runs.
    Running {
        /// The worker.
        worker: String,
        /// Since when.
        since: Timestamp,
    },
    /// Has a final result.
    Done,
    /// Set aside.
    Dead {
        /// The number of its dead letter.
        number: i64,
        /// Why.
        reason: DeadReason,
    },
}

impl Phase {
    /// One word for tables and filters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Scheduled { retry: true, .. } => "retry",
            Self::Scheduled { .. } => "scheduled",
            Self::Queued { .. } => "queued",
            Self::Reserved { .. } => "reserved",
            Self::Running { .. } => "running",
            Self::Done => "done",
            Self::Dead { .. } => "dead",
        }
    }
}

/// A task as `task show` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Its id.
    pub task_id: String,
    /// Where it is.
    pub phase: Phase,
    /// Its name, if known.
    pub task: Option<String>,
    /// Its queue, if known.
    pub queue: Option<String>,
    /// When it was first enqueued, if known.
    pub enqueued_at: Option<Timestamp>,
    /// Its retry count.
    pub retries: u32,
    /// Its message, while there is one.
    pub message: Option<Message>,
    /// Its stored result, custom state or progress.
    pub result: Option<ResultRecord>,
    /// Its earlier runs.
    pub history: Vec<Attempt>,
}

impl TaskView {
    /// A task of which only this is known.
    pub fn bare(task_id: &str, phase: Phase) -> Self {
        Self {
            task_id: task_id.to_owned(),
            phase,
            task: None,
            queue: None,
            enqueued_at: None,
            retries: 0,
            message: None,
            result: None,
            history: Vec::new(),
        }
    }
}

/// Which tasks are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only this phase, by its word ([`Phase::as_str`]), or a result state such as `FAILURE`.
    pub state: Option<String>,
    /// Only this task, or this prefix when it ends in `*`.
    pub task: Option<String>,
    /// Only this queue.
    pub queue: Option<String>,
    /// Only what follows the page whose [`TaskPage::next`] this is; `None` begins with the newest.
    pub after: Option<String>,
    /// The most entries; the newest come first.
    pub count_max: usize,
}

/// A part of a list of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPage {
    /// The tasks, each once.
    pub views: Vec<TaskView>,
    /// What [`TaskFilter::after`] of the next page is; `None` when this one is the last. Letters, digits,
    /// `-` and `_`, at most [`CURSOR_BYTES_MAX`] of them; what it says is the store's own affair.
    pub next: Option<String>,
}

/// The longest cursor of a list of tasks, in bytes.
pub const CURSOR_BYTES_MAX: usize = 8192;

/// A queue in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Messages that a worker could take now.
    pub ready: u64,
    /// Messages that wait for their time.
    pub scheduled: u64,
    /// Messages held by workers.
    pub leased: u64,
    /// Dead letters that came from it.
    pub dead: u64,
    /// When the oldest ready message was enqueued.
    pub oldest: Option<Timestamp>,
    /// Whether it is paused.
    pub paused: bool,
    /// Nodes that consume it now.
    pub consumers: Vec<NodeId>,
}

/// Looks without touching.
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync {
    /// What is true of one task.
    async fn task(&self, task_id: &str) -> Result<TaskView, StoreError>;

    /// Tasks, newest first. With the cursor of one page the next is read, until there is none: a task that
    /// stays as it is is seen exactly once, one that changes meanwhile may be missed or seen again. A cursor
    /// of nobody's is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError>;

    /// All queues that exist: with messages, dead letters, pauses or consumers.
    async fn queues(&self) -> Result<Vec<QueueView>, StoreError>;
}
