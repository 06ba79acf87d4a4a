//! Clauses of early acknowledgement: what its worker leaves behind is set aside and never runs again.

use super::fixture::{Fixture, Harness, attempt, ids, queue, request, sorted, the_queue};
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::Lease;
use celeriac_core::store::{
    Begun, DeadFilter, Delivery, Fate, FetchRequest, Page, Phase, Place, Plan, Replay, Settled,
    TaskCap,
};
use celeriac_core::throttle::{KEY_HEADER, LimitRule, RuleOrigin, Target};
use celeriac_core::unique::{UNIQUE_HEADER, Unique};

/// Says that a delivery begins now.
async fn begin(fixture: &Fixture, lease: Lease, acknowledged: bool) {
    let at = fixture.now();
    fixture.store.mark_started(vec![Begun { lease, at, acknowledged }]).await.unwrap();
}

/// Sends a message, and a node that acknowledges it leaves it behind.
async fn lose(fixture: &Fixture, id: &str) {
    fixture.send(&[id]).await;
    leave(fixture).await;
}

/// A node takes and acknowledges everything in `celery` and signs off.
async fn leave(fixture: &Fixture) {
    let node = fixture.node("celery@gone").await;
    for held in fixture.fetch(node, 99).await {
        begin(fixture, held.lease, true).await;
    }
    fixture.store.deregister(node).await.unwrap();
}

fn marks(deliveries: &[Delivery]) -> Vec<bool> {
    deliveries.iter().map(|delivery| delivery.acknowledged).collect()
}

/// What a worker does with what it gets marked.
async fn set_aside(fixture: &Fixture, lease: Lease) {
    let fate = Fate::Dead {
        reason: DeadReason::WorkerLost,
        detail: "WorkerLostError".to_owned(),
        attempt: Some(attempt("worker-lost", fixture.now())),
    };
    assert_eq!(fixture.settle(lease, fate).await, Settled::Done);
}

/// Of two tasks that ran when their worker died, the acknowledged one comes to be set aside.
pub async fn what_a_dead_node_acknowledged_does_not_run_again(harness: &Harness) {
    let fixture = harness.store();
    let (lost, next) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["early", "late", "unbegun"]).await;
    let held = fixture.fetch(lost, 3).await;
    let at = fixture.now();
    let run = |index: usize, acknowledged| Begun { lease: held[index].lease, at, acknowledged };
    fixture.store.mark_started(vec![run(0, true), run(1, false)]).await.unwrap();
    assert_eq!(marks(&held), [false; 3]);
    let swept = fixture.lapse(&[next]).await;
    assert_eq!((swept.requeued, swept.lost, swept.poisoned), (3, 1, 0));
    let mut again = fixture.fetch(next, 9).await;
    assert_eq!(sorted(&again), ["early", "late", "unbegun"]);
    again.sort_by_key(|one| !one.acknowledged);
    assert_eq!((ids(&again)[0], &marks(&again)[..]), ("early", &[true, false, false][..]));
    let run = &again[0].history[0];
    assert_eq!((run.worker.as_str(), run.outcome.as_str()), ("celery@a", "worker-lost"));
    assert_eq!(run.started_at, Some(at));
    assert!(run.detail.contains("acknowledged"), "{}", run.detail);
    assert!(!again[1].history[0].detail.contains("acknowledged"));
    assert!(again[0].redelivered);
    set_aside(&fixture, again[0].lease).await;
    for one in &again[1..] {
        assert_eq!(fixture.settle(one.lease, Fate::Done).await, Settled::Done);
    }
    let letters = fixture.store.dead_list(&DeadFilter::default(), super::fixture::ALL).await;
    let letters = letters.unwrap();
    assert_eq!((letters.len(), letters[0].reason), (1, DeadReason::WorkerLost));
    assert_eq!(letters[0].history.len(), 2);
    assert_eq!(fixture.store.check(false).await.unwrap(), []);
}

/// Whoever gives leases back, the mark stays with what their owner does not settle.
pub async fn every_way_back_keeps_the_mark(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["known", "stray", "plain"]).await;
    let held = fixture.fetch(one, 3).await;
    begin(&fixture, held[0].lease, true).await;
    begin(&fixture, held[1].lease, true).await;
    assert_eq!(fixture.store.return_strays(one, vec![held[0].lease]).await.unwrap(), 2);
    let mut came = fixture.fetch(two, 9).await;
    came.sort_by_key(|one| !one.acknowledged);
    assert_eq!((ids(&came), marks(&came)), (vec!["stray", "plain"], vec![true, false]));
    assert_eq!(fixture.store.deregister(one).await.unwrap(), 1);
    let came = fixture.fetch(two, 9).await;
    assert_eq!((ids(&came), marks(&came)), (vec!["known"], vec![true]));
    let run = &came[0].history[0];
    assert_eq!((run.worker.as_str(), run.outcome.as_str()), ("celery@a", "worker-lost"));
    assert_eq!(run.started_at, Some(fixture.now()));
}

/// It is set aside and does not run, so nothing that holds runs back holds it.
pub async fn nothing_holds_what_is_lost(harness: &Harness) {
    let fixture = harness.store();
    let names = ["a", "b", "c"];
    fixture.send(&names).await;
    let mut keyed = super::fixture::outgoing("celery", "keyed");
    keyed.message.headers.insert(KEY_HEADER, "acme");
    fixture.publish(vec![keyed]).await;
    leave(&fixture).await;
    let node = fixture.node("celery@b").await;
    let limit = LimitRule {
        target: Target::Task("app.add".to_owned()),
        per_key: false,
        rates: Vec::new(),
        concurrency: Some(1),
        origin: RuleOrigin::Operator,
    };
    fixture.store.set_limit(limit).await.unwrap();
    fixture.send(&["runs", "waits"]).await;
    let caps = vec![TaskCap { task: "app.other".to_owned(), count_max: 0 }];
    // The limit's only place is taken by the one that runs.
    let plain = FetchRequest { suspects: false, caps, ..request(node, vec![queue("celery")], 9) };
    let first = fixture.store.fetch(FetchRequest { count_max: 5, ..plain.clone() }).await.unwrap();
    assert_eq!(sorted(&first), ["a", "b", "c", "keyed", "runs"]);
    assert_eq!(first.iter().filter(|one| one.acknowledged).count(), 4);
    for one in first.iter().filter(|one| one.acknowledged) {
        fixture.release(one.lease, Place::Tail).await;
    }
    let shut =
        FetchRequest { caps: vec![TaskCap { task: "app.add".to_owned(), count_max: 0 }], ..plain };
    for target in [the_queue("celery"), Target::Everything, Target::Task("app.add".to_owned())] {
        fixture.store.pause(&target, "repair").await.unwrap();
        let came = fixture.store.fetch(shut.clone()).await.unwrap();
        assert_eq!(sorted(&came), ["a", "b", "c", "keyed"], "{target}");
        for one in &came {
            fixture.release(one.lease, Place::Head).await;
        }
        assert!(fixture.store.resume(&target).await.unwrap());
    }
    let few = FetchRequest { count_max: 2, ..shut.clone() };
    assert_eq!(fixture.store.fetch(few).await.unwrap().len(), 2, "no more than it may");
    assert_eq!(fixture.store.fetch(shut).await.unwrap().len(), 2);
    assert_eq!(fixture.store.check(false).await.unwrap(), []);
}

/// A living worker decides itself: what it gives back is work again, without the mark.
pub async fn its_own_worker_may_give_it_back(harness: &Harness) {
    let fixture = harness.store();
    let suspicion = celeriac_core::lease::Suspicion { seen: 2, counted: 1 };
    let noted = attempt("rejected", fixture.now());
    for fate in [
        Fate::Release { place: Place::Head, attempt: None },
        Fate::Release { place: Place::Tail, attempt: Some(noted.clone()) },
        Fate::Lost { suspicion, attempt: noted },
    ] {
        let node = fixture.node("celery@a").await;
        fixture.send(&["a"]).await;
        let held = fixture.take(node).await;
        begin(&fixture, held.lease, true).await;
        assert_eq!(fixture.settle(held.lease, fate.clone()).await, Settled::Done);
        let again = fixture.take(node).await;
        assert!(!again.acknowledged, "{fate:?}");
        // Nor does the next owner inherit it.
        fixture.store.deregister(node).await.unwrap();
        let last = fixture.node("celery@b").await;
        let held = fixture.take(last).await;
        assert!(!held.acknowledged, "{fate:?}");
        assert_eq!(fixture.settle(held.lease, Fate::Done).await, Settled::Done);
    }
}

/// It stays what it is until it is set aside, whoever holds it meanwhile.
pub async fn what_is_lost_stays_lost(harness: &Harness) {
    let fixture = harness.store();
    lose(&fixture, "a").await;
    let node = fixture.node("celery@b").await;
    for place in [Place::Head, Place::Tail] {
        let held = fixture.take(node).await;
        assert!(held.acknowledged);
        fixture.release(held.lease, place).await;
    }
    let held = fixture.take(node).await;
    begin(&fixture, held.lease, false).await;
    assert_eq!(fixture.lapse(&[]).await.lost, 1);
    let node = fixture.node("celery@c").await;
    assert!(fixture.take(node).await.acknowledged);
    fixture.store.deregister(node).await.unwrap();
    let node = fixture.node("celery@d").await;
    let held = fixture.take(node).await;
    assert!(held.acknowledged);
    set_aside(&fixture, held.lease).await;
    assert!(fixture.fetch(node, 9).await.is_empty());
}

/// A later note does not take the mark away, and who has lost the lease marks nothing.
pub async fn a_mark_is_its_owners_and_stays(harness: &Harness) {
    let fixture = harness.store();
    let (one, two) = (fixture.node("celery@a").await, fixture.node("celery@b").await);
    fixture.send(&["a", "b"]).await;
    let held = fixture.fetch(one, 2).await;
    fixture.release(held[1].lease, Place::Head).await;
    begin(&fixture, held[1].lease, true).await;
    begin(&fixture, held[0].lease, true).await;
    begin(&fixture, held[0].lease, false).await;
    let other = fixture.take(two).await;
    assert_eq!(ids(std::slice::from_ref(&other)), ["b"]);
    begin(&fixture, held[1].lease, true).await;
    fixture.lapse(&[]).await;
    let next = fixture.node("celery@c").await;
    let mut came = fixture.fetch(next, 9).await;
    came.sort_by_key(|one| !one.acknowledged);
    assert_eq!((ids(&came), marks(&came)), (vec!["a", "b"], vec![true, false]));
}

/// A replay is a new life: nothing of the mark is left.
pub async fn a_replayed_letter_runs_without_the_mark(harness: &Harness) {
    let fixture = harness.store();
    lose(&fixture, "a").await;
    let node = fixture.node("celery@b").await;
    let held = fixture.take(node).await;
    set_aside(&fixture, held.lease).await;
    let (filter, replay) = (DeadFilter::default(), Replay::default());
    assert_eq!(fixture.store.dead_replay(&filter, &replay, 9).await.unwrap().len(), 1);
    assert!(!fixture.take(node).await.acknowledged);
    fixture.lapse(&[]).await;
    let node = fixture.node("celery@c").await;
    assert!(!fixture.take(node).await.acknowledged);
}

/// It is seen running while it runs, and waiting until it is set aside; nobody moves or purges it.
pub async fn an_acknowledged_task_is_seen_in_every_phase(harness: &Harness) {
    let fixture = harness.store();
    let phase = async || fixture.store.task("a").await.unwrap().phase;
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    begin(&fixture, held.lease, true).await;
    let since = fixture.now();
    assert_eq!(phase().await, Phase::Running { worker: "celery@a".to_owned(), since });
    fixture.store.pause(&the_queue("celery"), "repair").await.unwrap();
    let swept = fixture.lapse(&[]).await;
    assert_eq!(swept.lost, 1);
    let waits = Phase::Queued { position: None, paused: false, limited: false, revoked: false };
    assert_eq!(phase().await, waits);
    let filter = celeriac_core::store::TaskFilter {
        state: Some("queued".to_owned()),
        count_max: 9,
        ..celeriac_core::store::TaskFilter::default()
    };
    assert_eq!(fixture.store.tasks(&filter).await.unwrap().views.len(), 1);
    let queues = fixture.store.queues().await.unwrap();
    let view = queues.iter().find(|one| one.name == "celery").unwrap();
    assert_eq!((view.ready, view.leased, view.scheduled), (1, 0, 0));
    let page = Page { after: 0, count_max: 9 };
    assert_eq!(fixture.store.peek(&queue("celery"), page).await.unwrap(), []);
    let node = fixture.node("celery@b").await;
    let held = fixture.take(node).await;
    set_aside(&fixture, held.lease).await;
    assert!(matches!(phase().await, Phase::Dead { reason: DeadReason::WorkerLost, .. }));
}

/// A unique task that is lost keeps its key until it is set aside.
pub async fn a_lost_message_holds_its_key(harness: &Harness) {
    let fixture = harness.store();
    let send = async |id: &str| {
        let mut outgoing = super::fixture::outgoing("celery", id);
        outgoing.message.headers.insert(UNIQUE_HEADER, Unique::new("k").to_value());
        let plan = Plan { publish: vec![outgoing], ..Plan::default() };
        fixture.store.publish(plan, None).await.unwrap().duplicates.is_empty()
    };
    assert!(send("one").await);
    leave(&fixture).await;
    assert!(!send("two").await, "the key is taken");
    let node = fixture.node("celery@b").await;
    let held = fixture.take(node).await;
    assert!(held.acknowledged);
    set_aside(&fixture, held.lease).await;
    assert!(send("two").await);
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["two"]);
}

/// Who waits for work hears of what is to be set aside.
pub async fn a_lost_message_wakes_a_worker(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a"]).await;
    let held = fixture.take(node).await;
    begin(&fixture, held.lease, true).await;
    let seen = fixture.store.changes();
    assert_eq!(fixture.lapse(&[]).await.lost, 1);
    let patience = super::fixture::PATIENCE;
    assert_ne!(fixture.store.wait_change(seen, patience).await, seen);
}
