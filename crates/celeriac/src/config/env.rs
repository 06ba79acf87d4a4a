//! Environment variables and `.env`.

use super::keys::KEYS;
use super::source::{ConfigError, Raw, Source, nearest};
use celeriac_runtime::pool::CHILD_VARIABLE;
use std::path::{Path, PathBuf};

/// Variables by name.
type Variables = Vec<(String, String)>;

/// Says where the broker is only when nothing else does: applications use it for other things too.
const FALLBACK: &str = "REDIS_URL";
/// The port that a platform gives a process; in `.env`, and when it is no number, it is somebody else's.
const PORT: &str = "PORT";
/// Names that are ours and no settings: where settings are, and what makes a child.
const INTERNAL: [&str; 2] = ["CELERIAC_CONFIG", CHILD_VARIABLE];
/// Names of Celery's environment that this version does not use (wire specification 9.8, and the
/// ones that Celery sets itself in `celery/app/log.py` 5.7).
const UNUSED: [&str; 10] = [
    "CELERY_WORKER_REVOKES_MAX",
    "CELERY_WORKER_REVOKE_EXPIRES",
    "CELERY_WORKER_SUCCESSFUL_MAX",
    "CELERY_WORKER_SUCCESSFUL_EXPIRES",
    "CELERY_BENCH",
    "CELERY_TRACE_APP",
    "CELERY_LOG_LEVEL",
    "CELERY_LOG_FILE",
    "CELERY_LOG_REDIRECT",
    "CELERY_LOG_REDIRECT_LEVEL",
];
/// Those of them that Celery reads where an app is loaded.
const OF_APPS: [&str; 6] = [
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_CONFIG_MODULE",
    "CELERY_LOADER",
    "CELERY_SKIP_CHECKS",
    "CELERY_RDBSIG",
];
/// Names of the seeds' rollout switches, which the rollout layer will read.
const ROLLOUT: [&str; 5] = [
    "CELERY_ROLLOUT_PERCENTAGE",
    "CELERY_ENABLED",
    "CELERY_PERCENTAGE",
    "FORCE_LEGACY_QUEUE",
    "USE_CELERY",
];

/// The variables of `.env`, if there is one.
pub(super) fn dotenv(path: &Path) -> Result<Option<(PathBuf, Variables)>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), parse_dotenv(path, &text)?))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::new(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Reads `.env` as python-dotenv does where the two readers differ: only `${NAME}` is replaced, the
/// last of two lines of one name wins, and a line that cannot be read stops nobody unless it is
/// one of ours: the file belongs to the whole application. No error repeats the line.
fn parse_dotenv(path: &Path, text: &str) -> Result<Variables, ConfigError> {
    let text = text.trim_start_matches('\u{feff}');
    let escaped: Vec<String> = text.lines().map(without_bare_references).collect();
    let mut vars: Variables = Vec::new();
    for item in dotenvy::from_read_iter(escaped.join("\n").as_bytes()) {
        match item {
            Ok((name, value)) => {
                vars.retain(|(known, _)| *known != name);
                vars.push((name, value));
            }
            Err(dotenvy::Error::LineParse(rest, _)) => {
                let rest = rest.lines().next().unwrap_or_default().trim();
                let index = escaped.iter().position(|line| line.contains(rest)).unwrap_or(0);
                let name = escaped.get(index).map_or("", |line| name_of(line));
                if is_ours(name) {
                    let (path, line) = (path.display(), index + 1);
                    return Err(ConfigError::new(format!(
                        "{path}, line {line}: the value of {name} cannot be read"
                    ))
                    .hint("put a value with spaces or quotes into single quotes"));
                }
            }
            Err(error) => {
                return Err(ConfigError::new(format!("{}: {error}", path.display())));
            }
        }
    }
    Ok(vars)
}

/// The name that a line of `.env` sets.
fn name_of(line: &str) -> &str {
    let name = line.split('=').next().unwrap_or_default().trim();
    name.strip_prefix("export ").unwrap_or(name).trim()
}

/// A line whose `$NAME` stay as they are: a password may contain `$`.
fn without_bare_references(line: &str) -> String {
    let Some((name, value)) = line.split_once('=') else { return line.to_owned() };
    if value.trim_start().starts_with('\'') {
        return line.to_owned();
    }
    let mut escaped = format!("{name}=");
    let mut before = ' ';
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '$' && before != '\\' && letters.peek() != Some(&'{') {
            escaped.push('\\');
        }
        escaped.push(letter);
        before = letter;
    }
    escaped
}

/// The process's environment. A value that is not UTF-8 is kept as well as it goes, so that it is
/// refused with its name and not passed over.
pub(super) fn process() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .collect()
}

/// The process id of the worker that says it started this process as its child.
pub(crate) fn worker_of_this_child() -> Option<u32> {
    std::env::var_os(CHILD_VARIABLE)?.to_str()?.parse().ok()
}

/// A variable that others have named and that is no setting of ours; an empty one counts as none.
#[cfg(feature = "otel")]
pub(crate) fn foreign(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok().filter(|value| !value.is_empty())
}

/// Takes the variables that are settings, and warns of those that look like some.
pub(super) fn apply(
    raw: &mut Raw,
    vars: &[(String, String)],
    source: &dyn Fn(&str) -> Source,
    of_app: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let find = |name: &str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    for key in KEYS {
        // The weakest name first, so that a stronger one replaces it.
        let own = format!("CELERIAC_{}", key.name.to_uppercase());
        let names = key.env.iter().rev().copied().chain([own.as_str()]);
        for name in names {
            if name == FALLBACK && !is_open(raw.find(key.name).1) {
                continue;
            }
            if let Some(value) = find(name).filter(|value| !value.is_empty()) {
                let strange = value.parse::<u16>().is_err();
                if name == PORT && (strange || matches!(source(name), Source::DotEnv { .. })) {
                    continue;
                }
                raw.set(key.name, value.to_owned(), source(name));
            }
        }
    }
    agree(find("CELERY_WORKER_CONCURRENCY"), find("CELERY_CONCURRENCY"))?;
    for (name, _) in vars.iter().filter(|(name, _)| !(of_app && OF_APPS.contains(&name.as_str()))) {
        // A name in both `.env` and the environment is told once.
        warnings.extend(odd(name).filter(|text| !warnings.contains(text)));
    }
    Ok(())
}

/// Whether a fallback may still be used: nobody named the setting, or only `.env`'s fallback did.
fn is_open(source: &Source) -> bool {
    match source {
        Source::Default => true,
        Source::DotEnv { name, .. } => name == FALLBACK,
        _ => false,
    }
}

/// Two names of one setting that say different things (T-35).
fn agree(worker: Option<&str>, plain: Option<&str>) -> Result<(), ConfigError> {
    match (worker, plain) {
        (Some(one), Some(other)) if one != other => Err(ConfigError::new(format!(
            "CELERY_WORKER_CONCURRENCY is {one} and CELERY_CONCURRENCY is {other}"
        ))
        .hint("they mean the same; unset one of them")),
        _ => Ok(()),
    }
}

/// What is to be said of a variable that is no setting.
fn odd(name: &str) -> Option<String> {
    if ROLLOUT.contains(&name) {
        return Some(format!("rollout: {name}"));
    }
    if UNUSED.contains(&name) || OF_APPS.contains(&name) {
        return Some(format!("the environment variable {name} is Celery's and has no effect here"));
    }
    if !is_ours(name) || known().any(|known| known == name) || INTERNAL.contains(&name) {
        return None;
    }
    // Names are alike in what follows the prefix; the prefix alone makes any two look near.
    let short = |name: &str| -> String {
        let short = name.strip_prefix("CELERY_").or_else(|| name.strip_prefix("CELERIAC_"));
        short.unwrap_or(name).to_owned()
    };
    let all: Vec<String> = known().collect();
    let shorts: Vec<String> = all.iter().map(|known| short(known)).collect();
    let hint = nearest(&short(name), shorts.iter().map(String::as_str))
        .and_then(|near| shorts.iter().position(|short| short == near))
        .map_or(String::new(), |at| format!("; did you mean {}?", all[at]));
    Some(format!("the environment variable {name} is not known{hint}"))
}

/// Whether a variable is one that settings are made from, or looks like one.
fn is_ours(name: &str) -> bool {
    name.starts_with("CELERY_")
        || name.starts_with("CELERIAC_")
        || ROLLOUT.contains(&name)
        || name == FALLBACK
}

/// Every name that means something: Celery's first, then our own.
fn known() -> impl Iterator<Item = String> {
    let celery = KEYS.iter().flat_map(|key| key.env.iter().copied());
    let own = KEYS.iter().map(|key| format!("CELERIAC_{}", key.name.to_uppercase()));
    celery.chain(ROLLOUT).map(str::to_owned).chain(own)
}

#[cfg(test)]
mod tests;
