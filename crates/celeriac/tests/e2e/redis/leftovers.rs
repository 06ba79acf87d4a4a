//! What stock workers left in `unacked` when they died.

use super::app;
use crate::kit::{PATIENCE, until};
use crate::running::{Diary, start_with};
use celeriac::prelude::*;
use celeriac_core::store::DeadFilter;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::sync::Arc;

#[task(name = "left.note", max_retries = 0)]
async fn note(diary: State<Arc<Diary>>, n: u64) -> Result {
    diary.note(n.to_string());
    Ok(())
}

/// Registers messages as kombu does when a worker takes them, and dies (wire specification 2.7).
async fn leave(redis: &Redis, count: usize, exchange: &str, routing_key: &str) {
    let mut connection = redis.connect().await;
    for n in 0..count {
        let envelope = format!(
            r#"{{"body": "W1s{}XSwge30sIHt9XQ==", "content-encoding": "utf-8",
                "content-type": "application/json", "headers": {{"lang": "py", "task": "left.note",
                "id": "{exchange}-{n}", "retries": 0, "big": 123456789012345678901234567890}},
                "properties": {{"delivery_tag": "tag-{exchange}-{n}", "body_encoding": "base64",
                "priority": 0, "delivery_info": {{"exchange": "{exchange}",
                "routing_key": "{routing_key}"}}}}}}"#,
            ["x", "y", "z", "0"][n % 4],
        );
        let held = format!(r#"[{envelope}, "{exchange}", "{routing_key}"]"#);
        let tag = format!("tag-{exchange}-{n}");
        connection.call(&["ZADD", "unacked_index", "1000", &tag]).await.unwrap();
        connection.call(&["HSET", "unacked", &tag, &held]).await.unwrap();
    }
}

/// Direct, default and topic exchanges: kombu 5.7 loses those of the last (2.14, L3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_goes_back_to_its_queues() {
    let redis = redis_or_skip!();
    redis.cli(&["SADD", "_kombu.binding.tx", "a.#\u{6}\u{16}^a\\..*?$\u{6}\u{16}celery"]).await;
    redis.cli(&["SADD", "_kombu.binding.dx", "k\u{6}\u{16}\u{6}\u{16}celery"]).await;
    for (exchange, key) in [("", "celery"), ("tx", "a.b.c"), ("dx", "k")] {
        leave(&redis, 100, exchange, key).await;
    }
    // Nobody is bound to it: it stays, and is not lost.
    leave(&redis, 1, "nowhere", "k").await;
    let diary = Arc::new(Diary::default());
    let app = app(&redis).tasks(tasks![note]).state(Arc::clone(&diary));
    let running = start_with(
        &app,
        app.worker().concurrency(8).lease_expiry(std::time::Duration::from_secs(1)),
    )
    .await;
    until("what can go back is back", PATIENCE, async || {
        (redis.cli(&["HLEN", "unacked"]).await.int() == 1).then_some(())
    })
    .await;
    // Their bodies are no arguments of the task; each has an end all the same.
    let store = running.client.store();
    until("each has an end", PATIENCE, async || {
        let letters = store.dead_count(&DeadFilter::default()).await.unwrap();
        (letters as usize + diary.read().len() == 300).then_some(())
    })
    .await;
    assert_eq!(redis.cli(&["ZCARD", "unacked_index"]).await.int(), 1);
    running.stop().await;
}

/// A real worker of Celery takes tasks, and is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_celery_worker_loses_nothing_beside_celeriac() {
    // interop: queue.unacked
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let url = redis.url();
    let source = "import os, time\nfrom celery import Celery\n\
        app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])\n\
        app.conf.task_acks_late = True\n\
        @app.task(name='left.note')\n\
        def note(n):\n    time.sleep(600)\n";
    let proj = python.app(source, &[("URL", &url)]);
    let mut stock = proj.worker("stock", &["-c", "2", "--prefetch-multiplier", "4"]).await;
    let client = app(&redis).client().await.unwrap();
    let jobs = client.send_all((0..8).map(note::call)).await.unwrap();
    until("the stock worker holds them", PATIENCE, async || {
        (redis.cli(&["HLEN", "unacked"]).await.int() == 8).then_some(())
    })
    .await;
    stock.kill9().await;
    let diary = Arc::new(Diary::default());
    let ours = App::at(&format!("{url}?visibility_timeout=1")).unwrap();
    let ours = ours.tasks(tasks![note]).state(Arc::clone(&diary));
    let running = start_with(&ours, ours.worker().concurrency(8)).await;
    for job in &jobs {
        job.get(PATIENCE).await.unwrap();
    }
    let mut ran = diary.read();
    ran.sort();
    assert_eq!(ran, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(redis.cli(&["HLEN", "unacked"]).await.int(), 0);
    running.stop().await;
}

/// A real worker of Celery gives back what a dead one left, by its own rule, in a transaction that
/// watches `unacked`: what celeriac does meanwhile must never touch that key (2.14, L2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_worker_restores_while_celeriac_works_at_full_speed() {
    const TAGS: usize = 1000;
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let url = redis.url();
    let source = "import os\nfrom celery import Celery\n\
        app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])\n\
        app.conf.broker_transport_options = {'visibility_timeout': 1}\n\
        @app.task(name='py.note', ignore_result=True)\n\
        def note(n):\n    app.backend.client.rpush('ran', n)\n";
    let proj = python.app(source, &[("URL", &url)]);
    // Late for a timeout of a second, not for our default of an hour.
    let now: u64 = redis.cli(&["TIME"]).await.texts()[0].parse().unwrap();
    let score = (now - 60).to_string();
    let mut connection = redis.connect().await;
    let script = "import json\nfrom proj import app\n\
        with app.connection() as connection:\n\
        \x20   for n in range(1000):\n\
        \x20       app.send_task('py.note', [n], queue='py', connection=connection)\n";
    proj.script(script).await;
    for n in 0..TAGS {
        let message = connection.call(&["RPOP", "py"]).await.unwrap().text();
        let tag = format!("tag-{n}");
        let held = format!(r#"[{message}, "", "py"]"#);
        connection.call(&["ZADD", "unacked_index", &score, &tag]).await.unwrap();
        connection.call(&["HSET", "unacked", &tag, &held]).await.unwrap();
    }
    let diary = Arc::new(Diary::default());
    let app = app(&redis).tasks(tasks![note]).state(Arc::clone(&diary));
    let running = start_with(&app, app.worker().concurrency(64).task_events(false)).await;
    let feeding = async {
        let mut sent: u64 = 0;
        loop {
            let jobs = running.client.send_all((sent..sent + 500).map(note::call)).await.unwrap();
            sent += 500;
            for job in &jobs {
                job.get(PATIENCE).await.unwrap();
            }
        }
    };
    let restoring = async {
        let arguments = ["-P", "solo", "-Q", "py", "--without-mingle", "--without-gossip"];
        let _stock = proj.worker("stock", &arguments).await;
        until("the stock worker has restored and run them", PATIENCE, async || {
            (redis.cli(&["LLEN", "ran"]).await.int() == TAGS as i64).then_some(())
        })
        .await;
    };
    let before = diary.read().len();
    tokio::select! {
        () = feeding => {}
        () = restoring => {}
    }
    let meanwhile = diary.read().len() - before;
    assert!(meanwhile > TAGS, "celeriac ran only {meanwhile} tasks meanwhile");
    println!("{TAGS} tags restored while celeriac ran {meanwhile} tasks");
    let mut ran = redis.cli(&["LRANGE", "ran", "0", "-1"]).await.texts();
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), TAGS);
    assert_eq!(redis.cli(&["HLEN", "unacked"]).await.int(), 0);
    running.stop().await;
}
