//! The way back: after `queue release --all` stock Celery alone drains everything.

use super::app;
use crate::kit::{self, PATIENCE, Place, until};
use celeriac::Call;
use celeriac::prelude::*;
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use celeriac_testkit::process::Process;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::Value;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_celery_alone_drains_what_a_release_gives_back() {
    // interop: queue.release
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let url = redis.url();
    let place = Place::sqlite();
    let client = app(&redis).client().await.unwrap();
    let store = client.store();
    let limit = LimitRule {
        target: Target::Task("ledger.fails".to_owned()),
        per_key: false,
        rates: Vec::new(),
        concurrency: Some(1),
        origin: RuleOrigin::Operator,
    };
    store.set_limit(limit).await.unwrap();
    let mut command = kit::command(&kit::ledger_program(), place.dir());
    command.env("CELERIAC_LEASE_EXPIRY", "1s");
    command.args(["-b", &url, "worker", "-c", "4", "-n", "doomed"]);
    let mut doomed = Process::spawn(&mut command, place.path("doomed.log"));
    until("the worker is there", PATIENCE, async || {
        (!store.nodes().await.unwrap().is_empty()).then_some(())
    })
    .await;

    // Some run, some wait in the list, some for their time, some behind a limit.
    let mut sent = BTreeSet::new();
    let mut enqueue = async |call: Call<Value>| {
        sent.insert(client.send(call).await.unwrap().id().to_owned());
    };
    for _ in 0..10 {
        enqueue(Call::named("ledger.work").arg(&600_000)).await;
    }
    for _ in 0..10 {
        enqueue(Call::named("ledger.work").arg(&1).countdown(3.secs())).await;
    }
    for _ in 0..5 {
        enqueue(Call::named("ledger.fails").arg(&1)).await;
    }
    until("four run", PATIENCE, async || (kit::count(&place, "start") == 4).then_some(())).await;
    doomed.kill().await;

    let mut release = kit::command(&kit::ledger_program(), place.dir());
    release.args(["-b", &url, "--json", "queue", "release", "--all"]);
    let ran = kit::Ran::new(&mut release).await.exits(0);
    assert!(ran.stdout.contains(r#""leased": 4"#), "{ran:#?}");
    assert!(ran.stdout.contains(r#""scheduled": 10"#), "{ran:#?}");
    assert_eq!(redis.cli(&["LLEN", "celery"]).await.int(), 25, "all are in Celery's list");

    let source = "import os\nfrom celery import Celery\n\
        app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])\n\
        @app.task(name='ledger.work')\n\
        def work(ms):\n    return 'stock'\n\
        @app.task(name='ledger.fails')\n\
        def fails(ms):\n    return 'stock'\n";
    let proj = python.app(source, &[("URL", &url)]);
    let mut stock = proj.worker("stock", &["-c", "2"]).await;
    for id in &sent {
        let record = store.wait_result(id, PATIENCE).await.unwrap().unwrap();
        assert_eq!(record.meta.result().as_str(), Some("stock"), "{id}");
    }
    assert!(stock.terminate().await.success());
    assert_eq!(redis.cli(&["LLEN", "celery"]).await.int(), 0);
    assert_eq!(redis.cli(&["HLEN", "unacked"]).await.int(), 0);
}
