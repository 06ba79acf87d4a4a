//! The rules and pauses of a store: which messages they are about. Every store keeps them in its own
//! way and decides by them in this one.

use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use std::collections::BTreeSet;

/// The rules and pauses that hold.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    limits: Vec<LimitRule>,
    paused: BTreeSet<Target>,
}

impl Rules {
    /// Of all rules: the operator's stands before the application's of the same target.
    pub(crate) fn new(mut limits: Vec<LimitRule>, paused: BTreeSet<Target>) -> Self {
        let operators: BTreeSet<Target> = limits
            .iter()
            .filter(|rule| rule.origin == RuleOrigin::Operator)
            .map(|rule| rule.target.clone())
            .collect();
        limits.retain(|rule| {
            rule.origin == RuleOrigin::Operator || !operators.contains(&rule.target)
        });
        Self { limits, paused }
    }

    /// Whether nothing is limited or paused.
    pub(crate) fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.paused.is_empty()
    }

    /// The rules that hold.
    pub(crate) fn limits(&self) -> &[LimitRule] {
        &self.limits
    }

    /// Whether messages of this task in this queue need a lane even without a key.
    pub(crate) fn restricts(&self, queue: &str, task: &str) -> bool {
        let about = |target: &Target| match target {
            Target::Everything => true,
            Target::Queue(name) => name == queue,
            Target::Task(name) => name == task,
            Target::Key(_) => false,
        };
        self.limits.iter().any(|rule| about(&rule.target))
            || self.paused.iter().any(|target| matches!(target, Target::Task(name) if name == task))
    }

    /// Whether a fetch takes nothing from this queue.
    pub(crate) fn stops_queue(&self, queue: &str) -> bool {
        !self.paused.is_empty()
            && (self.paused.contains(&Target::Everything)
                || self.paused.contains(&Target::Queue(queue.to_owned())))
    }

    /// Whether a pause holds a message.
    pub(crate) fn pauses(&self, queue: &str, task: &str, key: &str) -> bool {
        !self.paused.is_empty()
            && (self.stops_queue(queue)
                || self.paused.contains(&Target::Task(task.to_owned()))
                || (!key.is_empty() && self.paused.contains(&Target::Key(key.to_owned()))))
    }

    /// The longest time that any rate looks back.
    pub(crate) fn window_max(&self) -> i64 {
        let periods = self.limits.iter().flat_map(|rule| &rule.rates).map(|rate| rate.per);
        periods.max().map_or(0, |per| i64::try_from(per.as_micros()).unwrap_or(i64::MAX / 4))
    }
}
