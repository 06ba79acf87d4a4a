//! Backup, check and compaction of the store's files, each on a connection of its own.

use super::error::{commit, wrap};
use super::open::{self, Files};
use super::rows::{DEAD_BYTES, DEAD_LETTERS};
use celeriac_core::store::{Backup, Finding};
use celeriac_core::{ErrorKind, StoreError};
use rusqlite::backup::{Backup as Copy, StepResult};
use rusqlite::{Connection, OptionalExtension as _};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Pages that are copied between two reports: 16 MiB.
const PAGES: i32 = 4096;
/// The most faults that SQLite's own check lists.
const FAULTS_MAX: i64 = 100;

/// Copies the store's files to `target` and `target-events`, each as of one moment.
pub(super) fn backup(
    files: &Files,
    target: &Path,
    report: &mut dyn FnMut(u64, u64),
) -> Result<Backup, StoreError> {
    let to = Files::at(target);
    for path in [&to.main, &to.events] {
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        made.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::StorageFull => ErrorKind::Full,
                _ => ErrorKind::Invalid,
            };
            StoreError::new(kind, format!("back up to {}: {error}", path.display()))
                .hint("a backup goes to a new file in a folder that this user may write")
        })?;
    }
    let outcome = copy_both(files, &to, report);
    if outcome.is_err() {
        // Half a copy is none, and would stand in the way of the next.
        for path in [&to.main, &to.events] {
            let _gone = std::fs::remove_file(path);
        }
    }
    outcome
}

fn copy_both(
    files: &Files,
    to: &Files,
    report: &mut dyn FnMut(u64, u64),
) -> Result<Backup, StoreError> {
    copy(&files.main, &to.main, report)?;
    copy(&files.events, &to.events, &mut |_, _| ())?;
    let copied = Connection::open(&to.main).map_err(wrap("look at the backup"))?;
    let count = |sql: &str| -> Result<i64, StoreError> {
        copied.query_row(sql, [], |row| row.get(0)).map_err(wrap("look at the backup"))
    };
    Ok(Backup {
        bytes: pages_of(&copied)?,
        messages: count("SELECT count(*) FROM message")?.unsigned_abs(),
    })
}

fn copy(from: &Path, to: &Path, report: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| commit(&format!("back up to {}", to.display()), &error);
    let source = open::connect(from, true)?;
    // The open transaction holds one moment of the store; without it every write of another process
    // would start the copy anew (sqlite.org/backup.html).
    source.execute_batch("BEGIN").map_err(fail)?;
    let _tables: i64 = source
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(fail)?;
    let mut target = Connection::open(to).map_err(fail)?;
    target.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    let copy = Copy::new(&source, &mut target).map_err(fail)?;
    loop {
        match copy.step(PAGES).map_err(fail)? {
            StepResult::Done => break,
            StepResult::More => {
                let at = copy.progress();
                let total = u64::try_from(at.pagecount).unwrap_or(0);
                report(total - u64::try_from(at.remaining).unwrap_or(0), total);
            }
            other => {
                let text = format!("back up to {}: SQLite says {other:?}", to.display());
                return Err(StoreError::new(ErrorKind::Unavailable, text));
            }
        }
    }
    drop(copy);
    // One file without a log beside it, which can be moved as it is.
    let mode: String = target
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))
        .map_err(fail)?;
    debug_assert_eq!(mode, "delete");
    Ok(())
}

fn pages_of(connection: &Connection) -> Result<u64, StoreError> {
    let pragma = |name: &str| -> Result<i64, StoreError> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(wrap("read the size"))
    };
    Ok((pragma("page_count")? * pragma("page_size")?).unsigned_abs())
}

/// A counter that the store keeps, and what it should be.
struct Count {
    name: String,
    kept: i64,
    right: i64,
}

/// Looks for damage; wrong counters are left to [`mend`].
pub(super) fn check(main: &Connection, events: &Connection) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for (place, connection) in [("store", main), ("event history", events)] {
        let mut statement = connection
            .prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})"))
            .map_err(wrap("check the file"))?;
        let lines: Vec<String> = statement
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(wrap("check the file"))?;
        let damaged = lines.into_iter().filter(|line| line != "ok");
        findings.extend(damaged.map(|what| Finding {
            place: place.to_owned(),
            what,
            mended: false,
        }));
    }
    for (place, sql) in [
        ("message", "SELECT count(*) FROM message WHERE row NOT IN (SELECT row FROM message_body)"),
        (
            "message_body",
            "SELECT count(*) FROM message_body WHERE row NOT IN (SELECT row FROM message)",
        ),
        (
            "lane",
            "SELECT count(*) FROM message WHERE lane <> 0 AND lane NOT IN (SELECT id FROM lane)",
        ),
        (
            "unique_lock",
            "SELECT count(*) FROM unique_lock WHERE row IS NOT NULL \
             AND row NOT IN (SELECT row FROM message)",
        ),
        (
            "node",
            "SELECT count(*) FROM message WHERE state = 2 AND node NOT IN (SELECT id FROM node)",
        ),
    ] {
        let count: i64 = main
            .query_row(sql, [], |row| row.get(0))
            .map_err(wrap("check what belongs together"))?;
        if count > 0 {
            let what = format!("{count} rows without what belongs to them");
            findings.push(Finding { place: place.to_owned(), what, mended: false });
        }
    }
    Ok(findings)
}

fn counts(connection: &Connection) -> Result<Vec<Count>, StoreError> {
    let fail = wrap("check the counters");
    let mut counts = Vec::new();
    let depths: Vec<(String, i64, i64)> = connection
        .prepare(
            "SELECT 'depth:' || queue, count(*), \
             coalesce((SELECT value FROM counter WHERE name = 'depth:' || queue), 0) \
             FROM message GROUP BY queue \
             UNION ALL SELECT name, 0, value FROM counter WHERE name LIKE 'depth:%' AND value <> 0 \
             AND substr(name, 7) NOT IN (SELECT queue FROM message)",
        )
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(&fail)?;
    counts.extend(depths.into_iter().map(|(name, right, kept)| Count { name, kept, right }));
    for (name, sql) in [
        (DEAD_LETTERS, "SELECT count(*) FROM dead"),
        (DEAD_BYTES, "SELECT coalesce(sum(bytes), 0) FROM dead"),
    ] {
        let right: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(&fail)?;
        let kept: Option<i64> = connection
            .query_row("SELECT value FROM counter WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(&fail)?;
        counts.push(Count { name: name.to_owned(), kept: kept.unwrap_or(0), right });
    }
    counts.retain(|count| count.kept != count.right);
    Ok(counts)
}

/// Finds wrong counters and, if asked, sets them right, in one transaction.
pub(super) fn mend(connection: &Connection, mend: bool) -> Result<Vec<Finding>, StoreError> {
    let wrong = counts(connection)?;
    if mend {
        for count in &wrong {
            connection
                .execute(
                    "INSERT INTO counter VALUES (?1, ?2) \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (&count.name, count.right),
                )
                .map_err(wrap("mend a counter"))?;
        }
    }
    let finding = |count: Count| Finding {
        place: "counter".to_owned(),
        what: format!("{} is {}, but there are {}", count.name, count.kept, count.right),
        mended: mend,
    };
    Ok(wrong.into_iter().map(finding).collect())
}

/// Rewrites a file without holes and gives what is left to the disk.
pub(super) fn compact(path: &Path) -> Result<(u64, u64), StoreError> {
    let connection = open::connect(path, false)?;
    let before = pages_of(&connection)?;
    connection.execute_batch("VACUUM").map_err(wrap("compact the store"))?;
    let after = pages_of(&connection)?;
    // The log is as long as the new file now; readers that are still on it keep it for a while.
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map_err(wrap("compact the store's log"))?;
    Ok((before, after))
}
