//! What a node knows of itself when it is asked.

use super::super::orders::{Limits, Orders};
use super::ControlOptions;
use crate::handler::Registry;
use crate::worker::Autoscale;
use celeriac_core::QueueName;
use celeriac_core::exchange::Binding;
use celeriac_core::route::Router;
use celeriac_core::store::Delivery;
use celeriac_core::throttle::Rate;
use celeriac_wire::{Message, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A task that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// What runs.
    pub delivery: Arc<Delivery>,
    /// Since when.
    pub started_at: Timestamp,
    /// The process that runs it, once it is known.
    pub pid: Option<u32>,
}

/// A message of the node's queues that waits for its time.
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// When it becomes due.
    pub until: Timestamp,
    /// Its queue.
    pub queue: String,
    /// The message.
    pub message: Message,
}

/// A child process, or this process where tasks are futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessView {
    /// Its process id.
    pub pid: u32,
    /// How many tasks it was given.
    pub taken: u64,
    /// Whether it has one now.
    pub busy: bool,
}

/// The pool of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Where tasks run: `async` or `process`.
    pub kind: &'static str,
    /// Its slots.
    pub slots: usize,
    /// Its processes.
    pub processes: Vec<ProcessView>,
    /// After how many tasks a child ends.
    pub tasks_max: Option<u64>,
}

/// Everything that an answer is made from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node's name.
    pub node: Arc<str>,
    /// Its process id.
    pub pid: u32,
    /// Its Lamport clock, forwarded for this reply.
    pub clock: u64,
    /// For how long it has run.
    pub uptime: Duration,
    /// What it is told of the application and the store.
    pub options: Arc<ControlOptions>,
    /// The tasks it knows.
    pub registry: Arc<Registry>,
    /// What it consumes.
    pub queues: Vec<Binding>,
    /// What the application declares.
    pub router: Arc<Router>,
    /// Where tasks run.
    pub pool: PoolView,
    /// What runs.
    pub running: Vec<Running>,
    /// How many of each task have begun since the start.
    pub totals: BTreeMap<String, u64>,
    /// The worker's own rates.
    pub rates: BTreeMap<String, Rate>,
    /// What operators changed.
    pub orders: Orders,
    /// Between how many slots it moves, if it does.
    pub autoscale: Option<Autoscale>,
    /// Whether task events are sent.
    pub task_events: bool,
    /// What waits for its time in the node's queues; read only when it is asked for.
    pub scheduled: Vec<Scheduled>,
    /// The revoked tasks; read only when they are asked for.
    pub revoked: Vec<String>,
    /// What the process has used, in the words of `getrusage`; read only when it is asked for.
    pub rusage: Value,
    /// Resident memory in bytes, where the system tells.
    pub memory: Option<u64>,
    /// Earlier answers to `memsample` since the last `memdump`.
    pub samples: Vec<String>,
}

/// What has to be read from outside before a request can be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What waits for its time.
    pub scheduled: bool,
    /// The revoked tasks.
    pub revoked: bool,
    /// What the process uses.
    pub process: bool,
}

impl Needs {
    /// What the answer to a command needs.
    pub fn of(command: &str) -> Self {
        Self {
            scheduled: matches!(command, "scheduled" | "dump_schedule"),
            revoked: matches!(command, "revoked" | "dump_revoked" | "hello"),
            process: matches!(command, "stats" | "memsample" | "memdump"),
        }
    }
}

/// What has to be done before the answer is sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Deed {
    /// Move between other numbers of slots.
    Autoscale {
        /// The most.
        max: usize,
        /// The fewest.
        min: usize,
    },
    /// Revoke tasks for good, in the store.
    Revoke {
        /// The tasks.
        ids: Vec<String>,
        /// Also those that run.
        terminate: bool,
        /// The signal that children of these get, where it is named.
        signal: Option<i32>,
    },
    /// Refuse what carries one of these stamps from now on.
    RevokeStamps {
        /// The header.
        header: String,
        /// Its values.
        stamps: Vec<String>,
    },
    /// Change the worker's own rate of a task.
    Rate {
        /// The task.
        task: String,
        /// Its rate; `None` lifts it.
        rate: Option<Rate>,
    },
    /// Change the time limits of a task.
    Limits {
        /// The task.
        task: String,
        /// Its limits.
        limits: Limits,
    },
    /// Consume a queue.
    Consume(Binding),
    /// Consume it no more.
    Cancel(QueueName),
    /// Have so many slots.
    Resize(usize),
    /// Send task events, or do not.
    TaskEvents(bool),
    /// Send a heartbeat event now.
    Beat,
    /// Remember what memory was used.
    Sample(String),
    /// Forget the samples.
    ForgetSamples,
    /// Stop, and let what runs finish within the grace period.
    Shutdown,
}

/// What a node answers and does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The reply; `None` when there is none, as to `shutdown`.
    pub reply: Option<Value>,
    /// What to do first; if it fails, the reply is the failure.
    pub deeds: Vec<Deed>,
}

impl Answer {
    /// An answer to which nothing has to be done.
    pub fn just(reply: Value) -> Self {
        Self { reply: Some(reply), deeds: Vec::new() }
    }

    /// An answer after a deed.
    pub fn after(deed: Deed, reply: Value) -> Self {
        Self { reply: Some(reply), deeds: vec![deed] }
    }
}
