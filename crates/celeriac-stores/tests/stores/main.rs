//! The conformance suite over every store, random runs against a model, and what is special about
//! SQLite: files, other processes, and many writers at once.

#![allow(missing_docs, clippy::unwrap_used)]

mod acknowledged;
mod files;
mod giving;
mod limited;
mod migrate;
mod model;
mod processes;
mod redbeat;
mod schedules;
mod servers;
mod suite;

use celeriac_core::QueueName;
use celeriac_core::lease::LeaseTimes;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{FetchRequest, NodeId, NodeInfo, Outgoing, Plan, Store};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_stores::conformance::Harness;
use celeriac_stores::{Resources, SqliteStore, connect};
use celeriac_wire::Message;
use std::path::Path;
use std::sync::Arc;

mod memory {
    use super::*;

    pub(super) fn harness() -> Harness {
        Harness::new(|resources| connect("memory://", resources).unwrap())
    }

    celeriac_stores::conformance_suite!(harness());
}

mod sqlite {
    use super::*;

    pub(super) fn harness() -> Harness {
        let folder = tempfile::tempdir().unwrap();
        Harness::new(move |Resources { clock, entropy, limits, .. }| {
            let path = folder.path().join("queue.db");
            Arc::new(SqliteStore::open(&path, limits, clock, entropy).unwrap())
        })
    }

    celeriac_stores::conformance_suite!(harness());
}

mod redis {
    use super::*;
    use celeriac_stores::{RedisStore, TimeSource};
    use celeriac_testkit::redis_or_skip;
    use celeriac_testkit::services::redis::Redis;

    pub(super) fn harness(redis: Redis) -> Harness {
        Harness::new(move |resources| {
            Arc::new(RedisStore::open(&redis.url(), resources, TimeSource::Process).unwrap())
        })
        .lacking(&["expiry on demand"])
    }

    celeriac_stores::conformance_suite!(harness(redis_or_skip!()));
}

/// The same store behind a key prefix, with its results in another database, as a user that may do no more
/// than `docs/reference/redis-keys.md` says.
mod redis_as_a_limited_user {
    use super::*;
    use celeriac_stores::{RedisStore, TimeSource};
    use celeriac_testkit::redis_or_skip;
    use celeriac_testkit::services::redis::{Redis, RedisOptions};

    /// The queues of the clauses, in the place of `reports`.
    const QUEUES: [&str; 12] = [
        "reports", "members", "mail", "rests", "repair", "other", "old", "none", "noise", "new",
        "errors", "a",
    ];

    /// The user of the documentation, with a prefix before its keys.
    fn options() -> RedisOptions {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/redis-keys.md");
        let page = std::fs::read_to_string(page).unwrap();
        let from = page.find("resetchannels").unwrap() + "resetchannels".len();
        let rules = page[from..].split("```").next().unwrap();
        let rule = |rule: &str| match rule.split_at(1) {
            ("~", "reports*") => QUEUES.map(|queue| format!("~app:{queue}*")).join(" "),
            ("~", pattern) => format!("~app:{pattern}"),
            ("&", "celery-task-meta-*") => "&celery-task-meta-*".to_owned(),
            ("&", pattern) => format!("&app:{pattern}"),
            _ => rule.to_owned(),
        };
        let rules: Vec<String> = rules.split_whitespace().map(rule).collect();
        let rules = format!("~celery-task*-meta-* {}", rules.join(" "));
        Redis::options().user("celeriac", "secret", &rules)
    }

    fn harness(redis: Redis) -> Harness {
        Harness::new(move |mut resources| {
            let url = redis.url_as("celeriac", "secret");
            let server = url.trim_end_matches(|c: char| c != '/');
            resources.results = Some(format!("{server}3"));
            let url = format!("{url}?global_keyprefix=app:");
            Arc::new(RedisStore::open(&url, resources, TimeSource::Process).unwrap())
        })
        .lacking(&["expiry on demand"])
    }

    celeriac_stores::conformance_suite!(harness(redis_or_skip!(options())));
}

/// Opens a file as another process would: a store of its own, with its own clock and dice.
fn open(path: &Path, seed: u64) -> (Arc<SqliteStore>, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let entropy = Arc::new(Seeded::new(seed));
    let store = SqliteStore::open(path, StoreLimits::default(), clock.clone(), entropy).unwrap();
    (Arc::new(store), clock)
}

fn celery() -> QueueName {
    QueueName::celery()
}

fn plan(ids: &[&str]) -> Plan {
    let one = |id: &&str| Outgoing::new(celery(), Message::new("app.add", id, "[[], {}, {}]"));
    Plan { publish: ids.iter().map(one).collect(), ..Plan::default() }
}

async fn register(store: &dyn Store, name: &str) -> NodeId {
    let info = NodeInfo {
        name: name.to_owned(),
        pid: 1,
        queues: vec![celery()],
        concurrency: 4,
        pool: "async".to_owned(),
        times: LeaseTimes::default(),
        tasks: Vec::new(),
    };
    store.register(info).await.unwrap()
}

fn request(node: NodeId, count_max: usize) -> FetchRequest {
    FetchRequest { node, queues: vec![celery()], count_max, suspects: true, caps: Vec::new() }
}
