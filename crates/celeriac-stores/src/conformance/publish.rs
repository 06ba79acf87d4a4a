//! What a publisher may rely on.

use super::fixture::{Harness, attempt, message, outgoing, queue, record, results, settlement};
use celeriac_core::ErrorKind;
use celeriac_core::limits::{StoreLimits, TASK_ID_BYTES_MAX};
use celeriac_core::store::{ChordStart, Fate, Outgoing, Plan, Settled};
use celeriac_wire::{Headers, Message, Properties, State};

/// Messages, results and chords of one plan are all there afterwards.
pub async fn a_plan_is_written_whole(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let plan = Plan {
        publish: vec![outgoing("celery", "a"), outgoing("reports", "b")],
        results: vec![record("c", &State::Success, fixture.now())],
        ..Plan::default()
    };
    fixture.store.publish(plan, None).await.unwrap();
    assert_eq!(fixture.fetch_from(node, &["celery", "reports"], 9).await.len(), 2);
    assert_eq!(fixture.state_of("c").await, Some(State::Success));
}

/// One refused message refuses its neighbours, their results and their chords.
pub async fn publish_is_all_or_nothing(harness: &Harness) {
    let limits = StoreLimits { message_bytes_max: 4096, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let large = Outgoing::new(queue("celery"), Message::new("app.add", "b", vec![b'x'; 5000]));
    let plan = Plan {
        publish: vec![outgoing("celery", "a"), large, outgoing("reports", "c")],
        results: vec![record("d", &State::Success, fixture.now())],
        chords: vec![ChordStart { group: "g".to_owned(), size: 2 }],
        ..Plan::default()
    };
    let error = fixture.store.publish(plan, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("task b"), "the error names the message: {error}");
    assert!(fixture.store.queues().await.unwrap().is_empty());
    assert_eq!(fixture.state_of("d").await, None);
}

/// An empty plan is no error.
pub async fn an_empty_plan_changes_nothing(harness: &Harness) {
    let fixture = harness.store();
    fixture.store.publish(Plan::default(), None).await.unwrap();
    assert!(fixture.store.queues().await.unwrap().is_empty());
}

/// Waiting, scheduled and held messages count against a queue's depth.
pub async fn depth_limit_refuses_at_the_publisher(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 3, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    let mut scheduled = outgoing("celery", "b");
    scheduled.message.headers.set_eta(Some(fixture.at(60)));
    fixture.publish(vec![outgoing("celery", "a"), scheduled]).await;
    let held = fixture.take(node).await;

    let two =
        Plan { publish: vec![outgoing("celery", "c"), outgoing("celery", "d")], ..Plan::default() };
    let error = fixture.store.publish(two, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.is_retryable() && error.hint_text().is_some(), "{error}");
    assert_eq!(fixture.waiting().await, 1, "nothing of the refused plan is there");

    fixture.send(&["c"]).await;
    let one = || Plan { publish: vec![outgoing("celery", "d")], ..Plan::default() };
    assert_eq!(fixture.store.publish(one(), None).await.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(fixture.settle(held.lease, Fate::Done).await, Settled::Done);
    fixture.store.publish(one(), None).await.unwrap();
}

/// A full queue does not keep messages out of another.
pub async fn depth_limits_are_counted_for_each_queue(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 1, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    fixture.send(&["a"]).await;
    fixture.send_to("reports", &["b"]).await;
    let plan =
        Plan { publish: vec![outgoing("mail", "c"), outgoing("reports", "d")], ..Plan::default() };
    assert_eq!(fixture.store.publish(plan, None).await.unwrap_err().kind(), ErrorKind::Full);
    fixture.send_to("mail", &["c"]).await;
}

/// What a worker sends with a settlement goes into a queue even if that is full.
pub async fn accepted_work_is_never_refused_for_depth(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 2, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b"]).await;
    let held = fixture.take(node).await;
    let next =
        Plan { publish: vec![outgoing("celery", "c"), outgoing("celery", "d")], ..Plan::default() };
    assert_eq!(fixture.settle_with(settlement(held.lease, Fate::Done, next)).await, Settled::Done);
    assert_eq!(fixture.waiting().await, 3);
}

/// The size limit counts headers, properties and body.
pub async fn too_large_messages_are_refused(harness: &Harness) {
    let limits = StoreLimits { message_bytes_max: 4096, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let sized = |body: usize| {
        let message = Message::new("app.add", "a", vec![b'x'; body]);
        Plan { publish: vec![Outgoing::new(queue("celery"), message)], ..Plan::default() }
    };
    let bare = Message::new("app.add", "a", Vec::new());
    let around = bare.headers.to_json().len() + bare.properties.to_json().len();
    let error = fixture.store.publish(sized(4096 - around + 1), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(!error.is_retryable() && error.hint_text().is_some(), "{error}");
    assert!(error.to_string().contains("4096"), "the error names the limit: {error}");
    assert_eq!(fixture.waiting().await, 0);
    fixture.store.publish(sized(4096 - around), None).await.unwrap();
}

/// A result document beyond the limit is refused with the plan around it.
pub async fn too_large_results_are_refused(harness: &Harness) {
    let limits = StoreLimits { result_bytes_max: 1000, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let mut large = record("a", &State::Success, fixture.now());
    large.meta.set("result", "x".repeat(1000).as_str());
    let plan = Plan { publish: vec![outgoing("celery", "b")], ..results(vec![large]) };
    let error = fixture.store.publish(plan, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!((fixture.state_of("a").await, fixture.waiting().await), (None, 0));
}

/// A retry adds an eta and a longer count; that must not make an accepted message too large.
pub async fn a_message_at_its_size_limit_can_be_retried(harness: &Harness) {
    let mut sent = outgoing("celery", "a");
    sent.message.headers.set_retries(9);
    let size = sent.message.headers.to_json().len()
        + sent.message.properties.to_json().len()
        + sent.message.body.len();
    let limits = StoreLimits { message_bytes_max: size, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    fixture.publish(vec![sent.clone()]).await;
    let held = fixture.take(node).await;
    let mut again = Outgoing { enqueued_at: Some(held.enqueued_at), ..sent };
    again.message.headers.set_retries(10).set_eta(Some(fixture.at(60)));
    let plan = Plan { publish: vec![again], ..Plan::default() };
    assert_eq!(fixture.settle_with(settlement(held.lease, Fate::Done, plan)).await, Settled::Done);
}

/// Task ids end at 255 bytes.
pub async fn long_task_ids_are_refused(harness: &Harness) {
    let fixture = harness.store();
    fixture.send(&[&"x".repeat(TASK_ID_BYTES_MAX)]).await;
    let long = "x".repeat(TASK_ID_BYTES_MAX + 1);
    let plan = Plan { publish: vec![outgoing("celery", &long)], ..Plan::default() };
    let error = fixture.store.publish(plan, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(fixture.waiting().await, 1);
}

/// Fields nobody here knows, absent against null, number texts and binary bodies come out as they
/// went in.
pub async fn every_byte_and_unknown_field_survives(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let headers = br#"{"lang": "py", "task": "app.add", "id": "a", "shadow": null, "x-trace":
        {"b": 1.0, "a": [1e3, 12345678901234567890123, -0.0, "\ud83d\ude00", NaN]}, "retries": 0}"#;
    let properties =
        br#"{"correlation_id": "a", "priority": 4, "x-odd": [null, true], "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery", "extra": {"deep": "1"}}}"#;
    let sent = Message {
        headers: Headers::parse(headers).unwrap(),
        properties: Properties::parse(properties).unwrap(),
        content_type: "application/x-python-serialize".to_owned(),
        content_encoding: "binary".to_owned(),
        body: (0u8..=255).collect::<Vec<u8>>().into(),
    };
    fixture.publish(vec![Outgoing::new(queue("celery"), sent.clone())]).await;
    let seen = fixture.store.peek(&queue("celery"), super::fixture::ALL).await.unwrap();
    let held = fixture.take(node).await.message;
    for read in [&seen[0].outgoing.message, &held] {
        assert_eq!(read.headers.to_json(), sent.headers.to_json());
        assert_eq!(read.properties.to_json(), sent.properties.to_json());
        assert_eq!(
            (&read.content_type, &read.content_encoding, &read.body),
            (&sent.content_type, &sent.content_encoding, &sent.body)
        );
    }
}

/// The age and the history of a retried or loaded message go with it.
pub async fn a_retry_keeps_when_its_life_began(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let began = fixture.now();
    let history = vec![attempt("retry", began), attempt("worker-lost", began)];
    fixture.clock.advance(std::time::Duration::from_secs(90));
    fixture
        .publish(vec![
            Outgoing {
                history: history.clone(),
                enqueued_at: Some(began),
                ..Outgoing::new(queue("celery"), message("app.add", "a"))
            },
            outgoing("celery", "b"),
        ])
        .await;
    let held = fixture.fetch(node, 2).await;
    assert_eq!((held[0].enqueued_at, &held[0].history), (began, &history));
    assert_eq!((held[1].enqueued_at, held[1].history.len()), (fixture.now(), 0));
    assert!(!held[0].redelivered, "a new message is not a redelivered one");
}
