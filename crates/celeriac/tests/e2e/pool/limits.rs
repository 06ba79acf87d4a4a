//! Limits and cancellations reach every body, and end those that do not listen.

use super::{entered, freezes, is_gone, listens, running, spins, steps, waits, who};
use crate::kit::PATIENCE;
use celeriac::{DurationExt as _, JobError};
use celeriac_core::dead::DeadReason;
use celeriac_core::store::Phase;
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_limit_ends_a_body_that_never_yields_or_stands_still() {
    // covers: S5-07
    let (place, app) = entered();
    let here = running(&app, 2).await;
    let notes = place.path("notes");
    let jobs = [
        here.client.send(spins::call(notes.clone()).time_limit(300.millis())).await.unwrap(),
        here.client.send(freezes::call(notes.clone()).time_limit(300.millis())).await.unwrap(),
    ];
    let pids = steps(&notes, "start", 2).await;
    for job in jobs {
        let error = job.get(PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("TimeLimitExceeded(0.3)"), "{error}");
        let phase = job.view().await.unwrap().phase;
        let timed_out = matches!(phase, Phase::Dead { reason: DeadReason::TimedOut, .. });
        assert!(timed_out, "a limit is no death of the child: {phase:?}");
    }
    for pid in &pids {
        is_gone(*pid).await;
    }
    let (next, ..) = here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap();
    assert!(!pids.contains(&next), "their slots have fresh children");
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_limit_reaches_a_busy_body() {
    let (_place, app) = entered();
    let here = running(&app, 1).await;
    let job = here.client.send(listens::call().soft_time_limit(100.millis())).await.unwrap();
    let error = job.get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("SoftTimeLimitExceeded"), "{error}");
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_busy_body_is_killed() {
    // covers: S2-24
    let (place, app) = entered();
    let here = running(&app, 1).await;
    let notes = place.path("notes");
    let job = here.client.send(spins::call(notes.clone())).await.unwrap();
    let pid = steps(&notes, "start", 1).await[0];
    job.cancel().await.unwrap();
    let error = job.get(PATIENCE).await.unwrap_err();
    assert!(matches!(error, JobError::Revoked { .. }), "{error}");
    is_gone(pid).await;
    assert_eq!(steps(&notes, "start", 1).await.len(), 1, "it ran once");
    here.stop().await;
}

/// An idle child that is stopped takes no task: it is replaced, and the task runs elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_does_not_take_its_task_is_replaced_without_blame() {
    let (_place, app) = entered();
    let here = running(&app, 1).await;
    let (deaf, ..) = here.client.send(who::call()).await.unwrap().get(PATIENCE).await.unwrap();
    kill_process(Pid::from_raw(deaf.cast_signed()).unwrap(), Signal::STOP).unwrap();
    let job = here.client.send(waits::call("/dev/null".into(), "/dev/null".into())).await.unwrap();
    assert_ne!(job.get(PATIENCE).await.unwrap(), deaf);
    is_gone(deaf).await;
    let report = here.stop().await;
    assert_eq!((report.succeeded, report.failed), (2, 0));
}

/// A stopped child is replaced, and its task is not to blame: it runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_stands_still_is_replaced_without_blame() {
    let (place, app) = entered();
    let here = running(&app, 1).await;
    let notes = place.path("notes");
    let job = here.client.send(freezes::call(notes.clone())).await.unwrap();
    let pids = steps(&notes, "start", 2).await;
    assert_ne!(pids[0], pids[1]);
    job.cancel().await.unwrap();
    assert!(matches!(job.get(PATIENCE).await.unwrap_err(), JobError::Revoked { .. }));
    here.stop().await;
}
