//! What goes over the wire, as types: the document of the API is made from them, and tests read real
//! answers into them. A Rust client may do the same.

mod schedules;

pub use schedules::{
    EntryChange, EntryRequest, FireRequest, Fired, GiveRequest, HistoryQuery, Leader, NextQuery,
    NextTime, NextTimes, Occurrence, OccurrenceList, RunSent, ScheduleEntry, ScheduleList,
    ScheduleQuery, Unreadable,
};

use celeriac_wire::{Map, Value};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What went wrong (RFC 9457).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// `urn:celeriac:problem:NAME`; the names are stable.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name in words.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// A call of a task, by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// The task's name.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub task: String,
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub kwargs: Map,
    /// The queue, instead of the routed one.
    #[schema(max_length = 255)]
    pub queue: Option<String>,
    /// Seconds from now before which it does not run.
    #[schema(minimum = 0)]
    pub countdown: Option<f64>,
    /// ISO 8601 instant before which it does not run.
    pub eta: Option<String>,
    /// Seconds from now after which it is dropped if it has not begun.
    #[schema(minimum = 0)]
    pub expires: Option<f64>,
    /// `critical`, `high`, `normal` or `low`.
    pub priority: Option<String>,
    /// Its id, instead of a fresh one.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    pub task_id: Option<String>,
    /// The tenant, account or device that limits are counted for.
    #[schema(min_length = 1, max_length = 255)]
    pub key: Option<String>,
    /// Whether no result is stored.
    #[serde(default)]
    pub ignore_result: bool,
    /// Hard time limit of this call, in seconds.
    #[schema(minimum = 0)]
    pub time_limit: Option<f64>,
    /// Soft time limit of this call, in seconds.
    #[schema(minimum = 0)]
    pub soft_time_limit: Option<f64>,
}

/// A task that was sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SentTask {
    /// Its id.
    pub task_id: String,
    /// Whether an earlier request with this idempotency key has sent it.
    pub replayed: bool,
}

/// Which tasks are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskQuery {
    /// queued, scheduled, retry, reserved, running, done, dead, or a result state such as FAILURE.
    pub state: Option<String>,
    /// A task name, or its beginning followed by `*`.
    pub task: Option<String>,
    /// A queue.
    pub queue: Option<String>,
    /// `next` of the page before.
    #[param(pattern = r"^[A-Za-z0-9_-]{1,8192}$")]
    pub cursor: Option<String>,
    /// The most tasks.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    pub limit: Option<usize>,
}

/// Tasks, the newest first.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskList {
    /// The tasks.
    pub items: Vec<Task>,
    /// The cursor of the next page, if there is one.
    #[schema(required)]
    pub next: Option<String>,
}

/// What is true of a task.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its id.
    pub task_id: String,
    /// unknown, scheduled, retry, queued, reserved, running, done or dead.
    pub phase: String,
    /// Its name, if known.
    #[schema(required)]
    pub task: Option<String>,
    /// Its queue, if known.
    #[schema(required)]
    pub queue: Option<String>,
    /// When it was enqueued first.
    #[schema(required)]
    pub enqueued_at: Option<String>,
    /// Its retry count.
    pub retries: u32,
    /// Until when a scheduled one waits.
    pub until: Option<String>,
    /// How many run before a queued one.
    pub position: Option<u64>,
    /// Whether a queued one is paused.
    pub paused: Option<bool>,
    /// Whether a limit holds a queued one back.
    pub limited: Option<bool>,
    /// Whether a queued one will not run.
    pub revoked: Option<bool>,
    /// Who has it.
    pub worker: Option<String>,
    /// Since when it runs.
    pub since: Option<String>,
    /// The number of its dead letter.
    pub dead_letter: Option<i64>,
    /// Why it is a dead letter.
    pub reason: Option<String>,
    /// Its message's headers, while there is a message.
    #[schema(value_type = Option<Object>)]
    pub headers: Option<Map>,
    /// Celery's result document, once there is one.
    #[schema(value_type = Option<Object>, required)]
    pub result: Option<Map>,
    /// Its earlier runs.
    pub history: Vec<Run>,
}

/// One run of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The retry count in this run.
    pub retries: u32,
    /// Who ran it.
    pub worker: String,
    /// When it began, if that is known.
    #[schema(required)]
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: String,
    /// What happened, in a word.
    pub outcome: String,
    /// The error.
    pub detail: String,
}

/// How long a result is waited for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds to wait for the end of the task.
    #[param(minimum = 0, maximum = 25, default = 0)]
    pub wait: Option<f64>,
}

/// How a task is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Whether a running task may finish.
    #[serde(default)]
    pub keep_running: bool,
}

/// What was done to a task.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deed {
    /// The task's id.
    pub task_id: String,
    /// What was done, in words.
    pub note: String,
}

/// A queue in numbers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Its name.
    pub queue: String,
    /// Messages that a worker could take now.
    pub ready: u64,
    /// Messages that wait for their time.
    pub scheduled: u64,
    /// Messages that workers hold.
    pub leased: u64,
    /// Dead letters that came from it.
    pub dead: u64,
    /// When the oldest ready message was enqueued.
    #[schema(required)]
    pub oldest: Option<String>,
    /// How many workers consume it.
    pub consumers: u64,
    /// Whether it is paused.
    pub paused: bool,
}

/// All queues.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueList {
    /// The queues.
    pub items: Vec<Queue>,
}

/// A part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before.
    #[param(pattern = r"^[0-9]{1,18}$")]
    pub cursor: Option<String>,
    /// The most entries.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: Option<usize>,
}

/// Waiting messages, the oldest first.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageList {
    /// The messages.
    pub items: Vec<WaitingMessage>,
    /// The cursor of the next page, if there may be one.
    #[schema(required)]
    pub next: Option<String>,
}

/// A waiting message without its body.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitingMessage {
    /// Its row.
    pub row: i64,
    /// Its headers.
    #[schema(value_type = Object)]
    pub headers: Map,
    /// Its properties.
    #[schema(value_type = Object)]
    pub properties: Map,
    /// When it was enqueued.
    #[schema(required)]
    pub enqueued_at: Option<String>,
}

/// Why something is paused.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The reason, shown to everybody who looks.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub reason: String,
}

/// A queue that was paused or resumed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// Its name.
    pub queue: String,
    /// Whether it is paused.
    pub paused: bool,
}

/// How many messages are expected to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Messages that wait in the queue now; another number is a conflict.
    pub expected: u64,
}

/// What a purge deleted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Purged {
    /// Messages that are gone.
    pub purged: u64,
    /// Messages that still wait.
    pub left: u64,
}

/// A pause.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// queue, task, key or everything.
    pub kind: String,
    /// Its name; empty for everything.
    pub name: String,
    /// Since when.
    pub since: String,
    /// Why.
    pub reason: String,
}

/// All pauses.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseList {
    /// The pauses.
    pub items: Vec<Pause>,
}

/// What a limit or a pause is about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// queue, task, key or everything.
    #[schema(pattern = "^(queue|task|key|everything)$")]
    pub kind: String,
    /// Its name; none for everything. The key `*` is each key for itself, for limits only.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub name: String,
}

/// What is paused, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseTarget {
    /// queue, task, key or everything.
    #[schema(pattern = "^(queue|task|key|everything)$")]
    pub kind: String,
    /// Its name; none for everything.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub name: String,
    /// The reason, shown to everybody who looks.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub reason: String,
}

/// A limit to be set: rates, a number of running tasks, or both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    /// queue, task, key or everything.
    #[schema(pattern = "^(queue|task|key|everything)$")]
    pub kind: String,
    /// Its name; none for everything. The key `*` is each key for itself.
    #[serde(default)]
    #[schema(max_length = 255)]
    pub name: String,
    /// How many may start: `10/s`, `100/m`, `1000/h burst`. All of them hold.
    #[serde(default)]
    #[schema(max_items = 8)]
    pub rates: Vec<String>,
    /// How many may run at once.
    #[schema(minimum = 1)]
    pub concurrency: Option<u32>,
    /// Whether each key has the limit for itself.
    #[serde(default)]
    pub per_key: bool,
}

/// What was done to a limit or a pause.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetDeed {
    /// queue, task, key or everything.
    pub kind: String,
    /// Its name; empty for everything.
    pub name: String,
    /// What was done, in words.
    pub note: String,
}

/// A limit and where it stands.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// queue, task, key or everything.
    pub kind: String,
    /// Its name; empty for everything.
    pub name: String,
    /// How many may start.
    pub rates: Vec<String>,
    /// How many may run at once.
    #[schema(required)]
    pub concurrency: Option<u32>,
    /// Whether each key has the limit for itself.
    pub per_key: bool,
    /// How many run under it.
    pub running: u64,
    /// `operator` or `application`.
    pub origin: String,
    /// Whether it holds: an operator's limit stands before the application's.
    pub in_force: bool,
    /// When its rate lets the next one go; null when that is now.
    #[schema(required)]
    pub next_at: Option<String>,
}

/// All limits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitList {
    /// The limits.
    pub items: Vec<Limit>,
}

/// What of a dead letter is changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadChange {
    /// Its positional arguments.
    pub args: Option<Vec<Value>>,
    /// Its keyword arguments.
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<Map>,
    /// The queue that it returns to.
    #[schema(max_length = 255)]
    pub queue: Option<String>,
}

/// Which dead letters are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadQuery {
    /// Only from this queue.
    pub queue: Option<String>,
    /// Only this task, or names that begin so and end in `*`.
    pub task: Option<String>,
    /// Only with this reason.
    pub reason: Option<String>,
    /// Only with this text in the error.
    pub contains: Option<String>,
    /// `next` of the page before.
    #[param(pattern = r"^[0-9]{1,18}$")]
    pub cursor: Option<String>,
    /// The most entries.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: Option<usize>,
}

/// Which dead letters are meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadSelection {
    /// Numbers or task ids.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub ids: Vec<String>,
    /// Only from this queue.
    pub queue: Option<String>,
    /// Only this task, or names that begin so and end in `*`.
    pub task: Option<String>,
    /// Only with this reason.
    pub reason: Option<String>,
    /// Only with this text in the error.
    pub contains: Option<String>,
    /// All that match; needed when nothing else is said.
    #[serde(default)]
    pub all: bool,
    /// Into this queue instead of their own (replay only).
    pub to: Option<String>,
    /// Whether the retry count stays (replay only).
    #[serde(default)]
    pub keep_retries: bool,
    /// The most of them in this request.
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
}

/// Dead letters, the oldest first.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadList {
    /// The dead letters.
    pub items: Vec<DeadLetter>,
    /// The cursor of the next page, if there may be one.
    #[schema(required)]
    pub next: Option<String>,
    /// How many match.
    pub total: u64,
}

/// A message that was set aside.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// Its number.
    pub number: i64,
    /// Why it is here.
    pub reason: String,
    /// The error in one line.
    pub detail: String,
    /// Its task's id.
    #[schema(required)]
    pub task_id: Option<String>,
    /// Its task.
    #[schema(required)]
    pub task: Option<String>,
    /// The queue it came from.
    pub queue: String,
    /// When it was enqueued first.
    pub enqueued_at: String,
    /// When it was set aside.
    pub died_at: String,
    /// Its runs.
    pub history: Vec<Run>,
    /// Its headers.
    #[schema(value_type = Object)]
    pub headers: Map,
    /// Its properties.
    #[schema(value_type = Object)]
    pub properties: Map,
    /// Its body, as text.
    pub body: String,
}

/// What was done to dead letters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadDeed {
    /// Numbers of those it was done to.
    pub numbers: Vec<i64>,
    /// How many still match.
    pub left: u64,
}

/// A worker, ours or Celery's.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its node name.
    pub name: String,
    /// `celeriac`, or what it says of itself: `py-celery`.
    pub software: String,
    /// Whether its lease stands, or its heartbeats come.
    pub alive: bool,
    /// Its process id, if known.
    #[schema(required)]
    pub pid: Option<i64>,
    /// When it was heard of last.
    #[schema(required)]
    pub seen_at: Option<String>,
    /// Tasks that run in it.
    #[schema(required)]
    pub active: Option<i64>,
    /// Tasks that have ended in it.
    #[schema(required)]
    pub processed: Option<i64>,
    /// When it started; of ours.
    pub started_at: Option<String>,
    /// Its slots; of ours.
    pub concurrency: Option<i64>,
    /// Its pool; of ours.
    pub pool: Option<String>,
    /// What it consumes; of ours.
    pub queues: Option<Vec<String>>,
    /// What it knows; of ours.
    pub tasks: Option<Vec<String>>,
}

/// All workers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerList {
    /// The workers.
    pub items: Vec<Worker>,
}

/// A request to workers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// The command's arguments by keyword, as `celery inspect` and `celery control` send them.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub arguments: Map,
    /// Names of workers; none means all.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub destination: Vec<String>,
    /// Seconds to wait for the next reply.
    #[schema(minimum = 0, maximum = 10, default = 1)]
    pub timeout: Option<f64>,
}

/// What workers answered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replies {
    /// Each worker's answer by its name; empty when none answered in time.
    #[schema(value_type = Object)]
    pub replies: Map,
}

/// Everything in a few numbers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The store, without secrets.
    pub store: String,
    /// Workers of celeriac that are alive.
    pub workers: u64,
    /// Messages that a worker could take now.
    pub ready: u64,
    /// Messages that wait for their time.
    pub scheduled: u64,
    /// Messages that workers hold.
    pub leased: u64,
    /// Dead letters.
    pub dead: u64,
    /// Pauses in force.
    pub pauses: u64,
    /// Who asks: the token's name.
    pub you: String,
    /// What that token may.
    pub role: String,
}
