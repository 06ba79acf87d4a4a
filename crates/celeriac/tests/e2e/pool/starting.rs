//! Workers whose children do not start say why, and do not start either.

use super::{add, application, entered, note, steps};
use crate::kit::PATIENCE;
use celeriac::Pool;
use celeriac::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;

struct Never;

#[task(name = "p.wants", max_retries = 0)]
async fn wants(_never: State<Never>) -> Result {
    Ok(())
}

fn broken() -> Result<Never> {
    Err(TaskError::fail("the model file is missing"))
}

#[expect(clippy::print_stderr, reason = "what a child prints before it fails is shown")]
fn bursts() -> Result<Never> {
    eprintln!("reading the model");
    panic!("the model is broken")
}

/// Cannot be made while a file is there that has the worker's number in its name.
struct Fickle;

/// The files of a test whose worker has this process id.
fn fickle_files(worker: u32) -> [PathBuf; 2] {
    ["broken", "tries"].map(|name| std::env::temp_dir().join(format!("celeriac-{name}-{worker}")))
}

fn fickle() -> Result<Fickle> {
    let worker = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    let [broken, tries] = fickle_files(worker.cast_unsigned());
    if !broken.exists() {
        return Ok(Fickle);
    }
    note(&tries, "try")?;
    Err(TaskError::fail("the database is away"))
}

#[task(name = "p.pid", max_retries = 0)]
async fn pid(_state: State<Fickle>) -> u32 {
    std::process::id()
}

async fn refusal(app: &App) -> String {
    let worker = app.worker().pool(Pool::Process).concurrency(2).build().await.unwrap();
    worker.run().await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_made_refuses_the_start() {
    let app = |url: &str| App::at(url).unwrap().tasks(tasks![wants]).state_with(broken);
    drop(app("memory://").enter_child());
    let place = crate::kit::Place::shared();
    let text = refusal(&app(place.url()).enter_child()).await;
    assert!(text.contains("the model file is missing"), "{text}");
    assert!(place.app().store().await.unwrap().nodes().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_a_state_is_made_is_shown_with_stderr() {
    let app = |url: &str| App::at(url).unwrap().tasks(tasks![wants]).state_with(bursts);
    drop(app("memory://").enter_child());
    let place = crate::kit::Place::shared();
    let text = refusal(&app(place.url()).enter_child()).await;
    assert!(text.contains("the model is broken") && text.contains("reading the model"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_must_know_the_workers_tasks() {
    drop(App::at("memory://").unwrap().tasks(tasks![add]).enter_child());
    let place = crate::kit::Place::shared();
    let app = application(place.url()).enter_child();
    let text = refusal(&app).await;
    assert!(text.contains("p.who") && text.contains("enter_child"), "{text}");
}

/// Takes for ever to be made.
struct Slow;

fn slow() -> Result<Slow> {
    let worker = rustix::process::getppid().unwrap().as_raw_nonzero().get();
    note(&fickle_files(worker.cast_unsigned())[1], "try")?;
    loop {
        std::thread::park();
    }
}

#[task(name = "p.slow", max_retries = 0)]
async fn slowly(_state: State<Slow>) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_can_be_stopped_while_its_children_start() {
    let app = |url: &str| App::at(url).unwrap().tasks(tasks![slowly]).state_with(slow);
    drop(app("memory://").enter_child());
    let place = crate::kit::Place::shared();
    let here = super::running(&app(place.url()).enter_child(), 1).await;
    let tries = &fickle_files(std::process::id())[1];
    let child = steps(tries, "try", 1).await[0];
    assert_eq!(here.stop().await, celeriac::WorkerReport::default());
    super::is_gone(child).await;
    std::fs::remove_file(tries).unwrap();
}

/// Later failures are retried, and nothing is fetched for slots without a child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_without_a_child_takes_nothing() {
    let app = |url: &str| App::at(url).unwrap().tasks(tasks![pid]).state_with(fickle);
    drop(app("memory://").enter_child());
    let place = crate::kit::Place::shared();
    let app = app(place.url()).enter_child();
    let here = super::running(&app, 1).await;
    let first = here.client.send(pid::call()).await.unwrap().get(PATIENCE).await.unwrap();
    let [broken, tries] = fickle_files(std::process::id());
    std::fs::write(&broken, "").unwrap();
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).unwrap();
    steps(&tries, "try", 2).await;
    let job = here.client.send(pid::call()).await.unwrap();
    steps(&tries, "try", 5).await;
    assert_eq!(job.view().await.unwrap().phase.as_str(), "queued", "it is not even held");
    std::fs::remove_file(&broken).unwrap();
    assert_ne!(job.get(PATIENCE).await.unwrap(), first);
    here.stop().await;
    std::fs::remove_file(&tries).unwrap();
}

#[tokio::test]
async fn a_program_without_an_entry_is_told_what_to_add() {
    let place = crate::kit::Place::shared();
    let error = application(place.url()).worker().pool(Pool::Process).build().await.unwrap_err();
    assert!(error.to_string().contains(".enter_child()"), "{error}");
}

#[tokio::test]
async fn a_store_of_one_process_has_no_process_pool() {
    let (_place, _app) = entered();
    let app = application("memory://").enter_child();
    let error = app.worker().pool(Pool::Process).build().await.unwrap_err();
    assert!(error.to_string().contains("sqlite://"), "{error}");
}
