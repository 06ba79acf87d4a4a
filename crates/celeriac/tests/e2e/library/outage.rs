//! A store that does not answer, and one that somebody else opens and closes.

use crate::kit::{PATIENCE, Place, command, pass, until};
use crate::running::{Diary, start_with};
use celeriac::prelude::*;
use celeriac_core::store::Phase;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(400);

/// Runs for ever at first; a second run ends at once.
#[task(name = "outage.hangs_once", max_retries = 0)]
async fn hangs_once(cx: Context, diary: State<Arc<Diary>>) -> Result<usize> {
    diary.note("start");
    if diary.read().len() == 1 {
        return Err(cx.cancelled().await);
    }
    Ok(diary.read().len())
}

#[task(name = "outage.add")]
async fn sum(x: i64, y: i64) -> i64 {
    x + y
}

#[tokio::test]
async fn tasks_dropped_in_an_outage_run_again_after_it() {
    let place = Place::sqlite();
    let diary = Arc::new(Diary::default());
    let app = place.app().tasks(tasks![hangs_once]).state(Arc::clone(&diary));
    let running = start_with(&app, app.worker().concurrency(1).lease_expiry(LEASE)).await;
    let job = running.client.send(hangs_once::call()).await.unwrap();
    until("it runs", PATIENCE, async || (diary.read().len() == 1).then_some(())).await;

    // Another program holds the write lock for several leases.
    let other = rusqlite::Connection::open(place.path("queue.db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    pass(LEASE * 4).await;
    other.execute_batch("ROLLBACK").unwrap();

    assert_eq!(job.get(PATIENCE).await.unwrap(), 2, "the same worker runs it again");
    running.stop().await;
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
