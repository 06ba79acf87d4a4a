//! What the test programs share: children in a clean environment, stores, and one way to wait.

#![allow(dead_code, reason = "each test program uses its part")]

use celeriac::App;
use celeriac_core::store::{Page, Store};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Longer than anything takes on a busy machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The first page of any list.
pub(crate) const ALL: Page = Page { after: 0, count_max: 1000 };

/// Waits until `probe` finds something. What other processes do rings no bell here, so it looks
/// again and again: the only place in the tests that does.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A folder with a store in it.
pub(crate) struct Place {
    dir: TempDir,
    url: String,
}

impl Place {
    /// An empty SQLite store.
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("queue.db").display());
        Self { dir, url }
    }

    /// A store at `path`, elsewhere than the ledger and the logs.
    pub(crate) fn with_store_at(path: &Path) -> Self {
        let url = format!("sqlite://{}", path.display());
        Self { dir: tempfile::tempdir().unwrap(), url }
    }

    /// A store in memory; each application that opens it gets its own.
    pub(crate) fn memory() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: "memory://".to_owned() }
    }

    /// One of each kind, for what must be true on every store.
    pub(crate) fn every() -> [Self; 2] {
        [Self::memory(), Self::sqlite()]
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An application without tasks on this store.
    pub(crate) fn app(&self) -> App {
        App::at(&self.url).unwrap()
    }
}

/// A program in the folder of its test, without the settings of whoever runs the tests.
pub(crate) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.current_dir(dir).env_clear().env("PATH", path).env("LEDGER", dir.join("ledger.txt"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) async fn new(command: &mut Command) -> Self {
        let ended = tokio::time::timeout(PATIENCE * 4, command.output());
        let output = ended.await.expect("the program ends").unwrap();
        Self {
            code: output.status.code().expect("the program is not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit code; a failure shows everything that was printed.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that stdout has each of these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "{text:?} is not on stdout: {self:#?}");
        }
        self
    }

    /// Asserts that stderr has each of these texts.
    #[track_caller]
    pub(crate) fn warns(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not on stderr: {self:#?}");
        }
        self
    }
}

/// The example `ledger`, which cargo builds with the tests.
pub(crate) fn ledger_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/ledger");
    let shown = program.display();
    assert!(program.exists(), "{shown} is missing: cargo build -p celeriac --example ledger");
    program
}

/// A real worker process.
pub(crate) struct Worker {
    child: Child,
    pub(crate) pid: u32,
    log: PathBuf,
}

impl Worker {
    /// Starts the ledger application's worker; its log is in the test's folder.
    pub(crate) fn spawn(place: &Place, name: &str, lease: &str, args: &[&str]) -> Self {
        let log = place.path(&format!("{name}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = command(&ledger_program(), place.dir());
        command.env("CELERIAC_LEASE_EXPIRY", lease).args(["-b", place.url(), "worker", "-n", name]);
        command.args(args).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        Self { child, pid, log }
    }

    /// Starts one and waits until it is registered.
    pub(crate) async fn start(
        place: &Place,
        store: &Arc<dyn Store>,
        name: &str,
        lease: &str,
        args: &[&str],
    ) -> Self {
        let worker = Self::spawn(place, name, lease, args);
        let pid = worker.pid;
        until("the worker is registered", PATIENCE, async || {
            let nodes = store.nodes().await.unwrap();
            nodes.iter().any(|node| node.info.pid == pid).then_some(())
        })
        .await;
        worker
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE * 2, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the worker does not end:\n{}", self.log())).unwrap()
    }

    /// Kills it, as the kernel does.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().await.unwrap();
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) step: String,
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) micros: i64,
}

/// Everything in the ledger of a test's folder; a line that is being written is left out.
pub(crate) fn ledger(place: &Place) -> Vec<Line> {
    let text = std::fs::read_to_string(place.path("ledger.txt")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let cells: Vec<&str> = line.split(' ').collect();
        Line {
            step: cells[0].to_owned(),
            id: cells[1].to_owned(),
            pid: cells[3].parse().unwrap(),
            micros: cells[4].parse().unwrap(),
        }
    };
    whole.lines().map(line).collect()
}

/// How many lines of this step the ledger has.
pub(crate) fn count(place: &Place, step: &str) -> usize {
    ledger(place).iter().filter(|line| line.step == step).count()
}

/// Lets time pass where the passing of time is what is tested: a random moment for a fault, or a
/// lease that must run out.
pub(crate) async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}
