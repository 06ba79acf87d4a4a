//! The conformance suite over every store, random runs against a model, and what is special about
//! SQLite: files, other processes, and many writers at once.

#![allow(missing_docs, clippy::unwrap_used)]

mod files;
mod limited;
mod migrate;
mod model;
mod processes;
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
        Harness::new(move |Resources { clock, entropy, limits }| {
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
