//! What a worker that is gone had acknowledged: it is told and set aside, and never runs again.

use super::configured;
use crate::kit::{ALL, PATIENCE, Place, until};
use crate::running::{add, application, note, start, start_with, sum, told};
use celeriac::prelude::*;
use celeriac::{Client, JobError};
use celeriac_core::QueueName;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::store::{Begun, DeadFilter, FetchRequest, NodeInfo, Page, Phase, Replay, Store};
use celeriac_core::throttle::Target;

/// Acknowledges everything that waits and is gone.
async fn a_worker_comes_and_goes(store: &dyn Store) {
    let info = NodeInfo {
        name: "gone@host".to_owned(),
        pid: 1,
        queues: vec![QueueName::celery()],
        concurrency: 99,
        pool: "prefork".to_owned(),
        times: LeaseTimes::default(),
        tasks: Vec::new(),
    };
    let node = store.register(info).await.unwrap();
    let (queues, caps) = (vec![QueueName::celery()], Vec::new());
    let request = FetchRequest { node, queues, count_max: 99, suspects: true, caps };
    let held = store.fetch(request).await.unwrap();
    let begun =
        held.iter().map(|one| Begun { lease: one.lease, at: one.enqueued_at, acknowledged: true });
    store.mark_started(begun.collect()).await.unwrap();
    store.deregister(node).await.unwrap();
}

async fn failure<R: std::fmt::Debug + serde::de::DeserializeOwned>(job: &Job<R>) -> String {
    match job.get(PATIENCE).await {
        Err(JobError::Failed { exception, .. }) => exception,
        other => panic!("{other:?}"),
    }
}

async fn reason(client: &Client, id: &str) -> (i64, DeadReason) {
    match client.store().task(id).await.unwrap().phase {
        Phase::Dead { number, reason } => (number, reason),
        other => panic!("{id} is {other:?}"),
    }
}

#[tokio::test]
async fn what_a_lost_worker_acknowledged_is_told_and_never_runs() {
    for place in Place::every() {
        let of = application(place.app());
        let client = of.app.client().await.unwrap();
        let store = client.store();
        let alone = note::call("ran").task_id("alone").link_error(told::partial());
        let alone = client.send(alone).await.unwrap();
        let stranger = client.send(Call::named("t.of_others")).await.unwrap();
        let header = group([add::call(1, 1).task_id("member")]);
        let chord = client.send(chord(header).then(sum::partial())).await.unwrap();
        a_worker_comes_and_goes(&**store).await;

        let running = start(&of.app).await;
        let text = failure(&alone).await;
        assert!(text.starts_with("WorkerLostError('the worker that ran it is gone"), "{text}");
        assert!(failure(&stranger).await.contains("WorkerLostError"));
        let text = failure(&chord).await;
        assert!(text.starts_with("ChordError('Dependency member raised WorkerLostError"), "{text}");
        for id in ["alone", "member", stranger.id()] {
            assert_eq!(reason(&client, id).await.1, DeadReason::WorkerLost, "{id}");
        }
        until("the errback ran", PATIENCE, async || (!of.diary.read().is_empty()).then_some(()))
            .await;
        running.stop().await;
        assert_eq!(of.diary.read(), ["told 'alone'"], "no body ran");

        // Somebody looks at it and sends it again: a new life.
        let ids = vec!["alone".to_owned()];
        let filter = DeadFilter { ids, ..DeadFilter::default() };
        assert_eq!(store.dead_replay(&filter, &Replay::default(), 1).await.unwrap().len(), 1);
        let running = start(&of.app).await;
        assert_eq!(alone.get(PATIENCE).await.unwrap(), "ran");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_pause_does_not_keep_a_loss_from_being_told() {
    for place in Place::every() {
        let of = application(place.app());
        let client = of.app.client().await.unwrap();
        let store = client.store();
        let lost = client.send(add::call(1, 1)).await.unwrap();
        a_worker_comes_and_goes(&**store).await;
        store.pause(&Target::Everything, "repair").await.unwrap();
        let waits = client.send(add::call(1, 1)).await.unwrap();
        let running = start(&of.app).await;
        assert!(failure(&lost).await.contains("WorkerLostError"));
        let (all, page) = (DeadFilter::default(), Page { after: 0, count_max: 9 });
        assert_eq!(store.dead_list(&all, page).await.unwrap().len(), 1);
        assert!(matches!(waits.view().await.unwrap().phase, Phase::Queued { paused: true, .. }));
        running.stop().await;
    }
}

/// A member that was purged never ends; what waits for it does. What waits only for its time is no loss.
#[tokio::test]
async fn a_chord_whose_member_is_gone_fails() {
    let place = Place::shared();
    let app = configured(&place, "chord_expires = \"1s\"");
    let under_test = application(app);
    let running = start_with(&under_test.app, under_test.app.worker().queues(["celery"])).await;
    let client = &running.client;
    let members = [add::call(1, 1), add::call(2, 2).queue("nobody"), add::call(3, 3)];
    let counted = chord(group(members)).then(sum::partial()).on_error(told::partial());
    let job = client.send(counted).await.unwrap();
    let queue = celeriac_core::QueueName::parse("nobody").unwrap();
    let stored = client.store().peek(&queue, ALL).await.unwrap();
    let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
    assert_eq!(client.store().remove(&rows).await.unwrap().len(), 1);
    let error = job.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("ChordError") && error.contains("MemberLost"), "{error}");
    until("the errback is called", PATIENCE, async || {
        under_test.diary.read().iter().any(|line| line.starts_with("told")).then_some(())
    })
    .await;
    running.stop().await;
    assert_eq!(under_test.diary.read().len(), 1, "once");
}
