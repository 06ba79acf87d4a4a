//! Chains, groups, chords and links, on every store.

use crate::kit::{PATIENCE, Place};
use crate::running::{TestApp, add, application, fails, note, start, sum, told};
use celeriac::prelude::*;
use celeriac::{Call, JobError};
use celeriac_wire::{State as TaskState, Value};

/// Applications with a running worker, one for each store.
async fn each(test: impl AsyncFn(&Client, &TestApp)) {
    for place in Place::every() {
        let under_test = application(place.app());
        let running = start(&under_test.app).await;
        test(&running.client, &under_test).await;
        running.stop().await;
    }
}

/// Waits until the diary has an entry that begins so.
async fn noted(client: &Client, of: &TestApp, beginning: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !of.diary.read().iter().any(|line| line.starts_with(beginning)) {
        let seen = client.store().changes();
        assert!(tokio::time::Instant::now() < deadline, "{beginning} in {:?}", of.diary.read());
        client.store().wait_change(seen, 100.millis()).await;
    }
}

/// Runs a task through all slots, so that whatever was enqueued before it has begun.
async fn settle(client: &Client) {
    let jobs = client.send_all((0..8).map(|n| add::call(n, 0))).await.unwrap();
    for job in jobs {
        job.get(PATIENCE).await.unwrap();
    }
}

fn exception<R: std::fmt::Debug>(outcome: Result<R, JobError>) -> String {
    match outcome {
        Err(JobError::Failed { exception, .. }) => exception,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_chain_hands_results_on() {
    each(async |client, _| {
        let job = client
            .send(chain(add::call(1, 2)).then(add::partial(10)).then(add::partial(100)))
            .await
            .unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), 113);
    })
    .await;
}

#[tokio::test]
async fn a_failing_step_ends_the_chain_and_calls_the_errback_once() {
    each(async |client, of| {
        let steps = chain(add::call(1, 2).task_id("first"))
            .then(fails::call("no rows").immutable().task_id("second"))
            .then(add::partial(1).task_id("third"))
            .on_error(told::partial());
        let job = client.send(steps).await.unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.contains("no rows"), "the rest is marked as failed: {text}");
        let state = async |id: &str| client.job::<Value>(id).state().await.unwrap();
        assert_eq!(state("first").await, TaskState::Success);
        assert_eq!(state("second").await, TaskState::Failure);
        assert_eq!(state("third").await, TaskState::Failure);
        noted(client, of, "told").await;
        settle(client).await;
        assert_eq!(of.diary.read(), ["told 'second'"]);
        for id in ["first", "second", "third"] {
            client.job::<Value>(id).forget().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_group_gives_its_results_in_order() {
    each(async |client, _| {
        let job = client.send_group(group((0..20).map(|n| add::call(n, n)))).await.unwrap();
        assert_eq!(job.jobs().len(), 20);
        assert_eq!(job.get(PATIENCE).await.unwrap(), (0..20).map(|n| 2 * n).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_chord_runs_its_body_once_with_all_results() {
    each(async |client, of| {
        let header = group((0..50).map(|n| add::call(n, 1)));
        let counted = sum::partial().link(told::partial());
        let job = client.send(chord(header).then(counted)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), (1..=50).sum::<i64>());
        noted(client, of, "told").await;
        settle(client).await;
        assert_eq!(of.diary.read(), ["told 1275"], "the body ran once");
    })
    .await;
}

#[tokio::test]
async fn a_chord_with_a_failing_member_fails() {
    each(async |client, of| {
        let header =
            group([add::call(1, 1), fails::call("no rows").task_id("bad"), add::call(2, 2)]);
        let job = client
            .send(chord(header).then(sum::partial()).on_error(told::partial()))
            .await
            .unwrap();
        let text = exception(job.get(PATIENCE).await);
        assert!(text.starts_with("ChordError('Dependency bad raised TaskFailed"), "{text}");
        assert!(text.contains("no rows"), "{text}");
        noted(client, of, "told").await;
        client.job::<Value>("bad").forget().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_empty_chord_runs_its_body_with_an_empty_list() {
    each(async |client, _| {
        let header = group(Vec::<Call<i64>>::new());
        let job = client.send(chord(header).then(sum::partial())).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), 0);
        let empty = client.send_group(group(Vec::<Call<i64>>::new())).await.unwrap();
        assert_eq!(empty.get(PATIENCE).await.unwrap(), Vec::<i64>::new());
    })
    .await;
}

#[tokio::test]
async fn workflows_nest() {
    each(async |client, _| {
        let pair = |n: i64| chain(add::call(n, 1)).then(add::partial(10));
        let chord_of_chains = chord(group([pair(1), pair(2)])).then(sum::partial());
        let outer = chain(chord_of_chains).then(add::partial(1000));
        let job = client.send(outer).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), 12 + 13 + 1000);

        // A group in a chain, followed by a step, is a chord.
        let upgraded = chain(add::call(1, 1))
            .then(group([add::partial(10), add::partial(20)]))
            .then(sum::partial());
        assert_eq!(client.send(upgraded).await.unwrap().get(PATIENCE).await.unwrap(), 12 + 22);

        let inner = |n: i64| chord(group([add::call(n, 0), add::call(n, 1)])).then(sum::partial());
        let nested = chord(group([inner(1), inner(10)])).then(sum::partial());
        assert_eq!(client.send(nested).await.unwrap().get(PATIENCE).await.unwrap(), 3 + 21);
    })
    .await;
}

#[tokio::test]
async fn links_are_called_with_the_result_and_with_the_id() {
    each(async |client, of| {
        let good = add::call(2, 3).link(told::partial()).link_error(note::call("never"));
        client.send(good).await.unwrap();
        noted(client, of, "told 5").await;
        let bad = fails::call("no rows")
            .task_id("bad")
            .link(note::call("never").immutable())
            .link_error(told::partial());
        client.send(bad).await.unwrap();
        noted(client, of, "told 'bad'").await;
        settle(client).await;
        assert_eq!(of.diary.read(), ["told 5", "told 'bad'"]);
        client.job::<Value>("bad").forget().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_workflow_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let under_test = application(Place::memory().app());
    let client = under_test.app.client().await.unwrap();
    let body = group([add::partial(1), add::partial(2)]);
    let wrong = chord(group([add::call(1, 2)])).then(body);
    let error = client.send(wrong).await.unwrap_err().to_string();
    assert!(error.contains("the body of a chord cannot be a group"), "{error}");
    assert!(client.store().queues().await.unwrap().iter().all(|queue| queue.ready == 0));
}
