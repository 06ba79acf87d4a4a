//! Real worker programs with a process pool: their log, their end, their death.

use super::is_gone;
use crate::kit::{self, PATIENCE, Place, Ran, Worker, until};
use celeriac::{Call, JobError};
use celeriac_wire::Value;
use rustix::process::Signal;
use std::time::Duration;

const POOL: [&str; 4] = ["-P", "prefork", "-c", "2"];

/// The processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let of = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields = stat.rsplit_once(") ")?.1;
        (fields.split(' ').nth(1)? == parent.to_string()).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| of(entry.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tasks_print_is_logged_with_their_id() {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let mut worker = Worker::start(&place, client.store(), "w1", "8s", &POOL).await;
    let mut ids = Vec::new();
    for word in ["apple", "pear", "plum"] {
        let job = client.send(Call::named("ledger.prints").arg(&word)).await.unwrap();
        let _none: Value = job.get(PATIENCE).await.unwrap();
        ids.push((word, job.id().to_owned()));
    }
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success(), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("concurrency  2 (process)"), "{log}");
    for (word, id) in ids {
        for (line, level) in [(format!("out: {word}"), "INFO"), (format!("err: {word}"), "WARN")] {
            let found = log
                .lines()
                .any(|one| one.contains(&line) && one.contains(&id) && one.contains(level));
            assert!(found, "{line} with {id} at {level} is not in\n{log}");
        }
    }
}

/// TERM goes to every process of a service: children leave it to their worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_to_everybody_lets_tasks_finish() {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let mut worker = Worker::start(&place, client.store(), "w1", "8s", &POOL).await;
    let job = client.send(Call::named("ledger.work").arg(&500)).await.unwrap();
    until("it runs", PATIENCE, async || (kit::count(&place, "start") == 1).then_some(())).await;
    for child in children(worker.pid) {
        let pid = rustix::process::Pid::from_raw(child.cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
    }
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    let _pid: Value = job.get(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((kit::count(&place, "start"), kit::count(&place, "end")), (1, 1));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_takes_its_children_along_and_its_tasks_return() {
    // covers: S3-06
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let mut worker = Worker::start(&place, client.store(), "w1", "1s", &POOL).await;
    let spins = client.send(Call::named("ledger.spins")).await.unwrap();
    let works = client.send(Call::named("ledger.work").arg(&60_000)).await.unwrap();
    until("both run", PATIENCE, async || (kit::count(&place, "start") == 2).then_some(())).await;
    let pids = children(worker.pid);
    assert!(pids.len() >= 2, "{pids:?}");
    worker.kill().await;
    let killed = tokio::time::Instant::now();
    for pid in pids {
        is_gone(pid).await;
    }
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    let _next = Worker::start(&place, client.store(), "w2", "1s", &POOL).await;
    until("both run again", PATIENCE, async || (kit::count(&place, "start") == 4).then_some(()))
        .await;
    let mut command = kit::command(&kit::ledger_program(), place.dir());
    command.args(["-b", place.url(), "task", "cancel"]).args([spins.id(), works.id()]);
    Ran::new(&mut command).await.exits(0);
    for id in [spins.id(), works.id()] {
        let error = client.job::<Value>(id).get(PATIENCE).await.unwrap_err();
        assert!(matches!(error, JobError::Revoked { .. }), "{error}");
    }
}
