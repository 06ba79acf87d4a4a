//! When a failed task runs again: Celery's formulas, and an explicit schedule.

use crate::pattern::ExceptionNames;
use std::time::Duration;

/// Celery's `default_retry_delay` (`celery/app/task.py` 5.7: 3 * 60).
pub const DEFAULT_DELAY: Duration = Duration::from_mins(3);
/// Celery's `max_retries` (`celery/app/task.py` 5.7).
pub const DEFAULT_MAX_RETRIES: u32 = 3;
/// Celery's `retry_backoff_max` (`celery/app/autoretry.py` 5.7).
pub const DEFAULT_BACKOFF_MAX: Duration = Duration::from_mins(10);

/// The delay before the next attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// `min(max, factor * 2^retries)`, with full jitter when asked (wire specification 5.14).
    Backoff {
        /// Whole seconds; Celery takes `int(max(1, factor))`.
        factor: u32,
        /// The ceiling.
        max: Duration,
        /// Draw a whole number of seconds from 0 to the delay, both included.
        jitter: bool,
    },
    /// One delay for each retry, such as 60 s, 300 s, 900 s; its length is the number of retries.
    Schedule(Vec<Duration>),
}

/// How often and when a failed task runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most retries; `None` retries for ever and must be asked for by name.
    pub max_retries: Option<u32>,
    /// The delay before each.
    pub delay: Delay,
}

impl Default for RetryPolicy {
    /// Celery's `autoretry_for` with `retry_backoff=True`: three retries, jitter on.
    fn default() -> Self {
        Self {
            max_retries: Some(DEFAULT_MAX_RETRIES),
            delay: Delay::Backoff { factor: 1, max: DEFAULT_BACKOFF_MAX, jitter: true },
        }
    }
}

/// Which failures are retried: all, unless names are given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryFor {
    /// Only these, if there are any.
    pub only: ExceptionNames,
    /// Not these.
    pub except: ExceptionNames,
}

impl RetryFor {
    /// Whether a failure with this exception is retried.
    pub fn allows(&self, module: &str, name: &str) -> bool {
        let named = self.only.is_empty() || self.only.has(module, name);
        named && !self.except.has(module, name)
    }
}

impl RetryPolicy {
    /// No retries at all.
    pub fn never() -> Self {
        Self { max_retries: Some(0), delay: Delay::Fixed(DEFAULT_DELAY) }
    }

    /// An explicit schedule: as many retries as there are delays.
    pub fn schedule(delays: impl Into<Vec<Duration>>) -> Self {
        let delays = delays.into();
        let count = u32::try_from(delays.len()).unwrap_or(u32::MAX);
        Self { max_retries: Some(count), delay: Delay::Schedule(delays) }
    }

    /// The delay before retry number `retries + 1`, or `None` when retries are used up.
    ///
    /// `retries` is the count in the message that failed (0 on the first run); `random` is one
    /// draw of 64 random bits, used only by jitter.
    pub fn next(&self, retries: u32, random: u64) -> Option<Duration> {
        if self.max_retries.is_some_and(|max| retries >= max) {
            return None;
        }
        Some(match &self.delay {
            Delay::Fixed(delay) => *delay,
            Delay::Backoff { factor, max, jitter } => {
                backoff(*factor, *max, retries, *jitter, random)
            }
            Delay::Schedule(delays) => {
                *usize::try_from(retries).ok().and_then(|at| delays.get(at)).or(delays.last())?
            }
        })
    }
}

/// `celery/utils/time.py` 5.7 `get_exponential_backoff_interval`.
fn backoff(factor: u32, max: Duration, retries: u32, jitter: bool, random: u64) -> Duration {
    let factor = u64::from(factor.max(1));
    let doubled = 1u64.checked_shl(retries).and_then(|power| factor.checked_mul(power));
    let seconds = doubled.unwrap_or(u64::MAX).min(max.as_secs());
    // Multiply-shift maps 64 random bits evenly onto 0..=seconds (Lemire 2019).
    let drawn = ((u128::from(random) * (u128::from(seconds) + 1)) >> 64) as u64;
    Duration::from_secs(if jitter { drawn } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(policy: &RetryPolicy, random: u64) -> Vec<u64> {
        (0..20).map_while(|n| policy.next(n, random)).map(|delay| delay.as_secs()).collect()
    }

    #[test]
    fn backoff_doubles_up_to_its_ceiling() {
        let policy = |factor, max| RetryPolicy {
            max_retries: Some(5),
            delay: Delay::Backoff { factor, max: Duration::from_secs(max), jitter: false },
        };
        assert_eq!(seconds(&policy(1, 600), 0), [1, 2, 4, 8, 16]);
        assert_eq!(seconds(&policy(2, 600), 0), [2, 4, 8, 16, 32]);
        assert_eq!(seconds(&policy(60, 600), 0), [60, 120, 240, 480, 600]);
        // Celery takes int(max(1, factor)), `celery/app/autoretry.py` 5.7.
        assert_eq!(seconds(&policy(0, 600), 0), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn jitter_draws_from_the_whole_range() {
        // covers: S1-28
        let policy = RetryPolicy { max_retries: None, ..RetryPolicy::default() };
        assert_eq!(policy.next(3, 0), Some(Duration::ZERO));
        assert_eq!(policy.next(3, u64::MAX), Some(Duration::from_secs(8)));
        assert_eq!(policy.next(3, u64::MAX / 2), Some(Duration::from_secs(4)));
        assert_eq!(policy.next(4000, u64::MAX), Some(DEFAULT_BACKOFF_MAX));
    }

    #[test]
    fn an_explicit_schedule_is_followed_to_its_end() {
        // covers: S3-01 T-64
        let policy = RetryPolicy::schedule([60, 300, 900].map(Duration::from_secs));
        assert_eq!(seconds(&policy, 42), [60, 300, 900]);
    }

    #[test]
    fn no_policy_means_three_retries_and_never_means_none() {
        assert_eq!(seconds(&RetryPolicy::default(), 0).len(), 3);
        assert_eq!(RetryPolicy::never().next(0, 0), None);
    }
}
