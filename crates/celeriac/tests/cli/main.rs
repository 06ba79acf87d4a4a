//! The command line as people and scripts see it: exit codes, tables and JSON.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]

#[path = "../kit/mod.rs"]
mod kit;

mod completions;
mod dead;
mod doctor;
mod general;
mod limits;
mod queues;
mod remote;
mod schedule;
mod stores;
mod tasks;
mod top;
mod why;

use celeriac_wire::Value;
use kit::{Place, Ran, command};
use std::path::Path;

/// A folder with an empty store in it.
async fn store() -> Place {
    let place = Place::sqlite();
    place.app().store().await.unwrap();
    place
}

/// Runs `celeriac` on a place's store.
async fn celeriac(place: &Place, args: &[&str]) -> Ran {
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    Ran::new(command(program, place.dir()).args(["-b", place.url()]).args(args)).await
}

/// Runs `celeriac --json`, which must succeed with `code`, and reads its answer.
async fn json(place: &Place, code: i32, args: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(args);
    let ran = celeriac(place, &all).await.exits(code);
    Value::parse(ran.stdout.trim().as_bytes()).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

/// Sends a call and returns its id.
async fn call(place: &Place, args: &[&str]) -> String {
    let mut all = vec!["call"];
    all.extend(args);
    celeriac(place, &all).await.exits(0).stdout.trim().to_owned()
}

/// Runs the binary's own worker until nothing is ready; one slot, so that things end in order.
async fn work(place: &Place) {
    let unknown = ["--unknown-tasks", "dead-letter"];
    let args = ["worker", "-c", "1", "--stop-when-idle", "10ms", unknown[0], unknown[1]];
    celeriac(place, &args).await.exits(0);
}

/// A text member of a JSON answer.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// A number of a JSON answer.
fn number(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or_else(|| panic!("no number {name} in {value}"))
}
