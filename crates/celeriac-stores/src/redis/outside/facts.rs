//! What is true of a Redis: its settings, its queues, what workers of Celery hold, what is left over.

use super::{Outside, Questions, REPLIES};
use crate::redis::keys::SEPARATOR;
use crate::redis::micros_to_time;
use crate::redis::server::{FORMAT, field, is_too_old};
use celeriac_core::StoreError;
use celeriac_core::priority::STEPS;
use celeriac_core::store::{Eviction, Leftover, QueueFacts, StoreFacts, Unacked};
use celeriac_wire::Value as Json;
use redis::Pipeline;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most steps of a walk through all keys, of 1,000 keys each.
const STEPS_MAX: usize = 1000;
/// The most keys of one kind that are looked at.
const KEYS_MAX: usize = 10_000;
const BINDINGS: &str = "_kombu.binding.";

pub(super) async fn gather(outside: &Outside, idle: Duration) -> Result<StoreFacts, StoreError> {
    let mut questions = outside.connect().await?;
    let info: String =
        questions.ask("ask what Redis is", redis::cmd("INFO").arg("everything")).await?;
    let mut facts = server(&info);
    let address = &outside.address;
    facts.local = address.is_local();
    facts.encrypted = address.is_encrypted() && address.checks_server();
    facts.redelivers_after = Some(address.visibility_timeout);
    facts.volatile = volatile(&mut questions, &info).await;
    facts.asks_password = Some(address.asks_password().await);
    let now = clock(outside, &mut questions, &mut facts).await?;
    format(outside, &mut questions, &mut facts).await?;
    unacked(outside, &mut questions, &mut facts, now).await?;
    let consumers = nodes(outside, &mut questions, &mut facts, now).await?;
    let (lists, lists_cut) = scan(&mut questions, &outside.key("*"), Some("list")).await?;
    let (bindings, bindings_cut) =
        scan(&mut questions, &outside.key("_kombu.binding.*"), Some("set")).await?;
    facts.cut = lists_cut || bindings_cut;
    facts.leftovers = leftovers(&mut questions, &lists, idle).await?;
    let (queues, queues_cut) =
        queues(outside, &mut questions, &lists, &bindings, &consumers).await?;
    facts.queues = queues;
    facts.cut |= queues_cut;
    Ok(facts)
}

fn server(info: &str) -> StoreFacts {
    let text = |name: &str| field(info, name).unwrap_or_default();
    let number = |name: &str| field(info, name).and_then(|value| value.parse::<u64>().ok());
    let (product, version) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", text("redis_version")),
    };
    let policy = field(info, "maxmemory_policy").map(str::to_owned);
    let eviction = match policy.as_deref() {
        Some(policy) if policy.starts_with("allkeys-") => Eviction::Messages,
        Some(policy) if policy.starts_with("volatile-") => Eviction::Results,
        _ => Eviction::Refuses,
    };
    let too_old = if is_too_old(text("redis_version")) {
        Some(format!("Redis {version} is too old: celeriac needs 6.2, and kombu 5.7 does."))
    } else {
        let cluster = text("cluster_enabled") == "1";
        cluster.then(|| {
            "It is a node of a Redis Cluster, which neither Celery nor celeriac can use.".to_owned()
        })
    };
    StoreFacts {
        server: format!("{product} {version}"),
        too_old,
        replica: text("role") == "slave",
        policy,
        eviction,
        memory: number("used_memory").zip(number("maxmemory").filter(|most| *most > 0)),
        ..StoreFacts::default()
    }
}

/// Why what is queued does not survive a crash.
async fn volatile(questions: &mut Questions<'_>, info: &str) -> Option<String> {
    if field(info, "aof_enabled") != Some("0") {
        return None;
    }
    // Many servers do not let their settings be read.
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("save");
    let asked: Result<Vec<String>, _> = questions.ask("read a setting", &get).await;
    Some(match asked.ok().and_then(|pair| pair.get(1).cloned()) {
        Some(save) if save.is_empty() => {
            "There is neither an append-only file nor a snapshot (appendonly no, save \"\")."
                .to_owned()
        }
        _ => "There is no append-only file: a crash loses what came after the last snapshot."
            .to_owned(),
    })
}

/// The store's time, in microseconds; notes how far it is from ours.
async fn clock(
    outside: &Outside,
    questions: &mut Questions<'_>,
    facts: &mut StoreFacts,
) -> Result<i64, StoreError> {
    let before = outside.clock.wall().as_microsecond();
    let (seconds, micros): (i64, i64) =
        questions.ask("ask for the time", &redis::cmd("TIME")).await?;
    let after = outside.clock.wall().as_microsecond();
    let now = seconds * 1_000_000 + micros;
    facts.clock_ahead = Some(now - before - (after - before) / 2);
    Ok(now)
}

async fn format(
    outside: &Outside,
    questions: &mut Questions<'_>,
    facts: &mut StoreFacts,
) -> Result<(), StoreError> {
    let mut get = redis::cmd("GET");
    get.arg(outside.address.keys.own("format"));
    let format: Option<i64> = questions.ask("read the format", &get).await?;
    facts.format = format.filter(|format| *format > FORMAT).map(|format| {
        format!("celeriac's keys have format {format}, and this program knows {FORMAT}.")
    });
    Ok(())
}

/// Held messages, those in the index, those that are overdue, and the oldest.
type Held = (u64, u64, u64, Vec<(String, f64)>);

async fn unacked(
    outside: &Outside,
    questions: &mut Questions<'_>,
    facts: &mut StoreFacts,
    now: i64,
) -> Result<(), StoreError> {
    let (hash, index) = (outside.key("unacked"), outside.key("unacked_index"));
    let overdue = now as f64 / 1e6 - outside.address.visibility_timeout.as_secs_f64();
    let mut ask = Pipeline::new();
    ask.atomic().cmd("HLEN").arg(&hash).cmd("ZCARD").arg(&index);
    ask.cmd("ZCOUNT").arg(&index).arg("-inf").arg(overdue);
    ask.cmd("ZRANGE").arg(&index).arg(0).arg(0).arg("WITHSCORES");
    let (count, indexed, overdue, oldest): Held =
        questions.all("look at what Celery's workers hold", &ask).await?;
    facts.unacked = Unacked {
        count,
        overdue,
        lost: count.saturating_sub(indexed),
        oldest: oldest.first().map(|(_, since)| micros_to_time((since * 1e6) as i64)),
    };
    Ok(())
}

/// How many workers of celeriac consume each queue; counts those, and the others that listen.
async fn nodes(
    outside: &Outside,
    questions: &mut Questions<'_>,
    facts: &mut StoreFacts,
    now: i64,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let keys = &outside.address.keys;
    let mut ask = redis::cmd("ZRANGE");
    ask.arg(keys.own("nodes"))
        .arg(now)
        .arg("+inf")
        .arg("BYSCORE")
        .arg("LIMIT")
        .arg(0)
        .arg(KEYS_MAX);
    let nodes: Vec<String> = questions.ask("look for workers", &ask).await?;
    facts.nodes = nodes.len() as u64;
    facts.strangers = strangers(questions, keys.database).await?;
    let mut consumers = BTreeMap::new();
    for node in nodes {
        let mut info = redis::cmd("HGET");
        info.arg(keys.own(&format!("node:{node}"))).arg("info");
        let info: Option<Vec<u8>> = questions.ask("look at a worker", &info).await?;
        let info = info.and_then(|info| Json::parse(&info).ok()).unwrap_or_default();
        let queues = info.get("queues").and_then(Json::as_array).unwrap_or_default();
        for queue in queues.iter().filter_map(Json::as_str) {
            *consumers.entry(queue.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(consumers)
}

/// How many clients listen as workers of Celery do: kombu subscribes to patterns, our workers do not.
/// Flower does too.
async fn strangers(questions: &mut Questions<'_>, database: i64) -> Result<u64, StoreError> {
    let mut list = redis::cmd("CLIENT");
    list.arg("LIST").arg("TYPE").arg("pubsub");
    let listed: Result<String, _> = questions.ask("list the clients", &list).await;
    if let Ok(listed) = listed {
        return Ok(listed.lines().filter(|line| listens(line, database)).count() as u64);
    }
    // Who may not list them may count patterns, of all databases.
    let mut count = redis::cmd("PUBSUB");
    count.arg("NUMPAT");
    let patterns: u64 = questions.ask("count who listens", &count).await?;
    Ok(u64::from(patterns > 0))
}

fn listens(client: &str, database: i64) -> bool {
    let field = |name: &str| client.split(' ').find_map(|field| field.strip_prefix(name));
    let same = field("db=").is_none_or(|db| db == database.to_string());
    same && field("psub=").is_some_and(|patterns| patterns != "0")
}

/// All keys of a kind, and whether there were more.
pub(super) async fn scan(
    questions: &mut Questions<'_>,
    pattern: &str,
    kind: Option<&str>,
) -> Result<(BTreeSet<String>, bool), StoreError> {
    let mut found = BTreeSet::new();
    let mut cursor = 0_u64;
    for _ in 0..STEPS_MAX {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
        if let Some(kind) = kind {
            scan.arg("TYPE").arg(kind);
        }
        let (next, keys): (u64, Vec<Vec<u8>>) =
            questions.ask("walk through the keys", &scan).await?;
        found.extend(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()));
        cursor = next;
        if cursor == 0 || found.len() >= KEYS_MAX {
            break;
        }
    }
    Ok((found, cursor != 0))
}

async fn leftovers(
    questions: &mut Questions<'_>,
    lists: &BTreeSet<String>,
    idle: Duration,
) -> Result<Vec<Leftover>, StoreError> {
    let mut found = Vec::new();
    for key in lists.iter().filter(|key| key.ends_with(REPLIES)) {
        // Does not count as a touch, and is refused under some memory policies.
        let mut age = redis::cmd("OBJECT");
        age.arg("IDLETIME").arg(key);
        let asked: Result<Option<u64>, _> = questions.ask("ask when a key was used", &age).await;
        let Ok(Some(seconds)) = asked else { continue };
        let untouched = Duration::from_secs(seconds);
        if untouched >= idle {
            let what = "replies to somebody who is gone";
            found.push(Leftover { key: key.clone(), what, idle: untouched });
        }
    }
    Ok(found)
}

/// The queue and the step of a list, if it may be one.
pub(super) fn queue_of<'a>(prefix: &str, key: &'a str) -> Option<(&'a str, usize)> {
    let name = key.strip_prefix(prefix)?;
    let other = ["celeriac:", "_kombu", "celery-taskset-meta-", "unacked"];
    if other.iter().any(|start| name.starts_with(start)) || name.ends_with(".celery.pidbox") {
        return None;
    }
    match name.rsplit_once(SEPARATOR) {
        None => Some((name, 0)),
        Some((queue, step)) => {
            let step: u8 = step.parse().ok()?;
            Some((queue, STEPS.iter().position(|known| *known == step)?))
        }
    }
}

/// The queues, and whether there are some that this user may not look at.
async fn queues(
    outside: &Outside,
    questions: &mut Questions<'_>,
    lists: &BTreeSet<String>,
    bindings: &BTreeSet<String>,
    consumers: &BTreeMap<String, u64>,
) -> Result<(Vec<QueueFacts>, bool), StoreError> {
    let mut known: BTreeSet<String> = consumers.keys().cloned().collect();
    let mut ours = redis::cmd("SMEMBERS");
    ours.arg(outside.address.keys.own("queues"));
    known.extend(questions.ask::<Vec<String>>("list the queues", &ours).await?);
    for key in bindings.iter().filter(|key| key.contains(BINDINGS) && !key.ends_with(".pidbox")) {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(key);
        let members: Vec<String> = questions.ask("read bindings", &members).await?;
        known.extend(
            members.iter().filter_map(|one| one.rsplit(SEPARATOR).next().map(str::to_owned)),
        );
    }
    let mut found: BTreeMap<String, QueueFacts> = BTreeMap::new();
    let mut cut = false;
    for key in lists {
        let Some((queue, step)) = queue_of(&outside.address.keys.prefix, key) else { continue };
        if !known.contains(queue) && !holds_messages(questions, key).await {
            continue;
        }
        let mut length = redis::cmd("LLEN");
        length.arg(key);
        let Ok(count) = questions.ask::<u64>("count a queue", &length).await else {
            // This user may not.
            cut = true;
            continue;
        };
        let facts = found.entry(queue.to_owned()).or_insert_with(|| QueueFacts {
            name: queue.to_owned(),
            consumers: consumers.get(queue).copied().unwrap_or(0),
            ..QueueFacts::default()
        });
        facts.waiting[step] += count;
    }
    Ok((found.into_values().collect(), cut))
}

/// Whether a list is a queue of Celery's, and not something else's, which this user may not even read.
async fn holds_messages(questions: &mut Questions<'_>, key: &str) -> bool {
    let mut first = redis::cmd("LINDEX");
    first.arg(key).arg(0);
    let first: Result<Option<Vec<u8>>, _> = questions.ask("look into a list", &first).await;
    let first = first.ok().flatten();
    let envelope = first.and_then(|first| Json::parse(&first).ok()).unwrap_or_default();
    envelope.get("properties").is_some() && envelope.get("headers").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_no_queues_are_passed_over() {
        for (key, expected) in [
            ("celery", Some(("celery", 0))),
            ("celery\u{6}\u{16}9", Some(("celery", 3))),
            ("celery\u{6}\u{16}7", None),
            ("a.reply.celery.pidbox", None),
            ("celeriac:recent", None),
            ("celery-taskset-meta-1.j", None),
        ] {
            assert_eq!(queue_of("", key), expected, "{key}");
        }
        assert_eq!(queue_of("p:", "p:celery"), Some(("celery", 0)));
        assert_eq!(queue_of("p:", "celery"), None);
    }

    #[test]
    fn who_subscribes_to_patterns_listens() {
        for (client, expected) in [
            ("id=3 addr=a db=0 sub=0 psub=2 cmd=psubscribe", true),
            ("id=3 addr=a db=1 sub=0 psub=2 cmd=psubscribe", false),
            ("id=3 addr=a db=0 sub=1 psub=0 cmd=subscribe", false),
            ("", false),
        ] {
            assert_eq!(listens(client, 0), expected, "{client}");
        }
    }

    #[test]
    fn what_the_server_says_is_understood() {
        let info = "redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\nused_memory:9\r\nmaxmemory:10\r\n";
        let facts = server(info);
        assert_eq!((facts.server.as_str(), facts.eviction), ("Redis 7.0.15", Eviction::Messages));
        assert_eq!((facts.memory, facts.too_old), (Some((9, 10)), None));
        let valkey = server(
            "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nmaxmemory:0\r\nused_memory:9\r\n",
        );
        assert_eq!((valkey.server.as_str(), valkey.memory), ("Valkey 8.0.1", None));
        assert!(server("redis_version:6.0.16\r\n").too_old.is_some());
        assert!(server("redis_version:7.0.0\r\ncluster_enabled:1\r\n").too_old.is_some());
        assert!(server("redis_version:7.0.0\r\nrole:slave\r\n").replica);
    }
}
