//! Entries that run at their time: where they are kept, who may fire them, and what was fired.

use super::{Plan, RedBeatKeys, RedBeatView};
use crate::error::StoreError;
use async_trait::async_trait;
use celeriac_wire::{Map, State, Value};
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// An entry as a store keeps it. The store looks at its name, its version and its time; what the
/// documents say is for [`crate::schedule`].
#[derive(Clone, Debug, PartialEq)]
pub struct EntryRecord {
    /// Its name, unique in the store.
    pub name: String,
    /// Grows with every write of this entry, and is not used again when an entry of the name was removed.
    pub version: u64,
    /// When a beat has to look at it; `None`: never, it is paused or has ended.
    pub wake: Option<Timestamp>,
    /// What it is; a text where it cannot be read, which says why.
    pub entry: Value,
    /// How far it has come.
    pub state: Value,
}

/// What became of a write that expects a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a conflict wrote nothing"]
pub enum Saved {
    /// Written; the entry has this version now.
    Done(u64),
    /// It has another version, is gone, or is there already: nothing was written.
    Conflict,
}

/// Who fires what is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The beat that leads.
    pub holder: String,
    /// Grows with every change of the leader; what a former leader writes is refused by it.
    pub epoch: u64,
    /// When its lease ends, by the store's clock.
    pub until: Timestamp,
}

/// Why there is a line for an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OccurrenceKind {
    /// A beat sent its message.
    Sent,
    /// Somebody had it run now.
    Manual,
    /// Another scheduler, which owns the entry, has run it.
    Elsewhere,
    /// It was not sent; the note says why.
    Skipped,
    /// It could not be sent; the note says why.
    Failed,
}

impl OccurrenceKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Sent, Self::Manual, Self::Elsewhere, Self::Skipped, Self::Failed];

    /// Its name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Manual => "manual",
            Self::Elsewhere => "elsewhere",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// One time at which an entry was due, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// When it was due; an entry has at most one line for a time.
    pub due: Timestamp,
    /// When it was written.
    pub fired: Timestamp,
    /// What was done.
    pub kind: OccurrenceKind,
    /// The task that was sent.
    pub task_id: Option<String>,
    /// For how many occurrences it stands, itself included: missed ones share a line.
    pub count: u64,
    /// Why it was skipped or failed, who ran it; empty if there is nothing to say.
    pub note: String,
    /// The state in which its task ended, as far as it is known.
    pub outcome: Option<State>,
}

impl Occurrence {
    /// How late it was.
    pub fn drift(&self) -> Duration {
        Duration::try_from(self.fired.duration_since(self.due)).unwrap_or_default()
    }

    /// Whether its end is still to be found out.
    pub fn is_open(&self) -> bool {
        self.outcome.is_none() && self.task_id.is_some()
    }

    /// As a document, times in microseconds since 1970.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("due", self.due.as_microsecond());
        map.insert("fired", self.fired.as_microsecond());
        map.insert("kind", self.kind.as_str());
        map.insert("count", self.count);
        if let Some(task_id) = &self.task_id {
            map.insert("task_id", task_id.as_str());
        }
        if !self.note.is_empty() {
            map.insert("note", self.note.as_str());
        }
        if let Some(outcome) = &self.outcome {
            map.insert("outcome", outcome.as_str());
        }
        Value::Object(map)
    }

    /// Reads such a document; `None` if it is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        let time = |name| Timestamp::from_microsecond(value.get(name)?.as_i64()?).ok();
        let text = |name| value.get(name).and_then(Value::as_str);
        let kind = text("kind")?;
        Some(Self {
            due: time("due")?,
            fired: time("fired")?,
            kind: OccurrenceKind::ALL.into_iter().find(|one| one.as_str() == kind)?,
            task_id: text("task_id").map(str::to_owned),
            count: value.get("count").and_then(Value::as_u64).unwrap_or(1),
            note: text("note").unwrap_or_default().to_owned(),
            outcome: text("outcome").map(State::parse),
        })
    }
}

/// An occurrence and everything that is written with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    /// The entry.
    pub name: String,
    /// The version that the entry must have; then its time and state become those below. `None` leaves
    /// the entry as it is, even where there is none.
    pub version: Option<u64>,
    /// When a beat has to look at it again.
    pub wake: Option<Timestamp>,
    /// How far it has come.
    pub state: Value,
    /// What is noted. Where the entry has a line for this time already, the line stays, the plan is not
    /// written, and the entry goes on.
    pub occurrence: Occurrence,
    /// The message that is sent, and what goes with it.
    pub plan: Plan,
}

/// What became of a [`Fire`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "only what is done was sent"]
pub enum Fired {
    /// All of it is written. The version is that of the entry now, 0 where none was expected.
    Done(u64),
    /// All of it is written but the message: another task holds its unique key.
    Held {
        /// The version of the entry now, 0 where none was expected.
        version: u64,
        /// The task that holds the key.
        holder: String,
    },
    /// The entry had a line for this time: it goes on, and nothing was sent.
    Taken(u64),
    /// The entry has another version or is gone: nothing was written.
    Changed,
    /// Another beat leads: nothing was written.
    Fenced,
}

/// Keeps entries and what was fired.
#[async_trait]
pub trait Schedules: fmt::Debug + Send + Sync {
    /// Writes entries, each on its own; answers in their order. A record's version is the one that the
    /// entry must still have, 0 for one that must not be there.
    ///
    /// # Errors
    /// `TooLarge`: one of them is larger than a message may be; `Invalid`: a name is empty or longer than
    /// [`ENTRY_NAME_BYTES_MAX`](crate::limits::ENTRY_NAME_BYTES_MAX). Nothing was written. Every other text
    /// is a name.
    async fn save_entries(&self, records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError>;

    /// Removes an entry if it has this version; its occurrences stay until they are too old.
    async fn remove_entry(&self, name: &str, version: u64) -> Result<bool, StoreError>;

    /// One entry.
    async fn entry(&self, name: &str) -> Result<Option<EntryRecord>, StoreError>;

    /// Entries in the order of their names (by bytes), from behind `after`.
    async fn entries(&self, after: &str, count_max: usize) -> Result<Vec<EntryRecord>, StoreError>;

    /// How many entries there are.
    async fn entry_count(&self) -> Result<u64, StoreError>;

    /// Entries whose time has come, earliest first.
    async fn due_entries(
        &self,
        now: Timestamp,
        count_max: usize,
    ) -> Result<Vec<EntryRecord>, StoreError>;

    /// When the next entry wakes.
    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Takes the lead for so long, renews it, or says who has it. A lease that has ended is taken with
    /// a new epoch, also by the beat that had it.
    async fn lead(&self, holder: &str, lease: Duration) -> Result<Lead, StoreError>;

    /// Gives the lead back, if this beat has it in this epoch.
    async fn resign(&self, holder: &str, epoch: u64) -> Result<(), StoreError>;

    /// Who leads; `None` when nobody does.
    async fn leader(&self) -> Result<Option<Lead>, StoreError>;

    /// Writes occurrences with their messages, each in one atomic step, in order: two of one entry may
    /// follow each other, each with the version that the one before it gives, which is one more. With
    /// an epoch all of them are refused unless it is that of a lead that stands. What the plans of a beat
    /// send is never refused for depth, a unique message is left out as a client's is, and a fanout to which
    /// nobody listens is no error.
    ///
    /// # Errors
    /// As [`Broker::publish`](super::Broker::publish), and `Invalid` for a name that no entry may have; then
    /// nothing of this call was written. A store that cannot write a large call in one step answers
    /// `Unknown` when it fails behind a part that is written; to call again is safe.
    async fn fire(&self, epoch: Option<u64>, fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError>;

    /// What was fired of an entry before a time, latest first.
    async fn occurrences(
        &self,
        name: &str,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<Occurrence>, StoreError>;

    /// Occurrences whose end is not known, in the order in which they were fired, from behind a time. A
    /// page goes on past `count_max` to the end of those that were fired at the time of its last one, so
    /// that the next page can begin there.
    async fn open_occurrences(
        &self,
        after: Timestamp,
        count_max: usize,
    ) -> Result<Vec<(String, Occurrence)>, StoreError>;

    /// Writes how occurrences ended: entry, time and state. One that is gone is passed over.
    async fn end_occurrences(
        &self,
        ended: Vec<(String, Timestamp, State)>,
    ) -> Result<(), StoreError>;

    /// Shares the entries in RedBeat's keys with a stock RedBeat from now on, for every process of this
    /// store: they are entries like others, of the source
    /// [`SourceKind::RedBeat`](crate::beat::SourceKind::RedBeat), and the beat that leads fires them while it
    /// has RedBeat's lock. A version of such an entry does not grow from one to the next.
    ///
    /// # Errors
    /// `Invalid`: the store is not in Redis, the keys are not on its server, or there is an entry among them
    /// that no beat of ours can fire. Nothing changed then.
    async fn share_redbeat(&self, _keys: RedBeatKeys) -> Result<(), StoreError> {
        let text = "RedBeat keeps its entries in Redis, and this store is not there";
        Err(StoreError::invalid(text)
            .hint("take them over with `celeriac schedule import --format redbeat`"))
    }

    /// Leaves RedBeat's keys to it alone, and gives its lock back; `false` if they were not shared.
    async fn leave_redbeat(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// How it stands with RedBeat's keys; `None` if they are not shared.
    async fn redbeat(&self) -> Result<Option<RedBeatView>, StoreError> {
        Ok(None)
    }
}
