//! Tasks that cannot tell how they ended: the app is told first, where a pool can, and what it makes
//! of it is concluded.

use super::{InFlight, Loop};
use crate::cancel::CancelReason;
use crate::pool::{End, PostMortem, Told, ToldFate};
use crate::worker::Stop;
use crate::worker::decide::Refusal;
use crate::worker::ending::embed_of;
use celeriac_core::conclude;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::Recovery;
use celeriac_core::outcome::{
    Acks, ChildDeath, Disposition, Failure, Outcome, Traced, TracedEvent, TracedState,
};
use celeriac_core::store::Delivery;
use celeriac_wire::{Body, ExceptionInfo, Map};
use std::sync::Arc;
use std::time::Duration;

/// Messages of which the app is to be told, one after another; at the bound no new work is fetched.
pub(super) const TELLING_MAX: usize = 64;

/// The signal of `revoke(terminate=True)`, unless it names another (celery 5.7.0 platforms.py).
const TERM: i32 = 15;

/// What waits for the app to be told.
pub(super) enum Waiting {
    /// A task that ran.
    Ran(Box<InFlight>, Outcome),
    /// A message that will not run.
    Refused(Box<Delivery>, Refusal),
}

impl Waiting {
    fn delivery(&self) -> Arc<Delivery> {
        match self {
            Self::Ran(task, _) => Arc::clone(&task.delivery),
            Self::Refused(delivery, _) => Arc::new((**delivery).clone()),
        }
    }
}

/// What came of telling.
pub(super) struct Heard {
    waiting: Waiting,
    /// The outcome when the app was told, `None` when it was not.
    outcome: Option<Outcome>,
    /// After what time its chord is to be looked at; it is not over before.
    look_again: Option<Duration>,
}

impl Loop {
    fn acks_of(&self, delivery: &Delivery) -> Acks {
        let name = delivery.message.headers.task().unwrap_or_default();
        let handler = self.worker().registry.find(name);
        handler.map(|handler| handler.policy().acks).unwrap_or_default()
    }

    /// Has the app told of an end that its child could not tell; gives back what needs no telling.
    pub(super) fn tell_of(
        &mut self,
        task: InFlight,
        outcome: Outcome,
    ) -> Option<(InFlight, Outcome)> {
        let acks = self.acks_of(&task.delivery);
        let end = match &outcome {
            // A task that runs again is not over yet.
            Outcome::ChildLost(death) if acks.requeue_lost => {
                match task.delivery.suspicion.after_child_death() {
                    Recovery::Poison(_) => Some(End::Poison(death.clone())),
                    Recovery::Requeue(_) | Recovery::Isolate(_) => None,
                }
            }
            Outcome::ChildLost(death) => Some(End::Lost(death.clone())),
            Outcome::Failure(failure) if failure.reason == DeadReason::TimedOut => {
                Some(End::TimedOut(task.limit.unwrap_or_default()))
            }
            Outcome::Cancelled => Some(End::Terminated(task.cancellation.signal().unwrap_or(TERM))),
            Outcome::Interrupted if !acks.late => Some(End::Lost(ChildDeath::default())),
            Outcome::Returned { begun: true, .. } if !acks.late => {
                Some(End::Lost(ChildDeath::default()))
            }
            _ => None,
        };
        let Some(end) = end else {
            let look_again = match &outcome {
                Outcome::Traced(traced) => traced.look_again,
                _ => None,
            };
            let Some(pause) = look_again else { return Some((task, outcome)) };
            self.look_at_chord(Waiting::Ran(Box::new(task), outcome), None, pause);
            return None;
        };
        let mortem = PostMortem {
            delivery: Arc::clone(&task.delivery),
            started_at: Some(task.ran.started_at),
            end,
        };
        let Some(telling) = self.pool.as_ref().and_then(|pool| pool.tell(mortem)) else {
            return Some((task, outcome));
        };
        let waiting = Waiting::Ran(Box::new(task), outcome);
        self.telling.spawn(async move { heard(waiting, telling.await) });
        None
    }

    /// Has the app look at a chord when it is time; `waiting` is concluded, by `outcome`, when that is over.
    ///
    /// The message is held meanwhile: should this worker die, whoever gets it looks. One that stops looks
    /// once more at once.
    fn look_at_chord(&mut self, waiting: Waiting, outcome: Option<Outcome>, pause: Duration) {
        let mortem = PostMortem { delivery: waiting.delivery(), started_at: None, end: End::Part };
        let asking = self.pool.as_ref().and_then(|pool| pool.tell(mortem));
        let mut stop = self.worker().stop.0.subscribe();
        self.telling.spawn(async move {
            let Some(asking) = asking else { return Heard { waiting, outcome, look_again: None } };
            tokio::select! {
                _ = stop.wait_for(|asked| asked.stop != Stop::No) => {}
                () = tokio::time::sleep(pause) => {}
            }
            let look_again = match asking.await {
                Ok(told) => told.look_again,
                Err(error) => {
                    tracing::error!(%error, "nobody looks after a chord whose member died");
                    None
                }
            };
            Heard { waiting, outcome, look_again }
        });
    }

    /// The same for a message that will not run.
    pub(super) fn tell_of_refused(
        &mut self,
        delivery: Delivery,
        refusal: Refusal,
    ) -> Option<(Delivery, Refusal)> {
        let end = match &refusal {
            Refusal::Revoked => {
                let headers = &delivery.message.headers;
                Some(End::Revoked(self.machine.orders().revoked_by(headers)))
            }
            Refusal::Expired => Some(End::Expired),
            Refusal::Lost => Some(End::Lost(ChildDeath::default())),
            Refusal::Poison => Some(End::Poison(ChildDeath::default())),
            _ => None,
        };
        let known = self
            .worker()
            .registry
            .find(delivery.message.headers.task().unwrap_or_default())
            .is_some_and(|handler| handler.takes_bytes());
        let (Some(end), true) = (end, known) else { return Some((delivery, refusal)) };
        // When it began is not known any more; that it did is.
        let ran = matches!(refusal, Refusal::Lost | Refusal::Poison);
        let started_at = ran.then_some(delivery.enqueued_at);
        let mortem = PostMortem { delivery: Arc::new(delivery.clone()), started_at, end };
        let Some(telling) = self.pool.as_ref().and_then(|pool| pool.tell(mortem)) else {
            return Some((delivery, refusal));
        };
        let waiting = Waiting::Refused(Box::new(delivery), refusal);
        self.telling.spawn(async move { heard(waiting, telling.await) });
        None
    }

    /// Celery's line about a task that is terminated (celery 5.7.0 worker/control.py).
    pub(super) fn say_terminated(&self, task: &InFlight, reason: CancelReason) {
        let headers = &task.delivery.message.headers;
        if reason == CancelReason::Revoked
            && self.worker().registry.takes_bytes(&task.delivery.message)
        {
            let (id, signal) = (headers.id().unwrap_or_default(), task.cancellation.signal());
            tracing::info!("Terminating {id} ({})", signal.unwrap_or(TERM));
        }
    }

    /// A task over its limit that runs again (`acks_on_failure_or_timeout` off) has failed so far. Celery
    /// writes a later success over that; the store keeps the first end, unless it is forgotten.
    async fn forget_before_it_runs_again(&self, task: &InFlight, heard: Option<&Outcome>) {
        let again = matches!(heard, Some(Outcome::Traced(traced))
            if traced.disposition == Disposition::Requeue);
        let Some(id) = task.delivery.message.headers.id().filter(|_| again) else { return };
        match self.side_call(self.worker().store.forget(id)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, task_id = id, "cannot forget that it failed");
            }
            None => tracing::warn!(task_id = id, "there was no time to forget that it failed"),
        }
    }

    /// Concludes what the app has heard of.
    pub(super) async fn told(&mut self, heard: Heard) {
        let Heard { waiting, outcome, look_again } = heard;
        if let Some(pause) = look_again {
            // At a stop its message goes back with the others that are held, and the next worker looks.
            if self.worker().stop.0.borrow().stop == Stop::No {
                self.look_at_chord(waiting, outcome, pause);
            }
            return;
        }
        match (waiting, outcome) {
            (Waiting::Ran(task, outcome), heard) => {
                self.forget_before_it_runs_again(&task, heard.as_ref()).await;
                self.conclude_task(*task, heard.unwrap_or(outcome)).await;
            }
            (Waiting::Refused(delivery, _), Some(mut outcome)) => {
                let events = events_of(&mut outcome);
                let delivery = Arc::new(*delivery);
                let embed = embed_of(&delivery.message);
                let conclusion = self.shared.conclusion(&delivery, &embed, None, |run, sender| {
                    conclude::conclude(run, outcome, sender)
                });
                self.settle(delivery, embed, conclusion, Duration::ZERO, events).await;
            }
            (Waiting::Refused(delivery, refusal), None) => {
                self.refuse_natively(*delivery, &Body::default(), refusal).await;
            }
        }
    }
}

/// The events that Celery would send of an end, where it was asked.
pub(super) fn events_of(outcome: &mut Outcome) -> Option<Vec<TracedEvent>> {
    match outcome {
        Outcome::Traced(traced) => traced.events.take(),
        _ => None,
    }
}

/// The event of a task whose child died and that runs again (celery 5.7.0 worker/request.py
/// `on_failure`, with `reject_on_worker_lost`).
pub(super) fn requeued() -> Vec<TracedEvent> {
    let fields = Map::from([("requeue", true)]);
    vec![TracedEvent { kind: "task-rejected".to_owned(), fields }]
}

/// The outcome of what the app was told.
fn heard(waiting: Waiting, told: std::io::Result<Told>) -> Heard {
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(%error, "the app was not told how a task ended");
            return Heard { waiting, outcome: None, look_again: None };
        }
    };
    let Told { fate, events, look_again } = told;
    let state = match (fate, &waiting) {
        (ToldFate::Succeeded, _) => TracedState::Succeeded(None),
        // What was acknowledged and lost never runs again, whatever the app says.
        (ToldFate::Requeue, Waiting::Ran(..)) => {
            TracedState::Rejected { reason: "its app wants it to run again".to_owned() }
        }
        (ToldFate::Over, Waiting::Ran(task, outcome)) => over(&task.delivery, outcome),
        (_, Waiting::Refused(_, Refusal::Revoked)) => {
            TracedState::Revoked { terminated: false, expired: false }
        }
        (_, Waiting::Refused(_, Refusal::Expired)) => {
            TracedState::Revoked { terminated: false, expired: true }
        }
        (_, Waiting::Refused(delivery, Refusal::Poison)) => {
            let text = format!("{} workers died while they ran it", delivery.suspicion.seen);
            let failure = Failure::permanent(ExceptionInfo::worker_lost(&text));
            TracedState::Failed(failure.because(DeadReason::Poison))
        }
        (_, Waiting::Refused(..)) => {
            let text = "its worker died after the message was acknowledged";
            let failure = Failure::permanent(ExceptionInfo::worker_lost(text));
            TracedState::Failed(failure.because(DeadReason::WorkerLost))
        }
    };
    let again = matches!(state, TracedState::Rejected { .. });
    let disposition = if again { Disposition::Requeue } else { Disposition::Ack };
    let traced =
        Traced { state, disposition, result: None, events, bases: Vec::new(), look_again: None };
    Heard { waiting, outcome: Some(Outcome::Traced(Box::new(traced))), look_again }
}

/// How a task ended whose end the app knows and has stored.
fn over(delivery: &Delivery, outcome: &Outcome) -> TracedState {
    let lost = |text: &str, reason: DeadReason| {
        let failure = Failure::permanent(ExceptionInfo::worker_lost(text));
        TracedState::Failed(failure.because(reason))
    };
    match outcome {
        Outcome::Failure(failure) => TracedState::Failed(failure.clone()),
        Outcome::ChildLost(death) => {
            let exception = ExceptionInfo::worker_lost(&death.summary());
            let traceback = Some(death.stderr_tail.clone()).filter(|tail| !tail.is_empty());
            let failure = Failure { traceback, ..Failure::permanent(exception) };
            // Of the others nobody is told before they are over.
            let poison = matches!(delivery.suspicion.after_child_death(), Recovery::Poison(_));
            let reason = if poison { DeadReason::Poison } else { DeadReason::WorkerLost };
            TracedState::Failed(failure.because(reason))
        }
        Outcome::Interrupted => lost(
            "the worker shut down while it ran, after its message was acknowledged",
            DeadReason::Shutdown,
        ),
        Outcome::Returned { reason, .. } => lost(reason, DeadReason::WorkerLost),
        _ => TracedState::Revoked { terminated: true, expired: false },
    }
}
