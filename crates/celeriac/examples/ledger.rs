//! An application with tasks of its own, a shared state and the whole command line.
//!
//! Its tasks write what they do into a ledger, a file outside the store: the test programs run it
//! as a real worker, kill it, and compare the ledger with what the store says. With
//! `CELERIAC_FAILPOINT=<step>[:<n>]` the process kills itself when it reaches that step of
//! `celeriac_core::failpoint` for the n-th time.
//!
//! ```console
//! $ cargo run --example ledger -- call ledger.work -a '[500]'
//! $ LEDGER=ledger.txt cargo run --example ledger -- worker -c 4
//! ```

use celeriac::prelude::*;
use celeriac_core::QueueName;
use celeriac_core::failpoint::{self, Step};
use celeriac_core::store::{Fire, Fired, Occurrence, OccurrenceKind, Outgoing, Plan};
use celeriac_wire::{Message, Value};
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file to which every run appends one line a step.
struct Ledger(File);

impl Ledger {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Appends `<step> <task id> <attempt> <pid> <microseconds> redelivered=<yes|no> deaths=<n>` in
    /// one write, so that lines of several processes never mix; `celeriac_testkit::ledger` reads them.
    fn note(&self, step: &str, cx: &Context) -> Result {
        let (id, attempt, pid) = (cx.id(), cx.attempt(), std::process::id());
        let (now, again, deaths) = (cx.now().as_microsecond(), cx.is_redelivered(), cx.deaths());
        let again = if again { "yes" } else { "no" };
        let line =
            format!("{step} {id} {attempt} {pid} {now} redelivered={again} deaths={deaths}\n");
        Ok((&self.0).write_all(line.as_bytes())?)
    }
}

/// Works for so many milliseconds and returns the process that did it.
#[task(name = "ledger.work", max_retries = 0)]
async fn work(cx: Context, ledger: State<Ledger>, ms: u64) -> Result<u32> {
    ledger.note("start", &cx)?;
    tokio::time::sleep(ms.millis()).await;
    ledger.note("end", &cx)?;
    Ok(std::process::id())
}

/// A step of a chain, or the body of a chord: takes what came before.
#[task(name = "ledger.follow", max_retries = 0)]
async fn follow(cx: Context, ledger: State<Ledger>, before: Value) -> Result<u32> {
    ledger.note("start", &cx)?;
    if before.is_null() {
        return Err(TaskError::fail("nothing came before"));
    }
    ledger.note("end", &cx)?;
    Ok(std::process::id())
}

/// Fails the first time.
#[task(name = "ledger.flaky", max_retries = 2, retry_delay = "50ms")]
async fn flaky(cx: Context, ledger: State<Ledger>) -> Result<u32> {
    ledger.note("start", &cx)?;
    if cx.attempt() == 1 {
        return Err(TaskError::retry("it is the first time"));
    }
    ledger.note("end", &cx)?;
    Ok(std::process::id())
}

/// Fails the first time; the second time it sends another task.
#[task(name = "ledger.sends", max_retries = 1, retry_delay = "1ms")]
async fn sends(cx: Context, ledger: State<Ledger>) -> Result<String> {
    ledger.note("start", &cx)?;
    if cx.attempt() == 1 {
        return Err(TaskError::retry("it is the first time"));
    }
    Ok(cx.client().send(work::call(1)).await?.id().to_owned())
}

/// Fires one occurrence, always the same: however often it runs, its message is sent once.
#[task(name = "ledger.fires", max_retries = 0)]
async fn fires(cx: Context, ledger: State<Ledger>) -> Result<u32> {
    ledger.note("start", &cx)?;
    let due = jiff::Timestamp::UNIX_EPOCH;
    let message = Message::new("ledger.work", "fired", "[[1], {}, {}]");
    let occurrence = Occurrence {
        due,
        fired: cx.now(),
        kind: OccurrenceKind::Sent,
        task_id: Some("fired".to_owned()),
        count: 1,
        note: String::new(),
        outcome: None,
    };
    let publish = vec![Outgoing::new(QueueName::celery(), message)];
    let plan = Plan { publish, ..Plan::default() };
    let (name, state) = ("ledger".to_owned(), Value::Null);
    let fire = Fire { name, version: None, wake: None, state, occurrence, plan };
    let fired = cx.client().store().fire(None, vec![fire]).await?;
    if !matches!(fired[..], [Fired::Done(0) | Fired::Taken(0)]) {
        return Err(TaskError::fail(format!("{fired:?}")));
    }
    ledger.note("end", &cx)?;
    Ok(std::process::id())
}

/// Gives its message back until somebody else had it.
#[task(name = "ledger.returns", max_retries = 0)]
async fn returns(cx: Context, ledger: State<Ledger>) -> Result<u32> {
    ledger.note("start", &cx)?;
    if !cx.is_redelivered() {
        return Err(TaskError::reject(true, "not yet"));
    }
    ledger.note("end", &cx)?;
    Ok(std::process::id())
}

/// Fails for good.
#[task(name = "ledger.fails", max_retries = 0)]
async fn fails(cx: Context, ledger: State<Ledger>) -> Result {
    ledger.note("start", &cx)?;
    Err(TaskError::fail("it always does"))
}

/// Works until it is told to stop, and says so.
#[task(name = "ledger.until_told", max_retries = 0)]
async fn until_told(cx: Context, ledger: State<Ledger>) -> Result {
    ledger.note("start", &cx)?;
    let why = cx.cancelled().await;
    ledger.note("told", &cx)?;
    Err(why)
}

/// Has a bug.
#[task(name = "ledger.panics", max_retries = 0)]
async fn panics(cx: Context, ledger: State<Ledger>) -> Result {
    ledger.note("start", &cx)?;
    panic!("the ledger is full")
}

/// Takes its whole process down.
#[task(name = "ledger.aborts", max_retries = 0)]
async fn aborts(cx: Context, ledger: State<Ledger>) -> Result {
    ledger.note("start", &cx)?;
    std::process::abort()
}

/// Computes without end and without yielding.
#[task(name = "ledger.spins", max_retries = 0)]
async fn spins(cx: Context, ledger: State<Ledger>) -> Result {
    ledger.note("start", &cx)?;
    loop {
        std::hint::spin_loop();
    }
}

/// Prints this text twice, on stdout and on stderr.
#[task(name = "ledger.prints", max_retries = 0)]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is what the task is for")]
async fn prints(text: String) {
    println!("out: {text}");
    eprintln!("err: {text}");
}

/// Where this process ends: a step, and how often it is reached before.
static DEATH: OnceLock<(Step, u64)> = OnceLock::new();
static REACHED: AtomicU64 = AtomicU64::new(0);

/// Kills this process at the step that the environment names.
fn set_failpoint() -> Result {
    let Some(text) = std::env::var_os("CELERIAC_FAILPOINT") else { return Ok(()) };
    let text = text.to_string_lossy().into_owned();
    let (step, count) = text.split_once(':').unwrap_or((&text, "1"));
    let step: Step = step.parse().map_err(TaskError::fail)?;
    let count: u64 = count.parse()?;
    DEATH.get_or_init(|| (step, count.saturating_sub(1)));
    failpoint::set_hook(|reached| {
        let death = DEATH.get().filter(|(step, _)| *step == reached);
        if death.is_some_and(|(_, before)| REACHED.fetch_add(1, Ordering::Relaxed) == *before) {
            // SIGKILL needs no help to end a process; should it fail, the test says so.
            let _killed = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        }
    });
    Ok(())
}

fn main() -> Result<ExitCode> {
    set_failpoint()?;
    let path = std::env::var_os("LEDGER").unwrap_or_else(|| "ledger.txt".into());
    let ledger = Ledger::open(path.as_ref())?;
    Ok(App::from_env()?
        .tasks(tasks![work, follow, flaky, returns, fails, until_told, panics, aborts])
        .tasks(tasks![sends, fires, spins, prints])
        .state(ledger)
        .run())
}
