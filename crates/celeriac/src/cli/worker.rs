//! `celeriac worker`.

use super::Session;
use super::beat::Beside;
use super::exit::Failed;
use super::loaded::Loaded;
use super::output::{Output, span};
use crate::app::App;
#[cfg(target_os = "linux")]
use crate::pool::PythonPool;
#[cfg(target_os = "linux")]
use crate::python;
use crate::worker::WorkerBuilder;
#[cfg(target_os = "linux")]
use celeriac_core::ErrorKind;
#[cfg(target_os = "linux")]
use celeriac_runtime::RenewHandle;
#[cfg(target_os = "linux")]
use celeriac_runtime::pool::python::Hello;
use celeriac_runtime::{StopHandle, Worker};
use clap::Args;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "Examples:
  celeriac worker -Q default,high -c 8 -l info
  celeriac worker --grace 10s --time-limit 60s
  celeriac worker -P process --autoscale 10,3
  celeriac worker -P process --max-tasks-per-child 1000 --child-memory-max 500MB
  CELERY_BROKER_URL=sqlite:///var/lib/app/queue.db celeriac worker

Signals: TERM or INT stops fetching and lets running tasks finish within the grace period; the rest
goes back to its queue. A second one, or QUIT, interrupts at once. With -A, HUP loads the application
anew and replaces its processes one by one, each after its task; one that cannot be loaded changes
nothing.";

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WorkerArgs {
    /// Queues to consume, separated by commas [default: every queue this application sends to]
    #[arg(short = 'Q', long, value_name = "QUEUES")]
    queues: Option<String>,
    /// How many tasks run at once [default: the number of CPUs]
    #[arg(short, long, value_name = "SLOTS")]
    concurrency: Option<String>,
    /// Between how many slots to move, by load: the most and the fewest, such as 10,3
    #[arg(long, value_name = "MAX,MIN")]
    autoscale: Option<String>,
    /// The node name; %h is the host, %n its first part, %d its domain [default: celery@%h]
    #[arg(short = 'n', long, value_name = "NAME")]
    hostname: Option<String>,
    /// How long running tasks may finish after TERM [default: 30s]
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,
    /// After this time a task is told to stop
    #[arg(long, value_name = "TIME")]
    soft_time_limit: Option<String>,
    /// After this time a task is stopped and fails
    #[arg(long, value_name = "TIME")]
    time_limit: Option<String>,
    /// Messages of a task that this program does not have: park, or dead-letter [default: park]
    #[arg(long, value_name = "WHAT")]
    unknown_tasks: Option<String>,
    /// Record task events (on by default; the flag is Celery's)
    #[arg(short = 'E', long, conflicts_with = "no_task_events")]
    task_events: bool,
    /// Record no task events: less history, more speed
    #[arg(long)]
    no_task_events: bool,
    /// Send no heartbeat events; leases are kept all the same
    #[arg(long, conflicts_with = "heartbeat_interval")]
    without_heartbeat: bool,
    /// Seconds between heartbeat events [default: 2]
    #[arg(long, value_name = "SECONDS")]
    heartbeat_interval: Option<String>,
    /// Do not ask other workers for their revocations at start
    #[arg(long)]
    without_mingle: bool,
    /// Celery's; a native worker listens to no events of others
    #[arg(long)]
    without_gossip: bool,
    /// Where tasks run: async, or process (prefork is its name in Celery) [default: async]; with -A
    /// prefork, solo, threads, asyncio or gevent [default: prefork]
    #[arg(short = 'P', long, value_name = "POOL")]
    pool: Option<String>,
    /// With -P process: a child ends after so many tasks
    #[arg(long, value_name = "N")]
    max_tasks_per_child: Option<String>,
    /// With -P process: a child that holds more memory ends after its task; a plain number is KiB
    #[arg(long, value_name = "KIB")]
    max_memory_per_child: Option<String>,
    /// With -P process: a child that holds more memory is killed, e.g. 500MB
    #[arg(long, value_name = "SIZE")]
    child_memory_max: Option<String>,
    /// Celery's; a worker of ours holds what it runs, and a little more while its tasks are short
    #[arg(long, value_name = "N", hide_short_help = true)]
    prefetch_multiplier: Option<u32>,
    /// Celery's; fair is what a worker of ours always is
    #[arg(short = 'O', value_name = "PROFILE", hide_short_help = true)]
    optimization: Option<String>,
    /// Serve the HTTP API, probes and metrics as well, at this address, e.g. 127.0.0.1:8555
    #[cfg(feature = "web")]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Run a beat as well; any number of workers may, one of their beats leads
    #[arg(short = 'B', long)]
    beat: bool,
    /// End when nothing was ready for this long
    #[arg(long, value_name = "TIME")]
    stop_when_idle: Option<humantime::Span>,
}

/// Parses spans in flags that are no settings.
mod humantime {
    use std::str::FromStr;
    use std::time::Duration;

    #[derive(Clone, Copy, Debug)]
    pub(super) struct Span(pub(super) Duration);

    impl FromStr for Span {
        type Err = String;
        fn from_str(text: &str) -> Result<Self, String> {
            crate::config::parse_duration(text).map(Self)
        }
    }
}

impl WorkerArgs {
    /// The flags that are settings, by their key.
    pub(super) fn flags(&self, flags: &mut Vec<(&'static str, String)>, of_app: bool) {
        let given = [
            ("queues", &self.queues),
            ("concurrency", &self.concurrency),
            ("autoscale", &self.autoscale),
            ("node_name", &self.hostname),
            ("grace", &self.grace),
            ("soft_time_limit", &self.soft_time_limit),
            ("time_limit", &self.time_limit),
            (if of_app { "python_pool" } else { "pool" }, &self.pool),
            ("max_tasks_per_child", &self.max_tasks_per_child),
            ("max_memory_per_child", &self.max_memory_per_child.as_deref().map(kib)),
            ("child_memory_max", &self.child_memory_max),
            ("unknown_tasks", &self.unknown_tasks),
            ("heartbeat_events", &self.heartbeat_interval),
        ];
        #[cfg(feature = "web")]
        flags.extend(self.http.clone().map(|address| ("http_worker", address)));
        for (key, value) in given {
            if let Some(value) = value {
                flags.push((key, value.clone()));
            }
        }
        if self.without_heartbeat {
            flags.push(("heartbeat_events", "0".to_owned()));
        }
        if self.without_mingle {
            flags.push(("mingle", "false".to_owned()));
        }
        if self.task_events || self.no_task_events {
            flags.push(("task_events", self.task_events.to_string()));
        }
    }
}

/// Celery's `--max-memory-per-child` counts in KiB (`celery/bin/worker.py` 5.7); our setting in
/// bytes.
fn kib(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { format!("{text}KiB") } else { text.to_owned() }
}

pub(super) async fn run(session: &Session, args: WorkerArgs) -> Result<ExitCode, Failed> {
    if let Some(loaded) = &session.python {
        return run_app(session, args, loaded).await;
    }
    if session.app.task_defs().is_empty() {
        return Err(Failed::usage("this program has no tasks to run").hint(
            "a worker is your own program: register tasks and call App::run (see `cargo doc`), \
             or try `celeriac demo`",
        ));
    }
    let worker = builder(&session.app, &args).build().await?.restart_with(Arc::new(start_anew));
    banner(session)?;
    #[cfg(feature = "web")]
    let _served =
        super::serve::beside_worker(session, &session.app.settings().node_name.value).await?;
    let beat = beside(session, args.beat).await?;
    let code = serve(worker, None).await;
    if let Some(beat) = beat {
        beat.stop().await;
    }
    code
}

/// The beat beside this worker, if one is wanted.
async fn beside(session: &Session, wanted: bool) -> Result<Option<Beside>, Failed> {
    Ok(if wanted { Some(Beside::start(session).await?) } else { None })
}

fn builder(app: &App, args: &WorkerArgs) -> WorkerBuilder {
    let builder = app.worker();
    match args.stop_when_idle {
        Some(idle) => builder.stop_when_idle(idle.0),
        None => builder,
    }
}

/// Runs the worker until it is told to stop.
async fn serve(worker: Worker, output: Option<Output>) -> Result<ExitCode, Failed> {
    let signals = tokio::spawn(stop_on_signals(worker.stop_handle(), output));
    let report = worker.run().await.map_err(crate::TaskError::from);
    signals.abort();
    let report = report?;
    tracing::info!(
        processed = report.processed,
        succeeded = report.succeeded,
        failed = report.failed,
        returned = report.returned,
        "worker stopped"
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs the worker of a Python application.
#[cfg(target_os = "linux")]
async fn run_app(session: &Session, args: WorkerArgs, loaded: &Loaded) -> Result<ExitCode, Failed> {
    let pool = args.pool.as_deref();
    let refused = python::refusal(loaded.0.hello(), session.app.settings(), pool);
    if let Some(python::Refusal { text, hint, .. }) = refused {
        return Err(Failed::configuration(text).hint(hint));
    }
    let builder = builder(&session.app, &args);
    let worker = builder.clone().python(loaded.0.clone()).build().await?;
    app_banner(session, loaded.0.hello());
    let of_tasks = python::task_warnings(loaded.0.hello(), session.app.settings());
    for text in python::warnings(loaded.0.hello()).into_iter().chain(of_tasks) {
        tracing::warn!("{text}");
    }
    wait_for_broker(session, python::connection_tries(loaded.0.hello())).await?;
    #[cfg(feature = "web")]
    let _served = super::serve::beside_worker(session, &loaded.0.hello().hostname).await?;
    let beat = beside(session, args.beat).await?;
    tracing::info!("{} ready.", loaded.0.hello().hostname);
    let renewing =
        tokio::spawn(renew_on_signal(builder, loaded.clone(), args.pool, worker.renew_handle()));
    let code = serve(worker, Some(session.output)).await;
    if let Some(beat) = beat {
        beat.stop().await;
    }
    renewing.abort();
    code
}

/// HUP: the application is loaded anew.
#[cfg(target_os = "linux")]
async fn renew_on_signal(
    builder: WorkerBuilder,
    loaded: Loaded,
    pool: Option<String>,
    handle: RenewHandle,
) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let settings = builder.application().settings();
    while hangup.recv().await.is_some() {
        tracing::info!("the application is loaded anew");
        let renewal = match loaded.again(settings).await {
            Ok(app) => match python::refusal(app.hello(), settings, pool.as_deref()) {
                Some(refusal) => Err(format!("{}; {}", refusal.text, refusal.hint)),
                None => python::renewal(&app, &builder).map_err(|error| error.to_string()),
            },
            Err(text) => Err(text),
        };
        match renewal {
            Ok(renewal) => _ = handle.renew(renewal).await,
            Err(text) => tracing::error!("everything stays as it is: {text}"),
        }
    }
}

#[cfg(not(target_os = "linux"))]
async fn run_app(
    _session: &Session,
    _args: WorkerArgs,
    loaded: &Loaded,
) -> Result<ExitCode, Failed> {
    match *loaded {}
}

/// What Celery's worker shows before its first task, and whose worker this is.
#[cfg(target_os = "linux")]
fn app_banner(session: &Session, hello: &Hello) {
    for line in &hello.banner {
        session.output.line(line);
    }
    for (what, names) in what_is_missing(hello, session.app.settings().python_pool.value) {
        if !names.is_empty() {
            tracing::warn!("the app has {what}: {}", names.join(", "));
        }
    }
    let settings = session.app.settings();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        python = hello.python,
        celery = hello.celery,
        lease = span(settings.lease_expiry.value),
        "celeriac runs this worker"
    );
}

/// What an app has that this version does not run, each with its names.
#[cfg(target_os = "linux")]
fn what_is_missing(hello: &Hello, pool: PythonPool) -> [(&'static str, Vec<&str>); 3] {
    let green = pool == PythonPool::Gevent;
    let coroutines = hello.tasks.iter().filter(|(_, task)| green && task.coroutine);
    [
        (
            "threads that children will not have: they are forked after the app is loaded",
            hello.threads.iter().map(String::as_str).collect(),
        ),
        (
            "bootsteps, which this version does not run",
            hello.steps.iter().map(String::as_str).collect(),
        ),
        (
            "tasks that are coroutines, which greenlets cannot run, here as under Celery; -P asyncio does",
            coroutines.map(|(name, _)| name.as_str()).collect(),
        ),
    ]
}

/// Waits until the broker answers, as Celery's worker does (`broker_connection_retry_on_startup`).
#[cfg(target_os = "linux")]
async fn wait_for_broker(session: &Session, tries: Option<u32>) -> Result<(), Failed> {
    const PAUSE: Duration = Duration::from_secs(2);
    const PAUSE_MAX: Duration = Duration::from_secs(32);
    let settings = session.app.settings();
    let url = celeriac_stores::redacted(&settings.broker_url.value);
    let store = session.app.store().await?;
    let (most, of) =
        (tries.unwrap_or(u32::MAX), tries.map_or(String::new(), |most| format!("/{most}")));
    for number in 1..=most {
        // Any short question does.
        match store.pauses().await {
            Ok(_) => {
                tracing::info!("Connected to {url}");
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && number < most => {
                let pause = PAUSE.saturating_mul(number).min(PAUSE_MAX);
                let seconds = pause.as_secs_f64();
                tracing::error!(
                    "consumer: Cannot connect to {url}: {error}. Trying again in {seconds:.2} \
                     seconds... ({number}{of})"
                );
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Replaces this process by a fresh one with the same arguments and the same process id: whoever
/// supervises it sees no end. SQLite's files are closed on the way, with their locks.
fn start_anew() {
    #[cfg(target_os = "linux")]
    let program = Ok(PathBuf::from("/proc/self/exe"));
    #[cfg(not(target_os = "linux"))]
    let program = std::env::current_exe();
    let failed = match program {
        Ok(program) => {
            let mut arguments = std::env::args_os();
            let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
            #[expect(clippy::disallowed_methods, reason = "the worker becomes itself again")]
            let mut command = Command::new(program);
            command.arg0(name).args(arguments).exec()
        }
        Err(error) => error,
    };
    tracing::error!(error = %failed, "cannot start anew; the process ends");
    #[expect(clippy::exit, reason = "a thread of this process is lost for ever")]
    std::process::exit(1);
}

/// What runs where, before the first task does.
fn banner(session: &Session) -> Result<(), Failed> {
    let settings = session.app.settings();
    let queues: Vec<String> =
        session.app.worker_queues()?.iter().map(ToString::to_string).collect();
    let tasks: Vec<&str> = session.app.task_defs().iter().map(crate::TaskDef::name).collect();
    let note = |text: String| session.output.note(text);
    note(format!("celeriac {} · {}", env!("CARGO_PKG_VERSION"), settings.node_name.value));
    note(format!("  store        {}", celeriac_stores::redacted(&settings.broker_url.value)));
    note(format!("  concurrency  {} ({})", settings.concurrency.value, settings.pool.value));
    note(format!("  queues       {}", queues.join(", ")));
    note(format!("  tasks        {}", tasks.join(", ")));
    note(format!("  grace        {}", span(settings.grace.value)));
    note(format!("{} ready.", settings.node_name.value));
    Ok(())
}

/// What Celery's worker prints when it is told to stop (celery 5.7.0 apps/worker.py).
fn said(output: Output, warm: bool, signal: &str) {
    if signal == "SIGINT" && warm {
        output.line(
            "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!",
        );
    }
    let how = if warm { "Warm" } else { "Cold" };
    output.line(format!("worker: {how} shutdown (MainProcess)"));
}

/// TERM and INT: grace, then now. QUIT: now. `output`: of the worker of a Celery app.
async fn stop_on_signals(stop: StopHandle, output: Option<Output>) {
    let open =
        |kind| signal(kind).map_err(|error| tracing::error!(%error, "cannot listen to a signal"));
    let (Ok(mut term), Ok(mut int), Ok(mut quit)) =
        (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()))
    else {
        return;
    };
    let mut asked = 0;
    loop {
        let name;
        tokio::select! {
            _ = term.recv() => name = "SIGTERM",
            _ = int.recv() => name = "SIGINT",
            _ = quit.recv() => name = "SIGQUIT",
        }
        asked = if name == "SIGQUIT" { 2 } else { asked + 1 };
        if let (Some(output), 1 | 2) = (output, asked) {
            said(output, asked == 1, name);
        }
        if asked == 1 {
            tracing::info!("stopping: no new tasks, running ones may finish; again to interrupt");
            stop.grace_on(name);
        } else {
            tracing::warn!("stopping now: running tasks go back to their queues");
            stop.now_on(name);
        }
    }
}
