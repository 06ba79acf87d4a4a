//! `inspect`, `control`, `status`, `events`, `purge`, `list`, `report`.

use crate::kit::{PATIENCE, Place, Worker, count, until};
use crate::{call, celeriac, json, number, store, text};
use celeriac_wire::Value;

/// A worker of the ledger application with two slots, on a store of its own.
async fn worker(place: &Place, more: &[&str]) -> Worker {
    let store = place.app().store().await.unwrap();
    let mut args = vec!["-c", "2"];
    args.extend(more);
    let worker = Worker::start(place, &store, "w1@here", "8s", &args).await;
    // Registered is not yet listening.
    until("it answers", PATIENCE, async || {
        (celeriac(place, &["inspect", "ping", "-t", "300ms"]).await.code == 0).then_some(())
    })
    .await;
    worker
}

/// The answer of the one worker.
async fn inspect(place: &Place, args: &[&str]) -> Value {
    let mut all = vec!["inspect", "-d", "w1@here"];
    all.extend(args);
    json(place, 0, &all).await.get("w1@here").expect("its answer").clone()
}

async fn control(place: &Place, args: &[&str]) -> String {
    let mut all = vec!["control", "-d", "w1@here"];
    all.extend(args);
    json(place, 0, &all).await.as_array().unwrap()[0].get("w1@here").unwrap().to_string()
}

#[tokio::test]
async fn a_worker_tells_what_it_is_and_does() {
    let place = store().await;
    let mut worker = worker(&place, &[]).await;
    let id = call(&place, &["ledger.until_told"]).await;
    call(&place, &["ledger.work", "-a", "[1]", "--countdown", "1h"]).await;
    until("it runs", PATIENCE, async || (count(&place, "start") == 1).then_some(())).await;
    let active = inspect(&place, &["active"]).await;
    assert_eq!(text(&active.as_array().unwrap()[0], "id"), id);
    let found = inspect(&place, &["query_task", &id, "unknown"]).await;
    assert_eq!(found.get(&id).unwrap().as_array().unwrap()[0].as_str(), Some("active"));
    let stats = inspect(&place, &["stats"]).await;
    assert_eq!(number(&stats, "pid"), i64::from(worker.pid));
    assert_eq!(number(stats.get("total").unwrap(), "ledger.until_told"), 1);
    assert_eq!(text(stats.get("broker").unwrap(), "transport"), "sqlite");
    assert_eq!(number(stats.get("pool").unwrap(), "max-concurrency"), 2);
    let scheduled = inspect(&place, &["scheduled"]).await;
    let request = scheduled.as_array().unwrap()[0].get("request").unwrap().clone();
    assert_eq!(text(&request, "name"), "ledger.work");
    let queues = inspect(&place, &["active_queues"]).await;
    assert_eq!(text(&queues.as_array().unwrap()[0], "name"), "celery");
    let registered = inspect(&place, &["registered"]).await.to_string();
    assert!(registered.contains("\"ledger.work\""), "{registered}");
    let conf = inspect(&place, &["conf"]).await;
    assert_eq!((text(&conf, "broker_url"), number(&conf, "worker_concurrency")), (place.url(), 2));
    assert!(inspect(&place, &["conf", "true"]).await.get("celeriac_grace").is_some());
    for command in ["report", "memsample", "memdump", "clock", "revoked", "reserved"] {
        celeriac(&place, &["inspect", command])
            .await
            .exits(0)
            .says(&["w1@here: OK", "1 node online"]);
    }
    celeriac(&place, &["inspect", "objgraph", "-t", "1s"])
        .await
        .exits(0)
        .says(&["ERROR", "Python"]);
    celeriac(&place, &["inspect", "ping", "-j"])
        .await
        .exits(0)
        .says(&["{\"w1@here\": {\"ok\": \"pong\"}}"]);
    celeriac(&place, &["status"]).await.exits(0).says(&["w1@here", "1 node online"]);
    celeriac(&place, &["control", "shutdown"]).await.exits(0).says(&["told to stop"]);
    // A warm shutdown waits for the task, which waits to be told.
    celeriac(&place, &["task", "cancel", &id]).await.exits(0);
    assert!(worker.ended().await.success());
    celeriac(&place, &["inspect", "ping", "-t", "100ms"])
        .await
        .exits(69)
        .warns(&["No nodes replied"]);
    celeriac(&place, &["status"]).await.exits(69).says(&["0 nodes online"]);
}

#[tokio::test]
async fn a_worker_does_what_it_is_told() {
    let place = store().await;
    let mut worker = worker(&place, &["-Q", "celery"]).await;
    // A queue more and less.
    call(&place, &["ledger.work", "-a", "[0]", "--queue", "extra"]).await;
    assert_eq!(
        control(&place, &["add_consumer", "extra"]).await,
        r#"{"ok": "add consumer extra"}"#
    );
    until("it runs", PATIENCE, async || (count(&place, "end") == 1).then_some(())).await;
    let queues = json(&place, 0, &["status"]).await.get("workers").unwrap().to_string();
    assert!(queues.contains("\"queues\": [\"celery\", \"extra\"]"), "{queues}");
    control(&place, &["cancel_consumer", "extra"]).await;
    assert_eq!(inspect(&place, &["active_queues"]).await.as_array().unwrap().len(), 1);
    // More slots and fewer.
    control(&place, &["pool_grow", "1"]).await;
    let ids = [(); 3].map(|()| ["ledger.until_told"]);
    let mut running = Vec::new();
    for args in &ids {
        running.push(call(&place, args).await);
    }
    until("three run", PATIENCE, async || (count(&place, "start") == 4).then_some(())).await;
    assert_eq!(
        control(&place, &["pool_shrink"]).await,
        r#"{"error": "ValueError(\"Can't shrink pool. All processes busy!\")"}"#
    );
    // What runs is terminated, what waits never runs.
    let terminated = control(&place, &["terminate", "SIGTERM", &running[0]]).await;
    assert_eq!(terminated, format!("{{\"ok\": \"terminate: {}\"}}", running[0]));
    celeriac(&place, &["result", &running[0], "--wait", "10s"]).await.exits(5).says(&["REVOKED"]);
    control(&place, &["pool_shrink", "1"]).await;
    let waits = call(&place, &["ledger.work", "-a", "[0]"]).await;
    control(&place, &["revoke", &waits]).await;
    assert_eq!(inspect(&place, &["revoked"]).await.as_array().unwrap().len(), 2);
    for id in &running[1..] {
        control(&place, &["terminate", "KILL", id]).await;
    }
    celeriac(&place, &["result", &waits, "--wait", "10s"]).await.exits(5).says(&["REVOKED"]);
    // A time limit for what comes.
    control(&place, &["time_limit", "ledger.until_told", "0.1", "5"]).await;
    let late = call(&place, &["ledger.until_told"]).await;
    celeriac(&place, &["result", &late, "--wait", "10s"]).await.exits(5).says(&["SoftTimeLimit"]);
    let wrong = control(&place, &["rate_limit", "nosuch", "1/m"]).await;
    assert_eq!(wrong, r#"{"error": "unknown task"}"#);
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_rate_limit_holds_from_now_on() {
    let place = store().await;
    let _worker = worker(&place, &[]).await;
    let set = control(&place, &["rate_limit", "ledger.work", "1/h"]).await;
    assert_eq!(set, r#"{"ok": "new rate limit set successfully"}"#);
    for _ in 0..3 {
        call(&place, &["ledger.work", "-a", "[0]"]).await;
    }
    call(&place, &["ledger.flaky"]).await;
    until("the others pass", PATIENCE, async || (count(&place, "end") == 2).then_some(())).await;
    assert_eq!(count(&place, "start"), 3, "one of the limited, and two runs of the other");
    let shown = inspect(&place, &["registered"]).await.to_string();
    assert!(shown.contains("ledger.work [rate_limit=1/h]"), "{shown}");
    control(&place, &["rate_limit", "ledger.work", "0"]).await;
    until("all have run", PATIENCE, async || (count(&place, "end") == 4).then_some(())).await;
}

#[tokio::test]
async fn events_are_printed_as_they_happen() {
    let place = store().await;
    let mut worker = worker(&place, &["--heartbeat-interval", "1"]).await;
    let events = ["events", "--count", "3", "--type", "task-*"];
    let (printed, id) = tokio::join!(celeriac(&place, &events), async {
        // A task that is sent before anybody listens is not heard of: send until one is.
        let id = call(&place, &["ledger.work", "-a", "[0]"]).await;
        until("two have run", PATIENCE, async || {
            call(&place, &["ledger.work", "-a", "[0]"]).await;
            (count(&place, "end") > 5).then_some(())
        })
        .await;
        id
    });
    assert!(!id.is_empty());
    printed.exits(0).says(&["w1@here [", "task "]);
    let beats = json(&place, 0, &["events", "-n", "1", "--type", "worker-heartbeat"]).await;
    assert_eq!((text(&beats, "hostname"), text(&beats, "sw_ident")), ("w1@here", "celeriac"));
    let off = control(&place, &["disable_events"]).await;
    assert_eq!(off, r#"{"ok": "task events disabled"}"#);
    let again = control(&place, &["disable_events"]).await;
    assert_eq!(again, r#"{"ok": "task events already disabled"}"#);
    let id = call(&place, &["ledger.work", "-a", "[0]"]).await;
    celeriac(&place, &["result", &id, "--wait", "10s"]).await.exits(0);
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
    let store = place.app().store().await.unwrap();
    assert!(store.events_of(&id).await.unwrap().is_empty());
    let last = store.events_since(0, 10_000).await.unwrap().pop().unwrap().event;
    assert_eq!((last.kind(), last.hostname()), (Some("worker-offline"), Some("w1@here")));
    celeriac(&place, &["events", "--for", "10ms"]).await.exits(0).warns(&["starting capture"]);
}

#[tokio::test]
async fn what_is_sent_is_told_when_that_is_wanted() {
    let place = store().await;
    call(&place, &["tasks.add"]).await;
    std::fs::write(place.path("celeriac.toml"), "sent_events = true\n").unwrap();
    let id = call(&place, &["tasks.add", "-a", "[1, 2]", "--queue", "q"]).await;
    let store = place.app().store().await.unwrap();
    let events = store.events_since(0, 100).await.unwrap();
    assert_eq!(events.len(), 1);
    let event = Value::from(events[0].event.clone());
    assert_eq!((text(&event, "type"), text(&event, "uuid")), ("task-sent", id.as_str()));
    assert_eq!((text(&event, "args"), text(&event, "queue")), ("(1, 2)", "q"));
    assert!(text(&event, "hostname").starts_with("gen"));
}

#[tokio::test]
async fn queues_are_purged_by_celerys_command_and_can_be_filled_again() {
    let place = store().await;
    for queue in ["celery", "a", "b"] {
        call(&place, &["x", "--queue", queue]).await;
    }
    celeriac(&place, &["purge", "-Q", "a,b"]).await.exits(5).warns(&["a (1), b (1)", "-f"]);
    let purged = json(&place, 0, &["purge", "-f", "-Q", "a,b", "-X", "b"]).await;
    assert_eq!(number(&purged, "purged"), 1);
    celeriac(&place, &["purge", "-f"]).await.exits(0).says(&["Purged 1 message from 1 queue."]);
    celeriac(&place, &["purge", "-f"]).await.exits(0).says(&["No messages purged from 1 queue."]);
    let saved = std::fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        saved.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl")).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    let file = files[0].to_str().unwrap();
    celeriac(&place, &["queue", "load", file]).await.exits(0).says(&["1 message loaded"]);
    celeriac(&place, &["purge", "-f", "--no-save", "-Q", "a,b"])
        .await
        .exits(0)
        .says(&["2 messages"]);
    celeriac(&place, &["purge", "-f", "-X", "celery"]).await.exits(2).warns(&["no queue is left"]);
    celeriac(&place, &["list", "queues"]).await.exits(0);
    call(&place, &["x", "--queue", "c"]).await;
    celeriac(&place, &["list", "bindings"]).await.exits(0).says(&["Routing Key", "c"]);
}

#[tokio::test]
async fn commands_are_listed_and_the_report_hides_secrets() {
    let place = store().await;
    let listed = json(&place, 0, &["control", "--list"]).await.to_string();
    assert!(listed.contains("\"rate_limit\"") && !listed.contains("\"ping\""), "{listed}");
    celeriac(&place, &["inspect", "--list"]).await.exits(0).says(&["query_task [id1", "stats"]);
    let report = celeriac(&place, &["report"]).await.exits(0);
    report.says(&["software -> celeriac:", "platform -> system:", "broker_url: 'sqlite://"]);
}

/// Slots are children there: they come, go, and are known by their process ids.
#[tokio::test]
async fn a_pool_of_children_grows_and_shrinks() {
    let place = store().await;
    let mut worker = worker(&place, &["-P", "process"]).await;
    let pool = async || inspect(&place, &["stats"]).await.get("pool").unwrap().clone();
    let children = async |wanted: usize| {
        until("there are so many children", PATIENCE, async || {
            let pids = pool().await.get("processes").unwrap().as_array().unwrap().len();
            (pids == wanted).then_some(())
        })
        .await;
    };
    children(2).await;
    assert_eq!(control(&place, &["pool_grow", "2"]).await, r#"{"ok": "pool will grow"}"#);
    children(4).await;
    let ids =
        [call(&place, &["ledger.until_told"]).await, call(&place, &["ledger.until_told"]).await];
    until("they run", PATIENCE, async || (count(&place, "start") == 2).then_some(())).await;
    let active = inspect(&place, &["active"]).await;
    let pids: Vec<i64> =
        active.as_array().unwrap().iter().map(|task| number(task, "worker_pid")).collect();
    assert!(pids[0] != pids[1] && !pids.contains(&i64::from(worker.pid)), "{pids:?}");
    let writes = pool().await.get("writes").unwrap().clone();
    assert_eq!((number(&writes, "total"), text(&writes, "strategy")), (2, "fair"));
    assert_eq!(control(&place, &["pool_shrink", "2"]).await, r#"{"ok": "pool will shrink"}"#);
    children(2).await;
    assert_eq!(
        control(&place, &["pool_shrink", "1"]).await,
        r#"{"error": "ValueError(\"Can't shrink pool. All processes busy!\")"}"#
    );
    assert_eq!(number(&pool().await, "max-concurrency"), 2);
    for id in &ids {
        control(&place, &["terminate", "KILL", id]).await;
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
}
