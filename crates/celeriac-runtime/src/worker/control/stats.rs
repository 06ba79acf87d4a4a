//! The answer to `stats` (celery 5.7.0 worker/worker.py `WorkController.stats`, wire 7.5).

use super::snapshot::{Answer, PoolView, Snapshot};
use celeriac_wire::{Map, Value};
use std::time::Duration;

pub(super) fn stats(snapshot: &Snapshot) -> Answer {
    let totals: Map = snapshot.totals.iter().map(|(task, count)| (task.as_str(), *count)).collect();
    let mut shown = Map::from([
        ("total", Value::Object(totals)),
        ("pid", Value::from(snapshot.pid)),
        ("clock", Value::from(snapshot.clock.to_string())),
        ("uptime", Value::from(snapshot.uptime.as_secs())),
        ("pool", pool(snapshot)),
        ("broker", Value::Object(snapshot.options.broker.clone())),
        ("prefetch_count", Value::from(snapshot.pool.slots)),
        ("rusage", snapshot.rusage.clone()),
    ]);
    if let Some(bounds) = snapshot.autoscale {
        let autoscaler = Map::from([
            ("max", Value::from(bounds.max)),
            ("min", Value::from(bounds.min)),
            ("current", Value::from(snapshot.pool.slots)),
            ("qty", Value::from(snapshot.running.len())),
        ]);
        shown.insert("autoscaler", Value::Object(autoscaler));
    }
    Answer::just(Value::Object(shown))
}

fn pool(snapshot: &Snapshot) -> Value {
    let pool = &snapshot.pool;
    let limits = snapshot.orders.defaults();
    let timeouts = [limits.soft, limits.hard].map(|limit| seconds(limit.unwrap_or_default()));
    let tasks_max = pool.tasks_max.map_or(Value::from("N/A"), Value::from);
    let mut shown = Map::from([
        ("implementation", Value::from(format!("celeriac:{}", pool.kind))),
        ("max-concurrency", Value::from(pool.slots)),
        ("processes", pool.processes.iter().map(|process| process.pid).collect()),
        ("max-tasks-per-child", tasks_max),
        ("put-guarded-by-semaphore", Value::from(true)),
        ("timeouts", timeouts.into_iter().collect()),
    ]);
    if pool.kind == "process" {
        shown.insert("writes", writes(pool));
    }
    Value::Object(shown)
}

/// How the tasks are spread over the children (celery 5.7.0 concurrency/asynpool.py
/// `human_write_stats`).
fn writes(pool: &PoolView) -> Value {
    let taken: Vec<u64> = pool.processes.iter().map(|process| process.taken).collect();
    let total: u64 = taken.iter().sum();
    let share = |count: f64| {
        let share = if total == 0 { 0.0 } else { count / total as f64 };
        format!("{share:.2}")
    };
    let average = if taken.is_empty() { 0.0 } else { total as f64 / taken.len() as f64 };
    let all: Vec<String> = taken.iter().map(|count| share(*count as f64)).collect();
    let raw: Vec<String> = taken.iter().map(ToString::to_string).collect();
    let busy = pool.processes.iter().filter(|process| process.busy).count();
    let queues = Map::from([("total", Value::from(taken.len())), ("active", Value::from(busy))]);
    Value::Object(Map::from([
        ("total", Value::from(total)),
        ("avg", Value::from(share(average))),
        ("all", Value::from(all.join(", "))),
        ("raw", Value::from(raw.join(", "))),
        ("strategy", Value::from("fair")),
        ("inqueues", Value::Object(queues)),
    ]))
}

/// Whole seconds as an integer, as people configure them.
fn seconds(limit: Duration) -> Value {
    if limit.subsec_nanos() == 0 {
        Value::from(limit.as_secs())
    } else {
        Value::from(limit.as_secs_f64())
    }
}
