//! Answers that change something (celery 5.7.0 worker/control.py).

use super::super::orders::{Limits, STAMPS_MAX, stamp_list, stamps_of};
use super::inspect::{list, truthy};
use super::python::{error, ok, quoted, raised};
use super::snapshot::{Answer, Deed, Snapshot};
use celeriac_core::QueueName;
use celeriac_core::exchange::{Binding, check_name};
use celeriac_core::throttle::Rate;
use celeriac_wire::repr::kwargs_repr_within;
use celeriac_wire::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most slots of a worker, however often its pool grows.
pub(super) const SLOTS_MAX: usize = 10_000;
/// The most task ids that one request revokes.
const IDS_MAX: usize = 50_000;
/// The longest text of stamps in an answer, in characters.
const SHOWN_CHARS_MAX: usize = 100_000;
/// The signals that Python knows by name on Linux, in the order of their numbers from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

pub(super) fn revoke(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let ids: BTreeSet<String> = list(arguments.get("task_id")).into_iter().collect();
    if ids.len() > IDS_MAX {
        let text = format!("{} ids in one request, at most {IDS_MAX} go", ids.len());
        return Answer::just(raised("ValueError", &text));
    }
    let terminate = truthy(arguments.get("terminate"));
    let reply = if terminate {
        if let Some(wrong) = wrong_signal(arguments.get("signal")) {
            return Answer::just(wrong);
        }
        let known: Vec<&str> = snapshot
            .running
            .iter()
            .filter_map(|run| run.delivery.message.headers.id())
            .filter(|id| ids.contains(*id))
            .collect();
        if known.is_empty() {
            ok("terminate: tasks unknown")
        } else {
            ok(&format!("terminate: {}", known.join(", ")))
        }
    } else {
        ok(&format!("tasks {} flagged as revoked", set(ids.iter())))
    };
    if ids.is_empty() {
        return Answer::just(reply);
    }
    let signal = number_of(arguments.get("signal"));
    Answer::after(Deed::Revoke { ids: ids.into_iter().collect(), terminate, signal }, reply)
}

pub(super) fn terminate(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let mut arguments = arguments.clone();
    arguments.insert("terminate", true);
    revoke(snapshot, &arguments)
}

/// A set of texts as Python prints it.
fn set<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts.map(|text| quoted(text)).collect();
    if texts.is_empty() { "set()".to_owned() } else { format!("{{{}}}", texts.join(", ")) }
}

/// The number of a signal that is named or numbered.
fn number_of(signal: Option<&Value>) -> Option<i32> {
    let known = 1..=SIGNALS.len() as i64;
    let number = match signal? {
        Value::String(name) => {
            let short = name.strip_prefix("SIG").unwrap_or(name);
            SIGNALS.iter().position(|known| *known == short)? as i64 + 1
        }
        other => other.as_i64()?,
    };
    known.contains(&number).then(|| i32::try_from(number).ok())?
}

/// What Celery says of a signal that does not exist. A running task is told to stop by that signal,
/// and stopped if it does not.
fn wrong_signal(signal: Option<&Value>) -> Option<Value> {
    match signal {
        None | Some(Value::Null) => None,
        Some(number) if number.as_i64().is_some() => None,
        Some(Value::String(name)) if name.is_empty() => None,
        Some(Value::String(name)) => {
            let upper =
                name.chars().any(char::is_alphabetic) && !name.chars().any(char::is_lowercase);
            if !upper {
                return Some(raised("TypeError", "signal name must be uppercase string."));
            }
            let short = name.strip_prefix("SIG").unwrap_or(name);
            (!SIGNALS.contains(&short)).then(|| {
                let text = format!("module 'signal' has no attribute 'SIG{short}'");
                raised("AttributeError", &text)
            })
        }
        Some(_) => Some(raised("TypeError", "signal name must be uppercase string.")),
    }
}

pub(super) fn revoke_by_stamped_headers(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let terminate = truthy(arguments.get("terminate"));
    if let Some(wrong) = wrong_signal(arguments.get("signal")) {
        return Answer::just(wrong);
    }
    let headers = match arguments.get("headers") {
        Some(Value::Object(map)) => map.clone(),
        Some(Value::Array(pairs)) => {
            let mut map = Map::new();
            for pair in pairs.iter().filter_map(Value::as_str) {
                let mut parts = pair.split('=');
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                    return Answer::just(raised("IndexError", "list index out of range"));
                };
                map.insert(name, value);
            }
            map
        }
        other => {
            let found = other.map_or_else(|| "nothing".to_owned(), Value::describe);
            let text = format!("headers must be an object or a list of k=v, not {found}");
            return Answer::just(raised("TypeError", &text));
        }
    };
    let revoked: BTreeMap<String, Vec<String>> =
        headers.iter().map(|(name, value)| (name.to_owned(), stamp_list(value))).collect();
    let count = revoked.values().map(Vec::len).sum::<usize>() + snapshot.orders.stamps();
    if count > STAMPS_MAX {
        let text = format!("a worker remembers at most {STAMPS_MAX} revoked stamps");
        return Answer::just(raised("ValueError", &text));
    }
    let mut deeds: Vec<Deed> = revoked
        .iter()
        .map(|(header, stamps)| Deed::RevokeStamps {
            header: header.clone(),
            stamps: stamps.clone(),
        })
        .collect();
    let shown = kwargs_repr_within(&headers, SHOWN_CHARS_MAX);
    if !terminate {
        let reply = ok(&format!("headers {shown} flagged as revoked, but not terminated"));
        return Answer { reply: Some(reply), deeds };
    }
    let (ids, matched) = running_with(snapshot, &revoked);
    let reply = if ids.is_empty() {
        ok(&format!("headers {shown} were not terminated"))
    } else {
        let sets: Vec<String> = matched
            .iter()
            .map(|(header, stamps)| format!("{}: {}", quoted(header), set(stamps.iter())))
            .collect();
        let matched = sets.join(", ");
        let signal = number_of(arguments.get("signal"));
        deeds.push(Deed::Revoke { ids, terminate: true, signal });
        ok(&format!("headers defaultdict(<class 'set'>, {{{matched}}}) revoked"))
    };
    Answer { reply: Some(reply), deeds }
}

/// The running tasks that carry one of these stamps, and which.
fn running_with(
    snapshot: &Snapshot,
    revoked: &BTreeMap<String, Vec<String>>,
) -> (Vec<String>, BTreeMap<String, BTreeSet<String>>) {
    let mut ids = Vec::new();
    let mut matched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in &snapshot.running {
        let headers = &run.delivery.message.headers;
        let mut hit = false;
        for (header, stamps) in revoked {
            for stamp in stamps_of(headers, header) {
                if stamps.contains(&stamp) {
                    hit = true;
                    matched.entry(header.clone()).or_default().insert(stamp);
                }
            }
        }
        if hit {
            ids.extend(headers.id().map(str::to_owned));
        }
    }
    (ids, matched)
}

pub(super) fn rate_limit(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let value = arguments.get("rate_limit");
    let rate = match rate_of(value) {
        Ok(rate) => rate,
        Err(wrong) => return Answer::just(wrong),
    };
    let task = arguments.get("task_name").and_then(Value::as_str).unwrap_or_default();
    if snapshot.registry.find(task).is_none() {
        return Answer::just(error("unknown task"));
    }
    let text = if truthy(value) {
        "new rate limit set successfully"
    } else {
        "rate limit disabled successfully"
    };
    Answer::after(Deed::Rate { task: task.to_owned(), rate }, ok(text))
}

fn rate_of(value: Option<&Value>) -> Result<Option<Rate>, Value> {
    let text = match value {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.as_str().to_owned(),
        _ if !truthy(value) => return Ok(None),
        _ => return Err(raised("TypeError", "a rate is a number or a text such as '10/m'")),
    };
    Rate::parse(&text).map_err(|why| {
        let (count, unit) = text.split_once('/').unwrap_or((&text, "s"));
        if count.trim().parse::<f64>().is_err() {
            // Python's float() comes first and is what people know.
            let inner = format!("could not convert string to float: {}", quoted(count));
            return error(&format!("Invalid rate limit string: ValueError({})", quoted(&inner)));
        }
        if ["s", "m", "h"].contains(&unit) {
            return error(&format!("Invalid rate limit string: ValueError({})", quoted(&why)));
        }
        raised("KeyError", unit)
    })
}

pub(super) fn time_limit(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let task = arguments.get("task_name").and_then(Value::as_str).unwrap_or_default();
    if snapshot.registry.find(task).is_none() {
        return Answer::just(error("unknown task"));
    }
    let limit = |name: &str| match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(|limit| Some(limit).filter(|limit| !limit.is_zero()))
            .ok_or_else(|| {
                let text = format!("{name} is a number of seconds, not {}", value.describe());
                raised("ValueError", &text)
            }),
    };
    match (limit("soft"), limit("hard")) {
        (Ok(soft), Ok(hard)) => {
            let limits = Limits { soft, hard };
            let deed = Deed::Limits { task: task.to_owned(), limits };
            Answer::after(deed, ok("time limits set successfully"))
        }
        (Err(wrong), _) | (_, Err(wrong)) => Answer::just(wrong),
    }
}

/// What the application declares wins over what is asked, as in Celery (5.7.0
/// worker/consumer/consumer.py `add_task_queue`).
pub(super) fn add_consumer(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let text =
        |name: &str| arguments.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = match QueueName::parse(text("queue").unwrap_or_default()) {
        Ok(name) => name,
        Err(refusal) => return Answer::just(raised("ValueError", &refusal.to_string())),
    };
    let mut binding = snapshot.router.binding_of(&name);
    if binding == Binding::own(&name) {
        for (what, field) in
            [("exchange", &mut binding.exchange), ("routing_key", &mut binding.routing_key)]
        {
            if let Some(given) = text(what) {
                if let Err(refusal) = check_name(what, given) {
                    return Answer::just(raised("ValueError", &refusal.to_string()));
                }
                given.clone_into(field);
            }
        }
        match text("exchange_type").unwrap_or("direct").parse() {
            Ok(kind) => binding.kind = kind,
            Err(refusal) => return Answer::just(raised("ValueError", &refusal)),
        }
    }
    let reply = ok(&format!("add consumer {name}"));
    Answer::after(Deed::Consume(binding), reply)
}

pub(super) fn cancel_consumer(arguments: &Map) -> Answer {
    let text = arguments.get("queue").and_then(Value::as_str).unwrap_or_default();
    let reply = ok(&format!("no longer consuming from {text}"));
    match QueueName::parse(text) {
        Ok(name) => Answer::after(Deed::Cancel(name), reply),
        Err(refusal) => Answer::just(raised("ValueError", &refusal.to_string())),
    }
}

/// How many slots a request adds or takes.
fn count(arguments: &Map) -> Result<usize, Value> {
    match arguments.get("n") {
        None => Ok(1),
        Some(value) => value.as_u64().map(|n| n as usize).ok_or_else(|| {
            raised("TypeError", &format!("n is a whole number, not {}", value.describe()))
        }),
    }
}

pub(super) fn pool_grow(snapshot: &Snapshot, arguments: &Map) -> Answer {
    match count(arguments) {
        Err(wrong) => Answer::just(wrong),
        Ok(_) if snapshot.autoscale.is_some() => Answer::just(scaled("pool_grow")),
        Ok(n) if snapshot.pool.slots.saturating_add(n) > SLOTS_MAX => {
            let text = format!("a worker has at most {SLOTS_MAX} slots");
            Answer::just(raised("ValueError", &text))
        }
        Ok(n) => Answer::after(Deed::Resize(snapshot.pool.slots + n), ok("pool will grow")),
    }
}

/// Only idle slots go, and when there are fewer than asked for, those go all the same (billiard
/// 4.3 pool.py `Pool.shrink`).
pub(super) fn pool_shrink(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let n = match count(arguments) {
        Err(wrong) => return Answer::just(wrong),
        Ok(_) if snapshot.autoscale.is_some() => return Answer::just(scaled("pool_shrink")),
        Ok(n) => n,
    };
    let slots = snapshot.pool.slots;
    let idle = slots.saturating_sub(snapshot.running.len());
    let left = slots - n.min(idle);
    if n > idle {
        let reply = raised("ValueError", "Can't shrink pool. All processes busy!");
        return Answer::after(Deed::Resize(left), reply);
    }
    Answer::after(Deed::Resize(left), ok("pool will shrink"))
}

/// Celery's words for what the load decides.
fn scaled(command: &str) -> Value {
    error(&format!("{command} is not supported with autoscale. Adjust autoscale range instead."))
}

/// celery 5.7.0 worker/control.py `autoscale`.
pub(super) fn autoscale(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let Some(bounds) = snapshot.autoscale else {
        return Answer::just(raised("ValueError", "Autoscale not enabled"));
    };
    let given = |name: &str, now: usize| match arguments.get(name) {
        None | Some(Value::Null) => Ok(now),
        Some(value) => value
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= SLOTS_MAX)
            .ok_or_else(|| {
                let text = format!("{name} must be a number from 0 to {SLOTS_MAX}");
                Answer::just(raised("ValueError", &text))
            }),
    };
    let (max, min) = match (given("max", bounds.max), given("min", bounds.min)) {
        (Ok(max), Ok(min)) => (max, min),
        (Err(wrong), _) | (_, Err(wrong)) => return wrong,
    };
    if max < min || max == 0 {
        let text = format!("max {max} must be at least 1 and no less than min {min}");
        return Answer::just(raised("ValueError", &text));
    }
    let text = format!("autoscale now max={max} min={min}");
    Answer::after(Deed::Autoscale { max, min }, ok(&text))
}

pub(super) fn task_events(snapshot: &Snapshot, on: bool) -> Answer {
    let word = if on { "enabled" } else { "disabled" };
    if snapshot.task_events == on {
        return Answer::just(ok(&format!("task events already {word}")));
    }
    Answer::after(Deed::TaskEvents(on), ok(&format!("task events {word}")))
}

pub(super) fn shutdown() -> Answer {
    Answer { reply: None, deeds: vec![Deed::Shutdown] }
}
