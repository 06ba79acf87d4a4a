//! How a delivery ends: from an outcome to a settlement, and what follows the store's answer.

use super::emitter::Emitter;
use super::settler::{Request, Written};
use super::{Notice, Worker};
use crate::handler::{TaskPolicy, arguments_of};
use celeriac_core::StoreError;
use celeriac_core::clock;
use celeriac_core::conclude::{self, Conclusion, Run, Verdict};
use celeriac_core::dead::DeadReason;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Lease;
use celeriac_core::outcome::{Failure, Outcome, TracedEvent};
use celeriac_core::record::Recorder;
use celeriac_core::retry::{RetryOverride, RetryPolicy};
use celeriac_core::store::{ChordFinisher, Delivery, Fate, Plan, Settlement};
use celeriac_core::trail::Trail;
use celeriac_core::workflow::{self, Sender};
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Embed, ExceptionInfo, Message, Value};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinError;

/// What hangs on a message, as far as it can be read.
pub(super) fn embed_of(message: &Message) -> Embed {
    codec::read(message, Accept::default()).map(|read| read.body.embed).unwrap_or_default()
}

/// What every settlement needs.
pub(super) struct Shared {
    pub(super) worker: Worker,
    pub(super) node: Arc<str>,
    pub(super) origin: Arc<str>,
    pub(super) finisher: ChordFinisher,
    pub(super) emitter: Emitter,
    /// Every delivery that is fetched and not settled.
    pub(super) held: Held,
}

/// The leases that this worker knows of.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<BTreeSet<Lease>>);

impl Held {
    pub(super) fn add(&self, leases: impl Iterator<Item = Lease>) {
        self.lock().extend(leases);
    }

    pub(super) fn remove(&self, lease: Lease) {
        self.lock().remove(&lease);
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is told of a delivery once its end is written.
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    pub(super) runtime: Duration,
    pub(super) at: Timestamp,
    /// The events that Celery would send; `None`: those of the verdict.
    pub(super) events: Option<Vec<TracedEvent>>,
}

/// A run that began.
#[derive(Clone)]
pub(super) struct Ran {
    pub(super) started_at: Timestamp,
    /// What it has sent.
    pub(super) trail: Trail,
}

/// Chords that a settlement completes send their body from inside the store's atomic step.
pub(super) fn finisher(worker: &Worker, node: Arc<str>, origin: Arc<str>) -> ChordFinisher {
    let (clock, entropy) = (Arc::clone(&worker.clock), Arc::clone(&worker.entropy));
    let router = Arc::clone(&worker.router);
    let registry = Arc::clone(&worker.registry);
    Arc::new(move |done| {
        let now = clock.wall();
        let seals = registry.seals();
        let done = &seals.open_parts(done, now);
        let recorder = Recorder {
            worker: &node,
            queue: "",
            enqueued_at: None,
            started_at: None,
            now,
            children: Vec::new(),
            arguments: None,
        };
        let mut new_id = || clock::task_id(&*clock, &*entropy);
        let mut sender = Sender { router: &router, new_id: &mut new_id, now, origin: &origin };
        let plan = workflow::after_chord(done, &recorder, &mut sender);
        seals.seal_plan(plan, now).unwrap_or_else(|error| {
            tracing::error!(error, "the body of a chord cannot be sealed, and is not sent");
            Plan::default()
        })
    })
}

impl Shared {
    pub(super) fn conclusion(
        &self,
        delivery: &Delivery,
        embed: &Embed,
        ran: Option<&Ran>,
        conclude: impl FnOnce(&Run<'_>, &mut Sender<'_>) -> Conclusion,
    ) -> Conclusion {
        let worker = &self.worker;
        let now = worker.clock.wall();
        let headers = &delivery.message.headers;
        let handler = headers.task().and_then(|task| worker.registry.find(task));
        let policy = handler.as_ref().map(|handler| handler.policy());
        let extended = policy.is_some_and(|policy| policy.result_extended);
        let recorder = Recorder {
            worker: &self.node,
            queue: delivery.queue.as_str(),
            enqueued_at: Some(delivery.enqueued_at),
            started_at: ran.map(|ran| ran.started_at),
            now,
            children: ran.map(|ran| ran.trail.children()).unwrap_or_default(),
            arguments: arguments_of(delivery, extended),
        };
        let without = TaskPolicy { retry: RetryPolicy::never(), ..TaskPolicy::default() };
        let known = policy.unwrap_or(&without);
        // One that cannot be read was refused before it ran.
        let retry = RetryOverride::of(headers).unwrap_or_default().over(&known.retry);
        let run = Run {
            delivery,
            embed,
            retry: &retry,
            retry_for: &known.retry_for,
            dead_letters: &known.dead_letters,
            acks: known.acks,
            ignore_result: headers.ignore_result().unwrap_or(false) || known.ignore_result,
            recorder: &recorder,
            random: worker.entropy.next_u64(),
        };
        let mut new_id = || clock::task_id(&*worker.clock, &*worker.entropy);
        let mut sender =
            Sender { router: &worker.router, new_id: &mut new_id, now, origin: &self.origin };
        conclude(&run, &mut sender)
    }

    /// What is written of an end. Its plan is sealed where this application seals.
    pub(super) fn settlement(&self, lease: Lease, fate: Fate, plan: Plan) -> Settlement {
        let sealed = self.worker.registry.seals().seal_plan(plan, self.worker.clock.wall());
        let (fate, plan) = match sealed {
            Ok(plan) => (fate, plan),
            Err(text) => {
                tracing::error!(error = text, "what follows a task cannot be sealed");
                let detail = format!("what follows it cannot be sealed: {text}");
                let fate = Fate::Dead { reason: DeadReason::Failed, detail, attempt: None };
                (fate, Plan::default())
            }
        };
        let finisher = (!plan.parts.is_empty()).then(|| Arc::clone(&self.finisher));
        Settlement { lease, fate, plan, finisher }
    }

    /// After the store answered: the event, or a smaller settlement.
    pub(super) fn written(
        self: &Arc<Self>,
        delivery: &Arc<Delivery>,
        embed: &Embed,
        ended: &Ended,
        written: Written,
        settler: &mpsc::WeakSender<Request>,
    ) {
        let id = delivery.message.headers.id().unwrap_or_default();
        if !matches!(written, Written::Refused(_)) {
            self.held.remove(delivery.lease);
        }
        match written {
            Written::Done => {
                reach(Step::Settled);
                self.tell_end(delivery, &ended.verdict, ended.at, ended.runtime);
                match &ended.events {
                    Some(events) => self.emitter.traced(id, events),
                    None => self.emitter.ended(id, &ended.verdict, ended.runtime),
                }
            }
            Written::Fenced => {
                tracing::warn!(task_id = id, "the lease was lost; nothing of this run was stored");
            }
            Written::Refused(error) => {
                tracing::error!(task_id = id, %error, "the store refuses the task's outcome");
                self.store_refusal(delivery, embed, &error, settler);
            }
        }
    }

    fn tell_end(&self, delivery: &Arc<Delivery>, verdict: &Verdict, at: Timestamp, took: Duration) {
        self.worker.tell(|| Notice::Ended {
            delivery: Arc::clone(delivery),
            verdict: verdict.clone(),
            at,
            runtime: took,
            worker: Arc::clone(&self.node),
        });
    }

    /// What the store will not take (a result that is too large) makes the task fail instead.
    fn store_refusal(
        self: &Arc<Self>,
        delivery: &Arc<Delivery>,
        embed: &Embed,
        error: &StoreError,
        settler: &mpsc::WeakSender<Request>,
    ) {
        let text = format!("the outcome cannot be stored: {error}");
        let exception =
            ExceptionInfo::new("celeriac.exceptions", "StoreRefused", vec![Value::from(text)]);
        let conclusion = self.conclusion(delivery, embed, None, |run, sender| {
            conclude::set_aside(run, DeadReason::Failed, Failure::permanent(exception), sender)
        });
        let settlement = self.settlement(delivery.lease, conclusion.fate, conclusion.plan);
        let (shared, refused) = (Arc::clone(self), Arc::clone(delivery));
        let report = Box::new(move |written: Written| {
            shared.held.remove(refused.lease);
            let id = refused.message.headers.id().unwrap_or_default();
            match written {
                Written::Done => {
                    shared.emitter.ended(id, &conclusion.verdict, Duration::ZERO);
                    let now = shared.worker.clock.wall();
                    shared.tell_end(&refused, &conclusion.verdict, now, Duration::ZERO);
                }
                other => {
                    tracing::error!(task_id = id, ?other, "the task runs again after this worker");
                }
            }
        });
        let request = Request { settlement, delivery: Some(Arc::clone(delivery)), report };
        if settler.upgrade().is_none_or(|settler| settler.try_send(request).is_err()) {
            tracing::error!("the settler is busy; the task runs again after this worker");
        }
    }
}

pub(super) fn outcome_of_join_error(error: JoinError) -> Outcome {
    if !error.is_panic() {
        return Outcome::Cancelled;
    }
    outcome_of_panic(error.into_panic().as_ref())
}

/// What a panic makes of its task: a failure that its retry policy decides on.
pub(crate) fn outcome_of_panic(payload: &(dyn std::any::Any + Send)) -> Outcome {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    let exception =
        ExceptionInfo::new("celeriac.exceptions", "TaskPanicked", vec![Value::from(text)]);
    Outcome::Failure(Failure::new(exception))
}

/// One line for each ended task, as Celery's INFO lines.
pub(super) fn log_end(delivery: &Delivery, conclusion: &Conclusion, runtime: Duration) {
    let headers = &delivery.message.headers;
    let (task_id, task) = (headers.id().unwrap_or_default(), headers.task().unwrap_or_default());
    let seconds = runtime.as_secs_f64();
    match &conclusion.verdict {
        Verdict::Succeeded(_) => tracing::info!(task_id, task, seconds, "task succeeded"),
        Verdict::Failed(failure) => {
            let error = failure.exception.summary();
            if matches!(conclusion.fate, Fate::Dead { .. }) {
                let text = "task failed, its message is a dead letter";
                tracing::error!(task_id, task, seconds, error, "{text}");
            } else {
                tracing::error!(task_id, task, seconds, error, "task failed");
            }
        }
        Verdict::Retried { at, failure } => {
            let error = failure.exception.summary();
            tracing::warn!(task_id, task, seconds, error, %at, "task failed, it runs again");
        }
        Verdict::Snoozed { at } => tracing::info!(task_id, task, %at, "task asked to run later"),
        Verdict::Revoked { terminated, expired } => {
            tracing::info!(task_id, task, terminated, expired, "task revoked");
        }
        Verdict::Rejected { requeue } => tracing::info!(task_id, task, requeue, "task rejected"),
        Verdict::Returned => tracing::info!(task_id, task, "task interrupted, it goes back"),
        Verdict::ChildLost(failure) => {
            let error = failure.exception.summary();
            tracing::error!(task_id, task, seconds, error, "child lost, its task runs again");
        }
        _ => tracing::debug!(task_id, task, "task ignored its result"),
    }
}
