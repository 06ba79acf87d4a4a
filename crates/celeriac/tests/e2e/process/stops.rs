//! TERM, a second TERM and QUIT: what runs may finish, the rest goes back, each exactly once.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac_core::QueueName;
use celeriac_core::store::{Page, Store};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// What the end of a worker may take on top of its grace period.
const LEAVE: Duration = Duration::from_millis(500);

async fn store(place: &Place) -> Arc<dyn Store> {
    place.app().store().await.unwrap()
}

/// The ids that wait in the default queue, sorted; a double stays in the list.
async fn waiting(store: &dyn Store) -> Vec<String> {
    let page = Page { after: 0, count_max: 1000 };
    let stored = store.peek(&QueueName::parse("celery").unwrap(), page).await.unwrap();
    let id =
        |one: &celeriac_core::store::Stored| one.outgoing.message.headers.id().unwrap().to_owned();
    let mut ids: Vec<String> = stored.iter().map(id).collect();
    ids.sort();
    ids
}

async fn running(place: &Place, count: usize) {
    kit::until("the tasks run", PATIENCE, async || {
        (kit::count(place, "start") == count).then_some(())
    })
    .await;
}

/// Every way of running tasks stops in the same way.
const POOLS: [&str; 2] = ["async", "process"];

/// Long tasks meet a TERM: the worker leaves at the end of its grace, and they are back.
async fn long_tasks_go_back(pool: &str, grace: Duration) {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = store(&place).await;
    let mut ids = enqueue(&client, 10, 60_000).await;
    ids.sort();
    let flag = format!("{}s", grace.as_secs());
    let mut worker =
        Worker::start(&place, &store, "w1", "8s", &["-P", pool, "-c", "4", "--grace", &flag]).await;
    running(&place, 4).await;
    let asked = Instant::now();
    worker.signal(Signal::TERM);
    let status = worker.ended().await;
    let took = asked.elapsed();
    println!("{pool}, grace {grace:?}: ended after {took:?}");
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    assert!(took >= grace && took <= grace + LEAVE, "{took:?}");
    assert_eq!(waiting(&*store).await, ids, "each is in the queue exactly once");
    let queue = store.queues().await.unwrap().remove(0);
    assert_eq!((queue.ready, queue.scheduled, queue.leased, queue.dead), (10, 0, 0, 0));
    for id in &ids {
        let view = store.task(id).await.unwrap();
        assert_eq!(
            (view.phase.as_str(), view.retries),
            ("queued", 0),
            "the attempt is not used up"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_tasks_go_back_at_the_end_of_the_grace() {
    // covers: S3-06
    for pool in POOLS {
        long_tasks_go_back(pool, 2 * SECOND).await;
        if std::env::var_os("CELERIAC_SLOW").is_some() {
            long_tasks_go_back(pool, 10 * SECOND).await;
        }
    }
}

/// Sends what `stop` sends to a worker with a grace of a minute and returns how long it took.
async fn interrupted(pool: &str, stop: impl AsyncFnOnce(&Worker)) -> Duration {
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = store(&place).await;
    let mut ids = enqueue(&client, 6, 60_000).await;
    ids.sort();
    let mut worker =
        Worker::start(&place, &store, "w1", "8s", &["-P", pool, "-c", "4", "--grace", "60s"]).await;
    running(&place, 4).await;
    stop(&worker).await;
    let asked = Instant::now();
    assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());
    assert_eq!(waiting(&*store).await, ids);
    asked.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_term_a_second_int_and_a_quit_interrupt_at_once() {
    let twice = |signal| {
        async move |worker: &Worker| {
            worker.signal(signal);
            let log = async || worker.log().contains("no new tasks").then_some(());
            kit::until("the first signal is heard", PATIENCE, log).await;
            worker.signal(signal);
        }
    };
    for pool in POOLS {
        let term = interrupted(pool, twice(Signal::TERM)).await;
        let int = interrupted(pool, twice(Signal::INT)).await;
        let quit = interrupted(pool, async |worker| worker.signal(Signal::QUIT)).await;
        println!("{pool}: second TERM {term:?}, second INT {int:?}, QUIT {quit:?}");
        assert!(term < SECOND && int < SECOND && quit < SECOND);
    }
}

/// What a deploy does that does not wait: TERM, and KILL before the grace is over. The tasks come back
/// by their lease, which the store already knows to be the end of this worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_within_the_grace_loses_nothing() {
    for pool in POOLS {
        let place = Place::shared();
        let client = place.app().client().await.unwrap();
        let store = store(&place).await;
        let ids = enqueue(&client, 6, 800).await;
        let args = ["-P", pool, "-c", "3", "--grace", "60s"];
        let mut worker = Worker::start(&place, &store, "w1", "1s", &args).await;
        running(&place, 3).await;
        worker.signal(Signal::TERM);
        let log = async || worker.log().contains("no new tasks").then_some(());
        kit::until("the TERM is heard", PATIENCE, log).await;
        worker.kill().await;
        let mut second = Worker::start(&place, &store, "w2", "1s", &args).await;
        for id in &ids {
            let ready = store.wait_result(id, PATIENCE).await.unwrap();
            assert!(ready.is_some_and(|record| record.meta.state().is_ready()), "{id} is lost");
        }
        second.signal(Signal::TERM);
        assert!(second.ended().await.success());
        assert_eq!(kit::count(&place, "start"), 6 + 3, "{pool}: what the kill hit ran twice");
        assert_eq!(kit::count(&place, "end"), 6);
    }
}

/// P10: TERM at random moments. `CELERIAC_TERMS=100 CELERIAC_GRACE=10` is the run of the promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_at_any_moment_puts_every_unfinished_task_back_in_its_place() {
    let number = |name: &str, default: u64| {
        std::env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
    };
    let (terms, grace) = (number("CELERIAC_TERMS", 6), number("CELERIAC_GRACE", 1));
    let seed = number("CELERIAC_SEED", fastrand::u64(..1 << 32));
    println!("{terms} TERMs, grace {grace} s, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = store(&place).await;
    let long = enqueue(&client, 6, 60_000).await;
    let mut longest = Duration::ZERO;
    for number in 0..terms {
        let pool = POOLS[number as usize % 2];
        let grace_flag = format!("{grace}s");
        let args = ["-P", pool, "-c", "4", "--grace", &grace_flag];
        let mut worker = Worker::start(&place, &store, &format!("w{number}"), "8s", &args).await;
        let listens = async || worker.log().contains("ready.").then_some(());
        kit::until("the worker listens", PATIENCE, listens).await;
        kit::pass(Duration::from_millis(random.u64(..300))).await;
        let asked = Instant::now();
        worker.signal(Signal::TERM);
        assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());
        longest = longest.max(asked.elapsed());
        let page = Page { after: 0, count_max: 100 };
        let stored = store.peek(&QueueName::parse("celery").unwrap(), page).await.unwrap();
        let ids: Vec<&str> =
            stored.iter().map(|one| one.outgoing.message.headers.id().unwrap()).collect();
        assert_eq!(ids, long, "round {number}: each once, in the old order");
    }
    println!("the longest end took {longest:?}");
    assert!(longest <= Duration::from_secs(grace) + LEAVE, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_tasks_finish_after_a_term() {
    // covers: S3-06
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = store(&place).await;
    let ids = enqueue(&client, 8, 600).await;
    let mut worker =
        Worker::start(&place, &store, "w1", "8s", &["-c", "4", "--grace", "30s"]).await;
    running(&place, 4).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.code(), Some(0));
    assert_eq!((kit::count(&place, "start"), kit::count(&place, "end")), (4, 4));
    let mut left = ids[4..].to_vec();
    left.sort();
    assert_eq!(waiting(&*store).await, left, "what had not begun is still there");
    for id in &ids[..4] {
        assert_eq!(store.task(id).await.unwrap().phase.as_str(), "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_leaves_at_once() {
    let place = Place::shared();
    let store = store(&place).await;
    let mut worker = Worker::start(&place, &store, "w1", "8s", &[]).await;
    let listens = async || worker.log().contains("ready.").then_some(());
    kit::until("the worker is ready", PATIENCE, listens).await;
    let asked = Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.code(), Some(0));
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    assert!(store.nodes().await.unwrap().iter().all(|node| !node.alive));
}
