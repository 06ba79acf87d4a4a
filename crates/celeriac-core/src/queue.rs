//! Validated names, so that a queue cannot collide with an internal key or break a log line.

use crate::error::StoreError;
use std::fmt;
use std::sync::Arc;

/// The longest queue name, in bytes. AMQP's short string ends at 255 (AMQP 0-9-1, 4.2.5.3).
pub const QUEUE_NAME_BYTES_MAX: usize = 255;

/// The name of a queue.
///
/// Not empty, at most [`QUEUE_NAME_BYTES_MAX`] bytes, no control characters (kombu joins priority
/// steps with the bytes `06 16`), and not in the name space `celeriac:` of our own keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Celery's default queue, `celery` (`celery/app/defaults.py` 5.7, `task_default_queue`).
    pub fn celery() -> Self {
        Self(Arc::from("celery"))
    }

    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` with the rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let fault = if name.is_empty() {
            Some("is empty")
        } else if name.len() > QUEUE_NAME_BYTES_MAX {
            Some("is longer than 255 bytes")
        } else if name.chars().any(char::is_control) {
            Some("contains a control character")
        } else if name.starts_with("celeriac:") {
            Some("starts with `celeriac:`, which is reserved for internal keys")
        } else {
            None
        };
        match fault {
            None => Ok(Self(Arc::from(name))),
            Some(fault) => Err(StoreError::invalid(format!("queue name {name:?} {fault}"))),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_collide_are_refused() {
        for good in ["celery", "high_priority", "Q.1-2", "日本", "w1@host.dq2"] {
            assert_eq!(QueueName::parse(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(256);
        for (bad, why) in [
            ("", "is empty"),
            (long.as_str(), "255"),
            ("celery\u{6}\u{16}3", "control"),
            ("celeriac:lease", "reserved"),
        ] {
            assert!(QueueName::parse(bad).unwrap_err().to_string().contains(why), "{bad:?}");
        }
    }
}
