//! Schedules: entries that a beat sends at their times, kept in the store.
//!
//! ```
//! use celeriac::prelude::*;
//! use celeriac::schedule::{Crontab, Entry, Overlap};
//!
//! /// Writes the report of a day.
//! #[task(name = "reports.write", max_retries = 0)]
//! async fn write_report(kind: String) -> Result<()> {
//!     println!("a {kind} report");
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
//! # async fn main() -> celeriac::Result {
//! let nightly = Entry::new("nightly", Crontab::from_string("0 3 * * *")?, write_report::call("full"))
//!     .zone("Europe/Berlin")
//!     .overlap(Overlap::Skip)
//!     .description("for the board");
//! // A part of the program: every beat of it knows the entry.
//! let app = App::at("memory://")?.tasks(tasks![write_report]).schedule(nightly);
//!
//! // Or added while everything runs; a beat acts on it within a second.
//! let schedules = app.schedules().await?;
//! let hourly = Entry::new("hourly", Crontab::from_string("0 * * * *")?, write_report::call("short"));
//! schedules.add(hourly).await?;
//! schedules.pause("hourly").await?;
//! assert_eq!(schedules.list().await?.len(), 1);
//! # Ok(())
//! # }
//! ```

use crate::canvas::Workflow;
use crate::client::Client;
use crate::{Job, Result, TaskError};
use celeriac_core::beat;
use celeriac_core::operate::entries;
use celeriac_core::store::Phase;
use celeriac_core::{ErrorKind, StoreError, clock};
use celeriac_wire::{SignatureKind, Value};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

pub use celeriac_core::beat::{EntryState, Misfire, Overlap, Owner, SourceKind};
pub use celeriac_core::operate::entries::{Kept, Token};
pub use celeriac_core::schedule::{
    Crontab, DstRule, Gap, Interval, Repeat, Schedule, ScheduleError, Solar, SolarEvent, Zone,
};
pub use celeriac_core::store::{Occurrence, OccurrenceKind};

/// How long an entry that is given away waits for what is due to be run.
const GIVE_PATIENCE: Duration = Duration::from_secs(3);
/// How often that is looked at, at least.
const GIVE_EVERY: Duration = Duration::from_millis(250);

/// What runs at its times, to be given to [`App::schedule`](crate::App::schedule) or [`Schedules::add`].
///
/// What is wrong with it is said there.
#[derive(Clone, Debug)]
#[must_use = "an entry does nothing until it is added"]
pub struct Entry {
    entry: std::result::Result<beat::Entry, String>,
}

impl Entry {
    /// Runs a call by a schedule: a [`Crontab`], an [`Interval`], a [`Solar`] event, or a moment.
    pub fn new<W: Workflow>(name: &str, when: impl Into<Schedule>, call: W) -> Self {
        Self { entry: Self::build(name, when.into(), call) }
    }

    fn build<W: Workflow>(
        name: &str,
        when: Schedule,
        call: W,
    ) -> std::result::Result<beat::Entry, String> {
        let (signature, fault) = call.into_signature();
        if let Some(fault) = fault {
            return Err(fault);
        }
        if signature.kind() != SignatureKind::Task {
            return Err("an entry runs one task; let that send the workflow".to_owned());
        }
        let task = signature.task().unwrap_or_default();
        let mut entry =
            beat::Entry::new(name, task, when, Zone::utc()).map_err(|error| error.to_string())?;
        entry.args = signature.args().to_vec();
        entry.kwargs = signature.kwargs().clone();
        entry.options = signature.options().clone();
        entry.options.remove("task_id");
        Ok(entry)
    }

    fn set(mut self, set: impl FnOnce(&mut beat::Entry)) -> Self {
        if let Ok(entry) = &mut self.entry {
            set(entry);
        }
        self
    }

    /// The time zone of its wall clock, by its IANA name; UTC by default.
    pub fn zone(mut self, name: &str) -> Self {
        match Zone::named(name) {
            Ok(zone) => self.set(|entry| entry.zone = zone),
            Err(error) => {
                self.entry = self.entry.and(Err(error.to_string()));
                self
            }
        }
    }

    /// It is not due before this.
    pub fn start(self, at: Timestamp) -> Self {
        self.set(|entry| entry.start = Some(at))
    }

    /// It is not due after this.
    pub fn end(self, at: Timestamp) -> Self {
        self.set(|entry| entry.end = Some(at))
    }

    /// Each occurrence is sent up to so much later, by chance.
    pub fn jitter(self, most: Duration) -> Self {
        self.set(|entry| entry.jitter = most)
    }

    /// What becomes of occurrences that passed while no beat ran; once by default.
    pub fn misfire(self, misfire: Misfire) -> Self {
        self.set(|entry| entry.misfire = misfire)
    }

    /// How late an occurrence may be sent without counting as missed; 15 seconds by default.
    pub fn misfire_grace(self, grace: Duration) -> Self {
        self.set(|entry| entry.misfire_grace = grace)
    }

    /// What happens when an earlier occurrence still runs; it is sent by default.
    pub fn overlap(self, overlap: Overlap) -> Self {
        self.set(|entry| entry.overlap = overlap)
    }

    /// How many occurrences may wait or run at a time.
    pub fn max_instances(self, most: u32) -> Self {
        self.set(|entry| entry.max_instances = Some(most))
    }

    /// What holds when clocks are changed.
    pub fn dst(self, rule: DstRule) -> Self {
        self.set(|entry| entry.dst = rule)
    }

    /// It begins paused.
    pub fn paused(self) -> Self {
        self.set(|entry| entry.enabled = false)
    }

    /// A text for people.
    pub fn description(self, text: &str) -> Self {
        self.set(|entry| text.clone_into(&mut entry.description))
    }

    pub(crate) fn into_entry(self) -> Result<beat::Entry> {
        let entry = self.entry.map_err(|text| TaskError::fail(format!("the entry: {text}")))?;
        entry.check()?;
        Ok(entry)
    }
}

/// How an entry stands: the entry, its latest occurrence, and where the task of that is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The entry with its next and last times.
    pub kept: Kept,
    /// Whether it is `scheduled`, `paused`, `ended`, or runs `elsewhere`.
    pub word: &'static str,
    /// What was fired last.
    pub latest: Option<Occurrence>,
    /// Where its task is.
    pub phase: Option<Phase>,
}

/// The schedule in the store: adds, changes, removes, looks. Every change acts within a second, without a
/// beat being started anew; nothing here needs a beat to run.
#[derive(Clone, Debug)]
pub struct Schedules {
    client: Client,
}

impl Schedules {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn now(&self) -> Timestamp {
        self.client.now()
    }

    /// Adds an entry; it is first due one interval from now, or at the next match.
    ///
    /// # Errors
    /// What is wrong with the entry; there is one of its name; the store does not answer.
    pub async fn add(&self, entry: Entry) -> Result<Kept> {
        let entry = entry.into_entry()?;
        Ok(entries::add_entry(&**self.client.store(), entry, None, self.now()).await?)
    }

    /// Adds an entry, or puts it in place of the one of its name, whose history and owner stay.
    ///
    /// # Errors
    /// As [`Schedules::add`].
    pub async fn put(&self, entry: Entry) -> Result<Kept> {
        let entry = entry.into_entry()?;
        let store = &**self.client.store();
        if store.entry(&entry.name).await?.is_none()
            && let Ok(kept) = entries::add_entry(store, entry.clone(), None, self.now()).await
        {
            return Ok(kept);
        }
        let name = entry.name.clone();
        let changed = entries::change_entry(store, &name, self.now(), |kept| {
            let owner = kept.entry.owner.clone();
            kept.entry = beat::Entry { owner, ..entry.clone() };
            Ok(())
        });
        Ok(changed.await?)
    }

    /// Changes an entry; its next time changes only if its times do.
    ///
    /// # Errors
    /// There is none of this name, it makes no sense afterwards, or the store does not answer.
    pub async fn edit(
        &self,
        name: &str,
        change: impl Fn(&mut beat::Entry) + Send + Sync,
    ) -> Result<Kept> {
        let changed = entries::change_entry(&**self.client.store(), name, self.now(), |kept| {
            change(&mut kept.entry);
            name.clone_into(&mut kept.entry.name);
            Ok(())
        });
        Ok(changed.await?)
    }

    /// Removes an entry; what it has sent stays sent.
    ///
    /// # Errors
    /// There is none of this name, or the store does not answer.
    pub async fn remove(&self, name: &str) -> Result<()> {
        Ok(entries::remove_entry(&**self.client.store(), name).await?)
    }

    /// Holds an entry back; `false` when it was paused already.
    ///
    /// # Errors
    /// As [`Schedules::remove`].
    pub async fn pause(&self, name: &str) -> Result<bool> {
        Ok(entries::enable_entry(&**self.client.store(), name, false, self.now()).await?)
    }

    /// Lets an entry go on; what passed meanwhile is dealt with as its misfire rule says. `false` when it
    /// was not paused.
    ///
    /// # Errors
    /// As [`Schedules::remove`].
    pub async fn resume(&self, name: &str) -> Result<bool> {
        Ok(entries::enable_entry(&**self.client.store(), name, true, self.now()).await?)
    }

    /// Runs an entry now, beside its schedule.
    ///
    /// # Errors
    /// As [`Schedules::remove`]; its message cannot be sent.
    pub async fn run_now(&self, name: &str) -> Result<Job<Value>> {
        let store = self.client.store();
        let kept = entries::entry(&**store, name).await?;
        let task_id = self.client.new_id();
        let prepared = self.client.prepare(kept.entry.signature(&task_id)).await?;
        let note = "run by hand";
        entries::run_entry(&**store, name, &task_id, note, prepared.plan, self.now()).await?;
        if let Some(afterwards) = prepared.afterwards {
            afterwards.await;
        }
        Ok(self.client.job(&task_id))
    }

    /// How an entry stands.
    ///
    /// # Errors
    /// As [`Schedules::remove`].
    pub async fn status(&self, name: &str) -> Result<Status> {
        let store = self.client.store();
        let kept = entries::entry(&**store, name).await?;
        let latest = store.occurrences(name, Timestamp::MAX, 1).await?.into_iter().next();
        let phase = match latest.as_ref().and_then(|one| one.task_id.as_deref()) {
            Some(task_id) => Some(store.task(task_id).await?.phase),
            None => None,
        };
        let word = celeriac_core::document::entries::status(&kept);
        Ok(Status { kept, word, latest, phase })
    }

    /// All entries in the order of their names.
    ///
    /// # Errors
    /// The store does not answer, or an entry cannot be read.
    pub async fn list(&self) -> Result<Vec<Kept>> {
        let all = entries::all_entries(&**self.client.store()).await?;
        Ok(all.into_iter().collect::<std::result::Result<_, StoreError>>()?)
    }

    /// What was fired of an entry, latest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn history(&self, name: &str, count_max: usize) -> Result<Vec<Occurrence>> {
        Ok(self.client.store().occurrences(name, Timestamp::MAX, count_max).await?)
    }

    /// The next times of an entry, as if it were not paused.
    ///
    /// # Errors
    /// As [`Schedules::remove`].
    pub async fn next(&self, name: &str, count: usize) -> Result<Vec<Timestamp>> {
        let kept = entries::entry(&**self.client.store(), name).await?;
        Ok(kept.next_times(self.now()).take(count).collect())
    }

    /// Asks, as another scheduler that owns an entry, whether it may run an occurrence: each is given to
    /// one that asks.
    ///
    /// # Errors
    /// As [`Schedules::remove`].
    pub async fn take(&self, name: &str, due: Timestamp, owner: &Owner) -> Result<Token> {
        let store = &**self.client.store();
        Ok(entries::take_occurrence(store, name, due, owner, self.now()).await?)
    }

    /// Gives an entry to another scheduler, or to `beat`; the former owner is refused from now on. What is
    /// due at this moment is waited for, for some seconds, until the former owner has run it.
    ///
    /// # Errors
    /// As [`Schedules::remove`]; what is due has not been run, and the new owner would not run it.
    pub async fn give(&self, name: &str, owner: &str, next: Option<Timestamp>) -> Result<Kept> {
        let (store, clock) = (&**self.client.store(), self.client.clock());
        let deadline = Instant::now() + GIVE_PATIENCE;
        loop {
            let seen = store.changes();
            let given = entries::give_entry(store, clock, name, owner, next).await;
            let left = deadline.saturating_duration_since(Instant::now());
            match given {
                Err(error) if error.kind() == ErrorKind::Conflict && !left.is_zero() => {
                    store.wait_change(seen, left.min(GIVE_EVERY)).await;
                }
                given => return Ok(given?),
            }
        }
    }
}

impl Client {
    pub(crate) fn new_id(&self) -> String {
        clock::task_id(self.clock(), self.entropy())
    }
}
