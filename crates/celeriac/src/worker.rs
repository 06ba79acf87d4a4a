//! Builds and runs a worker of an application.

use crate::Result;
use crate::app::App;
use celeriac_core::QueueName;
use celeriac_core::lease::LeaseTimes;
use celeriac_runtime::{Background, StopHandle, Worker, WorkerOptions, WorkerParts, WorkerReport};
use std::sync::Arc;
use std::time::Duration;

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
        }
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

    /// Checks everything and connects, without running yet.
    ///
    /// # Errors
    /// A queue name, an option or a missing state; or the store cannot be opened.
    pub async fn build(self) -> Result<Worker> {
        let settings = self.app.settings();
        let queues = match &self.queues {
            Some(names) => {
                names.iter().map(|name| Ok(QueueName::parse(name)?)).collect::<Result<Vec<_>>>()?
            }
            None => self.app.worker_queues()?,
        };
        let options = WorkerOptions {
            name: self.name.unwrap_or_else(|| settings.node_name.value.clone()),
            queues,
            concurrency: self.concurrency.unwrap_or(settings.concurrency.value),
            grace: self.grace.unwrap_or(settings.grace.value),
            lease_times: LeaseTimes::with_expiry(
                self.lease_expiry.unwrap_or(settings.lease_expiry.value),
            ),
            task_events: self.task_events.unwrap_or(settings.task_events.value),
            idle_stop: self.idle_stop,
        };
        let parts = WorkerParts {
            registry: Arc::new(self.app.registry().await?),
            router: Arc::new(self.app.router()?),
            store: self.app.store().await?,
            heartbeat_store: self.app.own_connection().await?,
            clock: Arc::clone(self.app.clock()),
            entropy: Arc::clone(self.app.entropy()),
            background: Background::default(),
        };
        Ok(Worker::new(options, parts)?)
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
