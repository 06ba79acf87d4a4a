//! What the worker knows of a task: its name, its policy and how to run it.

use crate::cancel::Cancellation;
use celeriac_core::dead::DeadLetters;
use celeriac_core::outcome::{Acks, Classifier, Outcome};
use celeriac_core::record::Recorder;
use celeriac_core::retry::{RetryFor, RetryPolicy};
use celeriac_core::seal::Seals;
use celeriac_core::store::{Delivery, Store};
use celeriac_core::throttle::{LimitRule, Rate, RuleOrigin, Target};
use celeriac_core::trail::Trail;
use celeriac_core::{Clock, StoreError};
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Body, Message, ResultMeta, State, Value};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How a task is run when its message does not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct TaskPolicy {
    /// When and how often it is retried.
    pub retry: RetryPolicy,
    /// Which failures are retried.
    pub retry_for: RetryFor,
    /// Which failures become dead letters.
    pub dead_letters: DeadLetters,
    /// What happens to its message when its run is cut off.
    pub acks: Acks,
    /// Its soft time limit: it is told to stop.
    pub soft_time_limit: Option<Duration>,
    /// Its hard time limit: it is stopped.
    pub time_limit: Option<Duration>,
    /// Results are not wanted.
    pub ignore_result: bool,
    /// Results say what the task was called with (Celery's `result_extended`).
    pub result_extended: bool,
    /// Which returned values are failures.
    pub classifier: Classifier,
    /// How many one worker may start (Celery's `rate_limit`).
    pub rate_limit: Option<Rate>,
    /// How many may start and run in all workers together.
    pub limit: SharedLimit,
}

/// A limit for all workers of a store together, as a task states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedLimit {
    /// How many may start; all of them hold.
    pub rates: Vec<Rate>,
    /// How many may run at once.
    pub concurrency: Option<u32>,
    /// Whether each key has the limit for itself.
    pub per_key: bool,
}

/// One run of a task, as its handler sees it.
#[derive(Clone)]
pub struct RunContext {
    /// What is run.
    pub delivery: Arc<Delivery>,
    /// The store it came from.
    pub store: Arc<dyn Store>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Tells the task to stop.
    pub cancellation: Cancellation,
    /// The node that runs it.
    pub node: Arc<str>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When the soft limit passes.
    pub soft_deadline: Option<tokio::time::Instant>,
    /// When the hard limit passes.
    pub hard_deadline: Option<tokio::time::Instant>,
    /// Takes note of what the task sends.
    pub trail: Trail,
    /// Results say what the task was called with.
    pub result_extended: bool,
    /// Whether its body runs; until then it waits for a child.
    pub begun: Arc<AtomicBool>,
}

/// What a message calls its task with, for results that say so.
pub(crate) fn arguments_of(delivery: &Delivery, wanted: bool) -> Option<Body> {
    let read = wanted.then(|| codec::read(&delivery.message, Accept::default()).ok());
    Some(read.flatten()?.body)
}

impl fmt::Debug for RunContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RunContext")
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

impl RunContext {
    /// Stores a state that Celery's backend has written, readable while the task runs. `false`: the
    /// lease is lost and nothing was stored.
    ///
    /// # Errors
    /// The store's error; the task may go on.
    pub async fn store_traced(&self, meta: ResultMeta) -> Result<bool, StoreError> {
        let record = self.recorder(None).traced(&self.delivery.message.headers, meta);
        self.store.store_state(self.delivery.lease, record).await
    }

    /// Stores a custom state with its metadata, readable while the task runs (Celery's
    /// `update_state`). `false`: the lease is lost and nothing was stored.
    ///
    /// # Errors
    /// The store's error; the task may go on.
    pub async fn store_state(&self, state: State, meta: Value) -> Result<bool, StoreError> {
        let recorder = self.recorder(arguments_of(&self.delivery, self.result_extended));
        let record = recorder.of(&self.delivery.message.headers, state, meta, None);
        self.store.store_state(self.delivery.lease, record).await
    }

    fn recorder(&self, arguments: Option<Body>) -> Recorder<'_> {
        Recorder {
            worker: &self.node,
            queue: self.delivery.queue.as_str(),
            enqueued_at: Some(self.delivery.enqueued_at),
            started_at: Some(self.started_at),
            now: self.clock.wall(),
            children: self.trail.children(),
            arguments,
        }
    }
}

/// A registered task.
pub trait Handler: Send + Sync {
    /// The name on the wire.
    fn name(&self) -> &str;
    /// How it is run.
    fn policy(&self) -> &TaskPolicy;
    /// Whether its messages' bodies are for somebody else to read: they stay bytes here.
    fn takes_bytes(&self) -> bool {
        false
    }
    /// Whether it can run this call; what it cannot is left to others, as a task of another name is.
    fn knows(&self, _body: &Body) -> bool {
        true
    }
    /// Binds the arguments and runs the body. Never panics for bad arguments; a panic of the body
    /// is caught by the pool.
    fn run(&self, run: RunContext, body: Body) -> BoxFuture<'static, Outcome>;
}

type Tasks = BTreeMap<String, Arc<dyn Handler>>;

/// The tasks that a worker knows, by name. They can be replaced while it runs.
#[derive(Default)]
pub struct Registry {
    tasks: RwLock<Arc<Tasks>>,
    accept: Accept,
    seals: Seals,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.tasks().keys()).finish()
    }
}

impl Registry {
    /// Adds a task; a second one of the same name is refused, it would replace the first silently.
    ///
    /// # Errors
    /// `Conflict` with the name.
    pub fn add(&mut self, handler: Arc<dyn Handler>) -> Result<(), StoreError> {
        let name = handler.name().to_owned();
        if self.tasks().contains_key(&name) {
            return Err(StoreError::new(
                celeriac_core::ErrorKind::Conflict,
                format!("two tasks are named {name:?}"),
            )
            .hint("give one of them another name with #[task(name = \"…\")]"));
        }
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(tasks).insert(name, handler);
        Ok(())
    }

    /// Knows the tasks of another from now on, and none of those before.
    pub fn replace(&self, other: Self) {
        let tasks = other.tasks.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.tasks.write().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    fn tasks(&self) -> Arc<Tasks> {
        Arc::clone(&self.tasks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says which bodies the tasks accept (Celery's `accept_content`); all that can be read if not.
    pub fn set_accept(&mut self, accept: Accept) {
        self.accept = accept;
    }

    /// Which bodies the tasks accept.
    pub fn accept(&self) -> Accept {
        self.accept
    }

    /// Gives it the codecs of sealed bodies.
    pub fn set_seals(&mut self, seals: Seals) {
        self.seals = seals;
    }

    /// The codecs of sealed bodies.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// The task of a name.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Handler>> {
        self.tasks().get(name).cloned()
    }

    /// Whether the body of a message is for somebody else to read. Of a task that is not known, it is
    /// when any task's is.
    pub fn takes_bytes(&self, message: &Message) -> bool {
        let tasks = self.tasks();
        match tasks.get(message.headers.task().unwrap_or_default()) {
            Some(handler) => handler.takes_bytes(),
            None => tasks.values().any(|handler| handler.takes_bytes()),
        }
    }

    /// The limits that the tasks state, for the store. A task with a rate for each worker is among
    /// them with no limit: the store has to let others pass it.
    pub fn limit_rules(&self) -> Vec<LimitRule> {
        let rule = |(name, handler): (&String, &Arc<dyn Handler>)| {
            let policy = handler.policy();
            let stated = policy.limit != SharedLimit::default() || policy.rate_limit.is_some();
            stated.then(|| LimitRule {
                target: Target::Task(name.clone()),
                per_key: policy.limit.per_key,
                rates: policy.limit.rates.clone(),
                concurrency: policy.limit.concurrency,
                origin: RuleOrigin::Application,
            })
        };
        self.tasks().iter().filter_map(rule).collect()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tasks().keys().cloned().collect()
    }
}
