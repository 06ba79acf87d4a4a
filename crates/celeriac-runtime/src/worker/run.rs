//! The worker's loop: turns what happens into events, and the machine's actions into deeds.

mod early;
mod house;
mod look;
mod mortem;
mod news;
mod renew;
mod strangers;
mod words;

use self::early::acknowledged_first;
use self::house::{emitter_options, host_of, keep_chords, keep_house, node_info};
use self::look::{Fetched, Look};
use self::mortem::{Heard, TELLING_MAX, events_of, requeued};
use self::news::Herald;
use super::autoscale::Autoscaler;
use super::control::ControlOptions;
use super::control::service::{WORDS_MAX, Word};
use super::decide::Refusal;
use super::declare::bindings_of;
use super::emitter::Emitter;
use super::ending::{Ended, Held, Ran, Shared, embed_of, finisher, log_end, outcome_of_join_error};
use super::heartbeat::HeartbeatHandle;
use super::machine::{ACKNOWLEDGE_AFTER, Action, Event, MARK_PAUSE, Machine, Start};
use super::orders::Orders;
use super::peers::{Peers, Wanted};
use super::rates::OwnRates;
use super::settler::{self, Request, Written};
use super::strangers::Strangers;
use super::watchdog::{Watchdog, Watched};
use super::{Background, Notice, Renewal, Stop, Worker, WorkerError, WorkerReport};
use crate::cancel::Cancellation;
use crate::handler::RunContext;
use crate::pool::{Children, News, TaskPool};
use celeriac_core::conclude::{self, Conclusion, Verdict};
use celeriac_core::dead::{DeadReason, worker_lost};
use celeriac_core::exchange::Binding;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Lease;
use celeriac_core::outcome::{Failure, Outcome, TracedEvent};
use celeriac_core::store::{Begun, Delivery, Fate, FetchRequest, Place, Plan, Store};
use celeriac_core::trail::Trail;
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{Body, Embed, ExceptionInfo};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// Settlements that wait for the store; at the bound no new work is fetched.
const SETTLING_MAX: usize = 1024;
/// How long the worker waits for news before it looks at the store again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest that the loop waits for a call that can as well be made later.
const SIDE_CALL: Duration = Duration::from_millis(200);
/// How often revocations are looked for while tasks run.
const REVOKES_EVERY: Duration = Duration::from_millis(100);
/// How long a failed fetch waits before the next.
const FETCH_PAUSE: Duration = Duration::from_millis(500);
/// How long the last settlements may take before the worker leaves without them; their messages
/// run again elsewhere.
const LAST_WRITES: Duration = Duration::from_secs(15);

/// A task that runs, and what is needed when it ends.
struct InFlight {
    delivery: Arc<Delivery>,
    embed: Embed,
    cancellation: Cancellation,
    abort: AbortHandle,
    ran: Ran,
    began: Duration,
    /// Whether its body runs.
    begun: Arc<AtomicBool>,
    /// Its hard limit.
    limit: Option<Duration>,
}

struct Loop {
    shared: Arc<Shared>,
    machine: Machine,
    tasks: JoinSet<Outcome>,
    by_task: BTreeMap<Id, Lease>,
    /// Ends of which the app is told.
    telling: JoinSet<Heard>,
    herald: Herald,
    in_flight: BTreeMap<Lease, InFlight>,
    settler: mpsc::Sender<Request>,
    heartbeat: HeartbeatHandle,
    /// Child processes, or none: tasks run as futures here.
    pool: Option<Box<dyn TaskPool>>,
    /// Made for the first task of the async pool with a hard limit.
    watchdog: Option<Watchdog>,
    stuck: watch::Sender<Option<String>>,
    /// The count of losses whose tasks were stopped.
    losses_handled: u64,
    revokes_read: i64,
    rates: OwnRates,
    scaler: Option<Autoscaler>,
    strangers: Strangers,
    /// The names that stock workers are asked about …
    wanted: watch::Sender<Wanted>,
    /// … and those that they know.
    known: watch::Receiver<BTreeSet<String>>,
    /// What is consumed; remote control may change it.
    queues: Vec<QueueName>,
    /// How each of them is bound.
    bindings: Vec<Binding>,
    /// How many of each known task have begun.
    totals: BTreeMap<String, u64>,
    control: Arc<ControlOptions>,
    words: mpsc::Receiver<Word>,
    renewals: mpsc::Receiver<Renewal>,
    /// When the worker started.
    began: Duration,
    idle_since: Duration,
    /// The answer of a fetch was lost: it may have leased messages that nobody here knows of.
    strays: bool,
    /// A newer program has changed the store: nothing can be written by this one.
    outdated: Option<StoreError>,
    report: WorkerReport,
}

pub(super) async fn run(mut worker: Worker) -> Result<WorkerReport, WorkerError> {
    let renewals = worker.renewals.take().unwrap_or_else(|| mpsc::channel(1).1);
    let options = &worker.options;
    let mut stop = worker.stop.0.subscribe();
    let pool = tokio::select! {
        biased;
        // Children that start are killed when the future is dropped.
        Ok(_) = stop.wait_for(|asked| asked.stop != Stop::No) => return Ok(WorkerReport::default()),
        started = start_children(options.children.as_ref()) => started?,
    };
    let info = node_info(&worker, pool.is_some());
    let bindings = bindings_of(&worker.router, &options.queues);
    let rules = worker.registry.limit_rules();
    worker.store.declare_limits(&info.tasks, rules).await?;
    let heartbeat = HeartbeatHandle::start(
        Arc::clone(&worker.heartbeat_store),
        Arc::clone(&worker.clock),
        info,
        bindings.clone(),
        &worker.background,
    )
    .await?;
    let node: Arc<str> = Arc::from(options.name.as_str());
    let origin: Arc<str> =
        Arc::from(format!("gen{}@{}", std::process::id(), host_of(&options.name)));
    let control = Arc::new(options.control.clone());
    let (emitter, recording) =
        Emitter::new(Arc::clone(&worker.store), emitter_options(&worker, &node));
    let mut background = JoinSet::new();
    background.spawn(worker.background.prepare(recording));
    // What runs can always hand over its outcome: the loop never waits for the settler.
    let (settler, requests) = mpsc::channel(SETTLING_MAX.max(options.concurrency * 2));
    let serving = settler::serve(
        Arc::clone(&worker.store),
        requests,
        Arc::clone(&heartbeat.pulse),
        Arc::clone(&worker.clock),
        worker.spill.clone(),
    );
    background.spawn(worker.background.prepare(serving));
    let (to_loop, words) = mpsc::channel(WORDS_MAX);
    let pulse = &heartbeat.pulse;
    let (peers, wanted, known) = Peers::new(&worker);
    let finisher = finisher(&worker, Arc::clone(&node), Arc::clone(&origin));
    let mut housekeeping = keep_house(&worker, &node, &control, &emitter, pulse, to_loop, peers);
    keep_chords(&mut housekeeping, &worker, &finisher);
    let mut machine =
        Machine::new(Arc::clone(&worker.registry), options.concurrency, options.grace);
    *machine.orders_mut() = Orders::new(control.limits);
    let queues = options.queues.clone();
    let revokes_read = newest_revoke(&*worker.store).await?;
    let rates = OwnRates::of(&worker.registry);
    let idle_since = worker.clock.boot();
    let scaler = options.autoscale.map(|bounds| Autoscaler::new(bounds, idle_since));
    let held = Held::default();
    let shared = Arc::new(Shared { worker, node, origin, finisher, emitter, held });
    let mut looping = Loop {
        shared,
        machine,
        tasks: JoinSet::new(),
        by_task: BTreeMap::new(),
        telling: JoinSet::new(),
        herald: Herald::new(control.heartbeat),
        in_flight: BTreeMap::new(),
        settler,
        heartbeat,
        pool,
        watchdog: None,
        stuck: watch::Sender::new(None),
        losses_handled: 0,
        revokes_read,
        rates,
        scaler,
        strangers: Strangers::default(),
        wanted,
        known,
        queues,
        bindings,
        totals: BTreeMap::new(),
        control,
        words,
        renewals,
        began: idle_since,
        idle_since,
        strays: false,
        outdated: None,
        report: WorkerReport::default(),
    };
    looping.serve().await;
    drop(housekeeping);
    let stuck = looping.stuck.borrow().clone();
    if let Some(text) = stuck {
        return Err(WorkerError::Stuck(text));
    }
    // It cannot even sign off: its leases run out, and newer workers take what it held.
    if let Some(error) = looping.outdated.take() {
        return Err(WorkerError::Store(error));
    }
    looping.finish(background).await
}

/// The children that run tasks, if any do.
async fn start_children(
    children: Option<&Children>,
) -> Result<Option<Box<dyn TaskPool>>, WorkerError> {
    let Some(children) = children else { return Ok(None) };
    children.clone().start().await.map(Some).map_err(WorkerError::Children)
}

async fn newest_revoke(store: &dyn Store) -> Result<i64, StoreError> {
    let mut newest = 0;
    loop {
        let page = store.revokes_since(newest).await?;
        match page.last() {
            Some(last) => newest = last.number,
            None => return Ok(newest),
        }
    }
}

impl Loop {
    fn worker(&self) -> &Worker {
        &self.shared.worker
    }

    async fn serve(&mut self) {
        let mut stop = self.worker().stop.0.subscribe();
        let mut stuck = self.stuck.subscribe();
        let mut losses = self.heartbeat.losses.clone();
        let mut outdated = self.heartbeat.outdated.clone();
        let mut known = self.known.clone();
        let store = Arc::clone(&self.worker().store);
        let (_always, endless) = watch::channel(usize::MAX);
        let mut children = self.pool.as_ref().map_or(endless, |pool| pool.ready());
        let mut look = Look::Now;
        let mut revokes_at = tokio::time::Instant::now();
        self.announce(News::Ready);
        self.worker().tell(|| Notice::Ready);
        loop {
            let asked = *stop.borrow_and_update();
            self.heard_stop(asked);
            self.perform(Event::Stop(asked.stop)).await;
            let busy = matches!(look, Look::Fetching { .. }) || !self.telling.is_empty();
            if self.machine.is_finished() && !busy {
                return;
            }
            // A slot without a child fetches nothing.
            let ready = *children.borrow_and_update();
            // Not in one line: the borrow would last, and asking the pool once more waits for it.
            let room = self.room(ready);
            if matches!(look, Look::Now) && room > 0 {
                let worker = self.worker();
                let (boot, times) = (worker.clock.boot(), worker.options.lease_times);
                look = if self.heartbeat.pulse.may_fetch(boot, times) {
                    self.machine.fetch_begins();
                    let (seen, losses) = (store.changes(), *self.heartbeat.losses.borrow());
                    Look::Fetching { seen, losses, answer: self.fetch(room) }
                } else {
                    Look::Paused { until: tokio::time::Instant::now() + FETCH_PAUSE }
                };
            }
            let tick = self.next_tick();
            let running = self.machine.active() > 0;
            // Ended tasks may keep the select busy: what is due must not wait for a quiet moment.
            let now = tokio::time::Instant::now();
            if now >= tick {
                self.perform(Event::Tick).await;
            }
            if running && now >= revokes_at {
                self.read_revokes().await;
                revokes_at = tokio::time::Instant::now() + REVOKES_EVERY;
            }
            if self.scale() {
                look = look.anew();
            }
            tokio::select! {
                biased;
                // All branches are cancel safe: watch, channel and bell keep their state, the JoinSet and
                // the fetch in `look` live outside the select, sleeps are to fixed instants.
                Ok(()) = stuck.changed() => return,
                _ = stop.changed() => {}
                Ok(()) = losses.changed() => {
                    self.losses_handled = *losses.borrow();
                    self.perform(Event::LeaseLost).await;
                }
                Ok(()) = outdated.changed() => {
                    let text = outdated.borrow_and_update().clone().unwrap_or_default();
                    self.stop_as_outdated(StoreError::new(ErrorKind::Outdated, text));
                }
                Ok(()) = children.changed() => {}
                Ok(()) = known.changed() => {
                    let known = known.borrow_and_update().clone();
                    self.learn(&known);
                    look = look.anew();
                }
                Some(word) = self.words.recv() => {
                    let more = self.heed(word);
                    if more {
                        look = look.anew();
                    }
                }
                Some(renewal) = self.renewals.recv() => {
                    self.renew(renewal).await;
                    look = look.anew();
                }
                Some(Ok(heard)) = self.telling.join_next() => self.told(heard).await,
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended).await;
                    self.idle_since = self.worker().clock.boot();
                }
                next = look.next(&*store) => look = if let Some((seen, losses, fetched)) = next {
                    self.fetched(seen, losses, fetched).await
                } else {
                    // What rang may be a revocation. An idle worker has nothing to end: the store itself
                    // refuses what was revoked before it is fetched.
                    if running {
                        self.read_revokes().await;
                    }
                    Look::Now
                },
                () = self.herald.beat() => self.announce(News::Heartbeat),
                () = tokio::time::sleep_until(tick.min(revokes_at)), if running => {}
                () = tokio::time::sleep_until(tick) => {}
            }
        }
    }

    /// How many messages may be fetched with so many children.
    fn room(&self, children: usize) -> usize {
        if self.queues.is_empty() {
            return 0;
        }
        // What waits for the app to be told holds its message here.
        let behind = self.worker().observers.iter().any(|observer| observer.is_behind());
        if behind || self.telling.len() >= TELLING_MAX {
            return 0;
        }
        let active = self.machine.active();
        let outcomes = self.settler.capacity().saturating_sub(active);
        let ahead = self.pool.as_ref().map_or(0, |pool| pool.look_ahead());
        let children = children.saturating_add(ahead).saturating_sub(active);
        self.machine.free(ahead).min(children).min(outcomes)
    }

    fn fetch(&self, count_max: usize) -> BoxFuture<'static, Fetched> {
        let boot = self.worker().clock.boot();
        let request = FetchRequest {
            node: self.heartbeat.pulse.node(),
            queues: self.queues.clone(),
            count_max,
            suspects: self.machine.takes_suspects(),
            caps: self.rates.caps(boot).into_iter().chain(self.strangers.caps()).collect(),
        };
        let store = Arc::clone(&self.worker().store);
        let known = self.strays.then(|| self.shared.held.all());
        Box::pin(async move {
            if let Some(known) = known {
                let returned = store.return_strays(request.node, known).await?;
                tracing::warn!(returned, "messages of a fetch without an answer are back");
            }
            store.fetch(request).await
        })
    }

    fn stop_as_outdated(&mut self, error: StoreError) {
        tracing::error!(%error, "this worker is older than its store and stops");
        self.outdated = Some(error);
        self.worker().stop.now();
    }

    /// Takes over fetched messages and says when to look again.
    async fn fetched(&mut self, seen: u64, losses: u64, fetched: Fetched) -> Look {
        let deliveries = match fetched {
            Ok(deliveries) => deliveries,
            Err(error) if error.kind() == ErrorKind::Outdated => {
                self.stop_as_outdated(error);
                return Look::Paused { until: tokio::time::Instant::now() + FETCH_PAUSE };
            }
            Err(error) => {
                tracing::warn!(%error, "cannot fetch, trying again");
                self.strays |= error.kind() == ErrorKind::Unknown;
                return Look::Paused { until: tokio::time::Instant::now() + FETCH_PAUSE };
            }
        };
        self.strays = false;
        self.shared.held.add(deliveries.iter().map(|delivery| delivery.lease));
        if deliveries.is_empty() {
            let until = self.look_again().await;
            self.stop_when_idle();
            return Look::Waiting { seen, until };
        }
        self.rates.count(&deliveries, self.worker().clock.boot());
        if losses != *self.heartbeat.losses.borrow() {
            // Leased under a node that is dead by now.
            self.give_back(deliveries.into_iter().map(|delivery| delivery.lease).collect()).await;
            return Look::Now;
        }
        reach(Step::Fetched);
        // One that is only to be set aside was received by the worker that ran it.
        let known = |one: &&Delivery| {
            let task = one.message.headers.task().unwrap_or_default();
            !one.acknowledged && self.worker().registry.find(task).is_some()
        };
        let mut any_known = false;
        for delivery in deliveries.iter().filter(known) {
            any_known = true;
            if delivery.message.is_protocol_2() && !self.comes_too_late(delivery) {
                self.shared.emitter.received(delivery);
            }
        }
        if any_known {
            self.strangers.met_its_own();
        }
        self.perform(Event::Fetched(deliveries)).await;
        match self.strangers.pause() {
            Some(pause) => Look::Paused { until: tokio::time::Instant::now() + pause },
            None => Look::Now,
        }
    }

    /// A worker with `idle_stop` ends when nothing came for so long.
    fn stop_when_idle(&self) {
        let idle = self.worker().clock.boot().saturating_sub(self.idle_since);
        let over = self.worker().options.idle_stop.is_some_and(|limit| idle >= limit);
        if over && self.machine.active() == 0 {
            self.worker().stop.grace();
        }
    }

    async fn read_revokes(&mut self) {
        let reading = self.worker().store.revokes_since(self.revokes_read);
        let Some(read) = self.side_call(reading).await else { return };
        match read {
            Ok(revokes) => {
                if let Some(last) = revokes.last() {
                    self.revokes_read = last.number;
                    let ids =
                        revokes.into_iter().filter(|one| one.terminate).map(|one| one.task_id);
                    self.perform(Event::Terminated(ids.collect())).await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the revocations, trying again"),
        }
    }

    async fn perform(&mut self, event: Event) {
        let (now, wall) = (self.worker().clock.boot(), self.worker().clock.wall());
        for action in self.machine.step(event, now, wall) {
            match action {
                Action::Start(start) => self.start(*start, now, wall),
                Action::Refuse(delivery, body, refusal) => {
                    self.refuse(*delivery, &body, refusal).await;
                }
                Action::Meet(delivery, body) => self.meet(*delivery, &body).await,
                Action::Cancel(lease, reason) => {
                    if let Some(task) = self.in_flight.get(&lease) {
                        self.say_terminated(task, reason);
                        task.cancellation.cancel(reason);
                    }
                }
                Action::Abort(lease) => {
                    if let Some(task) = self.in_flight.get(&lease) {
                        task.abort.abort();
                    }
                }
                Action::Settle(lease, outcome) => self.conclude(lease, outcome).await,
                Action::Forget(lease) => {
                    self.shared.held.remove(lease);
                    drop(self.in_flight.remove(&lease));
                }
                Action::MarkStarted(started) => {
                    let runs = |begun: &Begun| {
                        let task = self.in_flight.get(&begun.lease);
                        task.is_some_and(|task| task.begun.load(Ordering::Acquire))
                    };
                    let (started, waiting): (Vec<_>, Vec<_>) = started.into_iter().partition(runs);
                    self.machine.unmarked(&waiting, now + ACKNOWLEDGE_AFTER);
                    if started.is_empty() {
                        continue;
                    }
                    let marked = self.worker().store.mark_started(started.clone());
                    // It must not hold up the worker.
                    let answer = self.side_call(marked).await;
                    if let Some(Err(error)) = &answer {
                        tracing::debug!(%error, "cannot note that tasks run");
                    }
                    if !matches!(answer, Some(Ok(()))) {
                        self.machine.unmarked(&started, now + MARK_PAUSE);
                    }
                }
                Action::Return(leases) => self.give_back(leases).await,
            }
        }
        self.heartbeat.pulse.active.store(self.machine.active() as u64, Ordering::Relaxed);
    }

    fn start(&mut self, start: Start, began: Duration, started_at: Timestamp) {
        if let Some(scaler) = &mut self.scaler {
            scaler.received(began);
        }
        let delivery = Arc::new(start.delivery);
        let name = delivery.message.headers.task().unwrap_or_default();
        let Some(handler) = self.worker().registry.find(name) else { return };
        let cancellation = Cancellation::default();
        let now = tokio::time::Instant::now();
        let context = RunContext {
            delivery: Arc::clone(&delivery),
            store: Arc::clone(&self.worker().store),
            clock: Arc::clone(&self.worker().clock),
            cancellation: cancellation.clone(),
            node: Arc::clone(&self.shared.node),
            started_at,
            soft_deadline: start.soft.map(|limit| now + limit),
            hard_deadline: start.hard.map(|limit| now + limit),
            trail: Trail::default(),
            result_extended: handler.policy().result_extended,
            begun: Arc::new(AtomicBool::new(!handler.takes_bytes())),
        };
        let runs = Arc::clone(&context.begun);
        let ran = Ran { started_at, trail: context.trail.clone() };
        let embed = start.body.embed.clone();
        *self.totals.entry(name.to_owned()).or_default() += 1;
        let id = delivery.message.headers.id().unwrap_or_default();
        tracing::debug!(task_id = id, task = name, queue = %delivery.queue, "task received");
        if start.was_old {
            self.shared.emitter.received(&delivery);
        }
        self.shared.emitter.started(id);
        self.worker().tell(|| Notice::Received(Arc::clone(&delivery)));
        let run = match &self.pool {
            Some(pool) => pool.run(context),
            None => handler.run(context, start.body),
        };
        let lease = delivery.lease;
        let strict = self.worker().options.strict_early_ack && !handler.policy().acks.late;
        let run = if strict {
            let mark = Begun { lease, at: started_at, acknowledged: true };
            acknowledged_first(Arc::clone(&self.worker().store), mark, run)
        } else {
            run
        };
        if let (Some(limit), None) = (start.hard, &self.pool) {
            self.watch(Watched {
                delivery: Arc::clone(&delivery),
                embed: embed.clone(),
                ran: ran.clone(),
                limit,
                ends: began + limit,
            });
        }
        let abort = self.tasks.spawn(run);
        self.by_task.insert(abort.id(), lease);
        let limit = start.hard;
        let task =
            InFlight { delivery, embed, cancellation, abort, ran, began, begun: runs, limit };
        self.in_flight.insert(lease, task);
        reach(Step::Started);
    }

    /// Has a task of the async pool watched in case it does not yield at its hard limit.
    fn watch(&mut self, task: Watched) {
        if self.watchdog.is_none() && matches!(self.worker().background, Background::OwnThread) {
            let (shared, pulse) = (Arc::clone(&self.shared), Arc::clone(&self.heartbeat.pulse));
            match Watchdog::start(shared, pulse, self.stuck.clone()) {
                Ok(watchdog) => self.watchdog = Some(watchdog),
                Err(error) => {
                    tracing::error!(%error, "hard limits are kept only by tasks that yield");
                }
            }
        }
        if let Some(watchdog) = &self.watchdog {
            watchdog.add(task.delivery.lease, task);
        }
    }

    async fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => {
                let id = error.id();
                (id, outcome_of_join_error(error))
            }
        };
        reach(Step::Ended);
        if let Some(lease) = self.by_task.remove(&id) {
            if let Some(watchdog) = &self.watchdog {
                watchdog.remove(lease);
            }
            self.perform(Event::Ended(lease, outcome)).await;
        }
    }

    async fn conclude(&mut self, lease: Lease, outcome: Outcome) {
        let Some(task) = self.in_flight.remove(&lease) else { return };
        if let Some((task, outcome)) = self.tell_of(task, outcome) {
            self.conclude_task(task, outcome).await;
        }
    }

    async fn conclude_task(&mut self, task: InFlight, mut outcome: Outcome) {
        let events = events_of(&mut outcome);
        let delivery = Arc::clone(&task.delivery);
        // What Celery's tracer did not follow up is followed up here.
        // Of what it did, the body of a chord is remembered.
        let unread = self.worker().registry.takes_bytes(&delivery.message)
            && (!matches!(outcome, Outcome::Traced(_))
                || delivery.message.headers.group().is_some());
        let embed = if unread { embed_of(&delivery.message) } else { task.embed };
        let conclusion =
            self.shared.conclusion(&delivery, &embed, Some(&task.ran), |run, sender| {
                conclude::conclude(run, outcome, sender)
            });
        let runtime = self.worker().clock.boot().saturating_sub(task.began);
        let again = matches!(conclusion.verdict, Verdict::ChildLost(_))
            && self.worker().registry.takes_bytes(&delivery.message);
        let events = if again { Some(requeued()) } else { events };
        self.settle(delivery, embed, conclusion, runtime, events).await;
    }

    async fn refuse(&mut self, delivery: Delivery, body: &Body, refusal: Refusal) {
        if let Some((delivery, refusal)) = self.tell_of_refused(delivery, refusal) {
            self.refuse_natively(delivery, body, refusal).await;
        }
    }

    async fn refuse_natively(&mut self, mut delivery: Delivery, body: &Body, refusal: Refusal) {
        // Such a message was not decoded: what hangs on it must be told all the same.
        let embed = match refusal {
            Refusal::Poison | Refusal::Lost => {
                let now = self.worker().clock.wall();
                // One that cannot be opened cannot be read either.
                let _sealed = self.worker().registry.seals().open(&mut delivery.message, now);
                match codec::read(&delivery.message, Accept::default()) {
                    Ok(read) => {
                        delivery.message = read.upgraded.unwrap_or(delivery.message);
                        read.body.embed
                    }
                    Err(_) => Embed::default(),
                }
            }
            _ if self.worker().registry.takes_bytes(&delivery.message) => {
                embed_of(&delivery.message)
            }
            _ => body.embed.clone(),
        };
        let conclusion =
            self.shared.conclusion(&delivery, &embed, None, |run, sender| match refusal {
                Refusal::Revoked => conclude::revoke(run, false, false, sender),
                Refusal::Expired => conclude::revoke(run, false, true, sender),
                Refusal::Early => conclude::postpone(run),
                Refusal::Dead(reason, failure) => conclude::set_aside(run, reason, failure, sender),
                Refusal::Poison => {
                    let deaths = run.delivery.suspicion.seen;
                    let text = format!("{deaths} workers died while they ran it");
                    let failure = Failure::permanent(ExceptionInfo::worker_lost(&text));
                    conclude::set_aside(run, DeadReason::Poison, failure, sender)
                }
                Refusal::Lost => {
                    let failure = Failure::permanent(ExceptionInfo::worker_lost(worker_lost(true)));
                    conclude::set_aside(run, DeadReason::WorkerLost, failure, sender)
                }
            });
        self.settle(Arc::new(delivery), embed, conclusion, Duration::ZERO, None).await;
    }

    async fn settle(
        &mut self,
        delivery: Arc<Delivery>,
        embed: Embed,
        conclusion: Conclusion,
        runtime: Duration,
        events: Option<Vec<TracedEvent>>,
    ) {
        self.count(&conclusion.verdict);
        let shown = if self.worker().registry.takes_bytes(&delivery.message) {
            matches!(conclusion.verdict, Verdict::ChildLost(_))
                || matches!(conclusion.fate, Fate::Dead { .. })
        } else {
            true
        };
        // Celery's own lines tell the rest.
        if shown {
            log_end(&delivery, &conclusion, runtime);
        }
        reach(Step::Concluded);
        let sent = self.shared.emitter.to_be_sent(&conclusion.plan.publish);
        let settlement = self.shared.settlement(delivery.lease, conclusion.fate, conclusion.plan);
        let shared = Arc::clone(&self.shared);
        let at = self.worker().clock.wall();
        let ended = Ended { verdict: conclusion.verdict, runtime, at, events };
        let settler = self.settler.downgrade();
        let held = Arc::clone(&delivery);
        let report = Box::new(move |written: Written| {
            if matches!(written, Written::Done) {
                shared.emitter.sent(&sent);
            }
            shared.written(&delivery, &embed, &ended, written, &settler);
        });
        let request = Request { settlement, delivery: Some(held), report };
        if self.settler.send(request).await.is_err() {
            tracing::error!("the settler has ended; the message runs again elsewhere");
        }
    }

    fn count(&mut self, verdict: &Verdict) {
        if !matches!(verdict, Verdict::Returned | Verdict::ChildLost(_)) {
            self.report.processed += 1;
            self.heartbeat.pulse.processed.fetch_add(1, Ordering::Relaxed);
        }
        match verdict {
            Verdict::Succeeded(_) => self.report.succeeded += 1,
            Verdict::Failed(_) => self.report.failed += 1,
            Verdict::Returned => self.report.returned += 1,
            _ => {}
        }
    }

    /// Messages that were fetched while a stop came in.
    async fn give_back(&mut self, leases: Vec<Lease>) {
        self.report.returned += leases.len() as u64;
        for lease in leases {
            let fate = Fate::Release { place: Place::Head, attempt: None };
            let settlement = self.shared.settlement(lease, fate, Plan::default());
            let shared = Arc::clone(&self.shared);
            let report = Box::new(move |_written: Written| shared.held.remove(lease));
            let request = Request { settlement, delivery: None, report };
            if self.settler.send(request).await.is_err() {
                return;
            }
        }
    }

    /// Writes what is left and signs off.
    async fn finish(self, mut background: JoinSet<()>) -> Result<WorkerReport, WorkerError> {
        let Self { shared, settler, heartbeat, watchdog, pool, herald, tasks, mut report, .. } =
            self;
        // What still runs was abandoned: dropped here, its child is killed.
        drop(tasks);
        let pool_ends = async {
            let Some(pool) = pool else { return };
            let stopped = pool.announce(News::Stopped);
            pool.stop().await;
            herald.finish(stopped).await;
        };
        drop(settler);
        drop(watchdog);
        let emitter = shared.emitter.clone();
        let store = Arc::clone(&shared.worker.store);
        let observers = shared.worker.observers.clone();
        if let Some(period) = shared.worker.options.control.heartbeat {
            emitter.offline(heartbeat.pulse.beat(period));
        }
        drop(shared);
        report.events_dropped = emitter.dropped();
        drop(emitter);
        let written = async { while background.join_next().await.is_some() {} };
        let (written, ()) = tokio::join!(tokio::time::timeout(LAST_WRITES, written), pool_ends);
        if written.is_err() {
            tracing::error!("the store does not take the last results; their tasks run again");
        }
        let signed_off = heartbeat.stop(&*store).await;
        for observer in observers {
            observer.notice(Notice::Stopped);
            observer.finish().await;
        }
        report.returned += signed_off?;
        Ok(report)
    }
}
