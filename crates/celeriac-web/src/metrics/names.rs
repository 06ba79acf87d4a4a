//! The names of the metrics, in one list: registry and documentation are made from it. Once shipped, a name
//! keeps its meaning.

use prometheus_client::registry::{Metric, Registry};

/// The most queues that are named; the rest is one.
pub(super) const QUEUES_MAX: usize = 200;
/// The most tasks that are named, those heard of first; the rest is one.
pub(super) const TASKS_MAX: usize = 100;
/// The name of the rest.
pub(super) const OTHER: &str = "other";

macro_rules! names {
    ($($variant:ident $name:literal $kind:literal [$($label:literal),*] $help:literal)*) => {
        /// One metric.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Name { $($variant),* }

        impl Name {
            const ALL: &[Self] = &[$(Self::$variant),*];

            fn facts(self) -> (&'static str, &'static str, &'static [&'static str], &'static str) {
                match self { $(Self::$variant => ($name, $kind, &[$($label),*], $help)),* }
            }
        }
    };
}

names! {
    StoreUp "celeriac_store_up" "gauge" []
        "Whether the store answered this scrape; what comes from it is missing otherwise"
    QueueReady "celeriac_queue_ready" "gauge" ["queue"]
        "Messages that a worker could take now"
    QueueScheduled "celeriac_queue_scheduled" "gauge" ["queue"]
        "Messages that wait for their time"
    QueueLeased "celeriac_queue_leased" "gauge" ["queue"]
        "Messages that workers of celeriac hold"
    QueueOldest "celeriac_queue_oldest_seconds" "gauge" ["queue"]
        "Age of the oldest message that could be taken; 0 when there is none"
    QueueConsumers "celeriac_queue_consumers" "gauge" ["queue"]
        "Workers of celeriac that consume it"
    QueuePaused "celeriac_queue_paused" "gauge" ["queue"]
        "Whether it is paused"
    DeadLetters "celeriac_dead_letters" "gauge" ["queue"]
        "Dead letters that came from it"
    BeatLeader "celeriac_beat_leader" "gauge" []
        "Epoch of the beat that leads, which grows with every change of the leader; 0 when none leads"
    ScheduleEntries "celeriac_schedule_entries" "gauge" []
        "Entries of the schedule"
    ScheduleNext "celeriac_schedule_next_seconds" "gauge" []
        "How long the earliest entry that a beat should send is overdue; 0 when none is"
    Workers "celeriac_workers" "gauge" ["state"]
        "Workers of celeriac of the last day, alive or gone"
    WorkerSlots "celeriac_worker_slots" "gauge" []
        "Slots of the workers of celeriac that are alive"
    WorkerActive "celeriac_worker_active" "gauge" []
        "Tasks that run in them"
    TaskWait "celeriac_task_wait_seconds" "histogram" ["task"]
        "From the send, or the time it was sent for, to the start; from the worker's receipt where the send was not told (setting `sent_events`)"
    TaskRun "celeriac_task_run_seconds" "histogram" ["task"]
        "From the start to the end of a run"
    TaskOutcomes "celeriac_task_outcomes" "counter" ["task", "outcome"]
        "Tasks that ended: succeeded, failed, rejected, revoked or expired"
    TaskRetries "celeriac_task_retries" "counter" ["task"]
        "Runs that ended in a retry"
    TaskRecoveries "celeriac_task_recoveries" "counter" []
        "Messages that were delivered again: their worker or its connection was lost"
    Events "celeriac_events" "counter" []
        "Events heard"
    EventGaps "celeriac_event_gaps" "counter" []
        "Times in which events could not be heard: what is counted from them is too low since"
    Submitted "tasks_submitted" "counter" ["queue_system"]
        "Tasks sent, by the system that took them; from `task-sent` where it is told, else from the first receipt"
    Completed "tasks_completed" "counter" ["queue_system", "outcome"]
        "Tasks that ended"
    Duration "task_duration_seconds" "histogram" ["queue_system"]
        "From the start to the end of a run"
    CelerySubmitted "celery_tasks_submitted" "counter" []
        "Tasks sent"
    QueueLength "celery_queue_length" "gauge" ["queue"]
        "Messages that a worker could take now"
}

/// Registers a metric under its name.
pub(super) fn describe(registry: &mut Registry, name: Name, metric: impl Metric) {
    let (name, _, _, help) = name.facts();
    registry.register(name, help, metric);
}

/// The rows of the page of the metrics.
pub(crate) fn reference() -> String {
    let row = |name: &Name| {
        let (name, kind, labels, help) = name.facts();
        let shown = if kind == "counter" { [name, "_total"].concat() } else { name.to_owned() };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{shown}` | {kind} | {} | {help} |\n", labels.join(", "))
    };
    Name::ALL.iter().map(row).collect()
}
