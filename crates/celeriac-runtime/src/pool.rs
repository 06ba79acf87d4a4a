//! The process pool: tasks run in child processes of the worker.
//!
//! For the worker a run is a future as any other: dropping it kills the child, which is how hard
//! limits and cancellations are enforced even on a body that never yields. Only the child's own task
//! is affected by its end. There are two kinds of children: the program once more (`native`), and
//! Python that runs a Celery app (`python`).
//!
//! `process` kills and waits, `crew` is the table of children, `supervisor` keeps it complete, `kind`
//! is what differs between kinds, `output` reads what children print, `policy` decides. The pure parts
//! are tested beside them, the whole in `crates/celeriac/tests/e2e/pool`.

mod crew;
mod kind;
mod mortem;
mod native;
mod output;
mod policy;
mod process;
#[cfg(target_os = "linux")]
pub mod python;
mod supervisor;

pub(crate) use mortem::{End, News, PostMortem, Told, ToldFate};
pub use native::{ChildTasks, Offer, Prepare, is_child, serve_child};
pub use output::{Relay, Stream};
pub use process::{CHILD_VARIABLE, Launch};

use crate::handler::RunContext;
use crate::worker::control::ProcessView;
use celeriac_core::outcome::Outcome;
use crew::{Crew, Startup};
use futures::future::BoxFuture;
use kind::Kind;
use native::Native;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Idle children have so long to end by themselves when their worker stops.
const STOP_PATIENCE: Duration = Duration::from_millis(2500);
/// After that they are killed and have so long to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// How many children a worker has, and when they are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many tasks run at once.
    pub slots: usize,
    /// A child ends after so many tasks (Celery's `worker_max_tasks_per_child`).
    pub tasks_max: Option<u64>,
    /// A child that holds more, in bytes, ends after its task (Celery's
    /// `worker_max_memory_per_child`, which is in KiB).
    pub memory_recycle: Option<u64>,
    /// A child that holds more, in bytes, is killed. Looked at every 100 ms, on Linux only.
    pub memory_max: Option<u64>,
}

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
    /// How many there are, and when they are replaced.
    pub bounds: Bounds,
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
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// The children of one worker, of whatever kind. Dropping it kills them.
pub(crate) trait TaskPool: fmt::Debug + Send + Sync {
    /// How many children have a task or could take one: fetch no more messages than that.
    fn ready(&self) -> watch::Receiver<usize>;

    /// Runs a delivery in a child. The future ends with what the child reports, or with what its
    /// death means; dropping it kills the child with everything that it started.
    fn run(&self, context: RunContext) -> BoxFuture<'static, Outcome>;

    /// Has more or fewer children from now on: idle ones that are too many end, busy ones after their
    /// task.
    fn resize(&self, slots: usize);

    /// Goes on with these children: those that are there end one by one, each after its task.
    fn renew(&self, children: Children);

    /// The children that could take a task or have one.
    fn processes(&self) -> Vec<ProcessView>;

    /// The process ids of busy children by the task that each has.
    fn busy(&self) -> BTreeMap<String, u32>;

    /// After how many tasks a child ends.
    fn tasks_max(&self) -> Option<u64>;

    /// How many more runs than there are children may wait for one; they begin within milliseconds.
    fn look_ahead(&self) -> usize;

    /// Has the app told how a task ended that cannot tell it itself; `None` where nobody is told. An
    /// error means that nobody was, or that nobody knows.
    fn tell(&self, mortem: PostMortem) -> Option<BoxFuture<'static, io::Result<Told>>>;

    /// Has the app's receivers hear of the worker; `None` where nobody listens.
    fn announce(&self, news: News) -> Option<BoxFuture<'static, ()>>;

    /// Ends all children: idle ones by themselves, others by force.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Which children run a worker's tasks.
#[derive(Clone, Debug)]
pub enum Children {
    /// This program once more.
    Native(ProcessOptions),
    /// Python that runs a Celery app.
    #[cfg(target_os = "linux")]
    Python(python::PythonOptions),
}

impl Children {
    /// Starts them and returns when the first is ready.
    ///
    /// # Errors
    /// Three starts in a row failed; the text is the child's error and the end of its stderr.
    pub(crate) async fn start(self) -> Result<Box<dyn TaskPool>, String> {
        match self {
            Self::Native(options) => {
                let bounds = options.bounds;
                Ok(Box::new(Pool::start(Native { options }, bounds, native::run).await?))
            }
            #[cfg(target_os = "linux")]
            Self::Python(options) if options.tenancy == python::Tenancy::Shared => {
                Ok(Box::new(python::Shared::start(options).await?))
            }
            #[cfg(target_os = "linux")]
            Self::Python(options) => {
                let bounds = options.bounds;
                Ok(Box::new(Pool::start(python::Python::new(options), bounds, python::run).await?))
            }
        }
    }
}

/// One task in one child.
type Runner<K> = fn(Arc<Crew<K>>, RunContext) -> BoxFuture<'static, Outcome>;

/// The children of one kind.
#[derive(Debug)]
struct Pool<K: Kind> {
    crew: Arc<Crew<K>>,
    runner: Runner<K>,
    _supervisor: JoinSet<()>,
}

impl<K: Kind> Pool<K> {
    async fn start(kind: K, bounds: Bounds, runner: Runner<K>) -> Result<Self, String> {
        let crew = Arc::new(Crew::new(kind, bounds));
        let mut startup = crew.startup();
        let mut supervisor = JoinSet::new();
        supervisor.spawn(supervisor::supervise(Arc::clone(&crew)));
        let pool = Self { crew, runner, _supervisor: supervisor };
        let decided = startup.wait_for(|startup| *startup != Startup::Pending).await;
        match decided.map(|startup| startup.clone()) {
            Ok(Startup::Failed(text)) => Err(text),
            // The sender lives as long as the pool.
            _ => Ok(pool),
        }
    }
}

impl<K: Kind> TaskPool for Pool<K> {
    fn ready(&self) -> watch::Receiver<usize> {
        self.crew.ready()
    }

    fn run(&self, context: RunContext) -> BoxFuture<'static, Outcome> {
        (self.runner)(Arc::clone(&self.crew), context)
    }

    fn resize(&self, slots: usize) {
        self.crew.resize(slots);
    }

    fn renew(&self, children: Children) {
        self.crew.kind.renew(children);
        self.crew.renew();
    }

    fn processes(&self) -> Vec<ProcessView> {
        self.crew.processes()
    }

    fn busy(&self) -> BTreeMap<String, u32> {
        self.crew.busy()
    }

    fn tasks_max(&self) -> Option<u64> {
        self.crew.bounds.tasks_max
    }

    fn look_ahead(&self) -> usize {
        self.crew.kind.window().saturating_sub(1) * self.crew.count_ready()
    }

    fn tell(&self, mortem: PostMortem) -> Option<BoxFuture<'static, io::Result<Told>>> {
        K::tell(&self.crew, mortem)
    }

    fn announce(&self, news: News) -> Option<BoxFuture<'static, ()>> {
        K::announce(&self.crew, news)
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.crew.stop();
            if !self.crew.empty(STOP_PATIENCE).await {
                self.crew.kill_all();
                if !self.crew.empty(KILL_PATIENCE).await {
                    tracing::error!("a killed child is still there; the kernel has to finish it");
                }
            }
        })
    }
}

impl<K: Kind> Drop for Pool<K> {
    fn drop(&mut self) {
        self.crew.kill_all();
    }
}
