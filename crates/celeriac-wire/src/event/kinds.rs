//! The types of events that producers and workers send (spec 6.3).

use super::{Event, EventBase};
use crate::json::{Map, Value};
use jiff::Timestamp;

/// The fields of `task-sent`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskSent<'a> {
    /// The task id.
    pub uuid: &'a str,
    /// The id of the first task of the workflow.
    pub root_id: Option<&'a str>,
    /// The id of the task that sent this one.
    pub parent_id: Option<&'a str>,
    /// The task name.
    pub name: &'a str,
    /// Text of the positional arguments.
    pub args: &'a str,
    /// Text of the keyword arguments.
    pub kwargs: &'a str,
    /// How often the task was retried.
    pub retries: u32,
    /// The header `eta`.
    pub eta: Option<&'a str>,
    /// The header `expires`.
    pub expires: Option<&'a str>,
    /// The queue.
    pub queue: &'a str,
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
}

/// The fields of `task-received`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskReceived<'a> {
    /// The task id.
    pub uuid: &'a str,
    /// The task name, or its shadow.
    pub name: &'a str,
    /// Text of the positional arguments.
    pub args: &'a str,
    /// Text of the keyword arguments.
    pub kwargs: &'a str,
    /// The id of the first task of the workflow.
    pub root_id: Option<&'a str>,
    /// The id of the task that sent this one.
    pub parent_id: Option<&'a str>,
    /// How often the task was retried.
    pub retries: u32,
    /// The header `eta`.
    pub eta: Option<&'a str>,
    /// The header `expires`.
    pub expires: Option<&'a str>,
}

/// Why a task was revoked, in `task-revoked`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskRevoked {
    /// Whether its process was ended.
    pub terminated: bool,
    /// The signal: an integer, a name or null.
    pub signum: Value,
    /// Whether it expired.
    pub expired: bool,
}

/// The fields of `worker-online`, `worker-heartbeat` and `worker-offline`.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Seconds between heartbeats.
    pub freq: f64,
    /// Tasks that run.
    pub active: u64,
    /// Tasks run since the start.
    pub processed: u64,
    /// Load of the last 1, 5 and 15 minutes, with two decimals.
    pub loadavg: [f64; 3],
    /// Name of the software: `py-celery`.
    pub sw_ident: String,
    /// Version of the software.
    pub sw_ver: String,
    /// Operating system: `Linux`.
    pub sw_sys: String,
}

impl WorkerStatus {
    fn fields(&self) -> Map {
        Map::from([
            ("freq", Value::from(self.freq)),
            ("active", Value::from(self.active)),
            ("processed", Value::from(self.processed)),
            ("loadavg", self.loadavg.into_iter().collect()),
            ("sw_ident", Value::from(self.sw_ident.as_str())),
            ("sw_ver", Value::from(self.sw_ver.as_str())),
            ("sw_sys", Value::from(self.sw_sys.as_str())),
        ])
    }
}

fn with_uuid<const N: usize>(uuid: &str, fields: [(&str, Value); N]) -> Map {
    let mut map = Map::from([("uuid", uuid)]);
    map.extend(fields);
    map
}

impl Event {
    /// A producer published a task (setting `task_send_sent_event`).
    pub fn task_sent(base: &EventBase, sent: &TaskSent<'_>) -> Self {
        let fields = with_uuid(
            sent.uuid,
            [
                ("root_id", sent.root_id.into()),
                ("parent_id", sent.parent_id.into()),
                ("name", sent.name.into()),
                ("args", sent.args.into()),
                ("kwargs", sent.kwargs.into()),
                ("retries", sent.retries.into()),
                ("eta", sent.eta.into()),
                ("expires", sent.expires.into()),
                ("queue", sent.queue.into()),
                ("exchange", sent.exchange.into()),
                ("routing_key", sent.routing_key.into()),
            ],
        );
        Self::new("task-sent", base, fields)
    }

    /// A worker received a task.
    pub fn task_received(base: &EventBase, received: &TaskReceived<'_>) -> Self {
        let fields = with_uuid(
            received.uuid,
            [
                ("name", received.name.into()),
                ("args", received.args.into()),
                ("kwargs", received.kwargs.into()),
                ("root_id", received.root_id.into()),
                ("parent_id", received.parent_id.into()),
                ("retries", received.retries.into()),
                ("eta", received.eta.into()),
                ("expires", received.expires.into()),
            ],
        );
        Self::new("task-received", base, fields)
    }

    /// A task runs.
    pub fn task_started(base: &EventBase, uuid: &str) -> Self {
        Self::new("task-started", base, with_uuid(uuid, []))
    }

    /// A task returned; `result` is the text of its result, `runtime` is in seconds.
    pub fn task_succeeded(base: &EventBase, uuid: &str, result: &str, runtime: f64) -> Self {
        let fields = with_uuid(uuid, [("result", result.into()), ("runtime", runtime.into())]);
        Self::new("task-succeeded", base, fields)
    }

    /// A task failed; unknown tasks have no traceback, and then the field is absent.
    pub fn task_failed(
        base: &EventBase,
        uuid: &str,
        exception: &str,
        traceback: Option<&str>,
    ) -> Self {
        let mut fields = with_uuid(uuid, [("exception", exception.into())]);
        if let Some(traceback) = traceback {
            fields.insert("traceback", traceback);
        }
        Self::new("task-failed", base, fields)
    }

    /// A task's message was rejected.
    pub fn task_rejected(base: &EventBase, uuid: &str, requeue: bool) -> Self {
        Self::new("task-rejected", base, with_uuid(uuid, [("requeue", requeue.into())]))
    }

    /// A task was revoked or expired.
    pub fn task_revoked(base: &EventBase, uuid: &str, revoked: &TaskRevoked) -> Self {
        let fields = with_uuid(
            uuid,
            [
                ("terminated", revoked.terminated.into()),
                ("signum", revoked.signum.clone()),
                ("expired", revoked.expired.into()),
            ],
        );
        Self::new("task-revoked", base, fields)
    }

    /// A task will run again.
    pub fn task_retried(base: &EventBase, uuid: &str, exception: &str, traceback: &str) -> Self {
        let fields =
            with_uuid(uuid, [("exception", exception.into()), ("traceback", traceback.into())]);
        Self::new("task-retried", base, fields)
    }

    /// A task asked to run at a later time. Celery has no such event; its monitors show the state `SNOOZED`.
    pub fn task_snoozed(base: &EventBase, uuid: &str, eta: Timestamp) -> Self {
        Self::new("task-snoozed", base, with_uuid(uuid, [("eta", crate::print_iso(eta).into())]))
    }

    /// A task was given up in a cold shutdown or because the connection was lost.
    pub fn task_cancelled(base: &EventBase, uuid: &str) -> Self {
        Self::new("task-cancelled", base, with_uuid(uuid, []))
    }

    /// A worker started.
    pub fn worker_online(base: &EventBase, status: &WorkerStatus) -> Self {
        Self::new("worker-online", base, status.fields())
    }

    /// A worker lives.
    pub fn worker_heartbeat(base: &EventBase, status: &WorkerStatus) -> Self {
        Self::new("worker-heartbeat", base, status.fields())
    }

    /// A worker stops.
    pub fn worker_offline(base: &EventBase, status: &WorkerStatus) -> Self {
        Self::new("worker-offline", base, status.fields())
    }
}
