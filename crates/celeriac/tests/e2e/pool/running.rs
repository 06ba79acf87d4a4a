//! What tasks can do in a child: everything that they can do elsewhere.

use super::{add, entered, entered_with, noted, panics, running, sends, steps, waits, who};
use crate::kit::{PATIENCE, until};
use celeriac::hooks::{TaskFailure, TaskPrerun};
use celeriac::{JobError, TaskError};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_runs_tasks_and_makes_its_state_once() {
    let (_place, app) = entered();
    let here = running(&app, 2).await;
    let sum = here.client.send(add::call(2, 3)).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 5);
    let jobs = here.client.send_all((0..40).map(|_| who::call())).await.unwrap();
    let mut pids = BTreeSet::new();
    for job in jobs {
        let (pid, maker, times) = job.get(PATIENCE).await.unwrap();
        assert_eq!((maker, times), (pid, 1), "the state is made once, where the task runs");
        assert_ne!(pid, std::process::id());
        pids.insert(pid);
    }
    assert!(pids.len() <= 2, "{pids:?}");
    assert_eq!(super::MADE.load(std::sync::atomic::Ordering::Relaxed), 0, "the worker makes none");
    let nodes = here.client.store().nodes().await.unwrap();
    assert_eq!(nodes[0].info.pool, "process");
    let report = here.stop().await;
    assert_eq!((report.succeeded, report.failed, report.returned), (41, 0, 0));
    for pid in pids {
        assert!(!super::lives(pid), "a stopped worker leaves no child behind");
    }
}

/// What is asked before a run is asked in the child; what is told of its end is told in the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_act_where_the_task_runs() {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&heard);
    let (_place, app) = entered_with(move |app| {
        let noted = std::sync::Arc::clone(&noted);
        app.intercept(|run: TaskPrerun| async move {
            match run.task.header("hold") {
                Some(_) => Err(TaskError::fail(format!("held up in {}", std::process::id()))),
                None => Ok(()),
            }
        })
        .on(move |failure: TaskFailure| {
            noted.lock().unwrap().push(failure.error);
            std::future::ready(())
        })
    });
    let here = running(&app, 1).await;
    let (pid, ..) = here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap();
    let held = here.client.send(who::call().header("hold", "up")).await.unwrap();
    let JobError::Failed { exception, .. } = held.get(PATIENCE).await.unwrap_err() else {
        panic!()
    };
    assert!(exception.contains(&format!("held up in {pid}")), "{exception}");
    here.stop().await;
    assert_eq!(*heard.lock().unwrap(), [exception]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_reports_progress_and_sends_tasks() {
    let (place, app) = entered();
    let here = running(&app, 2).await;
    let (notes, end) = (place.path("notes"), place.path("end"));
    let job = here.client.send(waits::call(notes.clone(), end.clone())).await.unwrap();
    let progress =
        until("progress is seen", PATIENCE, async || job.progress().await.unwrap()).await;
    assert_eq!((progress.current, progress.total, progress.message.as_str()), (1, 2, "half"));
    let sender = here.client.send(sends::call()).await.unwrap();
    let id = sender.get(PATIENCE).await.unwrap();
    let record = sender.record().await.unwrap().unwrap();
    assert_eq!(record.meta.children().unwrap().len(), 1);
    assert!(record.meta.children().unwrap()[0].to_string().contains(&*id), "{record:?}");
    assert_eq!(here.client.job::<i64>(&id).get(PATIENCE).await.unwrap(), 42);
    let record = here.client.job::<i64>(&id).record().await.unwrap().unwrap();
    assert_eq!(record.meta.task_id(), Some(id.as_str()));
    std::fs::write(&end, "").unwrap();
    assert_eq!(vec![job.get(PATIENCE).await.unwrap()], noted(&notes, "start"));
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_a_failure_with_its_place_and_the_child_lives_on() {
    let (_place, app) = entered();
    let here = running(&app, 1).await;
    let (before, ..) = here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap();
    let job = here.client.send(panics::call()).await.unwrap();
    let JobError::Failed { exception, traceback, .. } = job.get(PATIENCE).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(exception, "TaskPanicked('a bug')");
    let traceback = traceback.unwrap();
    assert!(traceback.contains("pool.rs:") && traceback.contains("a bug"), "{traceback}");
    let (after, ..) = here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap();
    assert_eq!(before, after);
    here.stop().await;
}

/// The end of the grace period interrupts: messages go back, children are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_do_not_end_in_time_go_back() {
    let (place, app) = entered();
    let worker = super::worker(&app, 2).grace(std::time::Duration::from_millis(100));
    let here = crate::running::start_with(&app, worker).await;
    let notes = place.path("notes");
    let polite = here.client.send(waits::call(notes.clone(), place.path("never"))).await.unwrap();
    let deaf = here.client.send(super::spins::call(notes.clone())).await.unwrap();
    let pids = steps(&notes, "start", 2).await;
    let client = here.client.clone();
    let report = here.stop().await;
    assert_eq!(report.returned, 2, "{report:?}");
    for job in [polite.id(), deaf.id()] {
        assert_eq!(client.store().task(job).await.unwrap().phase.as_str(), "queued");
    }
    for pid in pids {
        super::is_gone(pid).await;
    }
}
