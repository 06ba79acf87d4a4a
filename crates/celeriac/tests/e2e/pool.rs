//! Tasks in child processes. The tests' own program is the worker: its children run the same test
//! again, as far as [`entered`], where they begin to serve.

mod deaths;
mod limits;
mod recycling;
mod running;
mod starting;
mod workers;

use crate::kit::{PATIENCE, Place, until};
use crate::running::{Running, start_with};
use celeriac::prelude::*;
use celeriac::{Pool, WorkerBuilder};
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the constructor of [`Made`] ran in this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A state that is made where tasks run.
struct Made {
    pid: u32,
}

impl Made {
    fn here() -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self { pid: std::process::id() }
    }
}

/// Appends a line with the process id, in one write.
fn note(path: &Path, step: &str) -> Result {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(format!("{step} {}\n", std::process::id()).as_bytes())?)
}

/// The process ids of a step, in order.
fn noted(path: &Path, step: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pid = |line: &str| line.strip_prefix(step)?.trim().parse().ok();
    text.lines().filter_map(pid).collect()
}

#[task(name = "p.add", max_retries = 0)]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

/// The process that ran it, the one that made its state, and how often states were made there.
#[task(name = "p.who", max_retries = 0)]
async fn who(made: State<Made>) -> (u32, u32, u32) {
    (std::process::id(), made.pid, MADE.load(Ordering::Relaxed))
}

/// Runs until the file is there.
#[task(name = "p.waits", max_retries = 0)]
async fn waits(cx: Context, notes: PathBuf, until: PathBuf) -> Result<u32> {
    note(&notes, "start")?;
    cx.progress(1, 2, "half").await;
    while !until.exists() {
        cx.check()?;
        tokio::time::sleep(5.millis()).await;
    }
    Ok(std::process::id())
}

#[task(name = "p.sends", max_retries = 0)]
async fn sends(cx: Context) -> Result<String> {
    Ok(cx.client().send(add::call(20, 22)).await?.id().to_owned())
}

#[task(name = "p.spins", max_retries = 0)]
async fn spins(notes: PathBuf) -> Result {
    note(&notes, "start")?;
    loop {
        std::hint::spin_loop();
    }
}

/// Computes until it is told to stop, without ever yielding.
#[task(name = "p.listens", max_retries = 0)]
async fn listens(cx: Context) -> Result {
    loop {
        cx.check()?;
        std::hint::spin_loop();
    }
}

/// Stops its own process, as a signal from outside would.
#[task(name = "p.freezes", max_retries = 0)]
async fn freezes(notes: PathBuf) -> Result {
    note(&notes, "start")?;
    kill_process(getpid(), Signal::STOP)?;
    std::future::pending().await
}

#[task(name = "p.crashes", max_retries = 3)]
#[expect(clippy::print_stderr, reason = "its last words are what the test looks for")]
async fn crashes(notes: PathBuf) -> Result {
    note(&notes, "start")?;
    eprintln!("the ship is sinking");
    // The first one meets Rust's handler for stack overflows, which only takes itself out.
    loop {
        kill_process(getpid(), Signal::SEGV)?;
    }
}

#[task(name = "p.panics", max_retries = 0)]
async fn panics() -> Result {
    panic!("a bug")
}

#[task(name = "p.exits", max_retries = 0)]
#[expect(clippy::exit, reason = "it is what the task is for")]
async fn exits() -> Result {
    std::process::exit(3)
}

/// Takes this many MiB, and more and more if it may.
#[task(name = "p.eats", max_retries = 0)]
async fn eats(notes: PathBuf, mib: usize, more: bool) -> Result<u32> {
    note(&notes, "start")?;
    let mut meals = Vec::new();
    loop {
        for _ in 0..mib {
            meals.push(std::hint::black_box(vec![1u8; 1 << 20]));
        }
        if !more {
            // Left behind on purpose: it is still there when the task has ended.
            std::mem::forget(meals);
            return Ok(std::process::id());
        }
        tokio::time::sleep(20.millis()).await;
    }
}

fn application(url: &str) -> App {
    let tasks =
        tasks![add, who, waits, sends, spins, listens, freezes, crashes, panics, exits, eats];
    App::at(url).unwrap().tasks(tasks).state_with(|| Ok(Made::here()))
}

/// The place and the application of a test; its children go no further than this.
fn entered() -> (Place, App) {
    entered_with(|app| app)
}

/// The same with an application that has more.
fn entered_with(more: impl Fn(App) -> App) -> (Place, App) {
    drop(more(application("memory://")).enter_child());
    let place = Place::shared();
    let app = more(application(place.url())).enter_child();
    (place, app)
}

/// A worker of the application whose tasks run in children.
fn worker(app: &App, slots: usize) -> WorkerBuilder {
    app.worker().pool(Pool::Process).concurrency(slots)
}

async fn running(app: &App, slots: usize) -> Running {
    start_with(app, worker(app, slots)).await
}

fn lives(pid: u32) -> bool {
    // A zombie is not alive: it only waits to be reaped.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    test_kill_process(pid).is_ok() && !zombie
}

async fn is_gone(pid: u32) {
    until("the child is gone", PATIENCE, async || (!lives(pid)).then_some(())).await;
}

/// Waits until so many tasks have noted this step.
async fn steps(notes: &Path, step: &str, count: usize) -> Vec<u32> {
    until("the tasks got there", PATIENCE, async || {
        let pids = noted(notes, step);
        (pids.len() >= count).then_some(pids)
    })
    .await
}
