//! A store that does not answer, and one that somebody else opens and closes.

use crate::kit::{PATIENCE, Place, command, pass, until};
use crate::running::{Diary, Gate, start_with};
use celeriac::prelude::*;
use celeriac_core::store::Phase;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The lease in CI; with `CELERIAC_OUTAGE` (seconds) it is the default, 8 s, and the outage so long.
const LEASE: Duration = Duration::from_millis(600);
const TASKS: usize = 100;

/// Notes its run and waits for the gate.
#[task(name = "outage.waits", max_retries = 0)]
async fn waits(diary: State<Arc<Diary>>, gate: State<Arc<Gate>>) -> Result {
    diary.note("start");
    gate.0.acquire().await?.forget();
    Ok(())
}

#[task(name = "outage.add")]
async fn sum(x: i64, y: i64) -> i64 {
    x + y
}

/// Nobody can take a lease in a store that nobody can write, so the tasks go on and nothing runs
/// twice; a second worker is there to take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_written_for_several_leases_costs_no_run() {
    let place = Place::sqlite();
    let long = std::env::var_os("CELERIAC_OUTAGE")
        .map(|text| Duration::from_secs(text.to_str().unwrap().parse().unwrap()));
    let lease = if long.is_some() { Duration::from_secs(8) } else { LEASE };
    let outage = long.unwrap_or(LEASE * 4);
    let (diary, gate) = (Arc::new(Diary::default()), Arc::new(Gate::shut()));
    let app = || {
        let app = place.app().tasks(tasks![waits]);
        app.state(Arc::clone(&diary)).state(Arc::clone(&gate))
    };
    let (one, two) = (app(), app());
    let worker =
        |app: &App, name: &str| app.worker().name(name).concurrency(TASKS).lease_expiry(lease);
    let first = start_with(&one, worker(&one, "one@test")).await;
    let jobs = first.client.send_all((0..TASKS).map(|_| waits::call())).await.unwrap();
    until("all run", PATIENCE, async || (diary.read().len() == TASKS).then_some(())).await;
    let second = start_with(&two, worker(&two, "two@test")).await;
    until("the second is there", PATIENCE, async || {
        (first.client.store().nodes().await.unwrap().len() == 2).then_some(())
    })
    .await;

    // Another program holds the write lock for several leases.
    let other = rusqlite::Connection::open(place.path("queue.db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    pass(outage).await;
    // Half of them end while nothing can be written.
    gate.0.add_permits(TASKS / 2);
    pass(lease / 2).await;
    other.execute_batch("ROLLBACK").unwrap();
    pass(lease * 3).await;
    gate.0.add_permits(TASKS / 2);

    for job in &jobs {
        job.get(PATIENCE).await.unwrap();
    }
    assert_eq!(diary.read().len(), TASKS, "no task ran twice");
    for running in [first, second] {
        running.stop().await;
    }
}

/// Closing a handle drops all POSIX locks of the process on the file (fcntl(2)); SQLite of another
/// process would then take the last lock, delete the log and split the store in two.
#[tokio::test]
async fn another_program_may_open_and_close_the_store_while_a_worker_runs() {
    if !python_is_here() {
        return;
    }
    let place = Place::sqlite();
    let app = place.app().tasks(tasks![sum]);
    // The heartbeat has a second connection to the store in this process.
    let running = start_with(&app, app.worker().concurrency(1)).await;
    let first = running.client.send(sum::call(1, 1)).await.unwrap();
    assert_eq!(first.get(PATIENCE).await.unwrap(), 2);
    let script = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1]); c.execute('select count(*) from result').fetchall(); c.close()";
    let mut python = command(Path::new("python3"), place.dir());
    let closed = python.args(["-c", script]).arg(place.path("queue.db")).status().await.unwrap();
    assert!(closed.success());
    let second = place.app().client().await.unwrap().send(sum::call(2, 2)).await.unwrap();
    assert_eq!(second.get(PATIENCE).await.unwrap(), 4, "the worker sees what others send");
    assert_eq!(second.view().await.unwrap().phase, Phase::Done);
    running.stop().await;
}

fn python_is_here() -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join("python3").exists());
    assert!(found || std::env::var_os("CI").is_none(), "python3 is missing");
    if !found {
        println!("skipped: python3 is missing");
    }
    found
}
