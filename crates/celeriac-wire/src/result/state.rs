//! The states of a task.

use std::fmt;

/// The state of a task (celery 5.7.0 states.py, spec 4.4).
///
/// | state | ready | exception | propagated | precedence |
/// |---|---|---|---|---|
/// | SUCCESS | yes | | | 8 |
/// | FAILURE | yes | yes | yes | 7 |
/// | custom, IGNORED | | | | 6 |
/// | REVOKED | yes | yes | yes | 5 |
/// | STARTED | | | | 4 |
/// | RECEIVED | | | | 3 |
/// | REJECTED | | | | 2 |
/// | RETRY | | yes | | 1 |
/// | PENDING | | | | 0 |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing is known of the task.
    Pending,
    /// A worker has it; in events only.
    Received,
    /// It runs.
    Started,
    /// It returned.
    Success,
    /// It raised, or its worker was lost.
    Failure,
    /// It was revoked or expired.
    Revoked,
    /// It was rejected; in events only.
    Rejected,
    /// It will run again.
    Retry,
    /// It asked that nothing is stored; internal to workers.
    Ignored,
    /// A state of the application's own.
    Custom(String),
}

impl State {
    /// Reads a state; an unknown text is custom.
    pub fn parse(text: &str) -> Self {
        match text {
            "PENDING" => Self::Pending,
            "RECEIVED" => Self::Received,
            "STARTED" => Self::Started,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "REVOKED" => Self::Revoked,
            "REJECTED" => Self::Rejected,
            "RETRY" => Self::Retry,
            "IGNORED" => Self::Ignored,
            _ => Self::Custom(text.to_owned()),
        }
    }

    /// Returns the text of the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Retry => "RETRY",
            Self::Ignored => "IGNORED",
            Self::Custom(text) => text,
        }
    }

    /// Returns whether the task will not run any more (`READY_STATES`).
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }

    /// Returns whether the result is an exception (`EXCEPTION_STATES`).
    pub const fn is_exception(&self) -> bool {
        matches!(self, Self::Failure | Self::Revoked | Self::Retry)
    }

    /// Returns whether waiting for the result raises (`PROPAGATE_STATES`).
    pub const fn is_propagated(&self) -> bool {
        matches!(self, Self::Failure | Self::Revoked)
    }

    /// Returns the rank for merging events that came out of order: the **larger** wins.
    ///
    /// Celery's `precedence` counts the other way round; states outside its list rank as custom.
    pub const fn precedence(&self) -> u8 {
        match self {
            Self::Success => 8,
            Self::Failure => 7,
            Self::Custom(_) | Self::Ignored => 6,
            Self::Revoked => 5,
            Self::Started => 4,
            Self::Received => 3,
            Self::Rejected => 2,
            Self::Retry => 1,
            Self::Pending => 0,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for State {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn follows_the_table_of_celery() {
        // Name, ready, exception, propagated: celery 5.7.0 states.py; order: its PRECEDENCE.
        let table = [
            ("SUCCESS", true, false, false),
            ("FAILURE", true, true, true),
            ("PROGRESS", false, false, false),
            ("REVOKED", true, true, true),
            ("STARTED", false, false, false),
            ("RECEIVED", false, false, false),
            ("REJECTED", false, false, false),
            ("RETRY", false, true, false),
            ("PENDING", false, false, false),
        ];
        for (n, (name, ready, exception, propagated)) in table.into_iter().enumerate() {
            let state = State::parse(name);
            assert_eq!(state.to_string(), name);
            assert_eq!(state.is_ready(), ready, "{name}");
            assert_eq!(state.is_exception(), exception, "{name}");
            assert_eq!(state.is_propagated(), propagated, "{name}");
            assert_eq!(usize::from(state.precedence()), table.len() - 1 - n, "{name}");
        }
        assert_eq!(State::parse("IGNORED"), State::Ignored);
        assert_eq!(State::parse("success"), State::Custom("success".to_owned()));
    }
}
