//! Settlements: who may settle, and what becomes of the message.

use super::fixture::{Harness, attempt, dead, ids, outgoing, record, request, results, settlement};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::Suspicion;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{ChordStart, DeadFilter, Fate, FetchRequest, Place, Plan, Settled};
use celeriac_wire::State;

/// A settled message is gone, with its place in the queue.
pub async fn settle_done_removes_the_message(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    let plan = results(vec![record("a", &State::Success, fixture.now())]);
    assert_eq!(fixture.settle_with(settlement(held.lease, Fate::Done, plan)).await, Settled::Done);
    assert!(fixture.fetch(node, 9).await.is_empty());
    assert!(fixture.lapse(&[]).await.requeued == 0);
    assert_eq!(fixture.state_of("a").await, Some(State::Success));
}

/// A message that goes back to its head stands where it stood.
pub async fn settle_requeue_keeps_order(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.fetch(node, 2).await;
    fixture.send(&["d"]).await;
    for delivery in held.iter().rev() {
        fixture.release(delivery.lease, Place::Head).await;
    }
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["a", "b", "c", "d"]);
}

/// A message that goes to the tail waits behind everything.
pub async fn settle_requeue_to_the_tail_goes_last(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.take(node).await;
    fixture.release(held.lease, Place::Tail).await;
    fixture.send(&["d"]).await;
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["b", "c", "a", "d"]);
}

/// A run that began is noted; the next owner sees it.
pub async fn a_release_that_began_is_redelivered_with_its_history(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let mut history = Vec::new();
    for round in 0..3 {
        let held = fixture.take(node).await;
        assert_eq!((&held.history, held.redelivered), (&history, round > 0));
        let attempt = attempt("interrupted", fixture.now());
        history.push(attempt.clone());
        let fate = Fate::Release { place: Place::Head, attempt: Some(attempt) };
        assert_eq!(fixture.settle(held.lease, fate).await, Settled::Done);
    }
    assert_eq!(fixture.take(node).await.history, history);
}

/// A message that was only held goes back as if nothing had happened, but under a new lease.
pub async fn a_release_that_never_began_leaves_no_trace(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let first = fixture.take(node).await;
    fixture.release(first.lease, Place::Head).await;
    let mut second = fixture.take(node).await;
    assert_ne!(second.lease.token, first.lease.token);
    second.lease = first.lease;
    assert_eq!(second, first);
}

/// The death of a child is on its message's record: the next owner sees it, and runs it as its only
/// suspect, at its old place.
pub async fn a_message_whose_child_died_returns_as_a_suspect(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let mut history = Vec::new();
    for counted in 1..=3 {
        let held = fixture.take(node).await;
        assert_eq!((held.message.headers.id(), held.redelivered), (Some("a"), counted > 1));
        let suspicion = Suspicion { seen: 2, counted };
        let attempt = attempt("child-lost", fixture.now());
        history.push(attempt.clone());
        let settled = fixture.settle(held.lease, Fate::Lost { suspicion, attempt }).await;
        assert_eq!(settled, Settled::Done);
    }
    let queues = vec![super::fixture::queue("celery")];
    let careful = FetchRequest { suspects: false, ..request(node, queues, 9) };
    assert_eq!(ids(&fixture.store.fetch(careful).await.unwrap()), ["b", "c"]);
    let held = fixture.take(node).await;
    assert_eq!(held.suspicion, Suspicion { seen: 2, counted: 3 });
    assert_eq!((held.history.as_slice(), held.redelivered), (history.as_slice(), true));
}

/// A lease is good for one settlement.
pub async fn a_second_settlement_is_fenced(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    for fate in
        [Fate::Done, Fate::Release { place: Place::Head, attempt: None }, dead(DeadReason::Failed)]
    {
        fixture.send(&["a"]).await;
        let lease = fixture.take(node).await.lease;
        assert_eq!(fixture.settle(lease, fate.clone()).await, Settled::Done);
        assert_eq!(fixture.settle(lease, fate).await, Settled::Fenced);
        for left in fixture.fetch(node, 9).await {
            assert_eq!(fixture.settle(lease, Fate::Done).await, Settled::Fenced, "the old token");
            assert_eq!(fixture.settle(left.lease, Fate::Done).await, Settled::Done);
        }
    }
}

/// Nothing of a settlement whose lease is lost is written: no result, no message, no dead letter.
pub async fn a_fenced_settlement_writes_nothing(harness: &Harness) {
    let fixture = harness.store();
    let (lost, next) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["a"]).await;
    let old = fixture.take(lost).await;
    assert_eq!(fixture.lapse(&[next]).await.requeued, 1);
    let new = fixture.take(next).await;
    let plan = || Plan {
        publish: vec![outgoing("celery", "follows")],
        chords: vec![ChordStart { group: "g".to_owned(), size: 1 }],
        ..results(vec![record("a", &State::Success, fixture.now())])
    };
    for fate in
        [Fate::Done, Fate::Release { place: Place::Tail, attempt: None }, dead(DeadReason::Failed)]
    {
        let settled = fixture.settle_with(settlement(old.lease, fate, plan())).await;
        assert_eq!(settled, Settled::Fenced);
    }
    assert_eq!(fixture.state_of("a").await, None);
    assert_eq!(fixture.waiting().await, 0);
    assert_eq!(fixture.store.dead_count(&DeadFilter::default()).await.unwrap(), 0);
    let settled = fixture.settle_with(settlement(new.lease, Fate::Done, plan())).await;
    assert_eq!(settled, Settled::Done, "the new owner is not disturbed");
}

/// A fenced settlement does not spoil its neighbours, and answers keep their order.
pub async fn settlements_of_one_call_stand_each_on_its_own(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.fetch(node, 3).await;
    assert_eq!(fixture.settle(held[1].lease, Fate::Done).await, Settled::Done);
    let batch = held
        .iter()
        .map(|one| {
            let id = one.message.headers.id().unwrap();
            let plan = results(vec![record(id, &State::Success, fixture.now())]);
            settlement(one.lease, Fate::Done, plan)
        })
        .collect();
    let settled = fixture.store.settle(batch).await.unwrap();
    assert_eq!(settled, [Settled::Done, Settled::Fenced, Settled::Done]);
    assert_eq!(fixture.state_of("b").await, None);
    assert_eq!(fixture.state_of("c").await, Some(State::Success));
    assert!(fixture.store.settle(Vec::new()).await.unwrap().is_empty());
}

fn too_large(id: &str, at: jiff::Timestamp) -> Plan {
    let mut large = record(id, &State::Success, at);
    large.meta.set("result", "x".repeat(4096).as_str());
    results(vec![large])
}

/// What the store refuses can be settled again, smaller.
pub async fn a_refused_settlement_leaves_the_lease_standing(harness: &Harness) {
    let limits = StoreLimits { result_bytes_max: 2048, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let lease = fixture.take(node).await.lease;
    let large = settlement(lease, Fate::Done, too_large("a", fixture.now()));
    let error = fixture.store.settle(vec![large]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!((fixture.state_of("a").await, fixture.waiting().await), (None, 0));
    assert_eq!(fixture.settle(lease, dead(DeadReason::Failed)).await, Settled::Done);
}

/// After an error every settlement of the call may be tried again, so none of them is written.
pub async fn a_refused_batch_writes_nothing(harness: &Harness) {
    let limits = StoreLimits { result_bytes_max: 2048, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.fetch(node, 3).await;
    let batch = vec![
        settlement(held[0].lease, Fate::Done, Plan::default()),
        settlement(held[1].lease, Fate::Done, too_large("b", fixture.now())),
        settlement(held[2].lease, Fate::Done, Plan::default()),
    ];
    assert!(fixture.store.settle(batch).await.is_err());
    for delivery in held {
        assert_eq!(fixture.settle(delivery.lease, Fate::Done).await, Settled::Done);
    }
}
