//! The worker: fetch, decide, run, store, advance, settle.
//!
//! [`Worker::run`] is the loop; what to do is decided by the pure [`machine::Machine`], how a
//! delivery ends is in `ending`, writes go through `settler`, leases are kept by `heartbeat`, events
//! by `emitter`; others are answered by [`control`]. The pure parts are tested in `tests/worker`, the
//! whole with real stores and kills in `crates/celeriac/tests/e2e`.

mod autoscale;
mod background;
pub mod control;
pub mod decide;
mod declare;
mod emitter;
mod ending;
mod heartbeat;
pub mod machine;
mod observe;
pub mod orders;
mod peers;
mod rates;
mod run;
mod settler;
mod spill;
mod strangers;
mod watchdog;

pub use autoscale::Autoscale;
pub use background::{Background, BackgroundTask};
pub use control::ControlOptions;
pub(crate) use ending::outcome_of_panic;
pub use machine::Stop;
pub use observe::{Notice, Observer};
pub use orders::Limits;
pub use spill::{Spill, SpilledLetter};
pub use strangers::UnknownTasks;
pub use watchdog::YIELD_PATIENCE;

use crate::handler::Registry;
use crate::pool::Children;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::route::Router;
use celeriac_core::store::Store;
use celeriac_core::{Clock, Entropy, QueueName, StoreError};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a worker runs.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Celery's node name, `celery@host`.
    pub name: String,
    /// The queues to consume; not empty.
    pub queues: Vec<QueueName>,
    /// How many tasks run at once; at least 1.
    pub concurrency: usize,
    /// Has that follow the load.
    pub autoscale: Option<Autoscale>,
    /// How long running tasks may finish after a stop was asked for.
    pub grace: Duration,
    /// How leases are kept.
    pub lease_times: LeaseTimes,
    /// Whether task events are recorded (history, monitors).
    pub task_events: bool,
    /// Stop by itself when nothing was ready for this long; `None` runs on.
    pub idle_stop: Option<Duration>,
    /// Whether a task whose message is acknowledged early begins only once that is written.
    pub strict_early_ack: bool,
    /// A chord in which no member has ended for this long is failed: its missing members are lost. `None`
    /// waits for ever.
    pub chord_expires: Option<Duration>,
    /// The child processes that run tasks; `None` runs them as futures of this process.
    pub children: Option<Children>,
    /// What becomes of messages whose task is not registered here.
    pub unknown_tasks: UnknownTasks,
    /// How it shows itself to others, and whether it listens to them.
    pub control: ControlOptions,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Tasks that ended: succeeded, failed, retried, revoked.
    pub processed: u64,
    /// Of these, how many succeeded.
    pub succeeded: u64,
    /// Of these, how many failed for good.
    pub failed: u64,
    /// Messages that went back to their queues at the end.
    pub returned: u64,
    /// Events that could not be recorded in time.
    pub events_dropped: u64,
}

/// Why a worker could not start or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkerError {
    /// An option has no meaning; the text says which and why.
    Options(String),
    /// The store failed at start or at the end.
    Store(StoreError),
    /// No child process could be started; the text is what the last one said.
    Children(String),
    /// A task of the async pool did not yield after its hard limit. It has failed, everything else is
    /// back in its queue, and a thread of this process is lost: the process should end.
    Stuck(String),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(text) => write!(formatter, "worker options: {text}"),
            Self::Store(error) => write!(formatter, "{error}"),
            Self::Children(text) => write!(formatter, "the worker's children do not start: {text}"),
            Self::Stuck(text) => write!(formatter, "{text}; end this process and start another"),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Options(_) | Self::Children(_) | Self::Stuck(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for WorkerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Asks a worker to stop; clones ask the same worker. Asking twice, or before the start, is fine.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<watch::Sender<Asked>>);

/// What a worker was asked last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) stop: Stop,
    /// The name of the signal that asked, if one did.
    pub(crate) signal: Option<&'static str>,
}

impl StopHandle {
    /// Takes no new tasks and lets the running ones finish within the grace period.
    pub fn grace(&self) {
        self.raise(Stop::Grace, None);
    }

    /// Interrupts the running tasks; they go back to their queues.
    pub fn now(&self) {
        self.raise(Stop::Now, None);
    }

    /// As [`StopHandle::grace`], because of a signal of the system: an app that listens hears its
    /// name, `SIGTERM`.
    pub fn grace_on(&self, signal: &'static str) {
        self.raise(Stop::Grace, Some(signal));
    }

    /// As [`StopHandle::now`], because of a signal of the system.
    pub fn now_on(&self, signal: &'static str) {
        self.raise(Stop::Now, Some(signal));
    }

    fn raise(&self, stop: Stop, signal: Option<&'static str>) {
        self.0.send_if_modified(|current| {
            let raised = stop > current.stop;
            if raised {
                *current = Asked { stop, signal };
            }
            raised
        });
    }
}

/// What a worker goes on with.
#[derive(Debug)]
pub struct Renewal {
    /// The tasks that it knows.
    pub registry: Registry,
    /// The children that run them, of the kind that it has.
    pub children: Children,
}

/// Gives a worker other tasks and children while it runs.
#[derive(Clone, Debug)]
pub struct RenewHandle(mpsc::Sender<Renewal>);

impl RenewHandle {
    /// Goes on with these. `false`: the worker has ended. Cancel safe.
    pub async fn renew(&self, renewal: Renewal) -> bool {
        self.0.send(renewal).await.is_ok()
    }
}

/// A worker that has not started yet.
pub struct Worker {
    options: WorkerOptions,
    registry: Arc<Registry>,
    router: Arc<Router>,
    store: Arc<dyn Store>,
    heartbeat_store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    spill: Option<Arc<dyn Spill>>,
    background: Background,
    observers: Vec<Arc<dyn Observer>>,
    restart: Option<Restart>,
    stop: StopHandle,
    renew: RenewHandle,
    renewals: Option<mpsc::Receiver<Renewal>>,
}

/// Starts the process anew; called when a task of the async pool holds a thread for ever.
pub type Restart = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Worker").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a worker needs besides its options.
#[derive(Clone)]
pub struct WorkerParts {
    /// The tasks it knows.
    pub registry: Arc<Registry>,
    /// Where what its tasks send goes.
    pub router: Arc<Router>,
    /// The store it works on.
    pub store: Arc<dyn Store>,
    /// The connection of the heartbeat thread; the same store, for one in memory.
    pub heartbeat_store: Arc<dyn Store>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids and jitter come from.
    pub entropy: Arc<dyn Entropy>,
    /// Where dead letters go that the store has no room for; `None`: the worker stops fetching then.
    pub spill: Option<Arc<dyn Spill>>,
    /// Where its heartbeat and its writes run.
    pub background: Background,
}

impl fmt::Debug for WorkerParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WorkerParts").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Worker {
    /// Checks the options.
    ///
    /// # Errors
    /// `Options` when there is no queue, no slot, or a lease too short to be renewed.
    pub fn new(options: WorkerOptions, parts: WorkerParts) -> Result<Self, WorkerError> {
        let fault = if options.queues.is_empty() {
            Some("no queue to consume; give at least one with -Q")
        } else if options.concurrency == 0 {
            Some("concurrency 0 runs nothing; give at least 1 with -c")
        } else if options.lease_times.expiry < options.lease_times.heartbeat * 2 {
            Some("a lease must be at least two heartbeats long")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(WorkerError::Options(fault.to_owned()));
        }
        let WorkerParts {
            registry,
            router,
            store,
            heartbeat_store,
            clock,
            entropy,
            spill,
            background,
        } = parts;
        let stop = StopHandle(Arc::new(watch::Sender::new(Asked { stop: Stop::No, signal: None })));
        let (renew, renewals) = mpsc::channel(1);
        Ok(Self {
            options,
            registry,
            router,
            store,
            heartbeat_store,
            clock,
            entropy,
            spill,
            background,
            observers: Vec::new(),
            restart: None,
            stop,
            renew: RenewHandle(renew),
            renewals: Some(renewals),
        })
    }

    /// Gives the worker a way to start its process anew: it is called from a thread of its own, after a
    /// task that does not yield was failed and everything else went back. Without one,
    /// [`Worker::run`] ends with [`WorkerError::Stuck`].
    pub fn restart_with(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// Tells this one what happens.
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    fn tell(&self, make: impl FnOnce() -> Notice) {
        if self.observers.is_empty() {
            return;
        }
        let notice = make();
        for observer in &self.observers {
            observer.notice(notice.clone());
        }
    }

    /// A handle that stops this worker.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// A handle that gives this worker other tasks.
    pub fn renew_handle(&self) -> RenewHandle {
        self.renew.clone()
    }

    /// Runs until it is stopped and everything it started has ended.
    ///
    /// # Errors
    /// `Store` when the worker cannot register, or cannot sign off at the end; `Children` when it
    /// has a process pool whose children do not start.
    pub async fn run(self) -> Result<WorkerReport, WorkerError> {
        run::run(self).await
    }
}
