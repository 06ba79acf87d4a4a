//! A worker inside the test, and the tasks that it knows.

use celeriac::prelude::*;
use celeriac::{StopHandle, WorkerBuilder, WorkerReport};
use celeriac_wire::{State as TaskState, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// A worker that runs beside the test.
pub(crate) struct Running {
    pub(crate) client: Client,
    stop: StopHandle,
    worker: JoinHandle<WorkerReport>,
}

/// Starts a worker of four slots.
pub(crate) async fn start(app: &App) -> Running {
    start_with(app, app.worker().concurrency(4)).await
}

/// Starts a worker as it was built.
pub(crate) async fn start_with(app: &App, worker: WorkerBuilder) -> Running {
    let worker = worker.build().await.unwrap();
    let stop = worker.stop_handle();
    let worker = tokio::spawn(async move { worker.run().await.unwrap() });
    Running { client: app.client().await.unwrap(), stop, worker }
}

impl Running {
    /// Lets running tasks finish.
    pub(crate) async fn stop(self) -> WorkerReport {
        self.stop.grace();
        self.worker.await.unwrap()
    }

    /// Waits for the end, which somebody else has asked for.
    pub(crate) async fn ended(self) -> WorkerReport {
        let ended = tokio::time::timeout(crate::kit::PATIENCE, self.worker);
        ended.await.expect("the worker ends").unwrap()
    }
}

/// Opens when the test says so: a task waits at it instead of sleeping.
pub(crate) struct Gate(pub(crate) Semaphore);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Semaphore::new(0))
    }
}

/// What tasks did, in order.
#[derive(Default)]
pub(crate) struct Diary {
    notes: Mutex<Vec<String>>,
    noted: Notify,
}

impl Diary {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
        self.noted.notify_waiters();
    }

    pub(crate) fn read(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a note that starts so.
    pub(crate) async fn until(&self, start: &str) {
        let waiting = async {
            loop {
                let noted = self.noted.notified();
                if self.read().iter().any(|note| note.starts_with(start)) {
                    return;
                }
                noted.await;
            }
        };
        let waited = tokio::time::timeout(crate::kit::PATIENCE, waiting).await;
        assert!(waited.is_ok(), "nobody notes {start:?}: {:?}", self.read());
    }
}

/// Shared with the test.
pub(crate) type Shared<T> = std::sync::Arc<T>;

#[task(name = "t.add")]
pub(crate) async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "t.echo")]
pub(crate) async fn echo(value: Value) -> Value {
    value
}

#[task(name = "t.float")]
pub(crate) async fn float(value: f64) -> f64 {
    value
}

#[task(name = "t.big")]
pub(crate) async fn big(value: i128) -> i128 {
    value + 1
}

#[task(name = "t.sum")]
pub(crate) async fn sum(values: Vec<i64>) -> i64 {
    values.iter().sum()
}

#[task(name = "t.header")]
pub(crate) async fn header(cx: Context, name: String) -> Value {
    cx.headers().get(&name).cloned().unwrap_or(Value::Null)
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) age: Option<u8>,
}

#[task(name = "t.greet")]
pub(crate) async fn greet(person: Person, #[default("Hello".to_owned())] word: String) -> String {
    format!("{word}, {}", person.name)
}

/// Fails until so many runs are over.
#[task(name = "t.flaky", retry_schedule = ["10ms", "20ms", "30ms"])]
pub(crate) async fn flaky(cx: Context, failures: u32) -> Result<u32> {
    if cx.attempt() <= failures { Err(TaskError::retry("not yet")) } else { Ok(cx.attempt()) }
}

#[task(name = "t.later", max_retries = 1)]
pub(crate) async fn later(cx: Context) -> Result<u32> {
    if cx.attempt() == 1 { Err(TaskError::retry_in(20.millis(), "busy")) } else { Ok(cx.attempt()) }
}

/// Comes too early so many times.
#[task(name = "t.waits", max_retries = 0)]
pub(crate) async fn waits(cx: Context, times: u64) -> Result<(u64, u32)> {
    if cx.snoozes() < times {
        return Err(TaskError::snooze(10.millis()));
    }
    Ok((cx.snoozes(), cx.attempt()))
}

#[task(name = "t.fails")]
pub(crate) async fn fails(reason: String) -> Result<i64> {
    Err(TaskError::fail(reason))
}

/// Rejects its message once, then succeeds.
#[task(name = "t.rejects")]
pub(crate) async fn rejects(diary: State<Shared<Diary>>, requeue: bool) -> Result<String> {
    diary.note("reject");
    if diary.read().len() > 1 {
        Ok("at last".to_owned())
    } else {
        Err(TaskError::reject(requeue, "not mine"))
    }
}

#[task(name = "t.ignores")]
pub(crate) async fn ignores() -> Result<i64> {
    Err(TaskError::ignore())
}

#[task(name = "t.unstored", ignore_result)]
pub(crate) async fn unstored(diary: State<Shared<Diary>>) -> i64 {
    diary.note("unstored");
    7
}

/// Reports and waits for the gate, twice.
#[task(name = "t.steps")]
pub(crate) async fn steps(cx: Context, gate: State<Shared<Gate>>) -> Result<String> {
    cx.progress(1, 4, "a quarter").await;
    gate.0.acquire().await?.forget();
    cx.update_state("UPLOADING", &BTreeMap::from([("bytes", 17)])).await?;
    gate.0.acquire().await?.forget();
    Ok("done".to_owned())
}

#[task(name = "t.note")]
pub(crate) async fn note(diary: State<Shared<Diary>>, text: String) -> String {
    diary.note(text.clone());
    text
}

/// Notes what it was called with, as a callback or an errback.
#[task(name = "t.told")]
pub(crate) async fn told(diary: State<Shared<Diary>>, value: Value) {
    diary.note(format!("told {}", celeriac_wire::value_repr(&value)));
}

#[task(name = "t.apologizes", max_retries = 0)]
pub(crate) async fn apologizes() -> BTreeMap<String, String> {
    [("status", "error"), ("error", "no rows")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[task(name = "t.parent")]
pub(crate) async fn parent(cx: Context) -> Result<String> {
    Ok(cx.client().send(lineage::call()).await?.id().to_owned())
}

/// Its root and its parent.
#[task(name = "t.lineage")]
pub(crate) async fn lineage(cx: Context) -> (Option<String>, Option<String>) {
    let headers = cx.headers();
    (headers.root_id().map(str::to_owned), headers.parent_id().map(str::to_owned))
}

/// An application with all of these.
pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) diary: Shared<Diary>,
    pub(crate) gate: Shared<Gate>,
}

pub(crate) fn application(app: App) -> TestApp {
    let diary = Shared::new(Diary::default());
    let gate = Shared::new(Gate::shut());
    let app = app
        .tasks(tasks![
            add, echo, float, big, sum, header, greet, flaky, later, waits, fails, rejects, ignores
        ])
        .tasks(tasks![unstored, steps, note, told, apologizes, parent, lineage])
        .state(Shared::clone(&diary))
        .state(Shared::clone(&gate));
    TestApp { app, diary, gate }
}

/// Waits until a task has this state; the store rings when something changes.
pub(crate) async fn state_is<R>(client: &Client, job: &Job<R>, wanted: &TaskState) {
    let deadline = tokio::time::Instant::now() + crate::kit::PATIENCE;
    loop {
        let seen = client.store().changes();
        let state = job.state().await.unwrap();
        if state == *wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "its state is {state}, not {wanted}");
        client.store().wait_change(seen, 20.millis()).await;
    }
}
