//! Where a worker's own work runs: on a thread beside it, or in the runtime that runs the worker.

use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// A piece of the worker's own work.
pub type BackgroundTask = BoxFuture<'static, ()>;

/// Where a worker's own work runs: its heartbeat, the writes of its settlements, its events.
#[derive(Clone, Default)]
pub enum Background {
    /// The heartbeat has a thread and a runtime of its own, so that neither a busy task nor a slow
    /// write can starve it.
    #[default]
    OwnThread,
    /// Everything is a task of the runtime that runs the worker, and passes through this function
    /// first. For a simulation, which replays one thread and stops a whole worker between two
    /// polls, and for programs that may not start threads: there, a task that does not yield for
    /// one lease loses the worker's leases.
    SameRuntime(Arc<dyn Fn(BackgroundTask) -> BackgroundTask + Send + Sync>),
}

impl fmt::Debug for Background {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OwnThread => "OwnThread",
            Self::SameRuntime(_) => "SameRuntime",
        })
    }
}

impl Background {
    /// What is spawned for a piece of work.
    pub(super) fn prepare(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> BackgroundTask {
        match self {
            Self::OwnThread => Box::pin(work),
            Self::SameRuntime(wrap) => wrap(Box::pin(work)),
        }
    }
}
