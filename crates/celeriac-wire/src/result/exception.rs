//! Exceptions as results carry them.

use crate::error::FieldError;
use crate::field;
use crate::json::{Map, Value};
use crate::repr::exception_arguments;

const CELERY: &str = "celery.exceptions";
const BILLIARD: &str = "billiard.exceptions";

/// An exception: class, arguments and module (spec 4.3).
///
/// celery 5.7.0 backends/base.py `prepare_exception`, `exception_to_python`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExceptionInfo {
    /// The qualified name: `ValueError`, `Custom.Inner`.
    pub exc_type: String,
    /// The arguments.
    pub exc_message: Vec<Value>,
    /// The module: `builtins`; empty if it is not known.
    pub exc_module: String,
}

impl ExceptionInfo {
    /// Creates an exception.
    pub fn new(exc_module: &str, exc_type: &str, arguments: Vec<Value>) -> Self {
        Self {
            exc_type: exc_type.to_owned(),
            exc_message: arguments,
            exc_module: exc_module.to_owned(),
        }
    }

    /// Reads the object; a message that is not a list is the only argument.
    pub fn from_value(value: &Value) -> Result<Self, FieldError> {
        let Some(map) = value.as_object() else {
            return Err(FieldError::new("exception", "an object with exc_type", value));
        };
        let exc_message = match map.get("exc_message") {
            Some(Value::Array(arguments)) => arguments.clone(),
            None | Some(Value::Null) => Vec::new(),
            Some(single) => vec![single.clone()],
        };
        Ok(Self {
            exc_type: field::required_text(map, "exc_type")?.to_owned(),
            exc_message,
            exc_module: field::text(map, "exc_module").unwrap_or_default().to_owned(),
        })
    }

    /// Writes the object in Celery's key order; an unknown module is null.
    pub fn to_value(&self) -> Value {
        let module = Some(self.exc_module.as_str()).filter(|module| !module.is_empty());
        Value::Object(Map::from([
            ("exc_type", Value::from(self.exc_type.as_str())),
            ("exc_message", Value::Array(self.exc_message.clone())),
            ("exc_module", Value::from(module)),
        ]))
    }

    /// Prints the exception as Python's `repr`: `ValueError('bad', 42)`.
    ///
    /// Text is quoted as in argument texts (always single quotes) and cut like them.
    pub fn summary(&self) -> String {
        let name = self.exc_type.rsplit('.').next().unwrap_or_default();
        format!("{name}{}", exception_arguments(&self.exc_message))
    }

    /// The task was revoked; reasons are `expired`, `revoked` and `terminated`.
    pub fn task_revoked(reason: &str) -> Self {
        Self::new(CELERY, "TaskRevokedError", vec![Value::from(reason)])
    }

    /// No task of this name is known to the worker.
    pub fn not_registered(task: &str) -> Self {
        Self::new(CELERY, "NotRegistered", vec![Value::from(task)])
    }

    /// The task was retried too often; the message is Celery's.
    ///
    /// celery 5.7.0 app/task.py `Task.retry`.
    pub fn max_retries_exceeded(task: &str, id: &str, args: &str, kwargs: &str) -> Self {
        let message = format!("Can't retry {task}[{id}] args:{args} kwargs:{kwargs}");
        Self::new(CELERY, "MaxRetriesExceededError", vec![Value::from(message)])
    }

    /// The task rejected its message.
    pub fn reject(reason: impl Into<Value>, requeue: bool) -> Self {
        Self::new(CELERY, "Reject", vec![reason.into(), Value::from(requeue)])
    }

    /// A member of a chord's header failed.
    pub fn chord_error(message: &str) -> Self {
        Self::new(CELERY, "ChordError", vec![Value::from(message)])
    }

    /// The child that ran the task ended before the task did.
    pub fn worker_lost(message: &str) -> Self {
        Self::new(BILLIARD, "WorkerLostError", vec![Value::from(message)])
    }

    /// The task was killed at its hard time limit; whole seconds are written as an integer.
    pub fn time_limit_exceeded(limit: std::time::Duration) -> Self {
        let seconds = field::seconds_value(Some(limit));
        Self::new(BILLIARD, "TimeLimitExceeded", vec![seconds])
    }

    /// The task was told of its soft time limit and ended with that.
    pub fn soft_time_limit_exceeded() -> Self {
        Self::new(BILLIARD, "SoftTimeLimitExceeded", Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ExceptionInfo;
    use crate::json::Value;

    #[test]
    fn prints_like_python() {
        // Each right side is Python's `repr` of the exception.
        let bad = vec![Value::from("bad"), Value::from(42)];
        for (exception, text) in [
            (ExceptionInfo::new("builtins", "ValueError", bad), "ValueError('bad', 42)"),
            (ExceptionInfo::not_registered("nope"), "NotRegistered('nope')"),
            (ExceptionInfo::soft_time_limit_exceeded(), "SoftTimeLimitExceeded()"),
            (ExceptionInfo::time_limit_exceeded(Duration::from_secs(2)), "TimeLimitExceeded(2)"),
            (ExceptionInfo::new("app", "Custom.Inner", vec![Value::Null]), "Inner(None)"),
            (ExceptionInfo::reject("no", false), "Reject('no', False)"),
        ] {
            assert_eq!(exception.summary(), text);
            assert_eq!(ExceptionInfo::from_value(&exception.to_value()), Ok(exception));
        }
    }

    #[test]
    fn reads_what_other_versions_wrote() {
        let read =
            |text: &str| ExceptionInfo::from_value(&Value::parse(text.as_bytes()).expect("valid"));
        let old = read(r#"{"exc_type": "E", "exc_message": "text"}"#).expect("valid");
        assert_eq!(old.exc_message, [Value::from("text")]);
        assert_eq!(old.exc_module, "");
        assert!(old.to_value().get("exc_module").is_some_and(Value::is_null));
        let error = read(r#"{"exc_message": []}"#).expect_err("no type");
        assert_eq!(error.to_string(), "exc_type: expected a string, found nothing");
    }
}
