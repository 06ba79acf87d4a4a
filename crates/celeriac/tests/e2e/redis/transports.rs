//! TLS and Sentinel, with a real Celery on the other side.

use crate::kit::{PATIENCE, Place};
use celeriac::prelude::*;
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::services::sentinel::Sentinel;
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const SOURCE: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
if 'MASTER' in os.environ:
    how = {'master_name': os.environ['MASTER']}
    app.conf.broker_transport_options = how
    app.conf.result_backend_transport_options = how
app.conf.task_routes = {'way.ours': 'ours'}
@app.task(name='way.theirs')
def theirs(x): return x * 2
@app.task(name='way.ours')
def ours(x): raise NotImplementedError
";

#[task(name = "way.ours")]
async fn ours(x: i64) -> i64 {
    x + 1
}

/// Python calls our worker, and our client calls a worker of Celery, both over this way.
async fn works_both_ways(python: &Python, theirs: &[(&str, &str)], our_url: &str) {
    let celery = python.app(SOURCE, theirs);
    let app = Place::at(our_url).app().tasks(tasks![ours]);
    let worker = app.worker().queues(["ours"]).concurrency(2).build().await.unwrap();
    let stop = worker.stop_handle();
    let working = tokio::spawn(worker.run());
    let said = celery.script("from proj import ours\nprint(ours.delay(4).get(timeout=60))").await;
    assert_eq!(said.trim(), "5");
    let mut stock = celery.worker("stock", &["-c", "1"]).await;
    let client = app.client().await.unwrap();
    let job = client.send(Call::named("way.theirs").arg(&21)).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), 42.into());
    assert!(stock.terminate().await.success());
    stop.grace();
    working.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celery_and_we_meet_over_tls() {
    // interop: queue.tls 5.7
    let redis = redis_or_skip!(Redis::options().tls_of_known_clients());
    let python = celery_or_skip!();
    let (certificate, key) = redis.client_certificate();
    let url = format!(
        "{}?ssl_cert_reqs=required&ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        redis.tls_url(),
        redis.authority().display(),
        certificate.display(),
        key.display()
    );
    works_both_ways(&python, &[("URL", &url)], &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celery_and_we_meet_behind_a_sentinel() {
    // interop: queue.sentinel 5.7
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let sentinel = Sentinel::of(&redis).await;
    let theirs = format!("sentinel://127.0.0.1:{}/0", sentinel.port());
    let ours = format!("{theirs}?master_name=main");
    works_both_ways(&python, &[("URL", &theirs), ("MASTER", "main")], &ours).await;
}
