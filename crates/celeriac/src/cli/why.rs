//! `celeriac why`: why a task does not run.

use super::Session;
use super::exit::Failed;
use super::output::object;
use crate::remote::{Ask, Remote};
use celeriac_core::document::text;
use celeriac_core::store::{Diagnose, LimitView, NodeView, Pause, Phase, Store};
use celeriac_core::why::{Cause, Said, Verdict, WhyFacts, WorkerFacts, why};
use celeriac_wire::{Map, Value};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

const EXAMPLES: &str = "Examples:
  celeriac why 0193…
  celeriac why 0193… 0194… --json

It reads the store, and where there may be workers of Celery it asks them too (active,
reserved, scheduled, revoked, active_queues, registered). Exit code 5: nobody knows one of the tasks.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WhyArgs {
    /// The task ids
    #[arg(required = true)]
    ids: Vec<String>,
    /// How long Celery's workers may take to answer
    #[arg(short, long, value_name = "TIME", default_value = "1s")]
    timeout: String,
}

/// What is the same for all tasks.
struct House {
    workers: Vec<WorkerFacts>,
    pauses: Vec<Pause>,
    limits: Vec<LimitView>,
    /// What workers of Celery say of tasks that they hold.
    said: BTreeMap<String, (String, Said)>,
    /// What they remember to be revoked.
    revoked: BTreeSet<String>,
}

pub(super) async fn run(session: &Session, args: WhyArgs) -> Result<ExitCode, Failed> {
    let patience = super::call::duration("--timeout", &args.timeout)?;
    let app = &session.app;
    let store = app.store().await?;
    let house = house(session, &store, &Ask::default().within(patience)).await?;
    let outside = if store.has_stock_nodes() {
        Some(celeriac_stores::diagnose(&app.settings().broker_url.value, app.resources())?)
    } else {
        None
    };
    let mut known = true;
    let mut answers = Vec::new();
    for id in &args.ids {
        let (verdict, name, queue) = one(session, &*store, &house, outside.as_deref(), id).await?;
        known &= verdict.cause != Cause::Unknown;
        print(session, id, &verdict, answers.is_empty());
        answers.push(json(id, &verdict, name.as_deref(), queue.as_deref()));
    }
    session.output.value(&Value::Array(answers));
    Ok(if known { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

async fn one(
    session: &Session,
    store: &dyn Store,
    house: &House,
    outside: Option<&dyn Diagnose>,
    id: &str,
) -> Result<(Verdict, Option<String>, Option<String>), Failed> {
    let mut view = store.task(id).await?;
    let said = house.said.get(id).cloned();
    if let Some(outside) = outside
        && view.phase == Phase::Unknown
        && said.is_none()
        && let Some(unlisted) = outside.unlisted(id).await?
    {
        let position = Some(unlisted.position);
        view.phase = Phase::Queued { position, paused: false, limited: false, revoked: false };
        view.task = unlisted.message.headers.task().map(str::to_owned);
        view.queue = Some(unlisted.queue);
        view.message = Some(unlisted.message);
    }
    let elsewhere = match outside {
        Some(outside) if view.phase == Phase::Unknown && said.is_none() => {
            outside.held_elsewhere(id).await?
        }
        _ => None,
    };
    let facts = WhyFacts {
        view: &view,
        now: session.app.clock().wall(),
        workers: &house.workers,
        pauses: &house.pauses,
        limits: &house.limits,
        said,
        revoked: house.revoked.contains(id),
        elsewhere,
    };
    Ok((why(&facts), view.task.clone(), view.queue.clone()))
}

async fn house(session: &Session, store: &Arc<dyn Store>, whom: &Ask) -> Result<House, Failed> {
    let nodes = store.nodes().await?;
    let alive: Vec<&NodeView> = nodes.iter().filter(|node| node.alive).collect();
    let mut house = House {
        workers: alive.iter().map(|node| of_node(node)).collect(),
        pauses: store.pauses().await?,
        limits: store.limits_in_force().await?,
        said: BTreeMap::new(),
        revoked: BTreeSet::new(),
    };
    if store.has_stock_nodes() {
        let ours: BTreeSet<&str> = alive.iter().map(|node| node.info.name.as_str()).collect();
        ask_strangers(&session.app.remote().await?, &ours, whom, &mut house).await?;
    }
    Ok(house)
}

fn of_node(node: &NodeView) -> WorkerFacts {
    WorkerFacts {
        name: node.info.name.clone(),
        queues: node.info.queues.iter().map(ToString::to_string).collect(),
        tasks: node.info.tasks.clone(),
        is_free: Some(node.heartbeat.active < node.info.concurrency),
    }
}

/// What workers of Celery say; those of ours are in the store.
async fn ask_strangers(
    remote: &Remote,
    ours: &BTreeSet<&str>,
    whom: &Ask,
    house: &mut House,
) -> Result<(), Failed> {
    let ask = async |method: &str| {
        let replies = remote.ask(method, Map::default(), whom).await?;
        let strangers = replies.into_iter().filter(|(node, _)| !ours.contains(node.as_str()));
        Ok::<_, Failed>(strangers.collect::<Vec<_>>())
    };
    let (active, reserved, scheduled, revoked, queues, registered) = tokio::try_join!(
        ask("active"),
        ask("reserved"),
        ask("scheduled"),
        ask("revoked"),
        ask("active_queues"),
        ask("registered"),
    )?;
    for (node, tasks) in &reserved {
        note(house, node, tasks, Said::Reserved);
    }
    for (node, entries) in &scheduled {
        for entry in items(entries) {
            let eta = entry.get("eta").and_then(Value::as_str);
            let at = eta.and_then(|eta| celeriac_wire::parse_iso(eta).ok());
            let task = Value::Array(entry.get("request").cloned().into_iter().collect());
            note(house, node, &task, Said::Scheduled(at));
        }
    }
    for (node, tasks) in &active {
        note(house, node, tasks, Said::Active);
    }
    let ids = revoked.iter().flat_map(|(_, ids)| items(ids)).filter_map(Value::as_str);
    house.revoked.extend(ids.map(str::to_owned));
    for (node, consumed) in &queues {
        let names = items(consumed).iter().filter_map(|one| one.get("name")?.as_str());
        let known = registered.iter().find(|(name, _)| name == node);
        // `name [rate_limit=10/m]`
        let tasks = known.into_iter().flat_map(|(_, tasks)| items(tasks)).filter_map(Value::as_str);
        house.workers.push(WorkerFacts {
            name: node.clone(),
            queues: names.map(str::to_owned).collect(),
            tasks: tasks.filter_map(|task| task.split(' ').next().map(str::to_owned)).collect(),
            is_free: None,
        });
    }
    Ok(())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_default()
}

fn note(house: &mut House, node: &str, tasks: &Value, said: Said) {
    for task in items(tasks) {
        if let Some(id) = task.get("id").and_then(Value::as_str) {
            house.said.insert(id.to_owned(), (node.to_owned(), said));
        }
    }
}

fn print(session: &Session, id: &str, verdict: &Verdict, is_first: bool) {
    let gap = if is_first { "" } else { "\n" };
    session.output.line(format!("{gap}{id}: {}", verdict.sentence));
    for line in &verdict.evidence {
        session.output.line(format!("  {line}"));
    }
    if !verdict.next.is_empty() {
        session.output.line(format!("  next: {}", verdict.next));
    }
}

fn json(id: &str, verdict: &Verdict, name: Option<&str>, queue: Option<&str>) -> Value {
    object([
        ("task_id", Value::from(id)),
        ("cause", Value::from(verdict.cause.as_str())),
        ("sentence", Value::from(verdict.sentence.as_str())),
        ("evidence", verdict.evidence.iter().map(String::as_str).collect()),
        ("next", Value::from(verdict.next.as_str())),
        ("name", text(name)),
        ("queue", text(queue)),
    ])
}
