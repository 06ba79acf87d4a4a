//! The entries of RedBeat 2.4 as ours, and back (wire specification 8.8; redbeat/schedulers.py,
//! redbeat/decoder.py).
//!
//! RedBeat knows task, arguments, options, an interval or a crontab, and whether an entry is enabled. An
//! entry's zone is the application's; what else an entry of ours may say is kept beside the definition,
//! where RedBeat leaves it alone.

use super::{Entry, EntryError, EntryState, Owner, SourceKind};
use crate::schedule::{Schedule, Zone};
use celeriac_wire::{Map, Value};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// The fields of [`Entry::definition`] that RedBeat's definition says, too.
const SAID: [&str; 6] = ["name", "task", "args", "kwargs", "options", "schedule"];

/// An entry, in RedBeat's own JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedBeatEntry {
    /// Its key without the prefix.
    pub name: String,
    /// What it is; `None` if it has no definition, and RedBeat would forget it.
    pub definition: Option<Vec<u8>>,
    /// When it ran last, and how often.
    pub meta: Option<Vec<u8>>,
    /// When RedBeat looks at it, in seconds since 1970; negative for never again.
    pub due: f64,
}

/// How far an entry of RedBeat's has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedBeatPast {
    /// Where its next occurrence counts from; `None` if it never ran and was not saved by RedBeat itself.
    pub last: Option<Timestamp>,
    /// The next occurrence, if there is one.
    pub due: Option<Timestamp>,
    /// How often it ran.
    pub runs: u64,
}

impl RedBeatPast {
    /// The state of an entry that goes on from here.
    pub fn state(&self, now: Timestamp) -> EntryState {
        let last = self.last.filter(|_| self.runs > 0);
        EntryState {
            anchor: self.last.or(self.due).unwrap_or(now),
            due: self.due,
            last_due: last,
            last_fired: last,
            runs: self.runs,
            queued: None,
            open: Vec::new(),
        }
    }
}

impl RedBeatEntry {
    /// What it is in our words, in the application's zone. `extras`: what [`extras`] gave of it.
    ///
    /// # Errors
    /// Why it has no equivalent.
    pub fn entry(&self, zone: &Zone, extras: &Map) -> Result<Entry, EntryError> {
        let text = self.definition.as_deref();
        let text = text.ok_or_else(|| EntryError("it has no definition".to_owned()))?;
        let definition =
            Value::parse(text).map_err(|error| EntryError(format!("its definition: {error}")))?;
        let mut document = extras.clone();
        document.insert("name", self.name.as_str());
        for field in ["task", "args", "kwargs", "options", "enabled"] {
            let value = definition.get(field).unwrap_or(&Value::Null);
            if let Some(kind) = python_value(value) {
                let text = format!("{field} has a {kind}, which JSON has no word for");
                return Err(EntryError(text));
            }
            document.insert(field, value.clone());
        }
        let schedule = definition.get("schedule").unwrap_or(&Value::Null);
        document.insert("schedule", schedule_of(schedule)?);
        Entry::from_value(&Value::Object(document), zone)
    }

    /// How far it has come. A score is when RedBeat looks at an entry, up to a second too early or more:
    /// what decides is the latest run (`due_at` and `is_due`). One that never ran is due at once.
    ///
    /// # Errors
    /// Its score or its meta makes no sense.
    pub fn past(&self, entry: &Entry) -> Result<RedBeatPast, EntryError> {
        let meta = self.meta.as_deref().map_or(Ok(Value::Null), Value::parse);
        let meta = meta.map_err(|error| EntryError(format!("its meta: {error}")))?;
        let last = meta.get("last_run_at").filter(|value| !value.is_null());
        let last = last.map(instant).transpose()?;
        let runs = meta.get("total_run_count").and_then(Value::as_u64).unwrap_or_default();
        if self.due < 0.0 {
            return Ok(RedBeatPast { last, due: None, runs });
        }
        let score = Timestamp::from_microsecond((self.due * 1e6) as i64)
            .map_err(|_| EntryError(format!("its score {} is no instant", self.due)))?;
        let due = last.map_or(Some(score), |last| entry.next(last, last));
        Ok(RedBeatPast { last, due, runs })
    }
}

/// What an entry says beside RedBeat's definition, in its application's zone.
pub fn extras(entry: &Entry, zone: &Zone) -> Map {
    let plain = Entry::new(&entry.name, &entry.task, entry.schedule.clone(), zone.clone());
    let usual = plain.map(|plain| plain.definition()).unwrap_or_default();
    let all = entry.definition();
    let said = all.iter().filter(|(name, value)| {
        !SAID.contains(name) && usual.get(name).is_none_or(|usual| usual != *value)
    });
    said.map(|(name, value)| (name, value.clone())).collect()
}

/// The definition of an entry as RedBeat keeps it. What stands in the old one and means the same stays, and
/// so does what RedBeat's users have beside.
///
/// # Errors
/// RedBeat has no word for the schedule, or for an entry that another scheduler owns.
pub fn definition(
    entry: &Entry,
    zone: &Zone,
    old: Option<&RedBeatEntry>,
) -> Result<Value, EntryError> {
    if entry.owner != Owner::default() {
        return Err(EntryError(format!(
            "an entry in RedBeat's keys belongs to RedBeat and beat, not to {}",
            entry.owner.name
        )));
    }
    let schedule = to_schedule(&entry.schedule)?;
    let before = old.and_then(|old| old.entry(zone, &Map::new()).ok());
    let text = old.and_then(|old| old.definition.as_deref());
    let parsed = text.and_then(|text| Value::parse(text).ok());
    let mut fields = parsed.and_then(|one| one.as_object().cloned()).unwrap_or_default();
    let mut put = |name: &str, same: bool, value: Value| {
        if !same || fields.get(name).is_none() {
            fields.insert(name, value);
        }
    };
    let same =
        |same: fn(&Entry, &Entry) -> bool| before.as_ref().is_some_and(|old| same(old, entry));
    put("name", true, Value::from(entry.name.as_str()));
    put("task", same(|old, new| old.task == new.task), Value::from(entry.task.as_str()));
    put("args", same(|old, new| old.args == new.args), Value::Array(entry.args.clone()));
    put("kwargs", same(|old, new| old.kwargs == new.kwargs), Value::Object(entry.kwargs.clone()));
    put("options", same(|old, new| old.options == new.options), entry.options.clone().into());
    put("schedule", same(|old, new| old.schedule == new.schedule), schedule);
    put("enabled", same(|old, new| old.enabled == new.enabled), Value::from(entry.enabled));
    Ok(Value::Object(fields))
}

/// What RedBeat is to know of how far an entry has come, in its application's zone. The latest run is the
/// time from which RedBeat computes the same next occurrence, not when the latest message was sent: so
/// neither of the two is late because the other was.
pub fn meta(last: Timestamp, runs: u64, zone: &Zone) -> Value {
    let wall = last.to_zoned(zone.timezone().clone());
    let date = Map::from([
        ("__type__", Value::from("datetime")),
        ("year", Value::from(i64::from(wall.year()))),
        ("month", Value::from(i64::from(wall.month()))),
        ("day", Value::from(i64::from(wall.day()))),
        ("hour", Value::from(i64::from(wall.hour()))),
        ("minute", Value::from(i64::from(wall.minute()))),
        ("second", Value::from(i64::from(wall.second()))),
        ("microsecond", Value::from(last.as_microsecond().rem_euclid(1_000_000))),
        // In the hour that is repeated in autumn a wall clock says less than this.
        ("timezone", timezone(&wall, zone)),
    ]);
    let fields = [("last_run_at", Value::Object(date)), ("total_run_count", Value::from(runs))];
    Value::Object(Map::from(fields))
}

/// A zone's name, or seconds from UTC where the name does not tell which of two hours is meant.
fn timezone(wall: &jiff::Zoned, zone: &Zone) -> Value {
    let again = wall.datetime().to_zoned(zone.timezone().clone());
    if again.is_ok_and(|again| again.timestamp() == wall.timestamp()) {
        Value::from(zone.name())
    } else {
        Value::from(f64::from(wall.offset().seconds()))
    }
}

/// The latest run from which an entry's next occurrence follows.
pub fn last_run(entry: &Entry, state: &EntryState) -> Timestamp {
    let last = state.last_due.map_or(state.anchor, |last| last.max(state.anchor));
    let Some(due) = state.due else { return last };
    if entry.next(last, last) == Some(due) {
        return last;
    }
    let back = match &entry.schedule {
        Schedule::Interval(interval) => SignedDuration::try_from(interval.every()).ok(),
        _ => None,
    };
    let back = back.unwrap_or(SignedDuration::from_micros(1));
    due.checked_sub(back).unwrap_or(last)
}

/// When RedBeat is to look at an entry, in whole seconds since 1970, −1 for never again: what is overdue now,
/// as RedBeat has it (`due_at`), and so is what waits for an earlier occurrence to end.
pub fn score(state: &EntryState, now: Timestamp) -> i64 {
    let waits = state.queued.map(|_| now);
    let next = waits.or_else(|| state.due.map(|due| due.max(now)));
    next.map_or(-1, |next| next.as_microsecond().div_euclid(1_000_000).max(0))
}

/// Where an entry comes from that is in RedBeat's keys. `of_app`: it is among the application's own.
pub fn source(entry: &mut Entry, of_app: bool) {
    entry.source.kind = SourceKind::RedBeat;
    if of_app && entry.source.original.is_none() {
        entry.source.original = Some(Box::new(Value::Object(entry.definition())));
    }
}

/// Its schedule in our words.
fn schedule_of(value: &Value) -> Result<Value, EntryError> {
    let none = || EntryError("it has no schedule".to_owned());
    let fields = value.as_object().ok_or_else(none)?;
    let kind = value.get("__type__").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "interval" | "crontab" | "solar" => {
            let mut ours = Map::from([("type", Value::from(kind))]);
            for (name, value) in fields.iter().filter(|(name, _)| *name != "__type__") {
                ours.insert(name, value.clone());
            }
            Ok(Value::Object(ours))
        }
        "rrule" => Err(EntryError("its schedule is an rrule, which has no equivalent".to_owned())),
        other => {
            let text = format!("its schedule is of type {other:?}, which has no equivalent");
            Err(EntryError(text))
        }
    }
}

/// A schedule in RedBeat's words.
fn to_schedule(schedule: &Schedule) -> Result<Value, EntryError> {
    let what = match schedule {
        Schedule::Interval(_) => "interval",
        Schedule::Crontab(_) => "crontab",
        Schedule::Solar(_) => return Err(EntryError("RedBeat has no solar schedules".to_owned())),
        Schedule::Once(_) => {
            return Err(EntryError("RedBeat has no entries that run once".to_owned()));
        }
    };
    let ours = schedule.to_value();
    let mut fields = Map::from([("__type__", Value::from(what))]);
    let rest = ours.as_object().into_iter().flat_map(Map::iter);
    for (name, value) in rest.filter(|(name, _)| *name != "type") {
        fields.insert(name, value.clone());
    }
    Ok(Value::Object(fields))
}

/// The kind of the first value that is another in Python than in JSON.
fn python_value(value: &Value) -> Option<&str> {
    match value {
        Value::Object(fields) => match value.get("__type__").and_then(Value::as_str) {
            Some(kind) => Some(kind),
            None => fields.iter().find_map(|(_, one)| python_value(one)),
        },
        Value::Array(items) => items.iter().find_map(python_value),
        _ => None,
    }
}

/// `{"__type__": "datetime", "year": …, "timezone": name or seconds}`.
fn instant(value: &Value) -> Result<Timestamp, EntryError> {
    let wrong = || EntryError(format!("its last_run_at {value} is no instant"));
    let number = |name| value.get(name).and_then(Value::as_i64).unwrap_or_default();
    let part = |name| i8::try_from(number(name)).map_err(|_| wrong());
    let year = i16::try_from(number("year")).map_err(|_| wrong())?;
    let (month, day) = (part("month")?, part("day")?);
    let (hour, minute, second) = (part("hour")?, part("minute")?, part("second")?);
    let wall = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| wrong())?;
    let wall = wall.checked_add(number("microsecond").microseconds()).map_err(|_| wrong())?;
    let zone = match value.get("timezone") {
        Some(Value::String(name)) => Zone::named(name)?.timezone().clone(),
        Some(Value::Number(seconds)) => {
            let seconds = seconds.as_str().parse::<f64>().map_err(|_| wrong())?;
            TimeZone::fixed(Offset::from_seconds(seconds as i32).map_err(|_| wrong())?)
        }
        _ => TimeZone::UTC,
    };
    wall.to_zoned(zone).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(definition: &str, meta: Option<&str>, due: f64) -> RedBeatEntry {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let (definition, meta) = (Some(bytes(definition)), meta.map(bytes));
        RedBeatEntry { name: "one".to_owned(), definition, meta, due }
    }

    fn berlin() -> Zone {
        Zone::named("Europe/Berlin").unwrap()
    }

    fn read(kept: &RedBeatEntry) -> (Entry, RedBeatPast) {
        let entry = kept.entry(&berlin(), &Map::new()).unwrap();
        let past = kept.past(&entry).unwrap();
        (entry, past)
    }

    fn why(schedule: &str, args: &str) -> String {
        let text = format!(r#"{{"task": "t", "args": {args}, "schedule": {schedule}}}"#);
        kept(&text, None, 1.0).entry(&Zone::utc(), &Map::new()).unwrap_err().to_string()
    }

    const DEFINITION: &str = r#"{"name": "one", "task": "app.sum", "args": [[1, 2]], "kwargs": null,
        "options": {"queue": "slow"}, "enabled": false, "owned_by": "billing", "schedule": {"__type__":
        "crontab", "minute": "*/5", "hour": "1-3", "day_of_week": "mon", "day_of_month": "*",
        "month_of_year": "*"}}"#;
    const META: &str = r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 21,
        "hour": 3, "minute": 0, "second": 37, "microsecond": 51045, "timezone": "Europe/Berlin"},
        "total_run_count": 3}"#;

    #[test]
    fn a_crontab_with_its_past() {
        let (entry, past) = read(&kept(DEFINITION, Some(META), 1_795_000_000.0));
        assert_eq!(past.last, Some("2026-11-21T02:00:37.051045Z".parse().unwrap()));
        assert_eq!(past.runs, 3);
        // Not its score: the next match after the latest run.
        assert_eq!(past.due, Some("2026-11-23T00:00:00Z".parse().unwrap()));
        let (_, never) = read(&kept(DEFINITION, None, 1_795_000_000.0));
        assert_eq!(never.due, Timestamp::from_second(1_795_000_000).ok());
        assert_eq!(read(&kept(DEFINITION, Some(META), -1.0)).1.due, None);
        assert!(!entry.enabled);
        assert_eq!(entry.options.get("queue").and_then(Value::as_str), Some("slow"));
    }

    #[test]
    fn what_has_no_equivalent_says_why() {
        let hourly = r#"{"__type__": "interval", "every": 3600, "relative": false}"#;
        assert!(why(r#"{"__type__": "rrule", "freq": 3}"#, "[]").contains("rrule"));
        assert!(why(r#"{"__type__": "lunar"}"#, "[]").contains("lunar"));
        let date = r#"[{"a": {"__type__": "datetime", "year": 2026}}]"#;
        assert!(why(hourly, date).contains("args has a datetime"));
    }

    #[test]
    fn offsets_are_seconds() {
        let value = r#"{"year": 2026, "month": 1, "day": 2, "timezone": 3600.0}"#;
        let value = Value::parse(value.as_bytes()).unwrap();
        assert_eq!(instant(&value).unwrap(), "2026-01-01T23:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_definition_keeps_what_it_does_not_change() {
        let kept = kept(DEFINITION, None, 1.0);
        let (mut entry, _) = read(&kept);
        let same = definition(&entry, &berlin(), Some(&kept)).unwrap();
        assert_eq!(same, Value::parse(DEFINITION.as_bytes()).unwrap());
        entry.enabled = true;
        entry.kwargs.insert("full", true);
        let changed = definition(&entry, &berlin(), Some(&kept)).unwrap();
        assert_eq!(changed.get("enabled").and_then(Value::as_bool), Some(true));
        assert_eq!(changed.get("kwargs").unwrap().to_string(), r#"{"full": true}"#);
        assert_eq!(changed.get("owned_by").and_then(Value::as_str), Some("billing"));
        entry.schedule = Schedule::Once(Timestamp::UNIX_EPOCH);
        assert!(definition(&entry, &berlin(), Some(&kept)).unwrap_err().0.contains("run once"));
    }

    #[test]
    fn what_redbeat_has_no_word_for_is_kept_beside() {
        let (mut entry, _) = read(&kept(DEFINITION, None, 1.0));
        assert!(extras(&entry, &berlin()).is_empty());
        entry.description = "of the night".to_owned();
        entry.zone = Zone::utc();
        let beside = extras(&entry, &berlin());
        assert_eq!(
            Value::Object(beside.clone()).to_string(),
            r#"{"zone": "UTC", "description": "of the night"}"#
        );
        let again = kept(DEFINITION, None, 1.0).entry(&berlin(), &beside).unwrap();
        assert_eq!(again, entry);
    }

    #[test]
    fn the_latest_run_leads_to_the_next_occurrence() {
        let now: Timestamp = "2026-10-25T00:40:00.25Z".parse().unwrap();
        let schedules = [
            r#"{"type": "interval", "every": 90.5}"#,
            r#"{"type": "interval", "every": 3600, "relative": true}"#,
            r#"{"type": "crontab", "minute": "*/7", "hour": "0-4"}"#,
        ];
        for schedule in schedules {
            let schedule =
                Schedule::from_value(&Value::parse(schedule.as_bytes()).unwrap()).unwrap();
            let entry = Entry::new("one", "t", schedule, berlin()).unwrap();
            let mut state = EntryState::new(&entry, now);
            // As it stands, as another scheduler would go on, and behind an occurrence.
            for step in 0..3 {
                let text = meta(last_run(&entry, &state), state.runs, &berlin()).to_string();
                let definition = definition(&entry, &berlin(), None).unwrap().to_string();
                let kept = kept(&definition, Some(&text), score(&state, now) as f64);
                let (read, past) = read(&kept);
                assert_eq!(read, entry);
                assert_eq!((past.due, past.runs), (state.due, state.runs), "{text} {step}");
                if step == 0 {
                    state.anchor = state.due.unwrap();
                } else {
                    state.last_due = state.due;
                    state.due = entry.next(state.due.unwrap(), state.anchor);
                    state.runs += 1;
                }
            }
        }
    }

    #[test]
    fn the_repeated_hour_is_told_apart() {
        for text in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            let at: Timestamp = text.parse().unwrap();
            let meta = meta(at, 1, &berlin());
            assert_eq!(instant(meta.get("last_run_at").unwrap()).unwrap(), at, "{meta}");
        }
    }

    #[test]
    fn scores_are_whole_seconds_and_never_past() {
        let now: Timestamp = "2026-11-21T00:00:00.999Z".parse().unwrap();
        let (entry, _) = read(&kept(DEFINITION, None, 1.0));
        let mut state = EntryState { due: None, ..EntryState::new(&entry, now) };
        assert_eq!(score(&state, now), -1);
        state.due = Some(now + SignedDuration::from_secs(7));
        assert_eq!(score(&state, now), 1_795_219_207);
        state.queued = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(score(&state, now), 1_795_219_200);
        state = EntryState { due: state.queued.take(), ..state };
        assert_eq!(score(&state, now), 1_795_219_200);
    }
}
