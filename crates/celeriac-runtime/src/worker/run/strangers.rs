//! What the loop does with messages of tasks that it does not know.

use super::Loop;
use crate::worker::decide::Refusal;
use crate::worker::settler::{Request, Written};
use crate::worker::strangers::{Meeting, STRANGERS_MAX, UnknownTasks};
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::Failure;
use celeriac_core::store::{Delivery, Fate, Place, Plan};
use celeriac_wire::{Body, ExceptionInfo};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Loop {
    /// Leaves the message to another worker, or sets it aside where that is wanted.
    pub(super) async fn meet(&mut self, delivery: Delivery, body: &Body) {
        let task = delivery.message.headers.task().unwrap_or_default();
        let id = delivery.message.headers.id().unwrap_or_default();
        let met = match self.worker().options.unknown_tasks {
            UnknownTasks::Park => self.strangers.meet(task, &delivery.queue, id),
            UnknownTasks::DeadLetter => Meeting::TooMany,
        };
        let place = match met {
            Meeting::Park { first } => {
                if first {
                    tracing::warn!(
                        task,
                        queue = %delivery.queue,
                        "no task of this name here: its messages wait for a worker that has it"
                    );
                }
                Place::Head
            }
            Meeting::PassOn => Place::Tail,
            Meeting::TooMany => {
                if self.worker().options.unknown_tasks == UnknownTasks::Park {
                    tracing::warn!(
                        task,
                        "messages of {STRANGERS_MAX} unknown tasks wait already; \
                         this one becomes a dead letter"
                    );
                }
                let failure = Failure::permanent(ExceptionInfo::not_registered(task));
                let refusal = Refusal::Dead(DeadReason::UnknownTask, failure);
                return self.refuse(delivery, body, refusal).await;
            }
        };
        self.wanted.send_if_modified(|wanted| {
            let known = wanted.get(task).is_some_and(|met| met.contains(&delivery.queue));
            if !known {
                *wanted = self.strangers.wanted();
            }
            !known
        });
        self.hand_over(&delivery, place).await;
    }

    async fn hand_over(&self, delivery: &Delivery, place: Place) {
        let lease = delivery.lease;
        let fate = Fate::Release { place, attempt: None };
        let settlement = self.shared.settlement(lease, fate, Plan::default());
        let shared = Arc::clone(&self.shared);
        let report = Box::new(move |_written: Written| shared.held.remove(lease));
        let request = Request { settlement, delivery: None, report };
        if self.settler.send(request).await.is_err() {
            tracing::error!("the settler has ended; the message runs again elsewhere");
        }
    }

    /// Stock workers have said what they know.
    pub(super) fn learn(&mut self, known: &BTreeSet<String>) {
        for (task, passed_on) in self.strangers.learn(known) {
            if passed_on {
                tracing::info!(task, "a stock worker has this task: its messages go to it");
            } else {
                tracing::warn!(task, "no worker has this task any more: its messages wait");
            }
        }
    }
}
