//! `celeriac status`.

use super::Session;
use super::exit::Failed;
use super::limit::target_fields;
use super::output::{clock, object, span, time};
use celeriac_core::clock::between;
use celeriac_core::store::{DeadFilter, NodeView};
use celeriac_wire::Value;
use std::process::ExitCode;

pub(super) async fn run(session: &Session) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let nodes = store.nodes().await?;
    let queues = store.queues().await?;
    let dead = store.dead_count(&DeadFilter::default()).await?;
    let pauses = store.pauses().await?;
    let sum =
        |count: fn(&celeriac_core::store::QueueView) -> u64| queues.iter().map(count).sum::<u64>();
    let totals = [
        ("ready", sum(|queue| queue.ready)),
        ("scheduled", sum(|queue| queue.scheduled)),
        ("leased", sum(|queue| queue.leased)),
        ("dead", dead),
    ];
    session.output.value(&object([
        ("store", Value::from(store.location())),
        ("workers", Value::Array(nodes.iter().map(json).collect())),
        (
            "paused",
            Value::Array(
                pauses.iter().map(|pause| Value::Object(target_fields(&pause.target))).collect(),
            ),
        ),
        ("messages", object(totals.map(|(name, count)| (name, Value::from(count as i64))))),
    ]));
    if session.output.is_json() {
        return Ok(ExitCode::SUCCESS);
    }
    session.output.line(format!("store  {}", store.location()));
    let words: Vec<String> = totals.iter().map(|(name, count)| format!("{count} {name}")).collect();
    session.output.line(format!("tasks  {}\n", words.join(", ")));
    for pause in &pauses {
        let reason = if pause.reason.is_empty() { "" } else { ": " };
        session.output.line(format!("paused {}{reason}{}", pause.target, pause.reason));
    }
    let rows = nodes.iter().map(|node| {
        let queues: Vec<&str> =
            node.info.queues.iter().map(celeriac_core::QueueName::as_str).collect();
        let state = if node.alive {
            format!("up {}", span(between(node.started_at, now)))
        } else {
            format!("gone since {}", clock(node.seen_at))
        };
        let cells = vec![
            node.info.name.clone(),
            node.info.pid.to_string(),
            state,
            format!("{}/{}", node.heartbeat.active, node.info.concurrency),
            node.heartbeat.processed.to_string(),
            queues.join(","),
        ];
        (cells, Value::Null)
    });
    let header = ["WORKER", "PID", "STATE", "BUSY", "DONE", "QUEUES"];
    session.output.list(&header, rows.collect(), "no worker has been seen within a day");
    Ok(ExitCode::SUCCESS)
}

fn json(node: &NodeView) -> Value {
    let names = |names: Vec<Value>| Value::Array(names);
    object([
        ("name", Value::from(node.info.name.as_str())),
        ("pid", Value::from(i64::from(node.info.pid))),
        ("alive", Value::from(node.alive)),
        ("started_at", time(Some(node.started_at))),
        ("seen_at", time(Some(node.seen_at))),
        ("concurrency", Value::from(i64::from(node.info.concurrency))),
        ("pool", Value::from(node.info.pool.as_str())),
        ("active", Value::from(i64::from(node.heartbeat.active))),
        ("processed", Value::from(node.heartbeat.processed as i64)),
        (
            "queues",
            names(node.info.queues.iter().map(|queue| Value::from(queue.as_str())).collect()),
        ),
        ("tasks", names(node.info.tasks.iter().map(|task| Value::from(task.as_str())).collect())),
    ])
}
