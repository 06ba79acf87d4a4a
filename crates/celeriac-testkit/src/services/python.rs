//! Real Celery: the Python environments that `scripts/test.sh` makes, scripts in them, and workers.

use crate::process::{Process, bind_to_us, until};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// How long a script may run.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a worker may take to be ready: it imports Celery, on a machine that builds.
const READY: Duration = Duration::from_mins(1);

/// The folder of the environments: `CELERIAC_VENVS`, or `target/venvs` of the workspace.
pub fn environments() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venvs");
    std::env::var_os("CELERIAC_VENVS").map_or(workspace, PathBuf::from)
}

/// A Python that has Celery.
#[derive(Clone, Debug)]
pub struct Python {
    /// The version of Celery, as `5.7`.
    pub version: String,
    program: PathBuf,
}

impl Python {
    /// The environment with this version of Celery; says so when there is none.
    ///
    /// # Panics
    /// When there is none and `CI` is set.
    pub fn with_celery(version: &str) -> Option<Self> {
        Self::of_environment(&format!("celery-{version}"), version)
    }

    /// The environment with libraries for this version of Celery; says so when there is none.
    ///
    /// # Panics
    /// When there is none and `CI` is set.
    pub fn with_libraries(version: &str) -> Option<Self> {
        Self::of_environment(&format!("libraries-{version}"), version)
    }

    /// An environment of another name, as `redbeat-5.7`; says so when there is none.
    ///
    /// # Panics
    /// When there is none and `CI` is set.
    pub fn in_environment(name: &str) -> Option<Self> {
        let version = name.rsplit_once('-').map_or("", |(_, version)| version);
        Self::of_environment(name, version)
    }

    /// The environment with this version of `APScheduler`, and without Celery; says so when there is none.
    ///
    /// # Panics
    /// When there is none and `CI` is set.
    pub fn with_apscheduler(version: &str) -> Option<Self> {
        Self::of_environment(&format!("apscheduler-{version}"), "")
    }

    fn of_environment(name: &str, version: &str) -> Option<Self> {
        let folder = environments().join(name);
        let program = folder.join("bin/python");
        // The stamp is written last, so that a half made environment is not taken for one.
        if program.is_file() && folder.join("requirements.stamp").is_file() {
            return Some(Self { version: version.to_owned(), program });
        }
        super::skip(&format!("no {name}: scripts/test.sh makes {}", folder.display()));
        None
    }

    /// The interpreter.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// An app in a folder of its own: `source` is its module `proj`, and the pairs are put into the
    /// environment of all that runs there.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn app(&self, source: &str, environment: &[(&str, &str)]) -> App {
        let folder = tempfile::Builder::new().prefix("celery-").tempdir().expect("a folder");
        std::fs::write(folder.path().join("proj.py"), source).expect("a file in a new folder");
        let own = |text: &&str| OsString::from(text);
        let environment = environment.iter().map(|(name, value)| (own(name), own(value))).collect();
        App { python: self.clone(), folder, environment }
    }
}

/// A Celery app: the module `proj` in a folder of its own.
#[derive(Debug)]
pub struct App {
    /// What runs it.
    pub python: Python,
    folder: TempDir,
    environment: Vec<(OsString, OsString)>,
}

/// How a script ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed to stdout.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
}

impl App {
    /// The folder with `proj.py`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `python` in the folder and with the environment of the app; it dies with the test.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.python.program);
        self.prepare(&mut command);
        command
    }

    /// Has a program run in the folder and with the environment of the app.
    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).envs(self.environment.iter().cloned());
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONPATH", self.folder.path());
        // What the caller has set must not reach the app.
        for name in ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE"] {
            if self.environment.iter().all(|(set, _)| set != name) {
                command.env_remove(name);
            }
        }
        bind_to_us(command);
    }

    /// Runs `python` with arguments to its end.
    ///
    /// # Panics
    /// If it cannot be started or takes too long.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let Ok(output) = tokio::time::timeout(PATIENCE, command.output()).await else {
            panic!("python {arguments:?} does not end");
        };
        let output = output.expect("python can be started");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Ended { status: output.status, stdout, stderr }
    }

    /// Runs a script (`from proj import app` and so on) and returns what it printed.
    ///
    /// # Panics
    /// If it fails, with what it printed.
    pub async fn script(&self, source: &str) -> String {
        let ended = self.run(&["-c", source]).await;
        assert!(ended.status.success(), "the script failed:\n{}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Runs `celery -A proj …` to its end.
    ///
    /// # Panics
    /// If it cannot be started or takes too long.
    pub async fn celery(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["-m", "celery", "-A", "proj"], arguments].concat()).await
    }

    /// Starts `celery -A proj worker -n <name>@test …` and waits until it is ready.
    ///
    /// # Panics
    /// If it ends before, or takes too long; with its log.
    pub async fn worker(&self, name: &str, arguments: &[&str]) -> CeleryWorker {
        let mut command = self.command();
        command.args(["-m", "celery"]);
        self.start_worker(command, name, arguments).await
    }

    /// Starts `<program> -A proj worker -n <name>@test …`, celeriac in the place of Celery, and waits
    /// until it is ready.
    ///
    /// # Panics
    /// As [`App::worker`].
    pub async fn worker_of(&self, program: &Path, name: &str, arguments: &[&str]) -> CeleryWorker {
        let mut command = Command::new(program);
        self.prepare(&mut command);
        command.arg("--python").arg(&self.python.program);
        self.start_worker(command, name, arguments).await
    }

    async fn start_worker(
        &self,
        mut command: Command,
        name: &str,
        arguments: &[&str],
    ) -> CeleryWorker {
        let node = format!("{name}@test");
        command.args(["-A", "proj", "worker", "-l", "INFO", "-n", &node]);
        // A group of its own, so that its children can be killed with it.
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        let log = self.folder.path().join(format!("{name}.log"));
        let mut worker = CeleryWorker { node, process: Process::spawn(&mut command, log) };
        until("the worker is ready", READY, async || {
            let log = worker.log();
            assert!(!worker.process.is_over(), "the worker ended:\n{log}");
            log.contains(&format!("{} ready.", worker.node)).then_some(())
        })
        .await;
        worker
    }
}

/// A real Celery worker. It dies with this value, and so do its children.
#[derive(Debug)]
pub struct CeleryWorker {
    /// Its node name.
    pub node: String,
    process: Process,
}

impl CeleryWorker {
    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The id of its main process.
    pub fn pid(&self) -> i32 {
        self.process.pid.cast_signed()
    }

    /// The process of its parent.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it has logged a text.
    ///
    /// # Panics
    /// If it does not, with the log.
    pub async fn logs(&self, text: &str) {
        let said = until(text, PATIENCE, async || self.log().contains(text).then_some(()));
        said.await;
    }

    /// Asks it to finish its tasks and waits until it has ended.
    ///
    /// # Panics
    /// If it does not end, with the log.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.ended_within(PATIENCE).await
    }

    /// Kills it and its children, as a machine that loses power does.
    pub async fn kill9(&mut self) {
        self.kill_group();
        self.process.ended_within(PATIENCE).await;
    }

    fn kill_group(&self) {
        if let Some(group) = Pid::from_raw(self.process.pid.cast_signed()) {
            // It may be gone already.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for CeleryWorker {
    fn drop(&mut self) {
        // A process that was waited for has no group any more, and its id may belong to another.
        if !self.process.is_over() {
            self.kill_group();
        }
    }
}
