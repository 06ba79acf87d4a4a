//! Where a worker's tasks run, and how a program becomes a child of its own worker.

use crate::app::App;
use crate::config;
use celeriac_runtime::pool::{self, ChildTasks, Launch, Offer};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where a worker's tasks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pool {
    /// As futures of the worker's own process: light and fast, for bodies that wait a lot.
    #[default]
    Async,
    /// In child processes, one task at a time each (Celery's `prefork`): limits and cancellations
    /// are enforced on bodies that never yield, and a body that crashes takes nobody with it.
    Process,
}

impl Pool {
    /// The name in settings, flags and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Pool {
    type Err = String;

    /// Reads a name; Celery's `prefork` is `process`. The error says what to use instead.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "async" => Ok(Self::Async),
            "process" | "prefork" | "processes" => Ok(Self::Process),
            "solo" => Err("there is no pool solo: use async with a concurrency of 1".to_owned()),
            name @ ("threads" | "gevent" | "eventlet") => Err(format!(
                "there is no pool {name}: use async, where tasks wait without a thread each, or \
                 process for tasks that compute"
            )),
            _ => Err("expected async or process (Celery's prefork)".to_owned()),
        }
    }
}

/// How the tasks of a Celery application run: Celery's pools by Celery's names, and `asyncio`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PythonPool {
    /// A process for each task that runs.
    #[default]
    Prefork,
    /// One process, one task after another.
    Solo,
    /// One process with a thread for each task that runs.
    Threads,
    /// The same, for tasks that are coroutines: they run together on one event loop.
    Asyncio,
    /// One process with a greenlet for each task that runs.
    Gevent,
}

impl PythonPool {
    /// Celery's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefork => "prefork",
            Self::Solo => "solo",
            Self::Threads => "threads",
            Self::Asyncio => "asyncio",
            Self::Gevent => "gevent",
        }
    }
}

impl fmt::Display for PythonPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for PythonPool {
    type Err = String;

    /// Reads a name of Celery's `-P` or `worker_pool` (celery 5.7.0 `concurrency/__init__.py` `ALIASES`).
    /// The error says what to use instead.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "prefork" | "processes" | "process" => Ok(Self::Prefork),
            "solo" => Ok(Self::Solo),
            "threads" => Ok(Self::Threads),
            "asyncio" => Ok(Self::Asyncio),
            "gevent" => Ok(Self::Gevent),
            "eventlet" => {
                Err("there is no pool eventlet, which its own authors advise against: use \
                               gevent, threads or asyncio"
                    .to_owned())
            }
            "custom" => Err("a pool of one's own works inside Celery's worker only: keep `celery \
                             worker` for the queues that need it"
                .to_owned()),
            name if name.contains(['.', ':']) => Err(format!(
                "the pool {name} works inside Celery's own worker only: keep `celery worker` for the \
                 queues that need it"
            )),
            _ => Err("expected prefork, solo, threads, asyncio or gevent".to_owned()),
        }
    }
}

/// How the processes of a Celery application begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMethod {
    /// As forks of one that has loaded the application: in milliseconds, with its memory shared.
    #[default]
    Fork,
    /// Each loads the application itself, for libraries that a fork breaks.
    Spawn,
}

impl fmt::Display for StartMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fork => "fork",
            Self::Spawn => "spawn",
        })
    }
}

impl FromStr for StartMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "fork" => Ok(Self::Fork),
            "spawn" => Ok(Self::Spawn),
            _ => Err("expected fork or spawn".to_owned()),
        }
    }
}

impl App {
    /// The place where the children of a process pool enter: in a child it never returns, it runs
    /// tasks for its worker and ends the process. Everywhere else it gives the application back and
    /// notes how this program is started again: with the same arguments, or, in a test, with the
    /// name of the test.
    ///
    /// Call it as early as possible, on an application that has all its tasks and states; what stands
    /// before it is done by every child too. [`App::run`](App) calls it for the commands `worker` and `up`.
    /// It may be called inside an async runtime.
    ///
    /// A child takes the store and the node name from its worker; everything else, such as routes
    /// and limits, from this application.
    pub fn enter_child(self) -> Self {
        self.enter(name_of_test())
    }

    /// The same in a program with the command line, which is no test whatever its thread is named.
    #[cfg(feature = "cli")]
    pub(crate) fn enter_child_of_program(self) -> Self {
        self.enter(None)
    }

    fn enter(self, test: Option<String>) -> Self {
        if is_child() {
            pool::serve_child(Box::new(|offer| Box::pin(prepare(self, offer))));
        }
        self.with_launch(launch(test))
    }
}

/// Whether this process is a child of a worker.
pub(crate) fn is_child() -> bool {
    config::worker_of_this_child().is_some_and(pool::is_child)
}

fn launch(test: Option<String>) -> Launch {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("celeriac"));
    let arguments = match test {
        // What libtest and nextest accept to run one test on the terminal.
        Some(test) => {
            [&test, "--exact", "--nocapture", "--test-threads=1"].map(OsString::from).into()
        }
        None => arguments.collect(),
    };
    // On Linux the link leads to the program that runs, also when a deploy has replaced its file.
    let program = if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from(&name))
    };
    let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    Launch { program, name, arguments, folder }
}

/// The test harness runs each test in a thread that has the test's path as its name.
fn name_of_test() -> Option<String> {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main" && !name.starts_with("tokio-"))?;
    Some(name.to_owned())
}

/// Makes what a child runs tasks with.
async fn prepare(app: App, offer: Offer) -> Result<ChildTasks, String> {
    let app = app.in_child(&offer.broker_url, &offer.node);
    let unknown: Vec<&str> = offer
        .tasks
        .iter()
        .map(String::as_str)
        .filter(|name| !app.task_defs().iter().any(|task| task.name() == *name))
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "the child does not know {}: call enter_child on the application that has all the \
             worker's tasks",
            unknown.join(", ")
        ));
    }
    let tasks = async {
        let states = app.made_states().await?;
        Ok::<_, crate::TaskError>(ChildTasks {
            registry: Arc::new(app.registry(states).await?),
            store: app.store().await?,
            clock: Arc::clone(app.clock()),
        })
    };
    tasks.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_their_names_and_others_say_what_to_use() {
        for (name, pool) in
            [("async", Pool::Async), ("process", Pool::Process), ("prefork", Pool::Process)]
        {
            assert_eq!(name.parse(), Ok(pool));
        }
        assert_eq!(Pool::Process.to_string().parse(), Ok(Pool::Process));
        for (name, hint) in [
            ("solo", "concurrency of 1"),
            ("gevent", "use async"),
            ("eventlet", "use async"),
            ("threads", "process for tasks that compute"),
            ("fork", "expected async or process"),
        ] {
            let error = name.parse::<Pool>().unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn pools_of_python_have_celerys_names() {
        let all = [
            PythonPool::Prefork,
            PythonPool::Solo,
            PythonPool::Threads,
            PythonPool::Asyncio,
            PythonPool::Gevent,
        ];
        for pool in all {
            assert_eq!(pool.to_string().parse(), Ok(pool));
        }
        assert_eq!("processes".parse(), Ok(PythonPool::Prefork));
        for (name, hint) in [
            ("eventlet", "use gevent"),
            ("proj.pools:Mine", "keep `celery worker`"),
            ("thread", "expected prefork"),
        ] {
            let error = name.parse::<PythonPool>().unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn a_test_is_started_again_by_its_name() {
        let expected = "pool::tests::a_test_is_started_again_by_its_name";
        assert_eq!(name_of_test().as_deref(), Some(expected));
        assert_eq!(launch(name_of_test()).arguments[..2], [expected, "--exact"]);
    }
}
