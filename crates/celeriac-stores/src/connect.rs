//! From a URL to a store.

use celeriac_core::doctor::Transport;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{Diagnose, Store};
use celeriac_core::{Clock, Entropy, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// What every store needs from its process.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Source of time.
    pub clock: Arc<dyn Clock>,
    /// Source of lease tokens.
    pub entropy: Arc<dyn Entropy>,
    /// What it refuses, and how long it keeps things.
    pub limits: StoreLimits,
    /// Where results are kept if not beside the messages, see [`keeps_results`].
    pub results: Option<String>,
}

/// Opens the store behind a URL: `sqlite:///var/lib/app/queue.db`, `sqlite://queue.db`,
/// `redis://host:6379/0` (and Celery's other spellings for Redis) or `memory://`.
///
/// # Errors
/// `Invalid` for a scheme that this program does not know or was built without.
pub fn connect(url: &str, resources: Resources) -> Result<Arc<dyn Store>, StoreError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| {
        StoreError::invalid(format!("{:?} is no store URL", redacted(url)))
            .hint("write sqlite:///absolute/path.db, redis://host:6379/0 or memory://")
    })?;
    if let Some(results) = &resources.results {
        keeps_results(url, results)?;
    }
    match scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" | "memory" => open_sqlite(scheme, rest, resources),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "sentinel" | "redis+socket" | "unix" => {
            let time = crate::redis::TimeSource::Server;
            Ok(Arc::new(crate::RedisStore::open(url, resources, time)?))
        }
        "amqp" | "amqps" | "pyamqp" => {
            let _unused = (rest, resources);
            Err(StoreError::invalid(format!("this version cannot use {scheme}:// yet"))
                .hint("it runs on sqlite://, redis:// and memory://; RabbitMQ follows"))
        }
        _ => Err(StoreError::invalid(format!("unknown store scheme {scheme:?}"))
            .hint("use sqlite://, redis:// or memory://")),
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(
    scheme: &str,
    rest: &str,
    resources: Resources,
) -> Result<Arc<dyn Store>, StoreError> {
    use crate::sqlite::SqliteStore;
    let Resources { clock, entropy, limits, results: _ } = resources;
    if scheme == "memory" {
        if !rest.trim_matches('/').is_empty() {
            return Err(StoreError::invalid(format!("memory:// takes no path, but got {rest:?}")));
        }
        return Ok(Arc::new(SqliteStore::in_memory(limits, clock, entropy)?));
    }
    if rest.is_empty() || rest.ends_with('/') {
        return Err(StoreError::invalid(format!("sqlite://{rest} names no file"))
            .hint("write sqlite:///absolute/path.db or sqlite://relative.db"));
    }
    if let Some((_, query)) = rest.split_once('?') {
        return Err(StoreError::invalid(format!("sqlite:// takes no options, but got ?{query}"))
            .hint("set limits in celeriac.toml, see docs/reference/settings.md"));
    }
    Ok(Arc::new(SqliteStore::open(std::path::Path::new(rest), limits, clock, entropy)?))
}

/// Whether the store at `url` can keep its results at `results`: in itself, on Redis also in another
/// database of the same server.
///
/// # Errors
/// `Invalid`, with what can be done, if it cannot.
pub fn keeps_results(url: &str, results: &str) -> Result<(), StoreError> {
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    if plain(url) == plain(results) {
        return Ok(());
    }
    #[cfg(feature = "redis")]
    if [url, results].iter().all(|one| is_redis(one)) {
        return crate::RedisStore::keeps_results(url, results);
    }
    let (url, results) = (redacted(url), redacted(results));
    Err(StoreError::invalid(format!(
        "results are kept with the messages in {url}, not in {results}"
    ))
    .hint("unset it, or set it to the broker's URL"))
}

#[cfg(feature = "redis")]
fn is_redis(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    matches!(scheme, Some("redis" | "rediss" | "sentinel" | "redis+socket" | "unix"))
}

/// What Celery's transport for a URL does; nothing is known of a scheme that is not here.
pub fn transport(url: &str) -> Transport {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        // kombu 5.7.0 transport/redis.py, `visibility_timeout`.
        "redis" | "rediss" | "sentinel" => {
            Transport { redelivers_after: Some(Duration::from_hours(1)), network: true }
        }
        "redis+socket" | "unix" => {
            Transport { redelivers_after: Some(Duration::from_hours(1)), network: false }
        }
        "amqp" | "amqps" | "pyamqp" => Transport { redelivers_after: None, network: true },
        _ => Transport::default(),
    }
}

/// Looks at the store behind a URL from outside; nothing is opened before it is asked.
///
/// # Errors
/// `Invalid` for a URL that is none, or one of a scheme that this program does not know.
pub fn diagnose(url: &str, resources: Resources) -> Result<Box<dyn Diagnose>, StoreError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let path = url.strip_prefix("sqlite://").unwrap_or_default();
            Ok(Box::new(crate::sqlite::Outside::new(path.into(), resources)))
        }
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "sentinel" | "redis+socket" | "unix" => {
            Ok(Box::new(crate::redis::Outside::new(url, resources)?))
        }
        // What is wrong with the URL is said in the same words as by whoever uses it.
        _ => connect(url, resources).and_then(|store| {
            let text =
                format!("{} lives in its process: there is nothing to look at", store.location());
            Err(StoreError::invalid(text).hint("give a sqlite:// or redis:// URL"))
        }),
    }
}

/// Whether there is a store at a URL already; `None` where only opening it can tell.
pub fn exists(url: &str) -> Option<bool> {
    let path = url.strip_prefix("sqlite://").filter(|path| !path.is_empty())?;
    Some(std::path::Path::new(path).exists())
}

/// A URL with its password and its secret query parameters masked, for logs and tables.
///
/// The user part ends at the last `@` of the authority: a password may contain `@`.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password with an unescaped slash would end the authority early: look for a later `@` too.
    let at = rest.rfind('@').filter(|at| *at < authority_end || !rest[..*at].contains("//"));
    let (user, host) = match at {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let user = user.map_or(String::new(), |user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:**@"),
        None => format!("{user}@"),
    });
    let host = match host.split_once('?') {
        None => host.to_owned(),
        Some((path, query)) => {
            let masked: Vec<String> = query.split('&').map(mask_parameter).collect();
            format!("{path}?{}", masked.join("&"))
        }
    };
    format!("{scheme}://{user}{host}")
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if ["pass", "secret", "token", "key"].iter().any(|s| name.contains(s)) => {
            format!("{name}=**")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_whole() {
        for (url, shown) in [
            ("redis://localhost/0", "redis://localhost/0"),
            ("redis://:secret@h:6379/1", "redis://:**@h:6379/1"),
            ("redis://user:p@ss:w@rd@h/1", "redis://user:**@h/1"),
            (
                "rediss://h/0?password=x&ssl_cert_reqs=none",
                "rediss://h/0?password=**&ssl_cert_reqs=none",
            ),
            ("amqp://guest:a/b@h//", "amqp://guest:**@h//"),
            ("sqlite:///var/lib/a.db", "sqlite:///var/lib/a.db"),
            ("not a url", "not a url"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
