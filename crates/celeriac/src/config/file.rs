//! `celeriac.toml`.

use super::keys::KEYS;
use super::source::{ConfigError, Setting, Source, nearest};
use std::path::{Path, PathBuf};

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

pub(super) fn parse(path: &Path, text: &str) -> Result<Parsed, ConfigError> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))?;
    let mut parsed =
        Parsed { settings: Vec::new(), overrides: Vec::new(), routes: Setting::default() };
    for (key, value) in &table {
        let line = line_of(text, key);
        match (key.as_str(), value) {
            ("override", toml::Value::Table(section)) => {
                for (key, value) in section {
                    let line = line_of(text, key);
                    let source = Source::Override { path: path.to_owned(), line };
                    parsed.overrides.push(setting(path, line, key, value, source)?);
                }
            }
            ("routes", toml::Value::Table(section)) => {
                parsed.routes.source = Source::File { path: path.to_owned(), line };
                for (pattern, queue) in section {
                    let queue = queue.as_str().ok_or_else(|| {
                        let line = line_of(text, pattern);
                        ConfigError::new(format!("{}, line {line}: the queue of route {pattern:?} must be a text", path.display()))
                    })?;
                    parsed.routes.value.push((pattern.clone(), queue.to_owned()));
                }
            }
            _ => {
                let source = Source::File { path: path.to_owned(), line };
                parsed.settings.push(setting(path, line, key, value, source)?);
            }
        }
    }
    Ok(parsed)
}

fn setting(
    path: &Path,
    line: usize,
    key: &str,
    value: &toml::Value,
    source: Source,
) -> Result<(&'static str, String, Source), ConfigError> {
    let at = format!("{}, line {line}", path.display());
    let Some(known) = KEYS.iter().find(|known| known.name == key) else {
        let names = KEYS.iter().map(|key| key.name).chain(["routes", "override"]);
        let error = ConfigError::new(format!("{at}: unknown key {key:?}"));
        return Err(match nearest(key, names) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => error.hint("see docs/reference/settings.md, or `celeriac config show`"),
        });
    };
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(on) => on.to_string(),
        toml::Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| ConfigError::new(format!("{at}: {key} must be a list of texts")))?
            .join(","),
        other => {
            return Err(ConfigError::new(format!("{at}: {key} cannot be a {}", other.type_str())));
        }
    };
    Ok((known.name, text, source))
}

/// The first line that sets a key or opens a section of that name.
fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '"', '\'', '.']))
    };
    text.lines().position(sets).map_or(1, |index| index + 1)
}
