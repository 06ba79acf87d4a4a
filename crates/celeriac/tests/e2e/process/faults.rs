//! Tasks that panic, stall, or are cancelled: they end, and their worker lives on.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Ran, Worker};
use celeriac::{Call, DurationExt as _, JobError};
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Phase, Replay};
use celeriac_wire::Value;

fn failure(error: JobError) -> String {
    match error {
        JobError::Failed { exception, .. } => exception,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tasks_do_wrong_does_not_hurt_their_worker() {
    // covers: S5-07
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    let mut worker = Worker::start(&place, store, "w1", "8s", &["-c", "4"]).await;
    let panics = client.send(Call::named("ledger.panics")).await.unwrap();
    let soft =
        client.send(Call::named("ledger.until_told").soft_time_limit(200.millis())).await.unwrap();
    let hard = client
        .send(Call::named("ledger.work").arg(&60_000).time_limit(300.millis()))
        .await
        .unwrap();

    let text = failure(panics.get(PATIENCE).await.unwrap_err());
    assert!(text.contains("the ledger is full"), "{text}");
    let text = failure(soft.get(PATIENCE).await.unwrap_err());
    assert!(text.contains("SoftTimeLimitExceeded"), "{text}");
    let text = failure(hard.get(PATIENCE).await.unwrap_err());
    assert!(text.contains("TimeLimitExceeded"), "{text}");
    let lines = kit::ledger(&place);
    let saw = |id: &str, step: &str| lines.iter().any(|line| line.id == id && line.step == step);
    assert!(saw(soft.id(), "told"), "the soft limit is told to the task");
    assert!(!saw(hard.id(), "end"), "the hard limit stops the task");
    for (id, wanted) in [
        (panics.id(), DeadReason::Failed),
        (soft.id(), DeadReason::Failed),
        (hard.id(), DeadReason::TimedOut),
    ] {
        let view = store.task(id).await.unwrap();
        assert!(matches!(view.phase, Phase::Dead { reason, .. } if reason == wanted), "{view:?}");
    }

    let after: Value =
        client.send(Call::named("ledger.work").arg(&0)).await.unwrap().get(PATIENCE).await.unwrap();
    assert_eq!(after, Value::from(worker.pid), "the same process works on");
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_tasks_are_cancelled_by_command() {
    // covers: S2-24
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let _worker = Worker::start(&place, client.store(), "w1", "8s", &["-c", "2"]).await;
    let polite = client.send(Call::named("ledger.until_told")).await.unwrap();
    let deaf = enqueue(&client, 1, 60_000).await.remove(0);
    let waits = client.send(Call::named("ledger.work").arg(&0)).await.unwrap();
    kit::until("both run", PATIENCE, async || (kit::count(&place, "start") == 2).then_some(()))
        .await;
    let ids = [polite.id(), &deaf, waits.id()];
    let mut command = kit::command(&kit::ledger_program(), place.dir());
    command.args(["-b", place.url(), "task", "cancel"]).args(ids);
    Ran::new(&mut command).await.exits(0).says(&["is told to stop", "will not run"]);
    for id in ids {
        let error = client.job::<Value>(id).get(PATIENCE).await.unwrap_err();
        assert!(matches!(error, JobError::Revoked { .. }), "{error}");
    }
    let lines = kit::ledger(&place);
    assert!(lines.iter().any(|line| line.id == polite.id() && line.step == "told"));
    assert!(!lines.iter().any(|line| line.step == "end"), "{lines:?}");
}

/// A task that takes its worker down each time. Its neighbours survive, and after three deaths that
/// are its own it is set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_kills_its_workers_is_set_aside() {
    // covers: S2-26, S5-06, T-41
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    let poison = client.send(Call::named("ledger.aborts")).await.unwrap();
    let innocent = enqueue(&client, 8, 100).await;
    let dead = async || matches!(poison.view().await.unwrap().phase, Phase::Dead { .. });
    let mut workers = 0;
    while !dead().await {
        workers += 1;
        assert!(workers < 10, "the task is never set aside");
        let mut worker =
            Worker::start(&place, store, &format!("w{workers}"), "400ms", &["-c", "4"]).await;
        kit::until("the worker dies, or sets the task aside", PATIENCE, async || {
            (worker.is_over() || dead().await).then_some(())
        })
        .await;
        if !worker.is_over() {
            worker.signal(rustix::process::Signal::TERM);
            assert!(worker.ended().await.success());
        }
    }
    println!("set aside by worker {workers}");
    let runs = kit::ledger(&place).iter().filter(|line| line.id == poison.id()).count();
    assert_eq!(runs, 5, "two deaths make it a suspect, three more are its own");
    let Phase::Dead { reason, number } = poison.view().await.unwrap().phase else { panic!() };
    assert_eq!(reason, DeadReason::Poison);
    let text = failure(poison.get(PATIENCE).await.unwrap_err());
    assert!(text.contains("WorkerLostError") && text.contains("5 workers died"), "{text}");
    let mut last = Worker::start(&place, store, "last", "400ms", &["-c", "4"]).await;
    for id in &innocent {
        let state = client.job::<Value>(id);
        state.get(PATIENCE).await.unwrap();
    }
    last.signal(rustix::process::Signal::TERM);
    assert!(last.ended().await.success());

    let filter = DeadFilter { ids: vec![number.to_string()], ..DeadFilter::default() };
    store.dead_replay(&filter, &Replay::default(), 1).await.unwrap();
    assert_eq!(poison.view().await.unwrap().phase.as_str(), "queued", "it gets another chance");
}
