//! The command line, for the `celeriac` binary and for every application's own.

mod beat;
mod bench;
mod beside;
mod call;
mod completions;
mod config;
mod dead;
mod doctor;
mod elsewhere;
mod events;
mod exit;
mod jsonl;
mod limit;
mod loaded;
mod logging;
mod man;
mod output;
mod pause;
mod progress;
mod purge;
mod queue;
mod remote;
mod result;
mod schedule;
#[cfg(feature = "web")]
mod serve;
mod signals;
mod status;
mod store;
mod task;
#[cfg(feature = "web")]
mod token;
mod top;
#[cfg(feature = "web")]
mod up;
mod why;
mod worker;

use crate::app::App;
use crate::config::Settings;
use crate::schedule::Zone;
use beside::Beside;
use clap::{CommandFactory as _, Parser, Subcommand};
use exit::Failed;
use logging::Dress;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal error; 2 wrong command line; 3 wrong \
    configuration; 4 store unavailable or full; 5 the answer is no (task failed, not found, not \
    ready, refused); 69 no worker replied.";

/// Celery-compatible task queue: workers, tasks, queues and dead letters.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    // Not a doc comment: those want URLs in brackets, which people would copy.
    #[arg(
        short,
        long,
        global = true,
        value_name = "URL",
        help = "The store, e.g. sqlite:///var/lib/app/queue.db or memory:// [default: sqlite://celeriac.db]"
    )]
    broker: Option<String>,
    /// Where results are kept: on Redis perhaps another database of the same server
    #[arg(long, global = true, value_name = "URL")]
    result_backend: Option<String>,
    /// The settings file [default: celeriac.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A Python application: its module, or module:attribute
    #[arg(short = 'A', long = "app", global = true, value_name = "APP")]
    app: Option<String>,
    /// The Python that has the application's packages
    #[arg(long, global = true, value_name = "PROGRAM")]
    python: Option<String>,
    /// Go to this folder first
    #[arg(long, global = true, value_name = "FOLDER")]
    workdir: Option<PathBuf>,
    /// Print JSON for programs instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// Log level: debug, info, warning, error, critical
    #[arg(short = 'l', long, global = true, value_name = "LEVEL")]
    loglevel: Option<String>,
    /// How log lines are written: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run tasks
    Worker(worker::WorkerArgs),
    /// Send what is due; any number may run, one leads
    Beat(beat::BeatArgs),
    /// Run a worker, a beat and the HTTP server in one process
    #[cfg(feature = "web")]
    Up(up::UpArgs),
    /// Show a durable task queue at work: profile a CSV file
    Demo(crate::demo::DemoArgs),
    /// Send a task by name
    Call(call::CallArgs),
    /// Print the result of a task
    Result(result::ResultArgs),
    /// Say why a task does not run, or what became of it
    Why(why::WhyArgs),
    /// Look at tasks, retry and cancel them
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Look at queues, pause, purge and load them
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at dead letters, replay, edit and discard them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Look at what runs at its time; add, change, pause, import
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Limit how many tasks start and run, in all workers together
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Hold a task, a key, a queue or everything back
    Pause(pause::PauseArgs),
    /// Let what was paused go on
    Resume(pause::ResumeArgs),
    /// List what is paused
    Pauses,
    /// Back up, check and compact the store's files
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Show workers and queues
    Status(status::StatusArgs),
    /// Watch queues, workers and running tasks, live
    Top(top::TopArgs),
    /// Ask workers, Celery's included: ping, stats, active, scheduled, registered and more
    Inspect(remote::InspectArgs),
    /// Tell workers, Celery's included: revoke, terminate, shutdown and more
    Control(remote::ControlArgs),
    /// Print what happens, as it happens
    Events(events::EventsArgs),
    /// Delete the waiting messages of queues
    Purge(purge::PurgeArgs),
    /// Move the messages of queues from one broker to another
    Migrate(queue::MigrateArgs),
    /// List queues and bindings
    #[command(subcommand)]
    List(purge::ListCommand),
    /// Find what is wrong with an application, its files, or a broker
    Doctor(doctor::DoctorArgs),
    /// Print what a bug report needs
    #[command(after_help = "Example:\n  celeriac report")]
    Report,
    /// Serve the HTTP API, probes and metrics
    #[cfg(feature = "web")]
    Serve(serve::ServeArgs),
    /// Make, list and revoke tokens for the HTTP API
    #[cfg(feature = "web")]
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Celery's Flower; this version has no pages yet
    #[cfg(feature = "web")]
    #[command(hide = true, alias = "flower")]
    Dashboard,
    /// Look at the settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell; it completes names of queues, tasks and workers too
    Completions(completions::CompletionsArgs),
    /// Print a manual page, or write one for each command
    Man(man::ManArgs),
    /// Measure this machine's store and worker
    Bench(bench::BenchArgs),
}

impl Command {
    /// Whether it was given Celery's short `-j`.
    fn asks_for_json(&self) -> bool {
        match self {
            Self::Inspect(args) => args.json(),
            Self::Control(args) => args.json(),
            Self::Status(args) => args.json(),
            _ => false,
        }
    }

    /// Whether a worker runs in this process.
    fn runs_worker(&self) -> bool {
        match self {
            Self::Worker(_) => true,
            #[cfg(feature = "web")]
            Self::Up(_) => true,
            _ => false,
        }
    }

    /// Whether it sends entries of a schedule, or may be asked to: then an application says more of itself.
    fn needs_schedule(&self, settings: &Settings) -> bool {
        match self {
            Self::Beat(_) | Self::Schedule(_) => true,
            Self::Worker(args) => args.beat || settings.http.worker.value.is_some(),
            #[cfg(feature = "web")]
            Self::Up(_) | Self::Serve(_) => true,
            _ => false,
        }
    }

    /// Whether it makes no sense without a store that exists: it must not make an empty one.
    fn only_looks(&self) -> bool {
        match self {
            Self::Result(_)
            | Self::Why(_)
            | Self::Task(_)
            | Self::Dead(_)
            | Self::Resume(_)
            | Self::Pauses
            | Self::Store(_)
            | Self::Status(_)
            | Self::Top(_)
            | Self::Purge(_)
            | Self::List(_) => true,
            Self::Schedule(command) => command.only_looks(),
            Self::Queue(command) => !matches!(command, queue::QueueCommand::Load { .. }),
            _ => false,
        }
    }
}

/// What every command gets.
struct Session {
    app: App,
    output: Output,
    /// The Python application that `-A` names.
    python: Option<loaded::Loaded>,
}

impl Session {
    /// The zone of entries that name none: the Python application's, or UTC.
    fn zone(&self) -> Result<Zone, Failed> {
        #[cfg(target_os = "linux")]
        if let Some(loaded) = &self.python {
            return crate::python::zone(loaded.hello()).map_err(Failed::configuration);
        }
        Ok(Zone::utc())
    }

    /// Refuses to make an empty store only to look into it.
    fn expect_store(&self) -> Result<(), Failed> {
        let url = &self.app.settings().broker_url.value;
        if celeriac_stores::exists(url) != Some(false) {
            return Ok(());
        }
        let text = format!("there is no store at {}", celeriac_stores::redacted(url));
        Err(Failed::unavailable(text)
            .hint("give its URL with -b or CELERIAC_BROKER_URL; see `celeriac config show`"))
    }
}

impl App {
    /// Gives this application the command line: `worker`, `call`, `task`, `queue`, `dead` and the
    /// rest, with its tasks registered. Reads the process's arguments.
    ///
    /// The settings are read anew, since flags take part in them.
    pub fn run(self) -> ExitCode {
        if let Some(code) = completions::answer(&self) {
            return code;
        }
        let cli = match Cli::try_parse() {
            Ok(cli) => cli,
            Err(error) => {
                if let Some(failed) = elsewhere::of(&error) {
                    return Output::new(false).fail(&failed);
                }
                // Help and version are answers, not errors; clap knows the stream and the code.
                let code = u8::try_from(error.exit_code()).unwrap_or(2);
                let _unwritable = error.print();
                return ExitCode::from(code);
            }
        };
        let output = Output::new(cli.json || cli.command.asks_for_json());
        match start(self, cli, output) {
            Ok(code) => code,
            Err(failed) => output.fail(&failed),
        }
    }
}

/// Every command, for those who describe them.
fn command() -> clap::Command {
    Cli::command()
}

fn start(app: App, cli: Cli, output: Output) -> Result<ExitCode, Failed> {
    if let Some(folder) = &cli.workdir {
        std::env::set_current_dir(folder).map_err(|error| {
            Failed::usage(format!("--workdir {}: {error}", folder.display()))
                .hint("name a folder that is there and may be entered")
        })?;
    }
    let flags = flags(&cli);
    let config = cli.config.as_deref();
    let own = cli.app.as_ref().map(|_| Vec::new());
    let settings = Settings::load_with_app(app.program_settings(), own, flags.clone(), config)?;
    let runs_worker = cli.command.runs_worker();
    let runs_app = cli.app.is_some() && runs_worker;
    let quiet = match cli.command {
        // Celery's worker is silent unless it is asked to speak.
        _ if runs_worker && !runs_app => LevelFilter::INFO,
        Command::Beat(_) => LevelFilter::INFO,
        #[cfg(feature = "web")]
        Command::Serve(_) => LevelFilter::INFO,
        // The demo tells itself what happens; other commands speak up when something is wrong.
        Command::Demo(_) => LevelFilter::OFF,
        _ => LevelFilter::WARN,
    };
    logging::start(&settings, quiet, if runs_app { Dress::Celery } else { Dress::Plain });
    let mut app = app.replace_settings(settings);
    if runs_worker && !runs_app {
        app = app.enter_child_of_program();
    }
    let runtime = runtime_of(runs_app)
        .enable_all()
        .build()
        .map_err(|error| Failed::internal(format!("start the async runtime: {error}")))?;
    if let Command::Doctor(args) = cli.command {
        // What keeps an application from being loaded is a finding, and not the end.
        let patient = doctor::Patient { app, name: cli.app, flags, config: cli.config, output };
        return runtime.block_on(doctor::run(patient, args));
    }
    let mut python = None;
    if let Some(name) = &cli.app {
        let of_schedule = cli.command.needs_schedule(app.settings());
        let loading = loaded::load(name, app.settings(), runs_app, of_schedule);
        let loaded = runtime.block_on(loading)?;
        let settings = loaded.settings(app.program_settings(), flags, config)?;
        app = loaded.with_task_options(app.replace_settings(settings));
        python = Some(loaded);
    }
    for warning in app.settings().warnings() {
        output.warn(warning);
    }
    let session = Session { app, output, python };
    if cli.command.only_looks() {
        session.expect_store()?;
    }
    let code = runtime.block_on(dispatch(session, cli.command));
    #[cfg(feature = "otel")]
    runtime.block_on(crate::otel::flush());
    // A task that blocks its thread must not keep the process alive after its lease was returned.
    runtime.shutdown_background();
    code
}

/// One thread is enough to feed children, and what it does not hand over to others takes a quarter off the
/// cost of a task; leases are kept by a thread of their own.
fn runtime_of(runs_app: bool) -> tokio::runtime::Builder {
    if runs_app {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    }
}

/// The flags that are settings, by their key.
fn flags(cli: &Cli) -> Vec<(&'static str, String)> {
    let mut flags = Vec::new();
    let mut add = |key, value: &Option<String>| {
        if let Some(value) = value {
            flags.push((key, value.clone()));
        }
    };
    add("broker_url", &cli.broker);
    add("result_backend", &cli.result_backend);
    add("log_level", &cli.loglevel);
    add("log_format", &cli.log_format);
    add("python", &cli.python);
    match &cli.command {
        Command::Worker(args) => args.flags(&mut flags, cli.app.is_some()),
        #[cfg(feature = "web")]
        Command::Up(args) => args.flags(&mut flags, cli.app.is_some()),
        #[cfg(feature = "web")]
        Command::Serve(args) => args.flags(&mut flags),
        _ => {}
    }
    flags
}

async fn dispatch(session: Session, command: Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Worker(args) => worker::run(&session, args, Beside::default()).await,
        #[cfg(feature = "web")]
        Command::Up(args) => up::run(&session, args).await,
        Command::Beat(args) => beat::run(&session, args).await,
        Command::Schedule(command) => schedule::run(&session, command).await,
        Command::Demo(args) => crate::demo::run(&session.app, args).await.map_err(Failed::from),
        Command::Call(args) => call::run(&session, args).await,
        Command::Result(args) => result::run(&session, args).await,
        Command::Why(args) => why::run(&session, args).await,
        Command::Task(command) => task::run(&session, command).await,
        Command::Queue(command) => queue::run(&session, command).await,
        Command::Dead(command) => dead::run(&session, command).await,
        Command::Limit(command) => limit::run(&session, command).await,
        Command::Pause(args) => pause::pause(&session, args).await,
        Command::Resume(args) => pause::resume(&session, args).await,
        Command::Pauses => pause::list(&session).await,
        Command::Store(command) => store::run(&session, command).await,
        Command::Status(args) => status::run(&session, args).await,
        Command::Top(args) => top::run(&session, args).await,
        Command::Inspect(args) => remote::inspect(&session, args).await,
        Command::Control(args) => remote::control(&session, args).await,
        Command::Events(args) => events::run(&session, args).await,
        Command::Purge(args) => purge::purge(&session, args).await,
        Command::Migrate(args) => queue::migrate(&session, args).await,
        Command::List(command) => purge::list(&session, command).await,
        Command::Doctor(_) => Err(Failed::internal("doctor runs before an application is loaded")),
        Command::Report => Ok(purge::report(&session)),
        #[cfg(feature = "web")]
        Command::Serve(_) => serve::run(&session).await,
        #[cfg(feature = "web")]
        Command::Token(command) => token::run(&session, command),
        #[cfg(feature = "web")]
        Command::Dashboard => Err(serve::no_dashboard()),
        Command::Config(command) => Ok(config::run(&session, &command)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&session, &args),
        Command::Bench(args) => bench::run(&session, args).await,
    }
}
