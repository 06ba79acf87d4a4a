//! The entries in RedBeat's keys as entries of the store.
//!
//! RedBeat tells nobody when it writes: its set of times is asked for each second, and definitions when they
//! are due, which is how RedBeat itself learns of changes.

use super::{ASK_EVERY, Place, place, script, view};
use crate::redis::Core;
use crate::redis::dead::{text, texts};
use crate::redis::pack::Pack;
use celeriac_core::beat::redbeat::{self as words, RedBeatEntry};
use celeriac_core::beat::{Entry, EntryError, EntryState};
use celeriac_core::clock::after;
use celeriac_core::limits::ENTRY_NAME_BYTES_MAX;
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
/// The most entries of one script.
const PAGE: usize = 200;
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
}

impl Row {
    /// Reads an answer; `None` for an entry that is not there.
    fn of(place: &Place, answer: Answer) -> Option<Self> {
        let mut fields = texts(answer).into_iter();
        let key = fields.next()?;
        let mut next = || fields.next();
        let version = next()?.parse().ok()?;
        let (definition, meta) = (next()?, next()?);
        let (extras, state) = (next()?, next()?);
        let due = next()?.parse().ok()?;
        let flag = |text: Option<String>| text.as_deref() == Some("1");
        let (known, is_static, is_taken) = (flag(next()), flag(next()), flag(next()));
        let some = |text: String| Some(text.into_bytes()).filter(|bytes| !bytes.is_empty());
        let entry = RedBeatEntry {
            name: place.name(&key).to_owned(),
            definition: some(definition),
            meta: some(meta),
            due,
        };
        Some(Self { version, entry, extras, state, known, is_static, is_taken })
    }

    /// The entry and its state, or why there is none.
    fn read(&self, place: &Place) -> Result<(Entry, EntryState), String> {
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
            Ok((entry, state)) => EntryRecord {
                name,
                version,
                wake: state.wake(&entry),
                entry: entry.to_value(),
                state: state.to_value(),
            },
            Err(why) => {
                let entry = Value::from(format!("it is in RedBeat's keys, and {why}"));
                EntryRecord { name, version, wake: None, entry, state: Value::Null }
            }
        }
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
    let fits = |name: &&str| !name.is_empty() && name.len() <= ENTRY_NAME_BYTES_MAX;
    let mut names: Vec<String> =
        keys.iter().map(|key| place.name(key)).filter(fits).map(str::to_owned).collect();
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

/// Entries whose time has come, if RedBeat's lock is ours; at most once a second, unless one is known to be
/// due.
pub(in crate::redis) async fn due(
    core: &Core,
    now: Timestamp,
    count_max: usize,
) -> Result<Vec<EntryRecord>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(Vec::new()) };
    let quiet_until = core.redbeat.with(|known| known.quiet_until);
    if quiet_until.is_some_and(|until| now < until && until <= after(now, ASK_EVERY)) {
        return Ok(Vec::new());
    }
    let mut quiet = after(now, ASK_EVERY);
    let (mut found, mut bad, mut from) = (Vec::new(), Vec::new(), 0_usize);
    loop {
        let fill = |argument: &mut Pack| {
            argument.text("until").number(now.as_second());
            argument.text("from").number(from as i64).text("count").number(PAGE as i64);
        };
        let answer = script(core, &place, "look for RedBeat's due entries", "due", 3, fill).await?;
        let Ok([_ours, later, rows]) = <[Answer; 3]>::try_from(list(answer)) else { break };
        let later = text(later).and_then(|score| score.parse::<f64>().ok());
        if let Some(later) = later.and_then(|score| Timestamp::from_second(score as i64).ok()) {
            quiet = quiet.min(later);
        }
        let rows = list(rows);
        let is_last = rows.len() < PAGE;
        from += rows.len();
        for row in rows.into_iter().filter_map(|row| Row::of(&place, row)) {
            if row.is_taken {
                bad.push(format!("{}: another entry has its name", row.entry.name));
                continue;
            }
            match row.read(&place) {
                Ok((entry, state)) => match state.wake(&entry) {
                    Some(wake) if wake <= now => found.push(row.record(&place)),
                    Some(wake) => quiet = quiet.min(wake),
                    None => {}
                },
                Err(why) => bad.push(format!("{}: {why}", row.entry.name)),
            }
        }
        if is_last || found.len() >= count_max {
            break;
        }
    }
    let quiet = if found.is_empty() { quiet } else { now };
    let boot = core.clock.boot();
    let tell = core.redbeat.with(|known| {
        known.quiet_until = Some(quiet);
        let tell = known.told_at.is_none_or(|at| boot.saturating_sub(at) >= TELL_EVERY);
        if tell && !bad.is_empty() {
            known.told_at = Some(boot);
        }
        tell
    });
    for text in bad.iter().filter(|_| tell) {
        tracing::error!("schedule: an entry in RedBeat's keys is due and cannot be sent: {text}");
    }
    Ok(found)
}

/// Before this nothing of RedBeat's is to be fired by this process.
pub(in crate::redis) async fn wake(core: &Core) -> Result<Option<Timestamp>, StoreError> {
    if place(core).await?.is_none() {
        return Ok(None);
    }
    Ok(core.redbeat.with(|known| known.quiet_until))
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
        argument.text("score").text(&words::score(state.due).to_string());
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
        let score = words::score(state.and_then(|state| state.due));
        let key = place.key(&fire.name);
        (index, Shared { place: Arc::clone(&place), key, meta, score })
    });
    Ok(shared.collect())
}
