//! `[tasks]` and `[override.tasks]`.

use super::super::additions::{Additions, ELSEWHERE, KEYS, Retrying, Rules, TaskSection};
use super::super::value::duration;
use super::{Document, Entry, entries};
use crate::config::source::{ConfigError, Source, nearest};
use celeriac_core::dead::Keep;
use celeriac_core::pattern::ExceptionNames;
use celeriac_core::retry::{Delay, RetryPolicy};
use celeriac_core::throttle::{RATES_MAX, Rate};
use celeriac_wire::{Map, Value};
use std::time::Duration;
use toml::de::DeValue;

/// Keys of which a section has at most one.
const EXCLUSIVE: [[&str; 2]; 6] = [
    ["backoff", "retry_schedule"],
    ["backoff", "retry_delay"],
    ["retry_schedule", "retry_delay"],
    ["retry_schedule", "max_retries"],
    ["retry_schedule", "jitter"],
    ["retry_delay", "jitter"],
];

impl Document<'_> {
    /// A section about tasks.
    pub(super) fn task(
        &self,
        entry: &Entry<'_>,
        source: Source,
    ) -> Result<TaskSection, ConfigError> {
        let Entry { key: pattern, value, at } = *entry;
        let DeValue::Table(fields) = value else {
            let text = format!("task {pattern:?} must be a section");
            let hint = format!("write it as [tasks.{pattern:?}], with a line for each key");
            return Err(self.error(at, text).hint(hint));
        };
        let fields = entries(fields);
        for [one, other] in EXCLUSIVE {
            let stands = |name: &str| fields.iter().find(|field| field.key == name);
            if let (Some(_), Some(field)) = (stands(one), stands(other)) {
                let text = format!("task {pattern:?}: {one} and {other} exclude each other");
                return Err(self.error(field.at, text));
            }
        }
        let mut section = Section::default();
        let mut shown = Vec::new();
        for field in &fields {
            let value = self.plain(field, field.value)?;
            section.set(field.key, &value).map_err(|(text, hint)| {
                let error = self.error(field.at, format!("task {pattern:?}: {text}"));
                hint.into_iter().fold(error, ConfigError::hint)
            })?;
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            shown.push(format!("{} = {value}", field.key));
        }
        let additions = section.additions();
        Ok(TaskSection { pattern: pattern.to_owned(), additions, shown: shown.join(", "), source })
    }
}

/// What is wrong, and what to do.
type Wrong = (String, Option<String>);

/// A section while it is read.
#[derive(Default)]
struct Section {
    additions: Additions,
    retry: Retrying,
    has_retry: bool,
    jitter: Option<bool>,
}

impl Section {
    fn set(&mut self, key: &str, value: &Value) -> Result<(), Wrong> {
        let additions = &mut self.additions;
        let (retry, is_retry) = (&mut self.retry, &mut self.has_retry);
        let set: Result<(), String> = match key {
            "global_rate_limit" => rates(value).map(|rates| additions.rates = Some(rates)),
            "concurrency_limit" => {
                at_least(value, 1).map(|most| additions.concurrency = Some(most))
            }
            "per_key" => boolean(value).map(|each| additions.per_key = Some(each)),
            "max_retries" => max_retries(value).map(|most| {
                retry.policy.max_retries = most;
                *is_retry = true;
            }),
            "backoff" => backoff(value).map(|delay| {
                retry.policy.delay = delay;
                *is_retry = true;
            }),
            "jitter" => boolean(value).map(|jitter| {
                self.jitter = Some(jitter);
                *is_retry = true;
            }),
            "retry_schedule" => schedule(value).map(|delays| {
                retry.policy = RetryPolicy::schedule(delays);
                *is_retry = true;
            }),
            "retry_delay" => span(value).map(|delay| {
                retry.policy.delay = Delay::Fixed(delay);
                *is_retry = true;
            }),
            "retry_for" => exceptions(value).map(|names| {
                retry.which.only = names;
                *is_retry = true;
            }),
            "retry_except" => exceptions(value).map(|names| {
                retry.which.except = names;
                *is_retry = true;
            }),
            "failure_if" => rules(value).map(|rules| additions.failure_if = Some(rules)),
            "success_if" => rules(value).map(|rules| additions.success_if = Some(rules)),
            "dead_letter" => keep(value).map(|keep| additions.keep = Some(keep)),
            "dead_letter_except" => {
                exceptions(value).map(|names| additions.dead_letter_except = Some(names))
            }
            _ => return Err(unknown(key)),
        };
        set.map_err(|wanted| (format!("{key} = {value}: {wanted}"), None))
    }

    fn additions(self) -> Additions {
        let Self { mut additions, mut retry, has_retry, jitter } = self;
        if let (Delay::Backoff { jitter, .. }, Some(wanted)) = (&mut retry.policy.delay, jitter) {
            *jitter = wanted;
        }
        additions.retry = has_retry.then_some(retry);
        additions
    }
}

fn unknown(key: &str) -> Wrong {
    if let Some((_, right)) = ELSEWHERE.iter().find(|(name, _)| *name == key) {
        return (format!("{key} cannot be said here"), Some((*right).to_owned()));
    }
    let names = KEYS.map(|(name, _)| name);
    let hint = match nearest(key, names) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("the keys are {}", names.join(", ")),
    };
    (format!("unknown key {key:?}"), Some(hint))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "expected true or false".to_owned())
}

fn at_least(value: &Value, least: u32) -> Result<u32, String> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| *number >= least)
        .ok_or_else(|| format!("expected a whole number of at least {least}"))
}

fn rates(value: &Value) -> Result<Vec<Rate>, String> {
    let wrong = || "expected a rate such as \"10/s\", or a list of them".to_owned();
    let texts: Vec<&Value> =
        value.as_array().map_or_else(|| vec![value], |all| all.iter().collect());
    if texts.len() > RATES_MAX {
        return Err(format!("at most {RATES_MAX} rates hold together"));
    }
    let rate = |text: &&Value| text.as_str().ok_or_else(wrong)?.parse();
    texts.iter().map(rate).collect()
}

fn max_retries(value: &Value) -> Result<Option<u32>, String> {
    match value.as_str() {
        Some("forever") => Ok(None),
        _ => {
            at_least(value, 0).map(Some).map_err(|_| "expected a number, or \"forever\"".to_owned())
        }
    }
}

fn span(value: &Value) -> Result<Duration, String> {
    value.as_str().map_or_else(|| duration(&value.to_string()), duration)
}

fn backoff(value: &Value) -> Result<Delay, String> {
    let wrong = || "expected a first delay and a ceiling, such as \"2s..10m\"".to_owned();
    let (first, max) = value.as_str().and_then(|text| text.split_once("..")).ok_or_else(wrong)?;
    let (first, max) = (duration(first)?, duration(max)?);
    if first.is_zero() || first.subsec_nanos() != 0 {
        return Err("the first delay is a whole number of seconds, at least 1s".to_owned());
    }
    if max < first {
        return Err("the ceiling is below the first delay".to_owned());
    }
    let factor = u32::try_from(first.as_secs()).map_err(|_| wrong())?;
    Ok(Delay::Backoff { factor, max, jitter: true })
}

fn schedule(value: &Value) -> Result<Vec<Duration>, String> {
    let wrong = || "expected a list of delays, such as [\"60s\", \"5m\"]".to_owned();
    let delays = value.as_array().filter(|delays| !delays.is_empty()).ok_or_else(wrong)?;
    delays.iter().map(span).collect()
}

fn exceptions(value: &Value) -> Result<ExceptionNames, String> {
    let wrong =
        || "expected a list of exceptions, such as [\"ValueError\", \"requests.*\"]".to_owned();
    let mut names = ExceptionNames::default();
    for name in value.as_array().ok_or_else(wrong)? {
        names.add(name.as_str().ok_or_else(wrong)?)?;
    }
    Ok(names)
}

fn keep(value: &Value) -> Result<Keep, String> {
    match value.as_str() {
        Some("always") => Ok(Keep::Always),
        Some("never") => Ok(Keep::Never),
        // How many that are is known with the task.
        Some("when-retries-end") => Ok(Keep::WhenRetriesEnd(None)),
        _ => Err("expected always, never or when-retries-end".to_owned()),
    }
}

fn rules(value: &Value) -> Result<Rules, String> {
    let wrong = || "expected members and their values, such as { status = \"error\" }".to_owned();
    let Value::Object(map) = value else { return Err(wrong()) };
    let mut found = Vec::new();
    flatten("", map, &mut found);
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

/// `meta.code = 5` without quotes is a table in a table.
fn flatten(above: &str, map: &Map, found: &mut Rules) {
    for (name, value) in map.iter() {
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        match value {
            Value::Object(below) => flatten(&path, below, found),
            Value::Array(values) => found.push((path, values.clone())),
            one => found.push((path, vec![one.clone()])),
        }
    }
}
