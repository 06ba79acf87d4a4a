//! A flood of limited messages ahead of one free message, on a real file.
//!
//! `CELERIAC_LIMITED=1000000` is the run of the promise; the default is made for CI.

#![expect(clippy::print_stdout, reason = "the figures of a run by hand")]

use crate::{celery, open, register, request};
use celeriac_core::store::{Broker as _, Nodes as _, Outgoing, Plan, Store, Throttle as _};
use celeriac_core::throttle::{KEY_HEADER, LimitRule, RuleOrigin, Target};
use celeriac_wire::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

fn count() -> usize {
    let given = std::env::var_os("CELERIAC_LIMITED");
    given.map_or(20_000, |count| count.to_str().unwrap().parse().unwrap())
}

fn of_task(task: &str, id: &str) -> Outgoing {
    Outgoing::new(celery(), Message::new(task, id, "[[], {}, {}]"))
}

/// Nothing of this task may run.
fn closed(task: &str) -> LimitRule {
    LimitRule {
        target: Target::Task(task.to_owned()),
        per_key: false,
        rates: vec!["1/d".parse().unwrap()],
        concurrency: None,
        origin: RuleOrigin::Operator,
    }
}

async fn flood(store: &dyn Store, keys: usize) {
    let mut sent = 0;
    while sent < count() {
        let batch = (sent..(sent + 1000).min(count())).map(|number| {
            let mut outgoing = of_task("limited", &format!("l{number}"));
            if keys > 0 {
                outgoing.message.headers.insert(KEY_HEADER, format!("key {}", number % keys));
            }
            outgoing
        });
        let publish: Vec<_> = batch.collect();
        sent += publish.len();
        store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
    }
    let publish = vec![of_task("free", "free")];
    store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
}

/// Fetches until the free message comes; gives the number of fetches and the time.
async fn until_free(store: &Arc<celeriac_stores::SqliteStore>) -> (usize, Duration, Duration) {
    let node = register(&**store, "celery@a").await;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for fetches in 1..1000 {
        let one = Instant::now();
        let taken = store.fetch(request(node, 8)).await.unwrap();
        longest = longest.max(one.elapsed());
        if taken.iter().any(|one| one.message.headers.id() == Some("free")) {
            store.deregister(node).await.unwrap();
            return (fetches, begun.elapsed(), longest);
        }
    }
    panic!("the free message is not served");
}

async fn shows(what: &str, keys: usize, limit_first: bool, fetches_max: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _clock) = open(&folder.path().join("queue.db"), 1);
    if limit_first {
        store.set_limit(closed("limited")).await.unwrap();
    }
    flood(&*store, keys).await;
    if !limit_first {
        store.set_limit(closed("limited")).await.unwrap();
    }
    let (fetches, took, longest) = until_free(&store).await;
    let number = count();
    println!(
        "{what}: {number} limited ahead, served by fetch {fetches} after {took:?} (longest {longest:?})"
    );
    assert!(fetches <= fetches_max, "{what}: {fetches} fetches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_limited_messages_does_not_hold_up_a_free_one() {
    shows("limit set before", 0, true, 1).await;
    // Each fetch moves 80,000 messages out of the way.
    shows("limit set after", 0, false, 1 + count() / 80_000).await;
    shows("of 10,000 keys", 10_000, true, 1).await;
}
