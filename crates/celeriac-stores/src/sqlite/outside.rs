//! Looks at a store's files from outside, for `celeriac doctor`: reads only, and makes none.

use super::error::commit;
use super::open::{FORMAT_VERSION, boot_id, connect, format_version, refuse_network};
use crate::Resources;
use async_trait::async_trait;
use celeriac_core::lease::{LeaseTimes, is_dead};
use celeriac_core::priority::STEPS;
use celeriac_core::store::{
    Diagnose, HeldElsewhere, Leftover, QueueFacts, Step, StoreFacts, Unlisted,
};
use celeriac_core::{Clock, ErrorKind, StoreError};
use celeriac_wire::Value;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that one look may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest file that is checked for damage, in bytes; `celeriac store check` takes its time for others.
const CHECKED_BYTES_MAX: u64 = 256 << 20;

/// A store whose files are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Outside {
    pub(crate) fn new(path: PathBuf, resources: Resources) -> Self {
        Self { path, clock: resources.clock }
    }

    /// Looks on a thread that may wait for the disk.
    async fn look<T: Send + 'static>(
        &self,
        look: fn(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let own = self.clone();
        let looking = tokio::task::spawn_blocking(move || look(&own));
        match tokio::time::timeout(DEADLINE, looking).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                Err(StoreError::new(ErrorKind::Internal, "look at the store").because(error))
            }
            Err(_elapsed) => {
                let text = format!(
                    "{} cannot be read within {} s",
                    self.path.display(),
                    DEADLINE.as_secs()
                );
                Err(StoreError::new(ErrorKind::Unavailable, text).hint("look at the disk"))
            }
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn file(&self) -> Result<String, StoreError> {
        let about = std::fs::metadata(&self.path).map_err(|error| {
            StoreError::new(ErrorKind::Unavailable, format!("{}: {error}", self.path.display()))
                .hint("look at the path; the first worker or `celeriac call` makes the file")
        })?;
        Ok(format!("{}, {} bytes", self.path.display(), about.len()))
    }

    fn disk(&self) -> Result<String, StoreError> {
        refuse_network(self.folder())?;
        let access = rustix::fs::access(self.folder(), rustix::fs::Access::WRITE_OK);
        access.map_err(|error| {
            StoreError::invalid(format!("{} cannot be written: {error}", self.folder().display()))
                .hint("run as the user that owns the folder: SQLite writes files beside the store")
        })?;
        Ok("a local disk that may be written".to_owned())
    }

    fn open(&self) -> Result<(Connection, i64), StoreError> {
        let connection = connect(&self.path, true)?;
        let format = format_version(&connection)?;
        Ok((connection, format))
    }

    fn told_format(&self) -> Result<String, StoreError> {
        let (_connection, format) = self.open()?;
        Ok(format!("format {format}"))
    }

    fn read(&self) -> Result<StoreFacts, StoreError> {
        let (connection, format) = self.open()?;
        let fail = |error: rusqlite::Error| commit("look at the store", &error);
        let mut facts = StoreFacts {
            server: format!("SQLite {}", rusqlite::version()),
            local: true,
            encrypted: true,
            ..StoreFacts::default()
        };
        if format != FORMAT_VERSION {
            let newer = format > FORMAT_VERSION;
            facts.format = newer.then(|| {
                format!("The store has format {format}, and this program knows {FORMAT_VERSION}.")
            });
            // The next worker migrates an older one; until then it is not for this program to read.
            return Ok(facts);
        }
        let size = std::fs::metadata(&self.path).map_or(0, |about| about.len());
        facts.cut = size > CHECKED_BYTES_MAX;
        if !facts.cut {
            let damage: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(fail)?;
            if damage != "ok" {
                facts.damage.push(format!("SQLite's check says: {damage}."));
            }
        }
        let consumers = self.nodes(&connection, &mut facts).map_err(fail)?;
        facts.queues = queues(&connection, &consumers).map_err(fail)?;
        Ok(facts)
    }

    fn nodes(
        &self,
        connection: &Connection,
        facts: &mut StoreFacts,
    ) -> rusqlite::Result<BTreeMap<String, u64>> {
        let (now, boot_id) = (self.clock.boot(), boot_id());
        let mut registered = connection.prepare(
            "SELECT queues, heartbeat_us, expiry_us, boot, beat FROM node WHERE state = 0",
        )?;
        let mut rows = registered.query([])?;
        let mut consumers = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let span = |column: &str| -> rusqlite::Result<Duration> {
                Ok(Duration::from_micros(row.get::<_, i64>(column)?.unsigned_abs()))
            };
            let times = LeaseTimes { heartbeat: span("heartbeat_us")?, expiry: span("expiry_us")? };
            if is_dead(span("beat")?, row.get::<_, String>("boot")? == boot_id, now, times) {
                continue;
            }
            facts.nodes += 1;
            let queues =
                Value::parse(row.get::<_, String>("queues")?.as_bytes()).unwrap_or_default();
            for queue in queues.as_array().unwrap_or_default().iter().filter_map(Value::as_str) {
                *consumers.entry(queue.to_owned()).or_insert(0) += 1;
            }
        }
        Ok(consumers)
    }
}

fn queues(
    connection: &Connection,
    consumers: &BTreeMap<String, u64>,
) -> rusqlite::Result<Vec<QueueFacts>> {
    let mut count = connection.prepare(
        "SELECT queue, step, count(*) FROM message WHERE state IN (0, 3) GROUP BY queue, step",
    )?;
    let rows =
        count.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
    let mut found: BTreeMap<String, QueueFacts> = BTreeMap::new();
    for row in rows {
        let (name, step, waiting): (String, u8, i64) = row?;
        let consumers = consumers.get(&name).copied().unwrap_or(0);
        let facts = found.entry(name.clone()).or_insert_with(|| QueueFacts {
            name,
            consumers,
            ..QueueFacts::default()
        });
        if let Some(place) = STEPS.iter().position(|known| *known == step) {
            facts.waiting[place] += waiting.unsigned_abs();
        }
    }
    Ok(found.into_values().collect())
}

/// One step, which says what it found.
type Look = fn(&Outside) -> Result<String, StoreError>;

/// What stands between a URL and an open store, in order.
const WAY: [(&str, Look); 3] =
    [("FILE", Outside::file), ("DISK", Outside::disk), ("OPEN", Outside::told_format)];

#[async_trait]
impl Diagnose for Outside {
    async fn reach(&self) -> Vec<Step> {
        let mut steps = vec![Step {
            name: "URL",
            told: format!("sqlite://{}", self.path.display()),
            failed: None,
            took: Duration::ZERO,
        }];
        for (name, look) in WAY {
            #[expect(clippy::disallowed_methods, reason = "how long a step took is no decision")]
            let since = Instant::now();
            let told = self.look(look).await;
            let took = since.elapsed();
            match told {
                Ok(told) => steps.push(Step { name, told, failed: None, took }),
                Err(error) => {
                    let hint = error.hint_text().unwrap_or("look at the file and its folder");
                    let failed = Some(format!("{hint}."));
                    steps.push(Step { name, told: format!("{error}."), failed, took });
                    break;
                }
            }
        }
        steps
    }

    async fn facts(&self, _idle: Duration) -> Result<StoreFacts, StoreError> {
        self.look(Self::read).await
    }

    async fn clean(&self, _leftovers: &[Leftover], _idle: Duration) -> Result<u64, StoreError> {
        // Inboxes here go with their askers.
        Ok(0)
    }

    async fn unlisted(&self, _task_id: &str) -> Result<Option<Unlisted>, StoreError> {
        // Nobody else writes here.
        Ok(None)
    }

    async fn held_elsewhere(&self, _task_id: &str) -> Result<Option<HeldElsewhere>, StoreError> {
        // Celery's workers cannot read this store.
        Ok(None)
    }
}
