//! What a server has to be: its version, its memory policy, its persistence, and our format on it.

use super::address::Address;
use super::keys::Keys;
use celeriac_core::{ErrorKind, StoreError};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Pipeline, Value};

/// The oldest version that has what the scripts and kombu 5.7 need (`ZADD GT`, `RPOP` with a count).
const OLDEST: (u32, u32) = (6, 2);
/// The format of our keys. A newer program raises it; an older one refuses what it cannot read.
pub(super) const FORMAT: i64 = 2;

/// Asks a server what it is.
///
/// # Errors
/// `Invalid` for a server that cannot keep our promises, `Outdated` for a newer format.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    address: &Address,
) -> Result<Vec<String>, StoreError> {
    let keys: &Keys = &address.keys;
    let mut ask = Pipeline::new();
    ask.cmd("INFO").arg("everything");
    ask.cmd("SET").arg(keys.own("format")).arg(FORMAT).arg("NX");
    ask.cmd("GET").arg(keys.own("format"));
    if let Some(results) = keys.result_database {
        // A server may have fewer, or a user may not change it.
        ask.cmd("SELECT").arg(results);
        ask.cmd("SELECT").arg(keys.database);
    }
    let count = ask.cmd_iter().count();
    let answers = connection.req_packed_commands(&ask, 0, count).await.map_err(|error| {
        let text = format!("ask Redis at {address} what it is: {error}");
        StoreError::new(ErrorKind::Unavailable, text).because(error)
    })?;
    let info = match answers.first() {
        Some(Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
        Some(Value::VerbatimString { text, .. }) => text.clone(),
        _ => String::new(),
    };
    // What the server is explains what it refuses.
    let warnings = judge(&info, address)?;
    if let Some(Value::ServerError(error)) =
        answers.iter().find(|a| matches!(a, Value::ServerError(_)))
    {
        let error = redis::RedisError::from(error.clone());
        return Err(super::link::refused("ask what Redis is", address, &error));
    }
    if let Some(Value::BulkString(format)) = answers.get(2) {
        let format: i64 = String::from_utf8_lossy(format).parse().unwrap_or(0);
        if format > FORMAT {
            let text = format!(
                "the keys of celeriac at {address} have format {format}, this program knows {FORMAT}"
            );
            return Err(StoreError::new(ErrorKind::Outdated, text)
                .hint("use the newer celeriac that wrote them"));
        }
        if format < FORMAT {
            raise_format(connection, address).await?;
        }
    }
    Ok(warnings)
}

/// Tells older programs that they cannot read everything any more; what they have written stays as it
/// is. Format 2: messages may be acknowledged while they are held, and lost after that.
async fn raise_format(
    connection: &mut MultiplexedConnection,
    address: &Address,
) -> Result<(), StoreError> {
    let mut raise = redis::cmd("SET");
    raise.arg(address.keys.own("format")).arg(FORMAT);
    let raised = connection.req_packed_command(&raise).await;
    raised.map(drop).map_err(|error| {
        let text = format!("raise the format of celeriac's keys at {address}: {error}");
        StoreError::new(ErrorKind::Unavailable, text).because(error)
    })
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Whether a version lacks what is needed; nothing is said of one that is not told.
pub(super) fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    !version.is_empty() && (major, minor) < OLDEST
}

/// Reads the text of `INFO`: an error for what cannot work, warnings for what endangers messages.
fn judge(info: &str, address: &Address) -> Result<Vec<String>, StoreError> {
    let mut warnings = Vec::new();
    let version = field(info, "redis_version").unwrap_or_default();
    if is_too_old(version) {
        return Err(StoreError::invalid(format!(
            "Redis at {address} is version {version}, celeriac needs {}.{} or newer",
            OLDEST.0, OLDEST.1
        ))
        .hint("upgrade the server; Valkey of any version works too"));
    }
    if field(info, "cluster_enabled") == Some("1") {
        return Err(StoreError::invalid(format!("Redis at {address} is a cluster node"))
            .hint("Redis Cluster is not supported, neither by Celery's transport nor by celeriac; use Sentinel"));
    }
    match field(info, "maxmemory_policy") {
        Some(policy) if policy.starts_with("allkeys-") => {
            let text = format!(
                "Redis at {address} may delete messages: its maxmemory-policy is {policy}"
            );
            if !address.allow_eviction {
                return Err(StoreError::invalid(text).hint(
                    "set maxmemory-policy noeviction, or add ?allow_eviction=true to the URL",
                ));
            }
            warnings.push(text);
        }
        Some(policy) if policy.starts_with("volatile-") => warnings.push(format!(
            "Redis at {address} may delete results before their time: its maxmemory-policy is {policy}"
        )),
        _ => {}
    }
    let saves = field(info, "rdb_last_save_time").is_some()
        && field(info, "aof_enabled") == Some("0")
        && field(info, "rdb_saves") == Some("0")
        && field(info, "rdb_changes_since_last_save").is_some_and(|n| n != "0");
    if saves {
        warnings.push(format!(
            "Redis at {address} keeps no append-only file and has saved nothing yet: \
             a crash loses what is queued; set appendonly yes"
        ));
    }
    if field(info, "role") == Some("slave") {
        return Err(StoreError::new(
            ErrorKind::Unavailable,
            format!("Redis at {address} is a replica, which takes no writes"),
        ));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_keep_our_promises_is_refused() {
        let plain = Address::parse("redis://h").unwrap();
        let brave = Address::parse("redis://h?allow_eviction=true").unwrap();
        let good = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
        assert!(judge(good, &plain).unwrap().is_empty());
        for (info, why) in [
            ("redis_version:6.0.16\r\n", "6.2"),
            ("redis_version:7.0.0\r\ncluster_enabled:1\r\n", "cluster"),
            ("redis_version:7.0.0\r\nmaxmemory_policy:allkeys-lru\r\n", "allkeys-lru"),
            ("redis_version:7.0.0\r\nrole:slave\r\n", "replica"),
        ] {
            let error = judge(info, &plain).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let lossy = "redis_version:7.0.0\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(judge(lossy, &brave).unwrap().len(), 1);
        let volatile = "redis_version:7.0.0\r\nmaxmemory_policy:volatile-ttl\r\n";
        assert_eq!(judge(volatile, &plain).unwrap().len(), 1);
    }
}
