//! Opens the store's files: checks the place, sets the pragmas, migrates the format.

use super::error::{commit, corrupt};
use celeriac_core::{ErrorKind, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format this program writes. Migrations are append-only; a shipped one never changes.
pub(super) const FORMAT_VERSION: i64 = 5;
const MIGRATIONS: [&str; 5] = [
    include_str!("migrations/001_initial.sql"),
    include_str!("migrations/002_lanes.sql"),
    include_str!("migrations/003_acknowledged.sql"),
    include_str!("migrations/004_once.sql"),
    include_str!("migrations/005_schedules.sql"),
];
const EVENTS_SCHEMA: &str = include_str!("migrations/events.sql");

/// How long a write waits for another process's commit.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Pages that a writing connection keeps in memory, in KiB. A worker has four of them, and the promise
/// for a million waiting tasks is 20 MiB in all.
const WRITER_CACHE_KIB: i64 = 4096;
/// The same for a reading connection, of which there are at most ten.
const READER_CACHE_KIB: i64 = 1024;
/// Write-ahead pages before a checkpoint: 16 MiB.
const CHECKPOINT_PAGES: i64 = 1000;

/// The files of one store.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) main: PathBuf,
    pub(super) events: PathBuf,
    pub(super) bell: PathBuf,
}

impl Files {
    /// The files that belong to the store at `path`: `queue.db`, `queue.db-events`, `queue.db-bell`.
    pub(super) fn at(path: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { main: path.to_owned(), events: beside("-events"), bell: beside("-bell") }
    }
}

/// Creates the folder and the files that are missing, readable by this user only.
pub(super) fn prepare(files: &Files) -> Result<File, StoreError> {
    let folder = match files.main.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let refuse = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => ErrorKind::Full,
            _ => ErrorKind::Invalid,
        };
        StoreError::new(kind, format!("open the store {}: {error}", files.main.display())).hint(
            "give a path in a folder that this user may write, e.g. sqlite:///var/lib/app/queue.db",
        )
    };
    std::fs::create_dir_all(folder).map_err(refuse)?;
    refuse_network(folder)?;
    // Only a file that does not exist yet is opened here, for its mode. Closing any handle of an
    // existing one would drop the locks that SQLite holds on it in this process (fcntl(2), POSIX
    // locks), and the next program that closes the store would delete the log under our feet.
    let create = |path: &Path| {
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    create(&files.main).map_err(refuse)?;
    create(&files.events).map_err(refuse)?;
    create(&files.bell).map_err(refuse)?;
    OpenOptions::new().write(true).open(&files.bell).map_err(refuse)
}

/// SQLite's locks and shared memory do not work across machines (sqlite.org/wal.html, section 1).
#[cfg_attr(
    not(target_os = "linux"),
    expect(clippy::unnecessary_wraps, unused_variables, reason = "only Linux tells")
)]
pub(super) fn refuse_network(folder: &Path) -> Result<(), StoreError> {
    #[cfg(target_os = "linux")]
    {
        let kind = rustix::fs::statfs(folder).map_err(|error| {
            StoreError::invalid(format!("look at {}: {error}", folder.display()))
        })?;
        if let Some(name) = network_file_system(kind.f_type as u32) {
            return Err(StoreError::invalid(format!(
                "{} is on {name}, a network file system, where SQLite's locks do not hold",
                folder.display()
            ))
            .hint("put the store on a local disk, or use redis:// for several machines"));
        }
    }
    Ok(())
}

/// The network file systems of `linux/magic.h`, by their `f_type`.
fn network_file_system(f_type: u32) -> Option<&'static str> {
    Some(match f_type {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x5346_414f => "AFS",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0102_1997 => "9p",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        _ => return None,
    })
}

/// Opens one connection to a file.
pub(super) fn connect(path: &Path, read_only: bool) -> Result<Connection, StoreError> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    };
    let context = format!("open the store {}", path.display());
    let fail = |error: rusqlite::Error| commit(&context, &error);
    let mut connection =
        Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(fail)?;
    tune(&mut connection, if read_only { READER_CACHE_KIB } else { WRITER_CACHE_KIB })
        .map_err(fail)?;
    if !read_only {
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(fail)?;
        if mode != "wal" {
            return Err(StoreError::invalid(format!(
                "{context}: the file system refuses a write-ahead log"
            ))
            .hint("put the store on a local disk"));
        }
        connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(fail)?;
    }
    Ok(connection)
}

/// Opens a database that lives and dies with this process.
pub(super) fn in_memory() -> Result<Connection, StoreError> {
    let fail = |error: rusqlite::Error| commit("open a store in memory", &error);
    let mut connection = Connection::open_in_memory().map_err(fail)?;
    tune(&mut connection, WRITER_CACHE_KIB).map_err(fail)?;
    Ok(connection)
}

fn tune(connection: &mut Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(128);
    connection.busy_handler(Some(wait_for_lock))?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// Waits for another process's commit: 0.1 ms at first, 2 ms later. SQLite's own handler goes up
/// to 100 ms, which several writing processes feel as a tail of that length.
fn wait_for_lock(tries: i32) -> bool {
    let pause = Duration::from_micros(100) * (1u32 << u32::try_from(tries).unwrap_or(0).min(4));
    let waited = pause * u32::try_from(tries).unwrap_or(0);
    if waited >= BUSY_MAX {
        return false;
    }
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
    // Whether the pause ran out or was interrupted, the lock is tried again.
    let _pause = rustix::event::poll(&mut [], Some(&timeout));
    true
}

/// Brings the schema to [`FORMAT_VERSION`], or refuses a store of a newer program.
pub(super) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| commit("migrate the store", &error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(fail)?;
    let outcome = migrate_locked(connection);
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    connection.execute_batch(end).map_err(fail)?;
    outcome
}

fn migrate_locked(connection: &Connection) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| commit("migrate the store", &error);
    let version = format_version(connection)?;
    if version > FORMAT_VERSION {
        return Err(StoreError::invalid(format!(
            "the store has format {version}, this program knows formats up to {FORMAT_VERSION}"
        ))
        .hint("a newer celeriac wrote it: use that version or a newer one"));
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        connection.execute_batch(migration).map_err(fail)?;
    }
    connection
        .execute(
            "INSERT INTO meta VALUES ('format_version', ?1) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
            [FORMAT_VERSION.to_string()],
        )
        .map_err(fail)?;
    Ok(())
}

/// Refuses to go on with a file that a newer program has migrated while it was open here.
pub(super) fn still_known(connection: &Connection) -> rusqlite::Result<()> {
    let version: String =
        connection.query_row("SELECT value FROM meta WHERE key = 'format_version'", [], |row| {
            row.get(0)
        })?;
    if version.parse::<i64>().is_ok_and(|version| version <= FORMAT_VERSION) {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA);
    let text = format!(
        "the store was migrated to format {version} while it was open; this program knows formats \
         up to {FORMAT_VERSION}"
    );
    Err(rusqlite::Error::SqliteFailure(code, Some(text)))
}

/// The format of the store behind a connection; 0 for an empty file.
pub(super) fn format_version(connection: &Connection) -> Result<i64, StoreError> {
    let fail = |error: rusqlite::Error| commit("read the store's format", &error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
        .map_err(fail)?;
    if tables == 0 {
        return Ok(0);
    }
    let ours = connection.table_exists(None, "meta").map_err(fail)?;
    let version: Option<String> = if ours {
        use rusqlite::OptionalExtension as _;
        connection
            .query_row("SELECT value FROM meta WHERE key = 'format_version'", [], |row| row.get(0))
            .optional()
            .map_err(fail)?
    } else {
        None
    };
    let version = version.ok_or_else(|| {
        StoreError::invalid("the file is a SQLite database, but no celeriac store")
            .hint("give the path of a new file; celeriac makes it")
    })?;
    version.parse().map_err(|_| corrupt(format!("the store's format version is {version:?}")))
}

/// Makes the tables of the events file.
pub(super) fn prepare_events(connection: &Connection) -> Result<(), StoreError> {
    connection
        .execute_batch(EVENTS_SCHEMA)
        .map_err(|error| commit("open the event history", &error))
}

/// An id that is the same for every process until the machine restarts.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        for (magic, name) in [(0x6969, Some("NFS")), (0xff53_4d42, Some("CIFS")), (0xef53, None)] {
            assert_eq!(network_file_system(magic), name);
        }
    }

    #[test]
    fn a_newer_format_and_a_foreign_database_are_refused() {
        let newer = Connection::open_in_memory().unwrap();
        migrate(&newer).unwrap();
        migrate(&newer).unwrap();
        newer.execute("UPDATE meta SET value = '99' WHERE key = 'format_version'", []).unwrap();
        let error = migrate(&newer).unwrap_err();
        assert!(error.to_string().contains("format 99"), "{error}");
        assert!(error.hint_text().unwrap().contains("newer"));

        let foreign = Connection::open_in_memory().unwrap();
        foreign.execute_batch("CREATE TABLE users (id)").unwrap();
        assert!(migrate(&foreign).unwrap_err().to_string().contains("no celeriac store"));
        assert!(foreign.is_autocommit(), "a refusal leaves no transaction open");
    }

    #[test]
    fn a_migration_under_our_feet_stops_the_writer() {
        let store = Connection::open_in_memory().unwrap();
        migrate(&store).unwrap();
        still_known(&store).unwrap();
        store.execute("UPDATE meta SET value = '99' WHERE key = 'format_version'", []).unwrap();
        let error = commit("publish", &still_known(&store).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Outdated);
        assert!(error.to_string().contains("format 99"), "{error}");
        assert!(error.hint_text().unwrap().contains("restart"));
    }
}
