//! Spans for OpenTelemetry: a real collector's protocol, with programs of ours before it.

use super::{ask, until};
use crate::kit::{PATIENCE, Place, command, count, ledger_program};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use celeriac_testkit::process::Process;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::time::Instant;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "b7ad6b7169203331";

/// What speaks OTLP over HTTP, and everything that it was told.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, services) = (Arc::<Mutex<Vec<Span>>>::default(), Arc::default());
        let (kept, named) = (Arc::clone(&spans), Arc::clone(&services));
        let hear = move |body: Bytes| {
            let (kept, named) = (Arc::clone(&kept), Arc::<Mutex<Vec<String>>>::clone(&named));
            async move {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                for of_resource in request.resource_spans {
                    let attributes = of_resource.resource.unwrap().attributes;
                    let name = attributes.iter().find(|one| one.key == "service.name").unwrap();
                    named.lock().unwrap().push(format!("{:?}", name.value));
                    let scopes = of_resource.scope_spans.into_iter();
                    kept.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
                }
            }
        };
        let router = Router::new().route("/v1/traces", post(hear));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, spans, services }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for so many spans; they are ordered by their end.
    async fn spans(&self, count: usize) -> Vec<Span> {
        until("the spans have come", PATIENCE, async || {
            let mut spans = self.spans.lock().unwrap().clone();
            spans.sort_by_key(|span| span.end_time_unix_nano);
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|half| char::from_digit(half.into(), 16).unwrap())
        .collect()
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == name);
    match found.and_then(|one| one.value.as_ref()?.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?} in {span:?}"),
    }
}

fn find<'a>(spans: &'a [Span], name: &str, outcome: Option<&str>) -> &'a Span {
    let fits = |span: &&Span| {
        span.name == name
            && outcome.is_none_or(|outcome| attribute(span, "celeriac.task.outcome") == outcome)
    };
    let found: Vec<&Span> = spans.iter().filter(fits).collect();
    let [one] = found[..] else { panic!("{} spans are {name:?}: {spans:#?}", found.len()) };
    one
}

/// A worker with the HTTP server beside it.
async fn worker(place: &Place, endpoint: &str) -> (Process, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    std::fs::write(place.path("celeriac.toml"), "[http]\nauth = \"none\"\n").unwrap();
    let mut program = command(&ledger_program(), place.dir());
    program.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_SERVICE_NAME", "ledger");
    program.env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
    program.args(["-b", place.url(), "worker", "-c", "2", "--http", &address.to_string()]);
    let process = Process::spawn(&mut program, place.path("worker.log"));
    until("it is ready", PATIENCE, async || {
        let answer = ask(address, "GET /readyz", None, None, "").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (process, address)
}

#[tokio::test]
async fn a_request_a_task_its_retry_and_its_child_are_one_trace() {
    let (collector, place) = (Collector::start().await, Place::sqlite());
    let (mut worker, address) = worker(&place, &collector.url()).await;
    let parent = format!("traceparent: 00-{TRACE}-{SENDER}-01\r\n");
    let body = Some(r#"{"task": "ledger.sends"}"#);
    let answer = ask(address, "POST /api/v1/tasks", None, body, &parent).await.unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json().get("task_id").unwrap().as_str().unwrap().to_owned();
    let spans = collector.spans(5).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");

    let of = |task: &str| -> Vec<Span> {
        let task = |span: &&Span| attribute(span, "celeriac.task.name") == task;
        spans.iter().filter(task).cloned().collect()
    };
    let (first, child) = (of("ledger.sends"), of("ledger.work"));
    let send = find(&first, "send celery", None);
    assert_eq!((hex(&send.parent_span_id).as_str(), send.kind), (SENDER, 4), "a producer");
    assert_eq!(attribute(send, "messaging.message.id"), id);
    assert_eq!(attribute(send, "messaging.destination.name"), "celery");
    let failed = find(&first, "run ledger.sends", Some("retried"));
    let again = find(&first, "run ledger.sends", Some("succeeded"));
    for (run, retries) in [(failed, "0"), (again, "1")] {
        assert_eq!((&run.parent_span_id, run.kind), (&send.span_id, 5), "a consumer");
        assert_eq!(attribute(run, "celeriac.task.retries"), retries);
        assert!(run.start_time_unix_nano < run.end_time_unix_nano);
    }
    assert_ne!(failed.span_id, again.span_id);
    assert_eq!(failed.status.as_ref().unwrap().code, 2, "an error");
    assert_eq!(failed.events[0].name, "exception");
    let send = find(&child, "send celery", None);
    assert_eq!(send.parent_span_id, again.span_id, "its retry sends the child");
    let run = find(&child, "run ledger.work", Some("succeeded"));
    assert_eq!(run.parent_span_id, send.span_id);
    assert!(collector.services.lock().unwrap().iter().all(|name| name.contains("ledger")));

    // What ends just before the process is told before its end; a trace begins with its first send.
    let answer = ask(address, "POST /api/v1/tasks", None, body, "").await.unwrap();
    assert_eq!(answer.status, 201);
    until("both have run", PATIENCE, async || (count(&place, "end") == 2).then_some(())).await;
    worker.signal(Signal::TERM);
    assert!(worker.ended_within(PATIENCE).await.success());
    let spans = collector.spans.lock().unwrap().split_off(5);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(root.name, "send celery");
    assert!(
        spans.iter().all(|span| span.trace_id == root.trace_id) && hex(&root.trace_id) != TRACE
    );
}

/// A collector that takes connections and says nothing holds up no task and not the end.
#[tokio::test]
async fn a_dead_collector_holds_up_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::sqlite();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (mut worker, address) = worker(&place, &url).await;
    for _ in 0..20 {
        let body = Some(r#"{"task": "ledger.work", "args": [1]}"#);
        let sent = ask(address, "POST /api/v1/tasks", None, body, "").await.unwrap();
        assert_eq!(sent.status, 201, "{sent:?}");
    }
    until("all have run", PATIENCE, async || (count(&place, "end") == 20).then_some(())).await;
    until("the log tells", PATIENCE, async || {
        worker.log().contains("spans do not reach the OpenTelemetry collector").then_some(())
    })
    .await;
    let began = Instant::now();
    worker.signal(Signal::TERM);
    assert!(worker.ended_within(PATIENCE).await.success());
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let log = worker.log();
    assert_eq!(log.matches("spans do not reach").count(), 1, "told once: {log}");
}

/// A task of a Celery app in a Python child of ours, retried.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_in_python_children_have_spans_too() {
    use celeriac_testkit::{celery_or_skip, redis_or_skip};
    const SOURCE: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
@app.task(name='proj.twice', bind=True, max_retries=1)
def twice(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    raise ValueError('the second time')
";
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let collector = Collector::start().await;
    let (url, endpoint) = (redis.url(), collector.url());
    let celery = python.app(SOURCE, &[("URL", &url), ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let mut ours = celery.worker_of(&ledger_program(), "ours", &["-c", "1"]).await;
    let client = Place::at(&url).app().client().await.unwrap();
    let parent = format!("00-{TRACE}-{SENDER}-01");
    let context = celeriac::TraceContext::parse(&parent, None).unwrap();
    let call = celeriac::Call::<celeriac_wire::Value>::named("proj.twice").trace(&context);
    client.send(call).await.unwrap();
    let spans = collector.spans(2).await;
    for (outcome, retries) in [("retried", "0"), ("failed", "1")] {
        let run = find(&spans, "run proj.twice", Some(outcome));
        assert_eq!(
            (hex(&run.trace_id).as_str(), hex(&run.parent_span_id).as_str()),
            (TRACE, SENDER)
        );
        assert_eq!(attribute(run, "celeriac.task.retries"), retries);
    }
    let failed = find(&spans, "run proj.twice", Some("failed"));
    assert_eq!(attribute(failed, "error.type"), "ValueError");
    assert!(ours.terminate().await.success());
}
