//! Environment variables and `.env`.

use super::keys::KEYS;
use super::source::{ConfigError, Raw, Source, nearest};
use std::path::{Path, PathBuf};

/// Names of Celery's environment that this version does not use (wire specification 9.8).
const UNUSED: [&str; 9] = [
    "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_CONFIG_MODULE", "CELERY_LOADER",
    "CELERY_SKIP_CHECKS", "CELERY_RDBSIG", "CELERY_WORKER_REVOKES_MAX", "CELERY_WORKER_REVOKE_EXPIRES",
    "CELERY_BENCH",
];
/// Names of the seeds' rollout switches, which the rollout layer will read.
const ROLLOUT: [&str; 5] = [
    "CELERY_ROLLOUT_PERCENTAGE", "CELERY_ENABLED", "CELERY_PERCENTAGE", "FORCE_LEGACY_QUEUE",
    "USE_CELERY",
];

/// Variables by name.
type Variables = Vec<(String, String)>;

/// The variables of `.env`, if there is one; a line that cannot be read is an error.
pub(super) fn dotenv(path: &Path) -> Result<Option<(PathBuf, Variables)>, ConfigError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConfigError::new(format!("cannot read {}: {error}", path.display()))),
    };
    let vars = dotenvy::from_read_iter(file)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))?;
    Ok(Some((path.to_owned(), vars)))
}

/// The process's environment; variables that are not UTF-8 are none of ours.
pub(super) fn process() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Takes the variables that are settings, and warns of those that look like some.
pub(super) fn apply(
    raw: &mut Raw,
    vars: &[(String, String)],
    source: &dyn Fn(&str) -> Source,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let find = |name: &str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    for key in KEYS {
        // The weakest name first, so that a stronger one replaces it.
        let own = format!("CELERIAC_{}", key.name.to_uppercase());
        let names = key.env.iter().rev().copied().chain([own.as_str()]);
        for name in names {
            if let Some(value) = find(name).filter(|value| !value.is_empty()) {
                raw.set(key.name, value.to_owned(), source(name));
            }
        }
    }
    agree(find("CELERY_WORKER_CONCURRENCY"), find("CELERY_CONCURRENCY"))?;
    for (name, _) in vars {
        warnings.extend(odd(name));
    }
    Ok(())
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
    if UNUSED.contains(&name) {
        return Some(format!("the environment variable {name} is Celery's and has no effect here"));
    }
    if !name.starts_with("CELERY_") && !name.starts_with("CELERIAC_") || name == "CELERIAC_CONFIG" {
        return None;
    }
    let own: Vec<String> = KEYS.iter().map(|key| format!("CELERIAC_{}", key.name.to_uppercase())).collect();
    let known: Vec<&str> = KEYS
        .iter()
        .flat_map(|key| key.env.iter().copied())
        .chain(own.iter().map(String::as_str))
        .chain(ROLLOUT)
        .collect();
    if known.contains(&name) {
        return None;
    }
    let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
    Some(format!("the environment variable {name} is not known{hint}"))
}
