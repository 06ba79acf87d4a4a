//! The embedded store: SQLite in a file, or the same engine in memory.
//!
//! Writes go through one writer ([`writer`]) that commits in groups; reads use connections of their
//! own and see a snapshot. `queue.db` holds messages and results, `queue.db-events` the history,
//! `queue.db-bell` wakes other processes. Tested by the conformance suite and `tests/stores`.

mod admin;
mod bell;
mod control;
mod dead;
mod error;
mod events;
mod fetch;
mod lanes;
mod mailbox;
mod maintain;
mod moves;
mod nodes;
mod open;
mod outside;
mod plan;
mod results;
mod rows;
mod rules;
mod schedules;
mod settle;
mod stalled;
mod throttle;
mod unique;
mod view;
mod writer;

use crate::turn::Turn;
use async_trait::async_trait;
use bell::{Bell, Listener, Stroke};
use celeriac_core::dead::DeadLetter;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Lease;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Backup, Begun, Broker, Capabilities, ChordFinisher, Control, DeadFilter, DeadLetters, Delivery,
    FetchRequest, Finding, Heartbeat, Inspect, LimitView, Maintain, Moves, NodeId, NodeInfo,
    NodeView, Nodes, Outgoing, Page, Pause, Plan, Published, QueueView, Queues, Released, Replay,
    ResultRecord, Results, Revoke, Settled, Settlement, StalledChord, Store, Stored, Sweep,
    TaskFilter, TaskPage, TaskView, Throttle,
};
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use celeriac_core::{Clock, Entropy, ErrorKind, QueueName, StoreError};
use jiff::Timestamp;
use open::Files;
pub(crate) use outside::Outside;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use writer::Durability::{Relaxed, Synced};
use writer::{Committed, Durability, Writer};

/// The most readers at once, each with a connection of its own; more wait.
const READERS_MAX: usize = 4;

/// What the statements need besides the connection.
struct Context {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limits: StoreLimits,
    boot_id: String,
    /// The lane behind which the next fetch of a queue begins.
    lane_cursors: Mutex<BTreeMap<QueueName, i64>>,
}

impl Context {
    fn lane_cursor(&self, queue: &QueueName) -> i64 {
        let cursors = self.lane_cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.get(queue).copied().unwrap_or(0)
    }

    fn set_lane_cursor(&self, queue: &QueueName, lane: i64) {
        let mut cursors = self.lane_cursors.lock().unwrap_or_else(PoisonError::into_inner);
        if lane == 0 {
            cursors.remove(queue);
        } else {
            cursors.insert(queue.clone(), lane);
        }
    }
}

/// Where reads go.
enum Reader {
    File { path: std::path::PathBuf, idle: Mutex<Vec<Connection>>, places: Arc<Semaphore> },
    Shared(Arc<Mutex<Connection>>),
}

impl Reader {
    fn file(path: std::path::PathBuf) -> Self {
        let places = Arc::new(Semaphore::new(READERS_MAX));
        Self::File { path, idle: Mutex::default(), places }
    }
}

/// The embedded store.
pub struct SqliteStore {
    context: Arc<Context>,
    writer: Writer,
    event_writer: Arc<Writer>,
    reader: Arc<Reader>,
    event_reader: Arc<Reader>,
    bell: Bell,
    /// Rung when the events file changed: requests, replies, events.
    news: Bell,
    turn: Arc<Turn>,
    location: String,
    files: Option<Files>,
    _listener: Option<Listener>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SqliteStore")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or makes the store at `path` and migrates it if it is older than this program.
    ///
    /// # Errors
    /// `Invalid` for a network file system, a foreign database, a newer format or a place that
    /// cannot be written.
    pub fn open(
        path: &Path,
        limits: StoreLimits,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let files = Files::at(path);
        let file = Arc::new(open::prepare(&files)?);
        let bell = Bell::new(Some((Arc::clone(&file), Stroke::Write)));
        let news = Bell::new(Some((file, Stroke::Touch)));
        let connection = open::connect(&files.main, false)?;
        open::migrate(&connection)?;
        let events = open::connect(&files.events, false)?;
        open::prepare_events(&events)?;
        let sources = [
            (open::connect(&files.main, true)?, bell.clone()),
            (open::connect(&files.events, true)?, news.clone()),
        ];
        let listener = Listener::spawn(sources, &files.bell).map_err(thread_error)?;
        let rung = bell.clone();
        let committed: Committed = Box::new(move |durability| {
            if durability == Synced {
                rung.ring_everywhere();
            }
        });
        Ok(Self {
            context: Arc::new(Context {
                clock,
                entropy,
                limits,
                boot_id: open::boot_id(),
                lane_cursors: Mutex::default(),
            }),
            writer: Writer::spawn(connection, open::still_known, committed)
                .map_err(thread_error)?,
            event_writer: Arc::new(
                Writer::spawn(events, |_| Ok(()), Box::new(|_| ())).map_err(thread_error)?,
            ),
            reader: Arc::new(Reader::file(files.main.clone())),
            event_reader: Arc::new(Reader::file(files.events.clone())),
            bell,
            news,
            turn: Arc::default(),
            location: format!("sqlite://{}", path.display()),
            files: Some(files),
            _listener: Some(listener),
        })
    }

    /// Makes a store that lives as long as this value: `memory://`, for tests and simulation.
    ///
    /// # Errors
    /// `Internal` if SQLite has no memory left.
    pub fn in_memory(
        limits: StoreLimits,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let connection = open::in_memory()?;
        open::migrate(&connection)?;
        let events = open::in_memory()?;
        open::prepare_events(&events)?;
        let (connection, events) = (Arc::new(Mutex::new(connection)), Arc::new(Mutex::new(events)));
        let (bell, news) = (Bell::new(None), Bell::new(None));
        let rung = bell.clone();
        let committed: Committed = Box::new(move |durability| {
            if durability == Synced {
                rung.ring();
            }
        });
        Ok(Self {
            context: Arc::new(Context {
                clock,
                entropy,
                limits,
                boot_id: "memory".to_owned(),
                lane_cursors: Mutex::default(),
            }),
            writer: Writer::Inline(Arc::clone(&connection), committed),
            event_writer: Arc::new(Writer::Inline(Arc::clone(&events), Box::new(|_| ()))),
            reader: Arc::new(Reader::Shared(connection)),
            event_reader: Arc::new(Reader::Shared(events)),
            bell,
            news,
            turn: Arc::default(),
            location: "memory://".to_owned(),
            files: None,
            _listener: None,
        })
    }

    fn files(&self, what: &str) -> Result<&Files, StoreError> {
        let hint = "use a store in a file: sqlite:///path/to/queue.db";
        let none =
            || StoreError::invalid(format!("{what}: a store in memory has no file")).hint(hint);
        self.files.as_ref().ok_or_else(none)
    }

    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        durability: Durability,
        work: impl FnOnce(&Connection, &Context) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let context = Arc::clone(&self.context);
        self.writer.write(what, durability, move |connection| work(connection, &context)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection, &Context) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let context = Arc::clone(&self.context);
        read(&self.reader, what, move |connection| work(connection, &context)).await
    }
}

/// Says that a step is reached that only counts when it did something.
fn reach_if(happened: bool, step: Step) {
    if happened {
        reach(step);
    }
}

fn thread_error(error: std::io::Error) -> StoreError {
    StoreError::new(ErrorKind::Unavailable, "start the store's threads").because(error)
}

/// Runs `work` on a reading connection inside one snapshot, away from the async threads.
async fn read<T: Send + 'static>(
    reader: &Arc<Reader>,
    what: &'static str,
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reader, place) = match &**reader {
        Reader::Shared(connection) => {
            return work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Reader::File { places, .. } => {
            let place = Arc::clone(places).acquire_owned().await.map_err(|_| {
                StoreError::new(ErrorKind::Unavailable, format!("{what}: the store is closed"))
            })?;
            (Arc::clone(reader), place)
        }
    };
    let job = tokio::task::spawn_blocking(move || {
        let _place = place;
        let Reader::File { path, idle, .. } = &*reader else {
            unreachable!("shared readers ran above")
        };
        let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => open::connect(path, true)?,
        };
        connection.execute_batch("BEGIN").map_err(error::wrap(what))?;
        let outcome = work(&connection);
        connection.execute_batch("COMMIT").map_err(error::wrap(what))?;
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_MAX {
            idle.push(connection);
        }
        outcome
    });
    match tokio::time::timeout(writer::DEADLINE, job).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(join)) => Err(StoreError::new(ErrorKind::Internal, what).because(join)),
        Err(_elapsed) => {
            let seconds = writer::DEADLINE.as_secs();
            let text = format!("{what}: no answer within {seconds} s");
            Err(StoreError::new(ErrorKind::Unavailable, text).hint("the disk is slow"))
        }
    }
}

#[async_trait]
impl Broker for SqliteStore {
    async fn publish(
        &self,
        plan: Plan,
        finisher: Option<ChordFinisher>,
    ) -> Result<Published, StoreError> {
        reach(Step::PublishBegins);
        let published = self.write("publish", Synced, move |connection, context| {
            let limits = plan::Limits::Enforced;
            let published = plan::write(connection, context, plan, finisher.as_ref(), limits)?;
            reach(Step::PublishWritten);
            Ok(published)
        });
        published.await.inspect(|_| reach(Step::PublishCommitted))
    }

    async fn stalled_chords(
        &self,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<StalledChord>, StoreError> {
        self.write("look for stalled chords", Relaxed, move |connection, context| {
            stalled::list(connection, context, before, count_max)
        })
        .await
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Vec<Delivery>, StoreError> {
        let turn = Arc::clone(&self.turn);
        reach(Step::FetchBegins);
        let fetched = self.write("fetch", Relaxed, move |connection, context| {
            let fetched = fetch::fetch(connection, context, &request, &turn)?;
            turn.served(&fetched.deliveries);
            reach_if(!fetched.deliveries.is_empty(), Step::FetchWritten);
            Ok(fetched)
        });
        let fetched = fetched.await?;
        reach_if(!fetched.deliveries.is_empty(), Step::FetchCommitted);
        if fetched.again {
            self.bell.ring();
        }
        Ok(fetched.deliveries)
    }

    async fn return_strays(&self, node: NodeId, known: Vec<Lease>) -> Result<u64, StoreError> {
        let returned = self.write("return strays", Synced, move |connection, context| {
            nodes::return_strays(connection, context, node, &known)
        });
        returned.await
    }

    async fn mark_started(&self, started: Vec<Begun>) -> Result<(), StoreError> {
        reach(Step::MarkBegins);
        self.write("note that tasks run", Relaxed, move |connection, _| {
            fetch::mark_started(connection, &started)
        })
        .await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError> {
        reach(Step::SettleBegins);
        let settled = self.write("settle", Synced, move |connection, context| {
            let settle = |one| settle::settle(connection, context, one);
            let settled: Result<Vec<_>, _> = settlements.into_iter().map(settle).collect();
            settled.inspect(|_| reach(Step::SettleWritten))
        });
        settled.await.inspect(|_| reach(Step::SettleCommitted))
    }

    fn changes(&self) -> u64 {
        self.bell.count()
    }

    async fn wait_change(&self, seen: u64, timeout: Duration) -> u64 {
        self.bell.wait(seen, timeout).await
    }

    async fn next_due(&self, queues: &[QueueName]) -> Result<Option<Timestamp>, StoreError> {
        let queues = queues.to_vec();
        self.read("look for scheduled messages", move |connection, context| {
            fetch::next_due(connection, context, &queues)
        })
        .await
    }
}

#[async_trait]
impl Results for SqliteStore {
    async fn store_state(&self, lease: Lease, record: ResultRecord) -> Result<bool, StoreError> {
        self.write("store a state", Relaxed, move |connection, context| {
            results::store_state(connection, context, lease, &record)
        })
        .await
    }

    async fn result(&self, task_id: &str) -> Result<Option<ResultRecord>, StoreError> {
        let id = task_id.to_owned();
        self.read("read a result", move |connection, _| results::read(connection, &id)).await
    }

    async fn results(&self, task_ids: &[String]) -> Result<Vec<Option<ResultRecord>>, StoreError> {
        let ids = task_ids.to_vec();
        self.read("read results", move |connection, _| {
            ids.iter().map(|id| results::read(connection, id)).collect()
        })
        .await
    }

    async fn wait_result(
        &self,
        task_id: &str,
        timeout: Duration,
    ) -> Result<Option<ResultRecord>, StoreError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let seen = self.bell.count();
            let record = self.result(task_id).await?;
            let ready = record.as_ref().is_some_and(|record| record.meta.state().is_ready());
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if ready || left.is_zero() {
                return Ok(record);
            }
            self.bell.wait(seen, left).await;
        }
    }

    async fn forget(&self, task_id: &str) -> Result<bool, StoreError> {
        let id = task_id.to_owned();
        self.write("forget a result", Synced, move |connection, _| results::forget(connection, &id))
            .await
    }

    async fn expire_results(&self, count_max: usize) -> Result<usize, StoreError> {
        self.write("expire results", Relaxed, move |connection, context| {
            results::expire(connection, context, count_max)
        })
        .await
    }
}

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn dead_list(
        &self,
        filter: &DeadFilter,
        page: Page,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let filter = filter.clone();
        self.read("list dead letters", move |connection, _| dead::list(connection, &filter, page))
            .await
    }

    async fn dead_count(&self, filter: &DeadFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read("count dead letters", move |connection, _| dead::count(connection, &filter)).await
    }

    async fn dead_replay(
        &self,
        filter: &DeadFilter,
        replay: &Replay,
        count_max: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let (filter, replay) = (filter.clone(), replay.clone());
        self.write("replay dead letters", Synced, move |connection, context| {
            dead::replay(connection, context, &filter, &replay, count_max)
        })
        .await
    }

    async fn dead_edit(&self, number: i64, outgoing: Outgoing) -> Result<(), StoreError> {
        self.write("edit a dead letter", Synced, move |connection, context| {
            dead::edit(connection, context, number, &outgoing)
        })
        .await
    }

    async fn dead_discard(&self, numbers: &[i64]) -> Result<u64, StoreError> {
        let numbers = numbers.to_vec();
        self.write("discard dead letters", Synced, move |connection, _| {
            dead::discard(connection, &numbers)
        })
        .await
    }
}

#[async_trait]
impl Queues for SqliteStore {
    async fn peek(&self, queue: &QueueName, page: Page) -> Result<Vec<Stored>, StoreError> {
        let queue = queue.clone();
        self.read("look into a queue", move |connection, _| admin::peek(connection, &queue, page))
            .await
    }

    async fn release(&self, queue: &QueueName, _count_max: usize) -> Result<Released, StoreError> {
        Err(StoreError::invalid(format!("queue {queue} cannot be released for stock workers"))
            .hint(
                "Celery's workers cannot read SQLite; use `celeriac queue move` to another store",
            ))
    }

    async fn remove(&self, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
        let rows = rows.to_vec();
        self.write("remove messages", Synced, move |connection, _| admin::remove(connection, &rows))
            .await
    }
}

#[async_trait]
impl Moves for SqliteStore {
    async fn hold(&self, node: NodeId, rows: &[i64]) -> Result<Vec<Delivery>, StoreError> {
        let rows = rows.to_vec();
        self.write("hold messages", Synced, move |connection, context| {
            moves::hold(connection, context, node, &rows)
        })
        .await
    }

    async fn forget_once(&self, keys: &[String]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.write("forget what was sent", Relaxed, move |connection, _| {
            moves::forget(connection, &keys)
        })
        .await
    }
}

#[async_trait]
impl Control for SqliteStore {
    async fn revoke(&self, task_ids: &[String], terminate: bool) -> Result<(), StoreError> {
        let ids = task_ids.to_vec();
        self.write("revoke tasks", Synced, move |connection, context| {
            control::revoke(connection, context, &ids, terminate)
        })
        .await
    }

    async fn unrevoke(&self, task_ids: &[String]) -> Result<u64, StoreError> {
        let ids = task_ids.to_vec();
        self.write("withdraw revocations", Synced, move |connection, context| {
            control::unrevoke(connection, context, &ids)
        })
        .await
    }

    async fn revokes_since(&self, after: i64) -> Result<Vec<Revoke>, StoreError> {
        self.read("read the revocations", move |connection, context| {
            control::revokes_since(connection, context, after)
        })
        .await
    }

    async fn pause(&self, target: &Target, reason: &str) -> Result<(), StoreError> {
        let (target, reason) = (target.clone(), reason.to_owned());
        self.write("pause", Synced, move |connection, context| {
            control::pause(connection, context, &target, &reason)
        })
        .await
    }

    async fn resume(&self, target: &Target) -> Result<bool, StoreError> {
        let target = target.clone();
        self.write("resume", Synced, move |connection, _| control::resume(connection, &target))
            .await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        self.read("read the pauses", |connection, _| control::pauses(connection)).await
    }
}

#[async_trait]
impl Throttle for SqliteStore {
    async fn declare_limits(
        &self,
        tasks: &[String],
        rules: Vec<LimitRule>,
    ) -> Result<(), StoreError> {
        let tasks = tasks.to_vec();
        self.write("declare limits", Synced, move |connection, _| {
            throttle::declare(connection, &tasks, &rules)
        })
        .await
    }

    async fn set_limit(&self, rule: LimitRule) -> Result<(), StoreError> {
        self.write("set a limit", Synced, move |connection, _| throttle::set(connection, &rule))
            .await
    }

    async fn remove_limit(&self, target: &Target, origin: RuleOrigin) -> Result<bool, StoreError> {
        let target = target.clone();
        self.write("remove a limit", Synced, move |connection, _| {
            throttle::remove(connection, &target, origin)
        })
        .await
    }

    async fn limits_in_force(&self) -> Result<Vec<LimitView>, StoreError> {
        self.read("read the limits", throttle::views).await
    }
}

#[async_trait]
impl Nodes for SqliteStore {
    async fn register(&self, info: NodeInfo) -> Result<NodeId, StoreError> {
        reach(Step::RegisterBegins);
        let registered = self.write("register a worker", Synced, move |connection, context| {
            nodes::register(connection, context, &info)
        });
        registered.await.inspect(|_| reach(Step::RegisterCommitted))
    }

    async fn heartbeat(&self, node: NodeId, heartbeat: Heartbeat) -> Result<bool, StoreError> {
        reach(Step::HeartbeatBegins);
        let renewed = self.write("renew leases", Relaxed, move |connection, context| {
            nodes::heartbeat(connection, context, node, heartbeat)
        });
        renewed.await.inspect(|_| reach(Step::HeartbeatCommitted))
    }

    async fn revise(
        &self,
        node: NodeId,
        queues: &[QueueName],
        concurrency: u32,
    ) -> Result<bool, StoreError> {
        let queues = queues.to_vec();
        self.write("note what a worker consumes", Relaxed, move |connection, _| {
            nodes::revise(connection, node, &queues, concurrency)
        })
        .await
    }

    async fn stands(&self, node: NodeId) -> Result<bool, StoreError> {
        self.read("look for a worker's leases", move |connection, _| {
            nodes::stands(connection, node)
        })
        .await
    }

    async fn deregister(&self, node: NodeId) -> Result<u64, StoreError> {
        reach(Step::DeregisterBegins);
        let signed_off = self.write("sign a worker off", Synced, move |connection, context| {
            nodes::deregister(connection, context, node)
        });
        signed_off.await.inspect(|_| reach(Step::DeregisterCommitted))
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        reach(Step::SweepBegins);
        let sweep = self.write("look for dead workers", Relaxed, |connection, context| {
            let swept = nodes::sweep(connection, context)?;
            reach_if(swept.requeued > 0, Step::SweepWritten);
            Ok(swept)
        });
        let swept = sweep.await?;
        reach_if(swept.requeued > 0, Step::SweepCommitted);
        // A relaxed commit rings no bell, and `memory://` has no safety net behind it.
        if swept.requeued > 0 {
            self.bell.ring_everywhere();
        }
        Ok(swept)
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        self.read("list the workers", nodes::list).await
    }
}

#[async_trait]
impl Inspect for SqliteStore {
    async fn task(&self, task_id: &str) -> Result<TaskView, StoreError> {
        let id = task_id.to_owned();
        self.read("look for a task", move |connection, context| {
            view::task(connection, context, &id)
        })
        .await
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        let filter = filter.clone();
        self.read("list tasks", move |connection, context| {
            view::tasks(connection, context, &filter)
        })
        .await
    }

    async fn queues(&self) -> Result<Vec<QueueView>, StoreError> {
        self.read("list the queues", view::queues).await
    }
}

#[async_trait]
impl Maintain for SqliteStore {
    async fn backup(
        &self,
        target: &Path,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Backup, StoreError> {
        let (files, target) = (self.files("back up")?.clone(), target.to_owned());
        let (report, mut reports) = tokio::sync::watch::channel((0, 0));
        let mut copying = tokio::task::spawn_blocking(move || {
            maintain::backup(&files, &target, &mut |done, all| {
                // Nobody listens once the caller has given up.
                let _gone = report.send((done, all));
            })
        });
        loop {
            tokio::select! {
                biased;
                // Both are cancel safe: the copy goes on in its thread, a watch keeps its value.
                copied = &mut copying => return joined("back up", copied),
                Ok(()) = reports.changed() => {
                    let (done, all) = *reports.borrow_and_update();
                    progress(done, all);
                }
            }
        }
    }

    async fn check(&self, mend: bool) -> Result<Vec<Finding>, StoreError> {
        let mut findings = match &self.files {
            Some(files) => {
                let files = files.clone();
                let checking = tokio::task::spawn_blocking(move || {
                    let main = open::connect(&files.main, true)?;
                    maintain::check(&main, &open::connect(&files.events, true)?)
                });
                joined("check", checking.await)?
            }
            None => self.read("check", |main, _| maintain::check(main, main)).await?,
        };
        findings.extend(
            self.write("check the counters", Synced, move |connection, _| {
                maintain::mend(connection, mend)
            })
            .await?,
        );
        Ok(findings)
    }

    async fn compact(&self) -> Result<(u64, u64), StoreError> {
        let files = self.files("compact")?.clone();
        let compacting = tokio::task::spawn_blocking(move || {
            let main = maintain::compact(&files.main)?;
            let events = maintain::compact(&files.events)?;
            Ok((main.0 + events.0, main.1 + events.1))
        });
        joined("compact", compacting.await)
    }
}

fn joined<T>(
    what: &str,
    outcome: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    outcome.unwrap_or_else(|error| Err(StoreError::new(ErrorKind::Internal, what).because(error)))
}

impl Store for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shared_between_processes: self.files.is_some(),
            durable: self.files.is_some(),
            atomic_settle: true,
            chords: true,
            exchanges: false,
            fanout_queues: false,
            results_expire_alone: false,
        }
    }

    fn limits(&self) -> &StoreLimits {
        &self.context.limits
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
