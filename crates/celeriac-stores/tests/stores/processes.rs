//! Several stores on one file, as several processes have them, and many writers in one.

use super::{celery, open, plan, register, request};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Broker, ChordDone, ChordFinisher, Control, DeadFilter, DeadLetters, Events, Fate, Heartbeat,
    Inspect, Mailbox, Nodes, Outgoing, Page, Place, Plan, Queues, Replay, ResultRecord, Results,
    Settled, Settlement, ask,
};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::throttle::Target;
use celeriac_stores::SqliteStore;
use celeriac_wire::{ControlReply, ControlRequest, Event, Map, Message, ResultMeta, State, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);

fn success(id: &str) -> ResultRecord {
    ResultRecord {
        meta: ResultMeta::new(id, &State::Success, Value::from(1)),
        task: None,
        queue: None,
        worker: None,
        enqueued_at: None,
        started_at: None,
        written_at: "2026-11-21T12:00:00Z".parse().unwrap(),
        retries: 0,
    }
}

fn done(lease: celeriac_core::lease::Lease, results: Vec<ResultRecord>) -> Settlement {
    let plan = Plan { results, ..Plan::default() };
    Settlement { lease, fate: Fate::Done, plan, finisher: None }
}

#[tokio::test]
async fn one_process_sees_what_another_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let ((one, _), (two, _)) = (open(&path, 1), open(&path, 2));
    let node = register(&*two, "celery@b").await;
    one.publish(plan(&["a", "b"]), None).await.unwrap();
    let held = two.fetch(request(node, 1)).await.unwrap();
    let other = register(&*one, "celery@a").await;
    assert_eq!(one.fetch(request(other, 9)).await.unwrap().len(), 1, "only the other message");
    let settled = two.settle(vec![done(held[0].lease, vec![success("a")])]).await.unwrap();
    assert_eq!(settled, [Settled::Done]);
    assert_eq!(one.result("a").await.unwrap().unwrap().meta.state(), State::Success);
    let late = one.settle(vec![done(held[0].lease, vec![success("a")])]).await.unwrap();
    assert_eq!(late, [Settled::Fenced]);
    one.pause(&Target::from(&celery()), "").await.unwrap();
    one.publish(plan(&["c"]), None).await.unwrap();
    assert!(two.fetch(request(node, 9)).await.unwrap().is_empty());
    assert_eq!(one.nodes().await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_process_wakes_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let ((one, clock), (two, other_clock)) = (open(&path, 1), open(&path, 2));
    let woken = |what: &'static str, seen: u64| {
        let two = Arc::clone(&two);
        async move { assert_ne!(two.wait_change(seen, PATIENCE).await, seen, "{what}") }
    };
    let seen = two.changes();
    one.publish(plan(&["a"]), None).await.unwrap();
    woken("a message", seen).await;

    let waiter = tokio::spawn({
        let two = Arc::clone(&two);
        async move { two.wait_result("a", PATIENCE).await }
    });
    let node = register(&*one, "celery@a").await;
    let held = one.fetch(request(node, 1)).await.unwrap();
    one.settle(vec![done(held[0].lease, vec![success("a")])]).await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap().unwrap().meta.state(), State::Success);

    one.publish(plan(&["b"]), None).await.unwrap();
    one.fetch(request(node, 1)).await.unwrap();
    clock.advance(Duration::from_secs(9));
    other_clock.advance(Duration::from_secs(9));
    let seen = two.changes();
    assert_eq!(one.sweep().await.unwrap().requeued, 1);
    woken("a sweep", seen).await;
    let seen = two.changes();
    one.revoke(&["b".to_owned()], true).await.unwrap();
    woken("a revocation", seen).await;
}

/// What one task of the crowd did.
type Tally = BTreeMap<String, u32>;

async fn crowd_member(store: Arc<SqliteStore>, name: usize, dice: u64) -> Tally {
    let dice = Seeded::new(dice);
    let mut settled = Tally::new();
    let node = register(&*store, &format!("celery@{name}")).await;
    let mut sent = 0;
    loop {
        if sent < 250 {
            let ids: Vec<String> = (sent..sent + 25).map(|n| format!("{name}-{n}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            store.publish(plan(&ids), None).await.unwrap();
            sent += 25;
        }
        assert!(store.heartbeat(node, Heartbeat::default()).await.unwrap());
        let held = store.fetch(request(node, 16)).await.unwrap();
        if held.is_empty() && sent == 250 {
            return settled;
        }
        let (mut batch, mut ids) = (Vec::new(), Vec::new());
        for delivery in held {
            let id = delivery.message.headers.id().unwrap().to_owned();
            // One in eight goes back first, once.
            let release = delivery.history.is_empty()
                && celeriac_core::Entropy::next_u64(&dice).is_multiple_of(8);
            let mut one = done(delivery.lease, vec![success(&id)]);
            if release {
                let attempt = celeriac_core::dead::Attempt {
                    retries: 0,
                    worker: String::new(),
                    started_at: None,
                    ended_at: delivery.enqueued_at,
                    outcome: "interrupted".to_owned(),
                    detail: String::new(),
                };
                one.fate = Fate::Release { place: Place::Tail, attempt: Some(attempt) };
                one.plan = Plan::default();
            }
            ids.push((!release).then_some(id));
            batch.push(one);
        }
        for (id, outcome) in ids.into_iter().zip(store.settle(batch).await.unwrap()) {
            assert_eq!(outcome, Settled::Done, "nobody else holds it");
            if let Some(id) = id {
                *settled.entry(id).or_default() += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_on_two_stores_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let stores = [open(&path, 1).0, open(&path, 2).0];
    let mut crowd = JoinSet::new();
    for name in 0..8 {
        crowd.spawn(crowd_member(Arc::clone(&stores[name % 2]), name, name as u64));
    }
    let mut settled = Tally::new();
    for tally in crowd.join_all().await {
        for (id, count) in tally {
            *settled.entry(id).or_default() += count;
        }
    }
    // The last to go may have left behind what another released at its very end.
    let node = register(&*stores[0], "celery@last").await;
    let rest = stores[0].fetch(request(node, 10_000)).await.unwrap();
    for delivery in rest {
        let id = delivery.message.headers.id().unwrap().to_owned();
        let one = done(delivery.lease, vec![success(&id)]);
        assert_eq!(stores[0].settle(vec![one]).await.unwrap(), [Settled::Done]);
        *settled.entry(id).or_default() += 1;
    }
    assert_eq!(settled.len(), 2000);
    assert!(settled.values().all(|count| *count == 1), "{settled:?}");
    for id in settled.keys() {
        assert!(stores[1].result(id).await.unwrap().is_some(), "{id}");
    }
    let queues = stores[1].queues().await.unwrap();
    assert!(queues.iter().all(|view| view.ready + view.scheduled + view.leased == 0), "{queues:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refused_write_does_not_touch_its_neighbours_in_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let limits = StoreLimits { message_bytes_max: 4096, ..StoreLimits::default() };
    let path = folder.path().join("queue.db");
    let entropy = Arc::new(Seeded::new(1));
    let store = Arc::new(SqliteStore::open(&path, limits, clock, entropy).unwrap());
    let mut writes = JoinSet::new();
    for n in 0..400usize {
        let store = Arc::clone(&store);
        writes.spawn(async move {
            let mut plan = plan(&[&format!("{n}-a"), &format!("{n}-b")]);
            if n % 10 == 0 {
                let large = Message::new("app.add", "large", vec![b'x'; 5000]);
                plan.publish.push(Outgoing::new(celery(), large));
            }
            (n, store.publish(plan, None).await)
        });
    }
    for (n, outcome) in writes.join_all().await {
        let kind = outcome.err().map(|error| error.kind());
        assert_eq!(kind, (n % 10 == 0).then_some(ErrorKind::TooLarge), "{n}");
    }
    let all = Page { after: 0, count_max: 10_000 };
    let stored = store.peek(&celery(), all).await.unwrap();
    assert_eq!(stored.len(), 360 * 2);
    let refused = |id: &str| id.split('-').next().unwrap().parse::<usize>().unwrap() % 10 == 0;
    assert!(!stored.iter().any(|one| refused(one.outgoing.message.headers.id().unwrap())));
    assert!(stored.windows(2).all(|two| two[0].row < two[1].row));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_complete_a_chord_once_and_replay_a_letter_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let stores = [open(&path, 1).0, open(&path, 2).0];
    let size = 60;
    let start = celeriac_core::store::ChordStart { group: "g".to_owned(), size };
    let start = Plan { chords: vec![start], ..Plan::default() };
    stores[0].publish(start, None).await.unwrap();
    let finisher: ChordFinisher = Arc::new(|_: &ChordDone| plan(&["body"]));
    let mut members = JoinSet::new();
    // Each part twice, from both stores.
    for n in 0..size * 2 {
        let (store, finisher) = (Arc::clone(&stores[(n % 2) as usize]), finisher.clone());
        members.spawn(async move {
            let part = celeriac_core::store::ChordPart {
                group: "g".to_owned(),
                index: i64::from(n / 2),
                task_id: format!("member-{}", n / 2),
                state: State::Success,
                result: Value::from(1),
                body: celeriac_wire::Signature::new("app.sum"),
            };
            let parts = Plan { parts: vec![part], ..Plan::default() };
            store.publish(parts, Some(finisher)).await.unwrap();
        });
    }
    members.join_all().await;
    let node = register(&*stores[0], "celery@a").await;
    let held = stores[0].fetch(request(node, 9)).await.unwrap();
    assert_eq!(held.len(), 1, "the body once");
    let dead = Fate::Dead { reason: DeadReason::Failed, detail: String::new(), attempt: None };
    let bury = Settlement { fate: dead, ..done(held[0].lease, Vec::new()) };
    assert_eq!(stores[0].settle(vec![bury]).await.unwrap(), [Settled::Done]);
    let (filter, replay) = (DeadFilter::default(), Replay::default());
    let (one, two) = tokio::join!(
        stores[0].dead_replay(&filter, &replay, 9),
        stores[1].dead_replay(&filter, &replay, 9)
    );
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1);
    assert_eq!(stores[1].fetch(request(node, 9)).await.unwrap().len(), 1);
}

/// A sweep that had to wait for another process's lock, until its caller gave up, finds nobody dead
/// later: who was silent meanwhile only waited for the same lock.
#[tokio::test]
async fn what_was_given_up_behind_a_lock_is_not_done_when_it_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (store, clock) = open(&path, 1);
    let node = register(&*store, "celery@a").await;
    let locker = rusqlite::Connection::open(&path).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let swept = tokio::time::timeout(Duration::from_millis(200), store.sweep()).await;
    assert!(swept.is_err(), "the lock is held");
    clock.advance(Duration::from_mins(1));
    locker.execute_batch("COMMIT").unwrap();
    // Jobs are done in their order: with this one answered, the sweep has had its turn.
    assert!(store.heartbeat(node, Heartbeat::default()).await.unwrap(), "nobody took its leases");
}

/// Requests, replies and events pass between processes, which here are two stores on one file.
#[tokio::test]
async fn control_and_events_pass_between_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (asker, node) = (open(&path, 1).0, open(&path, 2).0);
    let mut requests = node.listen("celery@a").await.unwrap();
    let mut events = asker.watch_events().await.unwrap();
    let request = ControlRequest::new("ping", Map::new());
    let asking = ask(&*asker, "q", request, PATIENCE, Some(1));
    let answering = async {
        let request = requests.next().await.unwrap();
        let answer = Value::from("pong");
        let reply = ControlReply::new(request.ticket(), "celery@a", answer);
        node.reply(&request.reply_to().unwrap(), &reply).await.unwrap();
        node.emit(vec![Event::from_map(reply.answers)]).await.unwrap();
    };
    let (replies, ()) = tokio::join!(asking, answering);
    assert_eq!(replies.unwrap().len(), 1);
    let heard = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(heard[0].get("celery@a").unwrap().as_str(), Some("pong"));
}
