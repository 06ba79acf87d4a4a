//! What a running task can ask and say.

use crate::client::Client;
use crate::error::TaskError;
use crate::task::Requirements;
use celeriac_core::state::is_custom;
use celeriac_core::trace::TraceContext;
use celeriac_runtime::RunContext;
use celeriac_wire::{Headers, State as TaskState, Value, to_value};
use serde::Serialize;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Progress is stored at most so often; the last step is always stored.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

type Shared = Arc<dyn Any + Send + Sync>;

/// Makes a value once in a process; clones share it.
struct Constructor {
    make: Box<dyn Fn() -> Result<Shared, TaskError> + Send + Sync>,
    made: Mutex<Option<Shared>>,
}

impl Constructor {
    fn value(&self) -> Result<Shared, TaskError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some(value) => Ok(Arc::clone(value)),
            None => Ok(Arc::clone(made.insert((self.make)()?))),
        }
    }
}

#[derive(Clone)]
enum Entry {
    Value(Shared),
    Made(Arc<Constructor>),
}

/// Values shared by tasks, by type.
#[derive(Clone, Default)]
pub(crate) struct States(BTreeMap<TypeId, Entry>);

impl fmt::Debug for States {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "States({})", self.0.len())
    }
}

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Entry::Value(Arc::new(value)));
    }

    pub(crate) fn insert_with<T: Send + Sync + 'static>(
        &mut self,
        make: impl Fn() -> Result<T, TaskError> + Send + Sync + 'static,
    ) {
        let make = move || -> Result<Shared, TaskError> { Ok(Arc::new(make()?)) };
        let constructor = Constructor { make: Box::new(make), made: Mutex::default() };
        self.0.insert(TypeId::of::<T>(), Entry::Made(Arc::new(constructor)));
    }

    /// The same with every constructor run; may block.
    pub(crate) fn made(&self) -> Result<Self, TaskError> {
        let made = |(id, entry): (&TypeId, &Entry)| match entry {
            Entry::Value(value) => Ok((*id, Entry::Value(Arc::clone(value)))),
            Entry::Made(constructor) => Ok((*id, Entry::Value(constructor.value()?))),
        };
        Ok(Self(self.0.iter().map(made).collect::<Result<_, TaskError>>()?))
    }

    pub(crate) fn has(&self, id: TypeId) -> bool {
        self.0.contains_key(&id)
    }

    fn find<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        match self.0.get(&TypeId::of::<T>())? {
            Entry::Value(value) => Arc::clone(value).downcast().ok(),
            Entry::Made(_) => None,
        }
    }
}

/// The running task: its identity, its limits, and a way to report and to send.
///
/// Cheap to clone; clones speak of the same run.
#[derive(Clone)]
pub struct Context {
    run: RunContext,
    states: Arc<States>,
    client: Client,
    reported: Arc<Mutex<Option<Instant>>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(run: RunContext, states: Arc<States>, client: Client) -> Self {
        Self { run, states, client, reported: Arc::default() }
    }

    /// The task id.
    pub fn id(&self) -> &str {
        self.headers().id().unwrap_or_default()
    }

    /// Which run this is: 1 at first, 2 for the first retry.
    pub fn attempt(&self) -> u32 {
        self.headers().retries().saturating_add(1)
    }

    /// How often this task has asked to run later ([`TaskError::snooze`]).
    pub fn snoozes(&self) -> u64 {
        celeriac_core::conclude::snoozes(self.headers())
    }

    /// Whether an earlier owner of this message was lost: effects may have happened already.
    pub fn is_redelivered(&self) -> bool {
        self.run.delivery.redelivered
    }

    /// How many workers, or children of the process pool, have died while they ran this message.
    /// From two on it runs beside no other of its kind.
    pub fn deaths(&self) -> u32 {
        self.run.delivery.suspicion.seen
    }

    /// The queue it came from.
    pub fn queue(&self) -> &str {
        self.run.delivery.queue.as_str()
    }

    /// The message's headers, custom ones included.
    pub fn headers(&self) -> &Headers {
        &self.run.delivery.message.headers
    }

    /// The place of this run in the trace that its sender began, if one did; what the task sends comes from
    /// there. Give its `traceparent` (its `Display`) to the services that the task calls.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of_run(self.headers())
    }

    /// The earlier of its soft and hard limits, if it has any.
    pub fn deadline(&self) -> Option<Instant> {
        [self.run.soft_deadline, self.run.hard_deadline].into_iter().flatten().min()
    }

    /// The time left until [`Context::deadline`].
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Fails when the task should stop: it was revoked, its soft limit passed, or the worker stops.
    ///
    /// # Errors
    /// An error that means exactly that; pass it on with `?`.
    pub fn check(&self) -> Result<(), TaskError> {
        match self.run.cancellation.reason() {
            None => Ok(()),
            Some(reason) => Err(TaskError::stopped(reason)),
        }
    }

    /// Waits until the task should stop, and returns the error to end with. Cancel safe.
    pub async fn cancelled(&self) -> TaskError {
        TaskError::stopped(self.run.cancellation.cancelled().await)
    }

    /// Reports progress, readable while the task runs: state `PROGRESS` with `current`, `total`,
    /// `percent` and `message`. Steps that follow faster than every 50 ms are not stored, except
    /// the last.
    pub async fn progress(&self, current: usize, total: usize, message: impl fmt::Display) {
        if let Some(diary) = self.states.find::<Diary>() {
            diary.note(current, total, &message);
        }
        let due = {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let due = current >= total || reported.is_none_or(|last| now - last >= PROGRESS_EVERY);
            if due {
                *reported = Some(now);
            }
            due
        };
        if !due {
            return;
        }
        let meta = Progress::of(current, total, &message);
        if let Err(error) = self.update_state("PROGRESS", &meta).await {
            tracing::warn!(task_id = self.id(), %error, "cannot store progress");
        }
    }

    /// Stores a custom state with its metadata (Celery's `update_state`).
    ///
    /// # Errors
    /// A state that belongs to Celery, metadata that cannot be encoded, or the store's error.
    pub async fn update_state<T: Serialize + ?Sized>(
        &self,
        state: &str,
        meta: &T,
    ) -> Result<(), TaskError> {
        if !is_custom(state) {
            return Err(TaskError::fail(format!("state {state:?} is the worker's to set")));
        }
        let stored = self.run.store_state(TaskState::parse(state), to_value(meta)?).await?;
        if !stored {
            tracing::debug!(task_id = self.id(), state, "state not stored: the lease is lost");
        }
        Ok(())
    }

    /// The time of day, by the worker's clock.
    pub fn now(&self) -> jiff::Timestamp {
        self.run.clock.wall()
    }

    /// Sends further tasks; they carry this one as their parent.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Takes note of all progress, for tests of tasks.
#[derive(Debug, Default)]
pub(crate) struct Diary(pub(crate) Arc<Mutex<Vec<Progress>>>);

impl Diary {
    fn note(&self, current: usize, total: usize, message: &dyn fmt::Display) {
        let progress = Progress::of(current, total, message);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(progress);
    }
}

/// What `Context::progress` stores.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// Steps done.
    pub current: usize,
    /// Steps in all.
    pub total: usize,
    /// 0 to 100.
    pub percent: f64,
    /// What is done now.
    pub message: String,
}

impl Progress {
    fn of(current: usize, total: usize, message: &dyn fmt::Display) -> Self {
        let percent = if total == 0 { 100.0 } else { current as f64 * 100.0 / total as f64 };
        Self { current, total, percent, message: message.to_string() }
    }
}

/// A value that tasks share: the application gives it with `App::state` or `App::state_with`.
#[derive(Debug)]
pub struct State<T>(Arc<T>);

impl<T> State<T> {
    /// Wraps a value, for calling a task's function directly in a test.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for State<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A parameter type that comes from the context instead of the message.
pub trait FromContext: Sized {
    /// Makes the value for one run.
    ///
    /// # Errors
    /// What it wants is missing.
    fn from_context(context: &Context) -> Result<Self, TaskError>;

    /// What it wants, to be checked when the worker starts.
    fn require(_requirements: &mut Requirements) {}
}

impl FromContext for Context {
    fn from_context(context: &Context) -> Result<Self, TaskError> {
        Ok(context.clone())
    }
}

impl FromContext for Client {
    fn from_context(context: &Context) -> Result<Self, TaskError> {
        Ok(context.client.clone())
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    fn from_context(context: &Context) -> Result<Self, TaskError> {
        context.states.find().map(Self).ok_or_else(|| {
            let name = std::any::type_name::<T>();
            TaskError::fail(format!("no state of type {name}; give one with App::state"))
        })
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

/// A progress value out of a stored state, if it is one.
pub(crate) fn progress_of(state: &TaskState, value: &Value) -> Option<Progress> {
    (state.as_str() == "PROGRESS").then(|| celeriac_wire::from_value(value.clone()).ok()).flatten()
}
