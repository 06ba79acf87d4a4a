//! The Redis store: many machines, beside stock Celery workers on the same queues.
//!
//! Ready messages stand in Celery's own lists, in kombu's envelopes. A fetched one moves in one script
//! to a hash under our keys and never enters Celery's `unacked`; there it stays until it is settled,
//! or until its node dies. Everything else of ours (schedules, limits, dead letters, nodes) is under
//! `celeriac:`. Every change is one script (`redis/lua`). Tested by the conformance suite and
//! `tests/stores`.

mod address;
mod admin;
mod bell;
mod commit;
mod control;
mod dead;
mod events;
mod exchanges;
mod fetch;
mod hold;
mod io;
mod keys;
mod limits;
mod link;
mod mailbox;
mod nodes;
mod outside;
mod pack;
mod packet;
mod redbeat;
mod restore;
mod results;
mod schedules;
mod script;
mod server;
mod stalled;
mod tasks;
mod unique;
mod view;
mod walk;

use crate::Resources;
use crate::turn::Turn;
use address::Address;
use async_trait::async_trait;
use bell::Bell;
use celeriac_core::dead::DeadLetter;
use celeriac_core::exchange::Binding;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Lease;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Backup, Begun, Broker, Capabilities, ChordFinisher, Control, DeadFilter, DeadLetters, Delivery,
    EventStream, Events, FetchRequest, Finding, Heartbeat, Inspect, LimitView, Maintain, Moves,
    NodeId, NodeInfo, NodeView, Nodes, Outgoing, Page, Pause, Plan, Published, QueueView, Queues,
    Released, Replay, ResultRecord, Results, Revoke, Settled, Settlement, StalledChord,
    StampedEvent, Store, Stored, Sweep, TaskFilter, TaskPage, TaskView, Throttle,
};
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use celeriac_core::{Clock, Entropy, QueueName, StoreError};
use celeriac_wire::Event;
use jiff::Timestamp;
use keys::Keys;
use link::Link;
pub(crate) use outside::Outside;
pub use outside::redbeat::read as read_redbeat;
use pack::Pack;
use redis::Value as Answer;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whose clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The server's, so that the clocks of its clients do not matter.
    Server,
    /// This process', for tests that move it.
    Process,
}

/// What every part of the store needs.
#[derive(Debug)]
struct Core {
    link: Link,
    keys: Keys,
    bell: Bell,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limits: StoreLimits,
    time: TimeSource,
    /// Whether messages wait for their time under our keys even while no node of ours lives.
    alone: bool,
    /// How far the server's clock is ahead of ours, in microseconds.
    offset: AtomicI64,
    rules: Mutex<Option<fetch::Known>>,
    /// Whether the last fetch met lanes.
    lanes: AtomicBool,
    /// Where the next fetch begins among the lanes of a queue.
    cursors: Mutex<BTreeMap<QueueName, usize>>,
    expiries: Mutex<BTreeMap<NodeId, Duration>>,
    peeked: Mutex<admin::Peeked>,
    /// The queues that Celery has bound, and when they were looked for.
    bound: Mutex<Option<(Duration, Vec<QueueName>)>>,
    unique_cursor: AtomicU64,
    /// When stock workers' messages were last looked at, in microseconds.
    restored_at: AtomicI64,
    redbeat: redbeat::Sharing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An instant from microseconds since 1970; beyond what can be told it is the nearest that can.
fn micros_to_time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

impl Core {
    /// The store's time, as far as the last answers tell.
    fn now(&self) -> Timestamp {
        let wall = self.clock.wall();
        match self.time {
            TimeSource::Process => wall,
            TimeSource::Server => {
                let offset = self.offset.load(Ordering::Relaxed);
                micros_to_time(wall.as_microsecond().saturating_add(offset))
            }
        }
    }

    /// Notes what the server's clock says.
    fn server_said(&self, now: Timestamp) {
        let offset = now.as_microsecond().saturating_sub(self.clock.wall().as_microsecond());
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// The store's time now, in microseconds.
    async fn store_now(&self) -> Result<i64, StoreError> {
        if self.time == TimeSource::Process {
            return Ok(self.clock.wall().as_microsecond());
        }
        let time = self.link.call("ask for the time", &redis::cmd("TIME")).await?;
        let parts = dead::texts(time);
        let part = |index: usize| parts.get(index).and_then(|text| text.parse::<i64>().ok());
        let now = part(0).unwrap_or(0) * 1_000_000 + part(1).unwrap_or(0);
        self.server_said(micros_to_time(now));
        Ok(now)
    }

    /// The fields that every script reads.
    fn pack_head(&self, pack: &mut Pack) {
        pack.text("p").text(&self.keys.prefix);
        let now = match self.time {
            TimeSource::Server => 0,
            TimeSource::Process => self.clock.wall().as_microsecond(),
        };
        pack.text("now").number(now);
    }

    /// The field of scripts that touch results.
    fn pack_results(&self, pack: &mut Pack) {
        pack.text("rdb");
        match self.keys.result_database {
            None => pack.array(0),
            Some(database) => pack.array(2).number(database).number(self.keys.database),
        };
    }

    async fn rules(&self) -> Result<fetch::Known, StoreError> {
        let known = lock(&self.rules).clone();
        match known {
            Some(known) => Ok(known),
            None => self.reload_rules().await,
        }
    }

    async fn reload_rules(&self) -> Result<fetch::Known, StoreError> {
        let known = Arc::new(control::load(self).await?);
        *lock(&self.rules) = Some(Arc::clone(&known));
        Ok(known)
    }

    fn limited(&self) -> bool {
        self.lanes.load(Ordering::Relaxed)
    }

    fn set_limited(&self, lanes: bool) {
        self.lanes.store(lanes, Ordering::Relaxed);
    }

    fn lane_cursor(&self, queue: &QueueName) -> usize {
        lock(&self.cursors).get(queue).copied().unwrap_or(0)
    }

    fn set_lane_cursor(&self, queue: &QueueName, cursor: usize) {
        lock(&self.cursors).insert(queue.clone(), cursor);
    }

    fn known_expiry(&self, node: NodeId) -> Option<Duration> {
        lock(&self.expiries).get(&node).copied()
    }

    /// The shortest lease of this process' nodes.
    fn shortest_expiry(&self) -> Duration {
        let shortest = lock(&self.expiries).values().min().copied();
        shortest.unwrap_or_else(|| celeriac_core::lease::LeaseTimes::default().expiry)
    }

    fn expiry_of(&self, node: NodeId, expiry: Duration) {
        lock(&self.expiries).insert(node, expiry);
    }

    fn peeked(&self) -> MutexGuard<'_, admin::Peeked> {
        lock(&self.peeked)
    }
}

/// A store in Redis or Valkey.
#[derive(Debug)]
pub struct RedisStore {
    core: Arc<Core>,
    turn: Turn,
}

impl RedisStore {
    /// Whether a store at `url` can keep its results at `results`.
    ///
    /// # Errors
    /// `Invalid`, if it cannot.
    pub(crate) fn keeps_results(url: &str, results: &str) -> Result<(), StoreError> {
        Address::parse(url)?.keep_results_at(results)
    }

    /// Reads a URL; the first call connects.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none, or with options that nobody knows.
    pub fn open(url: &str, resources: Resources, time: TimeSource) -> Result<Self, StoreError> {
        let mut address = Address::parse(url)?;
        let Resources { clock, entropy, limits, results } = resources;
        if let Some(results) = results {
            address.keep_results_at(&results)?;
        }
        let io = io::Io::start()?;
        let core = Core {
            keys: address.keys.clone(),
            bell: Bell::new(address.clone(), Arc::clone(&io)),
            link: Link::new(address, io),
            clock,
            entropy,
            limits,
            time,
            alone: time == TimeSource::Process,
            offset: AtomicI64::new(0),
            rules: Mutex::default(),
            lanes: AtomicBool::new(true),
            cursors: Mutex::default(),
            expiries: Mutex::default(),
            peeked: Mutex::default(),
            bound: Mutex::default(),
            unique_cursor: AtomicU64::new(0),
            restored_at: AtomicI64::new(0),
            redbeat: redbeat::Sharing::default(),
        };
        Ok(Self { core: Arc::new(core), turn: Turn::default() })
    }
}

#[async_trait]
impl Broker for RedisStore {
    async fn publish(
        &self,
        plan: Plan,
        finisher: Option<ChordFinisher>,
    ) -> Result<Published, StoreError> {
        commit::publish(&self.core, plan, finisher).await
    }

    async fn stalled_chords(
        &self,
        before: Timestamp,
        count_max: usize,
    ) -> Result<Vec<StalledChord>, StoreError> {
        stalled::list(&self.core, before, count_max).await
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Vec<Delivery>, StoreError> {
        let lists = request.queues.iter().flat_map(|queue| self.core.keys.lists(queue));
        self.core.bell.watch_lists(lists);
        let fetched = fetch::fetch(&self.core, &request, &self.turn).await?;
        self.turn.served(&fetched);
        Ok(fetched)
    }

    async fn return_strays(&self, node: NodeId, known: Vec<Lease>) -> Result<u64, StoreError> {
        nodes::return_strays(&self.core, node, &known).await
    }

    async fn mark_started(&self, started: Vec<Begun>) -> Result<(), StoreError> {
        reach(Step::MarkBegins);
        let mut argument = Pack::default();
        argument.map(3);
        self.core.pack_head(&mut argument);
        argument.text("rows").array(started.len());
        for Begun { lease, at, acknowledged } in started {
            argument.array(4).text(&commit::node_of(lease).to_string());
            argument.text(&lease.row.to_string()).number(at.as_microsecond()).truth(acknowledged);
        }
        let what = "note that tasks run";
        self.core.link.script(what, &script::MARK, argument.into_bytes()).await.map(drop)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>, StoreError> {
        commit::settle(&self.core, settlements).await
    }

    async fn bind(&self, bindings: Vec<Binding>) -> Result<(), StoreError> {
        exchanges::bind(&self.core, &bindings).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, StoreError> {
        exchanges::all(&self.core).await
    }

    fn changes(&self) -> u64 {
        self.core.bell.count()
    }

    async fn wait_change(&self, seen: u64, timeout: Duration) -> u64 {
        self.core.bell.wait(seen, timeout).await
    }

    async fn next_due(&self, queues: &[QueueName]) -> Result<Option<Timestamp>, StoreError> {
        fetch::next_due(&self.core, queues).await
    }
}

#[async_trait]
impl Results for RedisStore {
    async fn store_state(&self, lease: Lease, record: ResultRecord) -> Result<bool, StoreError> {
        let core = &self.core;
        let id = record.meta.task_id().unwrap_or_default();
        let mut argument = Pack::default();
        argument.map(8);
        core.pack_head(&mut argument);
        core.pack_results(&mut argument);
        argument.text("node").text(&commit::node_of(lease).to_string());
        argument.text("row").text(&lease.row.to_string());
        argument.text("key").text(&core.keys.result(id));
        argument.text("json").bytes(&results::document(&record));
        argument.text("ttl").number(results::seconds_kept(core));
        let bytes = argument.into_bytes();
        let answer = core.link.script("store a state", &script::STATE, bytes).await?;
        Ok(answer == Answer::Int(1))
    }

    async fn result(&self, task_id: &str) -> Result<Option<ResultRecord>, StoreError> {
        view::result(&self.core, task_id).await
    }

    async fn results(&self, task_ids: &[String]) -> Result<Vec<Option<ResultRecord>>, StoreError> {
        results::of_all(&self.core, task_ids).await
    }

    async fn wait_result(
        &self,
        task_id: &str,
        timeout: Duration,
    ) -> Result<Option<ResultRecord>, StoreError> {
        results::wait(&self.core, task_id, timeout).await
    }

    async fn forget(&self, task_id: &str) -> Result<bool, StoreError> {
        let words = ["DEL".to_owned(), self.core.keys.result(task_id)];
        Ok(results::call(&self.core, "forget a result", &words).await? == Answer::Int(1))
    }

    async fn expire_results(&self, _count_max: usize) -> Result<usize, StoreError> {
        // Each result carries its own time to live.
        Ok(0)
    }
}

#[async_trait]
impl DeadLetters for RedisStore {
    async fn dead_list(
        &self,
        filter: &DeadFilter,
        page: Page,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        dead::list(&self.core, filter, page).await
    }

    async fn dead_count(&self, filter: &DeadFilter) -> Result<u64, StoreError> {
        dead::count(&self.core, filter).await
    }

    async fn dead_replay(
        &self,
        filter: &DeadFilter,
        replay: &Replay,
        count_max: usize,
    ) -> Result<Vec<i64>, StoreError> {
        dead::replay(&self.core, filter, replay, count_max).await
    }

    async fn dead_edit(&self, number: i64, outgoing: Outgoing) -> Result<(), StoreError> {
        dead::edit(&self.core, number, &outgoing).await
    }

    async fn dead_discard(&self, numbers: &[i64]) -> Result<u64, StoreError> {
        dead::discard(&self.core, numbers).await
    }
}

#[async_trait]
impl Queues for RedisStore {
    async fn peek(&self, queue: &QueueName, page: Page) -> Result<Vec<Stored>, StoreError> {
        admin::peek(&self.core, queue, page).await
    }

    async fn release(&self, queue: &QueueName, count_max: usize) -> Result<Released, StoreError> {
        admin::release(&self.core, queue, count_max).await
    }

    async fn remove(&self, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
        admin::remove(&self.core, rows).await
    }
}

#[async_trait]
impl Moves for RedisStore {
    async fn hold(&self, node: NodeId, rows: &[i64]) -> Result<Vec<Delivery>, StoreError> {
        hold::hold(&self.core, node, rows).await
    }

    async fn forget_once(&self, keys: &[String]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut delete = redis::cmd("DEL");
        for key in keys {
            delete.arg(self.core.keys.own(&format!("once:{key}")));
        }
        self.core.link.call("forget what was sent", &delete).await.map(drop)
    }
}

#[async_trait]
impl Control for RedisStore {
    async fn revoke(&self, task_ids: &[String], terminate: bool) -> Result<(), StoreError> {
        control::revoke(&self.core, task_ids, terminate).await
    }

    async fn unrevoke(&self, task_ids: &[String]) -> Result<u64, StoreError> {
        control::unrevoke(&self.core, task_ids).await
    }

    async fn revokes_since(&self, after: i64) -> Result<Vec<Revoke>, StoreError> {
        control::revokes_since(&self.core, after).await
    }

    async fn pause(&self, target: &Target, reason: &str) -> Result<(), StoreError> {
        control::pause(&self.core, target, reason).await
    }

    async fn resume(&self, target: &Target) -> Result<bool, StoreError> {
        control::resume(&self.core, target).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        control::pauses(&self.core).await
    }
}

#[async_trait]
impl Throttle for RedisStore {
    async fn declare_limits(
        &self,
        tasks: &[String],
        rules: Vec<LimitRule>,
    ) -> Result<(), StoreError> {
        control::declare(&self.core, tasks, &rules).await
    }

    async fn set_limit(&self, rule: LimitRule) -> Result<(), StoreError> {
        control::set_limit(&self.core, &rule).await
    }

    async fn remove_limit(&self, target: &Target, origin: RuleOrigin) -> Result<bool, StoreError> {
        let removed = control::remove_limit(&self.core, target, origin).await?;
        self.core.reload_rules().await?;
        Ok(removed)
    }

    async fn limits_in_force(&self) -> Result<Vec<LimitView>, StoreError> {
        control::limit_views(&self.core).await
    }
}

#[async_trait]
impl Nodes for RedisStore {
    async fn register(&self, info: NodeInfo) -> Result<NodeId, StoreError> {
        nodes::register(&self.core, &info).await
    }

    async fn heartbeat(&self, node: NodeId, heartbeat: Heartbeat) -> Result<bool, StoreError> {
        nodes::heartbeat(&self.core, node, heartbeat).await
    }

    async fn revise(
        &self,
        node: NodeId,
        queues: &[QueueName],
        concurrency: u32,
    ) -> Result<bool, StoreError> {
        nodes::revise(&self.core, node, queues, concurrency).await
    }

    async fn stands(&self, node: NodeId) -> Result<bool, StoreError> {
        nodes::stands(&self.core, node).await
    }

    async fn deregister(&self, node: NodeId) -> Result<u64, StoreError> {
        nodes::deregister(&self.core, node).await
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        nodes::sweep(&self.core).await
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        nodes::list(&self.core).await
    }
}

#[async_trait]
impl Events for RedisStore {
    async fn emit(&self, events: Vec<Event>) -> Result<(), StoreError> {
        events::emit(&self.core, events).await
    }

    async fn watch_events(&self) -> Result<Box<dyn EventStream>, StoreError> {
        Ok(events::watch(&self.core).await)
    }

    async fn events_since(
        &self,
        after: i64,
        count_max: usize,
    ) -> Result<Vec<StampedEvent>, StoreError> {
        events::since(&self.core, after, count_max).await
    }

    async fn events_of(&self, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
        events::of_task(&self.core, task_id).await
    }
}

#[async_trait]
impl Inspect for RedisStore {
    async fn task(&self, task_id: &str) -> Result<TaskView, StoreError> {
        view::task(&self.core, task_id).await
    }

    async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
        tasks::list(&self.core, filter).await
    }

    async fn queues(&self) -> Result<Vec<QueueView>, StoreError> {
        view::queues(&self.core).await
    }
}

/// Redis takes care of its own files; what we count on it is ours to check.
#[async_trait]
impl Maintain for RedisStore {
    async fn backup(
        &self,
        _target: &Path,
        _progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Backup, StoreError> {
        Err(StoreError::invalid("celeriac does not back Redis up")
            .hint("use `redis-cli --rdb FILE`, or copy the server's append-only file"))
    }

    async fn check(&self, mend: bool) -> Result<Vec<Finding>, StoreError> {
        admin::check(&self.core, mend).await
    }

    async fn compact(&self) -> Result<(u64, u64), StoreError> {
        Err(StoreError::invalid("celeriac does not compact Redis").hint("use BGREWRITEAOF"))
    }
}

impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shared_between_processes: true,
            durable: true,
            atomic_settle: true,
            chords: true,
            exchanges: true,
            fanout_queues: false,
            results_expire_alone: true,
        }
    }

    fn limits(&self) -> &StoreLimits {
        &self.core.limits
    }

    fn location(&self) -> String {
        self.core.link.address().shown.clone()
    }
}
