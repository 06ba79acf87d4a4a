//! An entry of RedBeat 2.4 in our words (wire specification 8.8).

use crate::cli::schedule::files::{Found, Past};
use crate::schedule::Zone;
use celeriac_core::beat::Entry;
use celeriac_stores::redbeat::RedBeatEntry;
use celeriac_wire::{Map, Value};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

/// An entry, or why it has no equivalent.
pub(super) fn entry(kept: &RedBeatEntry, zone: &Zone) -> Result<Found, String> {
    let text = kept.definition.as_deref().ok_or("it has no definition")?;
    let definition = Value::parse(text).map_err(|error| format!("its definition: {error}"))?;
    let mut document = Map::from([("name", Value::from(kept.name.as_str()))]);
    for field in ["task", "args", "kwargs", "options", "enabled"] {
        let value = definition.get(field).unwrap_or(&Value::Null);
        if let Some(kind) = python_value(value) {
            return Err(format!("{field} has a {kind}, which JSON has no word for"));
        }
        document.insert(field, value.clone());
    }
    document.insert("schedule", schedule(definition.get("schedule").unwrap_or(&Value::Null))?);
    let entry =
        Entry::from_value(&Value::Object(document), zone).map_err(|error| error.to_string())?;
    if kept.due < 0.0 {
        return Err("it is never due again".to_owned());
    }
    let score = Timestamp::from_microsecond((kept.due * 1e6) as i64)
        .map_err(|_| format!("its score {} is no instant", kept.due))?;
    let meta = kept.meta.as_deref().map_or(Ok(Value::Null), Value::parse);
    let meta = meta.map_err(|error| format!("its meta: {error}"))?;
    let last = meta.get("last_run_at").filter(|value| !value.is_null());
    let last = last.map(instant).transpose()?;
    let runs = meta.get("total_run_count").and_then(Value::as_u64).unwrap_or_default();
    // A score is when RedBeat looks at it, up to a second too early or more: what decides is the latest run
    // (redbeat/schedulers.py 2.4, `due_at` and `is_due`). One that never ran is due at once.
    let due = last.map_or(Some(score), |last| entry.next(last, last));
    let past = Past { due, anchor: last, last: last.filter(|_| runs > 0), runs };
    Ok(Found { entry, past })
}

/// Its schedule in our words.
fn schedule(value: &Value) -> Result<Value, String> {
    let fields = value.as_object().ok_or("it has no schedule")?;
    let kind = value.get("__type__").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "interval" | "crontab" | "solar" => {
            let mut ours = Map::from([("type", Value::from(kind))]);
            for (name, value) in fields.iter().filter(|(name, _)| *name != "__type__") {
                ours.insert(name, value.clone());
            }
            Ok(Value::Object(ours))
        }
        "rrule" => Err("its schedule is an rrule, which has no equivalent".to_owned()),
        other => Err(format!("its schedule is of type {other:?}, which has no equivalent")),
    }
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
fn instant(value: &Value) -> Result<Timestamp, String> {
    let wrong = || format!("its last_run_at {value} is no instant");
    let number = |name| value.get(name).and_then(Value::as_i64).unwrap_or_default();
    let part = |name| i8::try_from(number(name)).map_err(|_| wrong());
    let year = i16::try_from(number("year")).map_err(|_| wrong())?;
    let (month, day) = (part("month")?, part("day")?);
    let (hour, minute, second) = (part("hour")?, part("minute")?, part("second")?);
    let wall = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| wrong())?;
    let wall = wall.checked_add(number("microsecond").microseconds()).map_err(|_| wrong())?;
    let zone = match value.get("timezone") {
        Some(Value::String(name)) => {
            Zone::named(name).map_err(|error| error.to_string())?.timezone().clone()
        }
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

    fn why(schedule: &str, args: &str, due: f64) -> String {
        let text = format!(r#"{{"task": "t", "args": {args}, "schedule": {schedule}}}"#);
        entry(&kept(&text, None, due), &Zone::utc()).err().expect("it has no equivalent")
    }

    #[test]
    fn a_crontab_with_its_past() {
        let definition = r#"{"name": "one", "task": "app.sum", "args": [[1, 2]], "kwargs": null,
            "options": {"queue": "slow"}, "enabled": false, "schedule": {"__type__": "crontab",
            "minute": "*/5", "hour": "1-3", "day_of_week": "mon", "day_of_month": "*",
            "month_of_year": "*"}}"#;
        let meta = r#"{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 21,
            "hour": 3, "minute": 0, "second": 37, "microsecond": 51045, "timezone": "Europe/Berlin"},
            "total_run_count": 3}"#;
        let zone = Zone::named("Europe/Berlin").unwrap();
        let found = entry(&kept(definition, Some(meta), 1_795_000_000.0), &zone).unwrap();
        assert_eq!(found.past.last, Some("2026-11-21T02:00:37.051045Z".parse().unwrap()));
        assert_eq!(found.past.runs, 3);
        // Not its score: the next match after the latest run.
        assert_eq!(found.past.due, Some("2026-11-23T00:00:00Z".parse().unwrap()));
        let never = entry(&kept(definition, None, 1_795_000_000.0), &zone).unwrap();
        assert_eq!(never.past.due, Timestamp::from_second(1_795_000_000).ok());
        assert!(!found.entry.enabled);
        assert_eq!(found.entry.options.get("queue").and_then(Value::as_str), Some("slow"));
    }

    #[test]
    fn what_has_no_equivalent_says_why() {
        let hourly = r#"{"__type__": "interval", "every": 3600, "relative": false}"#;
        assert!(why(r#"{"__type__": "rrule", "freq": 3}"#, "[]", 1.0).contains("rrule"));
        assert!(why(r#"{"__type__": "lunar"}"#, "[]", 1.0).contains("lunar"));
        assert!(why(hourly, "[]", -1.0).contains("never"));
        let date = r#"[{"a": {"__type__": "datetime", "year": 2026}}]"#;
        assert!(why(hourly, date, 1.0).contains("args has a datetime"));
    }

    #[test]
    fn offsets_are_seconds() {
        let value = r#"{"year": 2026, "month": 1, "day": 2, "timezone": 3600.0}"#;
        let value = Value::parse(value.as_bytes()).unwrap();
        assert_eq!(instant(&value).unwrap(), "2026-01-01T23:00:00Z".parse().unwrap());
    }
}
