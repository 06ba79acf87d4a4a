//! What a store offers, split by role; `celeriac-stores` implements it.
//!
//! Every method is safe to cancel: a dropped future may leave the write done or not done, never
//! half done. Every method has a deadline inside the store and answers with an error of kind
//! `Unavailable` (nothing written) or `Unknown` (perhaps written) when it passes.

mod admin;
mod broker;
mod control;
mod diagnose;
mod mailbox;
mod maintain;
mod moves;
mod redbeat;
mod results;
mod schedules;
mod throttle;
mod view;

pub use admin::{DeadFilter, DeadLetters, Page, Queues, Released, Replay, Stored};
pub use broker::{
    Begun, Broker, ChordDone, ChordFinisher, ChordPart, ChordStart, ChordWatch, Delivery,
    Duplicate, Fate, FetchRequest, ONCE_KEPT, Outgoing, Place, Plan, Published, Routed, Settled,
    Settlement, StalledChord, TaskCap,
};
pub use control::{
    Control, EventStream, Events, Heartbeat, NodeId, NodeInfo, NodeView, Nodes, Pause, Revoke,
    StampedEvent, Sweep,
};
pub use diagnose::{
    Diagnose, Eviction, HeldElsewhere, Leftover, QueueFacts, Step, StoreFacts, Unacked, Unlisted,
};
pub use mailbox::{Inbox, Mailbox, Requests, ask};
pub use maintain::{Backup, Finding, Maintain};
pub use moves::Moves;
pub use redbeat::{RedBeatHolder, RedBeatKeys, RedBeatView};
pub use results::{ResultRecord, Results};
pub use schedules::{EntryRecord, Fire, Fired, Lead, Occurrence, OccurrenceKind, Saved, Schedules};
pub use throttle::{LimitView, Throttle};
pub use view::{CURSOR_BYTES_MAX, Inspect, Phase, QueueView, TaskFilter, TaskPage, TaskView};

use crate::limits::StoreLimits;

/// What a store can do. What it cannot is refused at start, never ignored.
#[expect(clippy::struct_excessive_bools, reason = "independent answers to as many questions")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Other processes see the same data.
    pub shared_between_processes: bool,
    /// Data survives the death of every process.
    pub durable: bool,
    /// Result, workflow advance and settlement are one atomic step.
    pub atomic_settle: bool,
    /// Chords are counted by the store.
    pub chords: bool,
    /// Messages can be published to exchanges ([`Plan::routed`]), and queues be bound to them.
    pub exchanges: bool,
    /// A queue can be bound to a fanout exchange. Where it cannot, a message for such an exchange only
    /// reaches those who listen at that moment, and queues are refused.
    pub fanout_queues: bool,
    /// Results go at their time without [`Results::expire_results`].
    pub results_expire_alone: bool,
}

/// A store that plays every role; the embedded ones do.
pub trait Store:
    Broker
    + Results
    + DeadLetters
    + Queues
    + Moves
    + Control
    + Throttle
    + Nodes
    + Events
    + Mailbox
    + Schedules
    + Inspect
    + Maintain
{
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// What it refuses, and how long it keeps things.
    fn limits(&self) -> &StoreLimits;
    /// Where it is, with secrets masked, for people.
    fn location(&self) -> String;
}
