//! An application with tasks of its own, a shared state and the whole command line.
//!
//! Its tasks write what they do into a ledger, a file outside the store: the test programs run it
//! as a real worker, kill it, and compare the ledger with what the store says.
//!
//! ```console
//! $ cargo run --example ledger -- call ledger.work -a '[500]'
//! $ LEDGER=ledger.txt cargo run --example ledger -- worker -c 4
//! ```

use celeriac::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// A file to which every run appends one line a step.
struct Ledger(File);

impl Ledger {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Appends `<step> <task id> <attempt> <pid> <microseconds>` in one write, so that lines of
    /// several processes never mix.
    fn note(&self, step: &str, cx: &Context) -> Result {
        let (id, attempt, pid) = (cx.id(), cx.attempt(), std::process::id());
        let line = format!("{step} {id} {attempt} {pid} {}\n", cx.now().as_microsecond());
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

fn main() -> Result<ExitCode> {
    let path = std::env::var_os("LEDGER").unwrap_or_else(|| "ledger.txt".into());
    let ledger = Ledger::open(path.as_ref())?;
    Ok(App::from_env()?
        .tasks(tasks![work, until_told, panics, aborts, spins, prints])
        .state(ledger)
        .run())
}
