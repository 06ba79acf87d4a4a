//! Dead letters: kept whole, found, sent back once, mended, thrown away, and bounded.

use super::fixture::{
    ALL, Fixture, Harness, attempt, dead, ids, message, outgoing, queue, record, results,
    settlement,
};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::limits::{StoreLimits, TASK_ID_BYTES_MAX};
use celeriac_core::store::{
    DeadFilter, Fate, NodeId, Outgoing, Page, Phase, Plan, Replay, Settled,
};
use celeriac_wire::{Message, State};
use std::time::Duration;

async fn bury_all(fixture: &Fixture, node: NodeId, ids: &[&str]) {
    for id in ids {
        fixture.bury(node, outgoing("celery", id), DeadReason::Failed, "ValueError: no rows").await;
    }
}

fn only(id: &str) -> DeadFilter {
    DeadFilter { ids: vec![id.to_owned()], ..DeadFilter::default() }
}

/// A dead letter is its message, byte for byte, with why, when and what happened before.
pub async fn a_dead_letter_keeps_message_reason_and_history(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let sent_at = fixture.now();
    let mut sent = outgoing("reports", "a");
    sent.message.headers.insert("x-unknown", "kept");
    sent.message.body = vec![0u8, 255, 1].into();
    sent.history = vec![attempt("retry", sent_at)];
    fixture.publish(vec![sent.clone()]).await;
    let lease = fixture.fetch_from(node, &["reports"], 1).await[0].lease;
    fixture.clock.advance(Duration::from_secs(5));
    let last = attempt("failed", fixture.now());
    let fate = Fate::Dead {
        reason: DeadReason::Undecodable,
        detail: "no JSON \u{1f980}".to_owned(),
        attempt: Some(last.clone()),
    };
    assert_eq!(fixture.settle(lease, fate).await, Settled::Done);
    let letters = fixture.store.dead_list(&DeadFilter::default(), ALL).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((&letter.message, &letter.queue), (&sent.message, &queue("reports")));
    assert_eq!(letter.reason, DeadReason::Undecodable);
    assert_eq!(letter.detail, "no JSON \u{1f980}");
    assert_eq!((letter.enqueued_at, letter.died_at), (sent_at, fixture.now()));
    assert_eq!(letter.history, [sent.history[0].clone(), last]);
    assert!(fixture.fetch_from(node, &["reports"], 9).await.is_empty());
}

/// Numbers grow and pages follow them.
pub async fn dead_list_pages_by_number(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a", "b", "c", "d", "e"]).await;
    let mut after = 0;
    let mut read = Vec::new();
    loop {
        let page = Page { after, count_max: 2 };
        let letters = fixture.store.dead_list(&DeadFilter::default(), page).await.unwrap();
        assert!(letters.len() <= 2);
        let Some(last) = letters.last() else { break };
        assert!(last.number > after);
        after = last.number;
        read.extend(letters.into_iter().map(|l| l.message.headers.id().unwrap().to_owned()));
    }
    assert_eq!(read, ["a", "b", "c", "d", "e"]);
    assert_eq!(fixture.store.dead_count(&DeadFilter::default()).await.unwrap(), 5);
}

/// Every part of a filter narrows it.
pub async fn dead_filters_match_every_given_part(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let letter = |name: &str, task: &str, id: &str| Outgoing::new(queue(name), message(task, id));
    fixture.bury(node, letter("celery", "app.add", "a"), DeadReason::Failed, "boom 50%").await;
    fixture.bury(node, letter("celery", "app.mul", "b"), DeadReason::Poison, "SIGSEGV").await;
    fixture.bury(node, letter("reports", "app.add", "c"), DeadReason::Failed, "boom").await;
    let numbers = fixture.dead_numbers().await;
    let any = DeadFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let by_number = numbers[1].to_string();
    for (filter, expected) in [
        (any(), "abc"),
        (only("b"), "b"),
        (only(&by_number), "b"),
        (DeadFilter { ids: vec!["a".into(), "c".into(), "z".into()], ..any() }, "ac"),
        (only("1 OR 1"), ""),
        (DeadFilter { queue: Some(queue("reports")), ..any() }, "c"),
        (DeadFilter { task: text("app.add"), ..any() }, "ac"),
        (DeadFilter { task: text("app."), ..any() }, ""),
        (DeadFilter { task: text("app.*"), ..any() }, "abc"),
        (DeadFilter { task: text("*"), ..any() }, "abc"),
        (DeadFilter { task: text("pp.*"), ..any() }, ""),
        (DeadFilter { reason: Some(DeadReason::Poison), ..any() }, "b"),
        (DeadFilter { detail: text("oom"), ..any() }, "ac"),
        (DeadFilter { detail: text("50%"), ..any() }, "a"),
        (DeadFilter { detail: text("%"), ..any() }, "a"),
        (DeadFilter { detail: text("boom"), queue: Some(queue("celery")), ..any() }, "a"),
    ] {
        let found = fixture.store.dead_list(&filter, ALL).await.unwrap();
        let found: String = found.iter().map(|l| l.message.headers.id().unwrap()).collect();
        assert_eq!(found, expected, "{filter:?}");
        let counted = fixture.store.dead_count(&filter).await.unwrap();
        assert_eq!(counted, expected.len() as u64, "{filter:?}");
    }
}

/// A letter goes back once, and its failure no longer stands in the way of a success.
pub async fn dead_replay_goes_exactly_once_and_forgets_the_failure(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let lease = fixture.take(node).await.lease;
    let failed = results(vec![record("a", &State::Failure, fixture.now())]);
    let fate = dead(DeadReason::Failed);
    assert_eq!(fixture.settle_with(settlement(lease, fate, failed)).await, Settled::Done);
    bury_all(&fixture, node, &["other"]).await;
    fixture.store.revoke(&["a".to_owned()], false).await.unwrap();

    let replay = Replay::default();
    let (filter, store) = (only("a"), &fixture.store);
    let (one, two) = tokio::join!(
        store.dead_replay(&filter, &replay, 10),
        store.dead_replay(&filter, &replay, 10)
    );
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1, "exactly once");
    assert_eq!(fixture.state_of("a").await, None);
    assert_eq!(fixture.store.dead_count(&DeadFilter::default()).await.unwrap(), 1);
    let held = fixture.fetch(node, 9).await;
    assert_eq!(ids(&held), ["a"]);
    assert!(!held[0].revoked, "the operator's replay withdraws an old revocation");
    let done = results(vec![record("a", &State::Success, fixture.now())]);
    let settled = fixture.settle_with(settlement(held[0].lease, Fate::Done, done)).await;
    assert_eq!(settled, Settled::Done);
    assert_eq!(fixture.state_of("a").await, Some(State::Success));
}

/// Retries, eta, expiry and suspicion were those of the first life; the history goes on.
pub async fn dead_replay_begins_a_new_life(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let mut sent = outgoing("celery", "a");
    sent.message.headers.set_retries(3).set_expires(Some(fixture.at(60)));
    sent.message.properties.set_expiration(Some(Duration::from_mins(1)));
    sent.history = vec![attempt("retry", fixture.now())];
    fixture.bury(node, sent, DeadReason::Failed, "boom").await;
    fixture.clock.advance(Duration::from_hours(1));
    fixture.store.dead_replay(&only("a"), &Replay::default(), 1).await.unwrap();
    let node = fixture.node("celery@b").await;
    let held = fixture.take(node).await;
    let headers = &held.message.headers;
    assert_eq!((headers.retries(), headers.expires().unwrap()), (0, None));
    assert_eq!(held.message.properties.expiration().unwrap(), None);
    assert_eq!((held.enqueued_at, held.history.len()), (fixture.now(), 1));
    assert_eq!((held.suspicion.seen, held.redelivered), (0, false));
}

/// An operator may keep the count of retries and choose another queue.
pub async fn dead_replay_can_keep_retries_and_change_the_queue(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let mut sent = outgoing("celery", "a");
    sent.message.headers.set_retries(2);
    fixture.bury(node, sent, DeadReason::Failed, "boom").await;
    let replay = Replay { queue: Some(queue("repair")), keep_retries: true };
    fixture.store.dead_replay(&only("a"), &replay, 1).await.unwrap();
    let held = fixture.fetch_from(node, &["repair"], 1).await;
    assert_eq!(held[0].message.headers.retries(), 2);
}

/// A replay is bounded and says which letters went, the oldest first.
pub async fn dead_replay_takes_no_more_than_it_may(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a", "b", "c"]).await;
    let numbers = fixture.dead_numbers().await;
    let filter = DeadFilter::default();
    let went = fixture.store.dead_replay(&filter, &Replay::default(), 2).await.unwrap();
    assert_eq!(went, numbers[..2]);
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["a", "b"]);
    assert_eq!(fixture.dead_numbers().await, numbers[2..]);
}

/// A replay that does not fit moves nothing.
pub async fn a_full_queue_refuses_a_replay_whole(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 2, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a", "b", "c"]).await;
    let failed = results(vec![record("a", &State::Failure, fixture.now())]);
    fixture.store.publish(failed, None).await.unwrap();
    let filter = DeadFilter::default();
    let error = fixture.store.dead_replay(&filter, &Replay::default(), 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert_eq!(fixture.dead_numbers().await.len(), 3);
    assert_eq!((fixture.waiting().await, fixture.state_of("a").await), (0, Some(State::Failure)));
}

/// A mended letter is found under its new names, and runs as mended.
pub async fn dead_edit_replaces_the_message_and_its_names(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let typo = Outgoing::new(queue("celery"), message("app.ad", "a"));
    fixture.bury(node, typo, DeadReason::UnknownTask, "unknown task app.ad").await;
    let number = fixture.dead_numbers().await[0];
    let mended = Outgoing::new(queue("reports"), message("app.add", "b"));
    fixture.store.dead_edit(number, mended.clone()).await.unwrap();
    let by_task = DeadFilter { task: Some("app.add".to_owned()), ..DeadFilter::default() };
    for filter in [by_task, only("b")] {
        let letters = fixture.store.dead_list(&filter, ALL).await.unwrap();
        assert_eq!(letters.len(), 1, "{filter:?}");
        assert_eq!(letters[0].message, mended.message);
        assert_eq!(letters[0].reason, DeadReason::UnknownTask);
    }
    assert_eq!(fixture.store.dead_count(&only("a")).await.unwrap(), 0);
    assert!(matches!(fixture.store.task("b").await.unwrap().phase, Phase::Dead { .. }));
    fixture.store.dead_replay(&only("b"), &Replay::default(), 1).await.unwrap();
    let held = fixture.fetch_from(node, &["reports"], 1).await;
    assert_eq!(held[0].message, mended.message);
}

/// An edit is held to a publisher's limits, and to letters that exist.
pub async fn dead_edit_refuses_what_a_publisher_may_not_send(harness: &Harness) {
    let limits = StoreLimits { message_bytes_max: 4096, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a"]).await;
    let number = fixture.dead_numbers().await[0];
    let large = Outgoing::new(queue("celery"), Message::new("app.add", "a", vec![b'x'; 5000]));
    let long = outgoing("celery", &"x".repeat(TASK_ID_BYTES_MAX + 1));
    for (number, edited, kind) in [
        (number, large, ErrorKind::TooLarge),
        (number, long, ErrorKind::Invalid),
        (number + 1, outgoing("celery", "a"), ErrorKind::NotFound),
    ] {
        let error = fixture.store.dead_edit(number, edited).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let letters = fixture.store.dead_list(&only("a"), ALL).await.unwrap();
    assert_eq!(letters[0].message, message("app.add", "a"));
}

/// Discarding is by number, counts what was there, and never reuses a number.
pub async fn dead_discard_deletes_by_number(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a", "b"]).await;
    let numbers = fixture.dead_numbers().await;
    let gone = fixture.store.dead_discard(&[numbers[1], numbers[1], 9999]).await.unwrap();
    assert_eq!(gone, 1);
    assert_eq!(fixture.dead_numbers().await, numbers[..1]);
    bury_all(&fixture, node, &["c"]).await;
    assert!(fixture.dead_numbers().await[1] > numbers[1]);
    assert!(fixture.fetch(node, 9).await.is_empty());
}

/// At the bound a failure waits with its lease; nothing is dropped, and room lets it in.
pub async fn dead_letters_are_bounded(harness: &Harness) {
    let limits = StoreLimits { dead_letters_max: 2, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    bury_all(&fixture, node, &["a", "b"]).await;
    fixture.send(&["c", "d"]).await;
    let held = fixture.fetch(node, 2).await;
    let third = || settlement(held[0].lease, dead(DeadReason::Failed), Plan::default());
    let error = fixture.store.settle(vec![third()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadFull);
    assert!(error.is_retryable() && error.hint_text().is_some(), "{error}");
    assert_eq!(fixture.settle(held[1].lease, Fate::Done).await, Settled::Done, "others go on");
    let oldest = fixture.dead_numbers().await[0];
    fixture.store.dead_discard(&[oldest]).await.unwrap();
    assert_eq!(fixture.settle_with(third()).await, Settled::Done);
    assert_eq!(fixture.store.dead_count(&DeadFilter::default()).await.unwrap(), 2);
}
