//! Clauses of unique tasks.

use super::fixture::{ALL, EXPIRY, Fixture, Harness, dead, outgoing, queue, settlement, sorted};
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Fate, Outgoing, Place, Plan, Replay, Settled};
use celeriac_core::unique::{UNIQUE_HEADER, Unique, Until};
use std::time::Duration;

fn unique(id: &str, wish: &Unique) -> Outgoing {
    let mut outgoing = outgoing("celery", id);
    outgoing.message.headers.insert(UNIQUE_HEADER, wish.to_value());
    outgoing
}

/// Publishes one unique message; the answer is who holds the key already.
async fn send(fixture: &Fixture, id: &str, wish: &Unique) -> Option<String> {
    let plan = Plan { publish: vec![unique(id, wish)], ..Plan::default() };
    let published = fixture.store.publish(plan, None).await.unwrap();
    published.duplicates.into_iter().next().map(|one| one.task_id)
}

async fn depth(fixture: &Fixture) -> u64 {
    let queues = fixture.store.queues().await.unwrap();
    queues.iter().find(|one| one.name == "celery").map_or(0, |one| one.ready + one.scheduled)
}

/// The second is left out and named; the first is not touched.
pub async fn a_second_message_of_a_key_is_left_out(harness: &Harness) {
    let fixture = harness.store();
    let wish = Unique::new("report 7");
    assert_eq!(send(&fixture, "one", &wish).await, None);
    assert_eq!(send(&fixture, "two", &wish).await.as_deref(), Some("one"));
    assert_eq!(send(&fixture, "three", &Unique::new("report 8")).await, None);
    assert_eq!(depth(&fixture).await, 2);
    let plan = Plan {
        publish: vec![outgoing("celery", "plain"), unique("four", &wish)],
        ..Plan::default()
    };
    let published = fixture.store.publish(plan, None).await.unwrap();
    let index: Vec<_> = published.duplicates.iter().map(|one| one.index).collect();
    assert_eq!(index, [1], "the rest of the plan is written");
}

/// Until finished: the key is taken while it waits, runs, and comes back.
pub async fn a_key_is_free_when_its_message_is_gone(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let wish = Unique::new("k");
    send(&fixture, "one", &wish).await;
    let taken = fixture.take(node).await;
    assert!(send(&fixture, "two", &wish).await.is_some(), "it runs");
    fixture.release(taken.lease, Place::Head).await;
    assert!(send(&fixture, "two", &wish).await.is_some(), "it is back");
    let taken = fixture.take(node).await;
    assert_eq!(fixture.settle(taken.lease, Fate::Done).await, Settled::Done);
    assert_eq!(send(&fixture, "two", &wish).await, None);
}

/// Until started: a message that is being worked on keeps nobody out.
pub async fn a_key_until_started_is_free_when_it_runs(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let wish = Unique { until: Until::Started, ..Unique::new("k") };
    send(&fixture, "one", &wish).await;
    assert!(send(&fixture, "two", &wish).await.is_some());
    fixture.take(node).await;
    assert_eq!(send(&fixture, "two", &wish).await, None);
}

/// With a window the key stays taken after the end, and no longer.
pub async fn a_window_keeps_the_key_after_the_end(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let wish = Unique { window: Some(Duration::from_mins(1)), ..Unique::new("k") };
    send(&fixture, "one", &wish).await;
    let taken = fixture.take(node).await;
    assert_eq!(fixture.settle(taken.lease, Fate::Done).await, Settled::Done);
    fixture.clock.advance(Duration::from_secs(59));
    assert_eq!(send(&fixture, "two", &wish).await.as_deref(), Some("one"));
    fixture.clock.advance(Duration::from_secs(2));
    assert_eq!(send(&fixture, "two", &wish).await, None);
}

/// A retry is the same task: it keeps its key, and so do the seconds until it runs.
pub async fn a_retry_keeps_its_key(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("w").await;
    let wish = Unique::new("k");
    send(&fixture, "one", &wish).await;
    let taken = fixture.take(node).await;
    let mut again = unique("one", &wish);
    again.message.headers.set_retries(1).set_eta(Some(fixture.at(60)));
    let plan = Plan { publish: vec![again], ..Plan::default() };
    assert_eq!(fixture.settle_with(settlement(taken.lease, Fate::Done, plan)).await, Settled::Done);
    assert_eq!(send(&fixture, "two", &wish).await.as_deref(), Some("one"));
    fixture.clock.advance(Duration::from_secs(61));
    let taken = fixture.take(node).await;
    assert_eq!(fixture.settle(taken.lease, Fate::Done).await, Settled::Done);
    assert_eq!(send(&fixture, "two", &wish).await, None);
}

/// No end of a message leaves its key behind: death of its worker, dead letter, purge.
pub async fn no_key_outlives_its_holder(harness: &Harness) {
    let fixture = harness.store();
    let wish = Unique::new("k");
    send(&fixture, "one", &wish).await;
    let doomed = fixture.node("doomed").await;
    fixture.take(doomed).await;
    fixture.clock.advance(EXPIRY * 2);
    assert_eq!(fixture.store.sweep().await.unwrap().requeued, 1);
    let node = fixture.node("w").await;
    let taken = fixture.take(node).await;
    assert_eq!(fixture.settle(taken.lease, dead(DeadReason::Failed)).await, Settled::Done);
    assert_eq!(send(&fixture, "two", &wish).await, None);
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
    assert_eq!(fixture.store.remove(&rows).await.unwrap(), rows);
    assert_eq!(send(&fixture, "three", &wish).await, None);
    // A replay is never dropped, though the key is taken by now.
    let replayed =
        fixture.store.dead_replay(&DeadFilter::default(), &Replay::default(), 9).await.unwrap();
    assert_eq!(replayed.len(), 1);
    assert_eq!(sorted(&fixture.fetch(node, 9).await), ["one", "three"]);
}

/// A workflow would wait for ever for a member that was dropped.
pub async fn members_of_groups_are_never_left_out(harness: &Harness) {
    let fixture = harness.store();
    let wish = Unique::new("k");
    send(&fixture, "one", &wish).await;
    let mut member = unique("two", &wish);
    member.message.headers.set_group(Some("g"));
    let plan = Plan { publish: vec![member], ..Plan::default() };
    assert_eq!(fixture.store.publish(plan, None).await.unwrap().duplicates, []);
    assert_eq!(depth(&fixture).await, 2);
}

/// An id is no pass: a second send of it, as after an answer that was lost, is left out too.
pub async fn a_second_send_of_the_same_id_is_left_out(harness: &Harness) {
    let fixture = harness.store();
    let wish = Unique::new("k");
    assert_eq!(send(&fixture, "one", &wish).await, None);
    assert_eq!(send(&fixture, "one", &wish).await.as_deref(), Some("one"));
    assert_eq!(depth(&fixture).await, 1);
}

/// What was taken out and is loaded again must not vanish; a copy takes the key of its original over.
pub async fn what_is_put_back_is_never_left_out(harness: &Harness) {
    let fixture = harness.store();
    let wish = Unique::new("k");
    assert_eq!(send(&fixture, "one", &wish).await, None);
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    let put_back = |id: &str| Outgoing { enqueued_at: Some(fixture.now()), ..unique(id, &wish) };
    let plan = Plan { publish: vec![put_back("two"), put_back("one")], ..Plan::default() };
    assert_eq!(fixture.store.publish(plan, None).await.unwrap().duplicates, []);
    assert_eq!(fixture.store.remove(&[stored[0].row]).await.unwrap(), [stored[0].row]);
    assert_eq!(send(&fixture, "three", &wish).await.as_deref(), Some("one"), "the copy holds it");
    assert_eq!(depth(&fixture).await, 2);
}
