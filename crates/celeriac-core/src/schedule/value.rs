//! A schedule as a JSON object: how it is stored, shown and sent.

use super::{Crontab, Interval, Schedule, ScheduleError, Solar, SolarEvent};
use celeriac_wire::{Map, Value};
use jiff::Timestamp;

/// The most numbers a list in a crontab has: more than any field can have.
const LIST_MAX: usize = 100;

impl Schedule {
    /// An object with a `type`: `{"type": "interval", "every": 30.0, "relative": false}`, `{"type":
    /// "crontab", "minute": "*/5", …}`, `{"type": "solar", "event": …, "lat": …, "lon": …}` or
    /// `{"type": "once", "at": "…Z"}`. Fields are named as Celery's arguments are.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut add = |key: &str, value: Value| {
            map.insert(key, value);
        };
        match self {
            Self::Interval(interval) => {
                add("type", "interval".into());
                add("every", interval.every().as_secs_f64().into());
                add("relative", interval.is_relative().into());
            }
            Self::Crontab(crontab) => {
                add("type", "crontab".into());
                add("minute", crontab.minute().into());
                add("hour", crontab.hour().into());
                add("day_of_week", crontab.day_of_week().into());
                add("day_of_month", crontab.day_of_month().into());
                add("month_of_year", crontab.month_of_year().into());
            }
            Self::Solar(solar) => {
                add("type", "solar".into());
                add("event", solar.event().as_str().into());
                add("lat", solar.latitude().into());
                add("lon", solar.longitude().into());
            }
            Self::Once(at) => {
                add("type", "once".into());
                add("at", at.to_string().into());
            }
        }
        map.into()
    }

    /// Reads what [`Self::to_value`] writes. Fields of a crontab may be missing (`*`), numbers, or lists
    /// of numbers, as in Celery; other keys are ignored.
    ///
    /// # Errors
    /// Which field is wrong, and what to write.
    pub fn from_value(value: &Value) -> Result<Self, ScheduleError> {
        if value.as_object().is_none() {
            let what = value.describe();
            return Err(ScheduleError::new(format!(
                "a schedule is an object with a type, not {what}; write {{\"type\": \"interval\", \
                 \"every\": 30}}"
            )));
        }
        match text(value, "type")? {
            "interval" => {
                let relative = match value.get("relative") {
                    None | Some(Value::Null) => false,
                    Some(Value::Bool(relative)) => *relative,
                    Some(other) => return Err(wrong("relative", other, "true or false")),
                };
                Ok(Self::Interval(Interval::from_seconds(number(value, "every")?, relative)?))
            }
            "crontab" => Ok(Self::Crontab(Crontab::parse(
                &field(value, "minute")?,
                &field(value, "hour")?,
                &field(value, "day_of_week")?,
                &field(value, "day_of_month")?,
                &field(value, "month_of_year")?,
            )?)),
            "solar" => {
                let event: SolarEvent = text(value, "event")?.parse()?;
                Ok(Self::Solar(Solar::new(event, number(value, "lat")?, number(value, "lon")?)?))
            }
            "once" => {
                let at = text(value, "at")?;
                let moment: Result<Timestamp, _> = at.parse();
                moment.map(Self::Once).map_err(|_| {
                    let at: String = at.chars().take(40).collect();
                    ScheduleError::new(format!(
                        "at {at:?} is no moment; write one with its zone, such as 2026-12-24T18:00:00Z"
                    ))
                })
            }
            other => {
                let other: String = other.chars().take(40).collect();
                Err(ScheduleError::new(format!(
                    "type {other:?} is not known; write interval, crontab, solar or once"
                )))
            }
        }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str, ScheduleError> {
    let found = value.get(key).unwrap_or(&Value::Null);
    found.as_str().ok_or_else(|| wrong(key, found, "text"))
}

fn number(value: &Value, key: &str) -> Result<f64, ScheduleError> {
    let found = value.get(key).unwrap_or(&Value::Null);
    found.as_f64().ok_or_else(|| wrong(key, found, "a number"))
}

fn wrong(key: &str, found: &Value, wanted: &str) -> ScheduleError {
    match found {
        Value::Null => ScheduleError::new(format!("{key} is missing; write {wanted}")),
        other => ScheduleError::new(format!("{key} is {}; write {wanted}", other.describe())),
    }
}

/// One field of a crontab as text.
fn field(value: &Value, key: &str) -> Result<String, ScheduleError> {
    let single = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_integer() => Some(number.as_str().to_owned()),
        _ => None,
    };
    let found = match value.get(key) {
        None | Some(Value::Null) => return Ok("*".to_owned()),
        Some(found) => found,
    };
    let read = match found.as_array() {
        Some(items) if items.len() > LIST_MAX => None,
        Some(items) => {
            items.iter().map(single).collect::<Option<Vec<_>>>().map(|all| all.join(","))
        }
        None => single(found),
    };
    read.ok_or_else(|| wrong(key, found, "text such as \"*/5\", a number, or a list of numbers"))
}
