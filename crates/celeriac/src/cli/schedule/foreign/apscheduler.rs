//! A job of APScheduler 3 in our words (apscheduler/triggers, 3.10 and 3.11).

use super::instant;
use crate::cli::schedule::files::{Found, Past};
use crate::schedule::Zone;
use celeriac_core::beat::Entry;
use celeriac_wire::{Map, Value};

/// Days of the week as APScheduler counts them, from 0 on; Celery's 0 is Sunday.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// A time of grace from here on is none: ten years.
const GRACE_MAX: f64 = 3660.0 * 86_400.0;

/// A job of the Python half, or why it has no equivalent. `task_of` knows the task of a function.
pub(super) fn entry(
    job: &Value,
    task_of: &dyn Fn(&str) -> String,
    zone: &Zone,
) -> Result<Found, String> {
    let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default();
    let trigger = job.get("trigger").unwrap_or(&Value::Null);
    let function = text("function");
    let next = instant(job, "next")?;
    let mut document = Map::from([
        ("name", Value::from(text("name"))),
        ("task", Value::from(task_of(function))),
        ("description", Value::from(description(text("title"), function))),
        ("schedule", schedule(trigger)?),
        ("enabled", Value::from(next.is_some())),
        // APScheduler runs no more than these, and lets the rest go.
        ("overlap", Value::from("skip")),
    ]);
    for (name, value) in [
        ("args", job.get("args")),
        ("kwargs", job.get("kwargs")),
        ("max_instances", job.get("instances")),
        ("start", trigger.get("start")),
        ("end", trigger.get("end")),
        ("jitter", trigger.get("jitter")),
    ] {
        document.insert(name, value.cloned().unwrap_or_default());
    }
    misfire(job, &mut document);
    let is_cron = trigger.get("type").and_then(Value::as_str) == Some("cron");
    let zone =
        match trigger.get("zone").and_then(Value::as_str).map(|name| (name, Zone::named(name))) {
            Some((_, Ok(own))) => own,
            // An interval is the same in every zone.
            Some((name, Err(_))) if is_cron => {
                return Err(format!("its time zone {name} is none of IANA's"));
            }
            _ => zone.clone(),
        };
    let entry =
        Entry::from_value(&Value::Object(document), &zone).map_err(|error| error.to_string())?;
    let start = instant(trigger, "start")?;
    let due = next.map(|next| {
        // What chance has added to its next time is not part of its schedule; ours comes later.
        let on_time = || entry.schedule.previous(next, next, &entry.zone, entry.dst);
        if is_cron && !entry.jitter.is_zero() { on_time().unwrap_or(next) } else { next }
    });
    let past = Past { due, anchor: next.or(start), last: None, runs: 0 };
    Ok(Found { entry, past })
}

/// What the job is called, if it is not just named after its function.
fn description(title: &str, function: &str) -> String {
    let own = function.rsplit([':', '.']).next().unwrap_or_default();
    if title == own { function.to_owned() } else { format!("{title} ({function})") }
}

/// Late runs: none after the time of grace; without one, one for all if they coalesce, else each.
fn misfire(job: &Value, document: &mut Map) {
    let grace = job.get("grace").and_then(Value::as_f64).filter(|grace| *grace < GRACE_MAX);
    let coalesce = job.get("coalesce").and_then(Value::as_bool) == Some(true);
    let rule = match (grace, coalesce) {
        (Some(_), _) => "skip",
        (None, true) => "once",
        (None, false) => "all",
    };
    document.insert("misfire", rule);
    document.insert("misfire_grace", grace.map_or(Value::Null, Value::from));
}

fn schedule(trigger: &Value) -> Result<Value, String> {
    let value = |name: &str| trigger.get(name).cloned().unwrap_or_default();
    match trigger.get("type").and_then(Value::as_str).unwrap_or_default() {
        "interval" => Ok(Value::Object(Map::from([
            ("type", Value::from("interval")),
            ("every", value("every")),
        ]))),
        "date" => {
            let at = instant(trigger, "at")?.ok_or("it has no date")?;
            let fields = [("type", Value::from("once")), ("at", Value::from(at.to_string()))];
            Ok(Value::Object(Map::from(fields)))
        }
        "cron" => crontab(trigger.get("fields").unwrap_or(&Value::Null)),
        other => Err(format!("its trigger {other:?} has no equivalent")),
    }
}

/// The fields of a `CronTrigger`, all of which must match, as Celery's.
fn crontab(fields: &Value) -> Result<Value, String> {
    let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("*");
    for (name, any) in [("year", "*"), ("week", "*"), ("second", "0")] {
        let text = field(name);
        if text != any {
            return Err(format!(
                "{name} = {text:?} has no equivalent: a crontab has minutes, hours, days, \
                                weekdays and months"
            ));
        }
    }
    let day = field("day");
    if day.split(',').any(|part| part.contains("last") || part.contains(' ')) {
        return Err(format!(
            "day = {day:?} has no equivalent: a crontab has days of the month by number"
        ));
    }
    Ok(Value::Object(Map::from([
        ("type", Value::from("crontab")),
        ("minute", Value::from(stepped(field("minute"), 59))),
        ("hour", Value::from(stepped(field("hour"), 23))),
        ("day_of_week", Value::from(weekdays(field("day_of_week"))?)),
        ("day_of_month", Value::from(stepped(day, 31))),
        ("month_of_year", Value::from(stepped(field("month"), 12))),
    ])))
}

/// `a/n` goes on to the end; Celery wants that said.
fn stepped(field: &str, max: u8) -> String {
    let part = |part: &str| match part.split_once('/') {
        Some((first, step)) if first != "*" && !first.contains('-') => {
            format!("{first}-{max}/{step}")
        }
        _ => part.to_owned(),
    };
    field.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// Days of the week by name, for the numbers differ, and so does where steps begin.
fn weekdays(field: &str) -> Result<String, String> {
    let mut days = [false; 7];
    for part in field.split(',') {
        let wrong = || format!("day_of_week = {field:?} has no equivalent");
        let day = |text: &str| {
            let number = text.parse::<usize>().ok().filter(|day| *day < 7);
            number.or_else(|| WEEKDAYS.iter().position(|name| *name == text)).ok_or_else(wrong)
        };
        let (range, step) = part.split_once('/').unwrap_or((part, ""));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None if range == "*" => (0, 6),
            None if step.is_empty() => (day(range)?, day(range)?),
            None => (day(range)?, 6),
        };
        let step = if step.is_empty() { Some(1) } else { step.parse().ok() };
        let step = step.filter(|step: &usize| *step > 0).ok_or_else(wrong)?;
        for number in (first..=last).step_by(step) {
            days[number] = true;
        }
    }
    if days == [true; 7] {
        return Ok("*".to_owned());
    }
    let named = WEEKDAYS.iter().zip(days).filter(|(_, is_in)| *is_in).map(|(name, _)| *name);
    Ok(named.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(fields: &str) -> Result<String, String> {
        let fields = Value::parse(fields.as_bytes()).unwrap();
        let schedule = crontab(&fields)?;
        celeriac_core::schedule::Schedule::from_value(&schedule)
            .map(|schedule| match schedule {
                celeriac_core::schedule::Schedule::Crontab(crontab) => crontab.to_string(),
                other => panic!("{other:?}"),
            })
            .map_err(|error| error.to_string())
    }

    fn job(more: &str) -> Result<Found, String> {
        let text = format!(
            r#"{{"name": "j", "function": "jobs:collect", "title": "collect", "args": [1], "kwargs": {{}},
            "coalesce": true, "instances": 2, "grace": 5, {more}}}"#
        );
        let line = Value::parse(text.as_bytes()).unwrap();
        entry(&line, &|function| function.replace(':', "."), &Zone::utc())
    }

    #[test]
    fn its_zero_is_monday() {
        for (theirs, ours) in [
            ("0", "mon"),
            ("6", "sun"),
            ("0-4", "mon,tue,wed,thu,fri"),
            ("sat,sun", "sat,sun"),
            ("fri-sun", "fri,sat,sun"),
            ("*/2", "mon,wed,fri,sun"),
            ("5/1", "sat,sun"),
            ("0-6", "*"),
            ("*", "*"),
        ] {
            assert_eq!(weekdays(theirs).unwrap(), ours, "{theirs}");
        }
        assert!(weekdays("2nd fri").is_err());
        assert!(weekdays("7").is_err());
    }

    #[test]
    fn fields_become_a_crontab() {
        let seconds = r#""second": "0", "year": "*", "week": "*""#;
        let told = |fields: &str| cron(&format!("{{{seconds}, {fields}}}"));
        assert_eq!(told(r#""minute": "5/20", "hour": "8-18/2""#).unwrap(), "5-59/20 8-18/2 * * *");
        assert_eq!(
            told(r#""minute": "0", "hour": "0", "day": "1", "month": "jan-mar""#).unwrap(),
            "0 0 1 jan-mar *"
        );
        assert!(told(r#""minute": "0", "day": "last""#).unwrap_err().contains("last"));
        assert!(told(r#""minute": "0", "day": "1,3rd fri""#).unwrap_err().contains("3rd fri"));
    }

    #[test]
    fn seconds_weeks_and_years_have_no_equivalent() {
        for fields in [
            r#"{"second": "*/10"}"#,
            r#"{"second": "0", "week": "3"}"#,
            r#"{"second": "0", "year": "2027"}"#,
        ] {
            assert!(cron(fields).unwrap_err().contains("no equivalent"), "{fields}");
        }
    }

    #[test]
    fn an_interval_goes_on_from_its_next_time() {
        let found = job(
            r#""next": "2026-11-22T10:00:07+01:00", "trigger": {"type": "interval", "every": 60.0, "zone":
            "+01:00", "start": "2026-11-22T09:00:00+01:00", "end": null, "jitter": 10}"#,
        )
        .unwrap();
        let next = Some("2026-11-22T09:00:07Z".parse().unwrap());
        assert_eq!((found.past.due, found.past.anchor), (next, next));
        let document = found.entry.to_value();
        let is = |name: &str, text: &str| assert_eq!(document.get(name).unwrap().to_string(), text);
        is("misfire", "\"skip\"");
        is("misfire_grace", "5.0");
        is("max_instances", "2");
        is("overlap", "\"skip\"");
        is("jitter", "10.0");
        is("task", "\"jobs.collect\"");
        is("enabled", "true");
    }

    #[test]
    fn a_paused_job_stays_paused_and_chance_is_taken_out() {
        let trigger = r#""trigger": {"type": "cron", "zone": "Europe/Berlin", "start": null, "end": null,
            "jitter": 30, "fields": {"second": "0", "minute": "0", "hour": "9"}}"#;
        let paused = job(&format!("\"next\": null, {trigger}")).unwrap();
        assert!(!paused.entry.enabled);
        assert_eq!(paused.past.due, None);
        let found = job(&format!("\"next\": \"2026-11-23T09:00:12+01:00\", {trigger}")).unwrap();
        assert_eq!(found.past.due, Some("2026-11-23T08:00:00Z".parse().unwrap()));
        assert_eq!(found.entry.zone.name(), "Europe/Berlin");
        let unnamed = trigger.replace("Europe/Berlin", "UTC+01:00");
        assert!(job(&format!("\"next\": null, {unnamed}")).err().unwrap().contains("IANA"));
    }

    #[test]
    fn without_grace_late_runs_are_made_up_for() {
        let at = r#""grace": null, "next": "2026-11-23T09:00:00Z", "trigger": {"type": "date",
            "at": "2026-11-23T09:00:00+00:00"}"#;
        let text = |coalesce: bool| {
            let line = format!(
                r#"{{"name": "j", "function": "jobs:collect", "coalesce": {coalesce}, {at}}}"#
            );
            let line = Value::parse(line.as_bytes()).unwrap();
            let found = entry(&line, &|_| "t".to_owned(), &Zone::utc()).unwrap();
            found.entry.to_value().get("misfire").and_then(Value::as_str).unwrap().to_owned()
        };
        assert_eq!(text(true), "once");
        assert_eq!(text(false), "all");
    }
}
