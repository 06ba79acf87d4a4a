//! What events say about tasks, counted.

use super::Labels;
use super::names::{Name, OTHER, TASKS_MAX, describe};
use celeriac_core::monitor::{Monitor, TaskState};
use celeriac_wire::{Event, Value, parse_iso};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;

/// Upper ends of the classes of waits and runs, in seconds: from a no-op to half a day.
const BUCKETS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
    43_200.0,
];
/// The longest name of a task in a label, in bytes.
const LABEL_BYTES_MAX: usize = 200;

type Times = Family<Labels, Histogram, fn() -> Histogram>;
type Counts = Family<Labels, Counter>;

/// Counters and histograms, and which tasks are named in them.
#[derive(Clone)]
pub(crate) struct Tally {
    named: BTreeSet<String>,
    wait: Times,
    run: Times,
    outcomes: Counts,
    retries: Counts,
    recoveries: Counter,
    events: Counter,
    gaps: Counter,
    submitted: Counts,
    completed: Counts,
    duration: Times,
    celery_submitted: Counter,
}

fn times() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Tally {
    fn default() -> Self {
        let make: fn() -> Histogram = times;
        Self {
            named: BTreeSet::new(),
            wait: Family::new_with_constructor(make),
            run: Family::new_with_constructor(make),
            outcomes: Family::default(),
            retries: Family::default(),
            recoveries: Counter::default(),
            events: Counter::default(),
            gaps: Counter::default(),
            submitted: Family::default(),
            completed: Family::default(),
            duration: Family::new_with_constructor(make),
            celery_submitted: Counter::default(),
        }
    }
}

/// The system in the seeds' names; the rollout layer counts the other one.
fn celery() -> Labels {
    vec![("queue_system", "celery".to_owned())]
}

impl Tally {
    pub(super) fn register(&self, registry: &mut Registry) {
        describe(registry, Name::TaskWait, self.wait.clone());
        describe(registry, Name::TaskRun, self.run.clone());
        describe(registry, Name::TaskOutcomes, self.outcomes.clone());
        describe(registry, Name::TaskRetries, self.retries.clone());
        describe(registry, Name::TaskRecoveries, self.recoveries.clone());
        describe(registry, Name::Events, self.events.clone());
        describe(registry, Name::EventGaps, self.gaps.clone());
        describe(registry, Name::Submitted, self.submitted.clone());
        describe(registry, Name::Completed, self.completed.clone());
        describe(registry, Name::Duration, self.duration.clone());
        describe(registry, Name::CelerySubmitted, self.celery_submitted.clone());
        // A rate can be asked for before the first task.
        drop(self.submitted.get_or_create(&celery()));
        drop(self.duration.get_or_create(&celery()));
        for outcome in ["succeeded", "failed"] {
            drop(self.completed.get_or_create(&with(celery(), "outcome", outcome)));
        }
    }

    /// Events were missed.
    pub(crate) fn interrupted(&self) {
        self.gaps.inc();
    }

    /// Counts an event; `monitor` knows what was heard before it.
    pub(crate) fn event(&mut self, event: &Event, monitor: &Monitor) {
        self.events.inc();
        let (Some(kind), Some(uuid)) = (event.kind(), event.uuid()) else { return };
        let Some(("task", kind)) = kind.split_once('-') else { return };
        let before = monitor.find_task(uuid);
        let name = event.get("name").and_then(Value::as_str);
        let name = name.or_else(|| before.and_then(TaskState::name)).unwrap_or_default();
        let labels: Labels = vec![("task", self.label(name))];
        let timestamp = event.timestamp().unwrap_or_default();
        match kind {
            "sent" => self.submit(before.is_none()),
            "received" => self.received(event, before),
            "started" => {
                if let Some(since) = before.and_then(waits_since) {
                    self.wait.get_or_create(&labels).observe((timestamp - since).max(0.0));
                }
            }
            "succeeded" => {
                let told = event.get("runtime").and_then(Value::as_f64);
                self.ran(&labels, told.or_else(|| ran_for(before, timestamp)));
                self.ended(&labels, "succeeded");
            }
            "failed" => {
                self.ran(&labels, ran_for(before, timestamp));
                self.ended(&labels, "failed");
            }
            "retried" => {
                self.ran(&labels, ran_for(before, timestamp));
                self.retries.get_or_create(&labels).inc();
            }
            "rejected" => self.ended(&labels, "rejected"),
            "revoked" => {
                let expired = event.get("expired").and_then(Value::as_bool) == Some(true);
                self.ended(&labels, if expired { "expired" } else { "revoked" });
            }
            _ => {}
        }
    }

    /// A first receipt is a submission where nobody told the send; a second one of the same run is a
    /// recovery.
    fn received(&self, event: &Event, before: Option<&TaskState>) {
        let retries = |fields: Option<&Value>| fields.and_then(Value::as_u64).unwrap_or_default();
        let now = retries(event.get("retries"));
        match before {
            None => self.submit(now == 0),
            Some(task) if task.times.contains_key("received") => {
                if retries(task.fields.get("retries")) == now && task.state != "RETRY" {
                    self.recoveries.inc();
                }
            }
            Some(_) => {}
        }
    }

    fn submit(&self, first: bool) {
        if first {
            self.submitted.get_or_create(&celery()).inc();
            self.celery_submitted.inc();
        }
    }

    fn ran(&self, labels: &Labels, seconds: Option<f64>) {
        if let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) {
            self.run.get_or_create(labels).observe(seconds.max(0.0));
            self.duration.get_or_create(&celery()).observe(seconds.max(0.0));
        }
    }

    fn ended(&self, labels: &Labels, outcome: &str) {
        self.outcomes.get_or_create(&with(labels.clone(), "outcome", outcome)).inc();
        self.completed.get_or_create(&with(celery(), "outcome", outcome)).inc();
    }

    /// A task's name as a label: the first hundred keep theirs.
    fn label(&mut self, name: &str) -> String {
        let end = (0..=name.len().min(LABEL_BYTES_MAX)).rev().find(|at| name.is_char_boundary(*at));
        let name = &name[..end.unwrap_or_default()];
        if name.is_empty() {
            return OTHER.to_owned();
        }
        if !self.named.contains(name) {
            if self.named.len() >= TASKS_MAX {
                return OTHER.to_owned();
            }
            self.named.insert(name.to_owned());
        }
        name.to_owned()
    }
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

/// Since when a task has been waiting: the time it was sent or retried for, if there is one. The send is only
/// the begin of the first run.
fn waits_since(task: &TaskState) -> Option<f64> {
    let eta = task.text("eta").and_then(|eta| parse_iso(eta).ok());
    let eta = eta.map(|eta| eta.as_nanosecond() as f64 / 1e9);
    let retried = task.fields.get("retries").and_then(Value::as_u64).unwrap_or_default() > 0;
    let sent = task.times.get("sent").copied().filter(|_| !retried);
    let told = sent.or_else(|| eta.is_none().then(|| task.times.get("received").copied())?);
    match (told, eta) {
        (Some(told), Some(eta)) => Some(told.max(eta)),
        (told, eta) => told.or(eta),
    }
}

/// How long the run took that ends now.
fn ran_for(task: Option<&TaskState>, now: f64) -> Option<f64> {
    Some(now - task?.times.get("started")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_wire::EventBase;
    use celeriac_wire::event::{TaskReceived, TaskRevoked, TaskSent};
    use prometheus_client::encoding::text::encode;

    struct Bench {
        tally: Tally,
        monitor: Monitor,
        second: i64,
    }

    impl Bench {
        fn new() -> Self {
            Self { tally: Tally::default(), monitor: Monitor::new(0.0), second: 0 }
        }

        /// Hears an event a second after the one before.
        fn hear(&mut self, make: impl Fn(&EventBase) -> Event) {
            self.second += 1;
            let timestamp = jiff::Timestamp::from_second(self.second).unwrap();
            let base = EventBase {
                hostname: "celery@one".into(),
                utcoffset: 0.0,
                pid: 1,
                clock: 1,
                timestamp,
            };
            let event = make(&base);
            self.tally.event(&event, &self.monitor);
            self.monitor.heard(&event, timestamp);
        }

        fn receive(&mut self, uuid: &str, name: &str, retries: u32) {
            let received = TaskReceived { uuid, name, retries, ..TaskReceived::default() };
            self.hear(|base| Event::task_received(base, &received));
        }

        fn text(&self) -> String {
            let (mut registry, mut text) = (Registry::default(), String::new());
            self.tally.register(&mut registry);
            encode(&mut text, &registry).unwrap();
            text
        }
    }

    #[track_caller]
    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|one| one == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_life_is_counted_once_whoever_tells_it() {
        let mut bench = Bench::new();
        let sent = TaskSent { uuid: "a", name: "t", ..TaskSent::default() };
        bench.hear(|base| Event::task_sent(base, &sent));
        bench.receive("a", "t", 0);
        bench.hear(|base| Event::task_started(base, "a"));
        bench.hear(|base| Event::task_retried(base, "a", "E()", ""));
        bench.receive("a", "t", 1);
        bench.hear(|base| Event::task_started(base, "a"));
        bench.hear(|base| Event::task_succeeded(base, "a", "1", 0.02));
        // Another, whose worker is lost once; nobody told its send.
        bench.receive("b", "t", 0);
        bench.hear(|base| Event::task_started(base, "b"));
        bench.receive("b", "t", 0);
        bench.hear(|base| Event::task_started(base, "b"));
        bench.hear(|base| Event::task_failed(base, "b", "E()", None));
        let expired = TaskRevoked { expired: true, ..TaskRevoked::default() };
        bench.hear(|base| Event::task_revoked(base, "c", &expired));
        has(
            &bench.text(),
            &[
                "tasks_submitted_total{queue_system=\"celery\"} 2",
                "celery_tasks_submitted_total 2",
                "celeriac_task_retries_total{task=\"t\"} 1",
                "celeriac_task_recoveries_total 1",
                "celeriac_task_outcomes_total{task=\"t\",outcome=\"succeeded\"} 1",
                "celeriac_task_outcomes_total{task=\"t\",outcome=\"failed\"} 1",
                "celeriac_task_outcomes_total{task=\"other\",outcome=\"expired\"} 1",
                "tasks_completed_total{queue_system=\"celery\",outcome=\"failed\"} 1",
                "celeriac_task_run_seconds_count{task=\"t\"} 3",
                // 2 s from the send, then 1 s each from a receipt.
                "celeriac_task_wait_seconds_sum{task=\"t\"} 5.0",
                "celeriac_task_wait_seconds_count{task=\"t\"} 4",
                "task_duration_seconds_bucket{le=\"0.05\",queue_system=\"celery\"} 1",
                "celeriac_events_total 13",
            ],
        );
    }

    #[test]
    fn a_wait_begins_at_the_time_that_a_task_was_sent_for() {
        let second = |number| jiff::Timestamp::from_second(number).unwrap();
        for (eta, sent, retries, expected) in [
            (None, Some(1.0), 0, Some(1.0)),
            (None, None, 0, Some(2.0)),
            (Some(10), Some(1.0), 0, Some(10.0)),
            (Some(1), None, 0, Some(1.0)),
            (Some(10), Some(1.0), 1, Some(10.0)),
            (None, Some(1.0), 1, Some(2.0)),
        ] {
            let mut task = TaskState::default();
            task.times.insert("received".to_owned(), 2.0);
            task.times.extend(sent.map(|sent| ("sent".to_owned(), sent)));
            task.fields.insert("retries", i64::from(retries));
            if let Some(eta) = eta {
                task.fields.insert("eta", celeriac_wire::print_iso(second(eta)));
            }
            assert_eq!(waits_since(&task), expected, "{eta:?} {sent:?} {retries}");
        }
    }

    #[test]
    fn ten_thousand_names_are_a_constant_number_of_series() {
        let mut bench = Bench::new();
        for number in 0..10_000 {
            let (uuid, name) =
                (format!("id-{number}"), format!("task-{number}-{}", "é".repeat(200)));
            bench.receive(&uuid, &name, 0);
            bench.hear(|base| Event::task_succeeded(base, &uuid, "", 0.1));
        }
        let text = bench.text();
        let outcomes = text.lines().filter(|line| line.starts_with("celeriac_task_outcomes_total"));
        assert_eq!(outcomes.count(), TASKS_MAX + 1);
        let rest = "celeriac_task_outcomes_total{task=\"other\",outcome=\"succeeded\"} 9900";
        has(&text, &[rest]);
    }
}
