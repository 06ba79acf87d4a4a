//! Calls are values: built, changed, combined, then sent.

use crate::task::Task;
use celeriac_core::priority::Level;
use celeriac_wire::{JsonError, Signature, Value, print_iso, to_value};
use jiff::Timestamp;
use serde::Serialize;
use std::marker::PhantomData;
use std::time::Duration;

/// A call of a task that returns `R`; nothing happens until it is sent.
///
/// An argument that cannot be encoded is remembered and reported by the send.
#[derive(Debug)]
#[must_use = "a call does nothing until a client sends it"]
pub struct Call<R> {
    signature: Signature,
    fault: Option<String>,
    result: PhantomData<fn() -> R>,
}

impl<R> Clone for Call<R> {
    fn clone(&self) -> Self {
        Self { signature: self.signature.clone(), fault: self.fault.clone(), result: PhantomData }
    }
}

impl Call<Value> {
    /// A call by name, of any task in any language.
    pub fn named(task: &str) -> Self {
        Self::remote(task)
    }
}

impl<R> Call<R> {
    /// A call of a task of this program, without arguments yet.
    pub fn new<T: Task<Output = R>>() -> Self {
        let options = T::options(crate::task::TaskOptions::default());
        let mut call = Self::remote(T::NAME);
        if let Some(level) = options.priority {
            call = call.priority(level);
        }
        if let Some(after) = options.expires {
            call = call.expires_in(after);
        }
        if options.policy.ignore_result {
            call = call.ignore_result();
        }
        call
    }

    /// A call of a task whose body lives elsewhere and returns `R`.
    pub fn remote(task: &str) -> Self {
        Self { signature: Signature::new(task), fault: None, result: PhantomData }
    }

    /// Adds a positional argument.
    pub fn arg<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match to_value(value) {
            Ok(value) => {
                let mut args = self.signature.args().to_vec();
                args.push(value);
                self.signature = self.signature.with_args(args);
            }
            Err(error) => self.remember("argument", &error),
        }
        self
    }

    /// Adds a keyword argument.
    pub fn kwarg<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        match to_value(value) {
            Ok(value) => drop(self.signature.kwargs_mut().insert(name, value)),
            Err(error) => self.remember(&format!("argument '{name}'"), &error),
        }
        self
    }

    fn remember(&mut self, what: &str, error: &JsonError) {
        self.fault.get_or_insert_with(|| format!("{what} cannot be encoded: {error}"));
    }

    fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.signature = self.signature.with_option(name, value);
        self
    }

    /// Sends it to this queue instead of the routed one.
    pub fn queue(self, queue: &str) -> Self {
        self.option("queue", queue)
    }

    /// Gives it a priority level.
    pub fn priority(self, level: Level) -> Self {
        self.option("priority", i64::from(level.ascending()))
    }

    /// Runs it after this time at the earliest.
    pub fn countdown(self, delay: Duration) -> Self {
        self.option("countdown", delay.as_secs_f64())
    }

    /// Runs it at this instant at the earliest.
    pub fn eta(self, instant: Timestamp) -> Self {
        self.option("eta", print_iso(instant))
    }

    /// Drops it when it has not begun within this time after the send.
    pub fn expires_in(self, after: Duration) -> Self {
        self.option("expires", after.as_secs_f64())
    }

    /// Drops it when it has not begun at this instant.
    pub fn expires_at(self, instant: Timestamp) -> Self {
        self.option("expires", print_iso(instant))
    }

    /// Gives it this id instead of a fresh one. Ids are the caller's: two tasks of one id share
    /// their result.
    pub fn task_id(self, id: &str) -> Self {
        self.option("task_id", id)
    }

    /// Adds a custom header, which reaches the task in [`crate::Context::headers`].
    pub fn header<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        let mut headers = self.signature.option("headers").as_object().cloned().unwrap_or_default();
        match to_value(value) {
            Ok(value) => {
                headers.insert(name, value);
                self.option("headers", Value::Object(headers))
            }
            Err(error) => {
                self.remember(&format!("header '{name}'"), &error);
                self
            }
        }
    }

    /// Counts this many retries as used (Celery's option `retries`).
    pub fn retries(self, used: u32) -> Self {
        self.option("retries", i64::from(used))
    }

    /// Stores no result.
    pub fn ignore_result(self) -> Self {
        self.option("ignore_result", true)
    }

    /// Shows this name in logs and events.
    pub fn shadow(self, name: &str) -> Self {
        self.option("shadow", name)
    }

    /// A hard time limit for this call.
    pub fn time_limit(self, limit: Duration) -> Self {
        self.option("time_limit", limit.as_secs_f64())
    }

    /// A soft time limit for this call.
    pub fn soft_time_limit(self, limit: Duration) -> Self {
        self.option("soft_time_limit", limit.as_secs_f64())
    }

    /// Calls this with the result when it succeeds.
    pub fn link<S>(mut self, callback: Call<S>) -> Self {
        self.fault = self.fault.or(callback.fault);
        self.signature = self.signature.with_link(callback.signature);
        self
    }

    /// Calls this with the task id when it fails for good.
    pub fn link_error<S>(mut self, errback: Call<S>) -> Self {
        self.fault = self.fault.or(errback.fault);
        self.signature = self.signature.with_link_error(errback.signature);
        self
    }

    /// Ignores the result of the task before it in a chain or link.
    pub fn immutable(mut self) -> Self {
        self.signature = self.signature.immutable();
        self
    }

    pub(crate) fn into_parts(self) -> (Signature, Option<String>) {
        (self.signature, self.fault)
    }
}
