//! What operators changed while the worker runs: time limits of tasks, revoked stamps. Pure.
//!
//! As in Celery both last as long as the worker; what has to outlive it goes through the store.

use crate::handler::TaskPolicy;
use celeriac_wire::{Headers, Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most stamps that a worker remembers as revoked; more are refused.
pub const STAMPS_MAX: usize = 50_000;

/// A soft and a hard time limit; a missing one is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The task is told to stop after this time.
    pub soft: Option<Duration>,
    /// The task is stopped after this time.
    pub hard: Option<Duration>,
}

/// The orders that a worker keeps in mind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Limits of tasks that have none otherwise.
    defaults: Limits,
    limits: BTreeMap<String, Limits>,
    stamps: BTreeMap<String, BTreeSet<String>>,
}

impl Orders {
    /// No orders yet; `defaults` are the worker's own limits.
    pub fn new(defaults: Limits) -> Self {
        Self { defaults, ..Self::default() }
    }

    /// Replaces both limits of a task; without one the worker's own holds (celery 5.7.0
    /// worker/control.py `time_limit`, concurrency/base.py).
    pub fn set_limits(&mut self, task: &str, limits: Limits) {
        self.limits.insert(task.to_owned(), limits);
    }

    /// The limits of a task whose message has none.
    pub fn limits(&self, task: &str, policy: &TaskPolicy) -> Limits {
        let own = Limits { soft: policy.soft_time_limit, hard: policy.time_limit };
        let ordered = self.limits.get(task).copied().unwrap_or(own);
        Limits {
            soft: ordered.soft.or(self.defaults.soft),
            hard: ordered.hard.or(self.defaults.hard),
        }
    }

    /// The worker's own limits.
    pub fn defaults(&self) -> Limits {
        self.defaults
    }

    /// Remembers stamps of a header as revoked.
    pub fn revoke_stamps(&mut self, header: &str, stamps: &[String]) {
        self.stamps.entry(header.to_owned()).or_default().extend(stamps.iter().cloned());
    }

    /// How many stamps are revoked.
    pub fn stamps(&self) -> usize {
        self.stamps.values().map(BTreeSet::len).sum()
    }

    /// The revoked stamps of a message, by header.
    pub(crate) fn revoked_by(&self, headers: &Headers) -> Map {
        let mut found = Map::new();
        for (header, revoked) in &self.stamps {
            let stamps = stamps_of(headers, header);
            let mine: Vec<Value> = stamps
                .iter()
                .filter(|one| revoked.contains(*one))
                .map(|one| one.as_str().into())
                .collect();
            if !mine.is_empty() {
                found.insert(header.as_str(), Value::Array(mine));
            }
        }
        found
    }

    /// Whether a message carries a revoked stamp (celery 5.7.0 worker/request.py `Request.revoked`).
    pub fn is_revoked(&self, headers: &Headers) -> bool {
        !self.stamps.is_empty()
            && self.stamps.iter().any(|(header, revoked)| {
                stamps_of(headers, header).iter().any(|stamp| revoked.contains(stamp))
            })
    }
}

/// The stamps of one header of a message: a text or a list of them.
pub(super) fn stamps_of(headers: &Headers, header: &str) -> Vec<String> {
    headers.stamps().get(header).map(stamp_list).unwrap_or_default()
}

/// A stamp or a list of stamps as texts.
pub(super) fn stamp_list(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Null => Vec::new(),
        Value::Array(stamps) => stamps.iter().map(text).collect(),
        stamp => vec![text(stamp)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_tasks_then_the_workers() {
        let second = Duration::from_secs;
        let mut orders = Orders::new(Limits { soft: None, hard: Some(second(60)) });
        let policy = TaskPolicy { soft_time_limit: Some(second(5)), ..TaskPolicy::default() };
        let limits = |soft: Option<u64>, hard: Option<u64>| Limits {
            soft: soft.map(second),
            hard: hard.map(second),
        };
        assert_eq!(orders.limits("t", &policy), limits(Some(5), Some(60)));
        orders.set_limits("t", limits(Some(1), Some(2)));
        assert_eq!(orders.limits("t", &policy), limits(Some(1), Some(2)));
        assert_eq!(orders.limits("u", &policy), limits(Some(5), Some(60)));
        orders.set_limits("t", limits(None, None));
        assert_eq!(orders.limits("t", &policy), limits(None, Some(60)));
    }

    #[test]
    fn stamps_are_revoked_one_by_one_and_in_lists() {
        let mut orders = Orders::default();
        let stamped = |value: Value| {
            let mut headers = Headers::new("t", "1");
            headers.insert("stamps", Map::from([("tenant", value)]));
            headers
        };
        let list: Value = ["x", "acme"].into_iter().collect();
        for value in [Value::from("acme"), list, Value::from(7)] {
            assert!(!orders.is_revoked(&stamped(value)));
        }
        orders.revoke_stamps("tenant", &["acme".to_owned(), "7".to_owned()]);
        orders.revoke_stamps("other", &["x".to_owned()]);
        let list: Value = ["x", "acme"].into_iter().collect();
        for value in [Value::from("acme"), list, Value::from(7)] {
            assert!(orders.is_revoked(&stamped(value)));
        }
        assert!(!orders.is_revoked(&stamped(Value::from("x"))));
        assert!(!orders.is_revoked(&Headers::new("t", "1")));
        let by = orders.revoked_by(&stamped(["x", "acme"].into_iter().collect()));
        assert_eq!(by, Map::from([("tenant", ["acme"].into_iter().collect::<Value>())]));
        assert!(orders.revoked_by(&stamped(Value::from("x"))).is_empty());
        assert_eq!(orders.stamps(), 3);
    }
}
