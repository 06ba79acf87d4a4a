//! A worker that stands still longer than its lease: another takes over, and what the first one
//! brings when it wakes up is too late.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac_core::store::Store;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(1);

/// Waits until a process has this many lines of this step.
async fn ledger_has(place: &Place, pid: u32, step: &str, count: usize) {
    kit::until(&format!("process {pid} has {count} lines {step}"), PATIENCE, async || {
        let lines = kit::ledger(place);
        (lines.iter().filter(|line| line.pid == pid && line.step == step).count() >= count)
            .then_some(())
    })
    .await;
}

async fn worker_of(store: &dyn Store, id: &str) -> String {
    let record = store.wait_result(id, PATIENCE).await.unwrap().unwrap();
    assert_eq!(record.meta.state(), celeriac_wire::State::Success);
    record.worker.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_is_fenced_and_works_on() {
    // covers: S5-05
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    // The short ones end in the frozen worker as soon as it wakes, the long ones still run then.
    let ids = [enqueue(&client, 2, 1200).await, enqueue(&client, 2, 5000).await].concat();
    let frozen = Worker::start(&place, store, "frozen", "1s", &["-c", "4"]).await;
    ledger_has(&place, frozen.pid, "start", 4).await;
    frozen.signal(Signal::STOP);
    let since = Instant::now();
    let mut second = Worker::start(&place, store, "second", "1s", &["-c", "4"]).await;
    ledger_has(&place, second.pid, "start", 4).await;
    println!("taken over after {:?}", since.elapsed());
    kit::pass((LEASE * 5 / 2).saturating_sub(since.elapsed())).await;
    frozen.signal(Signal::CONT);

    for id in &ids {
        assert!(worker_of(&**store, id).await.starts_with("second@"), "{id}");
    }
    let lines = kit::ledger(&place);
    let long_ends = lines.iter().filter(|line| ids[2..].contains(&line.id) && line.step == "end");
    assert!(long_ends.clone().all(|line| line.pid == second.pid), "the frozen worker dropped them");
    assert_eq!(long_ends.count(), 2);

    second.signal(Signal::TERM);
    assert!(second.ended().await.success());
    let more = enqueue(&client, 3, 0).await;
    for id in &more {
        assert!(worker_of(&**store, id).await.starts_with("frozen@"), "{id}");
    }
    ledger_has(&place, frozen.pid, "end", 3).await;
    let alive = |name: &str| {
        let name = format!("{name}@");
        async move {
            let nodes = store.nodes().await.unwrap();
            nodes.iter().filter(|node| node.alive && node.info.name.starts_with(&name)).count()
        }
    };
    assert_eq!((alive("frozen").await, alive("second").await), (1, 0));
}
