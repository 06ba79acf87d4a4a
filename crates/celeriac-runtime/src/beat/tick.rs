//! One look of a leader: what is due is decided, made into messages, and written.

use super::{BeatParts, Prepared};
use celeriac_core::StoreError;
use celeriac_core::beat::{Entry, EntryState, Look, Step, look};
use celeriac_core::clock::{after, between};
use celeriac_core::operate::entries::left_out;
use celeriac_core::schedule::Zone;
use celeriac_core::store::{
    EntryRecord, Fire, Fired, OccurrenceKind, Phase, Plan, ResultRecord, Saved,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The most entries of one look.
const ENTRIES_MAX: usize = 500;
/// The most occurrences of one write.
const WRITE_MAX: usize = 200;
/// When an entry that cannot be read or written is looked at again.
const BAD_AGAIN: Duration = Duration::from_mins(1);
/// How long an occurrence that a stock worker runs without storing anything counts as running, if its
/// entry gives no time limit.
const UNSEEN_MAX: Duration = Duration::from_hours(1);

/// What a look came to.
#[derive(Debug)]
pub(super) struct Tick {
    /// When it was.
    pub(super) at: Timestamp,
    /// How many messages were sent.
    pub(super) sent: u64,
    /// By how much the last of them was late.
    pub(super) lateness: Duration,
    /// How long there is nothing to do; `None`: more may be due now.
    pub(super) rest: Option<Duration>,
    /// Whether another beat leads.
    pub(super) fenced: bool,
}

/// An entry that is due.
struct Due {
    record: EntryRecord,
    entry: Entry,
    state: EntryState,
}

/// What follows when an occurrence is written.
struct After {
    task: String,
    revoke: Vec<String>,
    afterwards: Option<BoxFuture<'static, ()>>,
}

/// An occurrence on its way.
type Shot = (Fire, After);

/// Looks again and again.
pub(super) struct Ticker {
    parts: Arc<BeatParts>,
    zone: Zone,
}

impl Ticker {
    pub(super) fn new(parts: Arc<BeatParts>) -> Self {
        Self { parts, zone: Zone::utc() }
    }

    /// Sends what is due, at most [`ENTRIES_MAX`] entries.
    pub(super) async fn tick(&mut self, epoch: u64) -> Result<Tick, StoreError> {
        let store = &self.parts.store;
        let at = self.parts.clock.wall();
        let mut tick = Tick { at, sent: 0, lateness: Duration::ZERO, rest: None, fenced: false };
        let records = store.due_entries(at, ENTRIES_MAX).await?;
        if records.is_empty() {
            let next = store.next_wake().await?;
            tick.rest = Some(next.map_or(Duration::MAX, |next| between(at, next)));
            return Ok(tick);
        }
        let due = self.read(records, at).await?;
        let mut shots = Vec::with_capacity(due.len());
        let mut idle = Vec::new();
        for due in due {
            let ended = self.ended(&due, at).await?;
            let look = look(&due.entry, &due.state, at, &|task_id| ended.contains(task_id));
            if look.steps.is_empty() {
                idle.push(saved(&due, &look));
            } else {
                self.load(&due, look, &mut shots).await;
            }
        }
        if !idle.is_empty() {
            // A conflict means that somebody changed the entry, which is looked at anew then.
            let _saved: Vec<Saved> = store.save_entries(idle).await?;
        }
        while !shots.is_empty() && !tick.fenced {
            let rest = shots.split_off(shots.len().min(WRITE_MAX));
            let batch = std::mem::replace(&mut shots, rest);
            self.fire(epoch, batch, &mut tick).await?;
        }
        Ok(tick)
    }

    /// Reads entries; one that makes no sense is put off, so that it holds up nobody.
    async fn read(&self, records: Vec<EntryRecord>, at: Timestamp) -> Result<Vec<Due>, StoreError> {
        let mut due = Vec::with_capacity(records.len());
        let mut bad = Vec::new();
        for record in records {
            let entry = Entry::from_value(&record.entry, &self.zone);
            match (entry, EntryState::from_value(&record.state)) {
                (Ok(entry), Some(state)) => due.push(Due { record, entry, state }),
                (entry, _) => {
                    let text =
                        entry.err().map_or("its state".to_owned(), |error| error.to_string());
                    tracing::error!(
                        entry = record.name,
                        "beat: an entry cannot be read and is put off for {} s: {text}",
                        BAD_AGAIN.as_secs()
                    );
                    bad.push(EntryRecord { wake: Some(after(at, BAD_AGAIN)), ..record });
                }
            }
        }
        if !bad.is_empty() {
            let _saved: Vec<Saved> = self.parts.store.save_entries(bad).await?;
        }
        Ok(due)
    }

    /// Which of the earlier occurrences' tasks neither wait nor run any more.
    async fn ended(&self, due: &Due, at: Timestamp) -> Result<BTreeSet<String>, StoreError> {
        let open = &due.state.open;
        if open.is_empty() || due.entry.instances_max().is_none() {
            return Ok(BTreeSet::new());
        }
        let store = &self.parts.store;
        let is_ready = |record: &Option<ResultRecord>| {
            record.as_ref().is_some_and(|one| one.meta.state().is_ready())
        };
        let results = store.results(open).await?;
        let mut ended = BTreeSet::new();
        for (task_id, result) in open.iter().zip(&results) {
            let over = is_ready(result)
                || match store.task(task_id).await?.phase {
                    Phase::Done | Phase::Dead { .. } => true,
                    // A stock worker takes a message away before it runs it.
                    Phase::Unknown => !store.has_stock_nodes() || is_forgotten(due, at),
                    _ => false,
                };
            if over {
                ended.insert(task_id.clone());
            }
        }
        Ok(ended)
    }

    /// Makes messages of what was decided. A call that cannot be made into one is noted as failed; the
    /// entry goes on.
    async fn load(&self, due: &Due, look: Look, shots: &mut Vec<Shot>) {
        let mut failed: Vec<String> = Vec::new();
        for (step, version) in look.steps.into_iter().zip(due.record.version..) {
            let Step { mut occurrence, mut state, wake, revoke } = step;
            let mut plan = Plan::default();
            let mut afterwards = None;
            if let Some(task_id) = occurrence.task_id.clone() {
                match self.parts.dispatch.prepare(due.entry.signature(&task_id)).await {
                    Ok(ready) => Prepared { plan, afterwards } = ready,
                    Err(error) => {
                        tracing::error!(entry = due.entry.name, "beat: {error}");
                        occurrence.kind = OccurrenceKind::Failed;
                        occurrence.note = error;
                        occurrence.task_id = None;
                        failed.push(task_id);
                    }
                }
            }
            state.open.retain(|task_id| !failed.contains(task_id));
            let name = due.entry.name.clone();
            let state = state.to_value();
            let fire = Fire { name, version: Some(version), wake, state, occurrence, plan };
            let task = due.entry.task.clone();
            shots.push((fire, After { task, revoke, afterwards }));
        }
    }

    /// Writes occurrences with their messages.
    async fn fire(&self, epoch: u64, batch: Vec<Shot>, tick: &mut Tick) -> Result<(), StoreError> {
        let (fires, after): (Vec<Fire>, Vec<After>) = batch.into_iter().unzip();
        let answers = match self.parts.store.fire(Some(epoch), fires.clone()).await {
            Ok(answers) => answers,
            Err(error) if error.is_retryable() => return Err(error),
            // One of them is refused: which one is found out by writing each on its own.
            Err(_) => self.fire_each(epoch, &fires).await?,
        };
        let (mut revoked, mut held) = (Vec::new(), Vec::new());
        for ((fire, after), answer) in fires.into_iter().zip(after).zip(answers) {
            let After { task, revoke, afterwards } = after;
            match answer {
                Fired::Done(_) => {
                    revoked.extend(revoke);
                    let occurrence = &fire.occurrence;
                    if occurrence.task_id.is_none() {
                        tracing::info!(entry = fire.name, "beat: not sent: {}", occurrence.note);
                        continue;
                    }
                    // Celery's line (celery/beat.py 5.7, `Scheduler.apply_entry`).
                    tracing::info!("Scheduler: Sending due task {} ({task})", fire.name);
                    tick.sent += 1;
                    tick.lateness = occurrence.drift();
                    if let Some(afterwards) = afterwards {
                        afterwards.await;
                    }
                }
                Fired::Held { holder, .. } => {
                    tracing::info!(entry = fire.name, "beat: not sent: {holder} holds its key");
                    held.push((fire.name, fire.occurrence.due, left_out()));
                }
                Fired::Taken(_) => tracing::debug!(entry = fire.name, "beat: it was sent already"),
                Fired::Changed => tracing::debug!(entry = fire.name, "beat: it has changed"),
                Fired::Fenced => tick.fenced = true,
            }
        }
        if !held.is_empty() {
            self.parts.store.end_occurrences(held).await?;
        }
        if !revoked.is_empty() {
            self.parts.store.revoke(&revoked, true).await?;
        }
        Ok(())
    }

    /// Writes each on its own; what the store refuses is noted as failed, so that its entry goes on.
    async fn fire_each(&self, epoch: u64, fires: &[Fire]) -> Result<Vec<Fired>, StoreError> {
        let store = &self.parts.store;
        let mut answers = Vec::with_capacity(fires.len());
        for fire in fires {
            let error = match store.fire(Some(epoch), vec![fire.clone()]).await {
                Ok(answer) => {
                    answers.extend(answer);
                    continue;
                }
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => error,
            };
            tracing::error!(entry = fire.name, %error, "beat: an entry's message is refused");
            let mut fire = fire.clone();
            fire.plan = Plan::default();
            fire.occurrence.kind = OccurrenceKind::Failed;
            fire.occurrence.note = error.to_string();
            fire.occurrence.task_id = None;
            let answer = store.fire(Some(epoch), vec![fire]).await?;
            // Nothing was sent for it, whatever was written.
            answers.extend(answer.into_iter().map(|one| match one {
                Fired::Done(version) => Fired::Taken(version),
                other => other,
            }));
        }
        Ok(answers)
    }
}

fn saved(due: &Due, look: &Look) -> EntryRecord {
    EntryRecord { wake: look.wake, state: look.state.to_value(), ..due.record.clone() }
}

/// Whether an occurrence that nobody has heard of is too old to be still running.
fn is_forgotten(due: &Due, at: Timestamp) -> bool {
    let limit = due.entry.options.get("time_limit").and_then(celeriac_wire::Value::as_f64);
    let limit = limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let fired = due.state.last_fired.unwrap_or(due.state.anchor);
    between(fired, at) > limit.unwrap_or(UNSEEN_MAX)
}
