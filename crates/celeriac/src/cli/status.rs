//! `celeriac status`.

use super::Session;
use super::exit::Failed;
use super::limit::target_fields;
use super::output::{clock, object, plural, span};
use super::remote::WhomArgs;
use crate::remote::Ask;
use celeriac_core::clock::between;
use celeriac_core::document;
use celeriac_core::store::{DeadFilter, NodeView, Store};
use celeriac_wire::{Map, Value};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  celeriac status
  celeriac status --json -t 3s

Exit code 69: no worker replied. A worker that is up and does not answer is not lost: its leases stand.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    whom: WhomArgs,
}

impl StatusArgs {
    /// Whether it prints JSON although the global flag does not say so.
    pub(super) fn json(&self) -> bool {
        self.whom.json()
    }
}

/// Pings whoever may be there; nobody is waited for where nobody can be.
async fn replies(
    session: &Session,
    store: &dyn Store,
    nodes: &[NodeView],
    mut whom: Ask,
) -> Result<Vec<String>, Failed> {
    let alive = nodes.iter().filter(|node| node.alive).count();
    if !store.has_stock_nodes() && whom.destination.is_empty() {
        if alive == 0 {
            return Ok(Vec::new());
        }
        whom.count_max = Some(alive);
    }
    let replies = session.app.remote().await?.ask("ping", Map::default(), &whom).await?;
    Ok(replies.into_iter().map(|(node, _)| node).collect())
}

pub(super) async fn run(session: &Session, args: StatusArgs) -> Result<ExitCode, Failed> {
    let whom = args.whom.ask(Duration::ZERO)?;
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let nodes = store.nodes().await?;
    let replies = replies(session, &*store, &nodes, whom).await?;
    let code = if replies.is_empty() { ExitCode::from(69) } else { ExitCode::SUCCESS };
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
        ("workers", Value::Array(nodes.iter().map(document::node).collect())),
        ("replied", replies.iter().map(String::as_str).collect()),
        (
            "paused",
            Value::Array(
                pauses.iter().map(|pause| Value::Object(target_fields(&pause.target))).collect(),
            ),
        ),
        ("messages", object(totals.map(|(name, count)| (name, Value::from(count as i64))))),
    ]));
    if session.output.is_json() {
        return Ok(code);
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
    let known = |name: &String| nodes.iter().any(|node| node.info.name == *name);
    for stranger in replies.iter().filter(|name| !known(name)) {
        session.output.line(format!("{stranger}: OK, a worker of Celery"));
    }
    session.output.line(format!("\n{} online.", plural(replies.len() as u64, "node")));
    Ok(code)
}
