//! What `[tasks]` says of tasks beyond what they say themselves.

use super::source::{ConfigError, Source};
use celeriac_core::dead::{DeadLetters, Keep};
use celeriac_core::outcome::{Classifier, Condition};
use celeriac_core::pattern::{ExceptionNames, Patterns};
use celeriac_core::retry::{Delay, RetryFor, RetryPolicy};
use celeriac_core::throttle::Rate;
use celeriac_runtime::TaskPolicy;
use celeriac_wire::{Map, Value};
use std::time::Duration;

/// The keys of a task's section, and what they do.
pub(super) const KEYS: [(&str, &str); 14] = [
    (
        "global_rate_limit",
        "how many start in all workers together: `\"10/s\"`, or a list whose rates all hold",
    ),
    ("concurrency_limit", "how many run at once in all workers together"),
    (
        "per_key",
        "each key has these limits for itself: the header `celeriac_key` of a message, which native \
         calls set by `key` and Celery's by `apply_async(headers={\"celeriac_key\": …})`",
    ),
    ("max_retries", "how often a failure is retried, or `\"forever\"`; 3 if not said"),
    (
        "backoff",
        "delays that double from the first to a ceiling: `\"2s..10m\"`; `\"1s..10m\"` if not said",
    ),
    ("jitter", "false: the delays of `backoff` are as they are, not drawn from 0 to themselves"),
    ("retry_schedule", "one delay for each retry: `[\"1m\", \"5m\", \"15m\"]`"),
    ("retry_delay", "always the same delay"),
    (
        "retry_for",
        "only these exceptions are retried: `[\"OSError\", \"requests.*\"]`; a class stands for those \
         that are derived from it (in Python)",
    ),
    ("retry_except", "these are not: they are final at once"),
    (
        "failure_if",
        "a returned object is a failure if one of its members has such a value: \
         `{ status = \"error\", \"meta.code\" = [5, 6] }`",
    ),
    ("success_if", "a returned value is a failure unless one of these holds"),
    (
        "dead_letter",
        "which failures become dead letters: `\"always\"`, `\"never\"`, `\"when-retries-end\"` (not those \
         that end before); messages that are lost, rejected or cannot be read always do",
    ),
    ("dead_letter_except", "failures with these exceptions do not"),
];

/// Names that people may write here, and what is right.
pub(super) const ELSEWHERE: [(&str, &str); 11] = [
    ("concurrency", "it is concurrency_limit"),
    ("rate_limit", CELERYS),
    ("time_limit", CELERYS),
    ("soft_time_limit", CELERYS),
    ("acks_late", CELERYS),
    ("retry", "it is max_retries, with backoff, retry_schedule or retry_delay"),
    ("autoretry_for", "it is retry_for = [\"ValueError\"]"),
    ("retry_backoff", "it is backoff = \"1s..10m\""),
    ("unique", UNIQUE),
    ("unique_for", UNIQUE),
    ("unique_until", UNIQUE),
];
const CELERYS: &str =
    "for an app's task it is Celery's own: [override] task_annotations = { \"name\" = { … } }";
const UNIQUE: &str = "whether a task is unique is decided when it is sent, before a worker sees it: send it \
    through celeriac (`#[task(remote, unique)]` or `Call::unique`), or use celery-singleton";

/// What one section says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Additions {
    pub(super) rates: Option<Vec<Rate>>,
    pub(super) concurrency: Option<u32>,
    pub(super) per_key: Option<bool>,
    pub(super) retry: Option<Retrying>,
    pub(super) failure_if: Option<Rules>,
    pub(super) success_if: Option<Rules>,
    pub(super) keep: Option<Keep>,
    pub(super) dead_letter_except: Option<ExceptionNames>,
}

/// When and for what a task is retried.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Retrying {
    pub(super) policy: RetryPolicy,
    pub(super) which: RetryFor,
    /// It stands before what a Python task says itself.
    pub(super) overrules: bool,
}

/// Members of a returned object and the values that matter.
pub(super) type Rules = Vec<(String, Vec<Value>)>;

/// A section: its pattern, what it says as it was written, where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskSection {
    pub(crate) pattern: String,
    pub(crate) additions: Additions,
    pub(crate) shown: String,
    pub(crate) source: Source,
}

/// All sections, to be asked by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskTable {
    sections: Vec<TaskSection>,
    /// Those of `[override]`, then the others.
    tables: [Patterns<Additions>; 2],
}

impl TaskTable {
    /// # Errors
    /// A pattern that does not parse.
    pub(super) fn new(sections: Vec<TaskSection>) -> Result<Self, ConfigError> {
        let mut tables = [Patterns::default(), Patterns::default()];
        for TaskSection { pattern, additions, source, .. } in &sections {
            let overrules = matches!(source, Source::Override { .. });
            let mut additions = additions.clone();
            if let Some(retry) = &mut additions.retry {
                retry.overrules = overrules;
            }
            tables[usize::from(!overrules)]
                .add("task", pattern, additions)
                .map_err(|error| ConfigError::new(format!("{source}: {error}")))?;
        }
        Ok(Self { sections, tables })
    }

    pub(crate) fn sections(&self) -> &[TaskSection] {
        &self.sections
    }

    /// What is added to a task. Of the sections of `[tasks]` one holds, as of routes; what
    /// `[override.tasks]` says stands before it, key by key.
    pub(crate) fn of(&self, task: &str) -> Option<Additions> {
        match self.tables.each_ref().map(|table| table.find(task)) {
            [None, None] => None,
            [Some(one), None] | [None, Some(one)] => Some(one.clone()),
            [Some(strong), Some(weak)] => Some(strong.clone().over(weak.clone())),
        }
    }
}

impl Additions {
    fn over(self, weak: Self) -> Self {
        Self {
            rates: self.rates.or(weak.rates),
            concurrency: self.concurrency.or(weak.concurrency),
            per_key: self.per_key.or(weak.per_key),
            retry: self.retry.or(weak.retry),
            failure_if: self.failure_if.or(weak.failure_if),
            success_if: self.success_if.or(weak.success_if),
            keep: self.keep.or(weak.keep),
            dead_letter_except: self.dead_letter_except.or(weak.dead_letter_except),
        }
    }

    /// Adds everything to a native task.
    pub(crate) fn add_to(self, policy: &mut TaskPolicy) {
        if let Some(retry) = &self.retry {
            policy.retry = retry.policy.clone();
            policy.retry_for = retry.which.clone();
        }
        if self.failure_if.is_some() || self.success_if.is_some() {
            let rules = |rules: &Option<Rules>| rules.iter().flatten().cloned().collect::<Vec<_>>();
            let condition = |(path, values): (String, Vec<Value>)| Condition::new(&path, values);
            let of_failure = rules(&self.failure_if).into_iter().map(condition);
            let classifier = of_failure.fold(Classifier::celery(), Classifier::failure_if);
            let of_success = rules(&self.success_if).into_iter().map(condition);
            policy.classifier = of_success.fold(classifier, Classifier::success_if);
        }
        let most = policy.retry.max_retries;
        self.add_limits_to(policy, most);
    }

    /// Adds what the worker itself does, with how often the task is retried.
    pub(crate) fn add_limits_to(self, policy: &mut TaskPolicy, most: Option<u32>) {
        if let Some(rates) = self.rates {
            policy.limit.rates = rates;
        }
        policy.limit.concurrency = self.concurrency.or(policy.limit.concurrency);
        policy.limit.per_key = self.per_key.unwrap_or(policy.limit.per_key);
        let keep = match self.keep {
            Some(Keep::WhenRetriesEnd(_)) => Keep::WhenRetriesEnd(most),
            keep => keep.unwrap_or_default(),
        };
        policy.dead_letters =
            DeadLetters { keep, except: self.dead_letter_except.unwrap_or_default() };
    }

    /// Whether it says how a task is retried that says so itself, and does not overrule that.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    pub(crate) fn leaves_own_retries(&self) -> bool {
        self.retry.as_ref().is_some_and(|retry| !retry.overrules)
    }

    /// How often and when a task is retried, if that is said here.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    pub(crate) fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref().map(|retry| &retry.policy)
    }

    /// What children do, as the protocol writes it; `None` when that is nothing.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    pub(crate) fn for_children(&self, with_retries: bool) -> Option<Map> {
        let mut map = Map::new();
        if let Some(retry) = self.retry.as_ref().filter(|_| with_retries) {
            map.insert("retry", Value::Object(retry.to_map()));
        }
        for (name, rules) in [("failure_if", &self.failure_if), ("success_if", &self.success_if)] {
            let rule = |(path, values): &(String, Vec<Value>)| -> Value {
                [path.split('.').map(Value::from).collect(), Value::Array(values.clone())]
                    .into_iter()
                    .collect()
            };
            if let Some(rules) = rules {
                map.insert(name, rules.iter().map(rule).collect::<Value>());
            }
        }
        (!map.is_empty()).then_some(map)
    }
}

impl Retrying {
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    fn to_map(&self) -> Map {
        let seconds = |span: &Duration| Value::from(span.as_secs_f64());
        let delay = match &self.policy.delay {
            Delay::Fixed(delay) => Map::from([("delays", Value::Array(vec![seconds(delay)]))]),
            Delay::Schedule(delays) => {
                Map::from([("delays", delays.iter().map(seconds).collect::<Value>())])
            }
            Delay::Backoff { factor, max, jitter } => Map::from([
                ("first", Value::from(u64::from(*factor))),
                ("max", Value::from(max.as_secs())),
                ("jitter", Value::from(*jitter)),
            ]),
        };
        let names = |names: &ExceptionNames| names.names().map(Value::from).collect::<Value>();
        Map::from([
            ("max_retries", Value::from(self.policy.max_retries.map(u64::from))),
            ("delay", Value::Object(delay)),
            ("retry_for", names(&self.which.only)),
            ("retry_except", names(&self.which.except)),
        ])
    }
}

/// The part of `docs/reference/settings.md` about these sections.
pub(super) fn reference() -> String {
    let rows = KEYS.iter().map(|(key, effect)| format!("| `{key}` | {effect} |\n"));
    format!(
        "\n## Tasks\n\n\
         `[tasks.\"reports.*\"]` adds to tasks what they do not say themselves: those of a Celery app, \
         which stays as it is, and native ones.\n\
         One section holds for a task: that of its exact name, else the first glob or regular \
         expression (`[tasks.'/^etl\\./']`) that it matches.\n\
         What `[override.tasks.\"reports.*\"]` says stands before it, key by key.\n\n\
         | key | effect |\n|---|---|\n{}\n\
         Limits hold in all workers together; what is over one waits in the store and stands in \
         nobody's way. Their numbers are those of the worker that started last.\n\n\
         Any key of retries is enough; of backoff, retry_schedule and retry_delay there is one. Retries \
         of a Celery app's task are Celery's, for what the task lets through; a task with an \
         `autoretry_for` of its own keeps it, unless `[override.tasks]` says otherwise.\n",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests;
