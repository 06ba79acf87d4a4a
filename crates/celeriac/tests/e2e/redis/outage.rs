//! A Redis that is stopped, restarted or killed under running tasks.

use super::app;
use crate::kit::{PATIENCE, pass, until};
use crate::running::{Diary, Gate, Running, start_with};
use celeriac::prelude::*;
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use std::sync::Arc;
use std::time::Duration;

/// The lease in CI; with `CELERIAC_OUTAGE` (seconds) it is the default, 8 s, and the outage so long.
const LEASE: Duration = Duration::from_millis(1500);
const TASKS: usize = 100;

/// Notes its run and waits for the gate.
#[task(name = "outage.waits", max_retries = 0)]
async fn waits(diary: State<Arc<Diary>>, gate: State<Arc<Gate>>) -> Result {
    diary.note("start");
    gate.0.acquire().await?.forget();
    Ok(())
}

/// Two workers, and a hundred tasks that run in the first.
struct Scene {
    lease: Duration,
    outage: Duration,
    diary: Arc<Diary>,
    gate: Arc<Gate>,
    workers: [Running; 2],
    jobs: Vec<Job<()>>,
}

impl Scene {
    async fn new(redis: &Redis) -> Self {
        let long = std::env::var_os("CELERIAC_OUTAGE")
            .map(|text| Duration::from_secs(text.to_str().unwrap().parse().unwrap()));
        let lease = if long.is_some() { Duration::from_secs(8) } else { LEASE };
        let outage = long.unwrap_or(LEASE * 4);
        let (diary, gate) = (Arc::new(Diary::default()), Arc::new(Gate::shut()));
        let app = || {
            let app = app(redis).tasks(tasks![waits]);
            app.state(Arc::clone(&diary)).state(Arc::clone(&gate))
        };
        let (one, two) = (app(), app());
        let worker =
            |app: &App, name: &str| app.worker().name(name).concurrency(TASKS).lease_expiry(lease);
        let first = start_with(&one, worker(&one, "one@test")).await;
        let jobs = first.client.send_all((0..TASKS).map(|_| waits::call())).await.unwrap();
        until("all run", PATIENCE, async || (diary.read().len() == TASKS).then_some(())).await;
        let second = start_with(&two, worker(&two, "two@test")).await;
        until("the second is there", PATIENCE, async || {
            (first.client.store().nodes().await.unwrap().len() == 2).then_some(())
        })
        .await;
        Self { lease, outage, diary, gate, workers: [first, second], jobs }
    }

    /// All end, and none has run twice.
    async fn ends_without_a_second_run(self) {
        pass(self.lease * 3).await;
        self.gate.0.add_permits(TASKS / 2);
        for job in &self.jobs {
            job.get(PATIENCE).await.unwrap();
        }
        assert_eq!(self.diary.read().len(), TASKS, "no task ran twice");
        for running in self.workers {
            running.stop().await;
        }
    }
}

/// The server's process stands still, as under a debugger or on a suspended machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_several_leases_costs_no_run() {
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let scene = Scene::new(&redis).await;
    redis.stop();
    pass(scene.outage).await;
    // Half of them end while nobody answers.
    scene.gate.0.add_permits(TASKS / 2);
    pass(scene.lease / 2).await;
    redis.cont();
    scene.ends_without_a_second_run().await;
}

/// The server ends and comes back with its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_several_leases_costs_no_run() {
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let scene = Scene::new(&redis).await;
    redis.shutdown().await;
    pass(scene.outage).await;
    scene.gate.0.add_permits(TASKS / 2);
    pass(scene.lease / 2).await;
    redis.restart().await;
    scene.ends_without_a_second_run().await;
}

/// The server is killed; what it had confirmed is on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_that_it_confirmed() {
    let options = Redis::options().append_only().config("appendfsync always");
    let mut redis = redis_or_skip!(options);
    let scene = Scene::new(&redis).await;
    let more = scene.workers[0].client.send_all((0..TASKS).map(|_| waits::call())).await.unwrap();
    redis.kill9().await;
    pass(scene.lease / 2).await;
    scene.gate.0.add_permits(TASKS / 2);
    redis.restart().await;
    scene.gate.0.add_permits(TASKS / 2 + TASKS);
    for job in scene.jobs.iter().chain(&more) {
        job.get(PATIENCE).await.unwrap();
    }
    assert_eq!(scene.diary.read().len(), 2 * TASKS, "each ran once");
    for running in scene.workers {
        running.stop().await;
    }
}

/// A full server refuses what comes, keeps what it has, and goes on when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_publishers_and_loses_nothing() {
    let redis = redis_or_skip!();
    let scene = Scene::new(&redis).await;
    let client = &scene.workers[0].client;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = client.send(waits::call()).await.unwrap_err();
    assert!(refused.to_string().contains("OOM"), "{refused}");
    scene.gate.0.add_permits(TASKS / 2);
    pass(scene.lease * 3).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    scene.ends_without_a_second_run().await;
}

/// The most connections that a thousand waiters may need (P34).
const CONNECTIONS_MAX: usize = 10;

/// A thousand programs' worth of waiting, in one client; what they wait for ends while the server is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_need_few_connections_and_outlive_an_outage() {
    const WAITERS: usize = 1000;
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let (diary, gate) = (Arc::new(Diary::default()), Arc::new(Gate::shut()));
    let waiting = app(&redis);
    let client = waiting.client().await.unwrap();
    let jobs = client.send_all((0..WAITERS).map(|_| waits::call())).await.unwrap();
    let get = |job: Job<()>| tokio::spawn(async move { job.get(PATIENCE * 2).await });
    let waiters: Vec<_> = jobs.into_iter().map(get).collect();
    until("all of them listen", PATIENCE, async || {
        let channels = redis.cli(&["PUBSUB", "CHANNELS", "celery-task-meta-*"]).await.texts();
        (channels.len() == WAITERS).then_some(())
    })
    .await;
    let connected = redis.cli(&["CLIENT", "LIST"]).await.text().lines().count();
    assert!(connected <= CONNECTIONS_MAX + 1, "{connected}, and one is the question's own");

    let working = app(&redis).tasks(tasks![waits]);
    let working = working.state(Arc::clone(&diary)).state(Arc::clone(&gate));
    let running = start_with(&working, working.worker().concurrency(WAITERS)).await;
    until("all run", PATIENCE, async || (diary.read().len() == WAITERS).then_some(())).await;
    redis.shutdown().await;
    gate.0.add_permits(WAITERS);
    pass(LEASE * 2).await;
    redis.restart().await;
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(diary.read().len(), WAITERS, "no task ran twice");
    running.stop().await;
}
