//! The broker role: publish, fetch, settle.

use super::{NodeId, ResultRecord};
use crate::dead::{Attempt, DeadReason};
use crate::error::StoreError;
use crate::exchange::Binding;
use crate::lease::{Lease, Suspicion};
use crate::queue::QueueName;
use crate::route::Exchange;
use async_trait::async_trait;
use celeriac_wire::{ExceptionInfo, Message, Signature, State, Value};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message on its way into a queue.
///
/// `eta`, `expires` and priority are read from the message itself, so that they survive every move.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub queue: QueueName,
    /// What goes.
    pub message: Message,
    /// Its runs so far; not empty for retries and replays.
    pub history: Vec<Attempt>,
    /// When its life began, for a retry or a load; `None` is now.
    pub enqueued_at: Option<Timestamp>,
    /// Sent only where nothing was sent with this key in the last [`ONCE_KEPT`], by whomever: so that whoever
    /// does not know whether a message went may send it again. At most [`TASK_ID_BYTES_MAX`] bytes; what is
    /// left out is reported as a [`Duplicate`].
    ///
    /// [`TASK_ID_BYTES_MAX`]: crate::limits::TASK_ID_BYTES_MAX
    pub once: Option<String>,
}

/// How long a key of [`Outgoing::once`] is kept.
pub const ONCE_KEPT: Duration = Duration::from_hours(7 * 24);

impl Outgoing {
    /// A new message.
    pub fn new(queue: QueueName, message: Message) -> Self {
        Self { queue, message, history: Vec::new(), enqueued_at: None, once: None }
    }
}

/// A message on its way to an exchange: the store's bindings say into which queues.
///
/// Only stores with the capability `exchanges` get these. Each queue that takes it gets a message of
/// its own. One that no binding takes is refused with everything else of its plan: kombu drops it with
/// a warning (wire specification 2.4), and then nobody knows that it is lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Routed {
    /// The exchange and the routing key.
    pub exchange: Exchange,
    /// What goes.
    pub message: Message,
}

/// The start of a chord: so many parts, then its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChordStart {
    /// The group of the header.
    pub group: String,
    /// How many parts complete it.
    pub size: u32,
}

/// One finished member of a chord's header.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordPart {
    /// The group of the header.
    pub group: String,
    /// Its place in the results.
    pub index: i64,
    /// The member's task id; a second part of the same id counts once.
    pub task_id: String,
    /// How the member ended.
    pub state: State,
    /// Its value, or its exception document.
    pub result: Value,
    /// The body, as the member's message carried it.
    pub body: Signature,
}

/// A chord that just became complete.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordDone {
    /// Its parts in the order of their indices.
    pub parts: Vec<ChordPart>,
    /// How the results nest, where the sender has saved that: the group's result tuple (wire
    /// specification 4.7).
    pub layout: Option<Value>,
}

/// A chord of which some members have ended, and none for a long time.
#[derive(Clone, Debug, PartialEq)]
pub struct StalledChord {
    /// The group of the header.
    pub group: String,
    /// How many parts complete it; `None` when its sender never said so.
    pub size: Option<u32>,
    /// How many of these were added later (Celery's `add_to_chord`); the store counts them for itself.
    pub added: u32,
    /// The places of the members that have ended.
    pub present: Vec<i64>,
    /// The body, as a member's message carried it.
    pub body: Signature,
}

impl StalledChord {
    /// How many members are missing.
    pub fn missing(&self) -> usize {
        self.size.map_or(1, |size| (size as usize).saturating_sub(self.present.len()))
    }

    /// What completes it: the members that nobody has heard of are failures. If there is none, it is only
    /// looked at once more, and its body runs.
    pub fn completed(self, quiet: Duration) -> Plan {
        let counted = u32::try_from(self.present.len()).unwrap_or(u32::MAX);
        let size = self.size.unwrap_or_else(|| counted.saturating_add(1));
        let missing = (0..i64::from(size)).filter(|index| !self.present.contains(index));
        let parts = missing.take(size.saturating_sub(counted) as usize).map(|index| {
            let text = format!("no member of this chord has ended for {} s", quiet.as_secs());
            let exception =
                ExceptionInfo::new("celeriac.exceptions", "MemberLost", vec![text.into()]);
            ChordPart {
                group: self.group.clone(),
                index,
                task_id: format!("member {index}"),
                state: State::Failure,
                result: exception.to_value(),
                body: self.body.clone(),
            }
        });
        let parts = parts.collect();
        let size = size.saturating_sub(self.added);
        let chords = vec![ChordStart { group: self.group.clone(), size }];
        Plan { chords, parts, ..Plan::default() }
    }
}

/// A chord that others count: its body, should it never be complete.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordWatch {
    /// The group of the header.
    pub group: String,
    /// The body, as the member's message carried it.
    pub body: Signature,
}

/// Makes the plan that follows a complete chord. Called inside the store's atomic step, so it must
/// be quick and must not call the store.
pub type ChordFinisher = Arc<dyn Fn(&ChordDone) -> Plan + Send + Sync>;

/// Writes that belong together: all are done or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Messages to enqueue.
    pub publish: Vec<Outgoing>,
    /// Messages for exchanges.
    pub routed: Vec<Routed>,
    /// Results to store, each only where `state::may_overwrite` allows it.
    pub results: Vec<ResultRecord>,
    /// Chords that begin.
    pub chords: Vec<ChordStart>,
    /// Members of chords that ended.
    pub parts: Vec<ChordPart>,
    /// Chords whose members others count (a Python child, for its own task).
    pub watched: Vec<ChordWatch>,
}

impl Plan {
    /// Adds everything of another plan.
    pub fn extend(&mut self, other: Self) {
        self.publish.extend(other.publish);
        self.routed.extend(other.routed);
        self.results.extend(other.results);
        self.chords.extend(other.chords);
        self.parts.extend(other.parts);
        self.watched.extend(other.watched);
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty()
            && self.routed.is_empty()
            && self.results.is_empty()
            && self.chords.is_empty()
            && self.parts.is_empty()
            && self.watched.is_empty()
    }
}

/// Where a message goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its old place, before everything that came later.
    Head,
    /// Behind everything that waits.
    Tail,
}

/// What becomes of a delivered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves the queue.
    Done,
    /// It goes back.
    Release {
        /// Where to.
        place: Place,
        /// What to note in its history, if it had begun.
        attempt: Option<Attempt>,
    },
    /// It goes back to its place because its child died: others must be careful with it.
    Lost {
        /// What its owners' and children's deaths say about it, this one included.
        suspicion: Suspicion,
        /// What to note in its history.
        attempt: Attempt,
    },
    /// It is set aside.
    Dead {
        /// Why.
        reason: DeadReason,
        /// The error in one line.
        detail: String,
        /// The run that ended it.
        attempt: Option<Attempt>,
    },
}

/// The end of one delivery: its fate and everything that must be written with it.
#[derive(Clone)]
pub struct Settlement {
    /// The proof of ownership.
    pub lease: Lease,
    /// What becomes of the message.
    pub fate: Fate,
    /// What is written in the same atomic step.
    pub plan: Plan,
    /// Makes the plan for a chord that this settlement completes.
    pub finisher: Option<ChordFinisher>,
}

impl fmt::Debug for Settlement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settlement")
            .field("lease", &self.lease)
            .field("fate", &self.fate)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// What the store made of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a fenced settlement wrote nothing"]
pub enum Settled {
    /// Written.
    Done,
    /// The lease is no longer ours: nothing of the settlement was written.
    Fenced,
}

/// A message that was not enqueued: another holds its unique key, or it was sent before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Its place in [`Plan::publish`], or in [`Plan::routed`], whose places follow.
    pub index: usize,
    /// The task that holds the key, or that was sent.
    pub task_id: String,
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// What was left out; everything else is written.
    pub duplicates: Vec<Duplicate>,
}

/// How many messages of a task a worker takes at most in one fetch: its own rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCap {
    /// The task's name.
    pub task: String,
    /// The most messages; 0 takes none.
    pub count_max: usize,
}

/// A request for messages.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The node that will own them.
    pub node: NodeId,
    /// The queues, each priority step of all of them before the next step of any.
    pub queues: Vec<QueueName>,
    /// The most messages to take: the free slots.
    pub count_max: usize,
    /// Whether a suspect may be among them; at most one is.
    pub suspects: bool,
    /// Tasks of which this worker may start only so many now.
    pub caps: Vec<TaskCap>,
}

/// A message held by one node until it settles.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The proof of ownership.
    pub lease: Lease,
    /// Where it came from.
    pub queue: QueueName,
    /// What came.
    pub message: Message,
    /// When it was first enqueued.
    pub enqueued_at: Timestamp,
    /// Whether an earlier owner lost it.
    pub redelivered: bool,
    /// What its earlier owners' deaths say about it.
    pub suspicion: Suspicion,
    /// Its earlier runs.
    pub history: Vec<Attempt>,
    /// Whether it was revoked before it was fetched.
    pub revoked: bool,
    /// Its worker died after it was acknowledged: it must not run again.
    pub acknowledged: bool,
}

/// A delivery that began to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The proof of ownership.
    pub lease: Lease,
    /// When it began.
    pub at: Timestamp,
    /// Its message counts as acknowledged (Celery's early acknowledgement): should its worker die, it
    /// is set aside and never run again.
    pub acknowledged: bool,
}

/// Moves messages.
#[async_trait]
pub trait Broker: fmt::Debug + Send + Sync {
    /// Enqueues and writes everything of the plan, or nothing. On `Ok` it is as durable as the store.
    /// Unique messages whose key is taken are left out and named in the answer.
    ///
    /// # Errors
    /// `TooLarge`, `Full` (depth limit, disk), `Invalid`, `NotFound` (an exchange gives a message to no
    /// queue): refused, nothing written.
    async fn publish(
        &self,
        plan: Plan,
        finisher: Option<ChordFinisher>,
    ) -> Result<Published, StoreError>;

    /// Chords in which a member has ended, but none since `before`, oldest first: some of their members may
    /// be lost. Publishing [`StalledChord::completed`] ends such a chord, once, whoever else does.
    async fn stalled_chords(
        &self,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<StalledChord>, StoreError>;

    /// Takes ready messages and leases them in one atomic step; returns at once, perhaps empty.
    /// Due scheduled messages become ready first. Order: priority step, then queue in rotation,
    /// then arrival. What is paused, or over a limit, stays and stands in nobody's way.
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<Delivery>, StoreError>;

    /// Gives back what is leased to a node and not among the leases that it knows: messages of a
    /// fetch whose answer was lost, which the node's heartbeat would keep for ever. Returns how
    /// many. To be called before the next fetch of the node, and only when none is under way.
    async fn return_strays(&self, node: NodeId, known: Vec<Lease>) -> Result<u64, StoreError>;

    /// Notes that deliveries began to run, so that others can see it, and which of them count as
    /// acknowledged from now on. As durable as a lease is.
    ///
    /// An acknowledged message that its worker leaves behind, whether it dies, signs off or does not
    /// know of the lease any more, is never work again. It waits where no stock worker takes it, limits
    /// and pauses do not hold it, and whoever fetches it gets it with [`Delivery::acknowledged`], to set
    /// it aside. A settlement of its own worker takes the mark away; a later note does not.
    async fn mark_started(&self, started: Vec<Begun>) -> Result<(), StoreError>;

    /// Settles deliveries, each on its own: answers in the order of the requests.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError>;

    /// Makes bindings of queues to exchanges known to every publisher, before the queues are consumed
    /// or published to. Doing it again changes nothing.
    ///
    /// # Errors
    /// `Invalid` where there is no exchange, or no queue of a fanout
    /// ([`Capabilities`](super::Capabilities)); `Conflict` where the exchange is of another type.
    async fn bind(&self, bindings: Vec<Binding>) -> Result<(), StoreError> {
        match bindings.first() {
            None => Ok(()),
            Some(first) => Err(StoreError::invalid(format!(
                "queue {} cannot be bound to exchange {}: this store has no exchanges",
                first.queue, first.exchange
            ))),
        }
    }

    /// The bindings that publishers go by, those of stock workers among them, in order.
    async fn bindings(&self) -> Result<Vec<Binding>, StoreError> {
        Ok(Vec::new())
    }

    /// How many changes this process has seen. Grows when anything may have become ready, done,
    /// revoked or paused, here or in another process.
    fn changes(&self) -> u64;

    /// Waits until [`Broker::changes`] is not `seen` any more, at most for `timeout`; returns it.
    /// False alarms happen; a missed change is noticed within 100 ms.
    async fn wait_change(&self, seen: u64, timeout: Duration) -> u64;

    /// The earliest time at which a scheduled message of these queues becomes due, or a rate limit
    /// lets the next one go.
    async fn next_due(&self, queues: &[QueueName]) -> Result<Option<Timestamp>, StoreError>;
}
