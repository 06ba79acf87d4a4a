//! Chords: counted once each, complete once, and everything in one step.

use super::fixture::{Fixture, Harness, ids, outgoing, settlement, settlement_with};
use celeriac_core::ErrorKind;
use celeriac_core::limits::CHORD_CASCADE_MAX;
use celeriac_core::store::{ChordDone, ChordFinisher, ChordPart, ChordStart, Fate, Plan, Settled};
use celeriac_wire::{Signature, State, Value};
use std::sync::{Arc, Mutex};

fn start(group: &str, size: u32) -> Plan {
    Plan { chords: vec![ChordStart { group: group.to_owned(), size }], ..Plan::default() }
}

fn part(group: &str, index: i64, task_id: &str) -> ChordPart {
    ChordPart {
        group: group.to_owned(),
        index,
        task_id: task_id.to_owned(),
        state: State::Success,
        result: Value::from(index * 10),
        body: Signature::new("app.sum").with_option("task_id", "body"),
    }
}

fn parts(parts: Vec<ChordPart>) -> Plan {
    Plan { parts, ..Plan::default() }
}

/// A finisher that keeps what it was called with and publishes the body.
fn keeping() -> (Arc<Mutex<Vec<ChordDone>>>, ChordFinisher) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&calls);
    let finisher: ChordFinisher = Arc::new(move |done: &ChordDone| {
        kept.lock().unwrap().push(done.clone());
        Plan { publish: vec![outgoing("celery", "body")], ..Plan::default() }
    });
    (calls, finisher)
}

/// A chord of which nobody hears any more is found, and ends once with its missing members as failures.
pub async fn a_chord_that_waits_in_vain_is_found(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let hours = |n| std::time::Duration::from_hours(n);
    let (calls, finisher) = keeping();
    let publish = async |plan| {
        fixture.store.publish(plan, Some(finisher.clone())).await.unwrap();
    };
    publish(start("waits", 3)).await;
    publish(start("new", 2)).await;
    publish(start("done", 1)).await;
    publish(start("silent", 2)).await;
    publish(parts(vec![part("waits", 1, "b"), part("done", 0, "a")])).await;
    publish(parts(vec![part("endless", 0, "c")])).await;
    assert_eq!(calls.lock().unwrap().len(), 1);
    fixture.clock.advance(hours(2));
    publish(parts(vec![part("new", 0, "d")])).await;
    let before = fixture.now().checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
    let stalled = async || fixture.store.stalled_chords(before, 10).await.unwrap();
    let mut found = stalled().await;
    found.sort_by(|one, other| other.group.cmp(&one.group));
    let seen: Vec<_> =
        found.iter().map(|one| (one.group.as_str(), one.size, &one.present[..])).collect();
    assert_eq!(seen, [("waits", Some(3), &[1][..]), ("endless", None, &[0][..])]);
    assert_eq!(found[0].body, part("waits", 1, "b").body);
    for chord in found.clone() {
        publish(chord.completed(hours(1))).await;
    }
    assert_eq!(stalled().await, []);
    for chord in found {
        publish(chord.completed(hours(1))).await;
    }
    let calls = calls.lock().unwrap();
    let states = |at: usize| -> Vec<(i64, &str)> {
        calls[at].parts.iter().map(|part| (part.index, part.state.as_str())).collect()
    };
    assert_eq!(calls.len(), 3, "each has ended once");
    assert_eq!(states(1), [(0, "FAILURE"), (1, "SUCCESS"), (2, "FAILURE")]);
    assert_eq!(states(2), [(0, "SUCCESS"), (1, "FAILURE")]);
}

fn lacks_chords(harness: &Harness, fixture: &Fixture) -> bool {
    harness.skips("chords", fixture.store.capabilities().chords)
}

/// However often and in whatever order members report, the body runs once over results in order.
pub async fn a_chord_fires_once_with_ordered_results_even_with_duplicate_parts(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let node = fixture.node("celery@a").await;
    fixture.store.publish(start("g", 3), None).await.unwrap();
    let (calls, finisher) = keeping();
    for (index, id, waiting) in [(2, "c", 0), (2, "c", 0), (0, "a", 0), (1, "b", 1), (1, "b", 1)] {
        fixture.send_to("members", &[id]).await;
        let held = fixture.fetch_from(node, &["members"], 1).await.remove(0);
        let plan = parts(vec![part("g", index, id)]);
        let settled =
            fixture.settle_with(settlement_with(held.lease, plan, finisher.clone())).await;
        assert_eq!(settled, Settled::Done);
        assert_eq!(fixture.waiting().await, waiting, "after {id}");
    }
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 1);
    let expected = vec![part("g", 0, "a"), part("g", 1, "b"), part("g", 2, "c")];
    assert_eq!(calls[0].parts, expected, "in order, with everything they said");
}

/// A failed member completes the chord too; what follows is the finisher's word.
pub async fn a_chord_with_a_failed_part_reports_through_the_finisher(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    fixture.store.publish(start("g", 2), None).await.unwrap();
    let finisher: ChordFinisher = Arc::new(|done: &ChordDone| {
        let failed = done.parts.iter().find(|part| part.state == State::Failure).unwrap();
        Plan {
            publish: vec![outgoing("errors", &format!("failed-{}", failed.task_id))],
            ..Plan::default()
        }
    });
    let failed = ChordPart { state: State::Failure, ..part("g", 1, "b") };
    for plan in [parts(vec![failed]), parts(vec![part("g", 0, "a")])] {
        fixture.store.publish(plan, Some(finisher.clone())).await.unwrap();
    }
    let node = fixture.node("celery@a").await;
    assert_eq!(ids(&fixture.fetch_from(node, &["errors"], 9).await), ["failed-b"]);
}

/// A sender that says the size last does not leave the chord hanging.
pub async fn a_chord_that_starts_after_its_parts_fires_too(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let (calls, finisher) = keeping();
    let early = parts(vec![part("g", 1, "b"), part("g", 0, "a")]);
    fixture.store.publish(early, Some(finisher.clone())).await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 0);
    fixture.store.publish(start("g", 2), Some(finisher.clone())).await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 1);
    fixture.store.publish(start("g", 2), Some(finisher)).await.unwrap();
    assert_eq!(fixture.waiting().await, 1);
    assert_eq!(calls.lock().unwrap().len(), 1);
}

/// A worker that lost its lease counts for nothing.
pub async fn a_fenced_part_is_not_counted(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let node = fixture.node("celery@a").await;
    fixture.store.publish(start("g", 1), None).await.unwrap();
    fixture.send_to("members", &["a"]).await;
    let held = fixture.fetch_from(node, &["members"], 1).await.remove(0);
    fixture.lapse(&[]).await;
    let (calls, finisher) = keeping();
    let plan = parts(vec![part("g", 0, "a")]);
    let settled = fixture.settle_with(settlement_with(held.lease, plan, finisher)).await;
    assert_eq!((settled, calls.lock().unwrap().len()), (Settled::Fenced, 0));
}

/// Each completed chord is the last part of the next: `levels` of them.
fn cascade(levels: usize) -> (Plan, ChordFinisher) {
    let mut plan = Plan::default();
    for level in 0..levels {
        plan.extend(start(&format!("g{level}"), 1));
    }
    plan.extend(parts(vec![part("g0", 0, "t")]));
    let finisher: ChordFinisher = Arc::new(move |done: &ChordDone| {
        let level: usize = done.parts[0].group[1..].parse().unwrap();
        if level + 1 < levels {
            parts(vec![part(&format!("g{}", level + 1), 0, "t")])
        } else {
            Plan { publish: vec![outgoing("celery", "end")], ..Plan::default() }
        }
    });
    (plan, finisher)
}

/// A chord whose body completes another chord completes that one in the same step.
pub async fn chords_cascade(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let (plan, finisher) = cascade(5);
    fixture.store.publish(plan, Some(finisher)).await.unwrap();
    assert_eq!(fixture.waiting().await, 1);
}

/// A cascade without end is an error, and leaves no trace.
pub async fn too_deep_a_cascade_is_refused_whole(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    let (plan, finisher) = cascade(CHORD_CASCADE_MAX + 2);
    let deep = settlement_with(held.lease, plan, finisher);
    let error = fixture.store.settle(vec![deep]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(fixture.waiting().await, 0);
    let (plan, finisher) = cascade(3);
    let settled = fixture.settle_with(settlement_with(held.lease, plan, finisher)).await;
    assert_eq!(settled, Settled::Done, "the refused one counted no part");
    assert_eq!(fixture.waiting().await, 1);
}

/// A bug in a finisher costs its own call, not the store.
pub async fn a_panicking_finisher_writes_nothing_and_harms_nobody(harness: &Harness) {
    let fixture = harness.store();
    if lacks_chords(harness, &fixture) {
        return;
    }
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    fixture.store.publish(start("g", 1), None).await.unwrap();
    let finisher: ChordFinisher = Arc::new(|_| panic!("a bug in a finisher"));
    let plan = parts(vec![part("g", 0, "a")]);
    let bad = settlement_with(held.lease, plan.clone(), finisher);
    let error = fixture.store.settle(vec![bad]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(!error.is_retryable());
    fixture.send(&["b"]).await;
    let (calls, finisher) = keeping();
    let again = settlement_with(held.lease, plan, finisher);
    assert_eq!(fixture.settle_with(again).await, Settled::Done);
    assert_eq!(fixture.waiting().await, 2);
    assert_eq!(calls.lock().unwrap().len(), 1);
    let next = fixture.take(node).await;
    let settled = fixture.settle_with(settlement(next.lease, Fate::Done, Plan::default())).await;
    assert_eq!(settled, Settled::Done);
}
