//! SQLite's files: what survives, what is refused, and who may read them.

use super::{celery, open, plan, register, request};
use celeriac_core::ErrorKind;
use celeriac_core::dead::DeadReason;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Broker, Control, DeadFilter, DeadLetters, Events, Fate, Inspect, Maintain, Nodes, Outgoing,
    Page, Phase, Plan, Results, Settled, Settlement, Store, Throttle,
};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::throttle::{KEY_HEADER, LimitRule, RuleOrigin, Target, parse_rates};
use celeriac_stores::SqliteStore;
use celeriac_wire::{Envelope, Event, EventBase, Map, Value};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn refusal(path: &Path) -> celeriac_core::StoreError {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    SqliteStore::open(path, StoreLimits::default(), clock, Arc::new(Seeded::new(1))).unwrap_err()
}

fn settlement(lease: celeriac_core::lease::Lease, fate: Fate) -> Settlement {
    Settlement { lease, fate, plan: Plan::default(), finisher: None }
}

#[tokio::test]
async fn everything_survives_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/queue.db");
    let (store, clock) = open(&path, 1);
    let node = register(&*store, "celery@a").await;
    let mut all = plan(&["held", "dead", "waits"]);
    let mut later = plan(&["later"]).publish.remove(0);
    later.message.headers.set_eta(Some("2026-11-22T00:00:00Z".parse().unwrap()));
    all.publish.push(later);
    store.publish(all, None).await.unwrap();
    let held = store.fetch(request(node, 2)).await.unwrap();
    let dead = Fate::Dead { reason: DeadReason::Failed, detail: "boom".to_owned(), attempt: None };
    assert_eq!(store.settle(vec![settlement(held[1].lease, dead)]).await.unwrap(), [Settled::Done]);
    store.revoke(&["waits".to_owned()], true).await.unwrap();
    store.pause(&Target::from(&celery()), "upgrade").await.unwrap();
    let base = EventBase {
        hostname: "celery@a".to_owned(),
        utcoffset: 0.0,
        pid: 1,
        clock: 1,
        timestamp: "2026-11-21T12:00:00Z".parse().unwrap(),
    };
    let event = Event::new("task-received", &base, Map::from([("uuid", Value::from("held"))]));
    store.emit(vec![event.clone()]).await.unwrap();
    drop(store);

    let (store, _) = open(&path, 2);
    drop(clock);
    let phase = |id: &'static str| {
        let store = Arc::clone(&store);
        async move { store.task(id).await.unwrap().phase }
    };
    assert_eq!(phase("held").await, Phase::Reserved { worker: "celery@a".to_owned() });
    assert!(matches!(phase("later").await, Phase::Scheduled { .. }));
    assert!(matches!(phase("waits").await, Phase::Queued { paused: true, revoked: true, .. }));
    assert!(matches!(phase("dead").await, Phase::Dead { number: 1, .. }));
    assert_eq!(store.events_of("held").await.unwrap()[0].event, event);
    let done = store.settle(vec![settlement(held[0].lease, Fate::Done)]).await.unwrap();
    assert_eq!(done, [Settled::Done], "a lease outlives a restart of the store");
    assert!(store.resume(&Target::from(&celery())).await.unwrap());
    let next = store.fetch(request(node, 9)).await.unwrap();
    assert_eq!((next.len(), next[0].revoked), (1, true));
    assert_ne!(next[0].lease.row, held[0].lease.row, "a row number is never used twice");
}

/// One row that nobody can read must not keep its queue from being read.
#[tokio::test]
async fn a_damaged_row_is_set_aside_and_its_queue_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (store, _clock) = open(&path, 1);
    let node = register(&*store, "celery@a").await;
    store.publish(plan(&["good", "damaged", "also good"]), None).await.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    let damage = "UPDATE message_body SET headers = '{\"id\": ', body = x'80ff' WHERE row = 2";
    assert_eq!(file.execute(damage, []).unwrap(), 1);
    let taken = store.fetch(request(node, 9)).await.unwrap();
    let ids: Vec<_> = taken.iter().map(|one| one.message.headers.id().unwrap()).collect();
    assert_eq!(ids, ["good", "also good"]);
    let page = Page { after: 0, count_max: 9 };
    let dead = store.dead_list(&DeadFilter::default(), page).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason), (1, DeadReason::Undecodable));
    let kept = dead[0].message.headers.get("celeriac_damaged_headers").and_then(Value::as_str);
    assert_eq!(kept, Some("{\"id\": "), "with its bytes");
    assert_eq!(&dead[0].message.body[..], b"\x80\xff", "also where they are no text");
    let result = store.result("damaged").await.unwrap().unwrap();
    assert_eq!(result.meta.state(), celeriac_wire::State::Failure, "who waits is told");
    assert_eq!(store.check(false).await.unwrap(), []);
}

/// Whatever is wrong with it: bytes that are no text, a number where text was, no body at all.
#[tokio::test]
async fn no_damage_of_a_row_stops_its_queue() {
    for damage in [
        "UPDATE message_body SET headers = CAST(x'7b22ff227d' AS TEXT) WHERE row = 1",
        "UPDATE message_body SET properties = x'00' WHERE row = 1",
        "UPDATE message_body SET body = 7 WHERE row = 1",
        "UPDATE message SET history = '{' WHERE row = 1",
        "DELETE FROM message_body WHERE row = 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let (store, _clock) = open(&path, 1);
        let node = register(&*store, "celery@a").await;
        store.publish(plan(&["damaged", "good"]), None).await.unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(file.execute(damage, []).unwrap(), 1);
        let taken = store.fetch(request(node, 9)).await.unwrap();
        let ids: Vec<_> = taken.iter().map(|one| one.message.headers.id().unwrap()).collect();
        assert_eq!(ids, ["good"], "{damage}");
        let page = Page { after: 0, count_max: 9 };
        let dead = store.dead_list(&DeadFilter::default(), page).await.unwrap();
        assert_eq!((dead.len(), dead[0].reason), (1, DeadReason::Undecodable), "{damage}");
        assert_eq!(store.check(false).await.unwrap(), [], "{damage}");
    }
}

#[tokio::test]
async fn a_rebooted_machine_gives_all_leases_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (store, clock) = open(&path, 1);
    let node = register(&*store, "celery@a").await;
    store.publish(plan(&["a"]), None).await.unwrap();
    clock.advance(Duration::from_hours(10));
    assert!(store.heartbeat(node, celeriac_core::store::Heartbeat::default()).await.unwrap());
    store.fetch(request(node, 1)).await.unwrap();
    drop(store);
    // The new clock stands one hour after boot, the heartbeat eleven.
    let (store, _) = open(&path, 2);
    assert!(!store.nodes().await.unwrap()[0].alive);
    assert_eq!(store.sweep().await.unwrap().requeued, 1, "nobody waits for an expiry");
}

#[test]
fn other_files_and_other_formats_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(open(&newer, 1));
    let tables = rusqlite::Connection::open(&newer).unwrap();
    tables.execute("UPDATE meta SET value = '99' WHERE key = 'format_version'", []).unwrap();
    drop(tables);
    let error = refusal(&newer);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("format 99"), "{error}");
    assert!(error.hint_text().is_some());

    let foreign = folder.path().join("foreign.db");
    let users = rusqlite::Connection::open(&foreign).unwrap();
    users.execute_batch("CREATE TABLE users (name TEXT)").unwrap();
    drop(users);
    let error = refusal(&foreign);
    assert!(error.to_string().contains("no celeriac store"), "{error}");
    let users = rusqlite::Connection::open(&foreign).unwrap();
    let tables: i64 =
        users.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "nothing was added to it");

    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "this is no database, but it is long enough ".repeat(100)).unwrap();
    assert_eq!(refusal(&garbage).kind(), ErrorKind::Corrupt);

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refusal(&file.join("queue.db"));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.hint_text().is_some(), "{error}");
}

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("queue.db"), 1);
    store.publish(plan(&["a"]), None).await.unwrap();
    store.emit(Vec::new()).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        names.push(name);
    }
    for name in ["queue.db", "queue.db-wal", "queue.db-shm", "queue.db-events", "queue.db-bell"] {
        assert!(names.iter().any(|found| found == name), "{name} of {names:?}");
    }
    assert!(store.location().starts_with("sqlite:///") && store.location().ends_with("queue.db"));
}

#[tokio::test]
async fn messages_of_real_celery_go_through_without_losing_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("queue.db"), 1);
    let node = register(&*store, "celery@a").await;
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("../celeriac-wire/testdata/5.7");
    let mut count = 0;
    for entry in std::fs::read_dir(captured).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let fixture = Value::parse(&std::fs::read(&path).unwrap()).unwrap();
        let queues = fixture.get("queues").and_then(Value::as_object);
        for text in queues.iter().flat_map(|queues| queues.values()) {
            for text in text.as_array().unwrap_or_default().iter().filter_map(Value::as_str) {
                let sent = Envelope::parse(text.as_bytes()).unwrap().message;
                // Some wait for a time: the store must not hold this test up.
                let mut sent = sent;
                sent.headers.set_eta(None);
                let publish = vec![Outgoing::new(celery(), sent.clone())];
                store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
                let held = store.fetch(request(node, 1)).await.unwrap().remove(0);
                assert_eq!(held.message, sent, "{}", path.display());
                assert_eq!(held.message.headers.to_json(), sent.headers.to_json());
                assert_eq!(held.message.properties.to_json(), sent.properties.to_json());
                let dead =
                    Fate::Dead { reason: DeadReason::Failed, detail: String::new(), attempt: None };
                let settled = store.settle(vec![settlement(held.lease, dead)]).await.unwrap();
                assert_eq!(settled, [Settled::Done]);
                count += 1;
                let page = Page { after: count - 1, count_max: 1 };
                let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
                assert_eq!(letters[0].message, sent);
            }
        }
    }
    assert!(count > 40, "{count}");
}

/// A thousand keys that are never seen again leave nothing behind.
#[tokio::test]
async fn starts_under_a_rate_are_forgotten_with_its_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (store, clock) = open(&path, 1);
    let node = register(&*store, "celery@a").await;
    let rule = LimitRule {
        target: Target::Key("*".to_owned()),
        per_key: false,
        rates: parse_rates("3/m burst, 1/s").unwrap(),
        concurrency: None,
        origin: RuleOrigin::Operator,
    };
    store.set_limit(rule).await.unwrap();
    let keyed = |key: usize| {
        let mut one = plan(&["id"]).publish.remove(0);
        one.message.headers.insert(KEY_HEADER, format!("key {key}"));
        one
    };
    let publish = (0..100).map(keyed).collect();
    store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
    assert_eq!(store.fetch(request(node, 1000)).await.unwrap().len(), 100);
    let file = rusqlite::Connection::open(&path).unwrap();
    let rows = || -> (i64, i64) {
        let sql = "SELECT (SELECT count(*) FROM spread), (SELECT count(*) FROM grant_log)";
        file.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    store.sweep().await.unwrap();
    assert_eq!(rows(), (100, 100));
    clock.advance(Duration::from_secs(2));
    store.sweep().await.unwrap();
    assert_eq!(rows(), (0, 100), "the minute is not over");
    clock.advance(Duration::from_secs(58));
    store.sweep().await.unwrap();
    assert_eq!(rows(), (0, 0));
}
