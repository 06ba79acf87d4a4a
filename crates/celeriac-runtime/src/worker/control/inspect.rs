//! Answers that only look (celery 5.7.0 worker/control.py, worker/request.py `Request.info`).

use super::python::{human_bytes, ok, raised};
use super::snapshot::{Answer, Deed, Snapshot};
use celeriac_core::exchange::Binding;
use celeriac_core::store::Delivery;
use celeriac_wire::{Map, Message, Value, codec, print_iso};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::time::Duration;

/// The attributes that `registered` shows when it is not told (celery 5.7.0 worker/control.py
/// `DEFAULT_TASK_INFO_ITEMS`).
const TASK_INFO: [&str; 3] = ["exchange", "routing_key", "rate_limit"];
/// Celery's timer runs task requests at this priority (kombu 5.7.0 asynchronous/timer.py, celery
/// worker/strategy.py).
const TIMER_PRIORITY: i64 = 6;

pub(super) fn active(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let safe = truthy(arguments.get("safe"));
    let running = snapshot.running.iter();
    Answer::just(
        running
            .map(|run| {
                let place = Place::of(&run.delivery);
                info(snapshot, &place, Some(run.started_at), run.pid, safe)
            })
            .collect(),
    )
}

pub(super) fn query_task(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let wanted = list(arguments.get("ids"));
    let mut found = Map::new();
    for run in &snapshot.running {
        let id = run.delivery.message.headers.id().unwrap_or_default();
        if wanted.iter().any(|one| one == id) {
            let place = Place::of(&run.delivery);
            let shown = info(snapshot, &place, Some(run.started_at), run.pid, false);
            found.insert(id, Value::Array(vec![Value::from("active"), shown]));
        }
    }
    Answer::just(Value::Object(found))
}

pub(super) fn scheduled(snapshot: &Snapshot) -> Answer {
    let entry = |one: &super::snapshot::Scheduled| {
        let place = Place { message: &one.message, queue: &one.queue, redelivered: false };
        Value::Object(Map::from([
            ("eta", Value::from(print_iso(one.until))),
            ("priority", Value::from(TIMER_PRIORITY)),
            ("request", info(snapshot, &place, None, None, false)),
        ]))
    };
    Answer::just(snapshot.scheduled.iter().map(entry).collect())
}

pub(super) fn registered(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let mut wanted = list(arguments.get("taskinfoitems"));
    if wanted.is_empty() {
        wanted = TASK_INFO.map(str::to_owned).to_vec();
    }
    let builtins = truthy(arguments.get("builtins"));
    let names = snapshot.registry.names();
    let shown = |name: &&String| builtins || !name.starts_with("celery.");
    let line = |name: &String| {
        let facts: Vec<String> = wanted
            .iter()
            .filter_map(|item| Some(format!("{item}={}", attribute(snapshot, name, item)?)))
            .collect();
        if facts.is_empty() { name.clone() } else { format!("{name} [{}]", facts.join(" ")) }
    };
    Answer::just(names.iter().filter(shown).map(line).collect())
}

/// An attribute of a task, where a native task has it, as Python's `str` prints it.
fn attribute(snapshot: &Snapshot, task: &str, name: &str) -> Option<String> {
    let handler = snapshot.registry.find(task)?;
    let policy = handler.policy();
    let limits = snapshot.orders.limits(task, policy);
    let boolean = |flag: bool| if flag { "True" } else { "False" }.to_owned();
    match name {
        "name" => Some(task.to_owned()),
        "rate_limit" => snapshot.rates.get(task).map(ToString::to_string),
        "time_limit" => limits.hard.map(seconds),
        "soft_time_limit" => limits.soft.map(seconds),
        "ignore_result" => Some(boolean(policy.ignore_result)),
        "acks_late" => Some(boolean(true)),
        "max_retries" => policy.retry.max_retries.map(|count| count.to_string()),
        _ => None,
    }
}

fn seconds(span: Duration) -> String {
    if span.subsec_nanos() == 0 {
        span.as_secs().to_string()
    } else {
        span.as_secs_f64().to_string()
    }
}

pub(super) fn active_queues(snapshot: &Snapshot) -> Answer {
    Answer::just(snapshot.queues.iter().map(queue).collect())
}

/// A queue as kombu's `Queue.as_dict(recurse=True)` shows it.
fn queue(binding: &Binding) -> Value {
    let exchange = Map::from([
        ("name", Value::from(binding.exchange.as_str())),
        ("type", Value::from(binding.kind.as_str())),
        ("arguments", Value::Null),
        ("durable", Value::from(true)),
        ("passive", Value::from(false)),
        ("auto_delete", Value::from(false)),
        ("delivery_mode", Value::Null),
        ("no_declare", Value::from(false)),
    ]);
    Value::Object(Map::from([
        ("name", Value::from(binding.queue.as_str())),
        ("exchange", Value::Object(exchange)),
        ("routing_key", Value::from(binding.routing_key.as_str())),
        ("queue_arguments", Value::Null),
        ("binding_arguments", Value::Null),
        ("consumer_arguments", Value::Null),
        ("durable", Value::from(true)),
        ("exclusive", Value::from(false)),
        ("auto_delete", Value::from(false)),
        ("no_ack", Value::from(false)),
        ("alias", Value::Null),
        ("bindings", Value::Array(Vec::new())),
        ("no_declare", Value::Null),
        ("expires", Value::Null),
        ("message_ttl", Value::Null),
        ("max_length", Value::Null),
        ("max_length_bytes", Value::Null),
        ("max_priority", Value::Null),
    ]))
}

pub(super) fn conf(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let mut conf = snapshot.options.conf.clone();
    if truthy(arguments.get("with_defaults")) {
        for (name, value) in snapshot.options.conf_defaults.iter() {
            if !conf.contains_key(name) {
                conf.insert(name, value.clone());
            }
        }
    }
    Answer::just(Value::Object(conf))
}

pub(super) fn hello(snapshot: &Snapshot, arguments: &Map) -> Answer {
    if arguments.get("from_node").and_then(Value::as_str) == Some(&*snapshot.node) {
        return Answer::just(Value::Null);
    }
    let reply = Value::Object(Map::from([
        ("revoked", snapshot.revoked.iter().map(String::as_str).collect()),
        ("clock", Value::from(snapshot.clock)),
    ]));
    // Older versions send an object of ids and times (celery 5.6 worker/control.py).
    let told = match arguments.get("revoked") {
        Some(Value::Object(map)) => map.keys().map(str::to_owned).collect(),
        other => list(other),
    };
    let ids: Vec<String> = told.into_iter().filter(|id| !snapshot.revoked.contains(id)).collect();
    if ids.is_empty() {
        return Answer::just(reply);
    }
    Answer::after(Deed::Revoke { ids, terminate: false, signal: None }, reply)
}

pub(super) fn memsample(snapshot: &Snapshot) -> Answer {
    match snapshot.memory.map(human_bytes) {
        None => Answer::just(Value::Null),
        Some(text) => Answer::after(Deed::Sample(text.clone()), Value::from(text)),
    }
}

pub(super) fn memdump(snapshot: &Snapshot, arguments: &Map) -> Answer {
    let Some(memory) = snapshot.memory else {
        let text = "- rss: (this system does not tell).\n";
        return Answer::just(Value::from(text));
    };
    let count = arguments.get("samples").and_then(Value::as_u64).unwrap_or(10).max(1) as usize;
    let samples = &snapshot.samples;
    let step = samples.len().div_ceil(count).max(1);
    let mut text = String::new();
    if !samples.is_empty() {
        text.push_str("- rss (sample):\n");
        for sample in samples.iter().step_by(step) {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "-    > {sample},");
        }
    }
    let _infallible = writeln!(text, "- rss (end): {}.", human_bytes(memory));
    Answer::after(Deed::ForgetSamples, Value::from(text))
}

pub(super) fn report(snapshot: &Snapshot) -> Answer {
    Answer::just(ok(&snapshot.options.report))
}

pub(super) fn objgraph() -> Answer {
    let text = "objgraph draws the objects of a Python process; this node is celeriac and has none";
    Answer::just(raised("NotImplementedError", text))
}

/// A message and what is known of it.
struct Place<'a> {
    message: &'a Message,
    queue: &'a str,
    redelivered: bool,
}

impl<'a> Place<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let (message, queue) = (&delivery.message, delivery.queue.as_str());
        Self { message, queue, redelivered: delivery.redelivered }
    }
}

/// A task as Python's `Request.info` shows it. What is acknowledged late is not while it runs.
fn info(
    snapshot: &Snapshot,
    place: &Place<'_>,
    started_at: Option<Timestamp>,
    pid: Option<u32>,
    safe: bool,
) -> Value {
    let headers = &place.message.headers;
    let name = headers.task().unwrap_or_default();
    let early = snapshot.registry.find(name).is_some_and(|handler| !handler.policy().acks.late);
    let read = || codec::read(place.message, snapshot.registry.accept()).ok();
    let hidden = snapshot.registry.seals().hide();
    let body = if safe || hidden { None } else { read().map(|read| read.body) };
    // What cannot be read is shown as its sender described it.
    let (args, kwargs) = body.map_or_else(
        || (Value::from(headers.argsrepr()), Value::from(headers.kwargsrepr())),
        |body| (Value::Array(body.args), Value::Object(body.kwargs)),
    );
    let sent = place.message.properties.delivery_info();
    let key = if sent.routing_key.is_empty() { place.queue } else { &sent.routing_key };
    let delivery_info = Map::from([
        ("exchange", Value::from(sent.exchange.as_str())),
        ("routing_key", Value::from(key)),
        ("priority", Value::from(place.message.properties.priority().unwrap_or(0))),
        ("redelivered", Value::from(place.redelivered)),
    ]);
    let since = started_at.map(|at| Value::from(at.as_nanosecond() as f64 / 1e9));
    Value::Object(Map::from([
        ("id", Value::from(headers.id())),
        ("name", Value::from(headers.shown_name().unwrap_or_default())),
        ("args", args),
        ("kwargs", kwargs),
        ("type", Value::from(name)),
        ("hostname", Value::from(&*snapshot.node)),
        ("time_start", since.unwrap_or_default()),
        ("acknowledged", Value::from(early && started_at.is_some())),
        ("delivery_info", Value::Object(delivery_info)),
        ("worker_pid", Value::from(pid)),
    ]))
}

/// Python's truth of an argument, and of the words that Celery's command line sends for it.
pub(super) fn truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

/// A text or a list of texts, as kombu's `maybe_list`.
pub(super) fn list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
