//! What the test programs share: children in a clean environment, stores, and one way to wait.

#![allow(dead_code, reason = "each test program uses its part")]

use celeriac::App;
use celeriac_core::store::{Page, Store};
use celeriac_testkit::process::{Process, read_ledger};
#[allow(unused_imports, reason = "each test program uses its part")]
pub(crate) use celeriac_testkit::process::{pass, until};
use celeriac_testkit::services::redis::Redis;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// Longer than anything takes on a busy machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The first page of any list.
pub(crate) const ALL: Page = Page { after: 0, count_max: 1000 };

/// A folder with a store in it.
pub(crate) struct Place {
    dir: TempDir,
    url: String,
    /// Ends the place's own server when it is dropped.
    _server: Option<std::sync::mpsc::Sender<()>>,
}

impl Place {
    /// An empty SQLite store.
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("queue.db").display());
        Self { dir, url, _server: None }
    }

    /// An empty store that processes share: SQLite, or a Redis of its own where the variable
    /// `CELERIAC_TEST_STORE` says `redis`.
    pub(crate) fn shared() -> Self {
        match std::env::var_os("CELERIAC_TEST_STORE") {
            None => Self::sqlite(),
            Some(store) if store == "redis" => Self::redis(),
            Some(other) => {
                panic!("CELERIAC_TEST_STORE is `redis` or not set, not {}", other.display())
            }
        }
    }

    /// Whether [`Place::shared`] is SQLite.
    pub(crate) fn is_embedded() -> bool {
        std::env::var_os("CELERIAC_TEST_STORE").is_none()
    }

    /// An empty Redis, in a thread that ends it with the place.
    pub(crate) fn redis() -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (server, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let redis = runtime.block_on(Redis::options().append_only().start());
            tell.send(redis.url()).unwrap();
            let _dropped = ended.recv();
            let _runtime = runtime.enter();
            drop(redis);
        });
        let url = told.recv().expect("redis-server starts");
        Self { dir: tempfile::tempdir().unwrap(), url, _server: Some(server) }
    }

    /// A store that is there already.
    pub(crate) fn at(url: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: url.to_owned(), _server: None }
    }

    /// A store at `path`, elsewhere than the ledger and the logs.
    pub(crate) fn with_store_at(path: &Path) -> Self {
        let url = format!("sqlite://{}", path.display());
        Self { dir: tempfile::tempdir().unwrap(), url, _server: None }
    }

    /// A store in memory; each application that opens it gets its own.
    pub(crate) fn memory() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: "memory://".to_owned(), _server: None }
    }

    /// One of each kind, for what must be true on every store.
    pub(crate) fn every() -> [Self; 2] {
        [Self::memory(), Self::shared()]
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
    example("ledger")
}

/// An example program.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    let shown = program.display();
    assert!(program.exists(), "{shown} is missing: cargo build -p celeriac --example {name}");
    program
}

/// A real worker process.
pub(crate) struct Worker(Process);

impl Deref for Worker {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Worker {
    /// Starts the ledger application's worker; its log is in the test's folder.
    pub(crate) fn spawn(place: &Place, name: &str, lease: &str, args: &[&str]) -> Self {
        Self::dies_at(place, name, lease, args, None)
    }

    /// The same, which dies when it reaches a step.
    pub(crate) fn dies_at(
        place: &Place,
        name: &str,
        lease: &str,
        args: &[&str],
        failpoint: Option<&str>,
    ) -> Self {
        let mut command = command(&ledger_program(), place.dir());
        let host = if name.contains('@') { "" } else { "@%h" };
        let node = format!("{name}{host}");
        command.env("CELERIAC_LEASE_EXPIRY", lease).args([
            "-b",
            place.url(),
            "worker",
            "-n",
            &node,
        ]);
        command.args(args).envs(failpoint.map(|step| ("CELERIAC_FAILPOINT", step)));
        Self(Process::spawn(&mut command, place.path(&format!("{name}.log"))))
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

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE * 2).await
    }
}

/// One line of the ledger, of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) step: String,
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) micros: i64,
    /// Workers that have died with it before.
    pub(crate) deaths: u32,
}

/// Everything in the ledger of a test's folder; a line that is being written is left out.
pub(crate) fn ledger(place: &Place) -> Vec<Line> {
    let line = |line: celeriac_testkit::ledger::Line| Line {
        step: line.what.as_str().to_owned(),
        pid: line.who.parse().unwrap(),
        deaths: line.get("deaths").map_or(0, |deaths| deaths.parse().unwrap()),
        id: line.id,
        micros: line.micros,
    };
    read_ledger(&place.path("ledger.txt")).into_iter().map(line).collect()
}

/// How many lines of this step the ledger has.
pub(crate) fn count(place: &Place, step: &str) -> usize {
    ledger(place).iter().filter(|line| line.step == step).count()
}
