//! A process dies once at every step in the life of a task. Another one does the rest, and nothing
//! is lost, doubled without reason, or half done.
//!
//! `CELERIAC_STEPS=settle-written,fetched:3` plays only these; `:3` dies at the third time.

use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac::prelude::*;
use celeriac::{Call, Client};
use celeriac_core::failpoint::Step;
use celeriac_core::store::{Phase, Store};
use celeriac_testkit::evidence::{Evidence, Expected, Held, View};
use celeriac_testkit::invariants;
use celeriac_testkit::ledger::{Line, What};
use celeriac_testkit::process::{Footprint, read_ledger};
use celeriac_wire::State as TaskState;
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;

const LEASE: &str = "1s";
/// So many stores are played with at once: most of the time they wait for a lease to run out.
const AT_ONCE: usize = 6;
/// The most descriptors of an idle worker on SQLite.
const DESCRIPTORS_MAX: u64 = 64;

/// Which process dies at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// One that sends.
    Producer,
    /// A worker at its work.
    Worker,
    /// A worker that finds what another one left.
    Sweeper,
    /// A worker that was told to stop.
    Leaver,
}

fn role(step: Step) -> Role {
    match step {
        Step::PublishBegins | Step::PublishWritten | Step::PublishCommitted => Role::Producer,
        Step::SweepBegins | Step::SweepWritten | Step::SweepCommitted => Role::Sweeper,
        Step::DeregisterBegins | Step::DeregisterCommitted => Role::Leaver,
        _ => Role::Worker,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_any_step_breaks_no_promise() {
    let chosen = std::env::var_os("CELERIAC_STEPS").map(|text| text.into_string().unwrap());
    let points: Vec<String> = match &chosen {
        Some(text) => text.split(',').map(str::to_owned).collect(),
        None => Step::ALL
            .iter()
            .filter(|step| Place::is_embedded() || !step.is_inside_a_transaction())
            .map(|step| step.as_str().to_owned())
            .collect(),
    };
    let count = points.len();
    let played: Vec<(String, &str)> = futures::stream::iter(points)
        .map(|point| async move {
            let verdict = Box::pin(die_at(&point)).await;
            (point, verdict)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let ran_again = played.iter().filter(|(_, verdict)| *verdict == "ran again").count();
    println!("{count} steps, at {ran_again} of them a task ran again");
    assert_eq!(played.len(), count);
    assert!(chosen.is_some() || ran_again >= 8, "too few deaths hit running work: {played:?}");
}

/// Plays one step; says whether a task ran again.
async fn die_at(point: &str) -> &'static str {
    let step: Step = point.split(':').next().unwrap().parse().unwrap();
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    if role(step) == Role::Producer {
        producer_dies(&place, &client, step, point).await;
        return "sent";
    }
    let mut evidence = Evidence { expected: send(&client).await, ..Evidence::default() };
    let mut faults = Vec::new();
    if role(step) == Role::Sweeper {
        let mut before = Worker::spawn(&place, "before", LEASE, &["-c", "8"]);
        kit::until("the first worker works", PATIENCE, async || {
            (kit::count(&place, "start") > 0).then_some(())
        })
        .await;
        faults.push(killed(&client, before.pid));
        before.kill().await;
    }
    let mut victim = Worker::dies_at(&place, "victim", LEASE, &["-c", "8"], Some(point));
    if role(step) == Role::Leaver {
        all_end(&client, &evidence).await;
        victim.signal(rustix::process::Signal::TERM);
    }
    let status = victim.ended().await;
    let log = victim.log();
    assert_eq!(status.signal(), Some(9), "{point} was never reached:\n{log}");
    faults.push(killed(&client, victim.pid));

    let mut last = Worker::spawn(&place, "last", LEASE, &["-c", "8"]);
    let listens = async || last.log().contains("ready.").then_some(());
    kit::until("the last worker listens to signals", PATIENCE, listens).await;
    all_end(&client, &evidence).await;
    evidence.held = descriptors(last.pid);
    last.signal(rustix::process::Signal::TERM);
    assert!(last.ended().await.success(), "{point}: {}", last.log());

    let ids = evidence.expected.keys();
    evidence.ledger = ids.map(|id| Line::new(What::Enqueued, id, "test", 0)).collect();
    evidence.ledger.extend(faults);
    evidence.ledger.extend(read_ledger(&place.path("ledger.txt")));
    evidence.view = View::of(&**client.store(), evidence.expected.keys()).await.unwrap();
    let judgement = invariants::judge(&evidence);
    assert!(judgement.failed().is_empty(), "{point}:\n{}", judgement.table());
    if ran_again(&evidence) { "ran again" } else { "ran once" }
}

/// Whether the death repeated a run: one that nothing but a fault explains.
fn ran_again(evidence: &Evidence) -> bool {
    evidence.expected.iter().any(|(id, expected)| {
        let starts = evidence.lines(&What::Started).filter(|line| line.id == *id).count();
        starts > expected.runs as usize
    })
}

fn killed(client: &Client, pid: u32) -> Line {
    Line::new(What::Fault, "kill", &pid.to_string(), client.now().as_microsecond())
}

fn descriptors(pid: u32) -> Vec<Held> {
    let held = |footprint: Footprint| Held {
        what: "file descriptors".to_owned(),
        count: footprint.descriptors,
        max: DESCRIPTORS_MAX,
    };
    Footprint::of(pid).map(held).into_iter().collect()
}

/// Tasks of every kind; returns what is expected of them.
async fn send(client: &Client) -> BTreeMap<String, Expected> {
    let success = || Expected::once(TaskState::Success);
    let after = |ids: &[&str]| Expected {
        after: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Expected::once(TaskState::Success)
    };
    let work = |id: &str, ms: u64| Call::named("ledger.work").arg(&ms).task_id(id);
    let follow = |id: &str| Call::named("ledger.follow").task_id(id);
    let named = |name: &str, id: &str| Call::named(name).task_id(id);
    client
        .send_all([
            work("long", 400),
            work("short", 1),
            named("ledger.flaky", "flaky"),
            named("ledger.returns", "returns"),
            named("ledger.fails", "fails"),
            named("ledger.fires", "fires"),
        ])
        .await
        .unwrap();
    client.send(chain(work("one", 20)).then(follow("two")).then(follow("three"))).await.unwrap();
    let members = group([work("left", 30), work("right", 60)]);
    client.send(chord(members).then(follow("body"))).await.unwrap();
    let twice = || Expected { runs: 2, ..success() };
    let expected = [
        ("long", success()),
        ("short", success()),
        ("flaky", twice()),
        ("returns", twice()),
        ("fails", Expected::once(TaskState::Failure)),
        ("fires", success()),
        ("fired", success()),
        ("one", success()),
        ("two", after(&["one"])),
        ("three", after(&["two"])),
        ("left", success()),
        ("right", success()),
        ("body", after(&["left", "right"])),
    ];
    expected.into_iter().map(|(id, expected)| (id.to_owned(), expected)).collect()
}

async fn all_end(client: &Client, evidence: &Evidence) {
    for id in evidence.expected.keys() {
        let ended = client.store().wait_result(id, PATIENCE).await.unwrap();
        let ready = ended.as_ref().is_some_and(|record| record.meta.state().is_ready());
        assert!(ready, "{id} does not end: {ended:?}");
    }
}

/// Before the commit nothing was sent, after it everything.
async fn producer_dies(place: &Place, client: &Client, step: Step, point: &str) {
    let mut command = kit::command(&kit::ledger_program(), place.dir());
    command.env("CELERIAC_FAILPOINT", point);
    command.args(["-b", place.url(), "call", "ledger.work", "-a", "[1]", "--task-id", "sent"]);
    let status = command.status().await.unwrap();
    assert_eq!(status.signal(), Some(9), "{point} was never reached");
    let phase = async |store: &dyn Store| store.task("sent").await.unwrap().phase;
    if step != Step::PublishCommitted {
        assert_eq!(phase(&**client.store()).await, Phase::Unknown, "{point}");
        return;
    }
    let mut worker = Worker::spawn(place, "last", LEASE, &["-c", "1"]);
    let pid: u32 = client.job("sent").get(PATIENCE).await.unwrap();
    assert_eq!((pid, phase(&**client.store()).await), (worker.pid, Phase::Done), "{point}");
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
    assert_eq!(kit::count(place, "start"), 1);
}
