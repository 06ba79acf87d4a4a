//! The machine's clocks and random numbers.

use celeriac_core::{Clock, Entropy};
use jiff::Timestamp;
use std::time::Duration;

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where wall time comes from")]
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        // On macOS CLOCK_MONOTONIC counts on during sleep (man 3 clock_gettime).
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(clock);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// The operating system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u64(&self) -> u64 {
        getrandom::u64().expect("the operating system has random numbers (getrandom(2))")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_and_random_numbers_differ() {
        let before = SystemClock.boot();
        assert!(SystemClock.boot() >= before);
        assert!(SystemClock.wall() > "2026-01-01T00:00:00Z".parse().unwrap());
        assert_ne!(OsEntropy.next_u64(), OsEntropy.next_u64());
    }
}
