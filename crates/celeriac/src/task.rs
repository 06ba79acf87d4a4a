//! What a task is: a name, parameters, options and a body.

use crate::arguments::{Arguments, Param};
use crate::context::{Context, FromContext};
use crate::error::TaskError;
use celeriac_core::outcome::Classifier;
use celeriac_core::priority::Level;
use celeriac_core::retry::{Delay, RetryPolicy};
use celeriac_core::throttle::Rate;
use celeriac_core::unique::Until;
use celeriac_runtime::TaskPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::TypeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A task: `#[task]` writes this implementation, and it can be written by hand.
///
/// The body is an ordinary function; [`Task::run`] takes its arguments from a message and calls it.
pub trait Task: 'static {
    /// The name on the wire, by which producers in any language call it.
    const NAME: &'static str;
    /// Its parameters, bound as Python binds them: by position, then by name.
    const PARAMS: &'static [Param];
    /// What it returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// How it is run when its call does not say otherwise.
    fn options(options: TaskOptions) -> TaskOptions {
        options
    }

    /// What it wants injected, so that a missing state is found when the worker starts.
    fn require(_requirements: &mut Requirements) {}

    /// Runs the body.
    fn run(
        context: Context,
        arguments: Arguments,
    ) -> impl Future<Output = Result<Self::Output, TaskError>> + Send;
}

/// How a task is run when its call does not say otherwise.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<Level>,
    pub(crate) expires: Option<Duration>,
    pub(crate) policy: TaskPolicy,
    /// The parameter that gives a call its key.
    pub(crate) key: Option<&'static str>,
    pub(crate) unique: Option<UniqueOptions>,
}

/// How calls of a task exclude each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct UniqueOptions {
    /// The parameter that makes the key; `None` takes all arguments.
    pub(crate) parameter: Option<&'static str>,
    pub(crate) until: Until,
    pub(crate) window: Option<Duration>,
}

impl Default for TaskOptions {
    /// Celery's numbers: three retries with exponential backoff from one second and full jitter.
    fn default() -> Self {
        Self {
            queue: None,
            priority: None,
            expires: None,
            policy: TaskPolicy::default(),
            key: None,
            unique: None,
        }
    }
}

impl TaskOptions {
    /// The queue of calls that name none and match no route.
    pub fn queue(mut self, queue: &str) -> Self {
        self.queue = Some(queue.to_owned());
        self
    }

    /// The priority level of calls that name none.
    pub fn priority(mut self, level: Level) -> Self {
        self.priority = Some(level);
        self
    }

    /// Calls that wait longer than this are dropped as expired.
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// The most retries (default 3).
    pub fn max_retries(mut self, max: u32) -> Self {
        self.policy.retry.max_retries = Some(max);
        self
    }

    /// Retries until it succeeds.
    pub fn retry_forever(mut self) -> Self {
        self.policy.retry.max_retries = None;
        self
    }

    /// Waits `factor_seconds * 2^retries` before a retry, at most `max`.
    pub fn backoff(mut self, factor_seconds: u32, max: Duration) -> Self {
        let jitter = match self.policy.retry.delay {
            Delay::Backoff { jitter, .. } => jitter,
            _ => true,
        };
        self.policy.retry.delay = Delay::Backoff { factor: factor_seconds, max, jitter };
        self
    }

    /// Whether a backoff is a random part of its delay (Celery's `retry_jitter`, default true).
    pub fn jitter(mut self, on: bool) -> Self {
        if let Delay::Backoff { jitter, .. } = &mut self.policy.retry.delay {
            *jitter = on;
        }
        self
    }

    /// Waits exactly these times: as many retries as there are entries.
    pub fn retry_schedule(mut self, delays: Vec<Duration>) -> Self {
        self.policy.retry = RetryPolicy::schedule(delays);
        self
    }

    /// Waits the same time before every retry.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.policy.retry.delay = Delay::Fixed(delay);
        self
    }

    /// After this time the task is told to stop ([`Context::check`]).
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.policy.soft_time_limit = Some(limit);
        self
    }

    /// After this time the task is stopped and fails.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.policy.time_limit = Some(limit);
        self
    }

    /// How many one worker may start (Celery's `rate_limit`, which is per worker as well). What is
    /// over it waits in the store, where another worker may take it.
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        self.policy.rate_limit = Some(rate);
        self
    }

    /// How many may start in all workers together, for each key if the task has one. All rates hold.
    pub fn global_rate_limit(mut self, rates: impl IntoIterator<Item = Rate>) -> Self {
        self.policy.limit.rates = rates.into_iter().collect();
        self
    }

    /// How many may run at once in all workers together, for each key if the task has one.
    pub fn concurrency_limit(mut self, max: u32) -> Self {
        self.policy.limit.concurrency = Some(max);
        self
    }

    /// The parameter whose value is the key of a call: the tenant, account or device that limits are
    /// counted for.
    pub fn key(mut self, parameter: &'static str) -> Self {
        self.key = Some(parameter);
        self.policy.limit.per_key = true;
        self
    }

    /// A second call with the same arguments is not sent while the first waits or runs; its job is
    /// the first one's ([`crate::Job::is_duplicate`]).
    pub fn unique(mut self) -> Self {
        self.unique.get_or_insert_default();
        self
    }

    /// As [`TaskOptions::unique`], by the value of this parameter alone.
    pub fn unique_by(mut self, parameter: &'static str) -> Self {
        self.unique.get_or_insert_default().parameter = Some(parameter);
        self
    }

    /// Keeps second calls out for this long after the send, even when the first has ended.
    pub fn unique_for(mut self, window: Duration) -> Self {
        self.unique.get_or_insert_default().window = Some(window);
        self
    }

    /// Until when a call keeps others out (default: finished).
    pub fn unique_until(mut self, until: Until) -> Self {
        self.unique.get_or_insert_default().until = until;
        self
    }

    /// Results are not stored.
    pub fn ignore_result(mut self) -> Self {
        self.policy.ignore_result = true;
        self
    }

    /// Takes every returned value for success, also `{"status": "error"}`.
    pub fn accept_any_result(mut self) -> Self {
        self.policy.classifier = Classifier::celery();
        self
    }

    /// Which returned values are failures.
    pub fn classifier(mut self, classifier: Classifier) -> Self {
        self.policy.classifier = classifier;
        self
    }
}

/// The states that tasks want injected, by type.
#[derive(Clone, Debug, Default)]
pub struct Requirements(BTreeMap<TypeId, &'static str>);

impl Requirements {
    /// Notes that a task wants `State<T>`.
    pub fn state<T: 'static>(&mut self) {
        self.0.insert(TypeId::of::<T>(), std::any::type_name::<T>());
    }

    /// Notes what an injected parameter type wants.
    pub fn of<T: FromContext>(mut self) -> Self {
        T::require(&mut self);
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TypeId, &'static str)> {
        self.0.iter().map(|(id, name)| (*id, *name))
    }
}
