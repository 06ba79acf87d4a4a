//! Many jobs at once.

use super::each;
use crate::kit::PATIENCE;
use crate::running::{add, fails, steps};
use celeriac::prelude::*;
use celeriac::{JobError, JobSet};
use std::collections::BTreeSet;

#[tokio::test]
async fn results_come_in_order_or_as_they_are_ready() {
    each(async |client, _| {
        let jobs = client.send_all((0..300).map(|n| add::call(n, 1))).await.unwrap();
        let mut set: JobSet<i64> = jobs.clone().into_iter().collect();
        assert_eq!(set.get(PATIENCE).await.unwrap(), (1..301).collect::<Vec<i64>>());
        set = jobs.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(done) = set.next(PATIENCE).await.unwrap() {
            assert_eq!(done.outcome.unwrap(), done.index as i64 + 1);
            assert_eq!(set.jobs()[done.index].id(), done.id);
            seen.insert(done.index);
        }
        assert_eq!((seen.len(), set.left()), (300, 0));
        assert!(set.records().await.unwrap().iter().all(Option::is_some));
    })
    .await;
}

/// The first job waits; the others do not wait for it.
#[tokio::test]
async fn who_is_ready_first_comes_first() {
    each(async |client, under_test| {
        let slow = client.send(steps::call()).await.unwrap();
        let quick = client.send(Call::<String>::remote("t.echo").arg(&"x")).await.unwrap();
        let mut set: JobSet<String> = [slow, quick].into_iter().collect();
        assert_eq!(set.next(PATIENCE).await.unwrap().unwrap().index, 1);
        match set.next(1.millis()).await {
            Err(JobError::Timeout { id, .. }) => assert_eq!(id, set.jobs()[0].id()),
            other => panic!("{other:?}"),
        }
        under_test.gate.0.add_permits(2);
        assert_eq!(set.next(PATIENCE).await.unwrap().unwrap().outcome.unwrap(), "done");
        assert!(set.next(PATIENCE).await.unwrap().is_none());
    })
    .await;
}

/// One that hangs does not hide one that fails.
#[tokio::test]
async fn the_first_failure_ends_the_wait_for_all() {
    each(async |client, under_test| {
        let hangs = client.send(steps::call()).await.unwrap();
        let wrong: Job<String> = client.job(client.send(fails::call("x")).await.unwrap().id());
        let set: JobSet<String> = [hangs, wrong].into_iter().collect();
        assert!(matches!(set.get(PATIENCE).await, Err(JobError::Failed { .. })));
        under_test.gate.0.add_permits(2);
        let none: JobSet<String> = std::iter::empty().collect();
        assert!(none.get(0.secs()).await.unwrap().is_empty());
    })
    .await;
}
