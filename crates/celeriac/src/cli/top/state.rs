//! What `top` shows, made from looks at the store and from events. No terminal and no store in here.

use super::super::output::{cell, clock, object, plural, span};
use celeriac_core::StoreError;
use celeriac_core::clock::between;
use celeriac_core::document;
use celeriac_core::monitor::{Monitor, WorkerState};
use celeriac_core::store::{NodeView, Pause, Phase, QueueView, TaskView};
use celeriac_wire::{Event, Map, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The longest name in a cell, in characters.
const NAME_CHARS_MAX: usize = 48;

/// What the store said at one moment.
pub(super) struct Look {
    pub(super) at: Timestamp,
    pub(super) location: String,
    pub(super) queues: Vec<QueueView>,
    pub(super) nodes: Vec<NodeView>,
    pub(super) running: Vec<TaskView>,
    pub(super) pauses: Vec<Pause>,
}

/// What queues are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Ready,
    Scheduled,
    Leased,
    Dead,
}

/// A table with its title.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) header: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
    /// What stands there instead of no row.
    pub(super) empty: &'static str,
}

/// Events of tasks since the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    received: u64,
    succeeded: u64,
    failed: u64,
    retried: u64,
}

/// A look and what was counted until then.
struct Seen {
    look: Look,
    /// Events a second since the look before, and the change of each queue; none at the first look.
    rates: Option<Rates>,
}

struct Rates {
    events: [(&'static str, f64); 4],
    /// By how many messages a second a queue grew, whether they wait or run.
    queues: BTreeMap<String, f64>,
}

/// Everything that `top` knows.
pub(super) struct Top {
    monitor: Monitor,
    tally: Tally,
    seen: Option<Seen>,
    trouble: Option<String>,
    sort: Sort,
}

impl Top {
    /// Nothing is known yet; `utcoffset` as for [`Monitor::new`].
    pub(super) fn new(utcoffset: f64) -> Self {
        let monitor = Monitor::new(utcoffset);
        Self { monitor, tally: Tally::default(), seen: None, trouble: None, sort: Sort::default() }
    }

    pub(super) fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
    }

    pub(super) fn heard(&mut self, event: &Event, received: Timestamp) {
        match event.kind() {
            Some("task-received") => self.tally.received += 1,
            Some("task-succeeded") => self.tally.succeeded += 1,
            Some("task-failed") => self.tally.failed += 1,
            Some("task-retried") => self.tally.retried += 1,
            _ => {}
        }
        self.monitor.heard(event, received);
    }

    pub(super) fn looked(&mut self, look: Look) {
        let tally = std::mem::take(&mut self.tally);
        let rates = self.seen.as_ref().and_then(|before| rates(&before.look, &look, tally));
        self.seen = Some(Seen { look, rates });
        self.trouble = None;
    }

    /// The store does not answer; what it said last stays on the screen.
    pub(super) fn failed(&mut self, error: &StoreError) {
        self.trouble = Some(error.to_string());
    }

    /// The lines above the tables.
    pub(super) fn head(&self, now: Timestamp) -> Vec<String> {
        let Some(Seen { look, rates }) = &self.seen else {
            let waiting = "waiting for the store".to_owned();
            return vec![self.trouble.clone().unwrap_or(waiting), String::new()];
        };
        let sum = |count: fn(&QueueView) -> u64| look.queues.iter().map(count).sum::<u64>();
        let age = between(look.at, now);
        let first = match &self.trouble {
            Some(trouble) => format!("as of {} ago: {trouble}", span(age)),
            None => format!("{}  {}", look.location, clock(look.at)),
        };
        let mut second = format!(
            "{} ready, {} scheduled, {} leased, {} dead",
            sum(|queue| queue.ready),
            sum(|queue| queue.scheduled),
            sum(|queue| queue.leased),
            sum(|queue| queue.dead),
        );
        for (name, rate) in rates.iter().flat_map(|rates| rates.events) {
            let _infallible = write!(second, "  {name} {rate:.1}/s");
        }
        let mut lines = vec![first, second];
        if !look.pauses.is_empty() {
            let paused: Vec<String> =
                look.pauses.iter().map(|pause| pause.target.to_string()).collect();
            lines.push(format!("paused: {}", paused.join(", ")));
        }
        lines
    }

    /// Queues, workers and running tasks.
    pub(super) fn sections(&self, now: Timestamp) -> [Section; 3] {
        let queues: Vec<_> = self.queues().iter().map(|one| self.queue_cells(one, now)).collect();
        let workers: Vec<_> = self.workers(now).iter().map(Worker::cells).collect();
        let running: Vec<_> = self.running(now).iter().map(|run| run.cells(now)).collect();
        [
            Section {
                title: plural(queues.len() as u64, "queue"),
                header: &[
                    "QUEUE",
                    "READY",
                    "SCHEDULED",
                    "LEASED",
                    "DEAD",
                    "CHANGE",
                    "OLDEST",
                    "WORKERS",
                    "",
                ],
                rows: queues,
                empty: "no queue has a message, a worker or a dead letter",
            },
            Section {
                title: plural(workers.len() as u64, "worker"),
                header: &["WORKER", "PID", "POOL", "UP", "BUSY", "DONE", "QUEUES"],
                rows: workers,
                empty: "no worker is there",
            },
            Section {
                title: plural(running.len() as u64, "running task"),
                header: &["FOR", "TASK", "WORKER", "QUEUE", "ID"],
                rows: running,
                empty: "nothing runs",
            },
        ]
    }

    /// The same for programs.
    pub(super) fn document(&self, now: Timestamp) -> Value {
        let look = self.seen.as_ref().map(|seen| &seen.look);
        let rates = self.seen.as_ref().and_then(|seen| seen.rates.as_ref());
        let queues = self.queues().into_iter().map(|queue| {
            let mut value = document::queue(queue);
            let change = rates.and_then(|rates| rates.queues.get(&queue.name));
            if let Value::Object(map) = &mut value {
                map.insert("change_per_second", change.map_or(Value::Null, |at| Value::from(*at)));
            }
            value
        });
        let mut per_second = Map::default();
        for (name, rate) in rates.iter().flat_map(|rates| rates.events) {
            per_second.insert(name, rate);
        }
        let pauses = look.into_iter().flat_map(|look| &look.pauses).map(document::pause);
        object([
            ("store", document::text(look.map(|look| look.location.as_str()))),
            ("at", document::time(look.map(|look| look.at))),
            ("per_second", Value::Object(per_second)),
            ("paused", Value::Array(pauses.collect())),
            ("queues", Value::Array(queues.collect())),
            ("workers", Value::Array(self.workers(now).iter().map(Worker::document).collect())),
            ("running", Value::Array(self.running(now).iter().map(Run::document).collect())),
        ])
    }

    fn queues(&self) -> Vec<&QueueView> {
        let mut queues: Vec<&QueueView> =
            self.seen.iter().flat_map(|seen| &seen.look.queues).collect();
        let count: fn(&QueueView) -> u64 = match self.sort {
            Sort::Name => |_| 0,
            Sort::Ready => |queue| queue.ready,
            Sort::Scheduled => |queue| queue.scheduled,
            Sort::Leased => |queue| queue.leased,
            Sort::Dead => |queue| queue.dead,
        };
        queues.sort_by(|a, b| count(b).cmp(&count(a)).then_with(|| a.name.cmp(&b.name)));
        queues
    }

    fn queue_cells(&self, queue: &QueueView, now: Timestamp) -> Vec<String> {
        let rates = self.seen.as_ref().and_then(|seen| seen.rates.as_ref());
        let change = rates.and_then(|rates| rates.queues.get(&queue.name));
        vec![
            cell(&queue.name, NAME_CHARS_MAX),
            queue.ready.to_string(),
            queue.scheduled.to_string(),
            queue.leased.to_string(),
            queue.dead.to_string(),
            change.map_or_else(String::new, |change| format!("{change:+.1}/s")),
            queue.oldest.map_or_else(String::new, |at| span(between(at, now))),
            queue.consumers.len().to_string(),
            if queue.paused { "paused".to_owned() } else { String::new() },
        ]
    }

    /// Ours that are alive, and Celery's that were heard of; the busiest first.
    fn workers(&self, now: Timestamp) -> Vec<Worker> {
        let nodes = self.seen.iter().flat_map(|seen| &seen.look.nodes);
        let known: Vec<&NodeView> = nodes.collect();
        let ours = known.iter().filter(|node| node.alive).map(|node| Worker::ours(node, now));
        let is_ours = |name: &str| known.iter().any(|node| node.info.name == name);
        let heard = self.monitor.workers().filter(|worker| worker.is_alive(now));
        let theirs = heard.filter(|worker| !is_ours(&worker.hostname)).map(Worker::theirs);
        let mut workers: Vec<Worker> = ours.chain(theirs).collect();
        workers.sort_by(|a, b| b.active.cmp(&a.active).then_with(|| a.name.cmp(&b.name)));
        workers
    }

    /// What runs, the longest first: the store knows of ours, events tell of the rest.
    fn running(&self, now: Timestamp) -> Vec<Run> {
        let look = self.seen.as_ref().map(|seen| &seen.look);
        let mut runs: Vec<Run> =
            look.into_iter().flat_map(|look| &look.running).filter_map(Run::ours).collect();
        let is_ours = |name: &str| {
            look.is_some_and(|look| look.nodes.iter().any(|node| node.info.name == name))
        };
        for task in self.monitor.tasks().filter(|task| task.state == "STARTED") {
            let Some(worker) = task.worker.as_deref().filter(|name| !is_ours(name)) else {
                continue;
            };
            if !self.monitor.worker(worker).is_some_and(|worker| worker.is_alive(now)) {
                continue;
            }
            let since = task.times.get("started").map_or(0.0, |at| at * 1e6) as i64;
            runs.push(Run {
                task: task.name().unwrap_or_default().to_owned(),
                id: task.uuid.clone(),
                queue: task.text("queue").unwrap_or_default().to_owned(),
                worker: worker.to_owned(),
                since: Timestamp::from_microsecond(since).unwrap_or(now),
            });
        }
        runs.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
        runs
    }
}

/// Per second between two looks; none when no time has passed.
fn rates(before: &Look, now: &Look, tally: Tally) -> Option<Rates> {
    let seconds = between(before.at, now.at).as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let held = |queue: &QueueView| (queue.ready + queue.scheduled + queue.leased) as f64;
    let then: BTreeMap<&str, f64> =
        before.queues.iter().map(|queue| (queue.name.as_str(), held(queue))).collect();
    let change = |queue: &QueueView| {
        let then = then.get(queue.name.as_str()).copied().unwrap_or_default();
        (queue.name.clone(), (held(queue) - then) / seconds)
    };
    let rate = |count: u64| count as f64 / seconds;
    Some(Rates {
        events: [
            ("received", rate(tally.received)),
            ("succeeded", rate(tally.succeeded)),
            ("failed", rate(tally.failed)),
            ("retried", rate(tally.retried)),
        ],
        queues: now.queues.iter().map(change).collect(),
    })
}

/// A worker, whoever's it is.
struct Worker {
    name: String,
    pid: Option<u64>,
    pool: String,
    up: Option<Duration>,
    active: u64,
    slots: Option<u64>,
    processed: u64,
    queues: Vec<String>,
}

impl Worker {
    fn ours(node: &NodeView, now: Timestamp) -> Self {
        Self {
            name: node.info.name.clone(),
            pid: Some(u64::from(node.info.pid)),
            pool: node.info.pool.clone(),
            up: Some(between(node.started_at, now)),
            active: u64::from(node.heartbeat.active),
            slots: Some(u64::from(node.info.concurrency)),
            processed: node.heartbeat.processed,
            queues: node.info.queues.iter().map(|queue| queue.as_str().to_owned()).collect(),
        }
    }

    /// Celery's heartbeats tell neither slots nor queues.
    fn theirs(worker: &WorkerState) -> Self {
        let number = |field: &str| worker.fields.get(field).and_then(Value::as_u64);
        Self {
            name: worker.hostname.clone(),
            pid: number("pid"),
            pool: "Celery's".to_owned(),
            up: None,
            active: number("active").unwrap_or_default(),
            slots: None,
            processed: number("processed").unwrap_or_default(),
            queues: Vec::new(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let slots = self.slots.map_or_else(String::new, |slots| format!("/{slots}"));
        vec![
            cell(&self.name, NAME_CHARS_MAX),
            self.pid.map_or_else(String::new, |pid| pid.to_string()),
            self.pool.clone(),
            self.up.map_or_else(String::new, span),
            format!("{}{slots}", self.active),
            self.processed.to_string(),
            cell(&self.queues.join(","), NAME_CHARS_MAX),
        ]
    }

    fn document(&self) -> Value {
        let number = |value: Option<u64>| value.map_or(Value::Null, document::count);
        object([
            ("name", Value::from(self.name.as_str())),
            ("pid", number(self.pid)),
            ("celerys", Value::from(self.slots.is_none())),
            ("active", document::count(self.active)),
            ("concurrency", number(self.slots)),
            ("processed", document::count(self.processed)),
            ("queues", self.queues.iter().map(String::as_str).collect()),
        ])
    }
}

/// A task that runs.
struct Run {
    task: String,
    id: String,
    queue: String,
    worker: String,
    since: Timestamp,
}

impl Run {
    fn ours(view: &TaskView) -> Option<Self> {
        let Phase::Running { worker, since } = &view.phase else { return None };
        Some(Self {
            task: view.task.clone().unwrap_or_default(),
            id: view.task_id.clone(),
            queue: view.queue.clone().unwrap_or_default(),
            worker: worker.clone(),
            since: *since,
        })
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        vec![
            span(between(self.since, now)),
            cell(&self.task, NAME_CHARS_MAX),
            cell(&self.worker, NAME_CHARS_MAX),
            cell(&self.queue, NAME_CHARS_MAX),
            self.id.clone(),
        ]
    }

    fn document(&self) -> Value {
        object([
            ("task_id", Value::from(self.id.as_str())),
            ("task", Value::from(self.task.as_str())),
            ("queue", Value::from(self.queue.as_str())),
            ("worker", Value::from(self.worker.as_str())),
            ("since", document::time(Some(self.since))),
        ])
    }
}
