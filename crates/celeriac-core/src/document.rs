//! What programs are shown: one JSON document for each thing, the same from `--json` and from HTTP. Pure.

pub mod entries;

use crate::dead::{Attempt, DeadLetter};
use crate::store::{LimitView, NodeView, Pause, Phase, QueueView, Stored, TaskView};
use crate::throttle::Target;
use celeriac_wire::{Map, Value, print_iso};
use jiff::Timestamp;

/// Makes a JSON object.
pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let mut map = Map::default();
    for (name, value) in fields {
        map.insert(name, value);
    }
    Value::Object(map)
}

/// Text or null.
pub fn text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, Value::from)
}

/// An instant or null.
pub fn time(value: Option<Timestamp>) -> Value {
    value.map_or(Value::Null, |instant| Value::from(print_iso(instant)))
}

/// A count.
pub fn count(count: u64) -> Value {
    Value::from(count as i64)
}

/// JSON as RFC 8259 has it: a number that is not finite becomes a string.
pub fn strict(value: &Value) -> Value {
    match value {
        Value::Number(number) if matches!(number.as_str(), "NaN" | "Infinity" | "-Infinity") => {
            Value::from(number.as_str())
        }
        Value::Array(items) => Value::Array(items.iter().map(strict).collect()),
        Value::Object(map) => {
            let mut out = Map::default();
            for (name, value) in map.iter() {
                out.insert(name, strict(value));
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

/// A task: where it is, its message's headers, its result and its earlier runs.
pub fn task(view: &TaskView) -> Value {
    let mut map = Map::from([
        ("task_id", Value::from(view.task_id.as_str())),
        ("phase", Value::from(view.phase.as_str())),
        ("task", text(view.task.as_deref())),
        ("queue", text(view.queue.as_deref())),
        ("enqueued_at", time(view.enqueued_at)),
        ("retries", Value::from(i64::from(view.retries))),
    ]);
    match &view.phase {
        Phase::Scheduled { until, .. } => drop(map.insert("until", time(Some(*until)))),
        Phase::Queued { position, paused, limited, revoked } => {
            map.insert("position", position.map_or(Value::Null, count));
            map.insert("paused", *paused);
            map.insert("limited", *limited);
            map.insert("revoked", *revoked);
        }
        Phase::Reserved { worker } => drop(map.insert("worker", worker.as_str())),
        Phase::Running { worker, since } => {
            map.insert("worker", worker.as_str());
            map.insert("since", time(Some(*since)));
        }
        Phase::Dead { number, reason } => {
            map.insert("dead_letter", *number);
            map.insert("reason", reason.as_str());
        }
        Phase::Unknown | Phase::Done => {}
    }
    if let Some(message) = &view.message {
        map.insert("headers", Value::Object(message.headers.as_map().clone()));
    }
    let result = view.result.as_ref().map(|record| Value::Object(record.meta.as_map().clone()));
    map.insert("result", result.unwrap_or(Value::Null));
    map.insert("history", history(&view.history));
    Value::Object(map)
}

/// Runs, oldest first.
pub fn history(attempts: &[Attempt]) -> Value {
    let run = |attempt: &Attempt| {
        object([
            ("retries", Value::from(i64::from(attempt.retries))),
            ("worker", Value::from(attempt.worker.as_str())),
            ("started_at", time(attempt.started_at)),
            ("ended_at", time(Some(attempt.ended_at))),
            ("outcome", Value::from(attempt.outcome.as_str())),
            ("detail", Value::from(attempt.detail.as_str())),
        ])
    };
    Value::Array(attempts.iter().map(run).collect())
}

/// A dead letter with its message.
pub fn dead_letter(letter: &DeadLetter) -> Value {
    let headers = &letter.message.headers;
    object([
        ("number", Value::from(letter.number)),
        ("reason", Value::from(letter.reason.as_str())),
        ("detail", Value::from(letter.detail.as_str())),
        ("task_id", text(headers.id())),
        ("task", text(headers.task())),
        ("queue", Value::from(letter.queue.as_str())),
        ("enqueued_at", time(Some(letter.enqueued_at))),
        ("died_at", time(Some(letter.died_at))),
        ("history", history(&letter.history)),
        ("headers", Value::Object(headers.as_map().clone())),
        ("properties", Value::Object(letter.message.properties.as_map().clone())),
        ("body", Value::from(String::from_utf8_lossy(&letter.message.body).as_ref())),
    ])
}

/// A queue in numbers.
pub fn queue(view: &QueueView) -> Value {
    object([
        ("queue", Value::from(view.name.as_str())),
        ("ready", count(view.ready)),
        ("scheduled", count(view.scheduled)),
        ("leased", count(view.leased)),
        ("dead", count(view.dead)),
        ("oldest", time(view.oldest)),
        ("consumers", count(view.consumers.len() as u64)),
        ("paused", Value::from(view.paused)),
    ])
}

/// A waiting message; its body stays where it is.
pub fn stored(stored: &Stored) -> Value {
    let message = &stored.outgoing.message;
    object([
        ("row", Value::from(stored.row)),
        ("headers", Value::Object(message.headers.as_map().clone())),
        ("properties", Value::Object(message.properties.as_map().clone())),
        ("enqueued_at", time(stored.outgoing.enqueued_at)),
    ])
}

/// A node of ours, dead or alive.
pub fn node(node: &NodeView) -> Value {
    let queues = node.info.queues.iter().map(|queue| Value::from(queue.as_str()));
    object([
        ("name", Value::from(node.info.name.as_str())),
        ("pid", Value::from(i64::from(node.info.pid))),
        ("alive", Value::from(node.alive)),
        ("started_at", time(Some(node.started_at))),
        ("seen_at", time(Some(node.seen_at))),
        ("concurrency", Value::from(i64::from(node.info.concurrency))),
        ("pool", Value::from(node.info.pool.as_str())),
        ("active", Value::from(i64::from(node.heartbeat.active))),
        ("processed", count(node.heartbeat.processed)),
        ("queues", Value::Array(queues.collect())),
        ("tasks", node.info.tasks.iter().map(String::as_str).collect()),
    ])
}

/// What a limit or a pause is for.
pub fn target(target: &Target) -> Map {
    Map::from([("kind", target.kind()), ("name", target.name())])
}

/// A limit and where it stands.
pub fn limit(view: &LimitView) -> Value {
    let rule = &view.rule;
    let rates = rule.rates.iter().map(|rate| Value::from(rate.to_string())).collect();
    let mut fields = target(&rule.target);
    fields.insert("rates", Value::Array(rates));
    fields.insert("concurrency", rule.concurrency.map_or(Value::Null, |most| count(most.into())));
    fields.insert("per_key", rule.per_key);
    fields.insert("running", count(view.running));
    fields.insert("origin", rule.origin.as_str());
    fields.insert("in_force", view.in_force);
    fields.insert("next_at", time(view.next_at));
    Value::Object(fields)
}

/// A pause.
pub fn pause(pause: &Pause) -> Value {
    let mut fields = target(&pause.target);
    fields.insert("since", time(Some(pause.since)));
    fields.insert("reason", pause.reason.as_str());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_has_not_become_text() {
        let value = Value::parse(b"[NaN, {\"a\": -Infinity}, 1.50]").unwrap();
        assert_eq!(strict(&value).to_string(), r#"["NaN", {"a": "-Infinity"}, 1.50]"#);
    }
}
