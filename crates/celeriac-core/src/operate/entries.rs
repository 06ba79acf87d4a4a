//! What operators and programs do to the entries of a schedule.
//!
//! Each reads the entry, changes it, and writes it only if nobody else has in between; a beat that
//! fires at the same moment counts as somebody else, so it is tried again.

use crate::beat::{Change, Entry, EntryState, Owner, Reason};
use crate::clock::Clock;
use crate::error::{ErrorKind, StoreError};
use crate::schedule::Zone;
use crate::store::{
    EntryRecord, Fire, Fired, Occurrence, OccurrenceKind, Plan, Saved, Schedules, Store,
};
use celeriac_wire::{State, Value};
use jiff::Timestamp;

/// How often a change is tried again because the entry changed meanwhile.
const TRIES_MAX: usize = 20;
/// How many entries are read at a time.
const PAGE: usize = 500;

/// An entry with its state, as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its version in the store.
    pub version: u64,
    /// What it is.
    pub entry: Entry,
    /// How far it has come.
    pub state: EntryState,
}

impl Kept {
    /// A new entry; `next` is its first occurrence, if that is known.
    pub fn new(entry: Entry, next: Option<Timestamp>, now: Timestamp) -> Self {
        let mut state = EntryState::new(&entry, now);
        if let Some(next) = next {
            state.due = Some(next);
            state.anchor = next;
        }
        Self { version: 0, entry, state }
    }

    /// Reads what a store keeps.
    ///
    /// # Errors
    /// `Corrupt`: the documents are not those of an entry.
    pub fn read(record: &EntryRecord) -> Result<Self, StoreError> {
        let corrupt = |text: String| {
            let text = format!("the entry {:?} cannot be read: {text}", record.name);
            StoreError::new(ErrorKind::Corrupt, text)
                .hint("remove it with `celeriac schedule remove` and add it again")
        };
        if let Some(why) = record.entry.as_str() {
            return Err(corrupt(why.to_owned()));
        }
        let entry = Entry::from_value(&record.entry, &Zone::utc())
            .map_err(|error| corrupt(error.to_string()))?;
        let state =
            EntryState::from_value(&record.state).ok_or_else(|| corrupt("its state".into()))?;
        Ok(Self { version: record.version, entry, state })
    }

    /// What a store keeps of it.
    pub fn record(&self) -> EntryRecord {
        EntryRecord {
            name: self.entry.name.clone(),
            version: self.version,
            wake: self.state.wake(&self.entry),
            entry: self.entry.to_value(),
            state: self.state.to_value(),
        }
    }

    /// The times at which it is due from now on, as if it were not paused.
    pub fn next_times(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let (entry, anchor) = (self.entry.clone(), self.state.anchor);
        let first = self.state.due.filter(|due| *due > now).or_else(|| entry.next(now, anchor));
        std::iter::successors(first, move |last| entry.next(*last, anchor))
    }

    /// Whether an entry that a source gave was changed here.
    pub fn is_edited(&self) -> bool {
        let now = Value::Object(self.entry.definition());
        self.entry.source.original.as_deref().is_some_and(|original| *original != now)
    }
}

/// One entry.
///
/// # Errors
/// `NotFound`, `Corrupt`, or the store's.
pub async fn entry(store: &dyn Schedules, name: &str) -> Result<Kept, StoreError> {
    match store.entry(name).await? {
        Some(record) => Kept::read(&record),
        None => Err(StoreError::new(ErrorKind::NotFound, format!("there is no entry {name:?}"))
            .hint("`celeriac schedule list` shows what there is")),
    }
}

/// All entries in the order of their names; one that cannot be read is an error among them.
///
/// # Errors
/// The store's.
pub async fn all_entries(
    store: &dyn Schedules,
) -> Result<Vec<Result<Kept, StoreError>>, StoreError> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.entries(&after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after.clone_from(&last.name);
        all.extend(page.iter().map(Kept::read));
    }
}

/// Adds an entry; `next` is its first occurrence, if it goes on from another scheduler.
///
/// # Errors
/// `Conflict` when there is one of its name, or the store's.
pub async fn add_entry(
    store: &dyn Schedules,
    entry: Entry,
    next: Option<Timestamp>,
    now: Timestamp,
) -> Result<Kept, StoreError> {
    let mut kept = Kept::new(entry, next, now);
    match first(store.save_entries(vec![kept.record()]).await?)? {
        Saved::Done(version) => {
            kept.version = version;
            Ok(kept)
        }
        Saved::Conflict => {
            let text = format!("there is an entry {:?} already", kept.entry.name);
            Err(StoreError::new(ErrorKind::Conflict, text)
                .hint("change it with `celeriac schedule edit`, or remove it first"))
        }
    }
}

/// Changes an entry; returns it as it is then. `change` may be asked several times.
///
/// # Errors
/// `NotFound`, what `change` says, `Conflict` when it changes all the time, or the store's.
pub async fn change_entry(
    store: &dyn Schedules,
    name: &str,
    now: Timestamp,
    mut change: impl FnMut(&mut Kept) -> Result<(), StoreError> + Send,
) -> Result<Kept, StoreError> {
    for _ in 0..TRIES_MAX {
        let old = entry(store, name).await?;
        let mut new = old.clone();
        change(&mut new)?;
        new.entry.check().map_err(|error| StoreError::invalid(error.to_string()))?;
        if new.entry == old.entry && new.state == old.state {
            return Ok(old);
        }
        if new.state == old.state {
            new.state = old.state.of_changed(&old.entry, &new.entry, now);
        }
        if let Saved::Done(version) = first(store.save_entries(vec![new.record()]).await?)? {
            new.version = version;
            return Ok(new);
        }
    }
    let text = format!("the entry {name:?} changes all the time");
    Err(StoreError::new(ErrorKind::Conflict, text))
}

/// Pauses an entry or lets it go on; `false` when it stood so already.
///
/// # Errors
/// As [`change_entry`].
pub async fn enable_entry(
    store: &dyn Schedules,
    name: &str,
    enabled: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut changed = false;
    change_entry(store, name, now, |kept| {
        changed = kept.entry.enabled != enabled;
        kept.entry.enabled = enabled;
        Ok(())
    })
    .await?;
    Ok(changed)
}

/// Removes an entry.
///
/// # Errors
/// `NotFound`, or the store's.
pub async fn remove_entry(store: &dyn Schedules, name: &str) -> Result<(), StoreError> {
    for _ in 0..TRIES_MAX {
        let Some(record) = store.entry(name).await? else {
            return Err(StoreError::new(
                ErrorKind::NotFound,
                format!("there is no entry {name:?}"),
            )
            .hint("`celeriac schedule list` shows what there is"));
        };
        if store.remove_entry(name, record.version).await? {
            return Ok(());
        }
    }
    let text = format!("the entry {name:?} changes all the time");
    Err(StoreError::new(ErrorKind::Conflict, text))
}

/// Notes that an entry runs now because somebody wants it, and sends its message; the schedule goes on as
/// it was.
///
/// # Errors
/// The store's.
pub async fn run_entry(
    store: &dyn Store,
    name: &str,
    task_id: &str,
    note: &str,
    plan: Plan,
    now: Timestamp,
) -> Result<Occurrence, StoreError> {
    let mut occurrence = Occurrence {
        due: now,
        fired: now,
        kind: OccurrenceKind::Manual,
        task_id: Some(task_id.to_owned()),
        count: 1,
        note: note.to_owned(),
        outcome: None,
    };
    loop {
        let fire = Fire {
            name: name.to_owned(),
            version: None,
            wake: None,
            state: Value::Null,
            occurrence: occurrence.clone(),
            plan: plan.clone(),
        };
        match first(store.fire(None, vec![fire]).await?)? {
            Fired::Done(_) => return Ok(occurrence),
            Fired::Held { holder, .. } => {
                let ended = (name.to_owned(), occurrence.due, left_out());
                store.end_occurrences(vec![ended]).await?;
                let text = format!("it is not sent: task {holder} holds its unique key");
                return Err(StoreError::new(ErrorKind::Conflict, text)
                    .hint("it can run again when that task has ended"));
            }
            // Another one of the same microsecond.
            _ => occurrence.due += jiff::SignedDuration::from_micros(1),
        }
    }
}

/// What another scheduler is told when it asks whether it may run an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// It may, and nobody else will.
    Run,
    /// It has been run, by whom the note says.
    Already(String),
    /// The entry is somebody else's, in this epoch.
    NotOwner(Owner),
    /// The entry is paused.
    Paused,
}

/// Gives an occurrence of an entry to another scheduler, once (`rollout.md` 6.6).
///
/// # Errors
/// `NotFound`, or the store's.
pub async fn take_occurrence(
    store: &dyn Schedules,
    name: &str,
    due: Timestamp,
    owner: &Owner,
    now: Timestamp,
) -> Result<Token, StoreError> {
    for _ in 0..TRIES_MAX {
        let kept = entry(store, name).await?;
        if kept.entry.owner != *owner {
            return Ok(Token::NotOwner(kept.entry.owner));
        }
        if !kept.entry.enabled {
            return Ok(Token::Paused);
        }
        let mut state = kept.state.clone();
        // One that was late may be asked for behind its successor.
        let last = state.last_due.map_or(due, |last| last.max(due));
        state.last_due = Some(last);
        state.last_fired = Some(now);
        state.runs += 1;
        // Where a beat of ours goes on, should the entry become its own.
        state.due = kept.entry.next(last, state.anchor);
        let occurrence = Occurrence {
            due,
            fired: now,
            kind: OccurrenceKind::Elsewhere,
            task_id: None,
            count: 1,
            note: format!("run by {}", owner.name),
            outcome: None,
        };
        let fire = Fire {
            name: name.to_owned(),
            version: Some(kept.version),
            wake: state.wake(&kept.entry),
            state: state.to_value(),
            occurrence,
            plan: Plan::default(),
        };
        match first(store.fire(None, vec![fire]).await?)? {
            Fired::Done(_) | Fired::Held { .. } => return Ok(Token::Run),
            Fired::Taken(_) => {
                let after = due + jiff::SignedDuration::from_micros(1);
                let line = store.occurrences(name, after, 1).await?;
                let by = line.first().filter(|line| line.due == due).map(|line| {
                    if line.note.is_empty() {
                        line.kind.as_str().to_owned()
                    } else {
                        line.note.clone()
                    }
                });
                return Ok(Token::Already(by.unwrap_or_default()));
            }
            Fired::Changed | Fired::Fenced => {}
        }
    }
    let text = format!("the entry {name:?} changes all the time");
    Err(StoreError::new(ErrorKind::Conflict, text))
}

/// Gives an entry to another scheduler, or back to beat; the epoch grows, so that the former owner is
/// refused from now on. `next` is the first occurrence that the new owner runs.
///
/// No occurrence is lost: the former owner runs what was due before, the new one what is due later. Beat
/// makes up for what it finds due; another scheduler may have been refused it, so it gets an entry between
/// times.
///
/// # Errors
/// `Conflict` while an occurrence is due that the former owner has not run and the new one would not run: try
/// again after a change. Otherwise as [`change_entry`].
pub async fn give_entry(
    store: &dyn Schedules,
    clock: &dyn Clock,
    name: &str,
    owner: &str,
    next: Option<Timestamp>,
) -> Result<Kept, StoreError> {
    let mut before = None;
    let given = change_entry(store, name, clock.wall(), |kept| {
        if let Some(due) = orphan(kept, owner, next, clock.wall()) {
            return Err(orphaned(kept, owner, due));
        }
        before = Some(kept.clone());
        hand_over(kept, owner);
        if let Some(next) = next {
            kept.state.due = Some(next);
            kept.state.anchor = next;
            kept.state.queued = kept.state.queued.filter(|queued| *queued < next);
        }
        Ok(())
    })
    .await?;
    // What came due while this was written may have been refused to the new owner just before.
    let now = clock.wall();
    let late = before.and_then(|before| Some((orphan(&before, owner, next, now)?, before)));
    match late {
        Some((due, before)) => take_back(store, &before, given, due, now).await,
        None => Ok(given),
    }
}

/// The occurrence that nobody runs if an entry becomes another owner's now.
fn orphan(kept: &Kept, owner: &str, next: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    if kept.entry.owner.name == owner {
        return None;
    }
    let due = kept.state.outstanding(&kept.entry, now)?;
    let is_run = next.map_or(owner == Owner::BEAT, |next| next <= due);
    (!is_run).then_some(due)
}

fn orphaned(kept: &Kept, owner: &str, due: Timestamp) -> StoreError {
    let (name, former) = (&kept.entry.name, &kept.entry.owner.name);
    let text =
        format!("{name:?} stays with {former}, which has not run its occurrence of {due} yet");
    let how = if owner == Owner::BEAT {
        "leave the next time out, then beat runs it".to_owned()
    } else {
        format!("let the next time, the first that {owner} runs, be {due} or earlier")
    };
    let hint = format!("try again when {former} has run it; or {how}; or pause the entry first");
    StoreError::new(ErrorKind::Conflict, text).hint(hint)
}

fn hand_over(kept: &mut Kept, owner: &str) {
    if kept.entry.owner.name != owner {
        owner.clone_into(&mut kept.entry.owner.name);
        kept.entry.owner.epoch += 1;
    }
}

/// Makes an entry that was just given away its former owner's again, unless the occurrence has been run.
///
/// # Errors
/// `Conflict`: it is the former owner's. Otherwise as [`change_entry`].
async fn take_back(
    store: &dyn Schedules,
    before: &Kept,
    given: Kept,
    due: Timestamp,
    now: Timestamp,
) -> Result<Kept, StoreError> {
    let former = &before.entry.owner.name;
    let mut taken = false;
    let kept = change_entry(store, &given.entry.name, now, |kept| {
        let is_run = kept.state.last_due >= Some(due);
        taken = !is_run && kept.entry.owner == given.entry.owner;
        if taken {
            hand_over(kept, former);
            kept.state.due = before.state.due;
            kept.state.anchor = before.state.anchor;
            kept.state.queued = before.state.queued;
        }
        Ok(())
    })
    .await?;
    if taken { Err(orphaned(before, &given.entry.owner.name, due)) } else { Ok(kept) }
}

/// Makes the entries of a source part of the schedule; returns what was left as it is, with the reason.
///
/// # Errors
/// The store's. Some of the changes may be written then; doing it again does the rest.
pub async fn apply_changes(
    store: &dyn Schedules,
    changes: Vec<Change>,
    now: Timestamp,
) -> Result<Vec<(String, Reason)>, StoreError> {
    let mut kept = Vec::new();
    let mut new = Vec::new();
    for change in changes {
        match change {
            Change::Add(entry) => {
                new.push(Kept::new(*entry, None, now).record());
            }
            Change::Replace(entry) => {
                let name = entry.name.clone();
                let replaced = change_entry(store, &name, now, |kept| {
                    kept.entry = (*entry).clone();
                    Ok(())
                });
                replaced.await?;
            }
            Change::Remove(name) => match remove_entry(store, &name).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            Change::Keep(name, reason) => kept.push((name, reason)),
        }
    }
    for batch in new.chunks(PAGE) {
        // Another beat that starts at the same time adds the same.
        let _saved: Vec<Saved> = store.save_entries(batch.to_vec()).await?;
    }
    Ok(kept)
}

/// The outcome of an occurrence whose message was left out because another task holds its unique key.
pub fn left_out() -> State {
    State::parse("DUPLICATE")
}

fn first<T>(answers: Vec<T>) -> Result<T, StoreError> {
    let none = || StoreError::new(ErrorKind::Internal, "a store gave no answer for a write");
    answers.into_iter().next().ok_or_else(none)
}
