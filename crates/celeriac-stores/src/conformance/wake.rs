//! Waiting for changes instead of asking again and again.

use super::fixture::{EXPIRY, Fixture, Harness, PATIENCE, the_queue};
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Fate, Place, Replay, Settled};
use std::time::Duration;

async fn assert_woken(fixture: &Fixture, seen: u64, what: &str) {
    let now = fixture.store.wait_change(seen, PATIENCE).await;
    assert_ne!(now, seen, "{what} wakes");
}

/// Whatever may make a message ready, or an order known, is heard.
pub async fn every_change_that_matters_wakes_a_waiter(harness: &Harness) {
    let fixture = harness.store();
    let store = &fixture.store;
    let node = fixture.node("celery@a").await;

    let seen = store.changes();
    fixture.send(&["a"]).await;
    assert_woken(&fixture, seen, "a message").await;

    let held = fixture.take(node).await;
    let seen = store.changes();
    fixture.release(held.lease, Place::Head).await;
    assert_woken(&fixture, seen, "a release").await;

    fixture.take(node).await;
    fixture.clock.advance(EXPIRY);
    let seen = store.changes();
    assert_eq!(store.sweep().await.unwrap().requeued, 1);
    assert_woken(&fixture, seen, "a sweep that returns messages").await;

    let node = fixture.node("celery@a").await;
    fixture.take(node).await;
    let seen = store.changes();
    store.deregister(node).await.unwrap();
    assert_woken(&fixture, seen, "a worker's sign-off").await;

    store.pause(&the_queue("celery"), "").await.unwrap();
    let seen = store.changes();
    store.resume(&the_queue("celery")).await.unwrap();
    assert_woken(&fixture, seen, "the end of a pause").await;

    let seen = store.changes();
    store.revoke(&["a".to_owned()], true).await.unwrap();
    assert_woken(&fixture, seen, "a revocation").await;

    let node = fixture.node("celery@a").await;
    let held = fixture.take(node).await;
    let dead = Fate::Dead { reason: DeadReason::Failed, detail: String::new(), attempt: None };
    assert_eq!(fixture.settle(held.lease, dead).await, Settled::Done);
    let seen = store.changes();
    store.dead_replay(&DeadFilter::default(), &Replay::default(), 1).await.unwrap();
    assert_woken(&fixture, seen, "a replay").await;
}

/// A wait is bounded, and a wait for something that has happened already returns at once.
pub async fn wait_change_returns_at_its_timeout(harness: &Harness) {
    let fixture = harness.store();
    let before = fixture.store.changes();
    fixture.send(&["a"]).await;
    assert_ne!(fixture.store.wait_change(before, PATIENCE).await, before, "no wait at all");
    let mut seen = fixture.store.changes();
    // False alarms are allowed; for ever they are not.
    for _ in 0..50 {
        let now = fixture.store.wait_change(seen, Duration::from_millis(150)).await;
        if now == seen {
            return;
        }
        seen = now;
    }
    panic!("the store rings although nothing changes");
}

/// The waiter hears a change that comes later.
pub async fn a_waiter_is_woken_while_it_waits(harness: &Harness) {
    let fixture = harness.store();
    let store = fixture.store.clone();
    let seen = store.changes();
    let waiter = tokio::spawn(async move { store.wait_change(seen, PATIENCE).await });
    tokio::task::yield_now().await;
    fixture.send(&["a"]).await;
    assert_ne!(waiter.await.unwrap(), seen);
}
