//! Sends calls and gives handles on what was sent.

use crate::canvas::{Group, Workflow};
use crate::hooks::{Hooks, TaskInfo};
use crate::job::{GroupJob, Job, Reader};
use celeriac_core::event::{hours_west, task_sent};
use celeriac_core::route::Router;
use celeriac_core::seal::Seals;
use celeriac_core::store::{Outgoing, Plan, Published, Store};
use celeriac_core::trace::TraceContext;
use celeriac_core::trail::{Trail, children_of};
use celeriac_core::workflow::{self, Applied, Lineage, Sender};
use celeriac_core::{Clock, Entropy, ErrorKind, Lamport, StoreError, clock};
use celeriac_runtime::Prepared;
use celeriac_wire::{EventBase, Headers, Map, Signature};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// How long monitors may hold up who has sent something; then they are not told.
const TELL_DEADLINE: Duration = Duration::from_millis(200);
/// The deadline of a send (delivery contract).
const SEND_DEADLINE: Duration = Duration::from_secs(2);
/// The options that say together where a call goes.
const WAY: [&str; 3] = ["queue", "exchange", "routing_key"];

/// Why a send did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The call itself is wrong, or a hook refuses it: an argument that cannot be encoded, a malformed
    /// workflow.
    #[error("the call cannot be sent: {0}")]
    Invalid(String),
    /// The store refused it; nothing was enqueued.
    #[error("refused: {0}")]
    Refused(#[source] StoreError),
    /// No answer in time: it may have been enqueued. Sending again with the same task id is safe
    /// for tasks that may run twice.
    #[error("unknown whether it was enqueued: {0}")]
    Unknown(#[source] StoreError),
}

impl From<StoreError> for SendError {
    fn from(error: StoreError) -> Self {
        if error.kind() == ErrorKind::Unknown { Self::Unknown(error) } else { Self::Refused(error) }
    }
}

/// Sends calls. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    lineage: Option<Arc<Ancestry>>,
    /// Where the running task notes what it sends.
    trail: Option<Trail>,
}

pub(crate) struct Shared {
    pub(crate) router: Arc<Router>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) hooks: Arc<Hooks>,
    /// What runs of tasks have beside what their entries say, by the tasks' names.
    pub(crate) task_options: Arc<BTreeMap<String, Map>>,
    pub(crate) seals: Arc<Seals>,
    pub(crate) origin: String,
    /// Tells monitors what is sent.
    pub(crate) teller: Option<Teller>,
}

/// What is told once a plan is written.
struct News {
    /// To monitors.
    messages: Vec<Outgoing>,
    /// To hooks.
    tasks: Vec<TaskInfo>,
}

/// The task that sends through a client.
struct Ancestry {
    root_id: String,
    id: String,
    trace: Option<TraceContext>,
}

/// Makes the events of what is sent (Celery's `task_send_sent_event`).
pub(crate) struct Teller {
    pub(crate) zone: TimeZone,
    pub(crate) lamport: Lamport,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(store: Arc<dyn Store>, shared: Shared) -> Self {
        Self { store, shared: Arc::new(shared), lineage: None, trail: None }
    }

    /// The client of a running task: what it sends carries the task as parent and goes
    /// on with its trace, and is its child.
    pub(crate) fn for_task(&self, headers: &Headers, trail: Trail) -> Self {
        let id = headers.id().unwrap_or_default();
        let root_id = headers.root_id().unwrap_or(id).to_owned();
        let trace = TraceContext::of_run(headers);
        let lineage = Some(Arc::new(Ancestry { root_id, id: id.to_owned(), trace }));
        Self { lineage, trail: Some(trail), ..self.clone() }
    }

    /// The time of day, by the application's clock.
    pub fn now(&self) -> jiff::Timestamp {
        self.shared.clock.wall()
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Sends a call, a chain or a chord. When it returns `Ok`, the work is as durable as the store.
    ///
    /// # Errors
    /// [`SendError`] says whether nothing was sent or whether that is unknown.
    pub async fn send<W: Workflow>(&self, work: W) -> Result<Job<W::Output>, SendError> {
        let (signature, fault) = work.into_signature();
        let applied = self.apply(signature, fault)?;
        let id = applied.task_id.clone().ok_or_else(|| {
            SendError::Invalid("a group has no single result; use send_group".to_owned())
        })?;
        let published = self.publish(applied.plan).await?;
        let holder = published.duplicates.into_iter().next().map(|one| one.task_id);
        let job = self.job(&id);
        Ok(match holder {
            Some(holder) => job.held_by(holder),
            None => job,
        })
    }

    /// Sends a group; all of its tasks or none.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_group<R>(&self, group: Group<R>) -> Result<GroupJob<R>, SendError> {
        let empty = group.len() == 0;
        let (signature, fault) = group.into_signature();
        let applied = self.apply(signature, fault)?;
        let (id, members) = applied.group.unwrap_or_default();
        if !empty {
            self.publish(applied.plan).await?;
        }
        let jobs = members.iter().map(|id| self.job(id)).collect();
        Ok(GroupJob::new(id, jobs))
    }

    /// Sends many calls in one write, all or none: the fast way to enqueue.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_all<W: Workflow>(
        &self,
        works: impl IntoIterator<Item = W>,
    ) -> Result<Vec<Job<W::Output>>, SendError> {
        let mut plan = Plan::default();
        // Where the messages of each call begin, those for queues and those for exchanges.
        let (mut jobs, mut first, mut first_routed) = (Vec::new(), Vec::new(), Vec::new());
        for work in works {
            let (signature, fault) = work.into_signature();
            let applied = self.apply(signature, fault)?;
            let id = applied.task_id.ok_or_else(|| {
                SendError::Invalid("a group has no single result; use send_group".to_owned())
            })?;
            first.push(plan.publish.len());
            first_routed.push(plan.routed.len());
            plan.extend(applied.plan);
            jobs.push(self.job(&id));
        }
        let direct = plan.publish.len();
        let published = self.publish(plan).await?;
        for duplicate in published.duplicates {
            // The call whose messages begin last at or before this one.
            let (starts, index) = match duplicate.index.checked_sub(direct) {
                None => (&first, duplicate.index),
                Some(index) => (&first_routed, index),
            };
            let place = starts.partition_point(|start| *start <= index) - 1;
            let job: &mut Job<W::Output> = &mut jobs[place];
            *job = job.clone().held_by(duplicate.task_id);
        }
        Ok(jobs)
    }

    /// Sends prepared messages as they are, all or none: loads and moves. None is left out, also if
    /// another one holds its key.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_messages(&self, mut messages: Vec<Outgoing>) -> Result<(), SendError> {
        let now = self.now();
        for one in &mut messages {
            one.enqueued_at.get_or_insert(now);
        }
        self.publish(Plan { publish: messages, ..Plan::default() }).await.map(|_| ())
    }

    /// A handle on a task that was sent earlier or by somebody else.
    pub fn job<R>(&self, task_id: &str) -> Job<R> {
        Job::new(task_id.to_owned(), Arc::clone(&self.store), Reader::of(&self.shared), PhantomData)
    }

    fn apply(&self, signature: Signature, fault: Option<String>) -> Result<Applied, SendError> {
        if let Some(fault) = fault {
            return Err(SendError::Invalid(fault));
        }
        let shared = &*self.shared;
        let mut new_id = || clock::task_id(&*shared.clock, &*shared.entropy);
        let mut sender = Sender {
            router: &shared.router,
            new_id: &mut new_id,
            now: shared.clock.wall(),
            origin: &shared.origin,
        };
        let lineage = self.lineage.as_deref();
        let lineage = Lineage {
            root_id: lineage.map(|task| task.root_id.as_str()),
            parent_id: lineage.map(|task| task.id.as_str()),
            trace: lineage.and_then(|task| task.trace.as_ref()),
        };
        workflow::apply(signature, &[], lineage, &mut sender)
            .map_err(|error| SendError::Invalid(error.to_string()))
    }

    /// Tells monitors what was sent. It is sent already: whether they hear of it changes nothing.
    async fn tell(&self, sent: Vec<Outgoing>, published: &Published) {
        let shared = &*self.shared;
        let Some(teller) = shared.teller.as_ref().filter(|_| !sent.is_empty()) else { return };
        let left_out = |index| published.duplicates.iter().any(|one| one.index == index);
        let timestamp = self.now();
        let event = |(_, outgoing): (usize, &Outgoing)| {
            let base = EventBase {
                hostname: shared.origin.clone(),
                utcoffset: hours_west(&teller.zone, timestamp),
                pid: std::process::id(),
                clock: teller.lamport.forward(),
                timestamp,
            };
            task_sent(&base, outgoing)
        };
        let sent = sent.iter().enumerate().filter(|(index, _)| !left_out(*index));
        let emitted = self.store.emit(sent.map(event).collect());
        match tokio::time::timeout(TELL_DEADLINE, emitted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "monitors are not told what was sent"),
            Err(_elapsed) => tracing::debug!("monitors are not told in time what was sent"),
        }
    }

    async fn publish(&self, plan: Plan) -> Result<Published, SendError> {
        #[cfg(feature = "otel")]
        return crate::otel::sending(plan, self.now(), |plan| self.publish_now(plan)).await;
        #[cfg(not(feature = "otel"))]
        self.publish_now(plan).await
    }

    /// Passes a plan by the hooks, and seals it.
    async fn make_ready(&self, plan: Plan) -> Result<(Plan, News), SendError> {
        let hooks = &self.shared.hooks;
        let plan = hooks.before_publish(plan).await;
        let plan = plan.map_err(|error| SendError::Invalid(error.to_string()))?;
        let tasks = hooks.to_be_told(&plan);
        let plan = self.shared.seals.seal_plan(plan, self.now()).map_err(SendError::Invalid)?;
        let messages = self.shared.teller.as_ref().map_or_else(Vec::new, |_| plan.publish.clone());
        Ok((plan, News { messages, tasks }))
    }

    /// Tells monitors and hooks of what is sent.
    async fn tell_all(&self, news: News, published: &Published) {
        self.tell(news.messages, published).await;
        self.shared.hooks.after_publish(news.tasks).await;
    }

    async fn publish_now(&self, plan: Plan) -> Result<Published, SendError> {
        if plan.is_empty() {
            return Ok(Published::default());
        }
        let (plan, news) = self.make_ready(plan).await?;
        let children = self.trail.is_some().then(|| children_of(&plan));
        // What a client sends completes no chord, so nothing has to follow one.
        match tokio::time::timeout(SEND_DEADLINE, self.store.publish(plan, None)).await {
            Ok(published) => {
                let published = published?;
                if let (Some(trail), Some(children)) = (&self.trail, children) {
                    trail.add(children);
                }
                self.tell_all(news, &published).await;
                Ok(published)
            }
            Err(_elapsed) => {
                let text = format!("no answer within {} s", SEND_DEADLINE.as_secs());
                Err(SendError::Unknown(StoreError::new(ErrorKind::Unknown, text)))
            }
        }
    }
}

impl Client {
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.shared.entropy
    }

    /// Makes the messages of an entry's call, ready to be written by somebody else: with what its task says
    /// of itself, routed, passed by the hooks, sealed.
    pub(crate) async fn prepare(&self, mut call: Signature) -> crate::Result<Prepared> {
        let usual = call.task().and_then(|task| self.shared.task_options.get(task));
        let has_way = WAY.iter().any(|name| call.options().get(name).is_some());
        for (name, value) in usual.into_iter().flat_map(Map::iter) {
            let is_said = call.options().get(name).is_some() || (has_way && WAY.contains(&name));
            if !is_said {
                call.options_mut().insert(name, value.clone());
            }
        }
        let (plan, news) = self.make_ready(self.apply(call, None)?.plan).await?;
        let client = self.clone();
        let afterwards = async move { client.tell_all(news, &Published::default()).await };
        Ok(Prepared { plan, afterwards: Some(Box::pin(afterwards)) })
    }
}

/// What is sent over HTTP goes the way of every other call.
#[cfg(feature = "web")]
#[async_trait::async_trait]
impl celeriac_web::Publisher for Client {
    async fn publish(
        &self,
        call: Signature,
    ) -> Result<celeriac_web::Sent, celeriac_web::PublishError> {
        use celeriac_web::PublishError;
        let refused = |error| match error {
            SendError::Invalid(text) => PublishError::Invalid(text),
            SendError::Refused(error) | SendError::Unknown(error) => PublishError::Store(error),
        };
        let applied = self.apply(call, None).map_err(refused)?;
        let task_id = applied.task_id.clone().unwrap_or_default();
        let published = self.publish(applied.plan).await.map_err(refused)?;
        let holder = published.duplicates.into_iter().next().map(|one| one.task_id);
        Ok(celeriac_web::Sent { task_id, holder })
    }

    async fn prepare(
        &self,
        call: Signature,
    ) -> Result<celeriac_web::Prepared, celeriac_web::PublishError> {
        // Nothing is written here, so whatever is wrong is wrong with the call.
        let refused =
            |error: crate::TaskError| celeriac_web::PublishError::Invalid(error.to_string());
        let Prepared { plan, afterwards } = Self::prepare(self, call).await.map_err(refused)?;
        Ok(celeriac_web::Prepared { plan, afterwards })
    }
}
