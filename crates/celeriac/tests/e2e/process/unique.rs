//! P19: unique tasks under many publishers and killed workers.

use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac::{Call, Client, Unique};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;

const CLIENTS: usize = 20;
const KEYS: usize = 100;
const KILLS: usize = 3;

/// One publisher with a connection of its own; some of its sends are dropped in the middle.
async fn publish(client: Client, sends: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..sends {
        let key = format!("key {}", random.usize(..KEYS));
        let wish = Unique { window: Some(Duration::from_hours(1)), ..Unique::new(key) };
        let call = Call::named("ledger.work").arg(&random.u64(1..20)).unique_as(&wish);
        let sending = client.send(call);
        if random.u8(..20) == 0 {
            // The publisher gives up: the message is there whole or not at all.
            let _answered = tokio::time::timeout(Duration::from_micros(200), sending).await;
        } else {
            sending.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_keys_run_a_hundred_times_whoever_sends_and_dies() {
    let sends: usize = std::env::var_os("CELERIAC_SENDS")
        .map_or(2000, |text| text.to_str().unwrap().parse().unwrap());
    let seed = fastrand::u64(..1 << 32);
    println!("{sends} sends of {KEYS} keys by {CLIENTS} clients, seed {seed}");
    let place = Place::shared();
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = place.app().client().await.unwrap();
        publishing.spawn(publish(client, sends / CLIENTS, seed + number as u64));
    }
    let client = place.app().client().await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut killed = BTreeSet::new();
    for number in 0..KILLS {
        let name = format!("w{number}");
        let mut worker = Worker::start(&place, client.store(), &name, "1s", &["-c", "4"]).await;
        kit::pass(Duration::from_millis(random.u64(50..300))).await;
        killed.insert(worker.pid);
        worker.kill().await;
    }
    let mut last = Worker::start(&place, client.store(), "last", "1s", &["-c", "4"]).await;
    publishing.join_all().await;
    kit::until("everything has run", PATIENCE, async || {
        let ledger = kit::ledger(&place);
        let ended: BTreeSet<_> =
            ledger.iter().filter(|line| line.step == "end").map(|line| &line.id).collect();
        let queues = client.store().queues().await.unwrap();
        let left: u64 = queues.iter().map(|queue| queue.ready + queue.leased).sum();
        (left == 0 && ended.len() == KEYS).then_some(())
    })
    .await;
    last.signal(Signal::TERM);
    assert!(last.ended().await.success());

    let ledger = kit::ledger(&place);
    let started: BTreeSet<&str> =
        ledger.iter().filter(|line| line.step == "start").map(|line| line.id.as_str()).collect();
    assert_eq!(started.len(), KEYS, "one task for each key");
    for id in started {
        let runs: Vec<u32> = ledger
            .iter()
            .filter(|line| line.id == id && line.step == "start")
            .map(|line| line.pid)
            .collect();
        let (_, earlier) = runs.split_last().unwrap();
        assert!(earlier.iter().all(|pid| killed.contains(pid)), "{id} ran again: {runs:?}");
    }
    // The window keeps the keys, and nothing else does.
    let wish = Unique { window: Some(Duration::from_hours(1)), ..Unique::new("key 0") };
    let again = client.send(Call::named("ledger.work").arg(&1u64).unique_as(&wish)).await.unwrap();
    assert!(again.is_duplicate());
}
