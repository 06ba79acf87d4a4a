//! A clock that stands still and random numbers from a seed, for tests and simulation.

use crate::clock::{Clock, Entropy};
use jiff::Timestamp;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A clock that moves only when told.
#[derive(Debug)]
pub struct FixedClock(Mutex<(Timestamp, Duration)>);

impl FixedClock {
    /// A clock standing at an RFC 3339 instant, one hour after boot.
    ///
    /// # Panics
    /// If `instant` is not RFC 3339.
    pub fn at(instant: &str) -> Self {
        let instant = instant.parse().expect("tests give an RFC 3339 instant");
        Self(Mutex::new((instant, Duration::from_hours(1))))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, span: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 = crate::clock::after(now.0, span);
        now.1 += span;
    }

    /// Moves the wall clock alone, as an operator or NTP does.
    pub fn jump_wall(&self, to: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = to;
    }
}

impl Clock for FixedClock {
    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
    fn boot(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): every seed gives its own reproducible sequence.
#[derive(Debug)]
pub struct Seeded(Mutex<u64>);

impl Seeded {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for Seeded {
    fn next_u64(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
