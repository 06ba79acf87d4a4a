//! Children that run a Celery app: Python processes, forked from a template that has loaded it.
//!
//! The worker owns broker, leases, limits, events and control; a child runs each task through the
//! installed Celery's own tracer. `control` is the socket to the template, `template` the process,
//! `hello` what it says of the app; `job` is the socket to one child, `frame` what goes over it,
//! `page` what both see, `run` one task. The protocol is `docs/reference/python-children.md`.

mod control;
mod frame;
mod hello;
mod job;
mod pace;
mod page;
mod run;
mod steward;
mod template;

pub use hello::{Backend, ConsumedQueue, Hello, LoadError, PythonTask};
pub(super) use run::run;
pub use template::Interpreter;

use super::Bounds;
use super::crew::Crew;
use super::kind::{Born, Greeting, Kind};
use super::mortem::{News, PostMortem, Told};
use super::output::{Output, Relay, Voice};
use super::policy::Killed;
use celeriac_wire::Map;
use frame::{FromChild, Order};
use futures::future::BoxFuture;
use job::Job;
use pace::Pace;
use std::fmt;
use std::io;
use std::sync::Arc;
use steward::Steward;
use template::Template;
use tokio::sync::{Mutex, MutexGuard};

/// A Celery app that is loaded, and can be forked from.
#[derive(Clone)]
pub struct PythonApp {
    interpreter: Interpreter,
    start: Arc<Map>,
    /// What it said when it was loaded first.
    hello: Arc<Hello>,
    template: Arc<Mutex<Template>>,
}

impl fmt::Debug for PythonApp {
    /// Without what it is started with, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PythonApp")
            .field("interpreter", &self.interpreter)
            .finish_non_exhaustive()
    }
}

impl PythonApp {
    /// Starts Python and has it load the app. `start` are the members of the first frame that the
    /// protocol leaves to the worker's configuration.
    ///
    /// # Errors
    /// The app cannot be loaded: whose fault that is, and what to do.
    pub async fn load(interpreter: Interpreter, start: Map) -> Result<Self, LoadError> {
        let (template, hello) = Template::start(&interpreter, &start).await?;
        let (start, hello) = (Arc::new(start), Arc::new(hello));
        Ok(Self { interpreter, start, hello, template: Arc::new(Mutex::new(template)) })
    }

    /// What it said of the app.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }
}

/// The Python children of a worker.
#[derive(Clone)]
pub struct PythonOptions {
    /// The app that they run.
    pub app: PythonApp,
    /// Whether results go through the worker; otherwise children store them themselves.
    pub store_results: bool,
    /// How many there are, and when they are replaced.
    pub bounds: Bounds,
    /// Takes what children print.
    pub relay: Relay,
}

impl fmt::Debug for PythonOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PythonOptions")
            .field("app", &self.app)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// Children that run a Celery app.
#[derive(Debug)]
pub(super) struct Python {
    pub(super) options: PythonOptions,
    steward: Steward,
    pace: Pace,
}

impl Python {
    pub(super) fn new(options: PythonOptions) -> Self {
        Self { options, steward: Steward::default(), pace: Pace::default() }
    }

    /// Forks a process of the app, with a socket, a page and pipes of its own. A template that has ended
    /// is started anew first.
    async fn bear(&self, role: &'static str, place: usize, store: bool) -> io::Result<Born<Job>> {
        let (job, theirs) = Job::pair()?;
        let (stdout, their_stdout) = io::pipe()?;
        let (stderr, their_stderr) = io::pipe()?;
        let page = job.page.fd().try_clone_to_owned()?;
        let theirs = [theirs, page, their_stdout.into(), their_stderr.into()];
        let process = self.template().await?.fork(role, place, store, theirs).await?;
        let voice = Voice::Relay(Arc::clone(&self.options.relay));
        match Output::new(process.pid(), [stdout.into(), stderr.into()], voice) {
            Ok(output) => Ok(Born { process, output: Arc::new(output), channel: job }),
            Err(error) => {
                process.kill(Killed::Aborted);
                Err(error)
            }
        }
    }

    async fn template(&self) -> io::Result<MutexGuard<'_, Template>> {
        let app = &self.options.app;
        let mut template = app.template.lock().await;
        if template.is_over() {
            tracing::error!("the template has ended; the app is loaded anew");
            let (anew, _hello) =
                Template::start(&app.interpreter, &app.start).await.map_err(io::Error::other)?;
            *template = anew;
        }
        Ok(template)
    }
}

impl Kind for Python {
    type Channel = Job;

    fn program(&self) -> String {
        self.options.app.interpreter.program.display().to_string()
    }

    async fn start(&self, place: usize) -> io::Result<Born<Job>> {
        self.bear("worker", place, self.options.store_results).await
    }

    async fn greet(&self, channel: &mut Job) -> Greeting {
        match channel.next().await {
            Ok(Some(FromChild::Ready)) => Greeting::Ready,
            Ok(Some(other)) => Greeting::Refused(format!("it said {other:?} before it was ready")),
            Ok(None) => Greeting::Ended,
            Err(error) => Greeting::Refused(format!("it cannot be understood: {error}")),
        }
    }

    async fn dismiss(&self, channel: &mut Job) -> io::Result<()> {
        channel.send(Order::Quit, 0, &[], &[]).await
    }

    fn window(&self) -> usize {
        self.pace.window()
    }

    fn tell(
        crew: &Arc<Crew<Self>>,
        mortem: PostMortem,
    ) -> Option<BoxFuture<'static, io::Result<Told>>> {
        let crew = Arc::clone(crew);
        Some(Box::pin(async move { crew.kind.steward.tell(&crew.kind, &mortem).await }))
    }

    fn announce(crew: &Arc<Crew<Self>>, news: News) -> Option<BoxFuture<'static, ()>> {
        let kind = &crew.kind;
        let heard =
            kind.options.app.hello.receivers.iter().any(|name| name == steward::name_of(news));
        // One that sits is told to leave, whoever listens.
        if !heard && news != News::Stopped {
            return None;
        }
        let crew = Arc::clone(crew);
        Some(Box::pin(async move {
            let steward = &crew.kind.steward;
            if heard {
                steward.announce(&crew.kind, news).await;
            }
            if news == News::Stopped {
                steward.dismiss().await;
            }
        }))
    }

    fn rest(&self, _channel: &mut Job) {}
}
