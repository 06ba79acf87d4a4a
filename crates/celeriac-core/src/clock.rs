//! The time a policy is given, and where it comes from.
//!
//! Policies take `now` as an argument; only the long-running roles hold a [`Clock`].

use jiff::Timestamp;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Source of time for everything that runs.
///
/// What is written down uses [`Clock::wall`]; what is compared within one boot of the machine
/// uses [`Clock::boot`], which counts on during suspend and never jumps.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time of day, which an operator or NTP may move.
    fn wall(&self) -> Timestamp;
    /// Time since the machine started, suspend included (`CLOCK_BOOTTIME`).
    fn boot(&self) -> Duration;
}

/// Source of random numbers for everything that runs: ids, lease tokens, jitter.
pub trait Entropy: fmt::Debug + Send + Sync {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// A logical clock: what is sent after something was heard has a higher number than it.
///
/// kombu 5.7.0 clocks.py `LamportClock`; events, requests and replies of one node share one
/// (wire specification 6.5).
#[derive(Debug, Default)]
pub struct Lamport(AtomicU64);

impl Lamport {
    /// The number of what was sent or heard last.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The number of what is sent next.
    pub fn forward(&self) -> u64 {
        self.adjust(0)
    }

    /// Takes note of a number that was heard; returns the clock's own next.
    pub fn adjust(&self, heard: u64) -> u64 {
        let next = |value: u64| Some(value.max(heard).saturating_add(1));
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        before.unwrap_or_else(|value| value).max(heard).saturating_add(1)
    }
}

/// A day of 24 hours.
pub const DAY: Duration = Duration::from_hours(24);

/// Adds a duration to an instant; an overflow ends at the last representable instant.
pub fn after(instant: Timestamp, span: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(span)
        .ok()
        .and_then(|span| instant.checked_add(span).ok())
        .unwrap_or(Timestamp::MAX)
}

/// The span from `earlier` to `later`, zero when the order is the other way round.
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// Makes a task id from the wall clock and random bits: a version 7 UUID (RFC 9562).
///
/// Celery makes version 4 ids but accepts any string (`celery/app/base.py` 5.7). Version 7 sorts by
/// time, which keeps index pages of an embedded store warm under bulk enqueue.
pub fn task_id(clock: &dyn Clock, entropy: &dyn Entropy) -> String {
    let millis = u64::try_from(clock.wall().as_millisecond()).unwrap_or(0);
    let (high, low) = (entropy.next_u64(), entropy.next_u64());
    let time = millis & 0xffff_ffff_ffff;
    format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        time >> 16,
        time & 0xffff,
        high & 0xfff,
        0x8000 | ((high >> 16) & 0x3fff),
        low & 0xffff_ffff_ffff,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FixedClock, Seeded};

    #[test]
    fn task_ids_are_version_7_uuids_in_time_order() {
        let clock = FixedClock::at("2026-11-21T00:00:00Z");
        let entropy = Seeded::new(7);
        let first = task_id(&clock, &entropy);
        assert_eq!(first.len(), 36);
        assert_eq!(first.as_bytes()[14], b'7');
        assert!(matches!(first.as_bytes()[19], b'8'..=b'b'));
        clock.advance(Duration::from_millis(1));
        assert!(task_id(&clock, &entropy) > first);
    }

    #[test]
    fn a_logical_clock_runs_ahead_of_what_it_hears() {
        let clock = Lamport::default();
        assert_eq!((clock.forward(), clock.forward(), clock.value()), (1, 2, 2));
        assert_eq!((clock.adjust(40), clock.adjust(7), clock.value()), (41, 42, 42));
        assert_eq!((clock.adjust(u64::MAX), clock.forward()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(after(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(after(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
        assert_eq!(between(Timestamp::MAX, Timestamp::UNIX_EPOCH), Duration::ZERO);
    }
}
