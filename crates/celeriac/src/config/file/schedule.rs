//! `[schedule.NAME]`: entries that a beat takes over.

use super::{Document, Entry as Line};
use crate::config::source::{ConfigError, Source, nearest};
use crate::config::value::duration;
use celeriac_core::beat::Entry;
use celeriac_core::schedule::{Crontab, Schedule, Zone};
use celeriac_wire::{Map, Value, parse_iso};
use toml::de::DeValue;

/// When an entry runs; one of these.
const TIMES: [&str; 4] = ["cron", "every", "solar", "at"];
/// What else a section may say.
const KEYS: [&str; 20] = [
    "task",
    "args",
    "kwargs",
    "options",
    "queue",
    "priority",
    "expires",
    "zone",
    "start",
    "end",
    "jitter",
    "misfire",
    "misfire_limit",
    "misfire_grace",
    "overlap",
    "max_instances",
    "dst_gap",
    "dst_repeat",
    "enabled",
    "description",
];
/// Keys of options.
const OPTIONS: [&str; 3] = ["queue", "priority", "expires"];

/// A section, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EntrySection {
    /// Its name.
    pub(crate) name: String,
    /// The document of an entry.
    fields: Map,
    /// Where it stands.
    pub(crate) source: Source,
}

impl EntrySection {
    /// The entry, on the clock of `zone` if it names none.
    ///
    /// # Errors
    /// It makes no sense; the text names the line.
    pub(crate) fn entry(&self, zone: &Zone) -> Result<Entry, ConfigError> {
        Entry::from_value(&Value::Object(self.fields.clone()), zone)
            .map_err(|error| ConfigError::new(format!("{}: {error}", self.source)))
    }
}

impl Document<'_> {
    /// A section about an entry.
    pub(super) fn scheduled(
        &self,
        line: &Line<'_>,
        source: Source,
    ) -> Result<EntrySection, ConfigError> {
        let Line { key: name, value, at } = *line;
        let wrong = |text: String| self.error(at, format!("entry {name:?}: {text}"));
        if !matches!(value, DeValue::Table(_)) {
            return Err(wrong("it must be a section".to_owned())
                .hint(format!("write it as [schedule.{name}], with a line for each key")));
        }
        let given = self.plain(line, value)?;
        let given = given.as_object().cloned().unwrap_or_default();
        let known = || TIMES.into_iter().chain(KEYS);
        if let Some(unknown) = given.keys().find(|key| known().all(|known| known != *key)) {
            let error = wrong(format!("there is no key {unknown:?}"));
            return Err(match nearest(unknown, known()) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => {
                    error.hint(format!("the keys are {}", known().collect::<Vec<_>>().join(", ")))
                }
            });
        }
        let mut fields = Map::new();
        fields.insert("name", name);
        fields.insert("schedule", times(&given).map_err(wrong)?.to_value());
        let mut options =
            given.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
        for (key, value) in given.iter().filter(|(key, _)| !TIMES.contains(key)) {
            let value = match key {
                "expires" | "jitter" | "misfire_grace" => {
                    span(value).map_err(|text| wrong(format!("{key} = {value}: {text}")))?.into()
                }
                _ => value.clone(),
            };
            if OPTIONS.contains(&key) {
                options.insert(key, level(key, value).map_err(wrong)?);
            } else if key != "options" {
                fields.insert(key, value);
            }
        }
        fields.insert("options", options);
        let section = EntrySection { name: name.to_owned(), fields, source };
        section.entry(&Zone::utc())?;
        Ok(section)
    }
}

/// A priority may be a word of ours.
fn level(key: &str, value: Value) -> Result<Value, String> {
    match (key, value.as_str()) {
        ("priority", Some(word)) => {
            let level: celeriac_core::priority::Level =
                word.parse().map_err(|text: String| text)?;
            Ok(Value::from(u64::from(level.ascending())))
        }
        _ => Ok(value),
    }
}

/// A time such as `"30s"`, or a number of seconds.
fn span(value: &Value) -> Result<f64, String> {
    match (value.as_f64(), value.as_str()) {
        (Some(seconds), _) => Ok(seconds),
        (None, Some(text)) => Ok(duration(text)?.as_secs_f64()),
        (None, None) => Err("a time such as \"30s\" is expected".to_owned()),
    }
}

fn times(given: &Map) -> Result<Schedule, String> {
    let said: Vec<&str> = TIMES.into_iter().filter(|key| given.get(key).is_some()).collect();
    let [key] = said[..] else {
        return Err("it needs one of cron, every, solar and at".to_owned());
    };
    let value = given.get(key).unwrap_or(&Value::Null);
    let text = || value.as_str().ok_or_else(|| format!("{key} = {value}: a text is expected"));
    let schedule = match key {
        "cron" => Crontab::from_string(text()?).map(Schedule::Crontab),
        "at" => {
            let at = parse_iso(text()?);
            return at.map(Schedule::Once).map_err(|_| {
                format!("at = {value}: an instant such as \"2026-12-31T23:00:00Z\" is expected")
            });
        }
        "every" => {
            let every = span(value).map_err(|text| format!("every = {value}: {text}"))?;
            let mut fields = Map::new();
            fields.insert("type", "interval");
            fields.insert("every", every);
            Schedule::from_value(&Value::Object(fields))
        }
        _ => {
            let mut fields = value.as_object().cloned().ok_or_else(|| {
                "solar: write it as { event = \"sunset\", lat = 52.5, lon = 13.4 }".to_owned()
            })?;
            fields.insert("type", "solar");
            Schedule::from_value(&Value::Object(fields))
        }
    };
    schedule.map_err(|error| format!("{key}: {error}"))
}
