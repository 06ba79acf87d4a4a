//! Outcomes: what is kept, for how long, and who may write it.

use super::fixture::{Harness, PATIENCE, record, results, settlement};
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{Fate, ResultRecord, Settled};
use celeriac_wire::{State, Value};
use std::time::Duration;

fn progress() -> State {
    State::Custom("PROGRESS".to_owned())
}

/// A record and the document in it come back as they were written.
pub async fn a_result_keeps_every_field(harness: &Harness) {
    let fixture = harness.store();
    assert_eq!(fixture.store.result("a").await.unwrap(), None);
    let mut full = record("a", &State::Failure, fixture.now());
    full.retries = 2;
    full.meta
        .set("x-unknown", Value::parse(br#"{"b": 1.0, "a": [null, 1e3]}"#).unwrap())
        .set_traceback(Some("Traceback \u{1f980}\n  line"))
        .set_parent_id("p");
    let bare = ResultRecord {
        task: None,
        queue: None,
        worker: None,
        enqueued_at: None,
        started_at: None,
        ..record("b", &State::Revoked, fixture.now())
    };
    let plan = results(vec![full.clone(), bare.clone()]);
    fixture.store.publish(plan, None).await.unwrap();
    let read = fixture.store.result("a").await.unwrap().unwrap();
    assert_eq!(read.meta.to_bytes(), full.meta.to_bytes());
    assert_eq!(read, full);
    assert_eq!(fixture.store.result("b").await.unwrap(), Some(bare));
}

/// SUCCESS, FAILURE and REVOKED stand whatever comes later.
pub async fn a_final_state_is_never_overwritten(harness: &Harness) {
    let fixture = harness.store();
    let ready = [State::Success, State::Failure, State::Revoked];
    let later = [State::Success, State::Failure, State::Revoked, State::Retry, State::Started];
    for first in &ready {
        for next in later.iter().chain([&progress()]) {
            let id = format!("{}-{}", first.as_str(), next.as_str());
            for state in [first, next] {
                let plan = results(vec![record(&id, state, fixture.now())]);
                fixture.store.publish(plan, None).await.unwrap();
            }
            assert_eq!(fixture.state_of(&id).await.as_ref(), Some(first), "{id}");
        }
    }
}

/// STARTED, RETRY and custom states follow one another freely and give way to an end.
pub async fn among_unready_states_the_later_wins(harness: &Harness) {
    let fixture = harness.store();
    for state in [State::Started, progress(), State::Retry, State::Started, State::Success] {
        let plan = results(vec![record("a", &state, fixture.now())]);
        fixture.store.publish(plan, None).await.unwrap();
        assert_eq!(fixture.state_of("a").await, Some(state));
    }
}

/// A lease that is lost, or settled, writes no state.
pub async fn fenced_owner_cannot_store_state(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let lease = fixture.take(node).await.lease;
    let state = |state: &State| record("a", state, fixture.now());
    assert!(fixture.store.store_state(lease, state(&State::Started)).await.unwrap());
    fixture.lapse(&[]).await;
    assert!(!fixture.store.store_state(lease, state(&progress())).await.unwrap());
    assert_eq!(fixture.state_of("a").await, Some(State::Started));
}

/// Progress that arrives after the end is dropped, and said to be.
pub async fn a_state_after_the_end_is_refused(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b"]).await;
    let held = fixture.fetch(node, 2).await;
    let done = results(vec![record("a", &State::Success, fixture.now())]);
    fixture.store.publish(done, None).await.unwrap();
    let late = record("a", &progress(), fixture.now());
    assert!(!fixture.store.store_state(held[0].lease, late).await.unwrap());
    assert_eq!(fixture.state_of("a").await, Some(State::Success));
    let done = results(vec![record("b", &State::Success, fixture.now())]);
    let settled = fixture.settle_with(settlement(held[1].lease, Fate::Done, done)).await;
    assert_eq!(settled, Settled::Done);
    let late = record("b", &progress(), fixture.now());
    assert!(!fixture.store.store_state(held[1].lease, late).await.unwrap());
}

/// Ended results go after their time, a bounded number at once; unready ones stay.
pub async fn results_expire(harness: &Harness) {
    // covers: S5-10
    let day = Duration::from_hours(24);
    let fixture = harness.store();
    let alone = fixture.store.capabilities().results_expire_alone;
    if harness.skips("expiry on demand", !alone) {
        return;
    }
    let mut plan = results(vec![record("runs", &State::Started, fixture.now())]);
    for id in ["a", "b", "c"] {
        plan.results.push(record(id, &State::Success, fixture.now()));
    }
    fixture.store.publish(plan, None).await.unwrap();
    fixture.clock.advance(day.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(fixture.store.expire_results(10).await.unwrap(), 0);
    let young = results(vec![record("young", &State::Failure, fixture.now())]);
    fixture.store.publish(young, None).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.store.expire_results(2).await.unwrap(), 2);
    assert_eq!(fixture.store.expire_results(2).await.unwrap(), 1);
    assert_eq!(fixture.store.expire_results(2).await.unwrap(), 0);
    assert_eq!(fixture.state_of("a").await, None);
    assert_eq!(fixture.state_of("runs").await, Some(State::Started));
    assert_eq!(fixture.state_of("young").await, Some(State::Failure));
}

/// Without an expiry nothing is deleted.
pub async fn results_may_be_kept_for_ever(harness: &Harness) {
    let limits = StoreLimits { result_expires: None, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    let plan = results(vec![record("a", &State::Success, fixture.now())]);
    fixture.store.publish(plan, None).await.unwrap();
    fixture.clock.advance(Duration::from_hours(87600));
    assert_eq!(fixture.store.expire_results(10).await.unwrap(), 0);
    assert_eq!(fixture.state_of("a").await, Some(State::Success));
}

/// A forgotten result is gone, and its id may end again.
pub async fn forget_deletes_a_result(harness: &Harness) {
    let fixture = harness.store();
    assert!(!fixture.store.forget("a").await.unwrap());
    for state in [State::Success, State::Failure] {
        let plan = results(vec![record("a", &state, fixture.now())]);
        fixture.store.publish(plan, None).await.unwrap();
        assert_eq!(fixture.state_of("a").await, Some(state));
        assert!(fixture.store.forget("a").await.unwrap());
        assert_eq!(fixture.state_of("a").await, None);
    }
}

/// Results of many tasks are read at once, in the order that was asked for.
pub async fn results_are_read_together(harness: &Harness) {
    let fixture = harness.store();
    let ids: Vec<String> = (0..250).map(|n| format!("id-{n}")).collect();
    assert_eq!(fixture.store.results(&[]).await.unwrap(), []);
    assert_eq!(fixture.store.results(&ids).await.unwrap(), vec![None; ids.len()]);
    let stored = ids.iter().step_by(3);
    let plan = results(stored.map(|id| record(id, &State::Success, fixture.now())).collect());
    fixture.store.publish(plan, None).await.unwrap();
    let read = fixture.store.results(&ids).await.unwrap();
    for (n, (id, read)) in ids.iter().zip(read).enumerate() {
        assert_eq!(read.is_some(), n % 3 == 0, "{id}");
        assert_eq!(read, fixture.store.result(id).await.unwrap());
    }
}

/// A waiter is woken by the end of its task, not by what comes before.
pub async fn wait_result_returns_when_ready(harness: &Harness) {
    let fixture = harness.store();
    let store = fixture.store.clone();
    let waiter = tokio::spawn(async move { store.wait_result("a", PATIENCE).await });
    for state in [State::Started, progress(), State::Success] {
        assert!(!waiter.is_finished());
        let plan = results(vec![record("a", &state, fixture.now())]);
        fixture.store.publish(plan, None).await.unwrap();
        fixture.send_to("noise", &["other"]).await;
    }
    let record = waiter.await.unwrap().unwrap().unwrap();
    assert_eq!(record.meta.state(), State::Success);
    let again = fixture.store.wait_result("a", Duration::ZERO).await.unwrap();
    assert_eq!(again, Some(record), "a ready result is returned at once");
}

/// At its timeout a waiter gets what is stored then.
pub async fn wait_result_returns_at_its_timeout(harness: &Harness) {
    let fixture = harness.store();
    let short = Duration::from_millis(20);
    assert_eq!(fixture.store.wait_result("a", short).await.unwrap(), None);
    let plan = results(vec![record("a", &State::Started, fixture.now())]);
    fixture.store.publish(plan, None).await.unwrap();
    let stored = fixture.store.wait_result("a", short).await.unwrap().unwrap();
    assert_eq!(stored.meta.state(), State::Started);
}
