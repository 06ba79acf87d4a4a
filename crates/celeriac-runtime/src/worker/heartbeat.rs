//! Keeps the leases: a thread with a runtime and a store connection of its own, so that neither a
//! busy task nor a slow write can starve it, unless [`Background`] says otherwise. It also sweeps
//! dead nodes.

use super::background::Background;
use super::declare::{declare, queues_of};
use super::emitter::Beat;
use celeriac_core::exchange::Binding;
use celeriac_core::lease::{LeaseTimes, SweepGuard, may_take_more, must_fence_itself};
use celeriac_core::store::{Heartbeat, NodeId, NodeInfo, Store};
use celeriac_core::{Clock, ErrorKind, StoreError};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Expired results are deleted so many at a time, once a heartbeat.
const EXPIRE_MAX: usize = 1000;

/// What the worker and its heartbeat thread share.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The node, 0 before the first registration.
    node: AtomicI64,
    /// When the leases were last renewed, in microseconds of the boot clock.
    renewed: AtomicU64,
    /// Tasks running now.
    pub(super) active: AtomicU64,
    /// Tasks ended since start.
    pub(super) processed: AtomicU64,
    /// Set by the settler: settlements wait for room, so nothing new is fetched.
    pub(super) blocked: AtomicBool,
    /// Set while the leases are lost and no new node is registered. What is fetched then goes back
    /// with the old node, while it runs.
    lost: AtomicBool,
    /// Set by the worker: stop renewing.
    ended: AtomicBool,
    /// What the node consumes and how many slots it has, once that differs from its start.
    shape: Mutex<Option<Shape>>,
}

/// What may change while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) queues: Vec<Binding>,
    pub(super) slots: u32,
}

impl Pulse {
    /// Whether a fetch makes sense now (boot clock). An owner that comes back after its lease renews
    /// first.
    pub(super) fn may_fetch(&self, now: Duration, times: LeaseTimes) -> bool {
        may_take_more(now.saturating_sub(self.renewed()), times)
            && !self.lost.load(Ordering::Acquire)
            && !self.blocked.load(Ordering::Acquire)
    }

    fn renewed(&self) -> Duration {
        Duration::from_micros(self.renewed.load(Ordering::Acquire))
    }

    fn renew(&self, at: Duration) {
        self.renewed.store(at.as_micros() as u64, Ordering::Release);
    }

    /// Ends renewing and fetching: the node is signed off by somebody else.
    pub(super) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn set_shape(&self, shape: Shape) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = Some(shape);
    }

    pub(super) fn shape(&self) -> Option<Shape> {
        self.shape.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a worker event tells now.
    pub(super) fn beat(&self, period: Duration) -> Beat {
        let active = self.active.load(Ordering::Relaxed);
        Beat { period, active, processed: self.processed.load(Ordering::Relaxed) }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Acquire))
    }
}

/// The heartbeat of one worker.
#[derive(Debug)]
pub(super) struct HeartbeatHandle {
    pub(super) pulse: Arc<Pulse>,
    /// Grows whenever the leases were lost.
    pub(super) losses: watch::Receiver<u64>,
    /// What the store said when it became newer than this program.
    pub(super) outdated: watch::Receiver<Option<String>>,
    running: Running,
    wake: Arc<tokio::sync::Notify>,
}

/// Where it runs. A dropped set aborts its task; a thread sees that it is to end.
#[derive(Debug)]
enum Running {
    Thread(Option<std::thread::JoinHandle<()>>),
    Task(JoinSet<()>),
}

impl HeartbeatHandle {
    /// Declares what the node consumes, registers it and starts renewing.
    pub(super) async fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        info: NodeInfo,
        bindings: Vec<Binding>,
        background: &Background,
    ) -> Result<Self, StoreError> {
        declare(&*store, &bindings).await?;
        let pulse = Arc::new(Pulse::default());
        let renewed = clock.boot();
        pulse.renew(renewed);
        pulse.node.store(store.register(info.clone()).await?.0, Ordering::Release);
        let (loss, losses) = watch::channel(0);
        let (newer, outdated) = watch::channel(None);
        let wake = Arc::new(tokio::sync::Notify::new());
        let mut guard = SweepGuard::new(info.times);
        // The store has just answered: what a dead worker held is back one expiry after this start.
        guard.reached(clock.boot());
        let keeper = Keeper {
            store,
            clock,
            info,
            bindings,
            pulse: Arc::clone(&pulse),
            loss,
            newer,
            guard,
            failing: false,
            stood_at: None,
        };
        let woken = Arc::clone(&wake);
        let running = match background {
            Background::OwnThread => Running::Thread(Some(keeper.run_on_a_thread(woken)?)),
            Background::SameRuntime(_) => {
                let mut set = JoinSet::new();
                set.spawn(background.prepare(async move { keeper.keep(&woken).await }));
                Running::Task(set)
            }
        };
        Ok(Self { pulse, losses, outdated, running, wake })
    }

    /// Stops renewing and signs the node off; what it still holds goes back.
    pub(super) async fn stop(mut self, store: &dyn Store) -> Result<u64, StoreError> {
        self.pulse.ended.store(true, Ordering::Release);
        self.wake.notify_one();
        // A panic of the heartbeat was logged by the panic hook; signing off is still right.
        match &mut self.running {
            Running::Thread(thread) => {
                if let Some(thread) = thread.take() {
                    let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
                }
            }
            Running::Task(set) => while set.join_next().await.is_some() {},
        }
        store.deregister(self.pulse.node()).await
    }
}

/// A worker whose future is dropped must not keep its leases alive: the thread ends, the leases run
/// out, and others take the tasks.
impl Drop for HeartbeatHandle {
    fn drop(&mut self) {
        self.pulse.ended.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

struct Keeper {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    info: NodeInfo,
    bindings: Vec<Binding>,
    pulse: Arc<Pulse>,
    loss: watch::Sender<u64>,
    newer: watch::Sender<Option<String>>,
    guard: SweepGuard,
    /// The last beat had no answer.
    failing: bool,
    /// When the store last said that nobody has taken the leases (boot clock).
    stood_at: Option<Duration>,
}

/// A call that must not hold up the next beat.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_elapsed| {
        let kind = celeriac_core::ErrorKind::Unavailable;
        Err(StoreError::new(kind, format!("no answer within {limit:?}")))
    })
}

impl Keeper {
    fn run_on_a_thread(
        self,
        wake: Arc<tokio::sync::Notify>,
    ) -> Result<std::thread::JoinHandle<()>, StoreError> {
        let refuse = |error: std::io::Error| {
            StoreError::new(celeriac_core::ErrorKind::Unavailable, "start the heartbeat thread")
                .because(error)
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(refuse)?;
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || runtime.block_on(self.keep(&wake)))
            .map_err(refuse)
    }

    async fn keep(mut self, wake: &tokio::sync::Notify) {
        while !self.pulse.ended.load(Ordering::Acquire) {
            // Woken early only to end.
            let _elapsed = tokio::time::timeout(self.pause(), wake.notified()).await;
            if self.pulse.ended.load(Ordering::Acquire) {
                return;
            }
            self.beat().await;
        }
    }

    /// What is left of the lease; `None` when it is lost or over.
    fn left(&self) -> Option<Duration> {
        let silent = self.clock.boot().saturating_sub(self.pulse.renewed());
        let left = self.info.times.expiry.checked_sub(silent)?;
        (!left.is_zero() && !self.is_lost()).then_some(left)
    }

    /// How long to wait for the next beat: shorter after a failure, and never past the lease.
    fn pause(&self) -> Duration {
        let heartbeat = self.info.times.heartbeat;
        let pause = if self.failing {
            heartbeat / 4
        } else if self.is_lost() {
            heartbeat
        } else {
            // Counted from the last one: what else is done with a beat does not make the next late.
            heartbeat.saturating_sub(self.clock.boot().saturating_sub(self.pulse.renewed()))
        };
        self.left().map_or(pause, |left| pause.min(left.saturating_sub(self.question())))
    }

    /// How long a beat may take. One that hangs leaves time for another, and the lease does not run
    /// out unnoticed. An owner that comes back after its lease (from a suspended machine) may ask
    /// whether anybody took it.
    fn patience(&self) -> Duration {
        let half = self.info.times.expiry / 2;
        // Past its lease it lives on the word of reads, and asks often.
        self.left().map_or(self.info.times.heartbeat, |left| {
            half.min(left.saturating_sub(self.question()))
        })
    }

    /// The end of the lease that is kept for a read: has anybody taken it?
    fn question(&self) -> Duration {
        self.info.times.heartbeat / 8
    }

    async fn beat(&mut self) {
        let asked = self.clock.boot();
        let heartbeat = Heartbeat {
            active: self.pulse.active.load(Ordering::Relaxed) as u32,
            processed: self.pulse.processed.load(Ordering::Relaxed),
        };
        let renewal = self.store.heartbeat(self.pulse.node(), heartbeat);
        let answer = within(self.patience(), renewal).await;
        if self.pulse.ended.load(Ordering::Acquire) {
            // Given up meanwhile: somebody else settles what is left and signs this node off.
            return;
        }
        self.failing = answer.is_err();
        match answer {
            // Nobody else noticed the silence, but this worker has dropped its tasks: their leases
            // go back with the old node, and a new one begins.
            Ok(true) if self.is_lost() => {
                self.guard.reached(self.clock.boot());
                match self.store.deregister(self.pulse.node()).await {
                    Ok(returned) => {
                        tracing::warn!(returned, "dropped tasks are back in their queues");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot give the dropped tasks back, trying again");
                        return;
                    }
                }
                self.register_anew().await;
            }
            Ok(true) => {
                self.pulse.renew(asked);
                self.guard.reached(self.clock.boot());
                self.sweep().await;
            }
            Ok(false) => {
                self.guard.reached(self.clock.boot());
                self.lose("another node declared this one dead");
                self.register_anew().await;
            }
            Err(error) => {
                self.guard.failed();
                tracing::warn!(%error, "cannot renew the leases");
                // A worker without a free child fetches nothing, and would not hear of it otherwise.
                if error.kind() == ErrorKind::Outdated {
                    self.newer.send_replace(Some(error.to_string()));
                }
                if !self.is_lost() {
                    self.fence_if_taken().await;
                }
            }
        }
    }

    /// Drops the running tasks when somebody else has them, or when that cannot be known.
    async fn fence_if_taken(&mut self) {
        let limit = self.left().map_or(self.question(), |left| left.min(self.question()));
        let stands = within(limit, self.store.stands(self.pulse.node())).await.ok();
        let now = self.clock.boot();
        if stands == Some(true) {
            self.stood_at = Some(now);
        }
        // On a busy machine an answer may come too late: one that is no older than a heartbeat counts.
        let just_said = |at: Duration| now.saturating_sub(at) <= self.info.times.heartbeat;
        let stands = stands.or(self.stood_at.is_some_and(just_said).then_some(true));
        // Without an answer the work ends with its lease, not after it.
        if stands.is_none()
            && let Some(left) = self.left().filter(|left| *left <= limit)
        {
            tokio::time::sleep(left).await;
        }
        let silent = self.clock.boot().saturating_sub(self.pulse.renewed());
        if must_fence_itself(silent, self.info.times, stands) {
            self.lose(match stands {
                Some(_) => "another node declared this one dead",
                None => "the store has not answered for one lease",
            });
        } else if silent >= self.info.times.expiry {
            tracing::warn!(?silent, "the store cannot be written; nobody has taken the tasks");
        }
    }

    fn is_lost(&self) -> bool {
        self.pulse.lost.load(Ordering::Acquire)
    }

    fn lose(&mut self, why: &str) {
        tracing::error!(why, "leases lost; running tasks are dropped and run again elsewhere");
        self.pulse.lost.store(true, Ordering::Release);
        self.loss.send_modify(|count| *count += 1);
    }

    async fn register_anew(&mut self) {
        let asked = self.clock.boot();
        if let Some(shape) = self.pulse.shape() {
            (self.info.queues, self.info.concurrency) = (queues_of(&shape.queues), shape.slots);
            self.bindings = shape.queues;
        }
        // Who has lost the node may have lost the bindings, too.
        if let Err(error) = declare(&*self.store, &self.bindings).await {
            tracing::warn!(%error, "cannot declare the queues anew, trying again");
            return;
        }
        match self.store.register(self.info.clone()).await {
            Ok(node) => {
                self.pulse.node.store(node.0, Ordering::Release);
                self.pulse.renew(asked);
                self.pulse.lost.store(false, Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "cannot register anew, trying again"),
        }
    }

    async fn sweep(&mut self) {
        let limit = self.info.times.heartbeat;
        if self.guard.may_sweep(self.clock.boot()) {
            match within(limit, self.store.sweep()).await {
                Ok(swept) if swept.dead_nodes.is_empty() => {}
                Ok(swept) => tracing::warn!(
                    dead = swept.dead_nodes.join(", "),
                    requeued = swept.requeued,
                    poisoned = swept.poisoned,
                    lost = swept.lost,
                    "messages of dead workers returned"
                ),
                Err(error) => tracing::warn!(%error, "cannot look for dead workers"),
            }
        }
        if let Err(error) = within(limit, self.store.expire_results(EXPIRE_MAX)).await {
            tracing::warn!(%error, "cannot expire results");
        }
    }
}
