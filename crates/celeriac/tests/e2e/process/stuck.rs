//! A task that never yields, past its hard limit, in the async pool.

use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac::Call;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::DeadFilter;
use std::time::Duration;

const LIMIT: Duration = Duration::from_millis(300);
/// Limit (0.3 s), patience (1 s), and a margin for a busy machine.
const FENCED_WITHIN: Duration = Duration::from_millis(3300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_never_yields_is_failed_and_its_neighbours_run_again_without_guilt() {
    // covers: S1-30
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    let neighbours: Vec<_> = (0..3).map(|_| Call::named("ledger.work").arg(&2000u64)).collect();
    let neighbours = client.send_all(neighbours).await.unwrap();
    let mut worker = Worker::start(&place, store, "w1", "8s", &["-c", "6"]).await;
    let pid = worker.pid;
    kit::until("the neighbours run", PATIENCE, async || {
        (kit::count(&place, "start") == 3).then_some(())
    })
    .await;
    // As many as the runtime has threads: nothing in it is polled any more.
    let sent = tokio::time::Instant::now();
    let calls: Vec<_> = (0..3).map(|_| Call::named("ledger.spins").time_limit(LIMIT)).collect();
    let spins = client.send_all(calls).await.unwrap();
    for job in &spins[..2] {
        let error = job.get(PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("TimeLimitExceeded(0.3"), "{error}");
    }
    let took = sent.elapsed();
    assert!(took < FENCED_WITHIN, "{took:?}");
    for job in &spins {
        assert!(job.get(PATIENCE).await.is_err());
    }
    for job in &neighbours {
        let ran_in: celeriac_wire::Value = job.get(PATIENCE).await.unwrap();
        assert_eq!(ran_in.as_i64(), Some(i64::from(pid)), "the process has become itself again");
        let view = job.view().await.unwrap();
        assert!(view.history.iter().all(|attempt| attempt.outcome != "worker-lost"), "{view:?}");
    }
    let dead = store.dead_list(&DeadFilter::default(), kit::ALL).await.unwrap();
    let reasons: Vec<_> = dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [DeadReason::TimedOut; 3]);
    assert!(worker.log().contains("did not yield within 1s after its time limit"));
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
}

/// A stopped process yields nothing, and nobody in it is to blame: its limits hold when it goes on, and
/// its neighbours do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stood_still_past_a_limit_does_not_restart() {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = client.store();
    let mut worker = Worker::start(&place, store, "w1", "8s", &["-c", "2"]).await;
    let neighbour = client.send(Call::named("ledger.work").arg(&6000u64)).await.unwrap();
    let limited = Call::named("ledger.work").arg(&60_000u64).time_limit(Duration::from_secs(1));
    let limited = client.send(limited).await.unwrap();
    kit::until("both run", PATIENCE, async || (kit::count(&place, "start") == 2).then_some(()))
        .await;
    worker.signal(rustix::process::Signal::STOP);
    kit::pass(Duration::from_secs(4)).await;
    worker.signal(rustix::process::Signal::CONT);
    let error = limited.get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("TimeLimitExceeded(1"), "{error}");
    let _ran_in: celeriac_wire::Value = neighbour.get(PATIENCE).await.unwrap();
    assert_eq!(kit::count(&place, "start"), 2, "each ran once: {}", worker.log());
    assert!(!worker.log().contains("did not yield"), "{}", worker.log());
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
}
