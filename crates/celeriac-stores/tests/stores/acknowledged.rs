//! Early acknowledgement beside stock workers: what is lost is nowhere where they take it from.

use super::{celery, plan, register, request};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{Begun, DeadFilter, Outgoing, Page, Plan, Released, Store};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_stores::{Resources, connect};
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use celeriac_wire::{Message, State};
use std::sync::Arc;

fn store(redis: &Redis, limits: StoreLimits) -> Arc<dyn Store> {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    connect(
        &redis.url(),
        Resources { clock, entropy: Arc::new(Seeded::new(7)), limits, results: None },
    )
    .unwrap()
}

/// A node takes everything, acknowledges all but the last, and leaves.
async fn leave(store: &dyn Store) {
    let node = register(store, "celery@gone").await;
    let held = store.fetch(request(node, 9)).await.unwrap();
    let last = held.len() - 1;
    let begun = held.iter().enumerate().map(|(index, one)| Begun {
        lease: one.lease,
        at: one.enqueued_at,
        acknowledged: index < last,
    });
    store.mark_started(begun.collect()).await.unwrap();
    assert_eq!(store.deregister(node).await.unwrap(), held.len() as u64);
}

async fn lengths(redis: &Redis) -> (i64, i64) {
    let length = async |key: &str| redis.cli(&["LLEN", key]).await.int();
    (length("celery").await, length("celeriac:lost:celery").await)
}

#[tokio::test]
async fn what_is_lost_never_stands_in_a_stock_list_and_a_release_sets_it_aside() {
    let redis = redis_or_skip!();
    let store = store(&redis, StoreLimits::default());
    let mut silent = Message::new("app.add", "silent", "[[], {}, {}]");
    silent.headers.insert("ignore_result", true);
    let publish = vec![Outgoing::new(celery(), silent)];
    store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
    store.publish(plan(&["told", "runs"]), None).await.unwrap();
    leave(&*store).await;
    assert_eq!(lengths(&redis).await, (1, 2), "only what is not acknowledged goes back");

    let released = store.release(&celery(), 100).await.unwrap();
    assert_eq!(released, Released { lost: 2, ..Released::default() });
    assert_eq!(store.release(&celery(), 100).await.unwrap().total(), 0);
    assert_eq!(lengths(&redis).await, (1, 0));
    let page = Page { after: 0, count_max: 9 };
    let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
    assert!(letters.iter().all(|letter| letter.reason == DeadReason::WorkerLost));
    assert_eq!(letters.len(), 2);
    let told = store.result("told").await.unwrap().unwrap();
    assert_eq!(told.meta.state(), State::Failure);
    assert!(store.result("silent").await.unwrap().is_none(), "it wants no result");
    assert_eq!(store.check(false).await.unwrap(), []);
}

#[tokio::test]
async fn a_release_without_room_for_dead_letters_loses_nothing() {
    let redis = redis_or_skip!();
    let store = store(&redis, StoreLimits { dead_letters_max: 1, ..StoreLimits::default() });
    store.publish(plan(&["a", "b", "c"]), None).await.unwrap();
    leave(&*store).await;
    let full = store.release(&celery(), 100).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DeadFull, "{full}");
    assert_eq!(lengths(&redis).await, (1, 2));
    assert_eq!(store.release(&celery(), 1).await.unwrap().lost, 1, "there is room for one");
    assert_eq!(lengths(&redis).await, (1, 1));
    assert_eq!(store.check(false).await.unwrap(), []);
}
