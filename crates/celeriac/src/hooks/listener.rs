//! Tells the application's hooks what its worker does, beside the work.

use super::signals::{
    TaskFailure, TaskInfo, TaskReceived, TaskRejected, TaskRetry, TaskRevoked, TaskSnoozed,
    TaskSuccess, TaskUnknown, WorkerReady, WorkerShutdown, WorkerShuttingDown,
};
use super::{HOOK_DEADLINE, Hooks};
use celeriac_core::conclude::Verdict;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::Delivery;
use celeriac_runtime::{Notice, Observer};
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The most notices that wait for hooks; beyond it the worker fetches nothing new.
const WAITING_MAX: usize = 1000;

/// Hands notices over to a task that calls the hooks, in order. None is dropped: a worker that is ahead
/// waits.
#[derive(Debug)]
pub(crate) struct Listener {
    told: Mutex<Option<mpsc::UnboundedSender<Notice>>>,
    waiting: Arc<AtomicUsize>,
    telling: Mutex<Option<JoinHandle<()>>>,
}

impl Listener {
    /// Starts on the runtime of the caller.
    pub(crate) fn start(hooks: Arc<Hooks>) -> Arc<Self> {
        // Bounded by `WAITING_MAX` and what runs when that is reached: see `is_behind`.
        let (told, mut notices) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let telling = tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                pass_on(&hooks, notice).await;
                left.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Arc::new(Self { told: Mutex::new(Some(told)), waiting, telling: Mutex::new(Some(telling)) })
    }
}

impl Observer for Listener {
    fn notice(&self, notice: Notice) {
        if let Some(told) = &*self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            // Fails only when the runtime ends.
            let _ended = told.send(notice);
        }
    }

    fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= WAITING_MAX
    }

    fn finish(&self) -> BoxFuture<'static, ()> {
        drop(self.told.lock().unwrap_or_else(PoisonError::into_inner).take());
        let telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner).take();
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let Some(mut telling) = telling else { return };
            if tokio::time::timeout(HOOK_DEADLINE * 2, &mut telling).await.is_err() {
                telling.abort();
                let notices = waiting.load(Ordering::Relaxed);
                tracing::error!(notices, "hooks are too slow; they do not hear the rest");
            }
        })
    }
}

async fn pass_on(hooks: &Hooks, notice: Notice) {
    match notice {
        Notice::Ready => hooks.tell(|| WorkerReady {}).await,
        Notice::Stopping => hooks.tell(|| WorkerShuttingDown {}).await,
        Notice::Stopped => hooks.tell(|| WorkerShutdown {}).await,
        Notice::Received(delivery) => {
            hooks.tell(|| TaskReceived { task: TaskInfo::of(&delivery) }).await;
        }
        Notice::Ended { delivery, verdict, runtime, .. } => {
            ended(hooks, &delivery, verdict, runtime).await;
        }
        _ => {}
    }
}

async fn ended(hooks: &Hooks, delivery: &Delivery, verdict: Verdict, runtime: Duration) {
    let task = TaskInfo::of(delivery);
    match verdict {
        Verdict::Succeeded(returned) => {
            hooks.tell(|| TaskSuccess::new(task, &returned, runtime)).await;
        }
        Verdict::Failed(failure) => {
            if failure.reason == DeadReason::UnknownTask {
                hooks.tell(|| TaskUnknown { task: task.clone() }).await;
            }
            hooks.tell(|| TaskFailure::new(task, failure, runtime)).await;
        }
        Verdict::Retried { at, failure } => {
            let error = failure.exception.summary();
            hooks.tell(|| TaskRetry { task, error, at }).await;
        }
        Verdict::Snoozed { at } => hooks.tell(|| TaskSnoozed { task, at }).await,
        Verdict::Revoked { terminated, expired } => {
            hooks.tell(|| TaskRevoked { task, terminated, expired }).await;
        }
        Verdict::Rejected { requeue } => hooks.tell(|| TaskRejected { task, requeue }).await,
        _ => {}
    }
}
