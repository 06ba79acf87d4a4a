//! Tests of tasks: a call runs through the real codec, store and worker, without a broker and without
//! waiting.
//!
//! ```
//! use celeriac::prelude::*;
//!
//! #[task(max_retries = 3)]
//! async fn render(cx: Context, page: u32) -> Result<u32> {
//!     if cx.attempt() < 3 {
//!         return Err(TaskError::retry_in(30.secs(), "the renderer is down"));
//!     }
//!     cx.progress(1, 1, "rendered").await;
//!     Ok(page)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // in a #[tokio::test]
//! let test = celeriac::test::app().tasks(tasks![render]);
//! let run = test.run(render::call(7)).await;
//! assert_eq!(run.retries(), [30.secs(), 30.secs()]); // nobody waited a minute
//! assert_eq!(run.result().unwrap(), &7);
//! assert_eq!(run.progress()[0].message, "rendered");
//! # }
//! ```

use crate::app::App;
use crate::client::Client;
use crate::context::{Diary, Progress};
use crate::handler::TaskDef;
use crate::hooks::{AfterTaskPublish, TaskInfo, TaskRetry, TaskSnoozed};
use crate::job::JobError;
use crate::{DurationExt as _, Result, Workflow};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::{Clock, Entropy, QueueName, clock};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The time at which a test begins.
const START: &str = "2026-01-01T00:00:00Z";
/// The most times that the clock jumps for one call; a task that is retried for ever ends here.
const JUMPS_MAX: usize = 10_000;

/// An application for a test, without tasks yet, on a store in memory.
pub fn app() -> TestApp {
    of(App::at("memory://").expect("a store in memory has no settings that could be wrong"))
}

/// An application as the program builds it, with its settings, tasks, states and hooks, on a store in memory.
pub fn of(app: App) -> TestApp {
    let clock = Arc::new(TestClock { stands: FixedClock::at(START), runs_since: OnceLock::new() });
    let notes = Notes::default();
    let entropy: Arc<dyn Entropy> = Arc::new(Seeded::new(0));
    let diary = Diary(Arc::clone(&notes.progress));
    let at = Arc::clone(&clock);
    let (retries, snoozes) = (Arc::clone(&notes.retries), Arc::clone(&notes.snoozes));
    let snoozed_at = Arc::clone(&clock);
    let published = Arc::clone(&notes.published);
    let app = app
        .for_test(Arc::<TestClock>::clone(&clock), entropy)
        .state(diary)
        .on(move |retry: TaskRetry| {
            note(&retries, clock::between(at.wall(), retry.at));
            std::future::ready(())
        })
        .on(move |snoozed: TaskSnoozed| {
            note(&snoozes, clock::between(snoozed_at.wall(), snoozed.at));
            std::future::ready(())
        })
        .on(move |sent: AfterTaskPublish| {
            note(&published, sent.task);
            std::future::ready(())
        });
    TestApp { app, clock, notes }
}

/// A clock that stands still, or goes with the time of a paused runtime.
#[derive(Debug)]
struct TestClock {
    stands: FixedClock,
    runs_since: OnceLock<Instant>,
}

impl TestClock {
    fn passed(&self) -> Duration {
        self.runs_since.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        clock::after(self.stands.wall(), self.passed())
    }
    fn boot(&self) -> Duration {
        self.stands.boot() + self.passed()
    }
}

/// What was seen since the notes were read last.
#[derive(Clone, Debug, Default)]
struct Notes {
    retries: Arc<Mutex<Vec<Duration>>>,
    snoozes: Arc<Mutex<Vec<Duration>>>,
    published: Arc<Mutex<Vec<TaskInfo>>>,
    progress: Arc<Mutex<Vec<Progress>>>,
}

fn note<T>(notes: &Mutex<Vec<T>>, one: T) {
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(one);
}

fn take<T>(notes: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner))
}

/// An application for a test.
///
/// Its clock stands still while tasks run and jumps to the next time for which something is scheduled when
/// nothing is left to do. Random numbers are the same in every run. A body that sleeps really sleeps; for
/// such a body, and for its time limits, see [`TestApp::in_paused_runtime`].
#[derive(Debug)]
pub struct TestApp {
    app: App,
    clock: Arc<TestClock>,
    notes: Notes,
}

impl TestApp {
    /// Registers tasks, as [`App::tasks`].
    pub fn tasks(mut self, tasks: impl IntoIterator<Item = TaskDef>) -> Self {
        self.app = self.app.tasks(tasks);
        self
    }

    /// Gives a state, as [`App::state`]; it replaces one of the same type that the application gave.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.app = self.app.state(value);
        self
    }

    /// Begins at this instant instead of 2026-01-01T00:00:00Z.
    pub fn starts_at(self, instant: Timestamp) -> Self {
        self.clock.stands.jump_wall(instant);
        self
    }

    /// Lets the clock go with tokio's, for a test with `#[tokio::test(start_paused = true)]`: what a body
    /// sleeps passes at once, and its time limits hold.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn in_paused_runtime(self) -> Self {
        let _first = self.clock.runs_since.get_or_init(Instant::now);
        self
    }

    /// The time of the test.
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Sends calls without running them; [`TestApp::drain`] and [`TestApp::advance`] do.
    ///
    /// # Panics
    /// If the application cannot be used: a malformed route, for example.
    pub async fn client(&self) -> Client {
        in_test("the application", self.app.client().await)
    }

    /// Sends a call and runs it, with everything that follows from it, until nothing is left, however late
    /// that is scheduled. Tasks that are not registered here (remote ones, for example) wait and are not
    /// run.
    ///
    /// # Panics
    /// If the call cannot be sent or a task's state is missing: what the test gets wrong, not the task.
    pub async fn run<W: Workflow>(&self, work: W) -> Run<W::Output>
    where
        W::Output: DeserializeOwned,
    {
        let client = self.client().await;
        let job = in_test("the call", client.send(work).await);
        // The call itself is not what its task has sent.
        let _before = self.read();
        in_test("the worker", self.work(None).await);
        let record = in_test("its result", job.record().await);
        let result = match record.filter(|record| record.meta.state().is_ready()) {
            Some(record) => job.reader().outcome_of(&record, job.id()),
            None => Err(JobError::Timeout {
                id: job.id().to_owned(),
                waited: Duration::ZERO,
                state: in_test("its state", job.state().await).as_str().to_owned(),
            }),
        };
        let Notes { retries, snoozes, published, progress } = self.read();
        Run {
            id: job.id().to_owned(),
            result,
            retries: take(&retries),
            snoozes: take(&snoozes),
            published: take(&published),
            progress: take(&progress),
        }
    }

    /// Runs everything that was sent and what follows from it, however late it is scheduled.
    ///
    /// # Panics
    /// As [`TestApp::run`].
    pub async fn drain(&self) {
        in_test("the worker", self.work(None).await);
    }

    /// Runs what is due now and until `span` has passed, and no more.
    ///
    /// # Panics
    /// As [`TestApp::run`].
    pub async fn advance(&self, span: Duration) {
        let end = clock::after(self.now(), span);
        in_test("the worker", self.work(Some(end)).await);
        self.clock.stands.advance(clock::between(self.now(), end));
    }

    /// What was noted since this was called last.
    fn read(&self) -> Notes {
        Notes {
            retries: Arc::new(Mutex::new(take(&self.notes.retries))),
            snoozes: Arc::new(Mutex::new(take(&self.notes.snoozes))),
            published: Arc::new(Mutex::new(take(&self.notes.published))),
            progress: Arc::new(Mutex::new(take(&self.notes.progress))),
        }
    }

    async fn work(&self, end: Option<Timestamp>) -> Result {
        let store = self.app.store().await?;
        for _ in 0..JUMPS_MAX {
            let mut queues: Vec<QueueName> = self.app.worker_queues()?;
            let seen = store.queues().await?;
            queues.extend(seen.iter().filter_map(|queue| QueueName::parse(&queue.name).ok()));
            queues.sort();
            queues.dedup();
            let worker = self.app.worker().queues(queues.iter().map(QueueName::to_string));
            let worker = worker.name("test@localhost").concurrency(8).remote_control(false);
            // Several rounds: what a task sends at its very end may come after the last look.
            let report = worker.stop_when_idle(Duration::ZERO).in_one_runtime().run().await?;
            if report.processed > 0 {
                continue;
            }
            let Some(due) = store.next_due(&queues).await? else { return Ok(()) };
            if end.is_some_and(|end| due > end) {
                return Ok(());
            }
            self.clock.stands.advance(clock::between(self.now(), due).max(1.millis()));
        }
        tracing::warn!(jumps = JUMPS_MAX, "there is always something left to do; the test goes on");
        Ok(())
    }
}

/// What a call did.
#[derive(Debug)]
pub struct Run<R> {
    id: String,
    result: Result<R, JobError>,
    retries: Vec<Duration>,
    snoozes: Vec<Duration>,
    published: Vec<TaskInfo>,
    progress: Vec<Progress>,
}

impl<R> Run<R> {
    /// The task id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What [`crate::Job::get`] would give.
    pub fn result(&self) -> Result<&R, &JobError> {
        self.result.as_ref()
    }

    /// The same, to keep.
    ///
    /// # Errors
    /// As [`crate::Job::get`].
    pub fn into_result(self) -> Result<R, JobError> {
        self.result
    }

    /// How long it waited before each retry, its own and those of tasks that followed.
    pub fn retries(&self) -> &[Duration] {
        &self.retries
    }

    /// How long it waited each time it asked to run later.
    pub fn snoozes(&self) -> &[Duration] {
        &self.snoozes
    }

    /// What its body sent through its client, in order.
    pub fn published(&self) -> &[TaskInfo] {
        &self.published
    }

    /// Every step that was reported with [`crate::Context::progress`].
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }
}

/// What goes wrong here is the test's fault, and a test fails by panicking.
#[track_caller]
fn in_test<T, E: std::fmt::Display>(what: &str, made: Result<T, E>) -> T {
    made.unwrap_or_else(|error| panic!("{what} cannot be used: {error}"))
}
