//! The worker's state machine: which deliveries run, and what happens to them. Pure.
//!
//! Everything that can happen is an [`Event`]; [`Machine::step`] answers with [`Action`]s, which
//! `worker::run` performs. Times are of the boot clock.

use super::decide::{Decision, Refusal, decide};
use super::orders::Orders;
use crate::cancel::CancelReason;
use crate::handler::Registry;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::{Lease, POISON_AFTER};
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::store::{Begun, Delivery};
use celeriac_wire::{Body, ExceptionInfo};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a cancelled task may go on to clean up before its future is dropped.
pub const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// What a Python task gets to unwind after it was told to end at its hard limit (billiard 4.3.2
/// pool.py `_trywaitkill`).
const UNWIND_PATIENCE: Duration = Duration::from_millis(100);
/// How long interrupted tasks may take to notice the end of the grace period.
pub const INTERRUPT_PATIENCE: Duration = Duration::from_millis(250);
/// How long after that the worker leaves tasks behind that do not even yield to be dropped. Their
/// messages go back when the worker signs off; its process should end then.
pub const ABANDON_PATIENCE: Duration = Duration::from_millis(150);
/// Tasks shorter than this are never shown as running: marking them would cost a write each.
pub const MARK_AFTER: Duration = Duration::from_millis(50);
/// A message that counts as acknowledged from its start on is marked so after this time, together
/// with others; what has ended by then needs no mark.
pub const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);
/// How long a mark that could not be written waits for the next try.
pub const MARK_PAUSE: Duration = Duration::from_millis(500);

/// How a worker is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It runs.
    #[default]
    No,
    /// No new tasks; the running ones have the grace period.
    Grace,
    /// Interrupt everything now.
    Now,
}

/// Everything that can happen to a worker.
#[derive(Debug)]
pub enum Event {
    /// Messages arrived.
    Fetched(Vec<Delivery>),
    /// A task ended by itself, or its future was dropped.
    Ended(Lease, Outcome),
    /// Tasks were revoked; only these ids are to be terminated.
    Terminated(Vec<String>),
    /// The lease of this node is lost: others may run its tasks.
    LeaseLost,
    /// A stop was asked for.
    Stop(Stop),
    /// Time passed.
    Tick,
}

/// What the worker has to do.
#[derive(Debug)]
pub enum Action {
    /// Run it.
    Start(Box<Start>),
    /// Settle a delivery that did not run.
    Refuse(Box<Delivery>, Body, Refusal),
    /// Find the right place for a delivery of a task that is not known here.
    Meet(Box<Delivery>, Body),
    /// Tell a task to stop.
    Cancel(Lease, CancelReason),
    /// Drop its future.
    Abort(Lease),
    /// Write what a run came to.
    Settle(Lease, Outcome),
    /// Forget a run whose lease is lost.
    Forget(Lease),
    /// Let others see that these run.
    MarkStarted(Vec<Begun>),
    /// Give messages back that were fetched but not begun.
    Return(Vec<Lease>),
}

/// A delivery to run.
#[derive(Debug)]
pub struct Start {
    /// What to run.
    pub delivery: Delivery,
    /// Its decoded body.
    pub body: Body,
    /// Its soft limit.
    pub soft: Option<Duration>,
    /// Its hard limit.
    pub hard: Option<Duration>,
    /// Whether it came in protocol 1: what it is called is known since it was decoded.
    pub was_old: bool,
}

/// Why a future was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aborted {
    /// Its hard limit was over.
    TimedOut,
    /// It did not stop in time, or its lease was lost.
    Stopped,
}

#[derive(Debug)]
struct Running {
    task_id: String,
    suspect: bool,
    started_at: Timestamp,
    /// When its lease is to be marked; `None`: it is.
    mark_at: Option<Duration>,
    /// Its message counts as acknowledged from its start on.
    early: bool,
    soft_at: Option<Duration>,
    hard_at: Option<Duration>,
    hard: Option<Duration>,
    cancelled: Option<CancelReason>,
    abort_at: Option<Duration>,
    aborted: Option<Aborted>,
}

/// The slots of a worker and what is in them.
#[derive(Debug)]
pub struct Machine {
    registry: Arc<Registry>,
    slots: usize,
    grace: Duration,
    running: BTreeMap<Lease, Running>,
    stop: Stop,
    grace_ends: Option<Duration>,
    abandon_at: Option<Duration>,
    /// Tasks that were cancelled while a fetch was under way, which may bring them.
    terminated: BTreeSet<String>,
    orders: Orders,
}

impl Machine {
    /// A machine with free slots.
    pub fn new(registry: Arc<Registry>, slots: usize, grace: Duration) -> Self {
        Self {
            registry,
            slots,
            grace,
            running: BTreeMap::new(),
            stop: Stop::No,
            grace_ends: None,
            abandon_at: None,
            terminated: BTreeSet::new(),
            orders: Orders::default(),
        }
    }

    /// What operators changed, and the worker's own limits.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The same, to be changed; it holds for what is fetched from now on.
    pub fn orders_mut(&mut self) -> &mut Orders {
        &mut self.orders
    }

    /// How many tasks may run at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Has more or fewer slots from now on; what runs goes on.
    pub fn resize(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// How many messages may be fetched now: the free slots, and so many more to wait for one.
    pub fn free(&self, ahead: usize) -> usize {
        let places = self.slots.saturating_add(ahead);
        if self.stop == Stop::No { places.saturating_sub(self.running.len()) } else { 0 }
    }

    /// Tells that a fetch begins: cancellations from now on may be for what it brings.
    pub fn fetch_begins(&mut self) {
        self.terminated.clear();
    }

    /// Whether a suspect may be among them.
    pub fn takes_suspects(&self) -> bool {
        self.running.values().all(|run| !run.suspect)
    }

    /// Marks were not written: those of acknowledged messages are due again at this time.
    pub fn unmarked(&mut self, started: &[Begun], again_at: Duration) {
        for begun in started.iter().filter(|begun| begun.acknowledged) {
            if let Some(run) = self.running.get_mut(&begun.lease) {
                run.mark_at = Some(again_at);
            }
        }
    }

    /// How many tasks run.
    pub fn active(&self) -> usize {
        self.running.len()
    }

    /// Whether the worker may end.
    pub fn is_finished(&self) -> bool {
        self.stop != Stop::No && self.running.is_empty()
    }

    /// When the next [`Event::Tick`] has something to do.
    pub fn next_tick(&self) -> Option<Duration> {
        let of_run = |run: &Running| {
            let soft = run.soft_at.filter(|_| run.cancelled.is_none());
            let hard = run.hard_at.filter(|_| run.aborted.is_none());
            let abort = run.abort_at.filter(|_| run.aborted.is_none());
            [soft, run.mark_at, hard, abort].into_iter().flatten().min()
        };
        self.running.values().filter_map(of_run).chain(self.grace_ends).chain(self.abandon_at).min()
    }

    /// What an event leads to.
    pub fn step(&mut self, event: Event, now: Duration, wall: Timestamp) -> Vec<Action> {
        match event {
            Event::Fetched(deliveries) if self.stop != Stop::No => {
                vec![Action::Return(
                    deliveries.into_iter().map(|delivery| delivery.lease).collect(),
                )]
            }
            Event::Fetched(deliveries) => {
                deliveries.into_iter().map(|delivery| self.begin(delivery, now, wall)).collect()
            }
            Event::Ended(lease, outcome) => self.end(lease, outcome),
            Event::Terminated(ids) => self.terminate(&ids, now),
            Event::LeaseLost => self.lose_leases(),
            Event::Stop(stop) => self.stop(stop, now),
            Event::Tick => self.tick(now),
        }
    }

    fn begin(&mut self, mut delivery: Delivery, now: Duration, wall: Timestamp) -> Action {
        let was_old = !delivery.message.is_protocol_2();
        let decision = if delivery.acknowledged {
            Decision::Refuse(Body::default(), Refusal::Lost)
        } else if delivery.suspicion.counted >= POISON_AFTER {
            Decision::Refuse(Body::default(), Refusal::Poison)
        } else {
            decide(&mut delivery, &self.registry, &self.orders, wall)
        };
        let id = delivery.message.headers.id().unwrap_or_default();
        match decision {
            Decision::Run { body, .. } if self.terminated.contains(id) => {
                Action::Refuse(Box::new(delivery), body, Refusal::Revoked)
            }
            Decision::Refuse(body, refusal) => Action::Refuse(Box::new(delivery), body, refusal),
            Decision::Unknown(body) => Action::Meet(Box::new(delivery), body),
            Decision::Run { body, soft, hard } => {
                let name = delivery.message.headers.task().unwrap_or_default();
                let early =
                    self.registry.find(name).is_some_and(|handler| !handler.policy().acks.late);
                let unwinding = if self.registry.takes_bytes(&delivery.message) {
                    UNWIND_PATIENCE
                } else {
                    Duration::ZERO
                };
                let run = Running {
                    task_id: delivery.message.headers.id().unwrap_or_default().to_owned(),
                    suspect: delivery.suspicion.is_suspect(),
                    started_at: wall,
                    mark_at: Some(now + if early { ACKNOWLEDGE_AFTER } else { MARK_AFTER }),
                    early,
                    soft_at: soft.map(|limit| now + limit),
                    hard_at: hard.map(|limit| now + limit + unwinding),
                    hard,
                    cancelled: None,
                    abort_at: None,
                    aborted: None,
                };
                self.running.insert(delivery.lease, run);
                Action::Start(Box::new(Start { delivery, body, soft, hard, was_old }))
            }
        }
    }

    fn end(&mut self, lease: Lease, outcome: Outcome) -> Vec<Action> {
        let Some(run) = self.running.remove(&lease) else { return Vec::new() };
        if run.cancelled == Some(CancelReason::LeaseLost) {
            return vec![Action::Forget(lease)];
        }
        let outcome = match (&outcome, run.aborted, run.cancelled) {
            // It beat the abort: what it made counts.
            (Outcome::Success(_) | Outcome::Traced(_), ..) => outcome,
            (_, Some(Aborted::TimedOut), _) => timed_out(run.hard),
            // It unwound in time.
            (Outcome::Failure(failure), ..)
                if failure.reason == DeadReason::TimedOut && run.hard.is_some() =>
            {
                timed_out(run.hard)
            }
            // It was to end anyway; how it or its child ended says nothing about it.
            (
                Outcome::Failure(_)
                | Outcome::Cancelled
                | Outcome::ChildLost(_)
                | Outcome::Returned { .. },
                _,
                Some(CancelReason::Revoked),
            ) => Outcome::Cancelled,
            (
                Outcome::Cancelled | Outcome::Interrupted | Outcome::ChildLost(_),
                _,
                Some(CancelReason::Shutdown),
            ) => Outcome::Interrupted,
            _ => outcome,
        };
        vec![Action::Settle(lease, outcome)]
    }

    fn terminate(&mut self, ids: &[String], now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.terminated.extend(ids.iter().cloned());
        for (lease, run) in &mut self.running {
            let going = matches!(run.cancelled, None | Some(CancelReason::SoftLimit));
            if going && ids.contains(&run.task_id) {
                run.cancelled = Some(CancelReason::Revoked);
                run.abort_at = Some(now + CANCEL_PATIENCE);
                actions.push(Action::Cancel(*lease, CancelReason::Revoked));
            }
        }
        actions
    }

    fn lose_leases(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (lease, run) in &mut self.running {
            run.cancelled = Some(CancelReason::LeaseLost);
            run.aborted = Some(Aborted::Stopped);
            actions.push(Action::Cancel(*lease, CancelReason::LeaseLost));
            actions.push(Action::Abort(*lease));
        }
        actions
    }

    fn stop(&mut self, stop: Stop, now: Duration) -> Vec<Action> {
        if stop <= self.stop {
            return Vec::new();
        }
        self.stop = stop;
        if stop == Stop::Grace {
            self.grace_ends = Some(now + self.grace);
            return Vec::new();
        }
        self.interrupt(now)
    }

    fn interrupt(&mut self, now: Duration) -> Vec<Action> {
        self.grace_ends = None;
        self.abandon_at = Some(now + INTERRUPT_PATIENCE + ABANDON_PATIENCE);
        let mut actions = Vec::new();
        for (lease, run) in &mut self.running {
            // A task that ignores its soft limit goes back like any other; a revoked one does not.
            if matches!(run.cancelled, None | Some(CancelReason::SoftLimit)) {
                run.cancelled = Some(CancelReason::Shutdown);
            }
            run.abort_at = Some(now + INTERRUPT_PATIENCE);
            actions.push(Action::Cancel(*lease, CancelReason::Shutdown));
        }
        actions
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.grace_ends.is_some_and(|end| now >= end) {
            self.stop = Stop::Now;
            actions.extend(self.interrupt(now));
        }
        if self.abandon_at.is_some_and(|at| now >= at) {
            // Done once: a time that stays in the past would keep the loop busy until its last
            // fetch is answered.
            self.abandon_at = None;
            actions.extend(std::mem::take(&mut self.running).into_keys().map(Action::Forget));
            return actions;
        }
        let mut marked = Vec::new();
        for (lease, run) in &mut self.running {
            if run.mark_at.is_some_and(|at| now >= at) {
                run.mark_at = None;
                let (lease, at) = (*lease, run.started_at);
                marked.push(Begun { lease, at, acknowledged: run.early });
            }
            if run.soft_at.is_some_and(|at| now >= at) && run.cancelled.is_none() {
                run.cancelled = Some(CancelReason::SoftLimit);
                actions.push(Action::Cancel(*lease, CancelReason::SoftLimit));
            }
            let over = run.hard_at.is_some_and(|at| now >= at);
            if run.aborted.is_none() && (over || run.abort_at.is_some_and(|at| now >= at)) {
                run.aborted = Some(if over { Aborted::TimedOut } else { Aborted::Stopped });
                actions.push(Action::Abort(*lease));
            }
        }
        if !marked.is_empty() {
            actions.push(Action::MarkStarted(marked));
        }
        actions
    }
}

fn timed_out(limit: Option<Duration>) -> Outcome {
    let exception = ExceptionInfo::time_limit_exceeded(limit.unwrap_or_default());
    Outcome::Failure(Failure::permanent(exception).because(DeadReason::TimedOut))
}
