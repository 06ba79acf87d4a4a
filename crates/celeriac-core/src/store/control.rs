//! Nodes and their heartbeats, durable revocations and pauses, events.

use crate::error::StoreError;
use crate::lease::LeaseTimes;
use crate::queue::QueueName;
use crate::throttle::Target;
use async_trait::async_trait;
use celeriac_wire::Event;
use jiff::Timestamp;
use std::fmt;

/// One run of one worker process: never reused, so that two replicas with one name stay two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i64);

/// What a node says of itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Celery's node name, `celery@host`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// The queues it consumes.
    pub queues: Vec<QueueName>,
    /// Its slots.
    pub concurrency: u32,
    /// Its pool.
    pub pool: String,
    /// Its lease times.
    pub times: LeaseTimes,
    /// The task names it knows.
    pub tasks: Vec<String>,
}

/// What a node says with every heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Tasks running now.
    pub active: u32,
    /// Tasks ended since start.
    pub processed: u64,
}

/// A node as others see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Its identity.
    pub id: NodeId,
    /// What it said at start.
    pub info: NodeInfo,
    /// What it said last.
    pub heartbeat: Heartbeat,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Whether its lease stands.
    pub alive: bool,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Names of the nodes found dead.
    pub dead_nodes: Vec<String>,
    /// Messages returned to their queues.
    pub requeued: u64,
    /// How many of these are poison; the worker that fetches one sets it aside.
    pub poisoned: u64,
    /// How many of these were acknowledged; the worker that fetches one sets it aside.
    pub lost: u64,
}

/// Keeps track of who is alive.
#[async_trait]
pub trait Nodes: fmt::Debug + Send + Sync {
    /// Registers a run of a worker.
    async fn register(&self, info: NodeInfo) -> Result<NodeId, StoreError>;

    /// Renews all leases of a node. `false`: the node was declared dead and owns nothing any more;
    /// it has to stop its work and register anew.
    async fn heartbeat(&self, node: NodeId, heartbeat: Heartbeat) -> Result<bool, StoreError>;

    /// Notes that a running node consumes other queues or has other slots than it said at start.
    /// `false`: the node was declared dead.
    async fn revise(
        &self,
        node: NodeId,
        queues: &[QueueName],
        concurrency: u32,
    ) -> Result<bool, StoreError>;

    /// Whether a node's leases stand, by a read alone: it answers also while nothing can be written.
    async fn stands(&self, node: NodeId) -> Result<bool, StoreError>;

    /// Signs a node off; what it still holds goes back to the queues and is redelivered from there:
    /// it may have begun. What is acknowledged is not run again ([`super::Broker::mark_started`]).
    async fn deregister(&self, node: NodeId) -> Result<u64, StoreError>;

    /// Finds dead nodes and returns what they held, by the rules of [`crate::lease`]. The caller
    /// asks its [`crate::lease::SweepGuard`] first.
    async fn sweep(&self) -> Result<Sweep, StoreError>;

    /// All nodes that are alive or died within the last day.
    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError>;
}

/// A revoked task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Grows with every revocation.
    pub number: i64,
    /// The task.
    pub task_id: String,
    /// Whether a running task is cancelled as well.
    pub terminate: bool,
}

/// What a pause stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// A queue, a task name, a key, or everything.
    pub target: Target,
    /// Since when.
    pub since: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Durable orders to all workers, also to those that start later.
#[async_trait]
pub trait Control: fmt::Debug + Send + Sync {
    /// Revokes tasks. What waits becomes REVOKED when it is fetched; a scheduled one becomes ready
    /// for that at once.
    async fn revoke(&self, task_ids: &[String], terminate: bool) -> Result<(), StoreError>;

    /// Withdraws revocations; returns how many stood.
    async fn unrevoke(&self, task_ids: &[String]) -> Result<u64, StoreError>;

    /// Revocations with a number above `after`, oldest first, at most 10 000.
    async fn revokes_since(&self, after: i64) -> Result<Vec<Revoke>, StoreError>;

    /// Stops fetches of what is named, in running workers and in those that start later; what runs
    /// goes on.
    async fn pause(&self, target: &Target, reason: &str) -> Result<(), StoreError>;

    /// Lets it go on; `false` when it was not paused.
    async fn resume(&self, target: &Target) -> Result<bool, StoreError>;

    /// All pauses.
    async fn pauses(&self) -> Result<Vec<Pause>, StoreError>;
}

/// An event with its place in the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StampedEvent {
    /// Grows with every event.
    pub number: i64,
    /// Celery's event.
    pub event: Event,
}

/// Events as they happen, to one listener: at most once, and not those of the time before.
#[async_trait]
pub trait EventStream: fmt::Debug + Send {
    /// Waits for events; never answers with none. Cancel safe: what is not returned is not lost.
    ///
    /// # Errors
    /// The store cannot be read now. The stream can be asked again, and may have missed events.
    async fn next(&mut self) -> Result<Vec<Event>, StoreError>;
}

/// The event stream: at most once, bounded, never in the way of work.
#[async_trait]
pub trait Events: fmt::Debug + Send + Sync {
    /// Appends events and sends them to who listens. Not durable. Heartbeats of
    /// nodes are no history: of each node a store keeps the last, or none.
    async fn emit(&self, events: Vec<Event>) -> Result<(), StoreError>;

    /// Listens to events from now on, of every sender. A listener that is slower than the senders
    /// misses the oldest.
    async fn watch_events(&self) -> Result<Box<dyn EventStream>, StoreError>;

    /// Events with a number above `after`, oldest first.
    async fn events_since(
        &self,
        after: i64,
        count_max: usize,
    ) -> Result<Vec<StampedEvent>, StoreError>;

    /// Events of one task, oldest first.
    async fn events_of(&self, task_id: &str) -> Result<Vec<StampedEvent>, StoreError>;
}
