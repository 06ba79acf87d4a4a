//! How long runs take, and how many of them to have at hand for each child.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Runs that are shorter leave their child idle while the worker fetches the next message.
const SHORT: Duration = Duration::from_millis(5);
/// So many runs of short tasks are at hand for each child. Measured once, with no-ops in two children
/// on a busy machine: 8 gave 4,800 runs a second, 1 gave 1,450; other numbers were not tried.
const WINDOW: usize = 8;
/// A new run counts so much less than those before.
const WEIGHT: u64 = 8;

/// A moving average of how long runs take, in microseconds; 0 before the first.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// A run took so long.
    pub(super) fn note(&self, took: Duration) {
        // A task of an hour says no more than one of a minute.
        let new = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, 60_000_000);
        let old = self.0.load(Ordering::Relaxed);
        // A lost update of two children at once changes little.
        let mean = if old == 0 { new } else { (old * (WEIGHT - 1) + new) / WEIGHT };
        self.0.store(mean.max(1), Ordering::Relaxed);
    }

    /// How many runs to have at hand for each child.
    pub(super) fn window(&self) -> usize {
        let mean = self.0.load(Ordering::Relaxed);
        if mean > 0 && Duration::from_micros(mean) < SHORT { WINDOW } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_runs_are_kept_at_hand() {
        let pace = Pace::default();
        assert_eq!(pace.window(), 1);
        pace.note(Duration::from_micros(300));
        assert_eq!(pace.window(), WINDOW);
        // One long run is enough to wait with the next fetch.
        pace.note(Duration::from_millis(100));
        assert_eq!(pace.window(), 1);
        for _ in 0..40 {
            pace.note(Duration::ZERO);
        }
        assert_eq!(pace.window(), WINDOW);
    }
}
