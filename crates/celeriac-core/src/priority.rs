//! Priorities: Celery's numbers as Redis orders them, and opt-in levels with names.
//!
//! On Redis 0 runs first and 0 is the default (kombu 5.7 `transport/redis.py`, `PRIORITY_STEPS`);
//! on RabbitMQ 9 runs first. Levels have one meaning everywhere; each store maps them.

use std::fmt;
use std::str::FromStr;

/// kombu's steps: a number counts as the largest step that is not above it.
pub const STEPS: [u8; 4] = [0, 3, 6, 9];

/// The step that a wire priority falls into; no priority is step 0, like every stock message.
pub fn step(priority: Option<u8>) -> u8 {
    let number = priority.unwrap_or(0).min(9);
    number - number % 3
}

/// A named priority level, for applications that opt in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Runs before everything else.
    Critical,
    /// Runs before normal work.
    High,
    /// The level of calls that name none, in an application that uses levels.
    Normal,
    /// Runs when nothing else waits.
    Low,
}

impl Level {
    /// All levels, first to run first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The number on stores where 0 runs first (Redis, SQLite, memory).
    pub fn ascending(self) -> u8 {
        STEPS[self as usize]
    }

    /// The number on stores where 9 runs first (RabbitMQ).
    pub fn descending(self) -> u8 {
        9 - self.ascending()
    }

    /// The name in options, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no priority level; use critical, high, normal or low")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_into_kombus_steps() {
        let expected = [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 9];
        for (number, step_of_it) in (0..13u8).zip(expected) {
            assert_eq!(step(Some(number)), step_of_it, "{number}");
        }
        assert_eq!(step(None), 0);
    }

    #[test]
    fn levels_keep_one_order_on_every_store() {
        assert!(Level::ALL.windows(2).all(|two| two[0].ascending() < two[1].ascending()));
        assert!(Level::ALL.windows(2).all(|two| two[0].descending() > two[1].descending()));
        assert_eq!("high".parse::<Level>(), Ok(Level::High));
        assert!("urgent".parse::<Level>().unwrap_err().contains("critical, high, normal or low"));
    }
}
