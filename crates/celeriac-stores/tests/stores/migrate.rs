//! A store that an older program wrote: everything in it survives the migration.
//!
//! `CELERIAC_ROWS=1000000` makes it as large as the issue asks; the default is made for CI.

use crate::{open, register, request};
use celeriac_core::store::{
    Broker as _, Control as _, DeadFilter, DeadLetters as _, Inspect as _, Maintain as _,
    Nodes as _, QueueView,
};
use celeriac_core::throttle::Target;
use rusqlite::Connection;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_FORMAT: &str = include_str!("../../src/sqlite/migrations/001_initial.sql");
const SECOND_FORMAT: &str = include_str!("../../src/sqlite/migrations/002_lanes.sql");

/// Writes a store of format 1: of ten messages eight wait, one is scheduled, one is leased.
fn format_1(path: &std::path::Path, rows: u32) {
    let file = Connection::open(path).unwrap();
    file.pragma_update(None, "journal_mode", "WAL").unwrap();
    file.execute_batch(FIRST_FORMAT).unwrap();
    let headers = r#"{"task": "t", "id": "' || value || '", "lang": "py", "argsrepr": "()", "kwargsrepr": "{}"}"#;
    let numbers = "WITH RECURSIVE n (value) AS \
                   (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ?1)";
    file.execute_batch("BEGIN").unwrap();
    file.execute(
        &format!(
            "INSERT INTO message (row, queue, step, rank, state, due_at, enqueued_at, task_id, task, \
             retries, node, token) {numbers} SELECT value, 'celery', 0, value, \
             CASE value % 10 WHEN 8 THEN 1 WHEN 9 THEN 2 ELSE 0 END, \
             CASE value % 10 WHEN 8 THEN 4000000000000000 END, 1795000000000000, \
             CAST(value AS TEXT), 't', 0, CASE value % 10 WHEN 9 THEN 1 END, \
             CASE value % 10 WHEN 9 THEN value END FROM n"
        ),
        [rows],
    )
    .unwrap();
    file.execute(
        &format!(
            "INSERT INTO message_body {numbers} SELECT value, '{headers}', '{{}}', \
             'application/json', 'utf-8', CAST('[[], {{}}, {{}}]' AS BLOB) FROM n"
        ),
        [rows],
    )
    .unwrap();
    file.execute_batch(&format!(
        "INSERT INTO counter VALUES ('depth:celery', {rows});
         UPDATE counter SET value = {rows} WHERE name = 'sequence';
         INSERT INTO pause VALUES ('resting', 1795000000000000, 'upgrade');
         INSERT INTO dead (queue, task_id, task, reason, detail, died_at, enqueued_at, history, \
           headers, properties, content_type, content_encoding, body) \
           VALUES ('celery', 'd', 't', 'failed', 'no rows', 1, 1, '[]', '{{}}', '{{}}', 'a', 'b', x'00');
         INSERT INTO node (id, name, pid, queues, concurrency, pool, tasks, heartbeat_us, expiry_us, \
           boot, beat, started_at, seen_at) \
           VALUES (1, 'old@host', 1, '[]', 1, 'async', '[]', 2000000, 8000000, 'gone', 0, 1, 1);
         INSERT INTO meta VALUES ('format_version', '1');
         COMMIT;"
    ))
    .unwrap();
}

/// The same as the program with the next format left it.
fn format_2(path: &std::path::Path, rows: u32) {
    format_1(path, rows);
    let file = Connection::open(path).unwrap();
    file.execute_batch(SECOND_FORMAT).unwrap();
    file.execute_batch("UPDATE meta SET value = '2' WHERE key = 'format_version'").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_an_older_program_is_migrated_with_everything_in_it() {
    let given = std::env::var_os("CELERIAC_ROWS");
    let rows: u32 = given.map_or(20_000, |rows| rows.to_str().unwrap().parse().unwrap());
    for write in [format_1, format_2] {
        println!("{rows} rows migrated in {:?}", is_migrated(write, rows).await);
    }
}

/// How long the migration took.
async fn is_migrated(write: fn(&std::path::Path, u32), rows: u32) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    write(&path, rows);

    let begun = Instant::now();
    let (store, _clock) = open(&path, 1);
    let took = begun.elapsed();

    let queues = store.queues().await.unwrap();
    let of = |name: &str| -> &QueueView { queues.iter().find(|one| one.name == name).unwrap() };
    let rows = u64::from(rows);
    let (ready, tenth) = (rows / 10 * 8, rows / 10);
    assert_eq!(
        (of("celery").ready, of("celery").scheduled, of("celery").leased),
        (ready, tenth, tenth)
    );
    assert_eq!(of("celery").dead, 1);
    assert!(of("resting").paused);
    assert_eq!(store.pauses().await.unwrap()[0].target, Target::Queue("resting".into()));
    assert_eq!(store.dead_count(&DeadFilter::default()).await.unwrap(), 1);
    // The worker of before is gone with its boot; what it held comes back first.
    assert_eq!(store.sweep().await.unwrap().requeued, tenth);
    let node = register(&*store, "new@host").await;
    let taken = store.fetch(request(node, 10)).await.unwrap();
    let ids: Vec<_> = taken.iter().map(|one| one.message.headers.id().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "9", "10", "11"], "in their old order");
    assert_eq!(store.check(false).await.unwrap(), [], "no damage, all counters right");
    took
}
