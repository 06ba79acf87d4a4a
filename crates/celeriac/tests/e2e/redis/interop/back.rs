//! The way back to Celery, and what a dead worker of Celery leaves: in brief, with each version.

use super::Lane;
use crate::kit::{PATIENCE, until};
use crate::running::{application, start_with};
use celeriac::prelude::*;
use celeriac_core::QueueName;
use celeriac_wire::Value;

lanes!(celery_drains_what_is_released, a_native_worker_runs_what_a_dead_one_held);

async fn celery_drains_what_is_released(lane: Lane) {
    // interop: queue.release
    let celery = lane.celery("@app.task(name='t.steps')\ndef steps(): return 'stock'\n");
    let test = application(lane.ours(""));
    let worker = test.app.worker().concurrency(1).grace(0.secs());
    let running = start_with(&test.app, worker).await;
    let client = test.app.client().await.unwrap();
    let steps = || Call::named("t.steps");
    let first = client.send(steps()).await.unwrap();
    until("it runs", PATIENCE, async || {
        (first.state().await.unwrap().as_str() == "PROGRESS").then_some(())
    })
    .await;
    let waiting = client.send(steps()).await.unwrap();
    let scheduled = client.send(steps().countdown(1.secs())).await.unwrap();
    // What runs goes back when the worker stops, what waits for its time when it is released.
    running.stop().await;
    let released = client.store().release(&QueueName::celery(), 100).await.unwrap();
    assert_eq!(released.scheduled, 1);
    assert_eq!(lane.redis.cli(&["LLEN", "celery"]).await.int(), 3);
    let mut stock = lane.stock(&celery, &[]).await;
    for job in [first, waiting, scheduled] {
        assert_eq!(job.get(PATIENCE).await.unwrap(), Value::from("stock"));
    }
    assert!(stock.terminate().await.success());
    assert_eq!(lane.redis.cli(&["EXISTS", "celery", "unacked"]).await.int(), 0);
}

async fn a_native_worker_runs_what_a_dead_one_held(lane: Lane) {
    // interop: queue.unacked
    let celery = lane.celery(
        "app.conf.task_acks_late = True\n@app.task(name='t.add')\ndef add(x, y): redis.blpop('never')\n",
    );
    let mut stock = celery
        .worker("stock", &["-c", "1", "--prefetch-multiplier", "4", "--without-mingle"])
        .await;
    let client = lane.ours("").client().await.unwrap();
    let jobs = client.send_all((0..4).map(|n| crate::running::add::call(n, n))).await.unwrap();
    until("the stock worker holds them", PATIENCE, async || {
        (lane.redis.cli(&["HLEN", "unacked"]).await.int() == 4).then_some(())
    })
    .await;
    stock.kill9().await;
    until("their time is over", PATIENCE, async || {
        let now: i64 = lane.redis.cli(&["TIME"]).await.texts()[0].parse().unwrap();
        let overdue = (now - 1).to_string();
        let count = lane.redis.cli(&["ZCOUNT", "unacked_index", "-inf", &overdue]).await.int();
        (count == 4).then_some(())
    })
    .await;
    let url = format!("{}?visibility_timeout=1", lane.redis.url());
    let test = application(celeriac::App::at(&url).unwrap());
    let worker = test.app.worker().concurrency(2).lease_expiry(1.secs());
    let running = start_with(&test.app, worker).await;
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(job.get(PATIENCE).await.unwrap(), 2 * n as i64);
    }
    assert_eq!(lane.redis.cli(&["EXISTS", "unacked", "unacked_index"]).await.int(), 0);
    running.stop().await;
}
