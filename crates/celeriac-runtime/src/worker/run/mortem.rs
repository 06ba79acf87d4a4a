//! Tasks that cannot tell how they ended: the app is told first, where a pool can, and what it makes
//! of it is concluded.

use super::{InFlight, Loop};
use crate::pool::{End, PostMortem, Told};
use crate::worker::decide::Refusal;
use crate::worker::ending::embed_of;
use celeriac_core::conclude;
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::{
    Acks, ChildDeath, Disposition, Failure, Outcome, Traced, TracedState,
};
use celeriac_core::store::Delivery;
use celeriac_wire::{Body, ExceptionInfo};
use std::sync::Arc;
use std::time::Duration;

/// Messages of which the app is to be told, one after another; at the bound no new work is fetched.
pub(super) const TELLING_MAX: usize = 64;

/// What waits for the app to be told.
pub(super) enum Waiting {
    /// A task that ran.
    Ran(Box<InFlight>, Outcome),
    /// A message that will not run.
    Refused(Box<Delivery>, Refusal),
}

/// What becomes of it: the outcome when the app was told, `None` when it was not.
pub(super) type Heard = (Waiting, Option<Outcome>);

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
            Outcome::ChildLost(_) if acks.requeue_lost => None,
            Outcome::ChildLost(death) => Some(End::Lost(death.clone())),
            Outcome::Failure(failure) if failure.reason == DeadReason::TimedOut => {
                Some(End::TimedOut(task.limit.unwrap_or_default()))
            }
            Outcome::Cancelled => Some(End::Terminated),
            Outcome::Interrupted if !acks.late => Some(End::Lost(ChildDeath::default())),
            Outcome::Returned { begun: true, .. } if !acks.late => {
                Some(End::Lost(ChildDeath::default()))
            }
            _ => None,
        };
        let Some(end) = end else { return Some((task, outcome)) };
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

    /// The same for a message that will not run.
    pub(super) fn tell_of_refused(
        &mut self,
        delivery: Delivery,
        refusal: Refusal,
    ) -> Option<(Delivery, Refusal)> {
        let end = match &refusal {
            Refusal::Revoked => Some(End::Revoked),
            Refusal::Expired => Some(End::Expired),
            Refusal::Lost => Some(End::Lost(ChildDeath::default())),
            _ => None,
        };
        let known = self
            .worker()
            .registry
            .find(delivery.message.headers.task().unwrap_or_default())
            .is_some_and(|handler| handler.takes_bytes());
        let (Some(end), true) = (end, known) else { return Some((delivery, refusal)) };
        // When it began is not known any more; that it did is.
        let started_at = (refusal == Refusal::Lost).then_some(delivery.enqueued_at);
        let mortem = PostMortem { delivery: Arc::new(delivery.clone()), started_at, end };
        let Some(telling) = self.pool.as_ref().and_then(|pool| pool.tell(mortem)) else {
            return Some((delivery, refusal));
        };
        let waiting = Waiting::Refused(Box::new(delivery), refusal);
        self.telling.spawn(async move { heard(waiting, telling.await) });
        None
    }

    /// Concludes what the app has heard of.
    pub(super) async fn told(&mut self, (waiting, heard): Heard) {
        match (waiting, heard) {
            (Waiting::Ran(task, outcome), heard) => {
                self.conclude_task(*task, heard.unwrap_or(outcome)).await;
            }
            (Waiting::Refused(delivery, _), Some(outcome)) => {
                let delivery = Arc::new(*delivery);
                let embed = embed_of(&delivery.message);
                let conclusion = self.shared.conclusion(&delivery, &embed, None, |run, sender| {
                    conclude::conclude(run, outcome, sender)
                });
                self.settle(delivery, embed, conclusion, Duration::ZERO).await;
            }
            (Waiting::Refused(delivery, refusal), None) => {
                self.refuse_natively(*delivery, &Body::default(), refusal).await;
            }
        }
    }
}

/// The outcome of what the app was told.
fn heard(waiting: Waiting, told: std::io::Result<Told>) -> Heard {
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(%error, "the app was not told how a task ended");
            return (waiting, None);
        }
    };
    let state = match (told, &waiting) {
        (Told::Succeeded, _) => TracedState::Succeeded(None),
        // What was acknowledged and lost never runs again, whatever the app says.
        (Told::Requeue, Waiting::Ran(..)) => {
            TracedState::Rejected { reason: "its app wants it to run again".to_owned() }
        }
        (Told::Over, Waiting::Ran(_, outcome)) => over(outcome),
        (_, Waiting::Refused(_, Refusal::Revoked)) => {
            TracedState::Revoked { terminated: false, expired: false }
        }
        (_, Waiting::Refused(_, Refusal::Expired)) => {
            TracedState::Revoked { terminated: false, expired: true }
        }
        (_, Waiting::Refused(..)) => {
            let text = "its worker died after the message was acknowledged";
            let failure = Failure::permanent(ExceptionInfo::worker_lost(text));
            TracedState::Failed(failure.because(DeadReason::WorkerLost))
        }
    };
    let again = matches!(state, TracedState::Rejected { .. });
    let disposition = if again { Disposition::Requeue } else { Disposition::Ack };
    let traced = Traced { state, disposition, result: None };
    (waiting, Some(Outcome::Traced(Box::new(traced))))
}

/// How a task ended whose end the app knows and has stored.
fn over(outcome: &Outcome) -> TracedState {
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
            TracedState::Failed(failure.because(DeadReason::WorkerLost))
        }
        Outcome::Interrupted => lost(
            "the worker shut down while it ran, after its message was acknowledged",
            DeadReason::Shutdown,
        ),
        Outcome::Returned { reason, .. } => lost(reason, DeadReason::WorkerLost),
        _ => TracedState::Revoked { terminated: true, expired: false },
    }
}
