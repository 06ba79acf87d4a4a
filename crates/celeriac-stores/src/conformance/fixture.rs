//! A store on a clock that stands still, and short words for what clauses do with it.

use crate::Resources;
use celeriac_core::QueueName;
use celeriac_core::dead::{Attempt, DeadReason};
use celeriac_core::lease::Lease;
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{
    Begun, ChordFinisher, DeadFilter, Delivery, Fate, FetchRequest, Heartbeat, NodeId, NodeInfo,
    Outgoing, Page, Place, Plan, ResultRecord, Settled, Settlement, Store, Sweep,
};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::throttle::Target;
use celeriac_core::{Clock as _, lease::LeaseTimes};
use celeriac_wire::{Body, Map, Message, ResultMeta, State, Value};
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When the clauses begin.
pub(super) const START: &str = "2026-11-21T12:00:00Z";
/// The lease that clauses let run out.
pub(super) const EXPIRY: Duration = Duration::from_secs(8);
/// How long a clause waits for what must happen at once; only a broken store takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

type Make = dyn Fn(Resources) -> Arc<dyn Store> + Send + Sync;

/// Makes the store of one clause.
pub struct Harness {
    make: Box<Make>,
    skips: &'static [&'static str],
}

impl fmt::Debug for Harness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Harness").field("skips", &self.skips).finish_non_exhaustive()
    }
}

impl Harness {
    /// A harness around a function that makes an empty store; one clause calls it once.
    pub fn new(make: impl Fn(Resources) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), skips: &[] }
    }

    /// Names the capabilities that this store lacks; only their clauses may be skipped, and a store
    /// that has one of them fails the suite.
    #[must_use]
    pub fn lacking(mut self, capabilities: &'static [&'static str]) -> Self {
        self.skips = capabilities;
        self
    }

    /// A store with default limits.
    pub fn store(&self) -> Fixture {
        self.store_with(StoreLimits::default())
    }

    /// A store with these limits.
    pub fn store_with(&self, limits: StoreLimits) -> Fixture {
        let clock = Arc::new(FixedClock::at(START));
        let entropy = Arc::new(Seeded::new(7));
        let store = (self.make)(Resources { clock: clock.clone(), entropy, limits, results: None });
        Fixture { store, clock }
    }

    /// Whether to skip a clause that needs a capability.
    pub(super) fn skips(&self, capability: &str, has: bool) -> bool {
        let declared = self.skips.contains(&capability);
        assert_ne!(has, declared, "the harness and the store disagree about {capability:?}");
        declared
    }
}

/// A store and its clock.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its clock, which moves only when told.
    pub clock: Arc<FixedClock>,
}

impl Fixture {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// The time in `seconds` from now.
    pub(super) fn at(&self, seconds: u64) -> Timestamp {
        celeriac_core::clock::after(self.now(), Duration::from_secs(seconds))
    }

    pub(super) async fn node(&self, name: &str) -> NodeId {
        self.store.register(node_info(name)).await.unwrap()
    }

    /// Publishes small messages with these ids to a queue.
    pub(super) async fn send_to(&self, queue_name: &str, ids: &[&str]) {
        let messages = ids.iter().map(|id| outgoing(queue_name, id)).collect();
        self.publish(messages).await;
    }

    /// Publishes small messages with these ids to `celery`.
    pub(super) async fn send(&self, ids: &[&str]) {
        self.send_to("celery", ids).await;
    }

    pub(super) async fn publish(&self, publish: Vec<Outgoing>) {
        self.store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
    }

    /// Fetches from `celery`, suspects included.
    pub(super) async fn fetch(&self, node: NodeId, count_max: usize) -> Vec<Delivery> {
        self.fetch_from(node, &["celery"], count_max).await
    }

    pub(super) async fn fetch_from(
        &self,
        node: NodeId,
        queues: &[&str],
        count_max: usize,
    ) -> Vec<Delivery> {
        let queues = queues.iter().map(|name| queue(name)).collect();
        self.store.fetch(request(node, queues, count_max)).await.unwrap()
    }

    /// Fetches exactly one message.
    pub(super) async fn take(&self, node: NodeId) -> Delivery {
        let mut taken = self.fetch(node, 1).await;
        assert_eq!(taken.len(), 1, "one message waits");
        taken.remove(0)
    }

    pub(super) async fn settle(&self, lease: Lease, fate: Fate) -> Settled {
        self.settle_with(settlement(lease, fate, Plan::default())).await
    }

    pub(super) async fn settle_with(&self, settlement: Settlement) -> Settled {
        let settled = self.store.settle(vec![settlement]).await.unwrap();
        assert_eq!(settled.len(), 1);
        settled[0]
    }

    pub(super) async fn release(&self, lease: Lease, place: Place) {
        assert_eq!(self.settle(lease, Fate::Release { place, attempt: None }).await, Settled::Done);
    }

    /// Sets a message aside with this id, from publishing to the dead letter.
    pub(super) async fn bury(
        &self,
        node: NodeId,
        sent: Outgoing,
        reason: DeadReason,
        detail: &str,
    ) {
        let name = sent.queue.clone();
        self.publish(vec![sent]).await;
        let held = self.fetch_from(node, &[name.as_str()], 1).await.remove(0);
        let fate = Fate::Dead { reason, detail: detail.to_owned(), attempt: None };
        assert_eq!(self.settle(held.lease, fate).await, Settled::Done);
    }

    /// Lets an expiry pass in which only `living` renew, and sweeps.
    pub(super) async fn lapse(&self, living: &[NodeId]) -> Sweep {
        self.clock.advance(EXPIRY);
        for node in living {
            assert!(self.store.heartbeat(*node, Heartbeat::default()).await.unwrap());
        }
        self.store.sweep().await.unwrap()
    }

    /// The numbers of all dead letters.
    pub(super) async fn dead_numbers(&self) -> Vec<i64> {
        let letters = self.store.dead_list(&DeadFilter::default(), ALL).await.unwrap();
        letters.iter().map(|letter| letter.number).collect()
    }

    /// How many messages wait in `celery`, scheduled ones included.
    pub(super) async fn waiting(&self) -> usize {
        self.store.peek(&queue("celery"), ALL).await.unwrap().len()
    }

    pub(super) async fn state_of(&self, id: &str) -> Option<State> {
        self.store.result(id).await.unwrap().map(|record| record.meta.state())
    }
}

/// A page that holds everything a clause made.
pub(super) const ALL: Page = Page { after: 0, count_max: 10_000 };

pub(super) fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

pub(super) fn message(task: &str, id: &str) -> Message {
    Message::new(task, id, Body::new(vec![Value::from(id)], Map::new()).to_bytes())
}

pub(super) fn outgoing(queue_name: &str, id: &str) -> Outgoing {
    Outgoing::new(queue(queue_name), message("app.add", id))
}

pub(super) fn node_info(name: &str) -> NodeInfo {
    NodeInfo {
        name: name.to_owned(),
        pid: 4711,
        queues: vec![queue("celery"), queue("reports")],
        concurrency: 4,
        pool: "async".to_owned(),
        times: LeaseTimes::with_expiry(EXPIRY),
        tasks: vec!["app.add".to_owned(), "app.mul".to_owned()],
    }
}

pub(super) fn settlement(lease: Lease, fate: Fate, plan: Plan) -> Settlement {
    Settlement { lease, fate, plan, finisher: None }
}

pub(super) fn settlement_with(lease: Lease, plan: Plan, finisher: ChordFinisher) -> Settlement {
    Settlement { lease, fate: Fate::Done, plan, finisher: Some(finisher) }
}

pub(super) fn dead(reason: DeadReason) -> Fate {
    Fate::Dead { reason, detail: "ValueError: no rows".to_owned(), attempt: None }
}

pub(super) fn attempt(outcome: &str, at: Timestamp) -> Attempt {
    Attempt {
        retries: 0,
        worker: "celery@a".to_owned(),
        started_at: Some(at),
        ended_at: at,
        outcome: outcome.to_owned(),
        detail: "as told".to_owned(),
    }
}

/// A run that began; its message is acknowledged when it ends.
pub(super) fn begun(lease: Lease, at: Timestamp) -> Begun {
    Begun { lease, at, acknowledged: false }
}

/// A result as a worker writes it.
pub(super) fn record(id: &str, state: &State, at: Timestamp) -> ResultRecord {
    let mut meta = ResultMeta::new(id, state, Value::from(id));
    if state.is_ready() {
        meta.set_date_done(Some(at));
    }
    ResultRecord {
        meta,
        task: Some("app.add".to_owned()),
        queue: Some("celery".to_owned()),
        worker: Some("celery@a".to_owned()),
        enqueued_at: Some(at),
        started_at: Some(at),
        written_at: at,
        retries: 0,
    }
}

pub(super) fn results(records: Vec<ResultRecord>) -> Plan {
    Plan { results: records, ..Plan::default() }
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.message.headers.id().unwrap()).collect()
}

/// The ids where a store may choose the order: between a lane and what stands in none.
pub(super) fn sorted(deliveries: &[Delivery]) -> Vec<&str> {
    let mut ids = ids(deliveries);
    ids.sort_unstable();
    ids
}

/// A request that takes suspects and knows no limits of its own.
pub(super) fn request(node: NodeId, queues: Vec<QueueName>, count_max: usize) -> FetchRequest {
    FetchRequest { node, queues, count_max, suspects: true, caps: Vec::new() }
}

/// A queue as the target of a pause or a limit.
pub(super) fn the_queue(name: &str) -> Target {
    Target::Queue(name.to_owned())
}
