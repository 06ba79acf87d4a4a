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
mod shared;
mod steward;
mod template;

pub use hello::{Backend, ConsumedQueue, Hello, LoadError, PythonEntry, PythonRedBeat, PythonTask};
pub(super) use run::run;
pub(super) use shared::Shared;
pub use template::Interpreter;

use super::crew::Crew;
use super::kind::{Born, Greeting, Kind};
use super::mortem::{News, PostMortem, Told};
use super::output::{Output, Relay, Voice};
use super::policy::Killed;
use super::{Bounds, Children};
use celeriac_wire::Map;
use frame::{FromChild, Order};
use futures::future::BoxFuture;
use job::Job;
use pace::Pace;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use steward::Steward;
use template::Template;
use tokio::sync::{Mutex, MutexGuard, watch};

/// A Celery app that is loaded, and can be forked from.
#[derive(Clone)]
pub struct PythonApp {
    interpreter: Interpreter,
    start: Arc<Map>,
    /// What it said when it was loaded first.
    hello: Arc<Hello>,
    template: Arc<Mutex<Template>>,
    /// How many children of it there are.
    lodgers: Arc<watch::Sender<usize>>,
    /// What is added to its tasks, by name.
    additions: Arc<Map>,
}

/// A child of an app, whose template it needs.
#[derive(Debug)]
struct Lodger(Arc<watch::Sender<usize>>);

impl Drop for Lodger {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
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
        let lodgers = Arc::new(watch::Sender::new(0));
        let (template, additions) = (Arc::new(Mutex::new(template)), Arc::default());
        Ok(Self { interpreter, start, hello, template, lodgers, additions })
    }

    /// The same app whose tasks have more than they say themselves: the members of `tasks` in the
    /// protocol's frame of that name. To be called before anything is forked.
    #[must_use]
    pub fn with_additions(mut self, tasks: Map) -> Self {
        self.additions = Arc::new(tasks);
        self
    }

    /// What it said of the app.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    fn lodger(&self) -> Lodger {
        self.lodgers.send_modify(|count| *count += 1);
        Lodger(Arc::clone(&self.lodgers))
    }

    /// Ends the template once its last child has: nothing is forked from it any more.
    async fn leave(self) {
        let mut lodgers = self.lodgers.subscribe();
        // The sender lives in `self`.
        drop(lodgers.wait_for(|count| *count == 0).await);
        self.template.lock().await.end();
    }

    /// The template; one that has ended is started anew first.
    async fn template(&self) -> io::Result<MutexGuard<'_, Template>> {
        let mut template = self.template.lock().await;
        if template.is_over() {
            tracing::error!("the template has ended; the app is loaded anew");
            let (anew, _hello) =
                Template::start(&self.interpreter, &self.start).await.map_err(io::Error::other)?;
            *template = anew;
        }
        template.tell(&self.additions).await?;
        Ok(template)
    }
}

/// How many tasks a child has at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// One; there are as many children as slots (Celery's `prefork`, and `solo` with one slot).
    Single,
    /// As many as there are slots; one child has them all (Celery's `threads` and `gevent`; coroutines).
    Shared,
}

/// The Python children of a worker.
#[derive(Clone)]
pub struct PythonOptions {
    /// The app that they run.
    pub app: PythonApp,
    /// How many tasks a child has at once.
    pub tenancy: Tenancy,
    /// Whether each child is an interpreter of its own, for what a fork would break; it takes as long as
    /// loading the app (Celery's `worker_pool_start_method`).
    pub spawn: bool,
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
    options: PythonOptions,
    /// What children are forked from now.
    app: RwLock<PythonApp>,
    steward: Arc<Steward>,
    pace: Pace,
}

impl Python {
    pub(super) fn new(options: PythonOptions) -> Self {
        let app = RwLock::new(options.app.clone());
        Self { options, app, steward: Arc::default(), pace: Pace::default() }
    }

    /// Forks a process of the app, with a socket, a page and pipes of its own. A template that has ended
    /// is started anew first.
    async fn bear(&self, role: &'static str, place: usize, store: bool) -> io::Result<Born<Job>> {
        let (mut job, theirs) = Job::pair()?;
        let (stdout, their_stdout) = io::pipe()?;
        let (stderr, their_stderr) = io::pipe()?;
        let page = job.page.fd().try_clone_to_owned()?;
        let theirs = [theirs, page, their_stdout.into(), their_stderr.into()];
        let app = self.app();
        job.keep(app.lodger());
        // The steward runs no tasks: a fork does.
        let process = if self.options.spawn && role != "steward" {
            template::start_child(&app, role, place, store, theirs).await?
        } else {
            app.template().await?.fork(role, place, store, theirs).await?
        };
        let voice = Voice::Relay(Arc::clone(&self.options.relay));
        match Output::new(process.pid(), [stdout.into(), stderr.into()], voice) {
            Ok(output) => Ok(Born { process, output: Arc::new(output), channel: job }),
            Err(error) => {
                process.kill(Killed::Aborted);
                Err(error)
            }
        }
    }

    fn app(&self) -> PythonApp {
        self.app.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Kind for Python {
    type Channel = Job;

    fn program(&self) -> String {
        self.app().interpreter.program.display().to_string()
    }

    async fn start(&self, place: usize) -> io::Result<Born<Job>> {
        let role = match self.options.tenancy {
            Tenancy::Single => "worker",
            Tenancy::Shared => "shared",
        };
        self.bear(role, place, self.options.store_results).await
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
        channel.sender.send(Order::Quit, 0, &[], &[]).await
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

    fn renew(&self, children: Children) {
        let Children::Python(options) = children else { return };
        let mut app = self.app.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *app, options.app);
        drop(app);
        let steward = Arc::clone(&self.steward);
        tokio::spawn(async move {
            steward.leave().await;
            before.leave().await;
        });
    }

    fn announce(crew: &Arc<Crew<Self>>, news: News) -> Option<BoxFuture<'static, ()>> {
        let kind = &crew.kind;
        let heard = kind.app().hello.receivers.iter().any(|name| name == steward::name_of(news));
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
