//! What is shown is true, with or without a running worker.

use super::fixture::{
    Fixture, Harness, begun, dead, message, outgoing, queue, record, results, settlement, the_queue,
};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{DeadFilter, Fate, Outgoing, Phase, Plan, Replay, Settled, TaskFilter};
use celeriac_wire::State;
use std::time::Duration;

async fn phase(fixture: &Fixture, id: &str) -> Phase {
    fixture.store.task(id).await.unwrap().phase
}

/// An id that was never sent here is an answer, not an error.
pub async fn an_unknown_task_is_unknown(harness: &Harness) {
    let fixture = harness.store();
    let view = fixture.store.task("nobody").await.unwrap();
    assert_eq!((view.phase, view.task_id.as_str()), (Phase::Unknown, "nobody"));
    assert!(view.message.is_none() && view.result.is_none() && view.history.is_empty());
}

/// From the first second to the result, the view says where the task is.
pub async fn a_task_view_is_true_in_every_phase(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let sent_at = fixture.now();
    let mut sent = outgoing("celery", "a");
    let until = fixture.at(30);
    sent.message.headers.set_eta(Some(until));
    fixture.publish(vec![sent.clone(), outgoing("celery", "before")]).await;
    assert_eq!(phase(&fixture, "a").await, Phase::Scheduled { until, retry: false });

    fixture.clock.advance(Duration::from_secs(30));
    let before = fixture.take(node).await;
    fixture.release(before.lease, celeriac_core::store::Place::Head).await;
    let queued =
        |position, paused, revoked| Phase::Queued { position, paused, limited: false, revoked };
    assert_eq!(phase(&fixture, "before").await, queued(Some(0), false, false));
    assert_eq!(phase(&fixture, "a").await, queued(Some(1), false, false));
    fixture.store.pause(&the_queue("celery"), "").await.unwrap();
    fixture.store.revoke(&["a".to_owned()], false).await.unwrap();
    assert_eq!(phase(&fixture, "a").await, queued(Some(1), true, true));
    fixture.store.resume(&the_queue("celery")).await.unwrap();
    fixture.store.unrevoke(&["a".to_owned()]).await.unwrap();

    let held = fixture.fetch(node, 2).await.remove(1);
    let worker = "celery@a".to_owned();
    assert_eq!(phase(&fixture, "a").await, Phase::Reserved { worker: worker.clone() });
    let since = fixture.now();
    fixture.store.mark_started(vec![begun(held.lease, since)]).await.unwrap();
    let progress = State::Custom("PROGRESS".to_owned());
    fixture.store.store_state(held.lease, record("a", &progress, since)).await.unwrap();
    let view = fixture.store.task("a").await.unwrap();
    assert_eq!(view.phase, Phase::Running { worker, since });
    assert_eq!(view.result.unwrap().meta.state(), progress, "progress shows while it runs");
    assert_eq!((view.task.as_deref(), view.queue.as_deref()), (Some("app.add"), Some("celery")));
    assert_eq!((view.enqueued_at, view.message), (Some(sent_at), Some(sent.message)));

    let plan = results(vec![record("a", &State::Success, fixture.now())]);
    assert_eq!(fixture.settle_with(settlement(held.lease, Fate::Done, plan)).await, Settled::Done);
    let view = fixture.store.task("a").await.unwrap();
    assert_eq!((view.phase, view.message), (Phase::Done, None));
    assert_eq!(view.result.unwrap().meta.state(), State::Success);
    assert_eq!(view.queue.as_deref(), Some("celery"));
}

/// A task between two attempts says so, and when the next one is.
pub async fn a_retry_is_seen_as_scheduled(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    let mut again = outgoing("celery", "a");
    let until = fixture.at(60);
    again.message.headers.set_retries(1).set_eta(Some(until));
    let plan =
        Plan { publish: vec![again], ..results(vec![record("a", &State::Retry, fixture.now())]) };
    assert_eq!(fixture.settle_with(settlement(held.lease, Fate::Done, plan)).await, Settled::Done);
    let view = fixture.store.task("a").await.unwrap();
    assert_eq!(view.phase, Phase::Scheduled { until, retry: true });
    assert_eq!((view.phase.as_str(), view.retries), ("retry", 1));
    assert_eq!(view.result.unwrap().meta.state(), State::Retry);
}

/// A dead task shows its letter and its failure; a replay makes it wait again.
pub async fn a_dead_task_is_seen_with_its_letter(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    // An id that reads as the number of another letter must not be mistaken for it.
    fixture.bury(node, outgoing("celery", "2"), DeadReason::Rejected, "").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    let plan = results(vec![record("a", &State::Failure, fixture.now())]);
    let fate = dead(DeadReason::TimedOut);
    assert_eq!(fixture.settle_with(settlement(held.lease, fate, plan)).await, Settled::Done);
    let numbers = fixture.dead_numbers().await;
    let view = fixture.store.task("a").await.unwrap();
    let reason = DeadReason::TimedOut;
    assert_eq!(view.phase, Phase::Dead { number: numbers[1], reason });
    assert_eq!(view.result.unwrap().meta.state(), State::Failure);
    assert_eq!(view.message.unwrap(), message("app.add", "a"));
    let reason = DeadReason::Rejected;
    assert_eq!(phase(&fixture, "2").await, Phase::Dead { number: numbers[0], reason });
    let filter = DeadFilter { ids: vec!["a".to_owned()], ..DeadFilter::default() };
    fixture.store.dead_replay(&filter, &Replay::default(), 1).await.unwrap();
    assert!(matches!(phase(&fixture, "a").await, Phase::Queued { .. }));
}

/// One task in each phase; every word of a filter finds exactly its own.
pub async fn tasks_are_listed_by_phase(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["reserved", "running", "failed"]).await;
    let held = fixture.fetch(node, 3).await;
    fixture.store.mark_started(vec![begun(held[1].lease, fixture.now())]).await.unwrap();
    let failed = results(vec![record("failed", &State::Failure, fixture.now())]);
    let fate = dead(DeadReason::Failed);
    let settled = fixture.settle_with(settlement(held[2].lease, fate, failed)).await;
    assert_eq!(settled, Settled::Done);
    let done = results(vec![record("done", &State::Success, fixture.now())]);
    fixture.store.publish(done, None).await.unwrap();
    let mut later = outgoing("celery", "scheduled");
    later.message.headers.set_eta(Some(fixture.at(60)));
    let mut retry = outgoing("celery", "retry");
    retry.message.headers.set_eta(Some(fixture.at(60))).set_retries(1);
    fixture.publish(vec![outgoing("celery", "queued"), later, retry]).await;
    for (word, expected) in [
        ("queued", &["queued"][..]),
        ("scheduled", &["scheduled"]),
        ("retry", &["retry"]),
        ("reserved", &["reserved"]),
        ("running", &["running"]),
        ("dead", &["failed"]),
        ("SUCCESS", &["done"]),
        ("FAILURE", &["failed"]),
        ("REVOKED", &[]),
    ] {
        let filter =
            TaskFilter { state: Some(word.to_owned()), count_max: 10, ..TaskFilter::default() };
        let views = fixture.store.tasks(&filter).await.unwrap().views;
        let found: Vec<_> = views.iter().map(|view| view.task_id.as_str()).collect();
        assert_eq!(found, expected, "{word}");
        if word.chars().all(char::is_lowercase) {
            assert!(views.iter().all(|view| view.phase.as_str() == word), "{word}: {views:?}");
        }
    }
    let all = TaskFilter { count_max: 10, ..TaskFilter::default() };
    let views = fixture.store.tasks(&all).await.unwrap().views;
    let mut found: Vec<_> = views.into_iter().map(|view| view.task_id).collect();
    found.sort();
    let expected = ["done", "failed", "queued", "reserved", "retry", "running", "scheduled"];
    assert_eq!(found, expected, "each task once");
}

/// Name, prefix and queue narrow a list, for what waits, what died and what ended.
pub async fn tasks_are_listed_by_name_and_queue(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let sent = |name: &str, task: &str, id: &str| Outgoing::new(queue(name), message(task, id));
    fixture.bury(node, sent("celery", "app.add", "dead"), DeadReason::Failed, "").await;
    fixture.publish(vec![sent("celery", "app.add", "w1")]).await;
    fixture.publish(vec![sent("reports", "app.addition", "w2")]).await;
    let done = results(vec![record("done", &State::Success, fixture.now())]);
    fixture.store.publish(done, None).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let base = || TaskFilter { count_max: 10, ..TaskFilter::default() };
    for (filter, expected) in [
        (TaskFilter { task: text("app.add"), ..base() }, "dead done w1"),
        (TaskFilter { task: text("app.add*"), ..base() }, "dead done w1 w2"),
        (TaskFilter { task: text("add"), ..base() }, ""),
        (TaskFilter { queue: text("reports"), ..base() }, "w2"),
        (TaskFilter { queue: text("celery"), state: text("dead"), ..base() }, "dead"),
    ] {
        let views = fixture.store.tasks(&filter).await.unwrap().views;
        let mut found: Vec<_> = views.iter().map(|view| view.task_id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), expected, "{filter:?}");
    }
}

/// A list holds no more than asked for, and what happened last comes first.
pub async fn lists_are_bounded_and_newest_first(harness: &Harness) {
    let fixture = harness.store();
    for id in ["a", "b", "c"] {
        fixture.send(&[id]).await;
        fixture.clock.advance(Duration::from_secs(1));
    }
    let done = results(vec![record("d", &State::Success, fixture.now())]);
    fixture.store.publish(done, None).await.unwrap();
    let filter = TaskFilter { count_max: 3, ..TaskFilter::default() };
    let views = fixture.store.tasks(&filter).await.unwrap().views;
    let found: Vec<_> = views.iter().map(|view| view.task_id.as_str()).collect();
    assert_eq!(found, ["d", "c", "b"]);
}

/// One task in each place that there is, with times that are the same and times that are not; the ids.
async fn tasks_everywhere(fixture: &Fixture) -> Vec<&'static str> {
    let node = fixture.node("celery@a").await;
    for id in ["letter-1", "letter-2"] {
        fixture.send(&[id]).await;
        let held = fixture.take(node).await;
        let failed = results(vec![record(id, &State::Failure, fixture.now())]);
        let fate = dead(DeadReason::Failed);
        let settled = fixture.settle_with(settlement(held.lease, fate, failed)).await;
        assert_eq!(settled, Settled::Done);
    }
    fixture.clock.advance(Duration::from_secs(1));
    for id in ["done-1", "done-2", "done-3"] {
        let states = [State::Retry, State::Success].map(|state| record(id, &state, fixture.now()));
        fixture.store.publish(results(states.into()), None).await.unwrap();
    }
    fixture.send(&["held-1", "held-2", "queued-1"]).await;
    assert_eq!(fixture.fetch(node, 2).await.len(), 2);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.send(&["queued-2"]).await;
    let mut later = outgoing("celery", "later");
    later.message.headers.set_eta(Some(fixture.at(60)));
    fixture.publish(vec![later]).await;
    let mut all = "letter-1 letter-2 done-1 done-2 done-3 held-1 held-2 queued-1 queued-2 later"
        .split(' ')
        .collect::<Vec<_>>();
    all.sort_unstable();
    all
}

/// Reads all pages, and calls `between` after each.
async fn pages(
    fixture: &Fixture,
    mut filter: TaskFilter,
    mut between: impl AsyncFnMut(usize),
) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..100 {
        let page = fixture.store.tasks(&filter).await.unwrap();
        assert!(page.views.len() <= filter.count_max);
        assert!(page.next.is_none() || page.views.len() == filter.count_max, "a page is full");
        ids.extend(page.views.into_iter().map(|view| view.task_id));
        filter.after = page.next;
        if filter.after.is_none() {
            return ids;
        }
        between(number).await;
    }
    panic!("the list does not end: {ids:?}");
}

/// A list is read to its end by pages of any size, each task once.
pub async fn every_task_is_on_one_page(harness: &Harness) {
    let fixture = harness.store();
    let all = tasks_everywhere(&fixture).await;
    for count_max in [1, 2, 3, 5, 10, 11] {
        let filter = TaskFilter { count_max, ..TaskFilter::default() };
        let mut ids = pages(&fixture, filter, async |_| {}).await;
        ids.sort_unstable();
        assert_eq!(ids, all, "by {count_max}");
    }
    for (state, expected) in [
        ("queued", "queued-1 queued-2"),
        ("reserved", "held-1 held-2"),
        ("dead", "letter-1 letter-2"),
        ("done", "done-1 done-2 done-3 letter-1 letter-2"),
        ("FAILURE", "letter-1 letter-2"),
        ("running", ""),
    ] {
        let state = Some(state.to_owned());
        let task = Some("app.*".to_owned());
        let filter = TaskFilter { state, task, count_max: 1, ..TaskFilter::default() };
        let mut ids = pages(&fixture, filter.clone(), async |_| {}).await;
        ids.sort_unstable();
        assert_eq!(ids.join(" "), expected, "{filter:?}");
    }
}

/// What comes while a list is read pushes nothing of it out, and shows nothing twice.
pub async fn pages_hold_while_others_write(harness: &Harness) {
    let fixture = harness.store();
    let all = tasks_everywhere(&fixture).await;
    let filter = TaskFilter { count_max: 2, ..TaskFilter::default() };
    let node = fixture.node("celery@b").await;
    let ids = pages(&fixture, filter, async |number| {
        fixture.clock.advance(Duration::from_secs(1));
        let [new, done, letter] =
            ["new", "new-done", "new-letter"].map(|id| format!("{id}-{number}"));
        fixture
            .bury(
                node,
                Outgoing::new(queue("other"), message("b", &letter)),
                DeadReason::Failed,
                "",
            )
            .await;
        fixture.publish(vec![Outgoing::new(queue("other"), message("b", &new))]).await;
        let done = results(vec![record(&done, &State::Success, fixture.now())]);
        fixture.store.publish(done, None).await.unwrap();
    })
    .await;
    let mut old: Vec<&str> =
        ids.iter().map(String::as_str).filter(|id| !id.starts_with("new")).collect();
    old.sort_unstable();
    assert_eq!(old, all);
}

/// A cursor that no page gave is refused, and says what to do.
pub async fn a_cursor_of_nobody_is_refused(harness: &Harness) {
    let fixture = harness.store();
    fixture.send(&["a"]).await;
    // The last is the shape of a cursor, with marks that no store gives: `["x", "x", "x"]`.
    for cursor in ["", "7", "not a cursor", "WyJ4IiwgIngiLCAieCJd"] {
        let after = Some(cursor.to_owned());
        let filter = TaskFilter { after, count_max: 2, ..TaskFilter::default() };
        let error = fixture.store.tasks(&filter).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{cursor}: {error}");
        assert!(error.hint_text().is_some());
    }
}

/// Counts, ages, pauses and consumers of every queue that exists.
pub async fn queues_are_seen_in_numbers(harness: &Harness) {
    let fixture = harness.store();
    let oldest = fixture.now();
    fixture.send(&["a"]).await;
    fixture.clock.advance(Duration::from_secs(2));
    fixture.send(&["b", "c"]).await;
    let mut later = outgoing("celery", "later");
    later.message.headers.set_eta(Some(fixture.at(60)));
    fixture.publish(vec![later]).await;
    let node = fixture.node("celery@a").await;
    let gone = fixture.node("celery@b").await;
    fixture.bury(node, outgoing("old", "x"), DeadReason::Failed, "").await;
    fixture.store.deregister(gone).await.unwrap();
    let held = fixture.fetch(node, 2).await;
    fixture.release(held[0].lease, celeriac_core::store::Place::Tail).await;
    fixture.store.pause(&the_queue("rests"), "").await.unwrap();
    let queues = fixture.store.queues().await.unwrap();
    let names: Vec<_> = queues.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["celery", "old", "reports", "rests"]);
    let celery = &queues[0];
    assert_eq!((celery.ready, celery.scheduled, celery.leased, celery.dead), (2, 1, 1, 0));
    assert_eq!((celery.oldest, celery.paused), (Some(oldest), false));
    assert_eq!((&celery.consumers[..], queues[1].dead), (&[node][..], 1));
    assert_eq!((&queues[2].consumers[..], queues[3].paused), (&[node][..], true));
}

/// What a store says of itself is usable and holds no secret.
pub async fn a_store_says_where_it_is_and_what_it_refuses(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 77, ..StoreLimits::default() };
    let fixture = harness.store_with(limits.clone());
    assert_eq!(fixture.store.limits(), &limits);
    assert!(fixture.store.location().contains("://"));
    // A store that was just made answers and is empty.
    assert!(fixture.store.queues().await.unwrap().is_empty());
}
