//! With a Redis that goes away, and workers that are Celery's own.

use super::{Place, Site, ask, until};
use crate::kit::PATIENCE;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_web::schema;
use std::time::Duration;
use tokio::time::Instant;

/// What a probe may take at most: its own deadline and what a busy machine adds.
const BOUND: Duration = Duration::from_secs(8);

const SOURCE: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.broker_connection_retry_on_startup = True
@app.task(name='proj.trace', bind=True, max_retries=1)
def trace(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return [self.request.retries, getattr(self.request, 'traceparent', None)]
";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_tell_of_a_broker_that_is_gone_and_back() {
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let site = Site::start(&Place::at(&redis.url()).app()).await;
    let probe = async |path: &str| {
        let began = Instant::now();
        let answer = ask(site.address, &format!("GET {path}"), None, None, "").await.unwrap();
        assert!(began.elapsed() < BOUND, "{path} took {:?}", began.elapsed());
        answer.status
    };
    let become_ = async |status: u16| {
        for path in ["/brokerz", "/readyz"] {
            until(path, PATIENCE, async || (probe(path).await == status).then_some(())).await;
        }
        assert_eq!(probe("/livez").await, 200);
    };
    become_(200).await;
    redis.kill9().await;
    become_(503).await;
    let answer = site.get("/api/v1/queues").await;
    assert_eq!(answer.problem(), "unavailable");
    assert!(answer.header("retry-after").is_some());
    let text = site.get("/metrics").await;
    assert!(text.status == 200 && text.body.contains("celeriac_store_up 0"), "{text:?}");
    redis.restart().await;
    become_(200).await;
    // A server that stands still answers nobody and refuses nobody.
    redis.stop();
    become_(503).await;
    redis.cont();
    become_(200).await;
}

/// A worker of Celery runs a task that was sent over HTTP; the server sees both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_celery_are_seen_and_asked_and_their_tasks_counted() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let url = redis.url();
    let celery = python.app(SOURCE, &[("URL", &url)]);
    let site = Site::start(&Place::at(&url).app()).await;
    let mut stock = celery.worker("stock", &["-P", "solo", "-E"]).await;
    until("it is seen", PATIENCE, async || {
        let workers = site.get("/api/v1/workers").await.read::<schema::WorkerList>(200);
        let seen = workers.items.into_iter().find(|one| one.name.starts_with("stock@"))?;
        (seen.alive && seen.software == "py-celery").then_some(())
    })
    .await;
    // Its first event comes before it listens to requests (celery 5.7.0 worker/consumer: Events come
    // before Control).
    until("it answers", PATIENCE, async || {
        let replies = site.post("/api/v1/inspect/registered", r#"{"timeout": 1}"#).await;
        replies.body.contains("proj.trace").then_some(())
    })
    .await;
    let more = format!("traceparent: {PARENT}\r\n");
    let sent = site.post_with("/api/v1/tasks", r#"{"task": "proj.trace"}"#, &more).await;
    let id = sent.json().get("task_id").unwrap().as_str().unwrap().to_owned();
    let result = site.get(&format!("/api/v1/tasks/{id}/result?wait=20")).await;
    assert!(result.body.contains(&format!("[1, \"{PARENT}\"]")), "{result:?}");
    site.measures(&[
        "celery_tasks_submitted_total 1",
        "celeriac_task_retries_total{task=\"proj.trace\"} 1",
        "celeriac_task_outcomes_total{task=\"proj.trace\",outcome=\"succeeded\"} 1",
    ])
    .await;
    let control = site.post("/api/v1/control/shutdown", r#"{"timeout": 1}"#).await;
    assert_eq!(control.status, 200, "{control:?}");
    assert!(stock.process().ended_within(PATIENCE).await.success());
}

/// The same task in a Python child of ours: retried, it still knows its trace; its worker is ready.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_child_has_the_trace_after_its_retry() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let url = redis.url();
    let celery = python.app(SOURCE, &[("URL", &url)]);
    let place = Place::at(&url);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = crate::kit::ledger_program();
    let mut ours = celery
        .worker_of(&program, "ours", &["-c", "1", "--http", &format!("127.0.0.1:{port}")])
        .await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    until("it is ready", PATIENCE, async || {
        let answer = ask(address, "GET /readyz", None, None, "").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let client = place.app().client().await.unwrap();
    let context = celeriac::TraceContext::parse(PARENT, None).unwrap();
    let call = celeriac::Call::named("proj.trace").trace(&context);
    let value: celeriac_wire::Value = client.send(call).await.unwrap().get(PATIENCE).await.unwrap();
    assert_eq!(value.to_string(), format!("[1, \"{PARENT}\"]"));
    assert!(ours.terminate().await.success());
}
