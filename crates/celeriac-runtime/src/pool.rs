//! The process pool: tasks run in child processes of the worker.
//!
//! A child is the same program once more. It enters at [`serve_child`], says that it is ready, and
//! runs one task at a time; worker and child speak in frames (`frame`) over a socket that the child
//! finds as its standard input. For the worker a run is a future as any other ([`ProcessPool::run`]):
//! dropping it kills the child, which is how hard limits and cancellations are enforced even on a
//! body that never yields. Only the child's own task is affected by its end.
//!
//! `process` starts, kills and reaps, `crew` is the table of children, `supervisor` keeps it
//! complete, `run` is one task in one child, `output` reads what children print, `policy` decides.
//! The pure parts are tested beside them, the whole in `crates/celeriac/tests/e2e/pool`.

mod channel;
mod child;
mod crew;
mod frame;
mod output;
mod policy;
mod process;
mod run;
mod supervisor;

pub use child::{ChildTasks, Offer, Prepare, is_child, serve_child};
pub use process::{CHILD_VARIABLE, Launch};

use crate::handler::RunContext;
use crate::worker::control::ProcessView;
use celeriac_core::outcome::Outcome;
use crew::{Crew, Startup};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Idle children have so long to end by themselves when their worker stops.
const STOP_PATIENCE: Duration = Duration::from_millis(2500);
/// After that they are killed and have so long to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// How the children of a worker are started and replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct ProcessOptions {
    /// How the program is started once more.
    pub launch: Launch,
    /// The store that children open.
    pub broker_url: String,
    /// The worker's node name, under which children write states.
    pub node: String,
    /// The tasks that a child must know.
    pub tasks: Vec<String>,
    /// How many tasks run at once.
    pub slots: usize,
    /// A child ends after so many tasks (Celery's `worker_max_tasks_per_child`).
    pub tasks_max: Option<u64>,
    /// A child that holds more, in bytes, ends after its task (Celery's
    /// `worker_max_memory_per_child`, which is in KiB).
    pub memory_recycle: Option<u64>,
    /// A child that holds more, in bytes, is killed. Looked at every 100 ms, on Linux only.
    pub memory_max: Option<u64>,
    /// Children's `/proc/self/oom_score_adj`: the kernel kills them before their worker.
    pub oom_score_adj: i32,
    /// The largest part of a frame, in bytes: a message or a result.
    pub frame_bytes_max: usize,
}

impl fmt::Debug for ProcessOptions {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessOptions")
            .field("launch", &self.launch)
            .field("slots", &self.slots)
            .field("tasks_max", &self.tasks_max)
            .field("memory_recycle", &self.memory_recycle)
            .field("memory_max", &self.memory_max)
            .finish_non_exhaustive()
    }
}

/// The children of one worker. Dropping it kills them.
#[derive(Debug)]
pub struct ProcessPool {
    crew: Arc<Crew>,
    _supervisor: JoinSet<()>,
}

impl ProcessPool {
    /// Starts the children and returns when the first is ready.
    ///
    /// # Errors
    /// Three starts in a row failed; the text is the child's error and the end of its stderr.
    pub async fn start(options: ProcessOptions) -> Result<Self, String> {
        let crew = Arc::new(Crew::new(options));
        let mut startup = crew.startup();
        let mut supervisor = JoinSet::new();
        supervisor.spawn(supervisor::supervise(Arc::clone(&crew)));
        let pool = Self { crew, _supervisor: supervisor };
        let decided = startup.wait_for(|startup| *startup != Startup::Pending).await;
        match decided.map(|startup| startup.clone()) {
            Ok(Startup::Failed(text)) => Err(text),
            // The sender lives as long as the pool.
            _ => Ok(pool),
        }
    }

    /// How many children have a task or could take one: fetch no more messages than that.
    pub fn ready(&self) -> watch::Receiver<usize> {
        self.crew.ready()
    }

    /// Runs a delivery in a child. The future ends with what the child reports, or with what its
    /// death means; dropping it kills the child with everything that it started.
    pub fn run(&self, context: RunContext) -> BoxFuture<'static, Outcome> {
        Box::pin(run::run(Arc::clone(&self.crew), context))
    }

    /// Has more or fewer children from now on: idle ones that are too many end, busy ones after their
    /// task.
    pub fn resize(&self, slots: usize) {
        self.crew.resize(slots);
    }

    /// The children that could take a task or have one.
    pub fn processes(&self) -> Vec<ProcessView> {
        self.crew.processes()
    }

    /// The process ids of busy children by the task that each has.
    pub fn busy(&self) -> BTreeMap<String, u32> {
        self.crew.busy()
    }

    /// After how many tasks a child ends.
    pub fn tasks_max(&self) -> Option<u64> {
        self.crew.options.tasks_max
    }

    /// Ends all children: idle ones by themselves, others by force.
    pub async fn stop(self) {
        self.crew.stop();
        if !self.crew.empty(STOP_PATIENCE).await {
            self.crew.kill_all();
            if !self.crew.empty(KILL_PATIENCE).await {
                tracing::error!("a killed child is still there; the kernel has to finish it");
            }
        }
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.crew.kill_all();
    }
}
