//! `call`, `result` and `task`.

use crate::kit::{PATIENCE, Worker, until};
use crate::{call, celeriac, json, number, store, text, work};
use celeriac_wire::Value;
use rustix::process::Signal;

/// Every phase of `task show` that exists without a worker.
#[tokio::test]
async fn task_show_is_true_with_no_worker_running() {
    // covers: S3-25 S4-06
    let place = store().await;
    celeriac(&place, &["task", "show", "nix"]).await.exits(5).says(&["unknown", "never sent here"]);
    assert_eq!(text(&json(&place, 5, &["task", "show", "nix"]).await, "phase"), "unknown");

    let first = call(&place, &["a.b", "-a", "[1]"]).await;
    let second = call(&place, &["a.b", "-a", "[2, \"x\"]"]).await;
    celeriac(&place, &["task", "show", &first]).await.exits(0).says(&[
        "queued, 0 ahead",
        "ago)",
        "(1,)",
    ]);
    let view = json(&place, 0, &["task", "show", &second]).await;
    assert_eq!((text(&view, "phase"), number(&view, "position")), ("queued", 1));

    let later = call(&place, &["a.b", "--countdown", "1h"]).await;
    celeriac(&place, &["task", "show", &later]).await.exits(0).says(&["scheduled until", "in 59m"]);
    celeriac(&place, &["queue", "pause", "celery"]).await.exits(0);
    celeriac(&place, &["task", "show", &first]).await.exits(0).says(&["paused (see"]);
    celeriac(&place, &["queue", "resume", "celery"]).await.exits(0);
    celeriac(&place, &["task", "cancel", &first]).await.exits(0).says(&["will not run"]);
    celeriac(&place, &["task", "show", &first]).await.exits(0).says(&["revoked: it will not run"]);

    work(&place).await;
    celeriac(&place, &["task", "show", &first]).await.exits(0).says(&["done, REVOKED"]);
    celeriac(&place, &["task", "show", &second])
        .await
        .exits(0)
        .says(&["dead letter 1: unknown-task"]);
}

#[tokio::test]
async fn task_show_says_where_a_task_runs_and_why_it_is_retried() {
    let place = store().await;
    let app = place.app();
    let opened = app.store().await.unwrap();
    let mut worker = Worker::start(&place, &opened, "w1@here", "8s", &["-c", "1"]).await;
    let running = call(&place, &["ledger.until_told"]).await;
    until("it runs", PATIENCE, async || {
        let view = json(&place, 0, &["task", "show", &running]).await;
        (text(&view, "phase") == "running").then_some(())
    })
    .await;
    celeriac(&place, &["task", "show", &running]).await.exits(0).says(&["running on w1@here for"]);
    let listed = json(&place, 0, &["task", "list", "--state", "running"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    celeriac(&place, &["status"]).await.exits(0).says(&["w1@here", "1 leased"]);
    celeriac(&place, &["task", "cancel", &running]).await.exits(0).says(&["is told to stop"]);
    let ended = celeriac(&place, &["result", &running, "--wait", "10s"]).await.exits(5);
    ended.says(&["REVOKED", "terminated"]);
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());

    // A passing fault of the demo's task: no service listens.
    let socket = place.path("service.sock").display().to_string();
    let retried = call(&place, &["demo.ask_service", "-a", &format!("[\"{socket}\"]")]).await;
    work(&place).await;
    let shown = celeriac(&place, &["task", "show", &retried]).await.exits(0);
    shown.says(&["waits for its retry until", "No such file", "history"]);
    let view = json(&place, 0, &["task", "show", &retried]).await;
    assert_eq!(text(&view, "phase"), "retry");
    assert!(number(&view, "retries") >= 1);
    celeriac(&place, &["task", "retry", &retried])
        .await
        .exits(0)
        .says(&["as soon as a worker is free"]);
    let view = json(&place, 0, &["task", "show", &retried]).await;
    assert_eq!(text(&view, "phase"), "queued");
}

#[tokio::test]
async fn results_are_printed_and_their_state_is_the_exit_code() {
    // covers: S2-21 S2-22
    let place = store().await;
    celeriac(&place, &["result", "nix"]).await.exits(5).warns(&["nothing is known of task nix"]);
    let waiting = call(&place, &["demo.inspect", "-a", "[\"missing.csv\"]"]).await;
    let early = celeriac(&place, &["result", &waiting]).await.exits(5);
    early.warns(&["has no result yet, it is queued"]);
    work(&place).await;
    let failed = celeriac(&place, &["result", &waiting]).await.exits(5);
    failed.says(&["FAILURE", "cannot read missing.csv"]);
    let document = json(&place, 5, &["result", &waiting]).await;
    assert_eq!(text(&document, "status"), "FAILURE");
    assert_eq!(text(document.get("result").unwrap(), "exc_type"), "TaskFailed");

    std::fs::write(place.path("t.csv"), "a,b\n1,2\n").unwrap();
    let good = call(&place, &["demo.inspect", "-k", "{\"path\": \"t.csv\"}"]).await;
    work(&place).await;
    celeriac(&place, &["result", &good]).await.exits(0).says(&["\"header\": [\"a\", \"b\"]"]);
}

#[tokio::test]
async fn task_lists_are_filtered() {
    let place = store().await;
    call(&place, &["a.one", "--queue", "q1"]).await;
    call(&place, &["a.two", "--queue", "q2"]).await;
    call(&place, &["b.three", "--countdown", "1h"]).await;
    for (filter, expected) in [
        (vec![], 3),
        (vec!["--task", "a.*"], 2),
        (vec!["--task", "a.one"], 1),
        (vec!["--queue", "q2"], 1),
        (vec!["--state", "scheduled"], 1),
        (vec!["--state", "queued", "--task", "b.*"], 0),
        (vec!["-n", "1"], 1),
    ] {
        let mut args = vec!["task", "list"];
        args.extend(&filter);
        let listed = json(&place, 0, &args).await;
        assert_eq!(listed.as_array().map(<[Value]>::len), Some(expected), "{filter:?}");
    }
    celeriac(&place, &["task", "list"]).await.exits(0).says(&["ID", "a.one", "q2", "scheduled"]);
    celeriac(&place, &["task", "list", "--state", "runing"])
        .await
        .exits(2)
        .warns(&["unknown state"]);
    celeriac(&place, &["task", "list", "--state", "dead"]).await.exits(0).says(&["no such tasks"]);

    // Page by page: the cursor is on stderr, whatever stdout is for.
    let all = json(&place, 0, &["task", "list"]).await.as_array().unwrap().len();
    let (mut ids, mut after) = (std::collections::BTreeSet::new(), None::<String>);
    loop {
        let mut args = vec!["task", "list", "-n", "1", "--json"];
        args.extend(after.iter().flat_map(|cursor| ["--after", cursor]));
        let page = celeriac(&place, &args).await.exits(0);
        ids.extend(
            Value::parse(page.stdout.as_bytes())
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(|task| text(task, "task_id").to_owned()),
        );
        if page.stderr.is_empty() {
            break;
        }
        after = Some(text(&Value::parse(page.stderr.as_bytes()).unwrap(), "next").to_owned());
    }
    assert_eq!(ids.len(), all, "each task once");
    celeriac(&place, &["task", "list", "-n", "1"]).await.exits(0).warns(&["the next: --after"]);
    celeriac(&place, &["task", "list", "-n", "0"]).await.exits(2).warns(&["from 1 on"]);
    celeriac(&place, &["task", "list", "--after", "x"]).await.exits(2).warns(&["no list of tasks"]);
}

#[tokio::test]
async fn calls_are_checked_before_they_are_sent() {
    let place = store().await;
    for (args, expected) in [
        (vec!["x", "-a", "{}"], "must be a JSON array"),
        (vec!["x", "-a", "[1"], "--args is not JSON"),
        (vec!["x", "-k", "[]"], "must be a JSON object"),
        (vec!["x", "--countdown", "soon"], "such as 500ms"),
        (vec!["x", "--eta", "tomorrow"], "2026-11-21T18:00:00+00:00"),
        (vec!["x", "--priority", "urgent"], "critical, high, normal or low"),
        (vec!["x", "--queue", "celeriac:x"], "valid queue name"),
        (vec!["x", "--eta", "2030-01-01T00:00:00Z", "--countdown", "1s"], "cannot be used with"),
    ] {
        let mut all = vec!["call"];
        all.extend(&args);
        celeriac(&place, &all).await.exits(2).warns(&[expected]);
    }
    assert_eq!(json(&place, 0, &["task", "list"]).await.as_array().unwrap().len(), 0);
    let id =
        call(&place, &["x", "--task-id", "mine", "--priority", "high", "--expires", "5m"]).await;
    assert_eq!(id, "mine");
    let peeked = json(&place, 0, &["queue", "peek", "celery"]).await;
    let first = &peeked.as_array().unwrap()[0];
    assert_eq!(number(first.get("properties").unwrap(), "priority"), 3);
    assert!(first.get("headers").unwrap().get("expires").unwrap().as_str().is_some());
}

#[tokio::test]
async fn what_is_over_is_not_cancelled_or_retried() {
    let place = store().await;
    std::fs::write(place.path("t.csv"), "a,b\n1,2\n").unwrap();
    let done = call(&place, &["demo.inspect", "-a", "[\"t.csv\"]"]).await;
    work(&place).await;
    celeriac(&place, &["task", "cancel", &done]).await.exits(5).says(&["is done already"]);
    celeriac(&place, &["task", "retry", &done]).await.exits(5).warns(&["send it again"]);
    celeriac(&place, &["task", "retry", "nix"]).await.exits(5).warns(&["nothing is known"]);
    let dead = call(&place, &["nobody.knows"]).await;
    work(&place).await;
    celeriac(&place, &["task", "cancel", &dead]).await.exits(5).says(&["is a dead letter already"]);
    celeriac(&place, &["task", "retry", &dead]).await.exits(0).says(&["back in its queue"]);
}
