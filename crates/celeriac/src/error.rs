//! How a task's body says that it did not succeed.

use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_runtime::CancelReason;
use celeriac_wire::{ExceptionInfo, Value};
use std::fmt;
use std::time::Duration;

/// The result of tasks, and of programs that use this library.
pub type Result<T = (), E = TaskError> = std::result::Result<T, E>;

/// Why a task did not succeed, and what is to happen.
///
/// Any error converts with `?` and means: failed, retry by the task's policy. The constructors say
/// something else. Like `anyhow::Error` it does not implement `Error` itself, which is what makes
/// the conversion possible.
pub struct TaskError(Box<Kind>, Option<Box<dyn std::error::Error + Send + Sync>>);

#[derive(Debug)]
enum Kind {
    Failed(Failure),
    RetryIn(Duration, Failure),
    Snooze(Duration),
    Reject { requeue: bool, reason: String },
    Ignore,
    BadArguments(String),
    Stopped(CancelReason),
}

impl TaskError {
    fn of(kind: Kind) -> Self {
        Self(Box::new(kind), None)
    }

    /// The error that was converted with `?`, if it was of this type.
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.1.as_ref()?.downcast_ref()
    }

    /// A permanent failure: no retry can help, the message becomes a dead letter.
    pub fn fail(reason: impl fmt::Display) -> Self {
        Self::of(Kind::Failed(Failure::permanent(named("TaskFailed", &reason))))
    }

    /// A failure that the task's retry policy decides on.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::of(Kind::Failed(Failure::new(named("TaskFailed", &reason))))
    }

    /// A failure that asks for a retry after `delay`; it counts against the policy's retries.
    pub fn retry_in(delay: Duration, reason: impl fmt::Display) -> Self {
        Self::of(Kind::RetryIn(delay, Failure::new(named("TaskFailed", &reason))))
    }

    /// Runs again after `delay`, because its time has not come: what it waits for is not there yet.
    /// That is no failure. It counts as no retry ([`crate::Context::snoozes`] counts it), stores no
    /// state, and ends by the call's `expires` or when the task succeeds or fails.
    pub fn snooze(delay: Duration) -> Self {
        Self::of(Kind::Snooze(delay))
    }

    /// Gives the message back: to the tail of its queue, or to the dead letters.
    pub fn reject(requeue: bool, reason: impl fmt::Display) -> Self {
        Self::of(Kind::Reject { requeue, reason: reason.to_string() })
    }

    /// Ends without a result, as Celery's `Ignore`.
    pub fn ignore() -> Self {
        Self::of(Kind::Ignore)
    }

    /// Arguments that do not fit the parameters: permanent.
    pub(crate) fn bad_arguments(text: String) -> Self {
        Self::of(Kind::BadArguments(text))
    }

    /// The task noticed that it should stop.
    pub(crate) fn stopped(reason: CancelReason) -> Self {
        Self::of(Kind::Stopped(reason))
    }

    /// What the worker makes of it.
    pub(crate) fn into_outcome(self) -> Outcome {
        match *self.0 {
            Kind::Failed(failure) => Outcome::Failure(failure),
            Kind::RetryIn(delay, failure) => Outcome::Retry { delay: Some(delay), failure },
            Kind::Snooze(delay) => Outcome::Snooze { delay },
            Kind::Reject { requeue, reason } => Outcome::Reject { requeue, reason },
            Kind::Ignore => Outcome::Ignore,
            Kind::BadArguments(text) => {
                let exception =
                    ExceptionInfo::new("builtins", "TypeError", vec![Value::from(text)]);
                Outcome::Failure(Failure::permanent(exception).because(DeadReason::BadArguments))
            }
            Kind::Stopped(CancelReason::SoftLimit) => {
                Outcome::Failure(Failure::new(ExceptionInfo::soft_time_limit_exceeded()))
            }
            Kind::Stopped(CancelReason::Revoked) => Outcome::Cancelled,
            Kind::Stopped(_) => Outcome::Interrupted,
        }
    }
}

fn named(kind: &str, reason: &dyn fmt::Display) -> ExceptionInfo {
    ExceptionInfo::new("celeriac.exceptions", kind, vec![Value::from(reason.to_string())])
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for TaskError {
    /// Keeps the type's name, its text and the texts of its causes.
    fn from(error: E) -> Self {
        let full = std::any::type_name::<E>();
        let plain = full.split('<').next().unwrap_or(full);
        let (module, name) = plain.rsplit_once("::").unwrap_or(("", plain));
        let mut texts = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(source) = cause {
            texts.push(source.to_string());
            cause = source.source();
        }
        texts.dedup();
        let text = Value::from(texts.join(": "));
        let exception = ExceptionInfo::new(&module.replace("::", "."), name, vec![text]);
        Self(Box::new(Kind::Failed(Failure::new(exception))), Some(Box::new(error)))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Failed(failure) => {
                let arguments = &failure.exception.exc_message;
                match arguments.first().and_then(Value::as_str) {
                    Some(text) if arguments.len() == 1 => formatter.write_str(text),
                    _ => formatter.write_str(&failure.exception.summary()),
                }
            }
            Kind::RetryIn(delay, failure) => {
                write!(formatter, "{}; retry in {delay:?}", failure.exception.summary())
            }
            Kind::Snooze(delay) => write!(formatter, "runs again in {delay:?}"),
            Kind::Reject { reason, .. } => write!(formatter, "rejected: {reason}"),
            Kind::Ignore => formatter.write_str("ignored"),
            Kind::BadArguments(text) => formatter.write_str(text),
            Kind::Stopped(reason) => write!(formatter, "stopped: {reason:?}"),
        }
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_converts_and_keeps_its_type_and_causes() {
        fn parse() -> Result<i64> {
            Ok("x".parse::<i64>()?)
        }
        let Outcome::Failure(failure) = parse().unwrap_err().into_outcome() else { panic!() };
        assert!(!failure.permanent);
        assert_eq!(failure.exception.exc_type, "ParseIntError");
        assert!(failure.exception.summary().contains("invalid digit"));
    }

    #[test]
    fn the_constructors_say_what_is_to_happen() {
        assert!(matches!(
            TaskError::fail("no rows").into_outcome(),
            Outcome::Failure(failure) if failure.permanent
        ));
        assert!(matches!(
            TaskError::retry_in(Duration::from_secs(30), "later").into_outcome(),
            Outcome::Retry { delay: Some(delay), .. } if delay.as_secs() == 30
        ));
        assert!(matches!(
            TaskError::reject(true, "not mine").into_outcome(),
            Outcome::Reject { requeue: true, .. }
        ));
        assert_eq!(TaskError::ignore().into_outcome(), Outcome::Ignore);
        assert_eq!(TaskError::stopped(CancelReason::Shutdown).into_outcome(), Outcome::Interrupted);
    }
}
