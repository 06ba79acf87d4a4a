//! Looks at workers and controls them.

use crate::access::Principal;
use crate::extract::{Document, Json, Name};
use crate::problem::Problem;
use crate::schema::{ControlRequest, Replies, Status, Worker, WorkerList};
use crate::server::Shared;
use axum::Extension;
use axum::extract::State;
use celeriac_core::clock;
use celeriac_core::control::{COMMANDS, Command};
use celeriac_core::document::{count, object, time};
use celeriac_core::monitor::WorkerState;
use celeriac_core::store::{DeadFilter, NodeView, QueueView, ask};
use celeriac_wire::{Map, Value, print_iso, to_value};
use std::sync::Arc;
use std::time::Duration;

/// The longest wait for the next reply, in seconds: with it the whole answer stays below a request's
/// deadline.
const TIMEOUT_MAX: f64 = 10.0;
/// The most workers that one request names.
const DESTINATIONS_MAX: usize = 100;
/// The most workers that answer one request.
const REPLIES_MAX: usize = 5000;

/// Everything in a few numbers
#[utoipa::path(
    get, path = "/api/v1/status", tag = "observe", security(("token" = ["viewer"])),
    responses((status = 200, description = "The numbers", body = Status))
)]
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
) -> Result<Document, Problem> {
    let store = &shared.parts.store;
    let (queues, nodes) = (store.queues().await?, store.nodes().await?);
    let dead = store.dead_count(&DeadFilter::default()).await?;
    let pauses = store.pauses().await?;
    let sum = |part: fn(&QueueView) -> u64| count(queues.iter().map(part).sum());
    Ok(Document::ok(object([
        ("version", Value::from(shared.options.version.as_str())),
        ("store", Value::from(store.location())),
        ("workers", count(nodes.iter().filter(|node| node.alive).count() as u64)),
        ("ready", sum(|queue| queue.ready)),
        ("scheduled", sum(|queue| queue.scheduled)),
        ("leased", sum(|queue| queue.leased)),
        ("dead", count(dead)),
        ("pauses", count(pauses.len() as u64)),
        ("you", Value::from(principal.name)),
        ("role", Value::from(principal.role.as_str())),
    ])))
}

/// List workers
///
/// Those of celeriac from the store, those of Celery as their events tell since this server listens.
#[utoipa::path(
    get, path = "/api/v1/workers", tag = "workers", security(("token" = ["viewer"])),
    responses((status = 200, description = "The workers", body = WorkerList))
)]
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Result<Document, Problem> {
    shared.watch.begin();
    let nodes = shared.parts.store.nodes().await?;
    let now = shared.parts.clock.wall();
    let mut workers: Vec<Worker> = nodes.iter().map(ours).collect();
    {
        let heard = shared.watch.heard();
        let strangers = heard
            .monitor
            .workers()
            .filter(|one| !nodes.iter().any(|node| node.info.name == one.hostname));
        workers.extend(strangers.map(|worker| told(worker, now)));
    }
    let items = to_value(&workers).map_err(|error| Problem::invalid(error.to_string()))?;
    Ok(Document::ok(object([("items", items)])))
}

/// A worker of ours.
fn ours(node: &NodeView) -> Worker {
    Worker {
        name: node.info.name.clone(),
        software: "celeriac".to_owned(),
        alive: node.alive,
        pid: Some(i64::from(node.info.pid)),
        seen_at: Some(print_iso(node.seen_at)),
        active: Some(i64::from(node.heartbeat.active)),
        processed: Some(node.heartbeat.processed as i64),
        started_at: Some(print_iso(node.started_at)),
        concurrency: Some(i64::from(node.info.concurrency)),
        pool: Some(node.info.pool.clone()),
        queues: Some(node.info.queues.iter().map(ToString::to_string).collect()),
        tasks: Some(node.info.tasks.clone()),
    }
}

/// A worker that only its events tell of.
fn told(worker: &WorkerState, now: jiff::Timestamp) -> Worker {
    let number = |name: &str| worker.fields.get(name).and_then(Value::as_i64);
    let seen = worker
        .heartbeats
        .last()
        .and_then(|seconds| jiff::Timestamp::from_millisecond((seconds * 1e3) as i64).ok());
    let software = worker.fields.get("sw_ident").and_then(Value::as_str).unwrap_or("unknown");
    Worker {
        name: worker.hostname.clone(),
        software: software.to_owned(),
        alive: worker.is_alive(now),
        pid: number("pid"),
        seen_at: time(seen).as_str().map(str::to_owned),
        active: number("active"),
        processed: number("processed"),
        started_at: None,
        concurrency: None,
        pool: None,
        queues: None,
        tasks: None,
    }
}

/// Ask workers
///
/// Celery's `inspect`: ping, stats, active, reserved, scheduled, revoked, registered, conf and the rest.
#[utoipa::path(
    post, path = "/api/v1/inspect/{command}", tag = "workers", security(("token" = ["viewer"])),
    params(("command" = String, Path, description = "The command's name")),
    request_body = ControlRequest,
    responses((status = 200, description = "What they answer", body = Replies))
)]
pub(crate) async fn inspect(
    State(shared): State<Arc<Shared>>,
    Name(name): Name,
    Json { value: request, .. }: Json<ControlRequest>,
) -> Result<Document, Problem> {
    run(&shared, &name, true, request).await
}

/// Control workers
///
/// Celery's `control`: rate limits, time limits, consumers, pool size, revocations, shutdown and the rest.
#[utoipa::path(
    post, path = "/api/v1/control/{command}", tag = "workers", security(("token" = ["admin"])),
    params(("command" = String, Path, description = "The command's name")),
    request_body = ControlRequest,
    responses((status = 200, description = "What they answer", body = Replies))
)]
pub(crate) async fn control(
    State(shared): State<Arc<Shared>>,
    Extension(principal): Extension<Principal>,
    Name(name): Name,
    Json { value: request, .. }: Json<ControlRequest>,
) -> Result<Document, Problem> {
    tracing::info!(command = name, by = principal.name, "workers are controlled over HTTP");
    run(&shared, &name, false, request).await
}

fn find(name: &str, inspects: bool) -> Result<&'static Command, Problem> {
    let of_kind = |command: &&Command| command.visible && command.inspects == inspects;
    Command::find(name).filter(of_kind).ok_or_else(|| {
        let names: Vec<&str> =
            COMMANDS.iter().filter(of_kind).map(|command| command.name).collect();
        Problem::not_found(format!("there is no such command: {name}"))
            .hint(format!("there are {}", names.join(", ")))
    })
}

async fn run(
    shared: &Shared,
    name: &str,
    inspects: bool,
    request: ControlRequest,
) -> Result<Document, Problem> {
    let command = find(name, inspects)?;
    if let Some(missing) =
        command.required.iter().find(|name| !request.arguments.contains_key(name))
    {
        return Err(Problem::invalid(format!("{name} needs the argument {missing}")));
    }
    if request.destination.len() > DESTINATIONS_MAX {
        let text = format!("destination has at most {DESTINATIONS_MAX} names");
        return Err(Problem::invalid(text));
    }
    let timeout = request.timeout.unwrap_or(command.timeout.as_secs_f64());
    if !(0.0..=TIMEOUT_MAX).contains(&timeout) {
        let text = format!("timeout is {timeout}; it is 0 to {TIMEOUT_MAX} seconds");
        return Err(Problem::invalid(text));
    }
    let parts = &shared.parts;
    let timeout = Duration::from_secs_f64(timeout);
    let mut order = celeriac_wire::ControlRequest::new(command.name, request.arguments)
        .to(&request.destination);
    // An asker hears nothing between its requests: any small number will do (wire specification 6.5).
    order.clock = 1;
    order.expires = clock::after(parts.clock.wall(), timeout).as_nanosecond() as f64 / 1e9;
    let expected = match request.destination.len() {
        0 => REPLIES_MAX,
        named => named,
    };
    let id = clock::task_id(&*parts.clock, &*parts.entropy);
    let replies = ask(&*parts.store, &id, order, timeout, Some(expected)).await?;
    let answers: Map = replies.into_iter().flat_map(|reply| reply.answers).collect();
    Ok(Document::ok(object([("replies", Value::Object(answers))])))
}
