//! Dead letters: messages set aside with the reason, their raw bytes and their history.

use crate::pattern::ExceptionNames;
use crate::queue::QueueName;
use celeriac_wire::Message;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which failures of a task become dead letters. Messages that are lost, rejected, poisonous or cannot
/// be read are always kept: nobody else knows of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetters {
    /// After which failures.
    pub keep: Keep,
    /// But not of these exceptions.
    pub except: ExceptionNames,
}

/// After which failures a message is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Each that is final.
    #[default]
    Always,
    /// None: who waits for the result is told, and nobody else.
    Never,
    /// Those after so many retries, the most that the task has; `None` has no end.
    WhenRetriesEnd(Option<u32>),
}

impl DeadLetters {
    /// Whether a failure after so many retries is kept; `classes` are the modules and names of its
    /// exception and of what that is derived from.
    pub fn keeps<'a>(
        &self,
        retries: u32,
        classes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> bool {
        let wanted = match self.keep {
            Keep::Always => true,
            Keep::Never => false,
            Keep::WhenRetriesEnd(most) => most.is_some_and(|most| retries >= most),
        };
        wanted && !classes.into_iter().any(|(module, name)| self.except.has(module, name))
    }
}

/// Why a message was set aside. The names are stable: tables, metrics and filters use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// The task failed and has no retries left, or the failure was permanent.
    Failed,
    /// The task rejected its message without requeue.
    Rejected,
    /// Headers or body could not be decoded.
    Undecodable,
    /// The content type is not accepted (Celery's `ContentDisallowed`).
    Disallowed,
    /// No such task here and no other consumer knows it.
    UnknownTask,
    /// The arguments do not fit the task's parameters.
    BadArguments,
    /// The message asks for a limit that this pool cannot enforce.
    LimitNotEnforceable,
    /// It killed its worker or child three times.
    Poison,
    /// The task ran into its time limit and may not run again.
    TimedOut,
    /// It was started, acknowledged early, and the worker shut down.
    Shutdown,
    /// It was started, and whoever ran it died: it was acknowledged early, or its task does not want it
    /// to run again.
    WorkerLost,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Failed,
        Self::Rejected,
        Self::Undecodable,
        Self::Disallowed,
        Self::UnknownTask,
        Self::BadArguments,
        Self::LimitNotEnforceable,
        Self::Poison,
        Self::TimedOut,
        Self::Shutdown,
        Self::WorkerLost,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Disallowed => "disallowed",
            Self::UnknownTask => "unknown-task",
            Self::BadArguments => "bad-arguments",
            Self::LimitNotEnforceable => "limit-not-enforceable",
            Self::Poison => "poison",
            Self::TimedOut => "timed-out",
            Self::Shutdown => "shutdown",
            Self::WorkerLost => "worker-lost",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for DeadReason {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("{text:?} is no dead-letter reason; use one of {}", names.join(", "))
        })
    }
}

/// One run, or one loss of an owner, in the life of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The retry count of the message in this run, 0 at first.
    pub retries: u32,
    /// The node that ran it.
    pub worker: String,
    /// When the run began; `None` when the owner died before it said so.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What happened, one word: `failed`, `retry`, `worker-lost`, `rejected`, `interrupted` …
    pub outcome: String,
    /// The error, cut to [`crate::limits::DETAIL_BYTES_MAX`].
    pub detail: String,
}

/// What a history says of a run whose worker is lost.
pub fn worker_lost(acknowledged: bool) -> &'static str {
    if acknowledged {
        "the worker that ran it is gone and had acknowledged the message"
    } else {
        "the worker that held it died"
    }
}

/// Appends to a history that keeps its first entry and the latest [`crate::limits::HISTORY_MAX`].
pub fn remember(history: &mut Vec<Attempt>, mut attempt: Attempt) {
    let max = crate::limits::DETAIL_BYTES_MAX;
    if attempt.detail.len() > max {
        let end = (0..=max).rev().find(|at| attempt.detail.is_char_boundary(*at)).unwrap_or(0);
        attempt.detail.truncate(end);
    }
    if history.len() >= crate::limits::HISTORY_MAX {
        history.remove(1);
    }
    history.push(attempt);
}

/// A message set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its number in the store, for commands.
    pub number: i64,
    /// The queue it came from and returns to.
    pub queue: QueueName,
    /// Headers, properties and body, as they were.
    pub message: Message,
    /// Why it is here.
    pub reason: DeadReason,
    /// The error in one line.
    pub detail: String,
    /// When it was set aside.
    pub died_at: Timestamp,
    /// When it was first enqueued.
    pub enqueued_at: Timestamp,
    /// Its runs, oldest first.
    pub history: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_round_trip_by_name() {
        for reason in DeadReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("oops".parse::<DeadReason>().unwrap_err().contains("unknown-task"));
    }

    #[test]
    fn history_keeps_the_first_and_the_latest() {
        let mut history = Vec::new();
        for retries in 0..100 {
            let detail = "é".repeat(3000);
            remember(
                &mut history,
                Attempt {
                    retries,
                    worker: "w".into(),
                    started_at: None,
                    ended_at: Timestamp::UNIX_EPOCH,
                    outcome: "failed".into(),
                    detail,
                },
            );
        }
        assert_eq!(history.len(), crate::limits::HISTORY_MAX);
        assert_eq!((history[0].retries, history[1].retries, history[31].retries), (0, 69, 99));
        assert_eq!(history[5].detail.len(), 4096);
    }
}
