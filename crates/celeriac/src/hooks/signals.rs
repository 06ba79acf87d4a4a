//! What hooks are told: one type for each signal.

use celeriac_core::conclude::Returned;
use celeriac_core::outcome::Failure;
use celeriac_core::store::Delivery;
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Headers, Map, Message, Value, to_value};
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

mod sealed {
    pub trait Sealed {}
}

/// Something an application can hear of with [`crate::App::on`]. The types of this module implement it; no
/// others can.
pub trait Signal: sealed::Sealed + Clone + Send + 'static {
    /// Its name in `celery.signals`, or one in its manner where Celery has none.
    const NAME: &'static str;
}

/// A signal at which an application can decide, with [`crate::App::intercept`].
pub trait Intercept: Signal {
    /// What lets the work go on.
    type Decision: Send + 'static;
}

/// The task that a signal is about.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub(crate) message: Message,
    pub(crate) queue: String,
}

impl TaskInfo {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self { message: delivery.message.clone(), queue: delivery.queue.to_string() }
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        self.message.headers.task().unwrap_or_default()
    }

    /// The task id.
    pub fn id(&self) -> &str {
        self.message.headers.id().unwrap_or_default()
    }

    /// The queue it comes from or goes to; empty when an exchange decides on that.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Which run this is: 1 at first, 2 for the first retry.
    pub fn attempt(&self) -> u32 {
        self.message.headers.retries().saturating_add(1)
    }

    /// The message's headers, custom ones included.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// What it is called with, by position and by name; `None` when that cannot be read here.
    pub fn arguments(&self) -> Option<(Vec<Value>, Map)> {
        let body = codec::read(&self.message, Accept::default()).ok()?.body;
        Some((body.args, body.kwargs))
    }

    /// A custom header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name).and_then(Value::as_str)
    }
}

/// Makes a signal of a struct.
macro_rules! signal {
    (
        $(#[$doc:meta])*
        $name:ident = $text:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
        impl sealed::Sealed for $name {}
        impl Signal for $name {
            const NAME: &'static str = $text;
        }
    };
}

signal! {
    /// A client, or a task through its client, is about to send this. An interceptor may change headers or
    /// refuse. What a worker sends by itself (retries, next steps of chains, bodies of chords) does not
    /// come here.
    BeforeTaskPublish = "before_task_publish" {
        /// What will be sent.
        task: TaskInfo,
    }
}
signal! {
    /// A client has sent this, and the store has it. Also told of a unique call that was left out for
    /// another.
    AfterTaskPublish = "after_task_publish" {
        /// What was sent.
        task: TaskInfo,
    }
}
signal! {
    /// A worker has a slot for this task.
    TaskReceived = "task_received" {
        /// The task.
        task: TaskInfo,
    }
}
signal! {
    /// A task's body is about to run, in the process that runs it: with the process pool, in its child.
    TaskPrerun = "task_prerun" {
        /// The task.
        task: TaskInfo,
    }
}
signal! {
    /// A task's body has returned or panicked, in the process that ran it. What becomes of the task is
    /// decided after this. Not told of a body that was cut off.
    TaskPostrun = "task_postrun" {
        /// The task.
        task: TaskInfo,
        /// Whether it succeeded. If not, it may run again.
        succeeded: bool,
        /// How long it ran.
        runtime: Duration,
    }
}
signal! {
    /// A task has succeeded; its result is stored.
    TaskSuccess = "task_success" {
        /// The task.
        task: TaskInfo,
        /// What it returned, as Python would show it.
        result: String,
        /// How long it ran.
        runtime: Duration,
    }
}
signal! {
    /// A task has failed for good; its message is a dead letter.
    TaskFailure = "task_failure" {
        /// The task.
        task: TaskInfo,
        /// The exception in one line: type and text.
        error: String,
        /// What people read, if there is more.
        traceback: Option<String>,
        /// How long it ran.
        runtime: Duration,
    }
}
signal! {
    /// A task has failed and will run again.
    TaskRetry = "task_retry" {
        /// The task.
        task: TaskInfo,
        /// The exception in one line: type and text.
        error: String,
        /// When it runs again.
        at: Timestamp,
    }
}
signal! {
    /// A task asked to run later ([`crate::TaskError::snooze`]). Celery has no such signal.
    TaskSnoozed = "task_snoozed" {
        /// The task.
        task: TaskInfo,
        /// When it runs again.
        at: Timestamp,
    }
}
signal! {
    /// A task was revoked, cancelled, or came too late.
    TaskRevoked = "task_revoked" {
        /// The task.
        task: TaskInfo,
        /// Its body ran and was told to stop.
        terminated: bool,
        /// It came after its `expires`.
        expired: bool,
    }
}
signal! {
    /// A task gave its message back.
    TaskRejected = "task_rejected" {
        /// The task.
        task: TaskInfo,
        /// To its queue; otherwise to the dead letters.
        requeue: bool,
    }
}
signal! {
    /// A message of a task that this worker does not know has become a dead letter. Those that wait for a
    /// worker that knows them are not told.
    TaskUnknown = "task_unknown" {
        /// The task.
        task: TaskInfo,
    }
}
signal! {
    /// The worker takes tasks from now on.
    WorkerReady = "worker_ready" {}
}
signal! {
    /// The worker takes no more tasks; those that run may finish.
    WorkerShuttingDown = "worker_shutting_down" {}
}
signal! {
    /// The worker has ended everything it had, and signed off.
    WorkerShutdown = "worker_shutdown" {}
}

impl Intercept for BeforeTaskPublish {
    /// The same, with headers changed or not.
    type Decision = Self;
}

impl Intercept for TaskPrerun {
    type Decision = ();
}

impl BeforeTaskPublish {
    /// Adds a custom header, which reaches the task in [`crate::Context::headers`], its retries included; a
    /// value that cannot be encoded adds nothing.
    pub fn with_header<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        match to_value(value) {
            Ok(value) => drop(self.task.message.headers.insert(name, value)),
            Err(error) => tracing::error!(header = name, %error, "a header cannot be encoded"),
        }
        self
    }
}

impl TaskFailure {
    pub(crate) fn new(task: TaskInfo, failure: Failure, runtime: Duration) -> Self {
        Self { task, error: failure.exception.summary(), traceback: failure.traceback, runtime }
    }
}

impl TaskSuccess {
    pub(crate) fn new(task: TaskInfo, returned: &Returned, runtime: Duration) -> Self {
        Self { task, result: returned.repr().into_owned(), runtime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_like_their_types() {
        fn snake(name: &str) -> String {
            let mut snake = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.extend(letter.to_lowercase());
            }
            snake
        }
        fn check<S: Signal>() {
            let name = std::any::type_name::<S>().rsplit("::").next().unwrap();
            assert_eq!(snake(name), S::NAME);
        }
        check::<BeforeTaskPublish>();
        check::<AfterTaskPublish>();
        check::<TaskReceived>();
        check::<TaskPrerun>();
        check::<TaskPostrun>();
        check::<TaskSuccess>();
        check::<TaskFailure>();
        check::<TaskRetry>();
        check::<TaskSnoozed>();
        check::<TaskRevoked>();
        check::<TaskRejected>();
        check::<TaskUnknown>();
        check::<WorkerReady>();
        check::<WorkerShuttingDown>();
        check::<WorkerShutdown>();
    }
}
