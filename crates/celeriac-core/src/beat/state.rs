//! How far an entry has come.

use super::Entry;
use celeriac_wire::{Map, Value};
use jiff::Timestamp;

/// How far an entry has come; a store keeps it beside the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Where an interval counts from: when the entry was made, or its times were changed.
    pub anchor: Timestamp,
    /// The next occurrence; `None` when there is none any more.
    pub due: Option<Timestamp>,
    /// The latest occurrence that was sent.
    pub last_due: Option<Timestamp>,
    /// When that was.
    pub last_fired: Option<Timestamp>,
    /// How many were sent.
    pub runs: u64,
    /// An occurrence that waits for an earlier one to end.
    pub queued: Option<Timestamp>,
    /// Tasks of earlier occurrences that may still wait or run; only kept where their number matters.
    pub open: Vec<String>,
}

impl EntryState {
    /// The state of a new entry: it is due for the first time one interval from now, or at the next
    /// match of its crontab (celery/beat.py 5.7, `ScheduleEntry.last_run_at`).
    pub fn new(entry: &Entry, now: Timestamp) -> Self {
        // As precise as it is kept.
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let anchor = entry.start.map_or(now, |start| start.max(now));
        Self {
            anchor,
            due: entry.next(now, anchor),
            last_due: None,
            last_fired: None,
            runs: 0,
            queued: None,
            open: Vec::new(),
        }
    }

    /// The state of an entry that was changed: what was sent stays known, and the next occurrence is that
    /// of the new times, if these are new.
    #[must_use]
    pub fn of_changed(&self, old: &Entry, new: &Entry, now: Timestamp) -> Self {
        if old.same_times(new) {
            return self.clone();
        }
        let fresh = Self::new(new, now);
        Self { anchor: fresh.anchor, due: fresh.due, queued: None, ..self.clone() }
    }

    /// When a beat has to look at the entry.
    pub fn wake(&self, entry: &Entry) -> Option<Timestamp> {
        if !entry.enabled || !entry.is_ours() {
            return None;
        }
        let due = self.due.map(|due| super::look::sent_at(entry, due));
        // One that waits is looked at again at once.
        due.into_iter().chain(self.queued).min()
    }

    /// The first occurrence whose time has come and which the entry's owner has not run, as far as is known
    /// here; a paused entry has none.
    pub fn outstanding(&self, entry: &Entry, now: Timestamp) -> Option<Timestamp> {
        let queued = self.queued.filter(|_| entry.is_ours());
        queued.or(self.due.filter(|due| *due <= now)).filter(|_| entry.enabled)
    }

    /// As a document, times in microseconds since 1970.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut time = |name: &str, at: Option<Timestamp>| {
            if let Some(at) = at {
                map.insert(name, at.as_microsecond());
            }
        };
        time("anchor", Some(self.anchor));
        time("due", self.due);
        time("last_due", self.last_due);
        time("last_fired", self.last_fired);
        time("queued", self.queued);
        map.insert("runs", self.runs);
        if !self.open.is_empty() {
            map.insert(
                "open",
                self.open.iter().map(|id| Value::from(id.as_str())).collect::<Vec<_>>(),
            );
        }
        Value::Object(map)
    }

    /// Reads such a document; `None` if it is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        let time = |name| Timestamp::from_microsecond(value.get(name)?.as_i64()?).ok();
        let open = value.get("open").and_then(Value::as_array).unwrap_or_default();
        Some(Self {
            anchor: time("anchor")?,
            due: time("due"),
            last_due: time("last_due"),
            last_fired: time("last_fired"),
            runs: value.get("runs").and_then(Value::as_u64)?,
            queued: time("queued"),
            open: open.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}
