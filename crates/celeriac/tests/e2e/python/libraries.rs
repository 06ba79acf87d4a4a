//! Libraries that people use with Celery, each under `celery worker` and under celeriac: the same app and the
//! same script print the same. The apps are in `interop/libraries`.

use crate::kit::{Ran, command};
use celeriac_testkit::services::python::{App, CeleryWorker, Python};
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{libraries_or_skip, redis_or_skip};
use std::fs;
use std::path::{Path, PathBuf};

const PROGRAM: &str = env!("CARGO_BIN_EXE_celeriac");

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/libraries")
}

/// Puts a folder's files and folders into another.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&there).unwrap();
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// An app of `interop/libraries` in a folder of its own.
fn app(python: &Python, name: &str, environment: &[(&str, &str)]) -> App {
    let app = python.app("", environment);
    fs::remove_file(app.folder().join("proj.py")).unwrap();
    fs::copy(apps().join("kit.py"), app.folder().join("kit.py")).unwrap();
    copy(&apps().join(name), app.folder());
    app
}

/// Runs a script of the app, if it has it.
async fn script(app: &App, name: &str) -> String {
    let path = app.folder().join(name);
    match fs::read_to_string(&path) {
        Ok(source) => app.script(&source).await,
        Err(_) => String::new(),
    }
}

/// What an app's scripts print beside a worker and after it has ended; and the worker's log.
async fn play(app: &App, mut worker: CeleryWorker) -> (String, String) {
    let beside = script(app, "calls.py").await;
    let status = worker.terminate().await;
    assert!(status.success(), "{} ended with {status}:\n{}", worker.node, worker.log());
    (beside + &script(app, "after.py").await, worker.log())
}

/// What sentry is told of a run that succeeds, in the trace of whoever has sent the task, and of an error.
const SENTRY: [&str; 3] = [
    "['transaction', 'adds', None, None, ['queue.task.celery', 'ok', True], [], {'status': 'ok', 'of the",
    "['transaction', 'again', None, None, ['queue.task.celery', 'aborted', True]",
    "['event', 'fails', None, None, ['queue.task.celery', 'internal_error', True], [('ValueError'",
];

/// The spans of a sender and of a task, the one within the other.
const SPANS: [&str; 4] = [
    "1 trace\n",
    "['apply_async/adds', 'SpanKind.PRODUCER', 'the script'",
    "['of the task', 'SpanKind.INTERNAL', 'run/adds'",
    "['run/fails', 'SpanKind.CONSUMER', 'apply_async/fails', {'status_code': 'ERROR'",
];

/// The app prints the same with both kinds of worker, and the lines are among it.
async fn same(name: &str, pool: &str, arguments: &[&str], lines: &[&str]) {
    let (one, other) = (redis_or_skip!(), redis_or_skip!());
    let python = libraries_or_skip!("5.7");
    let of = |redis: &Redis| app(&python, name, &[("URL", &redis.url()), ("POOL", pool)]);
    let (one, other) = (of(&one), of(&other));
    let arguments = [&["-P", pool], arguments].concat();
    let stock = async {
        script(&one, "before.py").await;
        play(&one, one.worker("one", &arguments).await).await
    };
    let ours = async {
        script(&other, "before.py").await;
        play(&other, other.worker_of(Path::new(PROGRAM), "one", &arguments).await).await
    };
    let ((expected, stock_log), (said, log)) = tokio::join!(stock, ours);
    assert_eq!(said, expected, "the log of Celery's:\n{stock_log}\nours:\n{log}");
    for line in lines {
        assert!(said.contains(line), "without {line:?}:\n{said}\nits log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_keeps_results_and_schedules() {
    let lines = [
        // The row was there; the connection is of this process and of this run.
        "and each time ('returned', ['milk', False, True, True])",
        "a chord ('returned', 12)",
        "states ('returned', ['STARTED', 'HALF'])",
        "orders ['bread', 'milk']",
        "chords that wait 0",
        r#"'orders.tasks.hangs', 'FAILURE', '"()"', '"{}"', '{"exc_type": "TimeLimitExceeded""#,
        "'application/json', 'utf-8', 'the clock', True",
    ];
    same("django", "prefork", &["-c", "2"], &lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentry_is_told_of_errors_and_tasks_before_a_child_ends() {
    // Celery's main process told of it; here it is the steward.
    let lines =
        [&SENTRY[..], &["'celery.worker.request', 'Hard time limit (%ss) exceeded"]].concat();
    same("sentry", "prefork", &["-c", "1", "--max-tasks-per-child", "5"], &lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentry_is_told_by_threads() {
    same("sentry", "threads", &["-c", "2"], &SENTRY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_sender_and_task_are_one_trace() {
    same("opentelemetry", "prefork", &["-c", "2"], &SPANS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_threads_are_one_trace() {
    same("opentelemetry", "threads", &["-c", "2"], &SPANS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_flask_and_aborted_tasks() {
    let lines = [
        "waiting True\nrunning True\n('returned', 'passes')\nafterwards False\n",
        "running True\n('ValueError', 'fails')\nafterwards False\n",
        "once, running: already queued REJECTED\n",
        "locks after a hard limit: None []\n",
        "aborted ('returned', True)",
        "Flask ('returned', 'corner shop') ('ValueError', 'nothing')\n\
         its contexts ended ['milk None', \"nothing ValueError('nothing')\"]\n",
    ];
    same("everyday", "prefork", &["-c", "3"], &lines).await;
}

/// Only Celery's own worker collects their messages; ours takes the other tasks of the app beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_refused_by_name_or_left_to_celery() {
    let redis = redis_or_skip!();
    let python = libraries_or_skip!("5.6");
    let app = app(&python, "batches", &[("URL", &redis.url())]);
    let mut alone = command(Path::new(PROGRAM), app.folder());
    alone.env("URL", redis.url()).args(["-A", "proj", "worker", "--python"]).arg(python.program());
    Ran::new(&mut alone).await.exits(3).warns(&[
        "error: task counts is one of celery-batches",
        "hint: give it a queue of its own with task_routes, have `celery worker -Q` consume that one",
    ]);
    let ours = app.worker_of(Path::new(PROGRAM), "ours", &["-c", "1", "-Q", "celery"]).await;
    ours.logs("task counts is left to Celery's own worker").await;
    let stock = app.worker("stock", &["-c", "1", "-Q", "many"]).await;
    let said = script(&app, "calls.py").await;
    assert_eq!(said, "10 ours@test\n", "its log:\n{}\nCelery's:\n{}", ours.log(), stock.log());
}
