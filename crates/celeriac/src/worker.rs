//! Builds and runs a worker of an application.

use crate::Result;
use crate::app::App;
use crate::hooks::Listener;
use crate::lines::SpillFile;
use crate::pool::Pool;
#[cfg(all(target_os = "linux", feature = "cli"))]
use crate::pool::PythonPool;
use celeriac_core::QueueName;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::store::Store;
#[cfg(all(target_os = "linux", feature = "cli"))]
use celeriac_runtime::pool::python::PythonApp;
use celeriac_runtime::pool::{Bounds, Children, ProcessOptions};
use celeriac_runtime::{
    Autoscale, Background, ControlOptions, Registry, Spill, StopHandle, UnknownTasks, Worker,
    WorkerError, WorkerOptions, WorkerParts, WorkerReport,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What frames to and from a child may hold beside a message or a result, in bytes.
const FRAME_EXTRA: usize = 1 << 20;

/// Where dead letters go that the store has no room for.
fn spill(path: &str) -> Option<Arc<dyn Spill>> {
    (!path.is_empty()).then(|| Arc::new(SpillFile::new(Path::new(path))) as Arc<dyn Spill>)
}

/// A worker that is not started yet. Every setting has the name it has on the command line.
#[derive(Clone, Debug)]
#[must_use = "a worker does nothing until it runs"]
pub struct WorkerBuilder {
    app: App,
    queues: Option<Vec<String>>,
    concurrency: Option<usize>,
    name: Option<String>,
    grace: Option<Duration>,
    task_events: Option<bool>,
    lease_expiry: Option<Duration>,
    idle_stop: Option<Duration>,
    pool: Option<Pool>,
    max_tasks_per_child: Option<u64>,
    max_memory_per_child: Option<u64>,
    child_memory_max: Option<u64>,
    remote_control: Option<bool>,
    unknown_tasks: Option<UnknownTasks>,
    background: Background,
    #[cfg(all(target_os = "linux", feature = "cli"))]
    python: Option<PythonApp>,
}

impl WorkerBuilder {
    pub(crate) fn new(app: App) -> Self {
        Self {
            app,
            queues: None,
            concurrency: None,
            name: None,
            grace: None,
            task_events: None,
            lease_expiry: None,
            idle_stop: None,
            pool: None,
            max_tasks_per_child: None,
            max_memory_per_child: None,
            child_memory_max: None,
            remote_control: None,
            unknown_tasks: None,
            background: Background::default(),
            #[cfg(all(target_os = "linux", feature = "cli"))]
            python: None,
        }
    }

    /// Runs the tasks of a Celery app in Python children, and none of this application's own.
    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn python(mut self, app: PythonApp) -> Self {
        self.python = Some(app);
        self
    }

    /// The queues to consume.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.queues = Some(queues.into_iter().map(Into::into).collect());
        self
    }

    /// How many tasks run at once.
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.concurrency = Some(slots);
        self
    }

    /// The node name, `celery@host` by default.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// How long running tasks may finish after a stop was asked for.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Whether task events are recorded.
    pub fn task_events(mut self, on: bool) -> Self {
        self.task_events = Some(on);
        self
    }

    /// How long a silent worker keeps its leases; a quarter of it is the heartbeat.
    pub fn lease_expiry(mut self, expiry: Duration) -> Self {
        self.lease_expiry = Some(expiry);
        self
    }

    /// Ends by itself when nothing was ready for this long.
    pub fn stop_when_idle(mut self, idle: Duration) -> Self {
        self.idle_stop = Some(idle);
        self
    }

    /// Where tasks run. [`Pool::Process`] needs [`App::enter_child`] early in the program.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// A child ends after so many tasks; its successor is ready before (Celery's
    /// `worker_max_tasks_per_child`).
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.max_tasks_per_child = Some(tasks);
        self
    }

    /// A child that holds more than so many bytes ends after its task (Celery's
    /// `worker_max_memory_per_child`, which counts in KiB).
    pub fn max_memory_per_child(mut self, bytes: u64) -> Self {
        self.max_memory_per_child = Some(bytes);
        self
    }

    /// A child that holds more than so many bytes is killed, which counts against its task. It is
    /// looked at every 100 ms, on Linux only.
    pub fn child_memory_max(mut self, bytes: u64) -> Self {
        self.child_memory_max = Some(bytes);
        self
    }

    /// Whether it answers to remote control (Celery's `worker_enable_remote_control`).
    pub fn remote_control(mut self, on: bool) -> Self {
        self.remote_control = Some(on);
        self
    }

    /// What becomes of messages whose task is not registered here; they wait for a worker that has
    /// the task, unless told otherwise.
    pub fn unknown_tasks(mut self, what: UnknownTasks) -> Self {
        self.unknown_tasks = Some(what);
        self
    }

    /// Runs the worker's own work where its caller's runtime runs everything else.
    #[cfg(feature = "sqlite")]
    pub(crate) fn in_one_runtime(mut self) -> Self {
        self.background = Background::SameRuntime(Arc::new(|work| work));
        self
    }

    /// Checks everything and connects, without running yet.
    ///
    /// # Errors
    /// A queue name, an option or a missing state; a process pool in a program without a place where
    /// children enter, or on a store that processes cannot share; or the store cannot be opened.
    pub async fn build(self) -> Result<Worker> {
        #[cfg(all(target_os = "linux", feature = "cli"))]
        if let Some(python) = self.python.clone() {
            let (children, registry) = crate::python::parts(&python, &self)?;
            let queues = crate::python::queues(python.hello())?;
            return self.assemble(queues, Some(children), registry).await;
        }
        let queues = match &self.queues {
            Some(names) => {
                names.iter().map(|name| Ok(QueueName::parse(name)?)).collect::<Result<Vec<_>>>()?
            }
            None => self.app.worker_queues()?,
        };
        let store = self.app.store().await?;
        let processes = self.processes(&*store)?;
        let states = match processes {
            Some(_) => self.app.given_states(),
            None => self.app.made_states().await?,
        };
        let registry = self.app.registry(states).await?;
        self.assemble(queues, processes.map(Children::Native), registry).await
    }

    async fn assemble(
        self,
        queues: Vec<QueueName>,
        children: Option<Children>,
        registry: Registry,
    ) -> Result<Worker> {
        let settings = self.app.settings();
        let store = self.app.store().await?;
        let options = WorkerOptions {
            name: self.node_name(),
            queues,
            concurrency: self.slots(),
            autoscale: self.autoscale(),
            grace: self.patience(),
            lease_times: LeaseTimes::with_expiry(
                self.lease_expiry.unwrap_or(settings.lease_expiry.value),
            ),
            task_events: self.task_events.unwrap_or(settings.task_events.value),
            idle_stop: self.idle_stop,
            strict_early_ack: settings.strict_early_ack.value,
            chord_expires: settings.chord_patience(),
            unknown_tasks: self.unknown_tasks.unwrap_or(settings.unknown_tasks.value),
            children,
            control: self.control(),
        };
        let parts = WorkerParts {
            registry: Arc::new(registry),
            router: Arc::new(self.app.bound_router().await?),
            store,
            heartbeat_store: self.app.own_connection().await?,
            clock: Arc::clone(self.app.clock()),
            entropy: Arc::clone(self.app.entropy()),
            spill: spill(&settings.dead_spill.value),
            background: self.background.clone(),
        };
        let worker = Worker::new(options, parts)?;
        #[cfg(feature = "otel")]
        let worker = match crate::otel::observer() {
            Some(spans) => worker.observed_by(spans),
            None => worker,
        };
        let hooks = self.app.hooks();
        if hooks.is_empty() {
            return Ok(worker);
        }
        Ok(worker.observed_by(Listener::start(Arc::clone(hooks))))
    }

    /// Celery's worker waits for its tasks without a limit, unless it is told one.
    fn patience(&self) -> Duration {
        let setting = &self.app.settings().grace;
        #[cfg(all(target_os = "linux", feature = "cli"))]
        if self.python.is_some() && setting.is_default() {
            // Longer than anything runs; instants stay far from their end.
            return self.grace.unwrap_or(Duration::from_hours(24 * 365 * 10));
        }
        self.grace.unwrap_or(setting.value)
    }

    /// How many tasks run at once, and when children are replaced.
    pub(crate) fn child_bounds(&self) -> Bounds {
        let settings = self.app.settings();
        Bounds {
            slots: self.slots(),
            tasks_max: self.max_tasks_per_child.or(settings.max_tasks_per_child.value),
            memory_recycle: self.max_memory_per_child.or(settings.max_memory_per_child.value),
            memory_max: self.child_memory_max.or(settings.child_memory_max.value),
        }
    }

    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn application(&self) -> &App {
        &self.app
    }

    fn node_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.app.settings().node_name.value.clone())
    }

    fn control(&self) -> ControlOptions {
        let control = self.told_options();
        ControlOptions { enabled: self.remote_control.unwrap_or(control.enabled), ..control }
    }

    fn told_options(&self) -> ControlOptions {
        let options = crate::node::control_options(self.app.settings());
        #[cfg(all(target_os = "linux", feature = "cli"))]
        if let Some(python) = &self.python {
            return crate::node::with_app(options, python.hello());
        }
        options
    }

    /// The most and the fewest slots, unless somebody has said how many there are to be.
    fn autoscaled(&self) -> Option<(usize, usize)> {
        let autoscale = self.app.settings().autoscale.value;
        autoscale.filter(|_| self.concurrency.is_none())
    }

    fn autoscale(&self) -> Option<Autoscale> {
        let keepalive = self.app.settings().autoscale_keepalive.value;
        self.autoscaled().map(|(max, min)| Autoscale { max, min, keepalive })
    }

    fn slots(&self) -> usize {
        let settings = self.app.settings();
        if let Some((_, fewest)) = self.autoscaled() {
            return fewest.max(1);
        }
        // One child at a time is what Celery's `solo` does; a child that dies takes nobody with it.
        #[cfg(all(target_os = "linux", feature = "cli"))]
        if self.python.is_some() && settings.python_pool.value == PythonPool::Solo {
            return 1;
        }
        self.concurrency.unwrap_or(settings.concurrency.value)
    }

    /// How children are started, if tasks run in any.
    fn processes(&self, store: &dyn Store) -> Result<Option<ProcessOptions>> {
        let settings = self.app.settings();
        let refuse = |text: &str| Err(WorkerError::Options(text.to_owned()).into());
        if self.pool.unwrap_or(settings.pool.value) == Pool::Async {
            let asked = self.max_tasks_per_child.or(settings.max_tasks_per_child.value).is_some()
                || self.max_memory_per_child.or(settings.max_memory_per_child.value).is_some()
                || self.child_memory_max.or(settings.child_memory_max.value).is_some();
            if asked {
                return refuse(
                    "max_tasks_per_child, max_memory_per_child and child_memory_max need child \
                     processes: add -P process, or leave them out",
                );
            }
            return Ok(None);
        }
        if !store.capabilities().shared_between_processes {
            return refuse(
                "the process pool needs a store that processes share: use sqlite:// instead of \
                 memory://, or the async pool",
            );
        }
        let Some(launch) = self.app.launch().cloned() else {
            return refuse(
                "this program has no place where the children of a process pool enter: call \
                 `.enter_child()` on the application, as the first thing in main or in the test, \
                 or use the async pool",
            );
        };
        let frame_bytes_max =
            settings.message_bytes_max.value.max(settings.result_bytes_max.value) + FRAME_EXTRA;
        Ok(Some(ProcessOptions {
            launch,
            broker_url: settings.broker_url.value.clone(),
            node: self.node_name(),
            tasks: self.app.task_defs().iter().map(|task| task.name().to_owned()).collect(),
            bounds: self.child_bounds(),
            oom_score_adj: settings.child_oom_score_adj.value,
            frame_bytes_max,
        }))
    }

    /// Runs until the worker is stopped through nothing but itself: see
    /// [`WorkerBuilder::stop_when_idle`] and [`WorkerBuilder::run_until`].
    ///
    /// # Errors
    /// As [`WorkerBuilder::build`], or the worker cannot sign off.
    pub async fn run(self) -> Result<WorkerReport> {
        Ok(self.build().await?.run().await?)
    }

    /// Runs until `shutdown` is ready, then stops with the grace period.
    ///
    /// # Errors
    /// As [`WorkerBuilder::run`].
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<WorkerReport> {
        let worker = self.build().await?;
        let stop: StopHandle = worker.stop_handle();
        let running = worker.run();
        tokio::pin!(running, shutdown);
        // Both are polled on until the worker has ended; `shutdown` only once.
        tokio::select! {
            report = &mut running => return Ok(report?),
            () = &mut shutdown => stop.grace(),
        }
        Ok(running.await?)
    }
}
