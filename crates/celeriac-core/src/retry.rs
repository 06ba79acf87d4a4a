//! When a failed task runs again: Celery's formulas, and an explicit schedule.

use crate::pattern::ExceptionNames;
use celeriac_wire::{Headers, Map, Value};
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

/// The header in which a call says how it is retried, instead of as its task says.
pub const RETRY_HEADER: &str = "celeriac_retry";

/// What one call changes of its task's [`RetryPolicy`].
///
/// As a header: an object with `max_retries` (a number, or null for ever) and `delay`: seconds, a list of
/// seconds, or an object with `factor` (seconds), `max` (seconds) and `jitter`. What is absent stays as it
/// is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOverride {
    /// The most retries; `Some(None)` retries for ever.
    pub max_retries: Option<Option<u32>>,
    /// The delay before each.
    pub delay: Option<Delay>,
}

impl RetryOverride {
    /// What a message asks for.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn of(headers: &Headers) -> Result<Self, String> {
        let Some(wish) = headers.get(RETRY_HEADER).filter(|wish| !wish.is_null()) else {
            return Ok(Self::default());
        };
        let wrong = |what: &str| format!("header {RETRY_HEADER}: {what}, not {wish}");
        let Value::Object(wish_map) = wish else { return Err(wrong("expected an object")) };
        let mut read = Self::default();
        for (name, value) in wish_map.iter() {
            match name {
                "max_retries" if value.is_null() => read.max_retries = Some(None),
                "max_retries" => {
                    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
                    read.max_retries = Some(Some(count.ok_or_else(|| wrong("expected a count"))?));
                }
                "delay" => {
                    let delay = Delay::of_value(value);
                    read.delay = Some(delay.ok_or_else(|| wrong("expected a delay in seconds"))?);
                }
                _ => return Err(wrong("expected max_retries and delay")),
            }
        }
        Ok(read)
    }

    /// The header's value.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if let Some(max) = self.max_retries {
            map.insert("max_retries", max.map_or(Value::Null, Value::from));
        }
        if let Some(delay) = &self.delay {
            map.insert("delay", delay.to_value());
        }
        Value::Object(map)
    }

    /// The policy of a call of a task with this policy.
    pub fn over(self, policy: &RetryPolicy) -> RetryPolicy {
        let scheduled = match &self.delay {
            Some(Delay::Schedule(delays)) => Some(u32::try_from(delays.len()).ok()),
            _ => None,
        };
        RetryPolicy {
            max_retries: self.max_retries.or(scheduled).unwrap_or(policy.max_retries),
            delay: self.delay.unwrap_or_else(|| policy.delay.clone()),
        }
    }
}

impl Delay {
    fn to_value(&self) -> Value {
        match self {
            Self::Fixed(delay) => Value::from(delay.as_secs_f64()),
            Self::Backoff { factor, max, jitter } => {
                let mut map = Map::new();
                map.insert("factor", *factor);
                map.insert("max", max.as_secs_f64());
                map.insert("jitter", *jitter);
                Value::Object(map)
            }
            Self::Schedule(delays) => {
                Value::Array(delays.iter().map(|delay| delay.as_secs_f64().into()).collect())
            }
        }
    }

    fn of_value(value: &Value) -> Option<Self> {
        let span = |value: &Value| Duration::try_from_secs_f64(value.as_f64()?).ok();
        Some(match value {
            Value::Array(delays) if !delays.is_empty() => {
                Self::Schedule(delays.iter().map(span).collect::<Option<_>>()?)
            }
            Value::Object(map) => Self::Backoff {
                factor: u32::try_from(map.get("factor")?.as_u64()?).ok()?,
                max: span(map.get("max")?)?,
                jitter: map.get("jitter").is_none_or(|jitter| jitter.as_bool() != Some(false)),
            },
            other => Self::Fixed(span(other)?),
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
    fn a_call_changes_what_it_names() {
        let task = RetryPolicy::default();
        let spans = |seconds: &[u64]| seconds.iter().map(|one| Duration::from_secs(*one)).collect();
        let backoff = Delay::Backoff { factor: 2, max: Duration::from_mins(1), jitter: false };
        for (wish, max, delay) in [
            (RetryOverride::default(), Some(3), task.delay.clone()),
            (
                RetryOverride { max_retries: Some(Some(9)), delay: None },
                Some(9),
                task.delay.clone(),
            ),
            (RetryOverride { max_retries: Some(None), delay: None }, None, task.delay.clone()),
            (RetryOverride { max_retries: None, delay: Some(backoff.clone()) }, Some(3), backoff),
            (
                RetryOverride { max_retries: None, delay: Some(Delay::Schedule(spans(&[1, 60]))) },
                Some(2),
                Delay::Schedule(spans(&[1, 60])),
            ),
        ] {
            let mut headers = Headers::new("t", "id");
            headers.insert(RETRY_HEADER, wish.to_value());
            let read = RetryOverride::of(&headers).unwrap();
            assert_eq!(read, wish);
            assert_eq!(read.over(&task), RetryPolicy { max_retries: max, delay });
        }
    }

    #[test]
    fn a_wish_that_cannot_be_read_is_refused() {
        for wish in [
            "3",
            r#"{"retries": 3}"#,
            r#"{"max_retries": -1}"#,
            r#"{"max_retries": "many"}"#,
            r#"{"delay": []}"#,
            r#"{"delay": -1}"#,
            r#"{"delay": {"factor": 1}}"#,
            r#"{"delay": 1e30}"#,
        ] {
            let mut headers = Headers::new("t", "id");
            headers.insert(RETRY_HEADER, Value::parse(wish.as_bytes()).unwrap());
            let error = RetryOverride::of(&headers).unwrap_err();
            assert!(error.contains(RETRY_HEADER), "{wish}: {error}");
        }
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
