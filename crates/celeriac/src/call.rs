//! Calls are values: built, changed, combined, then sent.

use crate::arguments::Param;
use crate::task::{Task, UniqueOptions};
use celeriac_core::priority::Level;
use celeriac_core::retry::{Delay, RETRY_HEADER, RetryOverride};
use celeriac_core::throttle::KEY_HEADER;
use celeriac_core::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use celeriac_core::unique::{UNIQUE_HEADER, UNIQUE_KEY_BYTES_MAX, Unique};
use celeriac_wire::codec::{Compression, Serializer};
use celeriac_wire::{Headers, JsonError, Signature, Value, print_iso, to_value};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Display;
use std::marker::PhantomData;
use std::time::Duration;
use uuid::Uuid;

/// A call of a task that returns `R`; nothing happens until it is sent.
///
/// An argument that cannot be encoded is remembered and reported by the send.
#[derive(Debug)]
#[must_use = "a call does nothing until a client sends it"]
pub struct Call<R> {
    signature: Signature,
    fault: Option<String>,
    derived: Option<Derived>,
    result: PhantomData<fn() -> R>,
}

impl<R> Clone for Call<R> {
    fn clone(&self) -> Self {
        Self {
            signature: self.signature.clone(),
            fault: self.fault.clone(),
            derived: self.derived.clone(),
            result: PhantomData,
        }
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
        if options.key.is_some() || options.unique.is_some() {
            let (key, unique) = (options.key, options.unique);
            call.derived = Some(Derived { params: T::PARAMS, shift: 0, key, unique });
        }
        call
    }

    /// A call of a task whose body lives elsewhere and returns `R`.
    pub fn remote(task: &str) -> Self {
        Self { signature: Signature::new(task), fault: None, derived: None, result: PhantomData }
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

    /// Sends it to this exchange, with [`Call::routing_key`]; the bindings there say which queues get
    /// it, each a copy. The send is refused when none does, or on a store without exchanges.
    pub fn exchange(self, exchange: &str) -> Self {
        self.option("exchange", exchange)
    }

    /// The routing key for the exchange of the call or of its queue. A direct exchange uses it only
    /// together with [`Call::exchange`], as in Celery.
    pub fn routing_key(self, key: &str) -> Self {
        self.option("routing_key", key)
    }

    /// Writes its body with this serializer instead of `task_serializer`.
    pub fn serializer(self, serializer: Serializer) -> Self {
        self.option("serializer", serializer.name())
    }

    /// Compresses its body, instead of as `task_compression` says.
    pub fn compression(self, compression: Compression) -> Self {
        self.option("compression", compression.header())
    }

    /// Gives it a number from 0 to 9 as priority, as stock Celery does: on Redis and SQLite 0 runs
    /// first, on RabbitMQ 9. Prefer [`Call::priority`], which means the same on every store.
    pub fn priority_number(self, number: u8) -> Self {
        self.option("priority", i64::from(number.min(9)))
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

    /// Makes it part of a trace (W3C trace context): the task, its retries and what they send belong to it.
    /// A call that is sent by a task belongs to that task's trace without this.
    pub fn trace(self, context: &TraceContext) -> Self {
        let call = self.header(TRACEPARENT, &context.to_string());
        match context.state() {
            Some(state) => call.header(TRACESTATE, state),
            None => call,
        }
    }

    /// Gives it a key: the tenant, account or device that limits are counted for.
    pub fn key(self, key: impl Display) -> Self {
        self.header(KEY_HEADER, &key.to_string())
    }

    /// Sends it only if no other with this key waits or runs; otherwise the job is the other's
    /// ([`crate::Job::is_duplicate`]). Members of groups and chords are always sent.
    pub fn unique(self, key: impl Into<String>) -> Self {
        self.unique_as(&Unique::new(key))
    }

    /// As [`Call::unique`], with an end and a window of its own.
    pub fn unique_as(mut self, unique: &Unique) -> Self {
        let length = unique.key.len();
        if length == 0 || length > UNIQUE_KEY_BYTES_MAX {
            let text = format!(
                "a unique key has 1 to {UNIQUE_KEY_BYTES_MAX} bytes, this one has {length}"
            );
            self.fault.get_or_insert(text);
            return self;
        }
        self.header(UNIQUE_HEADER, &unique.to_value())
    }

    /// Its first argument is the result of the task before it; `partial` of a task says so.
    #[doc(hidden)]
    pub fn after_another(mut self) -> Self {
        if let Some(derived) = &mut self.derived {
            derived.shift = 1;
        }
        self
    }

    /// Retries it at most so often, whatever its task says. This and the other settings of retries are for
    /// tasks of Rust programs; a Python task follows its own options.
    pub fn max_retries(self, max: u32) -> Self {
        self.retried(|wish| wish.max_retries = Some(Some(max)))
    }

    /// Retries it until it succeeds.
    pub fn retry_forever(self) -> Self {
        self.retried(|wish| wish.max_retries = Some(None))
    }

    /// Waits the same time before each of its retries.
    pub fn retry_delay(self, delay: Duration) -> Self {
        self.retried(|wish| wish.delay = Some(Delay::Fixed(delay)))
    }

    /// Waits `factor_seconds * 2^retries` before a retry, at most `max`, and a random part of it if `jitter`.
    pub fn backoff(self, factor_seconds: u32, max: Duration, jitter: bool) -> Self {
        let delay = Delay::Backoff { factor: factor_seconds, max, jitter };
        self.retried(|wish| wish.delay = Some(delay))
    }

    /// Waits exactly these times: as many retries as there are entries.
    pub fn retry_schedule(self, delays: Vec<Duration>) -> Self {
        if delays.is_empty() {
            return self.max_retries(0);
        }
        self.retried(|wish| wish.delay = Some(Delay::Schedule(delays)))
    }

    fn retried(self, change: impl FnOnce(&mut RetryOverride)) -> Self {
        let headers = self.signature.option("headers").as_object().cloned().unwrap_or_default();
        let mut wish = RetryOverride::of(&Headers::from_map(headers)).unwrap_or_default();
        change(&mut wish);
        self.header(RETRY_HEADER, &wish.to_value())
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

    pub(crate) fn into_parts(mut self) -> (Signature, Option<String>) {
        if let Some(derived) = self.derived.take() {
            self = derived.give(self);
        }
        (self.signature, self.fault)
    }
}

/// What the options of a task take from the arguments of a call.
#[derive(Clone, Debug)]
struct Derived {
    params: &'static [Param],
    /// How many of the first parameters come from the task before.
    shift: usize,
    key: Option<&'static str>,
    unique: Option<UniqueOptions>,
}

impl Derived {
    /// Adds the headers, unless the call has them already.
    fn give<R>(self, mut call: Call<R>) -> Call<R> {
        let has = |call: &Call<R>, name: &str| {
            call.signature.option("headers").as_object().is_some_and(|all| all.contains_key(name))
        };
        if let Some(parameter) = self.key
            && !has(&call, KEY_HEADER)
        {
            match self.value(&call.signature, parameter) {
                Ok(Some(value)) => {
                    let key = plain(value);
                    call = call.key(key);
                }
                Ok(None) => {}
                Err(text) => drop(call.fault.get_or_insert(text)),
            }
        }
        if let Some(unique) = &self.unique
            && !has(&call, UNIQUE_HEADER)
        {
            match self.unique_key(&call.signature, unique) {
                Ok(key) => {
                    let (until, window) = (unique.until, unique.window);
                    call = call.unique_as(&Unique { key, until, window });
                }
                Err(text) => drop(call.fault.get_or_insert(text)),
            }
        }
        call
    }

    fn unique_key(&self, signature: &Signature, unique: &UniqueOptions) -> Result<String, String> {
        let value = match unique.parameter {
            Some(parameter) => self.value(signature, parameter)?.map_or_else(String::new, plain),
            None => all_arguments(signature),
        };
        Ok(short(&format!("{} {value}", signature.task().unwrap_or_default())))
    }

    /// The value of a parameter; `None` when the call leaves it to its default.
    fn value<'a>(
        &self,
        signature: &'a Signature,
        parameter: &str,
    ) -> Result<Option<&'a Value>, String> {
        if let Some(value) = signature.kwargs().get(parameter) {
            return Ok(Some(value));
        }
        let place = self.params.iter().position(|one| one.name() == parameter).unwrap_or_default();
        match place.checked_sub(self.shift) {
            Some(index) => Ok(signature.args().get(index)),
            None => Err(format!(
                "task {} takes its key from parameter `{parameter}`, which is known only when the \
                 task before it has ended; give one with .key(…) or .unique(…)",
                signature.task().unwrap_or_default()
            )),
        }
    }
}

/// A value as people would write it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All arguments in one text, keywords by name.
fn all_arguments(signature: &Signature) -> String {
    let mut named: Vec<(&str, &Value)> = signature.kwargs().iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let named = named.iter().map(|(name, value)| format!("{name}={value}"));
    let placed = signature.args().iter().map(ToString::to_string);
    placed.chain(named).collect::<Vec<_>>().join(", ")
}

/// A key that fits: a long one ends in a digest of all of it (RFC 9562, version 5).
fn short(key: &str) -> String {
    if key.len() <= UNIQUE_KEY_BYTES_MAX {
        return key.to_owned();
    }
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes());
    let end = (0..=128).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
    format!("{}… {digest}", &key[..end])
}
