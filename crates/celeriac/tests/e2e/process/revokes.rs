//! P12: revocations are durable and reach workers that start later.
//!
//! `CELERIAC_REVOKES=1000000` is the run of the promise; the default is made for CI.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac::{Call, Client};
use celeriac_wire::State;
use rustix::process::Signal;

/// What the memory of a worker may grow by while it throws revoked messages away.
const GROWTH_MAX_KIB: u64 = 20 << 10;

async fn state(client: &Client, id: &str) -> State {
    let ready = client.store().wait_result(id, PATIENCE).await.unwrap();
    ready.expect("it is ready").meta.state()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_without_a_worker_holds_for_the_next_one() {
    // covers: S2-24
    for pool in ["async", "process"] {
        let place = Place::shared();
        let client = place.app().client().await.unwrap();
        let ids = enqueue(&client, 3, 1).await;
        client.store().revoke(&ids[..1], false).await.unwrap();
        let args = ["-P", pool, "-c", "1"];
        let mut worker = Worker::start(&place, client.store(), "w1", "8s", &args).await;
        assert_eq!(state(&client, &ids[0]).await, State::Revoked);
        assert_eq!(state(&client, &ids[2]).await, State::Success);
        // One that waits behind a running one, and the running one itself.
        let endless = client.send(Call::named("ledger.until_told")).await.unwrap();
        let behind = enqueue(&client, 1, 1).await;
        kit::until("it runs", PATIENCE, async || {
            kit::ledger(&place).iter().any(|line| line.id == endless.id()).then_some(())
        })
        .await;
        client.store().revoke(&behind, false).await.unwrap();
        endless.cancel().await.unwrap();
        assert_eq!(state(&client, endless.id()).await, State::Revoked);
        assert_eq!(state(&client, &behind[0]).await, State::Revoked);
        worker.signal(Signal::TERM);
        assert!(worker.ended().await.success());
        let ran: Vec<String> = kit::ledger(&place).into_iter().map(|line| line.id).collect();
        assert!(!ran.contains(&ids[0]) && !ran.contains(&behind[0]), "{pool}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_many_revoked_tasks_runs_and_memory_stays_flat() {
    let count: usize = std::env::var_os("CELERIAC_REVOKES")
        .map_or(5000, |text| text.to_str().unwrap().parse().unwrap());
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let mut ids = Vec::new();
    while ids.len() < count {
        ids.extend(enqueue(&client, 1000.min(count - ids.len()), 1).await);
    }
    for page in ids.chunks(1000) {
        client.store().revoke(page, false).await.unwrap();
    }
    let first = enqueue(&client, 1, 1).await;
    let mut worker = Worker::start(&place, client.store(), "w1", "8s", &["-c", "4"]).await;
    let idle = worker.footprint();
    let mut most = 0;
    for id in ids.iter().step_by(1.max(count / 50)).chain(ids.last()) {
        let patience = PATIENCE * 40;
        let ready = client.store().wait_result(id, patience).await.unwrap().unwrap();
        assert_eq!(ready.meta.state(), State::Revoked);
        most = most.max(worker.footprint().map_or(0, |now| now.resident_kib));
    }
    assert_eq!(state(&client, &first[0]).await, State::Success, "others are served");
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    assert_eq!(kit::count(&place, "start"), 1, "none of the revoked ones ran");
    if let Some(idle) = idle {
        let growth = most.saturating_sub(idle.resident_kib);
        println!("{count} revoked: the worker grew by {growth} KiB");
        assert!(growth < GROWTH_MAX_KIB, "{growth} KiB");
    }
}
