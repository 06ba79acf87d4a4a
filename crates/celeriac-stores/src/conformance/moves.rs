//! Moving messages: holding them where they were, and sending them once.

use super::fixture::{ALL, Fixture, Harness, ids, outgoing, queue};
use celeriac_core::ErrorKind;
use celeriac_core::store::{
    Delivery, Fate, NodeId, ONCE_KEPT, Outgoing, Page, Plan, Published, Settled, Settlement,
};
use celeriac_core::throttle::Target;

async fn rows(fixture: &Fixture) -> Vec<i64> {
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    stored.iter().map(|one| one.row).collect()
}

async fn hold_all(fixture: &Fixture, node: NodeId) -> Vec<Delivery> {
    fixture.store.hold(node, &rows(fixture).await).await.unwrap()
}

/// Whatever keeps messages from running does not keep them from being moved.
pub async fn what_waits_for_anything_is_held(harness: &Harness) {
    let fixture = harness.store();
    let mover = fixture.node("move@a").await;
    let worker = fixture.node("celery@a").await;
    fixture.send(&["ready"]).await;
    let mut later = outgoing("celery", "later");
    later.message.headers.set_eta(Some(fixture.at(60)));
    fixture.publish(vec![later.clone()]).await;
    fixture.store.pause(&Target::from(&queue("celery")), "").await.unwrap();
    assert!(fixture.fetch(worker, 9).await.is_empty());
    let held = hold_all(&fixture, mover).await;
    let mut names = ids(&held);
    names.sort_unstable();
    assert_eq!(names, ["later", "ready"]);
    assert_eq!(fixture.waiting().await, 0, "nobody else sees them");
    let of = |id: &str| held.iter().find(|one| one.message.headers.id() == Some(id)).unwrap();
    assert_eq!(of("later").message, later.message);
    for one in &held {
        assert_eq!(fixture.settle(one.lease, Fate::Done).await, Settled::Done);
    }
    assert!(fixture.store.check(false).await.unwrap().is_empty());
}

/// Somebody else was faster, or the row is unknown.
pub async fn only_what_waits_is_held(harness: &Harness) {
    let fixture = harness.store();
    let mover = fixture.node("move@a").await;
    let worker = fixture.node("celery@a").await;
    fixture.send(&["a", "b"]).await;
    let rows = rows(&fixture).await;
    let taken = fixture.take(worker).await;
    assert_eq!(taken.message.headers.id(), Some("a"));
    let held = fixture.store.hold(mover, &[rows[0], rows[1], 99_999]).await.unwrap();
    assert_eq!(ids(&held), ["b"]);
    assert!(fixture.store.hold(mover, &rows).await.unwrap().is_empty(), "held already");
    assert!(fixture.fetch(worker, 9).await.is_empty());
}

/// A mover that dies returns everything.
pub async fn a_dead_mover_returns_what_it_held(harness: &Harness) {
    let fixture = harness.store();
    let mover = fixture.node("move@a").await;
    let worker = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let mut later = outgoing("celery", "later");
    later.message.headers.set_eta(Some(fixture.at(3600)));
    fixture.publish(vec![later]).await;
    let held = hold_all(&fixture, mover).await;
    assert_eq!(held.len(), 2);
    assert_eq!(fixture.lapse(&[worker]).await.requeued, 2);
    assert_eq!(fixture.settle(held[0].lease, Fate::Done).await, Settled::Fenced);
    let next = fixture.node("move@b").await;
    // A worker may get the scheduled one too early, with its eta, and gives it back to its time.
    let mut back = fixture.fetch(worker, 9).await;
    assert_eq!(ids(&back)[0], "a");
    back.extend(hold_all(&fixture, next).await);
    assert_eq!(ids(&back), ["a", "later"]);
    assert_eq!(back[1].message.headers.eta().unwrap(), Some(fixture.at(3600 - 8)));
    assert!(fixture.store.check(false).await.unwrap().is_empty());
}

/// A node that is not alive holds nothing: it would never come back.
pub async fn a_mover_has_to_live(harness: &Harness) {
    let fixture = harness.store();
    let mover = fixture.node("move@a").await;
    let other = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    fixture.lapse(&[other]).await;
    let error = fixture.store.hold(mover, &rows(&fixture).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fixture.waiting().await, 1);
}

/// Out of one queue and into another in one step.
pub async fn a_move_within_a_store_is_one_step(harness: &Harness) {
    let fixture = harness.store();
    let mover = fixture.node("move@a").await;
    fixture.send(&["a", "b"]).await;
    let settlements = hold_all(&fixture, mover).await.into_iter().map(|held| {
        let mut to = Outgoing::new(queue("reports"), held.message);
        to.enqueued_at = Some(held.enqueued_at);
        let plan = Plan { publish: vec![to], ..Plan::default() };
        Settlement { lease: held.lease, fate: Fate::Done, plan, finisher: None }
    });
    let settled = fixture.store.settle(settlements.collect()).await.unwrap();
    assert_eq!(settled, [Settled::Done, Settled::Done]);
    let there =
        fixture.store.peek(&queue("reports"), Page { after: 0, count_max: 9 }).await.unwrap();
    let there: Vec<_> =
        there.iter().map(|one| one.outgoing.message.headers.id().unwrap()).collect();
    assert_eq!((there, fixture.waiting().await), (vec!["a", "b"], 0));
}

async fn publish_once(fixture: &Fixture, id: &str, key: &str) -> Published {
    let message = Outgoing { once: Some(key.to_owned()), ..outgoing("celery", id) };
    let plan = Plan { publish: vec![outgoing("celery", "beside"), message], ..Plan::default() };
    fixture.store.publish(plan, None).await.unwrap()
}

/// A key lets one message through, whatever became of it; what is beside it goes.
pub async fn a_key_lets_one_message_through(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    assert_eq!(publish_once(&fixture, "a", "k").await, Published::default());
    let left_out = publish_once(&fixture, "b", "k").await.duplicates;
    assert_eq!(left_out.len(), 1);
    assert_eq!((left_out[0].index, left_out[0].task_id.as_str()), (1, "a"));
    let fetched = fixture.fetch(node, 9).await;
    assert_eq!(ids(&fetched), ["beside", "a", "beside"]);
    for one in fetched {
        assert_eq!(fixture.settle(one.lease, Fate::Done).await, Settled::Done);
    }
    assert_eq!(publish_once(&fixture, "c", "k").await.duplicates[0].task_id, "a");
    assert_eq!(publish_once(&fixture, "d", "other").await, Published::default());
    assert!(fixture.store.check(false).await.unwrap().is_empty());
}

/// A key that was forgotten lets another message through.
pub async fn a_key_can_be_forgotten(harness: &Harness) {
    let fixture = harness.store();
    publish_once(&fixture, "a", "k").await;
    fixture.store.forget_once(&["k".to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(publish_once(&fixture, "b", "k").await, Published::default());
}

/// Where the store keeps the time: keys end with it.
pub async fn a_key_has_its_time(harness: &Harness) {
    let fixture = harness.store();
    if harness.skips("expiry on demand", !fixture.store.capabilities().results_expire_alone) {
        return;
    }
    publish_once(&fixture, "a", "k").await;
    fixture.clock.advance(ONCE_KEPT);
    assert_eq!(publish_once(&fixture, "b", "k").await, Published::default());
}
