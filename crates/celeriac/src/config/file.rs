//! `celeriac.toml`.

mod schedule;
mod tasks;

pub(crate) use schedule::EntrySection;

use super::additions::TaskSection;
use super::celery::{self, Role};
use super::keys::KEYS;
use super::source::{ConfigError, Setting, Source, nearest};
use celeriac_core::exchange::{Binding, ExchangeKind, check_name};
use celeriac_core::route::Route;
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The name of the settings file in the current folder.
const NAME: &str = "celeriac.toml";

/// A setting of Celery that the operator overrules: its name, its value, where it stands.
pub(crate) type CeleryOverride = (&'static str, Value, Source);

/// A settings file, read but not understood.
pub(super) struct Parsed {
    pub(super) settings: Vec<(&'static str, String, Source)>,
    pub(super) overrides: Vec<(&'static str, String, Source)>,
    /// Settings of Celery in `[override]`.
    pub(super) celery: Vec<CeleryOverride>,
    pub(super) routes: Setting<Vec<(String, Route)>>,
    pub(super) task_queues: Setting<Vec<Binding>>,
    /// What is added to tasks, in the order of the file.
    pub(super) tasks: Vec<TaskSection>,
    /// Entries of the schedule.
    pub(super) schedule: Vec<EntrySection>,
}

/// Reads the file that was named, or `celeriac.toml` if there is one.
pub(super) fn read(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = named.unwrap_or(Path::new(NAME));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(ConfigError::new(format!("cannot read {}: {error}", path.display()))
            .hint("give the settings file with --config FILE")),
    }
}

/// Understands the structure of a settings file; the values are understood later.
///
/// # Errors
/// Text that is no TOML, or a key that nobody knows. No error repeats a line of the file: it may
/// hold a password.
pub(super) fn parse(path: &Path, text: &str) -> Result<Parsed, ConfigError> {
    let document = Document { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        document.error(at, format!("this is not TOML: {}", error.message()))
    })?;
    let mut parsed = Parsed {
        settings: Vec::new(),
        overrides: Vec::new(),
        celery: Vec::new(),
        routes: Setting::default(),
        task_queues: Setting::default(),
        tasks: Vec::new(),
        schedule: Vec::new(),
    };
    for Entry { key, value, at } in entries(table.get_ref()) {
        match (key, value) {
            ("override", DeValue::Table(section)) => {
                for entry in entries(section) {
                    let line = document.line(entry.at);
                    let source = Source::Override { path: path.to_owned(), line };
                    if let ("tasks", DeValue::Table(section)) = (entry.key, entry.value) {
                        for task in entries(section) {
                            let line = document.line(task.at);
                            let source = Source::Override { path: path.to_owned(), line };
                            parsed.tasks.push(document.task(&task, source)?);
                        }
                        continue;
                    }
                    let known = celery::find(entry.key);
                    let ours = KEYS.iter().any(|key| key.name == entry.key);
                    // A few names mean the same for native tasks and for Celery's.
                    if let Some(known) = known.filter(|one| !ours || one.role == Role::Celery) {
                        let value = document.plain(&entry, entry.value)?;
                        parsed.celery.push((known.name, value, source.clone()));
                    }
                    if ours || known.is_none() {
                        parsed.overrides.push(document.setting(&entry, source)?);
                    }
                }
            }
            ("routes", DeValue::Table(section)) => {
                let line = document.line(at);
                parsed.routes.source = Source::File { path: path.to_owned(), line };
                for entry in entries(section) {
                    parsed.routes.value.push((entry.key.to_owned(), document.route(&entry)?));
                }
            }
            ("task_queues", DeValue::Table(section)) => {
                let line = document.line(at);
                parsed.task_queues.source = Source::File { path: path.to_owned(), line };
                for entry in entries(section) {
                    parsed.task_queues.value.push(document.task_queue(&entry)?);
                }
            }
            ("tasks", DeValue::Table(section)) => {
                for task in entries(section) {
                    let source =
                        Source::File { path: path.to_owned(), line: document.line(task.at) };
                    parsed.tasks.push(document.task(&task, source)?);
                }
            }
            ("schedule", DeValue::Table(section)) => {
                for entry in entries(section) {
                    let source =
                        Source::File { path: path.to_owned(), line: document.line(entry.at) };
                    parsed.schedule.push(document.scheduled(&entry, source)?);
                }
            }
            ("http", DeValue::Table(section)) => {
                for entry in entries(section) {
                    let line = document.line(entry.at);
                    let source = Source::File { path: path.to_owned(), line };
                    let key = format!("http_{}", entry.key);
                    if !KEYS.iter().any(|known| known.name == key) {
                        let known = KEYS.iter().filter_map(|key| key.name.strip_prefix("http_"));
                        let near = nearest(entry.key.trim_start_matches("http_"), known);
                        let text = format!("unknown key {:?} in [http]", entry.key);
                        let error = document.error(entry.at, text);
                        return Err(match near {
                            Some(near) => error.hint(format!("did you mean {near:?}?")),
                            None => error.hint("see docs/reference/settings.md"),
                        });
                    }
                    let entry = Entry { key: &key, ..entry };
                    parsed.settings.push(document.setting(&entry, source)?);
                }
            }
            ("override" | "routes" | "task_queues" | "tasks" | "schedule" | "http", _) => {
                let text = format!("{key} is a section");
                return Err(document.error(at, text).hint(format!("write it as [{key}]")));
            }
            _ => {
                let source = Source::File { path: path.to_owned(), line: document.line(at) };
                parsed.settings.push(document.setting(&Entry { key, value, at }, source)?);
            }
        }
    }
    Ok(parsed)
}

/// One line of a table.
struct Entry<'a> {
    key: &'a str,
    value: &'a DeValue<'a>,
    /// Where the key stands, in bytes.
    at: usize,
}

/// The entries of a table as they stand in the file: routes are tried in this order.
fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref(),
            value: value.get_ref(),
            at: key.span().start,
        })
        .collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// A settings file, for errors that say where.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }

    fn error(&self, at: usize, text: impl fmt::Display) -> ConfigError {
        ConfigError::new(format!("{}, line {}: {text}", self.path.display(), self.line(at)))
    }

    /// A route: a queue, or a table of options.
    fn route(&self, entry: &Entry<'_>) -> Result<Route, ConfigError> {
        let Entry { key: pattern, value, at } = *entry;
        let refuse = |error: StoreError| {
            let hint = error.hint_text().map(str::to_owned);
            let error = self.error(at, format!("route {pattern:?}: {error}"));
            hint.into_iter().fold(error, ConfigError::hint)
        };
        match value {
            DeValue::String(queue) => {
                QueueName::parse(queue).map(|queue| Route::to(&queue)).map_err(refuse)
            }
            DeValue::Table(options) => {
                let options = entries(options).into_iter().map(|option| {
                    let value = match option.value {
                        DeValue::String(text) => Value::from(text.to_string()),
                        DeValue::Boolean(flag) => Value::from(*flag),
                        DeValue::Integer(number) if number.radix() == 10 => {
                            Value::from(number.as_str().parse::<i64>().unwrap_or(i64::MAX))
                        }
                        DeValue::Float(number) => {
                            Value::from(number.as_str().parse::<f64>().unwrap_or(f64::NAN))
                        }
                        other => {
                            let name = option.key;
                            let what = other.type_str();
                            let text = format!("option {name} of a route cannot be a {what}");
                            return Err(self.error(option.at, text));
                        }
                    };
                    Ok((option.key.to_owned(), value))
                });
                let options: Map = options.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
                Route::parse(options).map_err(refuse)
            }
            _ => {
                let text = format!("the queue of route {pattern:?} must be a text, or a table");
                Err(self.error(at, text))
            }
        }
    }

    /// A queue of an exchange.
    fn task_queue(&self, entry: &Entry<'_>) -> Result<Binding, ConfigError> {
        let Entry { key: queue, value, at } = *entry;
        let refuse = |text: String| self.error(at, format!("queue {queue:?}: {text}"));
        let DeValue::Table(fields) = value else {
            let text = "expected a table such as { exchange = \"x\", exchange_type = \"topic\", \
                        routing_key = \"a.#\" }";
            return Err(refuse(text.to_owned()));
        };
        let (mut exchange, mut kind, mut routing_key) = (None, ExchangeKind::Direct, None);
        for field in entries(fields) {
            let DeValue::String(text) = field.value else {
                return Err(self.error(field.at, format!("{} must be a text", field.key)));
            };
            match field.key {
                "exchange" => exchange = Some(text.to_string()),
                "exchange_type" => {
                    kind = text.parse().map_err(|text| self.error(field.at, text))?;
                }
                "routing_key" => routing_key = Some(text.to_string()),
                other => {
                    let text = format!("queues have no {other:?}");
                    let hint = "use exchange, exchange_type and routing_key";
                    return Err(self.error(field.at, text).hint(hint));
                }
            }
        }
        let name = QueueName::parse(queue).map_err(|error| refuse(error.to_string()))?;
        // As kombu's `Queue(name)` without them, and as Celery adds missing queues.
        let binding = Binding {
            exchange: exchange.unwrap_or_else(|| queue.to_owned()),
            kind,
            routing_key: routing_key.unwrap_or_else(|| match kind {
                ExchangeKind::Fanout => String::new(),
                _ => queue.to_owned(),
            }),
            queue: name,
        };
        let name = |what, name: &str| check_name(what, name).map_err(|e| refuse(e.to_string()));
        name("exchange", &binding.exchange)?;
        name("routing key", &binding.routing_key)?;
        if binding.exchange.is_empty() {
            return Err(refuse("an exchange has a name".to_owned()));
        }
        Ok(binding)
    }

    /// A value as Python has it.
    fn plain(&self, entry: &Entry<'_>, value: &DeValue<'_>) -> Result<Value, ConfigError> {
        let wrong = |what: &str| self.error(entry.at, format!("{} {what}", entry.key));
        Ok(match value {
            DeValue::String(text) => Value::from(text.to_string()),
            DeValue::Boolean(on) => Value::from(*on),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::from)
                .map_err(|_| wrong("is too large a number"))?,
            DeValue::Float(number) => {
                let number: f64 = number.as_str().parse().map_err(|_| wrong("is no number"))?;
                Value::from(number)
            }
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.plain(entry, item.get_ref()))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            DeValue::Table(table) => Value::Object(
                entries(table)
                    .into_iter()
                    .map(|one| Ok((one.key.to_owned(), self.plain(entry, one.value)?)))
                    .collect::<Result<Vec<_>, ConfigError>>()?
                    .into_iter()
                    .collect(),
            ),
            DeValue::Datetime(_) => return Err(wrong("cannot be a datetime")),
        })
    }

    fn setting(
        &self,
        entry: &Entry<'_>,
        source: Source,
    ) -> Result<(&'static str, String, Source), ConfigError> {
        let Entry { key, value, at } = *entry;
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            // The operator may overrule an app in Celery's words.
            let overrides = matches!(source, Source::Override { .. });
            let theirs = celery::all().iter().map(|known| known.name).filter(|_| overrides);
            let sections = ["routes", "task_queues", "tasks", "schedule", "http", "override"];
            let names = KEYS.iter().map(|key| key.name).chain(sections).chain(theirs);
            let error = self.error(at, format!("unknown key {key:?}"));
            return Err(match nearest(key, names) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint("see docs/reference/settings.md, or `celeriac config show`"),
            });
        };
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.to_string(),
                    Err(_) => return Err(self.error(at, format!("{key} is too large a number"))),
                }
            }
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(on) => on.to_string(),
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_str())
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| self.error(at, format!("{key} must be a list of texts")))?
                .join(","),
            other => {
                return Err(self.error(at, format!("{key} cannot be a {}", other.type_str())));
            }
        };
        Ok((known.name, text, source))
    }
}

#[cfg(test)]
mod tests;
