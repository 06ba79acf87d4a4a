//! What is to be fired of an entry now.

use super::{Entry, EntryState, Misfire, Overlap};
use crate::clock::{after, between};
use crate::store::{Occurrence, OccurrenceKind};
use jiff::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// The most occurrences of one entry that are fired at a look; the rest is due at once again.
pub const FIRES_MAX: usize = 100;
/// How often an entry is looked at while an occurrence waits for an earlier one to end.
const QUEUED_EVERY: Duration = Duration::from_secs(1);
/// Missed occurrences are counted up to this.
const MISSED_MAX: u32 = 100_000;

/// One occurrence to be written, and how far the entry has come with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is noted; its message is to be sent if it names a task.
    pub occurrence: Occurrence,
    /// The state after it.
    pub state: EntryState,
    /// When the entry is to be looked at again after it.
    pub wake: Option<Timestamp>,
    /// Tasks of earlier occurrences that are to be revoked and terminated once it is written.
    pub revoke: Vec<String>,
}

/// What a look at an entry leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// What is written, in this order.
    pub steps: Vec<Step>,
    /// The state in the end; to be saved if there is no step and it differs.
    pub state: EntryState,
    /// When the entry is to be looked at again.
    pub wake: Option<Timestamp>,
}

/// The id of the task that an occurrence sends: the same whoever sends it (RFC 9562, version 5).
pub fn occurrence_id(name: &str, due: Timestamp) -> String {
    let text = format!("celeriac entry {name}\0{}", due.as_microsecond());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).to_string()
}

/// When an occurrence is sent: with an entry's jitter some time after it is due, the same on every beat.
pub(super) fn sent_at(entry: &Entry, due: Timestamp) -> Timestamp {
    let jitter = u64::try_from(entry.jitter.as_micros()).unwrap_or(u64::MAX);
    if jitter == 0 {
        return due;
    }
    let text = format!("celeriac jitter {}\0{}", entry.name, due.as_microsecond());
    let (dice, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).as_u64_pair();
    after(due, Duration::from_micros(dice % jitter))
}

/// Decides what is to be fired of an entry. `ended` says whether a task of an earlier occurrence, one of
/// [`EntryState::open`], neither waits nor runs any more; it is asked where their number matters only.
pub fn look(
    entry: &Entry,
    state: &EntryState,
    now: Timestamp,
    ended: &dyn Fn(&str) -> bool,
) -> Look {
    let mut looker = Looker { entry, now, state: state.clone(), steps: Vec::new() };
    if !entry.enabled || !entry.is_ours() {
        return Look { steps: Vec::new(), state: looker.state, wake: None };
    }
    if entry.instances_max().is_some() {
        looker.state.open.retain(|task_id| !ended(task_id));
    } else {
        looker.state.open.clear();
    }
    if let Some(queued) = looker.state.queued
        && looker.has_room()
    {
        looker.state.queued = None;
        looker.send(queued, 1, Vec::new());
    }
    looker.make_up();
    while let Some(due) = looker.ready() {
        looker.state.due = looker.next(due);
        looker.fire(due, 1);
    }
    let wake = looker.wake();
    Look { steps: looker.steps, state: looker.state, wake }
}

struct Looker<'a> {
    entry: &'a Entry,
    now: Timestamp,
    state: EntryState,
    steps: Vec<Step>,
}

impl Looker<'_> {
    /// The next occurrence, if its time has come and there is room for it at this look.
    fn ready(&self) -> Option<Timestamp> {
        let due = self.state.due.filter(|due| sent_at(self.entry, *due) <= self.now)?;
        (self.steps.len() < FIRES_MAX).then_some(due)
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.entry.next(after, self.state.anchor)
    }

    /// The latest occurrence up to an instant, which is not before `due`.
    fn latest(&self, due: Timestamp, until: Timestamp) -> Timestamp {
        let until = self.entry.end.map_or(until, |end| end.min(until));
        let (entry, anchor) = (self.entry, self.state.anchor);
        let latest = entry.schedule.previous(until, anchor, &entry.zone, entry.dst);
        latest.map_or(due, |latest| latest.max(due))
    }

    /// How many occurrences there are from `due` to `last`.
    fn count(&self, due: Timestamp, last: Timestamp) -> u32 {
        let (entry, anchor) = (self.entry, self.state.anchor);
        entry.schedule.count(due, last, anchor, &entry.zone, entry.dst, MISSED_MAX) + 1
    }

    /// Deals with occurrences that passed while nobody sent them.
    fn make_up(&mut self) {
        let Some(due) = self.ready() else { return };
        let grace = self.entry.misfire_grace;
        if between(sent_at(self.entry, due), self.now) <= grace {
            return;
        }
        let old = jiff::SignedDuration::try_from(grace)
            .ok()
            .and_then(|grace| self.now.checked_sub(grace).ok())
            .unwrap_or(due);
        match self.entry.misfire {
            Misfire::Once => {
                let last = self.latest(due, self.now);
                let count = self.count(due, last);
                self.state.due = self.next(last);
                self.fire(last, count);
            }
            Misfire::Skip => {
                let last = self.latest(due, old);
                let count = self.count(due, last);
                self.pass_over(last, count, "missed: misfire = skip".to_owned());
            }
            Misfire::All(limit) => {
                let last = self.latest(due, old);
                let count = self.count(due, last);
                if count > limit {
                    let kept = self.back_from(last, limit);
                    let skipped = self.latest(due, before(kept));
                    let note = format!("missed: of {count} the latest {limit} are made up for");
                    self.pass_over(skipped, count - limit, note);
                }
            }
        }
    }

    /// The first of the `count` occurrences that end with `last`.
    fn back_from(&self, last: Timestamp, count: u32) -> Timestamp {
        let mut first = last;
        for _ in 1..count {
            let (entry, anchor) = (self.entry, self.state.anchor);
            match entry.schedule.previous(before(first), anchor, &entry.zone, entry.dst) {
                Some(earlier) => first = earlier,
                None => break,
            }
        }
        first
    }

    /// Goes on behind `last` without sending anything.
    fn pass_over(&mut self, last: Timestamp, count: u32, note: String) {
        self.state.due = self.next(last);
        self.note(OccurrenceKind::Skipped, last, count, None, note, Vec::new());
    }

    fn has_room(&self) -> bool {
        self.entry.instances_max().is_none_or(|max| self.state.open.len() < max)
    }

    /// Sends an occurrence, or does what holds while earlier ones run.
    fn fire(&mut self, due: Timestamp, count: u32) {
        if self.has_room() {
            self.send(due, count, Vec::new());
            return;
        }
        let open = self.state.open.len();
        match self.entry.overlap {
            Overlap::CancelPrevious => {
                let revoke = std::mem::take(&mut self.state.open);
                self.send(due, count, revoke);
            }
            Overlap::QueueOne if self.state.queued.is_none() => self.state.queued = Some(due),
            Overlap::QueueOne => {
                let note = format!("{open} of earlier occurrences have not ended, and one waits");
                self.note(OccurrenceKind::Skipped, due, count, None, note, Vec::new());
            }
            Overlap::Skip | Overlap::Allow => {
                let note = format!("{open} of earlier occurrences have not ended");
                self.note(OccurrenceKind::Skipped, due, count, None, note, Vec::new());
            }
        }
    }

    fn send(&mut self, due: Timestamp, count: u32, revoke: Vec<String>) {
        let task_id = occurrence_id(&self.entry.name, due);
        if self.entry.instances_max().is_some() {
            self.state.open.push(task_id.clone());
        }
        self.state.last_due = Some(due);
        self.state.last_fired = Some(self.now);
        self.state.runs += 1;
        let missed =
            if count > 1 { format!("for {count} that were missed") } else { String::new() };
        self.note(OccurrenceKind::Sent, due, count, Some(task_id), missed, revoke);
    }

    fn note(
        &mut self,
        kind: OccurrenceKind,
        due: Timestamp,
        count: u32,
        task_id: Option<String>,
        note: String,
        revoke: Vec<String>,
    ) {
        let fired = self.now;
        let count = count.into();
        let occurrence = Occurrence { due, fired, kind, task_id, count, note, outcome: None };
        let (state, wake) = (self.state.clone(), self.wake());
        self.steps.push(Step { occurrence, state, wake, revoke });
    }

    /// When the entry is to be looked at again.
    fn wake(&self) -> Option<Timestamp> {
        let due = self.state.due.map(|due| sent_at(self.entry, due));
        let queued = self.state.queued.map(|_| after(self.now, QUEUED_EVERY));
        due.into_iter().chain(queued).min()
    }
}

/// The instant before another: a microsecond, the step of all times here.
fn before(instant: Timestamp) -> Timestamp {
    instant.checked_sub(jiff::SignedDuration::from_micros(1)).unwrap_or(instant)
}
