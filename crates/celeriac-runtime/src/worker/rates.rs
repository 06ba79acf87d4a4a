//! The worker's own rate limits (Celery's `rate_limit`): how many of each task it may start now. Pure.
//!
//! Tasks over their rate are not fetched, so they wait in the store, where another worker may take
//! them and nothing stands behind them. Times are of the boot clock: a wall clock that jumps changes
//! no rate.

use crate::handler::Registry;
use celeriac_core::store::{Delivery, TaskCap};
use celeriac_core::throttle::{Rate, Spread};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Where one task's rate stands.
#[derive(Debug)]
struct Own {
    rate: Rate,
    spread: Spread,
    /// The latest starts, of a rate with a burst; at most `rate.count`.
    starts: VecDeque<i64>,
}

impl Own {
    fn free(&self, now: i64) -> usize {
        if !self.rate.burst {
            return self.spread.free(self.rate, now);
        }
        let (per, count) = (micros(self.rate.per), self.rate.count as usize);
        let recent = self.starts.iter().filter(|at| at.saturating_add(per) > now).count();
        count.saturating_sub(recent)
    }

    fn next(&self) -> i64 {
        if !self.rate.burst {
            return self.spread.next(self.rate);
        }
        let oldest = self.starts.front().copied().unwrap_or(0);
        oldest.saturating_add(micros(self.rate.per))
    }

    fn start(&mut self, now: i64) {
        if !self.rate.burst {
            self.spread = self.spread.after_one(self.rate, now);
            return;
        }
        if self.starts.len() >= self.rate.count as usize {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4)
}

/// The rates of all tasks that have one.
#[derive(Debug, Default)]
pub(super) struct OwnRates(BTreeMap<String, Own>);

impl OwnRates {
    pub(super) fn of(registry: &Registry) -> Self {
        let rate = |name: String| {
            let rate = registry.find(&name)?.policy().rate_limit?;
            Some((name, Own { rate, spread: Spread(0), starts: VecDeque::new() }))
        };
        Self(registry.names().into_iter().filter_map(rate).collect())
    }

    /// Gives a task another rate, or none.
    pub(super) fn set(&mut self, task: &str, rate: Option<Rate>) {
        match rate {
            Some(rate) => {
                let own = Own { rate, spread: Spread(0), starts: VecDeque::new() };
                self.0.insert(task.to_owned(), own);
            }
            None => drop(self.0.remove(task)),
        }
    }

    /// The rates by task.
    pub(super) fn all(&self) -> BTreeMap<String, Rate> {
        self.0.iter().map(|(task, own)| (task.clone(), own.rate)).collect()
    }

    /// What a fetch at `now` may take.
    pub(super) fn caps(&self, now: Duration) -> Vec<TaskCap> {
        let cap = |(task, own): (&String, &Own)| TaskCap {
            task: task.clone(),
            count_max: own.free(micros(now)),
        };
        self.0.iter().map(cap).collect()
    }

    /// Counts what a fetch brought; what does not run any more takes nothing.
    pub(super) fn count(&mut self, deliveries: &[Delivery], now: Duration) {
        if self.0.is_empty() {
            return;
        }
        for delivery in deliveries.iter().filter(|one| !one.acknowledged) {
            let task = delivery.message.headers.task().unwrap_or_default();
            if let Some(own) = self.0.get_mut(task) {
                own.start(micros(now));
            }
        }
    }

    /// When a task that may not start at `now` may start again.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let blocked = self.0.values().filter(|own| own.free(micros(now)) == 0);
        blocked.map(|own| Duration::from_micros(own.next().unsigned_abs())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(text: &str) -> OwnRates {
        let own = Own { rate: text.parse().unwrap(), spread: Spread(0), starts: VecDeque::new() };
        OwnRates([("t".to_owned(), own)].into())
    }

    /// Starts at most what is free and says how many that was.
    fn run(rates: &mut OwnRates, at: Duration) -> usize {
        let free = rates.caps(at)[0].count_max;
        for _ in 0..free {
            rates.0.get_mut("t").unwrap().start(micros(at));
        }
        free
    }

    #[test]
    fn a_spread_rate_gives_one_after_another() {
        let mut rates = rates("10/s");
        let second = Duration::from_secs(1000);
        assert_eq!(rates.next(second), None);
        assert_eq!(run(&mut rates, second), 1);
        assert_eq!(run(&mut rates, second), 0);
        let next = rates.next(second).unwrap();
        assert!(next > second && next <= second + Duration::from_millis(101), "{next:?}");
        assert_eq!(run(&mut rates, next), 1);
    }

    #[test]
    fn a_burst_gives_all_and_then_waits_for_the_window() {
        let mut rates = rates("3/m burst");
        let start = Duration::from_secs(1000);
        assert_eq!(run(&mut rates, start), 3);
        let minute = start + Duration::from_mins(1);
        assert_eq!(rates.next(start), Some(minute));
        assert_eq!(run(&mut rates, start + Duration::from_millis(59_999)), 0);
        assert_eq!(run(&mut rates, minute), 3);
    }
}
