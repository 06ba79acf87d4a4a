//! What a monitor knows of workers and tasks from their events alone. Pure.
//!
//! celery 5.7.0 events/state.py (wire specification 6.6). Events may come late, twice, and out of
//! order; the view is bounded, and what was heard of longest ago goes first.

use celeriac_wire::{Event, Map, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The most tasks that are remembered (celery 5.7.0 events/state.py `max_tasks_in_memory`).
pub const TASKS_MAX: usize = 10_000;
/// The most workers that are remembered (`max_workers_in_memory`).
pub const WORKERS_MAX: usize = 5000;
/// A worker is alive for so many of its periods after it was heard (`HEARTBEAT_EXPIRE_WINDOW`, 200 %).
const WINDOW: f64 = 2.0;
/// The period of a worker that has not told it, in seconds.
const FREQ: f64 = 60.0;
/// The most heartbeats of a worker that are remembered (`Worker.heartbeat_max`).
const HEARTBEATS_MAX: usize = 4;
/// Fields of a `task-received` that count even when the task is further already (`Task.merge_rules`).
const OF_RECEIVED: [&str; 8] =
    ["name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires"];

/// A worker, as its events tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerState {
    /// Its node name.
    pub hostname: String,
    /// Every field of its latest events: `pid`, `active`, `processed`, `loadavg`, `sw_ident` and so on.
    pub fields: Map,
    /// When it was heard of last, by the monitor's clock, in seconds since 1970; at most the last
    /// four, oldest first; none after `worker-offline`.
    pub heartbeats: Vec<f64>,
    /// When it was touched last.
    turn: u64,
}

impl WorkerState {
    /// Seconds between two of its heartbeats.
    pub fn freq(&self) -> f64 {
        let freq = self.fields.get("freq").and_then(Value::as_f64);
        freq.filter(|freq| freq.is_finite() && *freq > 0.0).unwrap_or(FREQ)
    }

    /// Whether it was heard of recently enough.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.heartbeats.last().is_some_and(|last| seconds(now) < last + self.freq() * WINDOW)
    }

    fn heard(&mut self, received: f64) {
        if self.heartbeats.len() >= HEARTBEATS_MAX {
            self.heartbeats.remove(0);
        }
        let place = self.heartbeats.partition_point(|at| *at <= received);
        self.heartbeats.insert(place, received);
    }
}

/// A task, as its events tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskState {
    /// Its id.
    pub uuid: String,
    /// Its state: `RECEIVED`, `STARTED`, `SUCCESS`, or a custom type in capitals.
    pub state: String,
    /// When each type of its events was sent, in seconds since 1970: `received`, `started` and so on.
    pub times: BTreeMap<String, f64>,
    /// Every field of its events: `name`, `args`, `result`, `runtime` and so on.
    pub fields: Map,
    /// When the event was sent that gave it its state, in seconds since 1970.
    pub timestamp: f64,
    /// The worker that has it, once one has.
    pub worker: Option<String>,
    /// Who sent it, where that was told.
    pub client: Option<String>,
    turn: u64,
}

impl TaskState {
    /// A field as text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    /// Its name, once it is known.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    fn event(&mut self, kind: &str, timestamp: f64, fields: &Map) {
        let known = state_of(kind);
        if known.is_some() {
            self.times.insert(kind.to_owned(), timestamp);
        }
        let state = known.map_or_else(|| kind.to_uppercase(), str::to_owned);
        let late = state != "RETRY"
            && self.state != "RETRY"
            && precedence(&state) > precedence(&self.state);
        if late {
            let keep = |name: &str| state != "RECEIVED" || OF_RECEIVED.contains(&name);
            for (name, value) in fields.iter().filter(|(name, _)| keep(name)) {
                self.fields.insert(name, value.clone());
            }
            return;
        }
        for (name, value) in fields.iter() {
            self.fields.insert(name, value.clone());
        }
        (self.state, self.timestamp) = (state, timestamp);
    }
}

/// The state after an event of this type (`TASK_EVENT_TO_STATE`).
fn state_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "sent" => "PENDING",
        "received" => "RECEIVED",
        "started" => "STARTED",
        "failed" => "FAILURE",
        "retried" => "RETRY",
        "succeeded" => "SUCCESS",
        "revoked" => "REVOKED",
        "rejected" => "REJECTED",
        _ => return None,
    })
}

/// How final a state is: the lower, the more (celery 5.7.0 states.py `PRECEDENCE`).
fn precedence(state: &str) -> usize {
    const ORDER: [&str; 9] = [
        "SUCCESS", "FAILURE", "", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING",
    ];
    ORDER.iter().position(|known| *known == state).unwrap_or(2)
}

fn seconds(instant: Timestamp) -> f64 {
    instant.as_nanosecond() as f64 / 1e9
}

/// The view of a monitor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monitor {
    utcoffset: f64,
    workers: BTreeMap<String, WorkerState>,
    tasks: BTreeMap<String, TaskState>,
    /// Tasks and workers by when they were touched last.
    task_turns: BTreeMap<u64, String>,
    worker_turns: BTreeMap<u64, String>,
    turn: u64,
    events: u64,
}

impl Monitor {
    /// An empty view on a machine that is so many hours west of UTC ([`crate::event::hours_west`]).
    pub fn new(utcoffset: f64) -> Self {
        Self { utcoffset, ..Self::default() }
    }

    /// Takes note of an event that was received at this time. What is no event of a worker or a task,
    /// or lacks what Celery needs of it, is counted and passed over.
    pub fn heard(&mut self, event: &Event, received: Timestamp) {
        self.events += 1;
        let (Some(kind), Some(host), Some(sent)) =
            (event.kind(), event.hostname(), event.timestamp())
        else {
            return;
        };
        // A sender in another zone tells local time as if it were ours (events/receiver.py).
        let offset = event.get("utcoffset").and_then(Value::as_f64).unwrap_or(self.utcoffset);
        let sent = sent - (offset - self.utcoffset) * 3600.0;
        let received = seconds(received);
        match kind.split_once('-') {
            Some(("worker", "offline")) => self.forget_worker(host),
            Some(("worker", _)) => {
                let worker = self.worker_mut(host);
                for (name, value) in event.as_map().iter() {
                    worker.fields.insert(name, value.clone());
                }
                worker.heard(received);
            }
            Some(("task", what)) => {
                if let Some(uuid) = event.uuid() {
                    self.task(uuid, what, host, sent, received, event.as_map());
                }
            }
            _ => {}
        }
    }

    fn task(&mut self, uuid: &str, what: &str, host: &str, sent: f64, received: f64, fields: &Map) {
        let client = what == "sent";
        if !client {
            self.worker_mut(host).heard(received);
        }
        let task = self.task_mut(uuid);
        if client {
            task.client = Some(host.to_owned());
        } else {
            task.worker = Some(host.to_owned());
        }
        task.event(what, sent, fields);
    }

    fn worker_mut(&mut self, host: &str) -> &mut WorkerState {
        self.turn += 1;
        let turn = self.turn;
        if let Some(known) = self.workers.get(host) {
            self.worker_turns.remove(&known.turn);
        } else if self.workers.len() >= WORKERS_MAX
            && let Some((_, oldest)) = self.worker_turns.pop_first()
        {
            self.workers.remove(&oldest);
        }
        self.worker_turns.insert(turn, host.to_owned());
        let worker = self
            .workers
            .entry(host.to_owned())
            .or_insert_with(|| WorkerState { hostname: host.to_owned(), ..WorkerState::default() });
        worker.turn = turn;
        worker
    }

    fn task_mut(&mut self, uuid: &str) -> &mut TaskState {
        self.turn += 1;
        let turn = self.turn;
        if let Some(known) = self.tasks.get(uuid) {
            self.task_turns.remove(&known.turn);
        } else if self.tasks.len() >= TASKS_MAX
            && let Some((_, oldest)) = self.task_turns.pop_first()
        {
            self.tasks.remove(&oldest);
        }
        self.task_turns.insert(turn, uuid.to_owned());
        let task = self.tasks.entry(uuid.to_owned()).or_insert_with(|| TaskState {
            uuid: uuid.to_owned(),
            state: "PENDING".to_owned(),
            ..TaskState::default()
        });
        task.turn = turn;
        task
    }

    fn forget_worker(&mut self, host: &str) {
        if let Some(gone) = self.workers.remove(host) {
            self.worker_turns.remove(&gone.turn);
        }
    }

    /// How many events were heard.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The workers that were heard of and have not said goodbye, by name.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerState> {
        self.workers.values()
    }

    /// A worker.
    pub fn worker(&self, hostname: &str) -> Option<&WorkerState> {
        self.workers.get(hostname)
    }

    /// The tasks, those heard of last first.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskState> {
        self.task_turns.values().rev().filter_map(|uuid| self.tasks.get(uuid))
    }

    /// A task.
    pub fn find_task(&self, uuid: &str) -> Option<&TaskState> {
        self.tasks.get(uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(kind: &str, sent: i64, fields: &[(&str, &str)]) -> Event {
        let mut map = Map::from([
            ("type", Value::from(kind)),
            ("hostname", Value::from("w@h")),
            ("timestamp", Value::from(sent as f64)),
            ("utcoffset", Value::from(0.0)),
        ]);
        map.extend(fields.iter().copied());
        Event::from_map(map)
    }

    /// A type, a time, and fields.
    type Sent<'a> = (&'a str, i64, &'a [(&'a str, &'a str)]);

    fn heard(events: &[Sent<'_>]) -> Monitor {
        let mut monitor = Monitor::new(0.0);
        for (kind, sent, fields) in events {
            let mut all = vec![("uuid", "u")];
            all.extend(*fields);
            monitor.heard(&event(kind, *sent, &all), at(*sent));
        }
        monitor
    }

    #[test]
    fn a_task_is_where_its_latest_event_says() {
        let monitor = heard(&[
            ("task-sent", 1, &[("name", "t.add")]),
            ("task-received", 2, &[("args", "(1,)")]),
            ("task-started", 3, &[]),
            ("task-succeeded", 4, &[("result", "3")]),
        ]);
        let task = monitor.find_task("u").unwrap();
        assert_eq!((task.state.as_str(), task.timestamp), ("SUCCESS", 4.0));
        assert_eq!(
            (task.name(), task.text("args"), task.text("result")),
            (Some("t.add"), Some("(1,)"), Some("3"))
        );
        assert_eq!((task.worker.as_deref(), task.client.as_deref()), (Some("w@h"), Some("w@h")));
        assert_eq!(
            task.times.keys().collect::<Vec<_>>(),
            ["received", "sent", "started", "succeeded"]
        );
    }

    #[test]
    fn late_events_add_what_they_know_and_change_no_state() {
        let late: &[(&str, &str)] = &[("name", "t.add"), ("clock", "odd")];
        let monitor =
            heard(&[("task-succeeded", 4, &[("clock", "4")]), ("task-received", 2, late)]);
        let task = monitor.find_task("u").unwrap();
        assert_eq!((task.state.as_str(), task.timestamp), ("SUCCESS", 4.0));
        assert_eq!((task.name(), task.text("clock")), (Some("t.add"), Some("4")));
        // A retry goes back, and a custom event stands between.
        let retried =
            heard(&[("task-started", 1, &[]), ("task-retried", 2, &[]), ("task-received", 3, &[])]);
        assert_eq!(retried.find_task("u").unwrap().state, "RECEIVED");
        let custom = heard(&[("task-started", 1, &[]), ("task-progress", 2, &[])]);
        assert_eq!(custom.find_task("u").unwrap().state, "PROGRESS");
    }

    #[test]
    fn a_worker_is_alive_for_two_periods_after_any_of_its_events() {
        let mut monitor = Monitor::new(0.0);
        let mut beat = event("worker-heartbeat", 100, &[]);
        beat.insert("freq", 2.0);
        for second in 100..110 {
            monitor.heard(&beat, at(second));
        }
        let worker = monitor.worker("w@h").unwrap();
        assert_eq!(worker.heartbeats, [106.0, 107.0, 108.0, 109.0]);
        assert!(worker.is_alive(at(112)) && !worker.is_alive(at(113)));
        monitor.heard(&event("task-started", 120, &[("uuid", "u")]), at(120));
        assert!(monitor.worker("w@h").unwrap().is_alive(at(123)));
        monitor.heard(&event("worker-offline", 124, &[]), at(124));
        assert_eq!(monitor.workers().count(), 0);
        assert_eq!((monitor.events(), monitor.tasks().count()), (12, 1));
    }

    #[test]
    fn zones_are_reckoned_and_nonsense_is_passed_over() {
        let mut monitor = Monitor::new(0.0);
        let mut sent = event("task-started", 7200, &[("uuid", "u")]);
        sent.insert("utcoffset", 1.0);
        monitor.heard(&sent, at(3600));
        assert!((monitor.find_task("u").unwrap().timestamp - 3600.0).abs() < 1e-9);
        for kind in ["task-started", "nonsense", "", "worker-online"] {
            monitor.heard(&Event::from_map(Map::from([("type", kind)])), at(1));
        }
        assert_eq!((monitor.events(), monitor.tasks().count()), (5, 1));
    }

    #[test]
    fn what_was_heard_of_longest_ago_goes_first() {
        let mut monitor = Monitor::new(0.0);
        for n in 0..=TASKS_MAX {
            monitor.heard(&event("task-started", 1, &[("uuid", &n.to_string())]), at(1));
            if n == 5 {
                monitor.heard(&event("task-started", 1, &[("uuid", "0")]), at(1));
            }
        }
        assert_eq!(monitor.tasks().count(), TASKS_MAX);
        assert!(monitor.find_task("0").is_some() && monitor.find_task("1").is_none());
        assert_eq!(monitor.tasks().next().unwrap().uuid, TASKS_MAX.to_string());
        for n in 0..=WORKERS_MAX {
            let mut online = event("worker-online", 1, &[]);
            online.insert("hostname", format!("w{n}@h"));
            monitor.heard(&online, at(1));
        }
        assert_eq!(monitor.workers().count(), WORKERS_MAX);
        assert!(monitor.worker("w@h").is_none());
    }
}
