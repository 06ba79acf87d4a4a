//! `celeriac up`: a worker, a beat and the server as one program.

use super::programs::{free, get, program, start};
use super::{Answer, PATIENCE, Place, Ran, ask, until};
use crate::kit::ledger;
use celeriac_testkit::process::Process;
use celeriac_web::schema;
use rustix::process::Signal;
use std::net::SocketAddr;

/// A schedule of the settings, once a second.
const SCHEDULE: &str = "[schedule.tick]\ntask = \"ledger.work\"\nargs = [5]\nevery = \"1s\"\n";

/// Waits until its worker answers through the broker.
async fn is_ready(address: SocketAddr) {
    until("it is ready", PATIENCE, async || {
        (get(address, "/readyz", None).await?.status == 200).then_some(())
    })
    .await;
}

/// The token that the first start prints.
fn token(process: &Process) -> String {
    let log = process.log();
    let line = log.lines().find(|line| line.trim().starts_with("cel_"));
    line.unwrap_or_else(|| panic!("no token: {log}")).trim().to_owned()
}

/// The first task of this name that has succeeded.
async fn succeeded(address: SocketAddr, token: &str, task: &str) -> schema::Task {
    until("a task has succeeded", PATIENCE, async || {
        let list = get(address, "/api/v1/tasks?state=SUCCESS", Some(token)).await?;
        let list: schema::TaskList = list.read(200);
        list.items.into_iter().find(|one| one.task.as_deref() == Some(task))
    })
    .await
}

/// Has a task run for so many milliseconds, and returns its id once it runs.
async fn work(place: &Place, address: SocketAddr, token: Option<&str>, ms: u32) -> String {
    let body = format!("{{\"task\": \"ledger.work\", \"args\": [{ms}]}}");
    let sent = ask(address, "POST /api/v1/tasks", token, Some(&body), "").await.unwrap();
    let sent: schema::SentTask = sent.read(201);
    until("it runs", PATIENCE, async || {
        ledger(place).iter().any(|line| line.id == sent.task_id).then_some(())
    })
    .await;
    sent.task_id
}

/// Whether no beat leads on this store.
async fn nobody_leads(place: &Place) -> bool {
    place.app().client().await.unwrap().store().leader().await.unwrap().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_sends_what_is_due_runs_it_and_tells_over_http() {
    let (place, port) = (Place::shared(), free());
    std::fs::write(place.path("celeriac.toml"), SCHEDULE).unwrap();
    let http = format!("127.0.0.1:{port}");
    let mut up = program(&place);
    up.args(["-b", place.url(), "up", "--http", &http]);
    let (mut up, address) = start(&mut up, &place.path("up.log"), port).await;
    let token = token(&up);
    is_ready(address).await;
    succeeded(address, &token, "ledger.work").await;
    let log = up.log();
    let shown = ["  store  ", "  beat         celerybeat@", " ready."].map(str::to_owned);
    for text in shown.into_iter().chain([format!("  http         http://{http}")]) {
        assert!(log.contains(&text), "{text:?}: {log}");
    }
    // What runs may end, and who waits for it over HTTP gets its result.
    let id = work(&place, address, Some(&token), 1000).await;
    let path = format!("/api/v1/tasks/{id}/result?wait=20");
    let waiting = tokio::spawn(async move { get(address, &path, Some(&token)).await });
    up.signal(Signal::TERM);
    let result: Answer = waiting.await.unwrap().unwrap();
    assert!(result.body.contains("SUCCESS"), "{result:?}");
    assert!(up.ended_within(PATIENCE).await.success(), "{}", up.log());
    assert!(nobody_leads(&place).await, "the lead is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_address_is_a_setting_and_quit_ends_it_at_once() {
    let (place, port, probes) = (Place::shared(), free(), free());
    let settings = format!("[http]\nauth = \"none\"\nbind = \"127.0.0.1:{port}\"\n");
    std::fs::write(place.path("celeriac.toml"), settings).unwrap();
    let mut up = program(&place);
    // The platform's port is answered as a worker answers it, and `-B` changes nothing.
    up.env("PORT", probes.to_string()).args(["-b", place.url(), "up", "-B"]);
    let (mut up, address) = start(&mut up, &place.path("up.log"), port).await;
    is_ready(address).await;
    let alone = SocketAddr::from(([127, 0, 0, 1], probes));
    until("probes answer", PATIENCE, async || {
        (get(alone, "/healthz", None).await?.status == 200).then_some(())
    })
    .await;
    assert_eq!(get(alone, "/api/v1/status", None).await.unwrap().status, 404);
    let id = work(&place, address, None, 60_000).await;
    up.signal(Signal::QUIT);
    assert!(up.ended_within(PATIENCE).await.success(), "{}", up.log());
    assert!(nobody_leads(&place).await, "the lead is given back");
    let show = ["-b", place.url(), "--json", "task", "show", &id];
    Ran::new(program(&place).args(show)).await.exits(0).says(&["queued"]);
    // The address of a worker's server goes before.
    let port = free();
    let mut up = program(&place);
    up.env("CELERIAC_HTTP_WORKER", format!("127.0.0.1:{port}")).args(["-b", place.url(), "up"]);
    let (mut up, address) = start(&mut up, &place.path("again.log"), port).await;
    is_ready(address).await;
    up.signal(Signal::INT);
    up.signal(Signal::QUIT);
    assert!(up.ended_within(PATIENCE).await.success(), "{}", up.log());
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_before_anything_runs() {
    let place = Place::sqlite();
    std::fs::write(place.path("celeriac.toml"), SCHEDULE).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut up = program(&place);
    up.args(["-b", place.url(), "up", "--http", &address]);
    let refused = Ran::new(&mut up).await.exits(4);
    let refused = refused.warns(&[
        &format!("cannot listen on {address}"),
        "another program listens there",
        "--http",
    ]);
    assert!(!refused.stderr.contains("ready."), "{refused:?}");
    let left: Vec<_> = std::fs::read_dir(place.dir()).unwrap().collect();
    assert!(left.len() <= 2, "settings and ledger, no store and no token: {left:?}");
}

#[tokio::test]
async fn its_help_says_what_it_is() {
    let place = Place::sqlite();
    let help = Ran::new(program(&place).args(["up", "--help"])).await.exits(0);
    let help = help.says(&[
        "a worker, a beat and the HTTP server in one process",
        "no dashboard yet",
        "--concurrency",
        "http_bind",
    ]);
    assert!(!help.stdout.contains("--beat"), "it is always there: {help:?}");
}

/// The application's own schedule; `up` is `worker` to the application.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_celery_application_has_its_schedule_in_the_same_process() {
    const SOURCE: &str = "
import os, sys
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.beat_schedule = {'often': {'task': 'proj.seen', 'schedule': 1.0}}
seen = ['worker' in sys.argv, 'up' in sys.argv]
@app.task(name='proj.seen')
def look():
    return seen
";
    let redis = celeriac_testkit::redis_or_skip!();
    let python = celeriac_testkit::celery_or_skip!("5.7");
    let (url, port) = (redis.url(), free());
    let (place, celery) = (Place::at(&url), python.app(SOURCE, &[]));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_celeriac"));
    let mut up = crate::kit::command(binary, celery.folder());
    up.env("URL", &url).arg("--python").arg(python.program());
    up.args(["-A", "proj", "up", "-c", "1", "--http", &format!("127.0.0.1:{port}")]);
    let (mut up, address) = start(&mut up, &place.path("up.log"), port).await;
    let token = token(&up);
    is_ready(address).await;
    let done = succeeded(address, &token, "proj.seen").await;
    let path = format!("/api/v1/tasks/{}/result", done.task_id);
    let result = get(address, &path, Some(&token)).await.unwrap().json();
    assert_eq!(result.get("result").unwrap().to_string(), "[true, false]");
    up.signal(Signal::TERM);
    assert!(up.ended_within(PATIENCE).await.success(), "{}", up.log());
    for text in [" -------------- celery@", &format!("http://127.0.0.1:{port}"), "Warm shutdown"] {
        assert!(up.log().contains(text), "{text:?}: {}", up.log());
    }
    assert!(nobody_leads(&place).await, "the lead is given back");
}
