//! Listens to requests, answers them one after another, and exchanges revocations at start.

use super::super::declare::{declare, queues_of};
use super::super::emitter::Emitter;
use super::super::heartbeat::Pulse;
use super::snapshot::{Deed, Needs, Scheduled, Snapshot};
use super::{ControlOptions, answer, process};
use crate::worker::StopHandle;
use celeriac_core::control::is_addressed;
use celeriac_core::exchange::Binding;
use celeriac_core::store::{Phase, Requests, Store, TaskFilter, ask};
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target};
use celeriac_core::{Clock, Entropy, Lamport, StoreError, clock};
use celeriac_wire::{ControlReply, ControlRequest, Map, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The most words between this service and the worker's loop.
pub(in super::super) const WORDS_MAX: usize = 4;
/// The most scheduled messages in one answer.
const SCHEDULED_MAX: usize = 1000;
/// The most revoked tasks in one answer (celery 5.7.0 worker/state.py `REVOKES_MAX`).
const REVOKED_MAX: usize = 50_000;
/// The most samples of memory that are remembered.
const SAMPLES_MAX: usize = 1000;
/// How long an answer may wait for the store or the worker's loop.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a hello waits for answers (celery 5.7.0 app/control.py, timeout 1.0).
const HELLO: Duration = Duration::from_secs(1);
/// How long a failed listener waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the worker's loop is asked for.
pub(in super::super) enum Word {
    /// A picture of the worker now.
    Look(oneshot::Sender<Snapshot>),
    /// A change of the worker.
    Do(Deed, oneshot::Sender<()>),
}

/// One node's remote control.
pub(in super::super) struct Service {
    pub(in super::super) node: Arc<str>,
    pub(in super::super) store: Arc<dyn Store>,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) entropy: Arc<dyn Entropy>,
    pub(in super::super) options: Arc<ControlOptions>,
    pub(in super::super) emitter: Emitter,
    pub(in super::super) pulse: Arc<Pulse>,
    pub(in super::super) words: mpsc::Sender<Word>,
    pub(in super::super) stop: StopHandle,
    pub(in super::super) samples: VecDeque<String>,
}

impl Service {
    /// Runs until it is dropped.
    pub(in super::super) async fn serve(mut self) {
        let mut requests: Option<Box<dyn Requests>> = None;
        let mut mingled = !self.options.mingle || !self.store.has_stock_nodes();
        loop {
            let Some(listening) = requests.as_mut() else {
                match self.store.listen(&self.node).await {
                    Ok(listening) => requests = Some(listening),
                    Err(error) => {
                        tracing::warn!(%error, "cannot listen to remote control, trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                continue;
            };
            // What is asked meanwhile waits: first it is known what others have revoked.
            if !std::mem::replace(&mut mingled, true) {
                self.mingle().await;
            }
            match listening.next().await {
                Ok(request) => self.handle(&request).await,
                Err(error) => {
                    tracing::warn!(%error, "remote control is interrupted, listening anew");
                    requests = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn lamport(&self) -> &Lamport {
        self.emitter.lamport()
    }

    async fn handle(&mut self, request: &ControlRequest) {
        self.lamport().adjust(request.clock);
        match is_addressed(request, &self.node) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                tracing::warn!(why, "a control request is addressed to nobody");
                return;
            }
        }
        let method = request.method().unwrap_or_default();
        tracing::debug!(method, "control request");
        let reply = match tokio::time::timeout(PATIENCE * 2, self.answer(request, method)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Some(failure("the store or the worker did not answer in time")),
        };
        let (Some(reply), Some(to)) = (reply, request.reply_to()) else { return };
        let mut reply = ControlReply::new(request.ticket(), &self.node, reply);
        reply.clock = self.lamport().forward();
        let sending = self.store.reply(&to, &reply);
        match tokio::time::timeout(PATIENCE, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, method, "cannot reply to a control request"),
            Err(_elapsed) => tracing::warn!(method, "a reply to a control request was not taken"),
        }
    }

    /// The reply, after everything that it says is done.
    async fn answer(&mut self, request: &ControlRequest, method: &str) -> Option<Value> {
        let Some(mut snapshot) = self.look().await else {
            return Some(failure("the worker is ending"));
        };
        if let Err(error) = self.complete(&mut snapshot, Needs::of(method)).await {
            return Some(failure(&error.to_string()));
        }
        let answer = answer(request, &snapshot);
        for deed in answer.deeds {
            if let Err(error) = self.perform(deed, &snapshot).await {
                tracing::warn!(%error, method, "a control request failed");
                return Some(failure(&error.to_string()));
            }
        }
        answer.reply
    }

    async fn look(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.words.send(Word::Look(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Adds what the worker does not have in memory.
    async fn complete(&self, snapshot: &mut Snapshot, needs: Needs) -> Result<(), StoreError> {
        snapshot.samples = self.samples.iter().cloned().collect();
        if needs.process {
            snapshot.rusage = process::rusage();
            snapshot.memory = process::memory();
        }
        if needs.revoked {
            snapshot.revoked = revoked(&*self.store).await?;
        }
        if needs.scheduled {
            snapshot.scheduled = self.scheduled(snapshot).await?;
        }
        Ok(())
    }

    /// What waits for its time in the node's queues, the next first. Unlike a stock worker this one
    /// holds none of it; every node of a queue shows all of it.
    async fn scheduled(&self, snapshot: &Snapshot) -> Result<Vec<Scheduled>, StoreError> {
        let mut found = Vec::new();
        for Binding { queue, .. } in &snapshot.queues {
            for state in ["scheduled", "retry"] {
                let filter = TaskFilter {
                    state: Some(state.to_owned()),
                    queue: Some(queue.as_str().to_owned()),
                    count_max: SCHEDULED_MAX,
                    ..TaskFilter::default()
                };
                for task in self.store.tasks(&filter).await?.views {
                    if let (Phase::Scheduled { until, .. }, Some(message)) =
                        (task.phase, task.message)
                    {
                        let queue = queue.as_str().to_owned();
                        found.push(Scheduled { until, queue, message });
                    }
                }
            }
        }
        found.sort_by_key(|one| one.until);
        found.truncate(SCHEDULED_MAX);
        Ok(found)
    }

    async fn perform(&mut self, deed: Deed, snapshot: &Snapshot) -> Result<(), StoreError> {
        match deed {
            Deed::Revoke { ids, terminate, signal } => {
                if terminate && signal.is_some() {
                    let (done, heard) = oneshot::channel();
                    let deed = Deed::Revoke { ids: ids.clone(), terminate, signal };
                    if self.words.send(Word::Do(deed, done)).await.is_ok() {
                        // A worker that ends ends its tasks.
                        let _gone = heard.await;
                    }
                }
                tracing::info!(count = ids.len(), terminate, "tasks revoked by remote control");
                return self.store.revoke(&ids, terminate).await;
            }
            Deed::Rate { ref task, rate: Some(_) } => self.let_others_pass(task, snapshot).await?,
            Deed::Consume(ref binding) => self.declare(binding, snapshot).await?,
            Deed::TaskEvents(on) => {
                tracing::info!(on, "task events switched by remote control");
                self.emitter.set_task_events(on);
                return Ok(());
            }
            Deed::Beat => {
                self.emitter.asked_heartbeat();
                return Ok(());
            }
            Deed::Sample(text) => {
                if self.samples.len() >= SAMPLES_MAX {
                    self.samples.pop_front();
                }
                self.samples.push_back(text);
                return Ok(());
            }
            Deed::ForgetSamples => {
                self.samples.clear();
                return Ok(());
            }
            Deed::Shutdown => {
                tracing::warn!("shutdown by remote control");
                self.stop.grace();
                return Ok(());
            }
            _ => {}
        }
        let changed = matches!(deed, Deed::Consume(_) | Deed::Cancel(_) | Deed::Resize(_));
        let (done, heard) = oneshot::channel();
        // A worker that ends does not answer; what it was told to change ends with it.
        if self.words.send(Word::Do(deed, done)).await.is_ok() && heard.await.is_ok() && changed {
            self.tell_store().await;
        }
        Ok(())
    }

    /// What an operator names has to be bound, also where a declared queue of a direct exchange is
    /// reached by its name.
    async fn declare(&self, binding: &Binding, snapshot: &Snapshot) -> Result<(), StoreError> {
        let known = snapshot.router.binding_of(&binding.queue) == *binding;
        if known {
            return declare(&*self.store, std::slice::from_ref(binding)).await;
        }
        self.store.bind(vec![binding.clone()]).await
    }

    /// The store has to know which tasks have rates, so that others are not held up behind them.
    async fn let_others_pass(&self, task: &str, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut rules = snapshot.registry.limit_rules();
        let target = Target::Task(task.to_owned());
        if rules.iter().any(|rule| rule.target == target) {
            return Ok(());
        }
        rules.push(LimitRule {
            target,
            per_key: false,
            rates: Vec::new(),
            concurrency: None,
            origin: RuleOrigin::Application,
        });
        let tasks = snapshot.registry.names();
        self.store.declare_limits(&tasks, rules).await
    }

    /// Lets others see the node's new queues and slots. They are right when it registers anew, too.
    async fn tell_store(&self) {
        let Some(shape) = self.pulse.shape() else { return };
        let told =
            self.store.revise(self.pulse.node(), &queues_of(&shape.queues), shape.slots).await;
        if let Err(error) = told {
            tracing::warn!(%error, "the store does not know what this worker consumes now");
        }
    }

    /// Says hello to the others and takes over what they have revoked (celery 5.7.0
    /// worker/consumer/mingle.py).
    async fn mingle(&mut self) {
        tracing::info!("mingle: searching for neighbors");
        match self.exchange().await {
            Ok(0) => tracing::info!("mingle: all alone"),
            Ok(nodes) => {
                tracing::info!("mingle: sync with {nodes} nodes");
                tracing::info!("mingle: sync complete");
            }
            Err(error) => tracing::warn!(%error, "mingle: cannot ask the others"),
        }
    }

    async fn exchange(&self) -> Result<usize, StoreError> {
        let known = revoked(&*self.store).await?;
        let arguments = Map::from([
            ("from_node", Value::from(&*self.node)),
            ("revoked", known.iter().map(String::as_str).collect()),
        ]);
        let mut request = ControlRequest::new("hello", arguments);
        request.clock = self.lamport().forward();
        request.expires = (clock::after(self.clock.wall(), HELLO)).as_nanosecond() as f64 / 1e9;
        let id = clock::task_id(&*self.clock, &*self.entropy);
        let replies = ask(&*self.store, &id, request, HELLO, None).await?;
        let mut nodes = 0;
        let mut news: Vec<String> = Vec::new();
        for reply in &replies {
            self.lamport().adjust(reply.clock);
            for (node, answer) in reply.answers.iter().filter(|(node, _)| **node != *self.node) {
                tracing::debug!(node, "mingle: heard of");
                nodes += 1;
                self.lamport().adjust(answer.get("clock").and_then(Value::as_u64).unwrap_or(0));
                let ids = answer.get("revoked").and_then(Value::as_array).unwrap_or_default();
                news.extend(ids.iter().filter_map(Value::as_str).map(str::to_owned));
            }
        }
        let known: std::collections::BTreeSet<String> = known.into_iter().collect();
        news.retain(|id| !known.contains(id));
        news.truncate(REVOKED_MAX);
        if !news.is_empty() {
            self.store.revoke(&news, false).await?;
        }
        Ok(nodes)
    }
}

/// What a node answers when it cannot do what it was asked for.
fn failure(text: &str) -> Value {
    super::python::error(&format!("celeriac: {text}"))
}

/// The revoked tasks, the oldest first; of more than the bound the newest.
async fn revoked(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut ids = VecDeque::new();
    let mut after = 0;
    loop {
        let page = store.revokes_since(after).await?;
        let Some(last) = page.last() else { return Ok(ids.into()) };
        after = last.number;
        ids.extend(page.into_iter().map(|revoke| revoke.task_id));
        while ids.len() > REVOKED_MAX {
            ids.pop_front();
        }
    }
}
