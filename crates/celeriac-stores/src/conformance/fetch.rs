//! Which messages a fetch takes, and in which order.

use super::fixture::{Harness, ids, outgoing, queue, request};
use celeriac_core::store::{FetchRequest, Outgoing, TaskCap};
use celeriac_wire::{Headers, Message, Value};
use std::time::Duration;

/// First in, first out, across plans.
pub async fn messages_come_in_the_order_they_were_sent(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["c", "a"]).await;
    fixture.send(&["b"]).await;
    let held = fixture.fetch(node, 9).await;
    assert_eq!(ids(&held), ["c", "a", "b"]);
    assert_eq!(held[0].queue, queue("celery"));
    assert_eq!(held[0].enqueued_at, fixture.now());
    assert!(!held[0].redelivered && !held[0].revoked && !held[0].suspicion.is_suspect());
}

/// The free slots are a bound, and queues that were not asked for are left alone.
pub async fn a_fetch_takes_no_more_than_it_may(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    fixture.send_to("reports", &["d"]).await;
    assert!(fixture.fetch(node, 0).await.is_empty());
    assert_eq!(ids(&fixture.fetch(node, 2).await), ["a", "b"]);
    assert_eq!(ids(&fixture.fetch(node, 2).await), ["c"]);
    assert!(fixture.fetch(node, 2).await.is_empty());
    assert!(fixture.fetch_from(node, &[], 2).await.is_empty());
    assert_eq!(ids(&fixture.fetch_from(node, &["reports"], 2).await), ["d"]);
}

/// Each step of all queues comes before the next step of any; 0 runs first.
pub async fn priority_steps_go_before_queues(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let ranked = |name: &str, id: &str, priority: u8| {
        let mut sent = outgoing(name, id);
        sent.message.properties.set_priority(priority);
        sent
    };
    fixture
        .publish(vec![
            ranked("celery", "low", 9),
            ranked("reports", "normal", 6),
            ranked("celery", "high-4", 4),
            ranked("reports", "high-3", 3),
            ranked("reports", "critical-2", 2),
            outgoing("celery", "none"),
        ])
        .await;
    let mut order = Vec::new();
    for _ in 0..6 {
        let held = fixture.fetch_from(node, &["celery", "reports"], 1).await;
        order.extend(held.iter().map(|one| one.message.headers.id().unwrap().to_owned()));
    }
    // Within one step the queues take turns, so only the steps are sure.
    order[..2].sort();
    order[2..4].sort();
    assert_eq!(order, ["critical-2", "none", "high-3", "high-4", "normal", "low"]);
}

/// A long queue does not keep a worker from a short one.
pub async fn queues_take_turns(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    for id in 0..50 {
        fixture.send_to("celery", &[&format!("c{id}")]).await;
    }
    fixture.send_to("reports", &["r0", "r1"]).await;
    let mut from_reports = Vec::new();
    for turn in 0..6 {
        let held = fixture.fetch_from(node, &["celery", "reports"], 1).await;
        if held[0].queue == queue("reports") {
            from_reports.push(turn);
        }
    }
    assert_eq!(from_reports.len(), 2, "{from_reports:?}");
    assert!(from_reports[0] <= 1 && from_reports[1] <= 3, "{from_reports:?}");
}

/// `worker -Q a,a` must not run anything twice.
pub async fn a_queue_named_twice_is_fetched_once(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b"]).await;
    let held = fixture.fetch_from(node, &["celery", "celery"], 9).await;
    assert_eq!(ids(&held), ["a", "b"]);
}

/// Fetch and lease are one step.
pub async fn two_workers_never_get_the_same_message(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    let sent: Vec<String> = (0..40).map(|id| format!("m{id:02}")).collect();
    fixture.send(&sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut taken = Vec::new();
    for _ in 0..10 {
        let (first, second) = tokio::join!(fixture.fetch(one, 3), fixture.fetch(two, 3));
        taken.extend(first.into_iter().chain(second));
    }
    let mut all: Vec<_> = ids(&taken).iter().map(|id| (*id).to_owned()).collect();
    all.sort();
    assert_eq!(all, sent);
    let mut leases: Vec<_> = taken.iter().map(|delivery| delivery.lease).collect();
    leases.sort();
    leases.dedup();
    assert_eq!(leases.len(), 40);
}

fn due(id: &str, at: jiff::Timestamp) -> Outgoing {
    let mut sent = outgoing("celery", id);
    sent.message.headers.set_eta(Some(at));
    sent
}

/// Scheduled messages wait in the store and come out by their times, not by their arrival.
pub async fn scheduled_messages_become_ready_at_their_time_in_order(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture
        .publish(vec![
            due("third", fixture.at(30)),
            due("first", fixture.at(10)),
            due("second", fixture.at(20)),
            due("second-too", fixture.at(20)),
        ])
        .await;
    assert!(fixture.fetch(node, 9).await.is_empty());
    fixture.clock.advance(Duration::from_micros(9_999_999));
    assert!(fixture.fetch(node, 9).await.is_empty(), "not before its time");
    fixture.clock.advance(Duration::from_micros(1));
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["first"]);
    fixture.clock.advance(Duration::from_secs(25));
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["second", "second-too", "third"]);
}

/// An eta in the past is no reason to wait.
pub async fn a_time_that_has_passed_is_ready_at_once(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.clock.advance(Duration::from_mins(1));
    let past = "2026-11-21T12:00:30Z".parse().unwrap();
    fixture.publish(vec![due("now", fixture.now()), due("past", past)]).await;
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["now", "past"]);
}

/// What becomes due goes behind what has waited already.
pub async fn due_messages_rank_behind_what_waited(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.publish(vec![due("later", fixture.at(5)), outgoing("celery", "waits")]).await;
    fixture.clock.advance(Duration::from_secs(6));
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["waits", "later"]);
}

/// The worker, not the store, judges a message it cannot read.
pub async fn an_unreadable_eta_is_delivered_with_its_bytes(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let mut sent = outgoing("celery", "a");
    sent.message.headers.insert("eta", "next tuesday");
    fixture.publish(vec![sent]).await;
    let held = fixture.take(node).await;
    assert_eq!(held.message.headers.get("eta"), Some(&Value::from("next tuesday")));
}

/// A worker asks when to look again; queues of others may make it look early, never late.
pub async fn next_due_is_the_earliest_of_these_queues(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let celery = [queue("celery")];
    assert_eq!(fixture.store.next_due(&celery).await.unwrap(), None);
    let mut other = due("r", fixture.at(5));
    other.queue = queue("reports");
    fixture.publish(vec![other]).await;
    assert!(fixture.store.next_due(&celery).await.unwrap().is_none_or(|at| at >= fixture.at(5)));
    fixture.publish(vec![due("b", fixture.at(20)), due("a", fixture.at(10))]).await;
    assert_eq!(fixture.store.next_due(&celery).await.unwrap(), Some(fixture.at(10)));
    let both = [queue("celery"), queue("reports")];
    assert_eq!(fixture.store.next_due(&both).await.unwrap(), Some(fixture.at(5)));
    fixture.clock.advance(Duration::from_secs(10));
    let request = FetchRequest { suspects: false, ..request(node, celery.to_vec(), 9) };
    assert_eq!(ids(&fixture.store.fetch(request).await.unwrap()), ["a"]);
    assert_eq!(fixture.store.next_due(&celery).await.unwrap(), Some(fixture.at(10)));
}

/// A message of protocol 1, which has everything in its body.
fn old(id: &str, more: &str) -> Outgoing {
    let body = format!(
        r#"{{"task": "app.old", "id": "{id}", "args": [1], "kwargs": {{}}, "utc": true{more}}}"#
    );
    let mut message = Message::new("", "", body);
    message.headers = Headers::default();
    Outgoing::new(queue("celery"), message)
}

/// What stands in the body of an older message counts before it is delivered, as if it stood in the
/// headers: its time, its revocation, its task.
pub async fn a_message_of_protocol_1_is_held_back_like_any_other(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let later = format!(r#", "eta": "{}""#, celeriac_wire::print_iso(fixture.at(5)));
    fixture.publish(vec![old("later", &later), old("gone", ""), old("first", "")]).await;
    fixture.store.revoke(&["gone".to_owned()], false).await.unwrap();
    let cap = |count_max| TaskCap { task: "app.old".to_owned(), count_max };
    let capped = |count_max| {
        let celery = vec![queue("celery")];
        FetchRequest { caps: vec![cap(count_max)], ..request(node, celery, 9) }
    };
    assert!(fixture.store.fetch(capped(0)).await.unwrap().is_empty(), "no more of this task now");
    let taken = fixture.store.fetch(capped(9)).await.unwrap();
    let seen: Vec<(bool, bool)> = taken
        .iter()
        .map(|one| (one.revoked, String::from_utf8_lossy(&one.message.body).contains("[1]")))
        .collect();
    assert_eq!(seen, [(true, true), (false, true)]);
    let due = fixture.store.next_due(&[queue("celery")]).await.unwrap();
    assert_eq!(due, Some(fixture.at(5)));
    fixture.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(fixture.store.fetch(capped(9)).await.unwrap().len(), 1);
}
