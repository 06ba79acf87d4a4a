//! Ends tasks of the async pool that do not even yield to be dropped.
//!
//! A future is stopped by dropping it, which waits for its next `.await`; a body that computes without
//! one runs on past its hard limit and holds a thread. One second after the limit this thread fails the
//! task, gives everything else the worker holds back without guilt, and has the process restarted. It
//! is a thread of its own, because by then there may be no other that still runs.

use super::ending::{Ran, Shared};
use super::heartbeat::Pulse;
use super::spill::SpilledLetter;
use celeriac_core::conclude;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::Lease;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::store::{Delivery, Fate, Settled};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{Embed, ExceptionInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a dropped future may take to notice.
pub const YIELD_PATIENCE: Duration = Duration::from_secs(1);
/// A look that comes so late says that this process stood still (a signal, a suspended machine, a busy
/// one): its futures had no chance to yield, and get their patience anew.
const STOOD_STILL: Duration = Duration::from_millis(250);
/// How long the store may take to hear of it before the process restarts all the same; leases end
/// what is not settled then.
const FENCE_MAX: Duration = Duration::from_secs(5);
/// The pause before the store is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// A running task with a hard limit.
pub(super) struct Watched {
    pub(super) delivery: Arc<Delivery>,
    pub(super) embed: Embed,
    pub(super) ran: Ran,
    pub(super) limit: Duration,
    /// When the limit is over, by the boot clock.
    pub(super) ends: Duration,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<Lease, Watched>,
    ended: bool,
}

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watching thread of one worker; it ends when this is dropped.
pub(super) struct Watchdog(Arc<Watch>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl Watchdog {
    /// Starts the thread. `stuck` hears of it when nobody restarts the process.
    pub(super) fn start(
        shared: Arc<Shared>,
        pulse: Arc<Pulse>,
        stuck: watch::Sender<Option<String>>,
    ) -> Result<Self, StoreError> {
        let refuse = |error: std::io::Error| {
            StoreError::new(celeriac_core::ErrorKind::Unavailable, "start the watching thread")
                .because(error)
        };
        let watch = Arc::new(Watch::default());
        let watched = Arc::clone(&watch);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(refuse)?;
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let Some(over) = wait(&watched, &shared) else { return };
                runtime.block_on(fence(&shared, &pulse, over, &stuck));
            })
            .map_err(refuse)?;
        Ok(Self(watch))
    }

    pub(super) fn add(&self, lease: Lease, task: Watched) {
        self.0.lock().tasks.insert(lease, task);
        self.0.changed.notify_one();
    }

    pub(super) fn remove(&self, lease: Lease) {
        self.0.lock().tasks.remove(&lease);
    }
}

/// Waits until a task has not yielded; `None` when the worker has ended.
fn wait(watch: &Watch, shared: &Shared) -> Option<Vec<Watched>> {
    let mut state = watch.lock();
    let (mut planned, mut not_before) = (None::<Duration>, Duration::ZERO);
    loop {
        if state.ended {
            return None;
        }
        let now = shared.worker.clock.boot();
        if planned.is_some_and(|at| now > at + STOOD_STILL) {
            not_before = now + YIELD_PATIENCE;
        }
        let due = |task: &Watched| (task.ends + YIELD_PATIENCE).max(not_before);
        let over: Vec<Lease> = state
            .tasks
            .iter()
            .filter(|(_, task)| now >= due(task))
            .map(|(lease, _)| *lease)
            .collect();
        if !over.is_empty() {
            return Some(over.iter().filter_map(|lease| state.tasks.remove(lease)).collect());
        }
        planned = state.tasks.values().map(due).min();
        state = match planned {
            None => watch.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let waited = watch.changed.wait_timeout(state, at.saturating_sub(now));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// Fails the stuck tasks, gives the rest back, and restarts.
async fn fence(
    shared: &Arc<Shared>,
    pulse: &Pulse,
    over: Vec<Watched>,
    stuck: &watch::Sender<Option<String>>,
) {
    let ids: Vec<&str> =
        over.iter().map(|task| task.delivery.message.headers.id().unwrap_or_default()).collect();
    let text = format!(
        "task {} did not yield within {YIELD_PATIENCE:?} after its time limit",
        ids.join(", ")
    );
    tracing::error!("{text}; it has failed, everything else goes back, the worker restarts");
    // Nothing new is fetched, and what the loop still writes is fenced.
    pulse.give_up();
    let fencing = async {
        for task in &over {
            fail(shared, task).await;
        }
        loop {
            match shared.worker.heartbeat_store.deregister(pulse.node()).await {
                Ok(returned) => {
                    tracing::warn!(returned, "messages are back in their queues");
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot give messages back, trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    if tokio::time::timeout(FENCE_MAX, fencing).await.is_err() {
        tracing::error!(
            "the store does not answer; what this worker held runs again after its lease"
        );
    }
    if let Some(restart) = &shared.worker.restart {
        restart();
    }
    // Nobody restarted the process: the worker ends with an error, if it still can.
    stuck.send_replace(Some(text));
}

/// Fails a stuck task. What the store refuses is not insisted on: the rest has to go back in time.
async fn fail(shared: &Arc<Shared>, task: &Watched) {
    let exception = ExceptionInfo::time_limit_exceeded(task.limit);
    let failure = Failure::permanent(exception).because(DeadReason::TimedOut);
    let id = task.delivery.message.headers.id().unwrap_or_default();
    let outcome = Outcome::Failure(failure);
    let conclusion =
        shared.conclusion(&task.delivery, &task.embed, Some(&task.ran), |run, sender| {
            conclude::conclude(run, outcome, sender)
        });
    let mut settlement = shared.settlement(task.delivery.lease, conclusion.fate, conclusion.plan);
    loop {
        match shared.worker.heartbeat_store.settle(vec![settlement.clone()]).await {
            Ok(settled) if settled.contains(&Settled::Fenced) => {
                tracing::warn!(task_id = id, "its lease was lost before");
                return;
            }
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::DeadFull => {
                let now = shared.worker.clock.wall();
                let letter = SpilledLetter::of(&task.delivery, &settlement.fate, now);
                let (Some(letter), Some(spill)) = (letter, &shared.worker.spill) else {
                    tracing::error!(task_id = id, %error, "no room for its dead letter; it runs again");
                    return;
                };
                if let Err(error) = spill.write(&[letter]) {
                    tracing::error!(task_id = id, %error, "cannot write it to the spill file");
                    return;
                }
                settlement.fate = Fate::Done;
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(task_id = id, %error, "cannot settle, trying again");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                tracing::error!(task_id = id, %error, "the store refuses its end; it runs again");
                return;
            }
        }
    }
}
