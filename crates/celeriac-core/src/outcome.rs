//! How a run ended, and the classifier that finds failures inside returned values.

use crate::dead::DeadReason;
use celeriac_wire::{ExceptionInfo, Map, ResultMeta, Value};
use std::time::Duration;

/// How one run of a task ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It returned.
    Success(Value),
    /// It failed and its retry policy decides what follows.
    Failure(Failure),
    /// It asked to run again, after a delay of its own or of its policy.
    Retry {
        /// `None` takes the policy's delay.
        delay: Option<Duration>,
        /// Why, stored with state RETRY.
        failure: Failure,
    },
    /// It asked to run again later. That is no failure: it counts as no retry, and no state is stored.
    Snooze {
        /// How much later.
        delay: Duration,
    },
    /// It gave the message back: to the queue, or to the dead letters.
    Reject {
        /// Back to the tail of its queue, to be run by anybody.
        requeue: bool,
        /// Why.
        reason: String,
    },
    /// It wants nothing stored.
    Ignore,
    /// It was cancelled while it ran.
    Cancelled,
    /// It was interrupted by the worker's shutdown and goes back.
    Interrupted,
    /// Its child was ended for a reason that is not the task's; the message goes back without blame.
    Returned {
        /// Why, for the message's history.
        reason: String,
        /// Whether its run may have begun.
        begun: bool,
    },
    /// The child that ran it died: this counts against the message.
    ChildLost(ChildDeath),
    /// Celery's own tracer ran it, in Python, and did what follows: callbacks, chords, retries. What
    /// is left to write is its result and the fate of its message.
    Traced(Box<Traced>),
}

/// A run as Celery's tracer reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// How it ended.
    pub state: TracedState,
    /// What Celery's rules make of its message.
    pub disposition: Disposition,
    /// Its result as the app's backend writes it; `None` when it is not wanted, or was stored by
    /// the child itself.
    pub result: Option<ResultMeta>,
    /// The events that Celery's own worker would send of this end; `None`: those that follow from
    /// the state.
    pub events: Option<Vec<TracedEvent>>,
    /// What the exception of a failure is derived from: modules and names.
    pub bases: Vec<(String, String)>,
    /// After what time its chord is to be looked at: another process, perhaps a dead one, has begun to send
    /// the body. The message is kept until that is clear.
    pub look_again: Option<Duration>,
}

/// An event of a task as Celery's worker would send it.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedEvent {
    /// Its type, `task-failed`.
    pub kind: String,
    /// Its members, without those that every event has, and without the task's id.
    pub fields: Map,
}

/// How a traced run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TracedState {
    /// It returned; the `repr` of its value, cut as Celery cuts it for events.
    Succeeded(Option<String>),
    /// It failed for good.
    Failed(Failure),
    /// It has sent itself again.
    Retried(Failure),
    /// It wants nothing stored (Celery's `Ignore`).
    Ignored,
    /// It gave its message back (Celery's `Reject`).
    Rejected {
        /// Why.
        reason: String,
    },
    /// It was revoked.
    Revoked {
        /// While it ran.
        terminated: bool,
        /// It came too late.
        expired: bool,
    },
}

/// What Celery's rules make of a message that was run (`celery/worker/request.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Ack,
    /// It is not wanted any more.
    Reject,
    /// It goes back to its queue.
    Requeue,
}

/// What Celery's rules make of a message when whoever runs it dies or is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acks {
    /// It counts as done only when its task has ended (`acks_late`); otherwise from its start on, and
    /// then it never runs again.
    pub late: bool,
    /// It runs again when its child dies (`reject_on_worker_lost`).
    pub requeue_lost: bool,
}

impl Default for Acks {
    /// Native tasks run at least once.
    fn default() -> Self {
        Self { late: true, requeue_lost: true }
    }
}

/// How the child process died that ran a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildDeath {
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The code it exited with.
    pub exit_code: Option<i32>,
    /// The most memory it ever held, in bytes of resident set (`wait4`'s `maxrss`).
    pub memory_peak: Option<u64>,
    /// The end of what it wrote to stderr during the task, at most
    /// [`crate::limits::STDERR_BYTES_MAX`].
    pub stderr_tail: String,
    /// What happened, for people: `killed by signal 11 (SIGSEGV)`.
    pub reason: String,
}

impl ChildDeath {
    /// The death in one line: what happened and the most memory the child held.
    pub fn summary(&self) -> String {
        let memory = self.memory_peak.map_or_else(String::new, |bytes| {
            format!("; peak memory {:.1} MiB", bytes as f64 / f64::from(1 << 20))
        });
        format!("the child that ran it was lost: {}{memory}", self.reason)
    }
}

/// A failure as it is stored: Celery's exception document and a traceback.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Type, arguments and module of the exception.
    pub exception: ExceptionInfo,
    /// The text people read.
    pub traceback: Option<String>,
    /// Whether a retry cannot help.
    pub permanent: bool,
    /// The reason of its dead letter, should it become one.
    pub reason: DeadReason,
}

impl Failure {
    /// A failure that the retry policy decides on.
    pub fn new(exception: ExceptionInfo) -> Self {
        Self { exception, traceback: None, permanent: false, reason: DeadReason::Failed }
    }

    /// A failure that no retry can mend.
    pub fn permanent(exception: ExceptionInfo) -> Self {
        Self { permanent: true, ..Self::new(exception) }
    }

    /// The same failure with another reason for its dead letter.
    pub fn because(mut self, reason: DeadReason) -> Self {
        self.reason = reason;
        self
    }
}

/// Rules over a returned value that decide whether the task really succeeded.
///
/// Applications that catch every exception and return `{"status": "error"}` have 0 % failures in
/// Celery at 100 % broken tasks (T-12); the default rule sees those.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    failure_if: Vec<Condition>,
    success_if: Vec<Condition>,
}

/// One test of a member of the returned object.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    path: Vec<String>,
    one_of: Vec<Value>,
}

impl Condition {
    /// True when the member at `path` (dots go deeper) equals one of the values.
    pub fn new(path: &str, one_of: impl Into<Vec<Value>>) -> Self {
        Self { path: path.split('.').map(str::to_owned).collect(), one_of: one_of.into() }
    }

    fn holds(&self, value: &Value) -> bool {
        let member = self.path.iter().try_fold(value, |value, key| value.get(key));
        member.is_some_and(|member| self.one_of.contains(member))
    }
}

impl Default for Classifier {
    /// `{"status": "error"}` is a failure.
    fn default() -> Self {
        Self {
            failure_if: vec![Condition::new("status", [Value::from("error")])],
            success_if: Vec::new(),
        }
    }
}

impl Classifier {
    /// Takes every returned value for success, as Celery does.
    pub fn celery() -> Self {
        Self { failure_if: Vec::new(), success_if: Vec::new() }
    }

    /// Adds a rule: such a value is a failure.
    pub fn failure_if(mut self, condition: Condition) -> Self {
        self.failure_if.push(condition);
        self
    }

    /// Adds a rule: unless one of these holds, an object is a failure.
    pub fn success_if(mut self, condition: Condition) -> Self {
        self.success_if.push(condition);
        self
    }

    /// Turns a returned value into the outcome it means.
    pub fn classify(&self, value: Value) -> Outcome {
        let failed = self.failure_if.iter().any(|condition| condition.holds(&value));
        let succeeded = self.success_if.is_empty()
            || self.success_if.iter().any(|condition| condition.holds(&value));
        if succeeded && !failed {
            return Outcome::Success(value);
        }
        let text = ["error", "message", "detail", "error_message"]
            .iter()
            .find_map(|key| value.get(key).and_then(Value::as_str))
            .map_or_else(|| celeriac_wire::value_repr(&value), str::to_owned);
        Outcome::Failure(Failure::new(ExceptionInfo::new(
            "celeriac.exceptions",
            "TaskReturnedError",
            vec![Value::from(text.as_str())],
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(classifier: &Classifier, json: &str) -> &'static str {
        match classifier.classify(Value::parse(json.as_bytes()).unwrap()) {
            Outcome::Success(_) => "success",
            Outcome::Failure(_) => "failure",
            _ => "other",
        }
    }

    #[test]
    fn a_returned_error_is_a_failure() {
        // covers: S1-24 T-12 T-13
        let default = Classifier::default();
        for (json, expected) in [
            (r#"{"status": "error", "error": "no rows"}"#, "failure"),
            (r#"{"status": "ok"}"#, "success"),
            ("null", "success"),
            ("[1, 2]", "success"),
            (r#""error""#, "success"),
        ] {
            assert_eq!(verdict(&default, json), expected, "{json}");
        }
        assert_eq!(verdict(&Classifier::celery(), r#"{"status": "error"}"#), "success");
    }

    #[test]
    fn rules_reach_into_nested_members() {
        let classifier = Classifier::celery()
            .failure_if(Condition::new("meta.code", [Value::from(5), Value::from(6)]))
            .success_if(Condition::new("state", [Value::from("done")]));
        for (json, expected) in [
            (r#"{"state": "done", "meta": {"code": 5}}"#, "failure"),
            (r#"{"state": "done", "meta": {"code": 4}}"#, "success"),
            (r#"{"state": "half"}"#, "failure"),
        ] {
            assert_eq!(verdict(&classifier, json), expected, "{json}");
        }
    }
}
