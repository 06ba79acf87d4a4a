//! The entries in RedBeat's keys as entries of the store.
//!
//! RedBeat tells nobody when it writes: its set of times is asked for each second, and definitions when they
//! are due, which is how RedBeat itself learns of changes.

use super::{ASK_EVERY, Known, Place, place, script, view};
use crate::redis::Core;
use crate::redis::dead::{text, texts};
use crate::redis::pack::Pack;
use celeriac_core::beat::redbeat::{self as words, RedBeatEntry};
use celeriac_core::beat::{Entry, EntryError, EntryState};
use celeriac_core::clock::after;
use celeriac_core::store::{EntryRecord, Fire, Saved};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::Value;
use jiff::Timestamp;
use redis::Value as Answer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Versions of entries in RedBeat's keys are this or more, those of others are less.
pub(in crate::redis) const VERSION_MIN: u64 = 1 << 52;
/// How often it is told what is wrong with an entry.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// How often everything that is due is looked at, paused entries too (RedBeat has them wait so long,
/// `RedBeatSchedulerEntry.is_due`).
const ALL_EVERY: Duration = Duration::from_secs(5);
/// How many seconds of scores two looks have in common.
const OVERLAP: i64 = 2;
/// The most entries of one script.
const PAGE: usize = 200;
/// How far what is due was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    /// When everything was.
    all_at: Timestamp,
    /// When what became due since was.
    at: Timestamp,
    /// When an entry wakes that only a look at everything finds.
    wakes: Option<Timestamp>,
}

impl Looked {
    /// Whether it is enough to go on from here.
    fn holds(&self, now: Timestamp) -> bool {
        now >= self.at
            && now < after(self.all_at, ALL_EVERY)
            && self.wakes.is_none_or(|wakes| now < wakes)
    }
}

impl Known {
    /// Whether it is time to tell what is wrong.
    fn tells(&mut self, boot: Duration) -> bool {
        let tells = self.told_at.is_none_or(|at| boot.saturating_sub(at) >= TELL_EVERY);
        if tells {
            self.told_at = Some(boot);
        }
        tells
    }
}

/// What a fire of a shared entry adds to its unit.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::redis) struct Shared {
    pub(in crate::redis) place: Arc<Place>,
    key: String,
    meta: String,
    score: i64,
}

/// The field of a fire.
pub(in crate::redis) fn pack_shared(pack: &mut Pack, shared: Option<&Shared>) {
    pack.text("redbeat");
    match shared {
        None => pack.array(0),
        Some(shared) => {
            pack.array(3).text(&shared.key).text(&shared.meta).text(&shared.score.to_string())
        }
    };
}

/// An entry as the script gives it.
#[derive(Default)]
struct Row {
    version: u64,
    entry: RedBeatEntry,
    extras: String,
    state: String,
    /// Whether the state is that of what RedBeat has.
    known: bool,
    is_static: bool,
    /// Whether an entry of ours has its name.
    is_taken: bool,
    /// When the latest of its lines was due, in microseconds.
    latest: Option<i64>,
}

impl Row {
    /// Reads an answer; `None` for an entry that is not there.
    fn of(place: &Place, answer: Answer) -> Option<Self> {
        let mut fields = texts(answer).into_iter();
        let key = fields.next()?;
        let mut next = || fields.next();
        let name = place.name(&key).to_owned();
        let version = next()?;
        if version.is_empty() {
            // Something else has its key.
            let entry = RedBeatEntry { name, definition: None, meta: None, due: -1.0 };
            return Some(Self { version: VERSION_MIN, entry, ..Self::default() });
        }
        let version = version.parse().ok()?;
        let (definition, meta) = (next()?, next()?);
        let (extras, state) = (next()?, next()?);
        let due = next()?.parse().ok()?;
        let flag = |text: Option<String>| text.as_deref() == Some("1");
        let (known, is_static, is_taken) = (flag(next()), flag(next()), flag(next()));
        let latest = next().and_then(|text| text.parse::<f64>().ok()).map(|due| due as i64);
        let some = |text: String| Some(text.into_bytes()).filter(|bytes| !bytes.is_empty());
        let (definition, meta) = (some(definition), some(meta));
        let entry = RedBeatEntry { name, definition, meta, due };
        Some(Self { version, entry, extras, state, known, is_static, is_taken, latest })
    }

    /// The entry and its state, or why there is none.
    fn read(&self, place: &Place) -> Result<(Entry, EntryState), String> {
        if self.is_taken {
            return Err("an entry of the store has its name".to_owned());
        }
        let text = |error: EntryError| error.to_string();
        let beside = Value::parse(self.extras.as_bytes()).unwrap_or(Value::Null);
        let beside = beside.as_object().cloned().unwrap_or_default();
        let extras = beside.iter().filter(|(name, _)| !["original", "written"].contains(name));
        let extras = extras.map(|(name, value)| (name, value.clone())).collect();
        let mut entry = self.entry.entry(&place.zone, &extras).map_err(text)?;
        // A stock RedBeat writes the application's own entries anew at each start: no edit of anybody's.
        let written = beside.get("written").and_then(Value::as_str);
        if written.map(str::as_bytes) == self.entry.definition.as_deref() {
            entry.source.original = beside.get("original").cloned().map(Box::new);
        }
        words::source(&mut entry, self.is_static);
        let past = self.entry.past(&entry).map_err(text)?;
        let kept = Value::parse(self.state.as_bytes()).ok();
        let kept = kept.and_then(|value| EntryState::from_value(&value));
        let state = match kept {
            Some(state) if self.known => state,
            // Somebody else went on with it: what we know of our own messages stays.
            kept => {
                let state = past.state(Timestamp::UNIX_EPOCH);
                match kept {
                    Some(old) => EntryState { queued: old.queued, open: old.open, ..state },
                    None => state,
                }
            }
        };
        Ok((entry, state))
    }

    /// As a store gives it; one that cannot be read says why instead of being an entry.
    fn record(&self, place: &Place) -> EntryRecord {
        let (name, version) = (self.entry.name.clone(), self.version);
        match self.read(place) {
            Ok((entry, state)) => record(version, &entry, &state),
            Err(why) => {
                let entry = Value::from(format!("it is in RedBeat's keys, and {why}"));
                EntryRecord { name, version, wake: None, entry, state: Value::Null }
            }
        }
    }
}

fn record(version: u64, entry: &Entry, state: &EntryState) -> EntryRecord {
    EntryRecord {
        name: entry.name.clone(),
        version,
        wake: state.wake(entry),
        entry: entry.to_value(),
        state: state.to_value(),
    }
}

fn list(answer: Answer) -> Vec<Answer> {
    match answer {
        Answer::Array(items) => items,
        _ => Vec::new(),
    }
}

/// The entries of these names that are there, in their order.
async fn rows(core: &Core, place: &Place, names: &[String]) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::with_capacity(names.len());
    for batch in names.chunks(PAGE) {
        let fill = |argument: &mut Pack| {
            argument.text("keys").array(batch.len());
            for name in batch {
                argument.text(&place.key(name));
            }
        };
        let answer = script(core, place, "read RedBeat's entries", "read", 1, fill).await?;
        found.extend(list(answer).into_iter().filter_map(|row| Row::of(place, row)));
    }
    Ok(found)
}

/// The names of all entries, in order, as they were within the last second.
async fn names(core: &Core, place: &Place) -> Result<Arc<Vec<String>>, StoreError> {
    let now = core.clock.boot();
    let known = core.redbeat.with(|known| known.names.clone());
    if let Some((at, names)) = known
        && now.saturating_sub(at) < ASK_EVERY
    {
        return Ok(names);
    }
    let keys = texts(script(core, place, "list RedBeat's entries", "keys", 0, |_| ()).await?);
    let mut names: Vec<String> = keys.iter().map(|key| place.name(key).to_owned()).collect();
    names.sort_unstable();
    let names = Arc::new(names);
    core.redbeat.with(|known| known.names = Some((now, Arc::clone(&names))));
    Ok(names)
}

/// What this process has written is to be seen by it at once.
fn forget_names(core: &Core) {
    core.redbeat.with(|known| {
        known.names = None;
        known.quiet_until = None;
        known.looked = None;
    });
}

/// The entries that no beat of ours can fire, each with the reason.
pub(super) async fn unreadable(core: &Core, place: &Place) -> Result<Vec<String>, StoreError> {
    forget_names(core);
    let mut bad = Vec::new();
    for batch in names(core, place).await?.chunks(PAGE) {
        for row in rows(core, place, batch).await? {
            if let Err(why) = row.read(place) {
                bad.push(format!("{}: {why}", row.entry.name));
            }
        }
    }
    Ok(bad)
}

/// One entry.
pub(in crate::redis) async fn entry(
    core: &Core,
    name: &str,
) -> Result<Option<EntryRecord>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(None) };
    let found = rows(core, &place, &[name.to_owned()]).await?;
    Ok(found.first().map(|row| row.record(&place)))
}

/// Entries in the order of their names, from behind `after`.
pub(in crate::redis) async fn entries(
    core: &Core,
    after: &str,
    count_max: usize,
) -> Result<Vec<EntryRecord>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(Vec::new()) };
    let names = names(core, &place).await?;
    let from = names.partition_point(|name| name.as_str() <= after);
    let mut found = Vec::new();
    // RedBeat's set of times may have names that have nothing behind them.
    for page in names[from..].chunks(PAGE.min(count_max.max(1))) {
        found.extend(rows(core, &place, page).await?.iter().map(|row| row.record(&place)));
        if found.len() >= count_max {
            break;
        }
    }
    found.truncate(count_max);
    Ok(found)
}

/// How many entries there are.
pub(in crate::redis) async fn count(core: &Core) -> Result<u64, StoreError> {
    Ok(view(core).await?.map_or(0, |view| view.count))
}

/// What a look at what is due came to.
struct Look {
    now: Timestamp,
    found: Vec<EntryRecord>,
    bad: Vec<String>,
    /// Before this there is nothing more.
    quiet: Timestamp,
    /// When an entry wakes that only a look at everything finds again.
    wakes: Option<Timestamp>,
    /// Whether more may be due at once.
    more: bool,
}

impl Look {
    fn take(&mut self, place: &Place, row: &Row) {
        let (entry, mut state) = match row.read(place) {
            Ok(read) => read,
            Err(why) => {
                self.bad.push(format!("{}: {why}", row.entry.name));
                return;
            }
        };
        if asks_for_a_run(row, &entry, &state, self.now) {
            state.due = Some(self.now);
        }
        let Some(wake) = state.wake(&entry) else { return };
        if wake <= self.now {
            // One that only waits for an earlier occurrence to end is looked at each second.
            self.more |= state.due.is_some_and(|due| due <= self.now);
            self.found.push(record(row.version, &entry, &state));
        } else {
            self.quiet = self.quiet.min(wake);
            if wake.as_second() > row.entry.due as i64 + 1 {
                self.wakes = Some(self.wakes.map_or(wake, |one| one.min(wake)));
            }
        }
    }
}

/// Whether somebody has moved an entry back to have it run once more (RedBeat's `reschedule`), although the
/// time that it is due at has a line already.
fn asks_for_a_run(row: &Row, entry: &Entry, state: &EntryState, now: Timestamp) -> bool {
    let (false, Some(due), Some(latest)) = (row.known, state.due, row.latest) else { return false };
    let last = entry.schedule.previous(now, state.anchor, &entry.zone, entry.dst);
    let last = last.map_or(due, |last| last.max(due));
    due <= now && latest >= last.as_microsecond()
}

/// Entries whose time has come, if RedBeat's lock is ours; at most once a second, unless one is known to be
/// due. Most looks begin where the one before ended: paused entries stay in RedBeat's set of times, and are
/// passed over like that.
pub(in crate::redis) async fn due(
    core: &Core,
    now: Timestamp,
    count_max: usize,
) -> Result<Vec<EntryRecord>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(Vec::new()) };
    let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    let (quiet_until, looked) = core.redbeat.with(|known| (known.quiet_until, known.looked));
    if quiet_until.is_some_and(|until| now < until && until <= after(now, ASK_EVERY)) {
        return Ok(Vec::new());
    }
    let looked = looked.filter(|looked| looked.holds(now));
    let low = looked.map_or(0, |looked| (looked.at.as_second() - OVERLAP).max(0));
    let quiet = after(now, ASK_EVERY);
    let (found, bad) = (Vec::new(), Vec::new());
    let mut look = Look { now, found, bad, quiet, wakes: None, more: false };
    let (mut from, mut is_whole) = (0, false);
    while !is_whole && look.found.len() < count_max {
        let fill = |argument: &mut Pack| {
            argument.text("low").number(low).text("until").number(now.as_second());
            argument.text("from").number(from as i64).text("count").number(PAGE as i64);
        };
        let answer = script(core, &place, "look for RedBeat's due entries", "due", 4, fill).await?;
        let Ok([_ours, later, keys, rows]) = <[Answer; 4]>::try_from(list(answer)) else { break };
        let later = text(later).and_then(|score| score.parse::<f64>().ok());
        if let Some(later) = later.and_then(|score| Timestamp::from_second(score as i64).ok()) {
            look.quiet = look.quiet.min(later);
        }
        let rows = list(rows);
        is_whole = !matches!(keys, Answer::Int(count) if count >= PAGE as i64);
        from += rows.len();
        for row in rows.into_iter().filter_map(|row| Row::of(&place, row)) {
            look.take(&place, &row);
        }
    }
    let quiet = if look.more || !is_whole { now } else { look.quiet };
    let boot = core.clock.boot();
    let tell = core.redbeat.with(|known| {
        known.quiet_until = Some(quiet);
        if is_whole {
            let (all_at, wakes) = looked.map_or((now, look.wakes), |one| (one.all_at, one.wakes));
            known.looked = Some(Looked { all_at, at: now, wakes });
        }
        !look.bad.is_empty() && known.tells(boot)
    });
    for text in look.bad.iter().filter(|_| tell) {
        tracing::error!("schedule: an entry in RedBeat's keys is due and cannot be sent: {text}");
    }
    Ok(look.found)
}

/// Notes that RedBeat's keys could not be looked at, and tells it now and then.
pub(in crate::redis) fn failed(core: &Core, now: Timestamp, error: &StoreError) {
    let boot = core.clock.boot();
    let tell = core.redbeat.with(|known| {
        known.quiet_until = Some(after(now, ASK_EVERY));
        known.tells(boot)
    });
    if tell {
        tracing::error!(%error, "schedule: RedBeat's entries cannot be looked at, others are sent");
    }
}

/// Before this nothing of RedBeat's is to be fired by this process.
pub(in crate::redis) fn wake(core: &Core) -> Option<Timestamp> {
    core.redbeat.with(|known| known.place.as_ref()?.1.as_ref().and(known.quiet_until))
}

/// Whether an entry is in RedBeat's keys, or is to be.
pub(in crate::redis) fn is_shared(record: &EntryRecord) -> bool {
    record.version >= VERSION_MIN
        || record.entry.get("source").and_then(Value::as_str) == Some("redbeat")
}

/// Which of these names are taken by entries in RedBeat's keys.
pub(in crate::redis) async fn taken(
    core: &Core,
    names: &[String],
) -> Result<Vec<String>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(Vec::new()) };
    let found = rows(core, &place, names).await?;
    Ok(found.into_iter().map(|row| row.entry.name).collect())
}

/// Writes an entry.
pub(in crate::redis) async fn save(core: &Core, record: &EntryRecord) -> Result<Saved, StoreError> {
    let Some(place) = place(core).await? else {
        let text =
            format!("the entry {:?} is in RedBeat's keys, which are not shared", record.name);
        return Err(StoreError::new(ErrorKind::Conflict, text)
            .hint("share them with `celeriac schedule redbeat share`"));
    };
    let invalid =
        |error: EntryError| StoreError::invalid(format!("the entry {:?}: {error}", record.name));
    let old = rows(core, &place, std::slice::from_ref(&record.name)).await?.pop();
    let Ok(mut entry) = Entry::from_value(&record.entry, &place.zone) else {
        // One that cannot be read is not written either.
        return Ok(Saved::Conflict);
    };
    words::source(&mut entry, false);
    let state = EntryState::from_value(&record.state)
        .ok_or_else(|| StoreError::invalid(format!("the entry {:?} has no state", record.name)))?;
    let definition = words::definition(&entry, &place.zone, old.as_ref().map(|row| &row.entry));
    let definition = definition.map_err(invalid)?.to_string();
    let meta = words::meta(words::last_run(&entry, &state), state.runs, &place.zone).to_string();
    let mut extras = words::extras(&entry, &place.zone);
    if let Some(original) = &entry.source.original {
        extras.insert("original", (**original).clone());
        extras.insert("written", definition.as_str());
    }
    let version = match record.version {
        0 => String::new(),
        version => version.to_string(),
    };
    let fill = |argument: &mut Pack| {
        argument.text("key").text(&place.key(&record.name)).text("name").text(&record.name);
        argument.text("version").text(&version).text("definition").text(&definition);
        argument.text("meta").text(&meta).text("extras").text(&Value::Object(extras).to_string());
        argument.text("state").text(&state.to_value().to_string());
        argument.text("score").text(&words::score(&state, core.now()).to_string());
        argument.text("static").text(if entry.source.original.is_some() { "1" } else { "" });
    };
    let answer = script(core, &place, "save an entry of RedBeat", "save", 9, fill).await?;
    forget_names(core);
    let version = text(answer).and_then(|text| text.parse().ok());
    Ok(version.map_or(Saved::Conflict, Saved::Done))
}

/// Removes an entry if it has this version.
pub(in crate::redis) async fn remove(
    core: &Core,
    name: &str,
    version: u64,
) -> Result<bool, StoreError> {
    let Some(place) = place(core).await? else { return Ok(false) };
    let fill = |argument: &mut Pack| {
        argument.text("key").text(&place.key(name)).text("name").text(name);
        argument.text("version").text(&version.to_string());
    };
    let answer = script(core, &place, "remove an entry of RedBeat", "remove", 3, fill).await?;
    forget_names(core);
    Ok(answer == Answer::Int(1))
}

/// What fires of shared entries add to their units, by their places among these.
pub(in crate::redis) async fn shared(
    core: &Core,
    fires: &[Fire],
) -> Result<BTreeMap<usize, Shared>, StoreError> {
    let is_theirs = |fire: &Fire| fire.version.is_some_and(|version| version >= VERSION_MIN);
    let mut names: Vec<String> =
        fires.iter().filter(|fire| is_theirs(fire)).map(|fire| fire.name.clone()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let gone = || StoreError::new(ErrorKind::Conflict, "RedBeat's keys are not shared any more");
    let place = place(core).await?.ok_or_else(gone)?;
    names.dedup();
    let found = rows(core, &place, &names).await?;
    let entries: BTreeMap<&str, Entry> = found
        .iter()
        .filter_map(|row| Some((row.entry.name.as_str(), row.read(&place).ok()?.0)))
        .collect();
    let fires = fires.iter().enumerate().filter(|(_, fire)| is_theirs(fire));
    let shared = fires.map(|(index, fire)| {
        let state = EntryState::from_value(&fire.state);
        // An entry that is gone or another by now is refused for its version.
        let meta = match (entries.get(fire.name.as_str()), &state) {
            (Some(entry), Some(state)) => {
                let last = words::last_run(entry, state);
                words::meta(last, state.runs, &place.zone).to_string()
            }
            _ => String::new(),
        };
        let score = state.map_or(-1, |state| words::score(&state, core.now()));
        let key = place.key(&fire.name);
        (index, Shared { place: Arc::clone(&place), key, meta, score })
    });
    Ok(shared.collect())
}
