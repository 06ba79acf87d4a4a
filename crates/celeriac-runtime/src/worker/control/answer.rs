//! From a request to what a node answers and does. Pure.

use super::python::{mismatch, raised};
use super::snapshot::{Answer, Deed, Snapshot};
use super::{command, inspect, stats};
use celeriac_core::control::Command;
use celeriac_wire::{ControlRequest, Map, Value};

/// Answers a request in Celery's shapes (wire specification 7.4).
pub fn answer(request: &ControlRequest, snapshot: &Snapshot) -> Answer {
    let method = request.method().unwrap_or_default();
    let Some(command) = Command::find(method) else {
        return Answer::just(raised("KeyError", method));
    };
    let arguments = request.arguments();
    if let Some(wrong) = mismatch(command, arguments) {
        return Answer::just(wrong);
    }
    match command.name {
        "active" => inspect::active(snapshot, arguments),
        "active_queues" => inspect::active_queues(snapshot),
        "add_consumer" => command::add_consumer(snapshot, arguments),
        "autoscale" => command::autoscale(snapshot, arguments),
        "cancel_consumer" => command::cancel_consumer(arguments),
        "clock" => Answer::just(Value::Object(Map::from([("clock", snapshot.clock)]))),
        "conf" => inspect::conf(snapshot, arguments),
        "disable_events" => command::task_events(snapshot, false),
        // Nothing is elected here: native workers take no part in elections of stock ones.
        "election" => Answer::just(Value::Null),
        "enable_events" => command::task_events(snapshot, true),
        "heartbeat" => Answer::after(Deed::Beat, Value::Null),
        "hello" => inspect::hello(snapshot, arguments),
        "memdump" => inspect::memdump(snapshot, arguments),
        "memsample" => inspect::memsample(snapshot),
        "objgraph" => inspect::objgraph(),
        "ping" => Answer::just(Value::Object(Map::from([("ok", "pong")]))),
        "pool_grow" => command::pool_grow(snapshot, arguments),
        "pool_restart" => Answer::just(raised("ValueError", "Pool restarts not enabled")),
        "pool_shrink" => command::pool_shrink(snapshot, arguments),
        "query_task" => inspect::query_task(snapshot, arguments),
        "rate_limit" => command::rate_limit(snapshot, arguments),
        "registered" => inspect::registered(snapshot, arguments),
        "report" => inspect::report(snapshot),
        // What is fetched begins at once: nothing is held back.
        "reserved" => Answer::just(Value::Array(Vec::new())),
        "revoke" => command::revoke(snapshot, arguments),
        "revoke_by_stamped_headers" => command::revoke_by_stamped_headers(snapshot, arguments),
        "revoked" => Answer::just(snapshot.revoked.iter().map(String::as_str).collect()),
        "scheduled" => inspect::scheduled(snapshot),
        "shutdown" => command::shutdown(),
        "stats" => stats::stats(snapshot),
        "terminate" => command::terminate(snapshot, arguments),
        "time_limit" => command::time_limit(snapshot, arguments),
        // A command of the table without an answer here; a test asks for each.
        other => Answer::just(raised("KeyError", other)),
    }
}
