//! Two workers on one store.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac_core::throttle::Target;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_the_work_without_doubles() {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    store.pause(&Target::Queue("celery".into()), "until both are up").await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend(enqueue(&client, 500, 0).await);
    }
    let one = Worker::start(&place, store, "one", "8s", &["-c", "8"]).await;
    let two = Worker::start(&place, store, "two", "8s", &["-c", "8"]).await;
    store.resume(&Target::Queue("celery".into())).await.unwrap();
    for id in &ids {
        let record = store.wait_result(id, PATIENCE).await.unwrap().unwrap();
        assert_eq!(record.meta.state(), celeriac_wire::State::Success);
    }
    let mut starts: BTreeMap<String, usize> = BTreeMap::new();
    let mut shares: BTreeMap<u32, usize> = BTreeMap::new();
    for line in kit::ledger(&place).into_iter().filter(|line| line.step == "start") {
        *starts.entry(line.id).or_default() += 1;
        *shares.entry(line.pid).or_default() += 1;
    }
    assert_eq!(starts.len(), 2000);
    assert!(starts.values().all(|count| *count == 1));
    println!("shares: {shares:?}");
    assert!(shares[&one.pid] > 100 && shares[&two.pid] > 100, "both work: {shares:?}");
}
