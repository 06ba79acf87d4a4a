//! Hooks hear of everything once, in order, and decide before calls and runs.

use super::each;
use crate::kit::{PATIENCE, Place};
use crate::running::{
    Diary, Shared, add, application, fails, flaky, header, rejects, start, waits,
};
use celeriac::hooks::{
    AfterTaskPublish, BeforeTaskPublish, TaskFailure, TaskPostrun, TaskPrerun, TaskReceived,
    TaskRejected, TaskRetry, TaskRevoked, TaskSnoozed, TaskSuccess, TaskUnknown, WorkerReady,
    WorkerShutdown, WorkerShuttingDown,
};
use celeriac::prelude::*;
use celeriac::{JobError, SendError, UnknownTasks};
use celeriac_wire::Value;
use tokio::sync::Semaphore;

/// Notes every signal in a word or two.
fn noting(app: App, notes: &Shared<Diary>) -> App {
    macro_rules! note {
        ($app:expr, $signal:ident, |$one:ident| $text:expr) => {{
            let notes = Shared::clone(notes);
            $app.on(move |$one: $signal| {
                notes.note($text);
                std::future::ready(())
            })
        }};
    }
    let app = note!(app, BeforeTaskPublish, |one| format!("before publish {}", one.task.name()));
    let app = note!(app, AfterTaskPublish, |one| format!("after publish {}", one.task.queue()));
    let app = note!(app, TaskReceived, |one| format!("received {}", one.task.attempt()));
    let app = note!(app, TaskPrerun, |one| {
        let (arguments, _named) = one.task.arguments().unwrap();
        format!("prerun {}", celeriac_wire::value_repr(&Value::from(arguments)))
    });
    let app = note!(app, TaskPostrun, |one| format!("postrun {}", one.succeeded));
    let app = note!(app, TaskSuccess, |one| format!("success {}", one.result));
    let app = note!(app, TaskFailure, |one| format!("failure {}", one.error));
    let app = note!(app, TaskRetry, |one| format!("retry {}", one.error));
    let app = note!(app, TaskSnoozed, |one| format!("snoozed {}", one.task.id().len() == 36));
    let app = note!(app, TaskRevoked, |one| format!("revoked {}", one.expired));
    let app = note!(app, TaskRejected, |one| format!("rejected {}", one.requeue));
    let app = note!(app, TaskUnknown, |one| format!("unknown {}", one.task.name()));
    let app = note!(app, WorkerReady, |_one| "ready");
    let app = note!(app, WorkerShuttingDown, |_one| "shutting down");
    note!(app, WorkerShutdown, |_one| "shutdown")
}

/// What one slot and one call at a time leave no choice about.
async fn notes_of(work: impl AsyncFn(&Client, &Diary)) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for place in Place::every() {
        let notes = Shared::new(Diary::default());
        let app = noting(application(place.app()).app, &notes);
        let worker = app.worker().concurrency(1).unknown_tasks(UnknownTasks::DeadLetter);
        let running = crate::running::start_with(&app, worker).await;
        work(&running.client, &notes).await;
        running.stop().await;
        all.push(notes.read());
    }
    all
}

#[tokio::test]
async fn a_success_is_told_step_by_step() {
    let told = notes_of(async |client, notes| {
        client.send(add::call(2, 3)).await.unwrap().get(PATIENCE).await.unwrap();
        // The client has the result before the worker tells of it.
        notes.until("success").await;
    });
    for mut notes in told.await {
        // The client tells beside the worker.
        let (mut sent, mut ran) = (Vec::new(), Vec::new());
        for note in notes.drain(..) {
            if note.contains("publish") { sent.push(note) } else { ran.push(note) }
        }
        assert_eq!(sent, ["before publish t.add", "after publish celery"]);
        // What runs tells at once, what the worker tells follows its writes.
        let (body, worker): (Vec<_>, Vec<_>) =
            ran.into_iter().partition(|note| note.contains("run"));
        assert_eq!(body, ["prerun [2, 3]", "postrun true"]);
        assert_eq!(worker, ["ready", "received 1", "success 5", "shutting down", "shutdown"]);
    }
}

#[tokio::test]
async fn every_other_end_has_its_signal() {
    let told = notes_of(async |client, _notes| {
        let failed = client.send(fails::call("no rows")).await.unwrap();
        assert!(failed.get(PATIENCE).await.is_err());
        client.send(flaky::call(1)).await.unwrap().get(PATIENCE).await.unwrap();
        client.send(waits::call(1)).await.unwrap().get(PATIENCE).await.unwrap();
        client.send(rejects::call(true)).await.unwrap().get(PATIENCE).await.unwrap();
        let late = client.send(add::call(1, 1).expires_in(0.secs())).await.unwrap();
        assert!(matches!(late.get(PATIENCE).await, Err(JobError::Revoked { .. })));
        let unknown = client.send(Call::named("t.nobody")).await.unwrap();
        assert!(unknown.get(PATIENCE).await.is_err());
    });
    for notes in told.await {
        let ends = ["failure", "retry", "snoozed", "success", "rejected", "revoked", "unknown"];
        let ends = |note: &&String| ends.iter().any(|end| note.starts_with(end));
        let notes: Vec<&String> = notes.iter().filter(ends).collect();
        assert_eq!(
            notes,
            [
                "failure TaskFailed('no rows')",
                "retry TaskFailed('not yet')",
                "success 2",
                "snoozed true",
                "success [1, 1]",
                "rejected true",
                "success 'at last'",
                "revoked true",
                "unknown t.nobody",
                "failure NotRegistered('t.nobody')",
            ]
        );
    }
}

#[tokio::test]
async fn what_is_sent_can_be_changed_and_refused() {
    for place in Place::every() {
        let app = application(place.app()).app;
        let app = app.intercept(|call: BeforeTaskPublish| async move {
            if call.task.name() == "t.fails" {
                return Err(TaskError::fail("it never works"));
            }
            Ok(call.with_header("tenant", "acme"))
        });
        let running = start(&app).await;
        let client = &running.client;
        let seen = client.send(header::call("tenant")).await.unwrap().get(PATIENCE).await.unwrap();
        assert_eq!(seen, Value::from("acme"));
        match client.send(fails::call("x")).await {
            Err(SendError::Invalid(text)) => assert_eq!(text, "it never works"),
            other => panic!("{other:?}"),
        }
        running.stop().await;
    }
}

/// The same errors mean the same as in the body, which does not run.
#[tokio::test]
async fn a_run_can_be_held_up() {
    for place in Place::every() {
        let app = application(place.app()).app;
        let app = app.intercept(|run: TaskPrerun| async move {
            match (run.task.header("hold"), run.task.attempt()) {
                (Some("fail"), _) => Err(TaskError::fail("closed")),
                (Some("once"), 1) => Err(TaskError::retry_in(1.millis(), "not now")),
                (Some("skip"), _) => Err(TaskError::ignore()),
                _ => Ok(()),
            }
        });
        let running = start(&app).await;
        let client = &running.client;
        let held = |how: &str| client.send(add::call(1, 2).header("hold", how));
        let failed = held("fail").await.unwrap().get(PATIENCE).await.unwrap_err();
        assert!(failed.to_string().contains("closed"), "{failed}");
        let once = held("once").await.unwrap();
        assert_eq!(once.get(PATIENCE).await.unwrap(), 3);
        assert_eq!(once.record().await.unwrap().unwrap().retries, 1);
        let skipped = held("skip").await.unwrap();
        assert_eq!(client.send(add::call(1, 2)).await.unwrap().get(PATIENCE).await.unwrap(), 3);
        running.stop().await;
        assert!(skipped.record().await.unwrap().is_none(), "nothing is stored of it");
    }
}

/// One that panics and one that hangs do not keep others from hearing, nor the worker from working.
#[tokio::test]
async fn a_bad_hook_harms_nobody() {
    let place = Place::memory();
    let notes = Shared::new(Diary::default());
    let heard = Shared::clone(&notes);
    let gate = Shared::new(Semaphore::new(0));
    let shut = Shared::clone(&gate);
    let app = application(place.app()).app;
    let app = app
        .on(|one: TaskSuccess| async move { assert_ne!(one.result, "5", "a hook that panics") })
        .on(move |_: TaskSuccess| {
            let shut = Shared::clone(&shut);
            async move { shut.acquire().await.unwrap().forget() }
        })
        .on(move |one: TaskSuccess| {
            heard.note(one.result);
            std::future::ready(())
        });
    let running = start(&app).await;
    for (x, sum) in [(2, 5), (3, 6)] {
        let job = running.client.send(add::call(x, 3)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), sum, "no task waits for a hook");
    }
    assert!(notes.read().is_empty());
    gate.add_permits(2);
    running.stop().await;
    assert_eq!(notes.read(), ["5", "6"], "all of it is told before the worker ends");
}

#[tokio::test]
async fn what_a_task_sends_passes_the_hooks_too() {
    each(async |client, _| {
        let job = client.send(crate::running::parent::call()).await.unwrap();
        let child: Job<Value> = client.job(&job.get(PATIENCE).await.unwrap());
        child.get(PATIENCE).await.unwrap();
    })
    .await;
    let app = application(Place::memory().app()).app;
    let refusing = app.intercept(|call: BeforeTaskPublish| async move {
        if call.task.name() == "t.lineage" { Err(TaskError::fail("no children")) } else { Ok(call) }
    });
    let running = start(&refusing).await;
    let job = running.client.send(crate::running::parent::call().max_retries(0)).await.unwrap();
    let error = job.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("no children"), "{error}");
    running.stop().await;
}
