//! `celeriac serve`, `celeriac token` and the server beside a worker, as programs.

use super::{Answer, PATIENCE, Place, Ran, ask, until};
use crate::kit::{command, ledger_program};
use celeriac_testkit::process::Process;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::Path;
use tokio::process::Command;

/// A port that is free now.
pub(super) fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(super) fn program(place: &Place) -> Command {
    command(&ledger_program(), place.dir())
}

/// Starts a program and waits until it answers.
pub(super) async fn start(command: &mut Command, log: &Path, port: u16) -> (Process, SocketAddr) {
    let process = Process::spawn(command, log.to_owned());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("it answers", PATIENCE, async || get(address, "/livez", None).await).await;
    (process, address)
}

pub(super) async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Option<Answer> {
    ask(address, &format!("GET {path}"), token, None, "").await.ok()
}

#[tokio::test]
async fn the_first_start_shows_one_token_and_others_come_and_go() {
    let (place, port) = (Place::sqlite(), free());
    let bind = format!("127.0.0.1:{port}");
    let mut serve = program(&place);
    serve.args(["-b", place.url(), "serve", "--bind", &bind]);
    let (mut server, address) = start(&mut serve, &place.path("serve.log"), port).await;
    let log = server.log();
    let first = log.lines().find_map(|line| line.trim().strip_prefix("cel_")).unwrap();
    let first = format!("cel_{first}");
    let status = |token: String| async move {
        get(address, "/api/v1/status", Some(&token)).await.unwrap().status
    };
    assert_eq!(status(first.clone()).await, 200);
    let file = std::fs::read_to_string(place.path("celeriac-tokens.json")).unwrap();
    assert!(!file.contains(&first[4..]), "only its digest is kept");
    // Made while the server runs.
    let made = ["-b", place.url(), "--json", "token", "create", "ci", "--role", "viewer"];
    let made = Ran::new(program(&place).args(made)).await.exits(0);
    let made = celeriac_wire::Value::parse(made.stdout.as_bytes()).unwrap();
    let text = |name: &str| made.get(name).unwrap().as_str().unwrap().to_owned();
    until("the new token is known", PATIENCE, async || {
        (status(text("token")).await == 200).then_some(())
    })
    .await;
    let list = Ran::new(program(&place).args(["token", "list"])).await.exits(0);
    let list = list.says(&["first", "admin", "ci", "viewer", &text("id")]);
    assert!(!list.stdout.contains(&text("token")));
    Ran::new(program(&place).args(["token", "revoke", &text("id")])).await.exits(0);
    until("it is refused", PATIENCE, async || (status(text("token")).await == 401).then_some(()))
        .await;
    let again = Ran::new(program(&place).args(["token", "revoke", &text("id")])).await;
    again.exits(5).warns(&["there is no token", "celeriac token list"]);
    server.signal(Signal::TERM);
    assert!(server.ended_within(PATIENCE).await.success());
    assert!(!server.log().contains(&text("token")), "tokens are not logged");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_a_sentence() {
    let place = Place::sqlite();
    let open = |bind: &str| {
        let mut serve = program(&place);
        serve.env("CELERIAC_HTTP_AUTH", "none").args(["-b", place.url(), "serve", "--bind", bind]);
        serve
    };
    let refused = Ran::new(&mut open("0.0.0.0:0")).await.exits(3);
    refused.warns(&["reachable from other machines", "use tokens"]);
    assert!(!place.path("celeriac-tokens.json").exists());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    Ran::new(&mut open(&bind)).await.exits(4).warns(&["cannot listen on", "another port"]);
    Ran::new(program(&place).arg("flower")).await.exits(2).warns(&["no dashboard yet"]);
    std::fs::write(place.path("celeriac.toml"), "[http]\nbnd = \"127.0.0.1:1\"\n").unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    let wrong = Ran::new(command(binary, place.dir()).arg("serve")).await.exits(3);
    wrong.warns(&["line 2", "\"bnd\" in [http]", "did you mean \"bind\""]);
}

#[tokio::test]
async fn a_worker_answers_probes_on_the_port_of_its_platform() {
    let (place, port) = (Place::sqlite(), free());
    let mut worker = program(&place);
    worker.env("PORT", port.to_string()).args(["-b", place.url(), "worker"]);
    let (mut worker, address) = start(&mut worker, &place.path("worker.log"), port).await;
    assert_eq!(get(address, "/healthz", None).await.unwrap().status, 200);
    until("it is ready", PATIENCE, async || {
        (get(address, "/readyz", None).await?.status == 200).then_some(())
    })
    .await;
    assert_eq!(get(address, "/api/v1/status", None).await.unwrap().status, 404);
    assert_eq!(get(address, "/metrics", None).await.unwrap().status, 404);
    worker.signal(Signal::TERM);
    assert!(worker.ended_within(PATIENCE).await.success());
}

#[tokio::test]
async fn a_worker_serves_everything_where_it_is_told_to() {
    let (place, port) = (Place::sqlite(), free());
    std::fs::write(place.path("celeriac.toml"), "[http]\nauth = \"none\"\n").unwrap();
    let http = format!("127.0.0.1:{port}");
    let mut worker = program(&place);
    // Its own port goes before the platform's.
    worker.env("PORT", free().to_string());
    worker.args(["-b", place.url(), "worker", "--http", &http]);
    let (mut worker, address) = start(&mut worker, &place.path("worker.log"), port).await;
    until("it is ready", PATIENCE, async || {
        (get(address, "/readyz", None).await?.status == 200).then_some(())
    })
    .await;
    let workers = get(address, "/api/v1/workers", None).await.unwrap();
    assert!(workers.body.contains("celery@"), "{workers:?}");
    let body = "{\"timeout\": 5}";
    let stop = "POST /api/v1/control/shutdown";
    let answer = ask(address, stop, None, Some(body), "").await;
    assert!(answer.is_err() || answer.unwrap().status == 200);
    assert!(worker.ended_within(PATIENCE).await.success());
}
