//! Plays a scenario: starts workers, sends, breaks, heals, waits until everything has ended, and
//! collects the evidence. One thread, paused time; the workers and the engine are the real ones.

use super::link::{Link, Mode, Rates};
use super::record::Record;
use super::sabotage::{Sabotage, Saboteur};
use super::scenario::{FaultPlan, LINE, RevokePlan, STORMY, Scenario, Send};
use super::store::NodeStore;
use super::tasks;
use super::time::{Gate, NodeClock};
use crate::dice::Dice;
use crate::evidence::{Evidence, Held, View};
use crate::ledger::What;
use celeriac_core::limits::StoreLimits;
use celeriac_core::route::Router;
use celeriac_core::store::{Control as _, Page, Plan, Store};
use celeriac_core::testing::Seeded;
use celeriac_core::workflow::{self, Lineage, Sender};
use celeriac_core::{Clock, ErrorKind, QueueName, StoreError, clock};
use celeriac_runtime::{
    Background, ControlOptions, StopHandle, UnknownTasks, Worker, WorkerError, WorkerOptions,
    WorkerParts, WorkerReport,
};
use celeriac_stores::SqliteStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

/// After the storm everything must have ended within this time.
const DRAIN_MAX: Duration = Duration::from_mins(2);
/// How often the world looks whether a worker has ended or everything is done.
const LOOK: Duration = Duration::from_millis(250);
/// A call that fails is tried again after this.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a stopped worker lets its tasks run.
const GRACE: Duration = Duration::from_secs(1);
/// Longer than clocks are wrong, so that results stay until they are judged.
const RESULTS_KEPT: Duration = Duration::from_hours(72);
/// The most events that the store keeps.
const EVENTS_MAX: u64 = 1000;

type Ended = Result<WorkerReport, WorkerError>;

/// One run of a worker.
struct Running {
    who: String,
    handle: JoinHandle<Ended>,
    stop: StopHandle,
    gate: Arc<Gate>,
    link: Arc<Link>,
}

/// A place where one worker runs after the other.
struct Node {
    clock: Arc<NodeClock>,
    launches: u32,
    running: Option<Running>,
    /// What the link does now, also to the next worker here.
    mode: Mode,
}

pub(crate) struct World {
    seed: u64,
    scenario: Scenario,
    record: Arc<Record>,
    saboteur: Arc<Saboteur>,
    store: Arc<dyn Store>,
    store_clock: Arc<NodeClock>,
    nodes: Vec<Node>,
    producer: Arc<Link>,
    evidence: Evidence,
    calm: bool,
}

/// What happens at one time.
#[derive(Clone, Copy)]
enum Happening {
    Fault(FaultPlan),
    Thaw(usize, u32),
    Mend(Option<usize>),
    SetClock(usize),
}

impl World {
    pub(crate) fn new(
        seed: u64,
        scenario: Scenario,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, StoreError> {
        let start = tokio::time::Instant::now();
        let record = Arc::new(Record::new(start));
        let store_clock = Arc::new(NodeClock::new(start));
        let result_expires = Some(RESULTS_KEPT);
        let limits =
            StoreLimits { events_max: EVENTS_MAX, result_expires, ..StoreLimits::default() };
        let (clock, entropy) =
            (Arc::clone(&store_clock) as Arc<dyn Clock>, Arc::new(Seeded::new(seed ^ 0x5707e)));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory(limits, clock, entropy)?);
        let nodes = scenario.workers.iter().map(|_| Node {
            clock: Arc::new(NodeClock::new(start)),
            launches: 0,
            running: None,
            mode: Mode::Up,
        });
        let nodes = nodes.collect();
        let producer =
            Link::new("producer", Arc::clone(&record), Dice::new(seed, 2), scenario.rates);
        Ok(Self {
            seed,
            record,
            saboteur: Arc::new(Saboteur::new(sabotage)),
            store,
            store_clock,
            nodes,
            producer: Arc::new(producer),
            evidence: Evidence::default(),
            calm: false,
            scenario,
        })
    }

    fn view_of(&self, who: &str, link: &Arc<Link>) -> NodeStore {
        NodeStore {
            who: who.to_owned(),
            inner: Arc::clone(&self.store),
            link: Arc::clone(link),
            record: Arc::clone(&self.record),
            saboteur: Arc::clone(&self.saboteur),
        }
    }

    fn launch(&mut self, index: usize) {
        let plan = self.scenario.workers[index];
        let node = &mut self.nodes[index];
        node.launches += 1;
        let who = format!("w{index}.{}@sim", node.launches);
        let stream = 100 + index as u64 * 1000 + u64::from(node.launches);
        let rates = if self.calm { Rates::default() } else { self.scenario.rates };
        let link = Link::new(&who, Arc::clone(&self.record), Dice::new(self.seed, stream), rates);
        link.set(node.mode);
        let (link, gate) = (Arc::new(link), Arc::new(Gate::default()));
        let clock = Arc::clone(&node.clock) as Arc<dyn Clock>;
        let store: Arc<dyn Store> = Arc::new(self.view_of(&who, &link));
        let options = WorkerOptions {
            name: who.clone(),
            queues: vec![if plan.line { line() } else { QueueName::celery() }],
            concurrency: plan.slots,
            grace: GRACE,
            lease_times: self.scenario.times,
            task_events: true,
            unknown_tasks: UnknownTasks::default(),
            idle_stop: None,
            strict_early_ack: false,
            chord_expires: None,
            autoscale: None,
            children: None,
            // Remote control moves no message; its reads would only make a seed longer.
            control: ControlOptions { enabled: false, heartbeat: None, ..Default::default() },
        };
        let held = Arc::clone(&gate);
        let parts = WorkerParts {
            registry: Arc::new(tasks::registry(&who, &gate, &self.record)),
            router: Arc::new(Router::new(QueueName::celery())),
            heartbeat_store: Arc::clone(&store),
            store,
            clock,
            entropy: Arc::new(Seeded::new(self.seed ^ (stream << 32))),
            spill: None,
            background: Background::SameRuntime(Arc::new(move |task| Box::pin(held.hold(task)))),
        };
        let worker = Worker::new(options, parts).expect("the options have a meaning");
        let stop = worker.stop_handle();
        let handle = tokio::spawn(gate.hold(worker.run()));
        self.nodes[index].running = Some(Running { who, handle, stop, gate, link });
    }

    /// Starts again what has ended; called often.
    async fn supervise(&mut self) {
        for index in 0..self.nodes.len() {
            let over = |running: &mut Running| running.handle.is_finished();
            if let Some(running) = self.nodes[index].running.take_if(over) {
                self.bury(running).await;
            }
            if self.nodes[index].running.is_none() {
                self.launch(index);
            }
        }
    }

    /// Notes what an ended worker reported.
    async fn bury(&mut self, running: Running) {
        let line = self.record.line(What::Report, "-", &running.who);
        match running.handle.await {
            Ok(Ok(report)) => {
                let (ok, failed) = (report.succeeded, report.failed);
                self.record.append(line.note("ok", ok).note("failed", failed));
                self.evidence.reports.push((running.who, report));
            }
            // It could not register or sign off: its lease runs out.
            Ok(Err(error)) => {
                self.record.append(line.note("error", error));
                self.fault("kill", &running.who, Duration::ZERO);
            }
            Err(_aborted) => {}
        }
    }

    fn fault(&self, kind: &str, who: &str, span: Duration) {
        let line = self.record.line(What::Fault, kind, who);
        let until = line.micros + span.as_micros() as i64;
        self.record.append(line.note("until", until));
    }

    pub(crate) async fn play(mut self) -> Evidence {
        let alive_before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut outside = JoinSet::new();
        let sends = std::mem::take(&mut self.scenario.sends);
        for send in &sends {
            self.evidence.expected.extend(send.tasks.iter().cloned());
        }
        let view = Arc::new(self.view_of("producer", &self.producer));
        outside.spawn(produce(Arc::clone(&view), sends, Arc::clone(&self.store_clock)));
        outside.spawn(revoke(view, std::mem::take(&mut self.scenario.revokes)));
        self.storm().await;
        self.heal();
        while outside.join_next().await.is_some() {}
        self.drain().await;
        self.close().await;
        self.collect(alive_before).await
    }

    /// Runs the workers and breaks things, until the storm is over.
    async fn storm(&mut self) {
        let mut agenda: BTreeMap<(Duration, usize), Happening> = BTreeMap::new();
        for (number, (at, fault)) in self.scenario.faults.iter().enumerate() {
            agenda.insert((*at, number), Happening::Fault(*fault));
        }
        let mut number = agenda.len();
        let start = tokio::time::Instant::now();
        while start.elapsed() < STORMY {
            self.supervise().await;
            while let Some(next) =
                agenda.first_entry().filter(|next| next.key().0 <= start.elapsed())
            {
                let ((at, _), happening) = next.remove_entry();
                if let Some((span, then)) = self.happen(happening) {
                    number += 1;
                    agenda.insert((at + span, number), then);
                }
            }
            let next = agenda.first_key_value().map_or(STORMY, |((at, _), _)| *at);
            let until = next.min(start.elapsed() + LOOK);
            tokio::time::sleep_until(start + until).await;
        }
    }

    /// Does it; returns what undoes it after a time.
    fn happen(&mut self, happening: Happening) -> Option<(Duration, Happening)> {
        match happening {
            Happening::Fault(fault) => return self.break_something(fault),
            Happening::Thaw(index, launches) => {
                let node = &self.nodes[index];
                if let Some(running) = node.running.as_ref().filter(|_| node.launches == launches) {
                    running.gate.thaw();
                }
            }
            Happening::Mend(target) => self.cut(target, Mode::Up),
            Happening::SetClock(index) => self.nodes[index].clock.jump(0),
        }
        None
    }

    fn break_something(&mut self, fault: FaultPlan) -> Option<(Duration, Happening)> {
        let name = |index: usize| {
            self.nodes[index].running.as_ref().map_or("-", |running| running.who.as_str())
        };
        match fault {
            FaultPlan::Kill(index) => {
                self.fault("kill", name(index), Duration::ZERO);
                if let Some(running) = &self.nodes[index].running {
                    running.handle.abort();
                    running.gate.thaw();
                }
                None
            }
            FaultPlan::Freeze(index, span) => {
                self.fault("freeze", name(index), span);
                let node = &self.nodes[index];
                node.running.as_ref()?.gate.freeze();
                Some((span, Happening::Thaw(index, node.launches)))
            }
            FaultPlan::Stop { worker, now } => {
                self.fault("stop", name(worker), GRACE * 2);
                let running = self.nodes[worker].running.as_ref()?;
                if now {
                    running.stop.now();
                } else {
                    running.stop.grace();
                }
                None
            }
            FaultPlan::Cut(target, mode, span) => {
                let who = target.map_or("*", name).to_owned();
                // A call that hangs outlives the cut: its caller gives up one lease later.
                let hangs = matches!(mode, Mode::Silent | Mode::OneWay);
                let times = self.scenario.times;
                let after = if hangs { times.expiry + times.heartbeat } else { Duration::ZERO };
                self.fault(mode.word(), &who, span + after);
                self.cut(target, mode);
                Some((span, Happening::Mend(target)))
            }
            FaultPlan::Lose(index, call) => {
                self.nodes[index].running.as_ref()?.link.lose_next(call);
                None
            }
            FaultPlan::Jump(index, seconds, span) => {
                self.fault("clock", name(index), span);
                self.nodes[index].clock.jump(seconds);
                Some((span, Happening::SetClock(index)))
            }
        }
    }

    fn cut(&mut self, target: Option<usize>, mode: Mode) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if target.is_none_or(|target| target == index) {
                node.mode = mode;
                if let Some(running) = &node.running {
                    running.link.set(mode);
                }
            }
        }
        if target.is_none() {
            self.producer.set(mode);
        }
    }

    /// From now on nothing goes wrong any more.
    fn heal(&mut self) {
        self.calm = true;
        self.producer.heal();
        for node in &mut self.nodes {
            node.mode = Mode::Up;
            node.clock.jump(0);
            if let Some(running) = &node.running {
                running.link.heal();
                running.gate.thaw();
            }
        }
    }

    /// Waits until the queues are empty.
    async fn drain(&mut self) {
        let start = tokio::time::Instant::now();
        while start.elapsed() < DRAIN_MAX {
            self.supervise().await;
            let queues = self.store.queues().await.unwrap_or_default();
            let left = |count: fn(&celeriac_core::store::QueueView) -> u64| -> u64 {
                queues.iter().map(count).sum()
            };
            let busy = left(|queue| queue.ready + queue.leased);
            if busy + left(|queue| queue.scheduled) == 0 {
                return;
            }
            if busy == 0 {
                self.skip_to_the_next_due().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A worker whose clock was a day ahead schedules retries for tomorrow: all clocks go there.
    async fn skip_to_the_next_due(&self) {
        let due = self.store.next_due(&[QueueName::celery(), line()]).await;
        let Ok(Some(due)) = due else { return };
        let wait = clock::between(self.store_clock.wall(), due);
        if wait > Duration::from_mins(1) {
            let offset = self.store_clock.offset() + wait.as_secs() as i64;
            self.store_clock.jump(offset);
            self.nodes.iter().for_each(|node| node.clock.jump(offset));
        }
    }

    /// Stops everybody and takes their reports.
    async fn close(&mut self) {
        for node in &self.nodes {
            if let Some(running) = &node.running {
                running.stop.grace();
            }
        }
        for index in 0..self.nodes.len() {
            let Some(mut running) = self.nodes[index].running.take() else { continue };
            let ended = tokio::time::timeout(GRACE * 60, &mut running.handle).await;
            match ended {
                Ok(Ok(Ok(report))) => {
                    self.evidence.reports.push((running.who.clone(), report));
                    let line = self.record.line(What::Report, "-", &running.who);
                    self.record.append(line.note("ok", report.succeeded));
                }
                Ok(_) => {}
                Err(_elapsed) => running.handle.abort(),
            }
        }
    }

    async fn collect(mut self, alive_before: usize) -> Evidence {
        // What was aborted is dropped when the runtime comes to it.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let ids: Vec<String> = self.evidence.expected.keys().cloned().collect();
        let direct = Arc::new(Link::new(
            "observer",
            Arc::clone(&self.record),
            Dice::new(self.seed, 3),
            Rates::default(),
        ));
        let view = self.view_of("observer", &direct);
        self.evidence.view = View::of(&view, &ids).await.unwrap_or_default();
        for (id, standing) in &self.evidence.view.tasks {
            if let Some(state) = &standing.state {
                let line = self.record.line(What::Result, id, "-").note("state", state);
                let value = standing.value.clone().unwrap_or_default();
                self.record.append(line.note("value", value));
            }
        }
        let events = self.store.events_since(0, EVENTS_MAX as usize * 2).await;
        let events = events.map_or(0, |events| events.len() as u64);
        let page = Page { after: 0, count_max: 1000 };
        let rows = self.store.peek(&QueueName::celery(), page).await.map_or(0, |rows| rows.len());
        drop(view);
        let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let held = |what: &str, count: u64, max: u64| Held { what: what.to_owned(), count, max };
        self.evidence.held = vec![
            held("events kept", events, EVENTS_MAX),
            held("rows left in the queue", rows as u64, 0),
            held("tasks left in the runtime", (alive - alive_before) as u64, 0),
            held("owners of the store", Arc::strong_count(&self.store) as u64, 1),
        ];
        let times = self.scenario.times;
        self.evidence.recovery_max = times.expiry + times.heartbeat + Duration::from_secs(1);
        self.evidence.ledger = self.record.lines();
        self.evidence
    }
}

fn line() -> QueueName {
    QueueName::parse(LINE).expect("a valid name")
}

/// Sends everything at its time; what is refused is sent again, what is unknown is not.
async fn produce(view: Arc<NodeStore>, sends: Vec<Send>, wall: Arc<NodeClock>) {
    let start = tokio::time::Instant::now();
    let router = Router::new(QueueName::celery());
    let mut numbers = 0;
    let mut new_id = || {
        numbers += 1;
        format!("x{numbers}")
    };
    for send in sends {
        tokio::time::sleep_until(start + send.at).await;
        let mut plan = Plan::default();
        for work in send.works {
            let mut sender =
                Sender { router: &router, new_id: &mut new_id, now: wall.wall(), origin: "sim" };
            let applied = workflow::apply(work, &[], Lineage::default(), &mut sender);
            plan.extend(applied.expect("a scenario is well formed").plan);
        }
        let what = loop {
            match publish(&view, plan.clone()).await {
                Ok(()) => break What::Enqueued,
                Err(error) if error.kind() == ErrorKind::Unknown => break What::Maybe,
                Err(_refused) => tokio::time::sleep(AGAIN).await,
            }
        };
        for (id, _) in &send.tasks {
            view.record.append(view.record.line(what.clone(), id, "producer"));
        }
    }
}

async fn publish(view: &NodeStore, plan: Plan) -> Result<(), StoreError> {
    celeriac_core::store::Broker::publish(view, plan, None).await.map(|_| ())
}

/// Revokes what is to be revoked, until the store says that it did.
async fn revoke(view: Arc<NodeStore>, revokes: Vec<RevokePlan>) {
    let start = tokio::time::Instant::now();
    for RevokePlan { at, id, terminate } in revokes {
        tokio::time::sleep_until(start + at).await;
        while view.revoke(std::slice::from_ref(&id), terminate).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        view.record.append(view.record.line(What::Other("revoke".to_owned()), &id, "producer"));
    }
}
