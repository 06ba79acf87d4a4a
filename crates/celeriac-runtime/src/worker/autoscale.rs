//! How many slots a worker has when they follow its load (Celery's `--autoscale`). Pure.

use std::time::Duration;

/// How often slots are reckoned (celery 5.7.0 worker/autoscale.py `Autoscaler.body`).
const EVERY: Duration = Duration::from_secs(1);

/// Between how many slots a worker moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscale {
    /// The most slots.
    pub max: usize,
    /// The fewest.
    pub min: usize,
    /// After so long without growth and without a task, what is not used goes (Celery's
    /// `AUTOSCALE_KEEPALIVE`).
    pub keepalive: Duration,
}

/// What moves a worker's slots.
#[derive(Clone, Debug)]
pub(super) struct Autoscaler {
    bounds: Autoscale,
    /// When slots are reckoned next.
    due: Duration,
    /// When the slots grew or a task came.
    active: Duration,
}

impl Autoscaler {
    pub(super) fn new(bounds: Autoscale, now: Duration) -> Self {
        Self { bounds, due: now + EVERY, active: now }
    }

    pub(super) fn bounds(&self) -> Autoscale {
        self.bounds
    }

    /// Moves between other bounds.
    pub(super) fn set(&mut self, max: usize, min: usize) {
        (self.bounds.max, self.bounds.min) = (max, min);
    }

    /// A task came.
    pub(super) fn received(&mut self, now: Duration) {
        self.active = now;
    }

    /// How many slots there are to be, when that changes: twice as many as long as all are busy, and only
    /// those in use once it has been quiet for long enough.
    pub(super) fn reckon(&mut self, slots: usize, busy: usize, now: Duration) -> Option<usize> {
        if now < self.due {
            return None;
        }
        self.due = now + EVERY;
        let Autoscale { max, min, keepalive } = self.bounds;
        let wanted = if busy >= slots {
            slots.saturating_mul(2)
        } else if now.saturating_sub(self.active) > keepalive {
            busy
        } else {
            slots
        };
        let wanted = wanted.min(max).max(min).max(1);
        if wanted > slots {
            self.active = now;
        }
        (wanted != slots).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_double_while_all_are_busy_and_go_after_a_quiet_time() {
        let second = Duration::from_secs;
        let bounds = Autoscale { max: 8, min: 2, keepalive: second(30) };
        let mut scaler = Autoscaler::new(bounds, second(0));
        assert_eq!(scaler.reckon(2, 2, second(0)), None, "not yet");
        assert_eq!(scaler.reckon(2, 2, second(1)), Some(4));
        assert_eq!(scaler.reckon(4, 4, second(1)), None, "once a second");
        assert_eq!(scaler.reckon(4, 4, second(2)), Some(8));
        assert_eq!(scaler.reckon(8, 8, second(3)), None, "no more than the most");
        scaler.received(second(10));
        assert_eq!(scaler.reckon(8, 3, second(40)), None);
        assert_eq!(scaler.reckon(8, 3, second(41)), Some(3));
        assert_eq!(scaler.reckon(3, 0, second(42)), Some(2));
        assert_eq!(scaler.reckon(2, 0, second(43)), None);
        // Other bounds hold at once.
        scaler.set(1, 0);
        assert_eq!(scaler.reckon(2, 0, second(44)), Some(1));
        assert_eq!(scaler.reckon(1, 0, second(45)), None, "a worker has a slot");
        scaler.set(9, 5);
        assert_eq!(scaler.reckon(1, 0, second(46)), Some(5));
    }
}
