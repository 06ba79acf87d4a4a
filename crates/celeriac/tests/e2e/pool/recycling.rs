//! Children are replaced after so many tasks, or when they have grown.

use super::{add, eats, entered, lives, who};
use crate::kit::{PATIENCE, until};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_ends_after_its_tasks_and_no_slot_waits() {
    // covers: S5-14
    let (_place, app) = entered();
    for per_child in [1, 3] {
        let worker = super::worker(&app, 1).max_tasks_per_child(per_child);
        let here = crate::running::start_with(&app, worker).await;
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        let mut order = Vec::new();
        for job in here.client.send_all((0..12).map(|_| who::call())).await.unwrap() {
            let (pid, ..) = job.get(PATIENCE).await.unwrap();
            *counts.entry(pid).or_default() += 1;
            if order.last() != Some(&pid) {
                order.push(pid);
            }
        }
        assert_eq!(counts.len() as u64, 12 / per_child, "{counts:?}");
        assert!(counts.values().all(|count| *count == per_child), "{counts:?}");
        assert_eq!(order.len(), counts.len(), "one after the other: {order:?}");
        let first = order[0];
        until("the first is gone", PATIENCE, async || (!lives(first)).then_some(())).await;
        here.stop().await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_has_grown_ends_after_its_task() {
    // covers: S3-27, T-79
    let (place, app) = entered();
    let worker = super::worker(&app, 1).max_memory_per_child(100 << 20);
    let here = crate::running::start_with(&app, worker).await;
    let pid =
        || async { here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap().0 };
    let first = pid().await;
    let notes = place.path("notes");
    let grown = here.client.send(eats::call(notes.clone(), 150, false)).await.unwrap();
    assert_eq!(grown.get(PATIENCE).await.unwrap(), first, "its task ends in peace");
    let next = pid().await;
    assert_ne!(next, first);
    assert_eq!(pid().await, next, "a small child stays");
    super::is_gone(first).await;
    let sum = here.client.send(add::call(1, 1)).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    let report = here.stop().await;
    assert_eq!(report.failed, 0);
}
