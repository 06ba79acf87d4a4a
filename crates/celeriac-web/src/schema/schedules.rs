//! Entries of the schedule, and what was fired of them.

use celeriac_wire::{Map, Value};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Which entries are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ScheduleQuery {
    /// `next` of the page before: a name, behind which this page begins.
    pub after: Option<String>,
    /// The most entries.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: Option<usize>,
}

/// Entries in the order of their names.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleList {
    /// The entries.
    pub items: Vec<ScheduleEntry>,
    /// Those of the page that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// `after` of the next page, if there may be one.
    #[schema(required)]
    pub next: Option<String>,
    /// How many entries there are.
    pub total: u64,
    /// The beat that leads, if one runs.
    #[schema(required)]
    pub leader: Option<Leader>,
}

/// An entry that cannot be read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unreadable {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
}

/// The beat that leads.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Grows with every change of the leader.
    pub epoch: u64,
    /// When its lease ends.
    pub until: String,
}

/// An entry with its next and last times.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleEntry {
    /// Its name.
    pub name: String,
    /// The task that it sends.
    pub task: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    #[schema(value_type = Object)]
    pub kwargs: Map,
    /// Options of Celery's `apply_async`.
    #[schema(value_type = Object)]
    pub options: Map,
    /// When it is due.
    #[schema(value_type = Object)]
    pub schedule: Map,
    /// The zone of its clock.
    pub zone: String,
    /// It is not due before this.
    #[schema(required)]
    pub start: Option<String>,
    /// It is not due after this.
    #[schema(required)]
    pub end: Option<String>,
    /// Each occurrence is sent up to so many seconds later, by chance.
    pub jitter: f64,
    /// What becomes of missed occurrences: skip, once or all.
    pub misfire: String,
    /// How many of them at most, with `all`.
    #[schema(required)]
    pub misfire_limit: Option<u32>,
    /// How many seconds late an occurrence may be without counting as missed.
    pub misfire_grace: f64,
    /// While an earlier one runs: allow, skip, queue-one or cancel-previous.
    pub overlap: String,
    /// How many occurrences may wait or run at a time.
    #[schema(required)]
    pub max_instances: Option<u32>,
    /// A time that the clock skips: shift or skip.
    pub dst_gap: String,
    /// A time that comes twice: auto, first, last or both.
    pub dst_repeat: String,
    /// For people.
    pub description: String,
    /// Whether it is not paused.
    pub enabled: bool,
    /// Where it comes from: store, app, config, program, sync or redbeat.
    pub source: String,
    /// Who runs it: `beat`, or another scheduler that asks for each occurrence.
    pub owner: String,
    /// Grows with every change of the owner.
    pub owner_epoch: u64,
    /// When it is due, in words.
    pub sentence: String,
    /// scheduled, paused, ended or elsewhere.
    pub status: String,
    /// The next occurrence.
    #[schema(required)]
    pub next: Option<String>,
    /// An occurrence that waits for an earlier one to end.
    #[schema(required)]
    pub queued: Option<String>,
    /// The latest occurrence that was run.
    #[schema(required)]
    pub last_due: Option<String>,
    /// When that was.
    #[schema(required)]
    pub last_fired: Option<String>,
    /// How many were run.
    pub runs: u64,
    /// Grows with every change.
    pub version: u64,
    /// What was fired last; where one entry is shown.
    pub latest: Option<Occurrence>,
    /// The beat that leads; where one entry is shown.
    pub leader: Option<Leader>,
    /// Whether an entry that a source gave was changed here; where one entry is shown.
    pub edited: Option<bool>,
}

/// A time at which an entry was due, and what became of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Occurrence {
    /// When it was due.
    pub due: String,
    /// When it was fired.
    pub fired: String,
    /// How late that was, in seconds.
    pub drift: f64,
    /// sent, manual, elsewhere, skipped or failed.
    pub kind: String,
    /// For how many occurrences it stands.
    pub count: u64,
    /// The task that was sent.
    #[schema(required)]
    pub task_id: Option<String>,
    /// The state in which that ended, as far as it is known.
    #[schema(required)]
    pub outcome: Option<String>,
    /// Why it was skipped or failed, who ran it.
    #[schema(required)]
    pub note: Option<String>,
    /// Where its task is; where one entry is shown.
    pub phase: Option<String>,
}

/// An entry to be made. What is left out or null is as Celery has it; other fields are refused.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EntryRequest {
    /// Its name; where the path has it, it may be left out.
    #[schema(min_length = 1, max_length = 200, required)]
    pub name: Option<String>,
    /// The task that it sends.
    #[schema(min_length = 1, max_length = 200)]
    pub task: String,
    /// When it is due: `{"type": "interval", "every": 60}`, or a crontab, a solar event, a moment.
    #[schema(value_type = Object)]
    pub schedule: Map,
    /// `beat`, or another scheduler that asks for each occurrence; of a new entry only.
    #[schema(min_length = 1, max_length = 200)]
    pub owner: Option<String>,
    /// Its first occurrence, an ISO 8601 instant; an interval counts from there. Of a new entry only.
    pub next: Option<String>,
    /// What holds beside its time.
    #[serde(flatten)]
    pub rules: EntryChange,
}

/// What of an entry is changed: what is left out stays, what is null is as in a new entry. Other fields are
/// refused.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EntryChange {
    /// The task that it sends.
    #[schema(min_length = 1, max_length = 200)]
    pub task: Option<String>,
    /// When it is due.
    #[schema(value_type = Option<Object>)]
    pub schedule: Option<Map>,
    /// Positional arguments.
    pub args: Option<Vec<Value>>,
    /// Keyword arguments.
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<Map>,
    /// Options of Celery's `apply_async`: `queue`, `priority`, `expires`, `headers` and so on.
    #[schema(value_type = Option<Object>)]
    pub options: Option<Map>,
    /// The zone of its clock, an IANA name.
    pub zone: Option<String>,
    /// It is not due before this.
    pub start: Option<String>,
    /// It is not due after this.
    pub end: Option<String>,
    /// Each occurrence is sent up to so many seconds later, by chance.
    #[schema(minimum = 0)]
    pub jitter: Option<f64>,
    /// What becomes of missed occurrences: skip, once or all.
    pub misfire: Option<String>,
    /// How many of them at most, with `all`.
    #[schema(minimum = 1, maximum = 10000)]
    pub misfire_limit: Option<u32>,
    /// How many seconds late an occurrence may be without counting as missed.
    #[schema(minimum = 0)]
    pub misfire_grace: Option<f64>,
    /// While an earlier one runs: allow, skip, queue-one or cancel-previous.
    pub overlap: Option<String>,
    /// How many occurrences may wait or run at a time.
    #[schema(minimum = 1, maximum = 10000)]
    pub max_instances: Option<u32>,
    /// A time that the clock skips: shift or skip.
    pub dst_gap: Option<String>,
    /// A time that comes twice: auto, first, last or both.
    pub dst_repeat: Option<String>,
    /// Whether it is not paused.
    pub enabled: Option<bool>,
    /// For people.
    pub description: Option<String>,
}

/// A task that an entry has sent beside its schedule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSent {
    /// The entry's name.
    pub name: String,
    /// The task's id.
    pub task_id: String,
}

/// How many times are shown, and on which clock.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NextQuery {
    /// The most times.
    #[param(minimum = 1, maximum = 500, default = 10)]
    pub count: Option<usize>,
    /// The zone of `local`, an IANA name; the entry's if none is given.
    pub tz: Option<String>,
}

/// The next times of an entry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NextTimes {
    /// The times, as if the entry were not paused.
    pub items: Vec<NextTime>,
    /// The zone of `local`.
    pub zone: String,
}

/// A time at which an entry is due.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NextTime {
    /// In UTC.
    pub utc: String,
    /// On the clock of the zone, with its offset.
    pub local: String,
    /// How many seconds from now.
    #[serde(rename = "in")]
    pub seconds: f64,
}

/// Which occurrences are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// `next` of the page before: an ISO 8601 instant, before which this page begins.
    pub before: Option<String>,
    /// The most occurrences.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub limit: Option<usize>,
}

/// What was fired of an entry, latest first.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OccurrenceList {
    /// The occurrences.
    pub items: Vec<Occurrence>,
    /// `before` of the next page, if there may be one.
    #[schema(required)]
    pub next: Option<String>,
}

/// An occurrence that another scheduler wants to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FireRequest {
    /// When it was due, an ISO 8601 instant.
    pub scheduled_for: String,
    /// The name under which the scheduler owns the entry.
    #[schema(min_length = 1, max_length = 200)]
    pub owner: String,
    /// The epoch in which it owns it; left out, any epoch of this owner.
    pub owner_epoch: Option<u64>,
}

/// An occurrence that another scheduler runs, and nobody else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fired {
    /// The entry's name.
    pub name: String,
    /// When it was due.
    pub scheduled_for: String,
    /// Who runs it.
    pub owner: String,
    /// In which epoch.
    pub owner_epoch: u64,
}

/// Who gets an entry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveRequest {
    /// `beat`, or the name of another scheduler.
    #[schema(min_length = 1, max_length = 200)]
    pub owner: String,
    /// The first occurrence that the new owner runs, an ISO 8601 instant; as it stands if none is given.
    pub next: Option<String>,
}
