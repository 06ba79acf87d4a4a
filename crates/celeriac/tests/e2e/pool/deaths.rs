//! Children that die: only their own task is affected, and the third death is the last.

use super::{add, crashes, eats, entered, exits, noted, running, steps, waits};
use crate::kit::{PATIENCE, until};
use crate::running::Running;
use celeriac::JobError;
use celeriac_core::dead::{DeadLetter, DeadReason};
use celeriac_core::store::{DeadFilter, Page};
use rustix::process::{Pid, Signal, kill_process};

async fn letters(here: &Running) -> Vec<DeadLetter> {
    let page = Page { after: 0, count_max: 10 };
    here.client.store().dead_list(&DeadFilter::default(), page).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashing_task_runs_three_times_and_hurts_nobody() {
    // covers: S2-26, S5-06, T-41
    let (place, app) = entered();
    let here = running(&app, 4).await;
    let notes = place.path("notes");
    let bad = here.client.send(crashes::call(notes.clone())).await.unwrap();
    let good = here.client.send_all((0..50).map(|n| add::call(n, 1))).await.unwrap();
    for (n, job) in (0..).zip(good) {
        assert_eq!(job.get(PATIENCE).await.unwrap(), n + 1);
    }
    let JobError::Failed { exception, traceback, .. } = bad.get(PATIENCE).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(noted(&notes, "start").len(), 3, "three runs, no more");
    for part in ["WorkerLostError", "SIGSEGV", "peak memory", "death 3"] {
        assert!(exception.contains(part), "{part} is not in {exception}");
    }
    assert!(traceback.unwrap().contains("the ship is sinking"));
    let letters = letters(&here).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, DeadReason::Poison);
    assert_eq!(letters[0].history.len(), 3);
    for attempt in &letters[0].history {
        assert_eq!(attempt.outcome, "child-lost");
        let detail = &attempt.detail;
        assert!(detail.contains("SIGSEGV") && detail.contains("the ship is sinking"), "{detail}");
    }
    let report = here.stop().await;
    assert_eq!((report.succeeded, report.failed), (50, 1));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_takes_too_much_memory_is_set_aside() {
    // covers: S2-26
    let (place, app) = entered();
    let worker = super::worker(&app, 2).child_memory_max(128 << 20);
    let here = crate::running::start_with(&app, worker).await;
    let notes = place.path("notes");
    let bad = here.client.send(eats::call(notes.clone(), 20, true)).await.unwrap();
    let error = bad.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("memory limit") && error.contains("128.0 MiB"), "{error}");
    assert_eq!(noted(&notes, "start").len(), 3);
    assert_eq!(letters(&here).await[0].reason, DeadReason::Poison);
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_ends_its_process_is_set_aside() {
    let (_place, app) = entered();
    let here = running(&app, 1).await;
    let error = here.client.send(exits::call()).await.unwrap().get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("exit code 3"), "{error}");
    assert_eq!(letters(&here).await[0].history.len(), 3);
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_child_affects_only_its_task() {
    let (place, app) = entered();
    let here = running(&app, 2).await;
    let end = place.path("end");
    let (one, two) = (place.path("one"), place.path("two"));
    let hit = here.client.send(waits::call(one.clone(), end.clone())).await.unwrap();
    let spared = here.client.send(waits::call(two.clone(), end.clone())).await.unwrap();
    let victim = steps(&one, "start", 1).await[0];
    let other = steps(&two, "start", 1).await[0];
    let killed = tokio::time::Instant::now();
    kill_process(Pid::from_raw(victim.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let again = steps(&one, "start", 2).await[1];
    let took = killed.elapsed();
    assert!(took < std::time::Duration::from_secs(1), "replaced after {took:?}");
    let view = until("the second run is known", PATIENCE, async || {
        Some(hit.view().await.unwrap()).filter(|view| view.phase.as_str() == "running")
    })
    .await;
    assert_eq!(view.retries, 0, "it is no retry");
    std::fs::write(&end, "").unwrap();
    assert_eq!(hit.get(PATIENCE).await.unwrap(), again);
    assert_eq!(spared.get(PATIENCE).await.unwrap(), other);
    assert_eq!(noted(&two, "start"), [other], "its neighbour ran once");
    here.stop().await;
}
