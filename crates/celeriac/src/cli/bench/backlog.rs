//! `celeriac bench --backlog`: what a large backlog and many scheduled tasks cost a worker.

use super::{Figure, PATIENCE, in_bulk, pss_mib};
use crate::app::App;
use crate::arguments::{Arguments, Param};
use crate::call::Call;
use crate::cli::exit::Failed;
use crate::cli::output::Output;
use crate::client::Client;
use crate::context::Context;
use crate::error::TaskError;
use crate::task::Task;
use celeriac_core::clock;
use celeriac_wire::from_value;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::Instant;

/// Scheduled tasks that become due in one second.
const DUE_PER_SECOND: u64 = 2500;
/// How long after the first worker's start the first scheduled task is due.
const LEAD: Duration = Duration::from_secs(5);
/// Later than this is late.
const LATE: Duration = Duration::from_secs(1);
/// How often memory and progress are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Workers in the run with kills.
const WORKERS: usize = 3;

/// A task that says how late it is, in microseconds, and whether an earlier owner was lost.
pub(super) struct Due;

impl Task for Due {
    const NAME: &'static str = "bench.due";
    const PARAMS: &'static [Param] = &[Param::required("due_at")];
    type Output = (i64, bool);

    async fn run(context: Context, mut arguments: Arguments) -> Result<(i64, bool), TaskError> {
        let due_at: i64 = arguments.required(0)?;
        Ok((context.now().as_microsecond() - due_at, context.is_redelivered()))
    }
}

/// Drains `count` waiting no-ops with one worker process: the rate from beginning to end, and what the
/// worker's memory grows by.
pub(super) async fn drain(
    app: &App,
    count: usize,
    output: Output,
    start: impl Fn() -> Result<Child, Failed>,
) -> Result<Vec<Figure>, Failed> {
    let client = app.client().await?;
    in_bulk(&client, count).await?;
    let mut worker = start()?;
    let measured = watch_drain(&client, count, output, &worker).await;
    worker.kill().await?;
    measured
}

async fn watch_drain(
    client: &Client,
    count: usize,
    output: Output,
    worker: &Child,
) -> Result<Vec<Figure>, Failed> {
    let pid = worker.id().ok_or_else(|| Failed::internal("the worker process has ended"))?;
    let began = Instant::now();
    let mut seen: Vec<(f64, u64)> = Vec::new();
    let (mut first, mut most) = (None, 0.0f64);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let nodes = client.store().nodes().await?;
        let node = nodes.iter().find(|node| node.info.pid == pid);
        let done = node.map_or(0, |node| node.heartbeat.processed);
        if let Some(memory) = pss_mib(pid) {
            first = first.or(Some(memory));
            most = most.max(memory);
        }
        if seen.last().is_none_or(|(_, before)| *before != done) {
            seen.push((began.elapsed().as_secs_f64(), done));
            output.note(format!("  {done} of {count}"));
        }
        if done >= count as u64 {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Failed::internal("the backlog is not drained within five minutes"));
        }
    }
    let rate = |from: f64, to: f64| {
        let share = |share: f64| {
            let wanted = (count as f64 * share) as u64;
            seen.iter().copied().find(|(_, done)| *done >= wanted).unwrap_or((0.0, 0))
        };
        let (one, two) = (share(from), share(to));
        (two.1 - one.1) as f64 / (two.0 - one.0).max(0.001)
    };
    Ok(vec![
        Figure { name: "drain, first third", value: rate(0.05, 0.35), unit: "tasks/s" },
        Figure { name: "drain, middle third", value: rate(0.35, 0.65), unit: "tasks/s" },
        Figure { name: "drain, last third", value: rate(0.65, 0.95), unit: "tasks/s" },
        Figure {
            name: "  worker memory grows by (PSS)",
            value: most - first.unwrap_or(most),
            unit: "MiB",
        },
    ])
}

/// Schedules `count` tasks, runs them with three workers of which two are killed, and says how late
/// they began.
pub(super) async fn scheduled(
    app: &App,
    count: usize,
    output: Output,
    start: impl Fn() -> Result<Child, Failed>,
) -> Result<Vec<Figure>, Failed> {
    let client = app.client().await?;
    // Sending takes its time as well; the first is due when all are in the store.
    let sending = Duration::from_secs(count as u64 / 20_000 + 1);
    let first_due = clock::after(client.now(), sending + LEAD);
    let due_of = |number: u64| {
        let after = Duration::from_micros(number * 1_000_000 / DUE_PER_SECOND);
        clock::after(first_due, after)
    };
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let from = ids.len() as u64;
        let calls = (from..(from + 500).min(count as u64)).map(|number| {
            let due = due_of(number);
            Call::<(i64, bool)>::remote(Due::NAME).arg(&due.as_microsecond()).eta(due)
        });
        ids.extend(client.send_all(calls).await?.iter().map(|job| job.id().to_owned()));
    }
    output.note(format!("  {count} are scheduled, the last for {}", due_of(count as u64)));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(start()?);
    }
    let last_due = due_of(count as u64);
    let memory = kill_two(&mut workers, &client, first_due, last_due, &start).await?;
    let mut late = Lateness::default();
    for id in &ids {
        let record = client.store().wait_result(id, PATIENCE).await?;
        let value = record.map(|record| record.meta.result().clone()).unwrap_or_default();
        let (micros, redelivered): (i64, bool) = from_value(value)
            .map_err(|error| Failed::internal(format!("the result of {id}: {error}")))?;
        late.count(micros, redelivered);
    }
    for mut worker in workers {
        worker.kill().await?;
    }
    Ok(late.figures(memory))
}

/// Watches the run, kills one worker after a third of it and another after two thirds, each replaced at
/// once; returns by how much the memory of the one that lives has grown.
async fn kill_two(
    workers: &mut [Child],
    client: &Client,
    first_due: jiff::Timestamp,
    last_due: jiff::Timestamp,
    start: &impl Fn() -> Result<Child, Failed>,
) -> Result<f64, Failed> {
    let pid = workers[0].id().unwrap_or_default();
    let span = clock::between(first_due, last_due);
    let (mut first, mut most, mut killed) = (None, 0.0f64, 0);
    while client.now() < last_due {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(memory) = pss_mib(pid) {
            first = first.or(Some(memory));
            most = most.max(memory);
        }
        let gone = clock::between(first_due, client.now());
        if killed < WORKERS - 1 && gone > span / 3 * (killed as u32 + 1) {
            killed += 1;
            workers[killed].kill().await?;
            workers[killed] = start()?;
        }
    }
    Ok(most - first.unwrap_or(most))
}

/// How late tasks began.
#[derive(Default)]
struct Lateness {
    micros: Vec<i64>,
    early: usize,
    late: usize,
    late_of_killed: usize,
}

impl Lateness {
    fn count(&mut self, micros: i64, redelivered: bool) {
        let late = micros > i64::try_from(LATE.as_micros()).unwrap_or(i64::MAX);
        self.early += usize::from(micros < 0);
        self.late += usize::from(late && !redelivered);
        self.late_of_killed += usize::from(late && redelivered);
        if !redelivered {
            self.micros.push(micros);
        }
    }

    fn figures(mut self, memory: f64) -> Vec<Figure> {
        self.micros.sort_unstable();
        let at = |share: f64| {
            let index = (self.micros.len().saturating_sub(1) as f64 * share) as usize;
            self.micros.get(index).copied().unwrap_or(0) as f64 / 1000.0
        };
        vec![
            Figure { name: "scheduled, lateness p50", value: at(0.5), unit: "ms" },
            Figure { name: "scheduled, lateness p99", value: at(0.99), unit: "ms" },
            Figure { name: "scheduled, lateness max", value: at(1.0), unit: "ms" },
            Figure { name: "  began too early", value: self.early as f64, unit: "tasks" },
            Figure { name: "  began over 1 s late", value: self.late as f64, unit: "tasks" },
            Figure {
                name: "  held by a killed worker, over 1 s late",
                value: self.late_of_killed as f64,
                unit: "tasks",
            },
            Figure { name: "  worker memory grows by (PSS)", value: memory, unit: "MiB" },
        ]
    }
}
