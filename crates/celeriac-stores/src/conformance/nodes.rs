//! Who is alive, and what happens to the work of those who are not.

use super::fixture::{EXPIRY, Harness, begun, ids, node_info, queue, request};
use celeriac_core::ErrorKind;
use celeriac_core::store::{Fate, FetchRequest, Heartbeat, NodeId, Settled};
use std::time::Duration;

/// What a node says of itself is what others read.
pub async fn a_node_is_seen_as_it_said(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let started = fixture.now();
    fixture.clock.advance(Duration::from_secs(3));
    let heartbeat = Heartbeat { active: 3, processed: 17 };
    assert!(fixture.store.heartbeat(node, heartbeat).await.unwrap());
    let seen = fixture.store.nodes().await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].id, &seen[0].info), (node, &node_info("celery@a")));
    assert_eq!((seen[0].heartbeat, seen[0].alive), (heartbeat, true));
    assert_eq!((seen[0].started_at, seen[0].seen_at), (started, fixture.now()));
    fixture.clock.advance(EXPIRY);
    assert!(!fixture.store.nodes().await.unwrap()[0].alive, "silence shows before any sweep");
}

/// Queues and slots may change while a node runs; a dead one changes nothing.
pub async fn a_node_is_seen_as_it_changed(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let queues = vec![queue("reports"), queue("new")];
    assert!(fixture.store.revise(node, &queues, 7).await.unwrap());
    let seen = fixture.store.nodes().await.unwrap().remove(0);
    assert_eq!((seen.info.queues, seen.info.concurrency), (queues.clone(), 7));
    assert_eq!(seen.info.name, "celery@a");
    fixture.store.deregister(node).await.unwrap();
    assert!(!fixture.store.revise(node, &queues, 8).await.unwrap());
}

/// Replicas with one name have leases of their own.
pub async fn two_runs_of_one_name_stay_two(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@a").await);
    assert_ne!(one, two);
    fixture.send(&["a", "b"]).await;
    let first = fixture.take(one).await;
    let second = fixture.take(two).await;
    let swept = fixture.lapse(&[two]).await;
    assert_eq!((swept.dead_nodes.len(), swept.requeued), (1, 1));
    assert_eq!(fixture.settle(first.lease, Fate::Done).await, Settled::Fenced);
    assert_eq!(fixture.settle(second.lease, Fate::Done).await, Settled::Done);
}

/// A dead node's messages stand where they stood, and say what happened.
pub async fn a_dead_nodes_messages_return_in_order_with_history(harness: &Harness) {
    let fixture = harness.store();
    let (lost, next) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.fetch(lost, 2).await;
    let began = fixture.now();
    fixture.store.mark_started(vec![begun(held[0].lease, began)]).await.unwrap();
    fixture.send(&["d"]).await;
    fixture.clock.advance(EXPIRY.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(fixture.store.sweep().await.unwrap().requeued, 0, "not before the expiry");
    fixture.clock.advance(Duration::from_millis(1));
    assert!(fixture.store.heartbeat(next, Heartbeat::default()).await.unwrap());
    let swept = fixture.store.sweep().await.unwrap();
    assert_eq!((&swept.dead_nodes[..], swept.requeued), (&["celery@a".to_owned()][..], 2));
    assert_eq!(fixture.store.sweep().await.unwrap().requeued, 0, "a second sweep finds nothing");
    let again = fixture.fetch(next, 9).await;
    assert_eq!(ids(&again), ["a", "b", "c", "d"]);
    let lost_run = &again[0].history[0];
    assert_eq!((lost_run.worker.as_str(), lost_run.outcome.as_str()), ("celery@a", "worker-lost"));
    assert_eq!((lost_run.started_at, again[1].history[0].started_at), (Some(began), None));
    assert!(again[0].redelivered && !again[2].redelivered);
    assert_eq!((again[0].suspicion.seen, again[0].suspicion.counted), (1, 0));
}

/// An outage of the store costs no re-run when owners renew before anybody sweeps.
pub async fn a_returning_owner_that_renews_first_keeps_everything(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let lease = fixture.take(node).await.lease;
    fixture.clock.advance(Duration::from_secs(30));
    assert!(fixture.store.heartbeat(node, Heartbeat::default()).await.unwrap());
    assert_eq!(fixture.store.sweep().await.unwrap().requeued, 0);
    assert_eq!(fixture.settle(lease, Fate::Done).await, Settled::Done);
}

/// A node that was declared dead owns nothing and has to register anew.
pub async fn a_swept_node_cannot_renew_or_settle(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let lease = fixture.take(node).await.lease;
    assert_eq!(fixture.lapse(&[]).await.dead_nodes, ["celery@a"]);
    assert!(!fixture.store.heartbeat(node, Heartbeat::default()).await.unwrap());
    assert_eq!(fixture.settle(lease, Fate::Done).await, Settled::Fenced);
    let again = fixture.node("celery@a").await;
    assert_eq!(ids(&fixture.fetch(again, 9).await), ["a"]);
}

/// Leases of a node that nobody watches would never come back, so it gets none.
pub async fn a_node_that_is_not_alive_gets_nothing(harness: &Harness) {
    let fixture = harness.store();
    let dead = fixture.node("celery@a").await;
    let gone = fixture.node("celery@b").await;
    fixture.store.deregister(gone).await.unwrap();
    fixture.lapse(&[]).await;
    fixture.send(&["a"]).await;
    for node in [dead, gone, NodeId(4711)] {
        let queues = vec![super::fixture::queue("celery")];
        let request = request(node, queues, 9);
        let error = fixture.store.fetch(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let living = fixture.node("celery@a").await;
    assert_eq!(ids(&fixture.fetch(living, 9).await), ["a"]);
}

/// A clean stop hands back what was held, where it stood, without guilt.
pub async fn deregister_returns_everything_at_its_place(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["a", "b", "c"]).await;
    let held = fixture.fetch(one, 2).await;
    assert_eq!(fixture.store.deregister(one).await.unwrap(), 2);
    assert_eq!(fixture.store.deregister(one).await.unwrap(), 0);
    assert_eq!(fixture.settle(held[0].lease, Fate::Done).await, Settled::Fenced);
    let next = fixture.fetch(two, 9).await;
    assert_eq!(ids(&next), ["a", "b", "c"]);
    assert_eq!((next[0].suspicion.seen, next[0].history.len()), (0, 0));
    assert!(next[1].redelivered && !next[2].redelivered, "it may have begun");
    assert!(!fixture.store.heartbeat(one, Heartbeat::default()).await.unwrap());
    let seen = fixture.store.nodes().await.unwrap();
    assert_eq!(seen.iter().map(|node| node.alive).collect::<Vec<_>>(), [false, true]);
}

/// A fetch whose answer is lost leases messages that no worker knows of; their node lives on.
pub async fn strays_go_back_and_known_leases_stay(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["a", "b", "c", "d"]).await;
    let known = fixture.take(one).await.lease;
    assert_eq!(fixture.fetch(one, 2).await.len(), 2);
    let others = fixture.take(two).await.lease;
    assert_eq!(fixture.store.return_strays(one, vec![known, others]).await.unwrap(), 2);
    assert_eq!(fixture.store.return_strays(one, vec![known]).await.unwrap(), 0);
    assert_eq!(ids(&fixture.fetch(two, 9).await), ["b", "c"]);
    for lease in [known, others] {
        assert_eq!(fixture.settle(lease, Fate::Done).await, Settled::Done);
    }
}

/// What was there when two workers died runs only where no other suspect runs.
pub async fn suspects_come_one_at_a_time(harness: &Harness) {
    let fixture = harness.store();
    fixture.send(&["a", "b"]).await;
    for _ in 0..2 {
        let node = fixture.node("celery@a").await;
        assert_eq!(fixture.fetch(node, 9).await.len(), 2);
        assert_eq!(fixture.lapse(&[]).await.poisoned, 0);
    }
    fixture.send(&["c"]).await;
    let node = fixture.node("celery@b").await;
    let queues = vec![super::fixture::queue("celery")];
    let without = FetchRequest { suspects: false, ..request(node, queues, 9) };
    assert_eq!(ids(&fixture.store.fetch(without.clone()).await.unwrap()), ["c"]);
    assert!(fixture.store.fetch(without).await.unwrap().is_empty());
    let first = fixture.fetch(node, 9).await;
    assert_eq!(ids(&first), ["a"], "one suspect a fetch");
    assert!(first[0].suspicion.is_suspect());
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["b"]);
}

/// A message whose owners die and die is flagged, with the whole history, for its next owner.
pub async fn three_counted_deaths_make_the_poison_flag(harness: &Harness) {
    let fixture = harness.store();
    fixture.send(&["bad"]).await;
    let mut poisoned = Vec::new();
    for _ in 0..5 {
        let node = fixture.node("celery@a").await;
        fixture.take(node).await;
        poisoned.push(fixture.lapse(&[]).await.poisoned);
    }
    assert_eq!(poisoned, [0, 0, 0, 0, 1]);
    let node = fixture.node("celery@b").await;
    let held = fixture.take(node).await;
    assert_eq!((held.suspicion.seen, held.suspicion.counted), (5, 3));
    assert_eq!(held.history.len(), 5);
}

/// Dead nodes are listed for a day, then forgotten.
pub async fn a_dead_node_is_remembered_for_a_day(harness: &Harness) {
    let fixture = harness.store();
    fixture.node("celery@a").await;
    fixture.lapse(&[]).await;
    fixture.clock.advance(Duration::from_secs(86_000));
    fixture.store.sweep().await.unwrap();
    assert_eq!(fixture.store.nodes().await.unwrap().len(), 1);
    fixture.clock.advance(Duration::from_secs(500));
    fixture.store.sweep().await.unwrap();
    assert!(fixture.store.nodes().await.unwrap().is_empty());
}
