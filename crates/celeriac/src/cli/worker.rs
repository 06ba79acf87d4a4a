//! `celeriac worker`.

use super::Session;
use super::beside::Beside;
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
use tokio_util::sync::CancellationToken;

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
    pub(super) beat: bool,
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

/// Refuses what cannot be run here.
pub(super) fn check(session: &Session, args: &WorkerArgs) -> Result<(), Failed> {
    if args.beat {
        super::beat::check(session)?;
    }
    if let Some(loaded) = &session.python {
        return check_app(session, args, loaded);
    }
    if session.app.task_defs().is_empty() {
        return Err(Failed::usage("this program has no tasks to run").hint(
            "a worker is your own program: register tasks and call App::run (see `cargo doc`), \
             or try `celeriac demo`",
        ));
    }
    Ok(())
}

/// The worker's node name.
pub(super) fn node(session: &Session) -> &str {
    #[cfg(target_os = "linux")]
    if let Some(loaded) = &session.python {
        return &loaded.hello().hostname;
    }
    &session.app.settings().node_name.value
}

/// Runs a worker, and `beside` with it.
pub(super) async fn run(
    session: &Session,
    args: WorkerArgs,
    mut beside: Beside,
) -> Result<ExitCode, Failed> {
    check(session, &args)?;
    if let Some(loaded) = &session.python {
        return run_app(session, args, beside, loaded).await;
    }
    let worker = builder(&session.app, &args).build().await?.restart_with(Arc::new(start_anew));
    #[cfg(feature = "web")]
    let _served = super::serve::beside_worker(session, node(session), &beside).await?;
    if args.beat {
        super::beat::start_beside(session, &mut beside).await?;
    }
    banner(session, &beside)?;
    serve(worker, None, beside).await
}

fn builder(app: &App, args: &WorkerArgs) -> WorkerBuilder {
    let builder = app.worker();
    match args.stop_when_idle {
        Some(idle) => builder.stop_when_idle(idle.0),
        None => builder,
    }
}

/// Runs the worker until it is told to stop, or until what runs beside it ends by itself: the process does
/// not go on by half.
async fn serve(
    worker: Worker,
    output: Option<Output>,
    mut beside: Beside,
) -> Result<ExitCode, Failed> {
    let stop = worker.stop_handle();
    let signals = tokio::spawn(stop_on_signals(stop.clone(), output, beside.now()));
    let mut running = Box::pin(worker.run());
    let mut broken = None;
    // The worker is polled on until it has ended.
    let report = tokio::select! {
        report = &mut running => report,
        part = beside.broken() => {
            tracing::error!("{part} ended by itself: the worker stops too");
            broken = Some(part);
            stop.grace();
            running.await
        }
    };
    beside.stop().await;
    signals.abort();
    let report = report.map_err(crate::TaskError::from)?;
    tracing::info!(
        processed = report.processed,
        succeeded = report.succeeded,
        failed = report.failed,
        returned = report.returned,
        "worker stopped"
    );
    broken.map_or(Ok(ExitCode::SUCCESS), |part| {
        let text = format!("{part} ended by itself, and the worker was stopped for it");
        Err(Failed::internal(text).hint("the log says why; start the process again"))
    })
}

/// Refuses a Python application that does not run here.
#[cfg(target_os = "linux")]
fn check_app(session: &Session, args: &WorkerArgs, loaded: &Loaded) -> Result<(), Failed> {
    let pool = args.pool.as_deref();
    let refused = python::refusal(loaded.0.hello(), session.app.settings(), pool);
    refused.map_or(Ok(()), |python::Refusal { text, hint, .. }| {
        Err(Failed::configuration(text).hint(hint))
    })
}

#[cfg(not(target_os = "linux"))]
fn check_app(_session: &Session, _args: &WorkerArgs, loaded: &Loaded) -> Result<(), Failed> {
    match *loaded {}
}

/// Runs the worker of a Python application.
#[cfg(target_os = "linux")]
async fn run_app(
    session: &Session,
    args: WorkerArgs,
    mut beside: Beside,
    loaded: &Loaded,
) -> Result<ExitCode, Failed> {
    let builder = builder(&session.app, &args);
    let worker = builder.clone().python(loaded.0.clone()).build().await?;
    app_banner(session, loaded.0.hello());
    let of_tasks = python::task_warnings(loaded.0.hello(), session.app.settings());
    for text in python::warnings(loaded.0.hello()).into_iter().chain(of_tasks) {
        tracing::warn!("{text}");
    }
    wait_for_broker(session, python::connection_tries(loaded.0.hello())).await?;
    let node = node(session);
    #[cfg(feature = "web")]
    let _served = super::serve::beside_worker(session, node, &beside).await?;
    if args.beat {
        super::beat::start_beside(session, &mut beside).await?;
    }
    if beside.address().is_some() {
        what_runs(session, &beside, &[]);
    }
    tracing::info!("{node} ready.");
    let renewing =
        tokio::spawn(renew_on_signal(builder, loaded.clone(), args.pool, worker.renew_handle()));
    let code = serve(worker, Some(session.output), beside).await;
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
    _beside: Beside,
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
fn banner(session: &Session, beside: &Beside) -> Result<(), Failed> {
    let settings = session.app.settings();
    let queues: Vec<String> =
        session.app.worker_queues()?.iter().map(ToString::to_string).collect();
    let tasks: Vec<&str> = session.app.task_defs().iter().map(crate::TaskDef::name).collect();
    let rows = [
        ("concurrency", format!("{} ({})", settings.concurrency.value, settings.pool.value)),
        ("queues", queues.join(", ")),
        ("tasks", tasks.join(", ")),
        ("grace", span(settings.grace.value)),
    ];
    what_runs(session, beside, &rows);
    session.output.note(format!("{} ready.", settings.node_name.value));
    Ok(())
}

/// Says what runs: the worker with these facts, and what is beside it.
fn what_runs(session: &Session, beside: &Beside, of_worker: &[(&'static str, String)]) {
    let url = celeriac_stores::redacted(&session.app.settings().broker_url.value);
    let note = |text: String| session.output.note(text);
    note(format!("celeriac {} · {}", env!("CARGO_PKG_VERSION"), node(session)));
    let of_worker = of_worker.iter().map(|(name, text)| (*name, text.as_str()));
    for (name, text) in [("store", url.as_str())].into_iter().chain(of_worker).chain(beside.rows())
    {
        note(format!("  {name:11}  {text}"));
    }
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

/// TERM and INT: grace, then now. QUIT: now. `output`: of the worker of a Celery app. `at_once` is cancelled
/// for what else is to end now.
async fn stop_on_signals(stop: StopHandle, output: Option<Output>, at_once: CancellationToken) {
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
            at_once.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_does_not_go_on_without_what_runs_beside_it() {
        let worker = App::at("memory://").unwrap().worker().build().await.unwrap();
        let mut beside = Beside::default();
        beside.start("beat", String::new(), |_end| async { panic!("on purpose") });
        let failed = serve(worker, None, beside).await.unwrap_err();
        assert_eq!(failed.code, 1);
        assert!(failed.message.contains("beat ended by itself"), "{failed:?}");
    }
}
