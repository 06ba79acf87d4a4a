//! `celeriac bench`: measures this machine's store and worker beside the disk's own fsync rate.

mod backlog;

use super::Session;
use super::exit::Failed;
use super::output::object;
use crate::app::App;
use crate::arguments::{Arguments, Param};
use crate::call::Call;
use crate::client::Client;
use crate::config::{Inputs, Settings};
use crate::context::Context;
use crate::error::TaskError;
use crate::pool::Pool;
use crate::task::Task;
use celeriac_wire::Value;
use clap::Args;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

const EXAMPLES: &str = "Examples:
  celeriac bench
  celeriac bench --dir /var/lib/app --tasks 50000 --json
  celeriac bench --backlog 1000000       # takes about ten minutes

It makes a store of its own in the folder and removes it at the end. Figures depend on the disk:
compare ratios of one run, not runs of different machines.";

/// The size of a stock Celery message in the peers' benchmarks.
const PADDING_BYTES: usize = 500;
/// Fsyncs of the disk's own figure.
const FSYNCS: usize = 300;
/// Samples of the pickup latency.
const PICKUPS: usize = 300;
/// The longest that one measurement may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// Processes that send at once.
const WRITERS: usize = 4;
/// The most children of the process pool.
const CHILDREN_MAX: usize = 8;
/// How long an idle worker is watched.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchArgs {
    /// The folder whose disk is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many tasks are sent in bulk and executed
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    tasks: usize,
    /// How many tasks are sent one by one
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    single: usize,
    /// The worker's concurrency
    #[arg(short, long, value_name = "SLOTS", default_value_t = 64)]
    concurrency: usize,
    /// Instead, measure a backlog of so many tasks, waiting and then scheduled
    #[arg(long, value_name = "COUNT")]
    backlog: Option<usize>,
    /// Measure without task events
    #[arg(long)]
    no_task_events: bool,
    /// Be a writing process of another bench process, on this store
    #[arg(long, value_name = "URL", hide = true)]
    write: Option<String>,
    /// Be the idle worker of another bench process, on this store
    #[arg(long, value_name = "URL", hide = true)]
    serve: Option<String>,
}

/// A task that does nothing.
struct NoOp;

impl Task for NoOp {
    const NAME: &'static str = "bench.noop";
    const PARAMS: &'static [Param] = &[Param::required("sent_at"), Param::optional("padding")];
    type Output = i64;

    async fn run(context: Context, mut arguments: Arguments) -> Result<i64, TaskError> {
        let sent_at: i64 = arguments.required(0)?;
        Ok(context.now().as_microsecond() - sent_at)
    }
}

/// One measured figure.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

pub(super) async fn run(session: &Session, args: BenchArgs) -> Result<ExitCode, Failed> {
    // The children of the process pool come here; the store's URL is their worker's.
    drop(application("memory://")?.enter_child_of_program());
    if let Some(url) = &args.serve {
        return serve(&application(url)?, &args).await;
    }
    if let Some(url) = &args.write {
        return write(&application(url)?, args.single).await;
    }
    let folder = args.dir.join(format!("celeriac-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failed::usage(format!("cannot make {}: {error}", folder.display())))?;
    let measured = measure(session, &args, &folder).await;
    let cleaned = std::fs::remove_dir_all(&folder);
    let figures = measured?;
    cleaned?;
    let rows = figures
        .iter()
        .map(|figure| {
            let value = object([
                ("figure", Value::from(figure.name)),
                ("value", Value::from(figure.value)),
                ("unit", Value::from(figure.unit)),
            ]);
            let shown = if figure.value >= 100.0 {
                format!("{:.0}", figure.value)
            } else {
                format!("{:.2}", figure.value)
            };
            (vec![figure.name.to_owned(), shown, figure.unit.to_owned()], value)
        })
        .collect();
    session.output.list(&["FIGURE", "VALUE", "UNIT"], rows, "");
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    session: &Session,
    args: &BenchArgs,
    folder: &Path,
) -> Result<Vec<Figure>, Failed> {
    let note = |text: &str| session.output.note(text);
    if let Some(count) = args.backlog {
        return backlogs(session, args, folder, count).await;
    }
    note("measuring the disk …");
    let fsyncs = fsync_rate(folder)?;
    let mut figures = vec![Figure { name: "fsync of 4 KiB appends", value: fsyncs, unit: "per s" }];
    let url = format!("sqlite://{}", folder.join("bench.db").display());
    let app = application(&url)?;
    let client = app.client().await?;

    note("enqueue one by one …");
    let single = one_by_one(&client, args.single).await?;
    figures.push(Figure { name: "enqueue one by one", value: single, unit: "tasks/s" });
    figures.push(Figure { name: "  of the disk's fsyncs", value: single / fsyncs, unit: "ratio" });

    note("enqueue one by one, four processes …");
    figures.extend(four_writers(&url, args.single).await?);

    note("enqueue in bulk …");
    let bulk = in_bulk(&client, args.tasks).await?;
    figures.push(Figure { name: "enqueue in bulk of 500", value: bulk, unit: "tasks/s" });

    note("execute …");
    figures.extend(execute(&app, args).await?);

    note("execute in child processes …");
    figures.extend(in_processes(&app, &client, args).await?);

    note("idle pickup …");
    figures.extend(idle(&url, &client, args).await?);
    Ok(figures)
}

/// A large backlog, then as many scheduled tasks, each in a store of its own.
async fn backlogs(
    session: &Session,
    args: &BenchArgs,
    folder: &Path,
    count: usize,
) -> Result<Vec<Figure>, Failed> {
    let output = session.output;
    let url = |name: &str| format!("sqlite://{}", folder.join(name).display());
    let (waiting, scheduled) = (url("waiting.db"), url("scheduled.db"));
    output.note(format!("drain {count} waiting tasks …"));
    let app = application(&waiting)?;
    let mut figures = backlog::drain(&app, count, output, || start_worker(&waiting, args)).await?;
    output.note(format!("run {count} scheduled tasks with three workers, kill two …"));
    let app = application(&scheduled)?;
    let start = || start_worker(&scheduled, args);
    figures.extend(backlog::scheduled(&app, count, output, start).await?);
    Ok(figures)
}

/// Appends and fsyncs as the write-ahead log does.
fn fsync_rate(folder: &Path) -> Result<f64, Failed> {
    let file = File::create(folder.join("fsync"))?;
    let page = [7u8; 4096];
    // The first appends allocate; they are not the steady state.
    for at in 0..20u64 {
        file.write_all_at(&page, at * 4096)?;
        file.sync_data()?;
    }
    let began = Instant::now();
    for at in 0..FSYNCS as u64 {
        file.write_all_at(&page, (20 + at) * 4096)?;
        file.sync_data()?;
    }
    Ok(FSYNCS as f64 / began.elapsed().as_secs_f64())
}

fn call(client_now: i64) -> Call<i64> {
    Call::new::<NoOp>().arg(&client_now).arg(&"x".repeat(PADDING_BYTES))
}

async fn one_by_one(client: &Client, count: usize) -> Result<f64, Failed> {
    let began = Instant::now();
    for _ in 0..count {
        client.send(call(client.now().as_microsecond())).await?;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// How long one send takes while four processes send to one store.
async fn four_writers(url: &str, count: usize) -> Result<Vec<Figure>, Failed> {
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.args(["bench", "--write", url, "--single", &count.to_string()]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        writers.push(command.kill_on_drop(true).spawn()?);
    }
    let mut samples = Vec::new();
    for writer in writers {
        let output = writer.wait_with_output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(Failed::internal("a writing process of the bench failed"));
        }
        samples.extend(text.lines().filter_map(|line| line.trim().parse::<f64>().ok()));
    }
    if samples.is_empty() {
        return Err(Failed::internal("the writing processes of the bench measured nothing"));
    }
    samples.sort_by(f64::total_cmp);
    let percentile = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    Ok(vec![
        Figure { name: "  one send of four processes, p50", value: percentile(0.5), unit: "ms" },
        Figure { name: "  one send of four processes, p99", value: percentile(0.99), unit: "ms" },
    ])
}

/// The other process: sends one by one and prints how long each took, in milliseconds.
async fn write(app: &App, count: usize) -> Result<ExitCode, Failed> {
    let client = app.client().await?;
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        client.send(call(client.now().as_microsecond())).await?;
        lines.push((began.elapsed().as_secs_f64() * 1000.0).to_string());
    }
    super::output::Output::new(false).line(lines.join("\n"));
    Ok(ExitCode::SUCCESS)
}

async fn in_bulk(client: &Client, count: usize) -> Result<f64, Failed> {
    let began = Instant::now();
    let mut left = count;
    while left > 0 {
        let batch = left.min(500);
        let now = client.now().as_microsecond();
        client.send_all((0..batch).map(|_| call(now))).await?;
        left -= batch;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Drains the backlog that the two enqueues left.
async fn execute(app: &App, args: &BenchArgs) -> Result<Vec<Figure>, Failed> {
    let cpu_before = cpu_seconds();
    let began = Instant::now();
    let worker = app
        .worker()
        .concurrency(args.concurrency)
        .task_events(!args.no_task_events)
        .stop_when_idle(Duration::from_millis(1));
    let report = worker.run().await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let done = report.processed as f64;
    Ok(vec![
        Figure { name: "execute no-ops, results on", value: done / seconds, unit: "tasks/s" },
        Figure { name: "  per core-second", value: done / cpu, unit: "tasks" },
        Figure { name: "  events dropped", value: report.events_dropped as f64, unit: "events" },
    ])
}

/// The same in children: how long the first takes to start, and how many tasks they do.
async fn in_processes(app: &App, client: &Client, args: &BenchArgs) -> Result<Vec<Figure>, Failed> {
    let app = app.clone().enter_child_of_program();
    let worker = |slots: usize| {
        let worker = app.worker().pool(Pool::Process).concurrency(slots);
        worker.task_events(!args.no_task_events).stop_when_idle(Duration::from_millis(1))
    };
    let began = Instant::now();
    worker(1).run().await?;
    let start = began.elapsed().as_secs_f64() * 1000.0;
    in_bulk(client, args.tasks).await?;
    let began = Instant::now();
    let report = worker(args.concurrency.min(CHILDREN_MAX)).run().await?;
    let rate = report.processed as f64 / began.elapsed().as_secs_f64();
    Ok(vec![
        Figure { name: "start and end of a worker with one child", value: start, unit: "ms" },
        Figure { name: "execute no-ops in at most 8 children", value: rate, unit: "tasks/s" },
    ])
}

/// Latency from before the send to the start of the body, one task at a time on an idle worker in
/// another process; then what that process costs when nothing happens.
async fn idle(url: &str, client: &Client, args: &BenchArgs) -> Result<Vec<Figure>, Failed> {
    let mut worker = start_worker(url, args)?;
    let measured = watch_worker(client, &worker).await;
    worker.kill().await?;
    measured
}

/// This program again, as a worker on the same store.
fn start_worker(url: &str, args: &BenchArgs) -> Result<tokio::process::Child, Failed> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .args(["bench", "--serve", url, "--concurrency", &args.concurrency.to_string()])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true);
    if args.no_task_events {
        command.arg("--no-task-events");
    }
    Ok(command.spawn()?)
}

async fn watch_worker(
    client: &Client,
    worker: &tokio::process::Child,
) -> Result<Vec<Figure>, Failed> {
    let pid = worker.id().ok_or_else(|| Failed::internal("the worker process has ended"))?;
    // The first answer also tells that the worker is up.
    let first = client.send(call(client.now().as_microsecond())).await?;
    first.get(PATIENCE).await?;
    let cpu_before = process_seconds(pid);
    tokio::time::sleep(IDLE).await;
    let cpu = process_seconds(pid).zip(cpu_before).map(|(after, before)| after - before);
    let memory = pss_mib(pid);
    let mut samples = Vec::with_capacity(PICKUPS);
    for _ in 0..PICKUPS {
        let job = client.send(call(client.now().as_microsecond())).await?;
        samples.push(job.get(PATIENCE).await? as f64 / 1000.0);
    }
    samples.sort_by(f64::total_cmp);
    let percentile = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    let mut figures = vec![
        Figure { name: "send to start, idle, p50", value: percentile(0.5), unit: "ms" },
        Figure { name: "send to start, idle, p99", value: percentile(0.99), unit: "ms" },
    ];
    let cpu = cpu.map(|seconds| seconds / IDLE.as_secs_f64() * 100.0);
    figures.extend(cpu.map(|value| Figure { name: "idle CPU", value, unit: "% of a core" }));
    figures.extend(memory.map(|value| Figure { name: "idle memory (PSS)", value, unit: "MiB" }));
    Ok(figures)
}

/// The other process: a worker of the bench's task until it is killed.
async fn serve(app: &App, args: &BenchArgs) -> Result<ExitCode, Failed> {
    let worker = app.worker().concurrency(args.concurrency).task_events(!args.no_task_events);
    worker.run().await?;
    Ok(ExitCode::SUCCESS)
}

/// The bench's application on a store.
fn application(url: &str) -> Result<App, Failed> {
    let flags = vec![("broker_url", url.to_owned())];
    let settings = Settings::resolve(Inputs { flags, ..Inputs::default() })?;
    Ok(App::with_settings(settings)
        .tasks([crate::TaskDef::of::<NoOp>(), crate::TaskDef::of::<backlog::Due>()]))
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// User and system time of another process, in ticks of 10 ms; `None` without procfs.
fn process_seconds(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): the name in brackets may contain spaces; utime and stime are fields 14, 15.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Memory of another process, shared pages counted by share; `None` without procfs.
fn pss_mib(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
