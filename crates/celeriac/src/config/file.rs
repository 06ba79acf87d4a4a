//! `celeriac.toml`.

use super::keys::KEYS;
use super::source::{ConfigError, Setting, Source, nearest};
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The name of the settings file in the current folder.
const NAME: &str = "celeriac.toml";

/// A settings file, read but not understood.
pub(super) struct Parsed {
    pub(super) settings: Vec<(&'static str, String, Source)>,
    pub(super) overrides: Vec<(&'static str, String, Source)>,
    pub(super) routes: Setting<Vec<(String, String)>>,
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
    let mut parsed =
        Parsed { settings: Vec::new(), overrides: Vec::new(), routes: Setting::default() };
    for Entry { key, value, at } in entries(table.get_ref()) {
        match (key, value) {
            ("override", DeValue::Table(section)) => {
                for entry in entries(section) {
                    let line = document.line(entry.at);
                    let source = Source::Override { path: path.to_owned(), line };
                    parsed.overrides.push(document.setting(&entry, source)?);
                }
            }
            ("routes", DeValue::Table(section)) => {
                let line = document.line(at);
                parsed.routes.source = Source::File { path: path.to_owned(), line };
                for Entry { key: pattern, value: queue, at } in entries(section) {
                    let DeValue::String(queue) = queue else {
                        let text = format!("the queue of route {pattern:?} must be a text");
                        return Err(document.error(at, text));
                    };
                    parsed.routes.value.push((pattern.to_owned(), queue.to_string()));
                }
            }
            ("override" | "routes", _) => {
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

    fn setting(
        &self,
        entry: &Entry<'_>,
        source: Source,
    ) -> Result<(&'static str, String, Source), ConfigError> {
        let Entry { key, value, at } = *entry;
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            let names = KEYS.iter().map(|key| key.name).chain(["routes", "override"]);
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
