//! Hooks: functions of the application that hear of what happens, or have a say in it, named like the
//! signals of `celery.signals`.

mod listener;
mod signals;

pub(crate) use listener::Listener;
pub use signals::{
    AfterTaskPublish, BeforeTaskPublish, Intercept, Signal, TaskFailure, TaskInfo, TaskPostrun,
    TaskPrerun, TaskReceived, TaskRejected, TaskRetry, TaskRevoked, TaskSnoozed, TaskSuccess,
    TaskUnknown, WorkerReady, WorkerShutdown, WorkerShuttingDown,
};

use crate::error::{Result, TaskError};
use celeriac_core::store::Plan;
use celeriac_wire::Message;
use futures::future::BoxFuture;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long one hook may take; then it is dropped where it waits, and the work goes on.
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

type Observer<S> = Arc<dyn Fn(S) -> BoxFuture<'static, ()> + Send + Sync>;
type Interceptor<S, D> = Arc<dyn Fn(S) -> BoxFuture<'static, Result<D>> + Send + Sync>;
type Lists = BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// The hooks of an application, by what they are about.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    observers: Lists,
    interceptors: Lists,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hooks({} + {})", self.observers.len(), self.interceptors.len())
    }
}

fn list<S: 'static, H: Clone + Send + Sync + 'static>(lists: &Lists) -> Vec<H> {
    let list = lists.get(&TypeId::of::<S>()).and_then(|list| list.downcast_ref::<Vec<H>>());
    list.cloned().unwrap_or_default()
}

fn push<S: 'static, H: Clone + Send + Sync + 'static>(lists: &mut Lists, hook: H) {
    let mut hooks: Vec<H> = list::<S, H>(lists);
    hooks.push(hook);
    lists.insert(TypeId::of::<S>(), Arc::new(hooks));
}

impl Hooks {
    pub(crate) fn observe<S: Signal, F, W>(&mut self, hook: F)
    where
        F: Fn(S) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let hook: Observer<S> = Arc::new(move |signal| Box::pin(hook(signal)));
        push::<S, _>(&mut self.observers, hook);
    }

    pub(crate) fn intercept<S: Intercept, F, W>(&mut self, hook: F)
    where
        F: Fn(S) -> W + Send + Sync + 'static,
        W: Future<Output = Result<S::Decision>> + Send + 'static,
    {
        let hook: Interceptor<S, S::Decision> = Arc::new(move |signal| Box::pin(hook(signal)));
        push::<S, _>(&mut self.interceptors, hook);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.observers.is_empty() && self.interceptors.is_empty()
    }

    /// Whether anybody observes `S`: nothing has to be made for nobody.
    fn hears<S: Signal>(&self) -> bool {
        self.observers.contains_key(&TypeId::of::<S>())
    }

    /// Tells all observers of `S`, one after another.
    pub(crate) async fn tell<S: Signal>(&self, make: impl FnOnce() -> S) {
        if !self.hears::<S>() {
            return;
        }
        let signal = make();
        for hook in list::<S, Observer<S>>(&self.observers) {
            // A panic of a hook ends that hook alone.
            let telling = tokio::spawn(hook(signal.clone()));
            let abort = telling.abort_handle();
            match tokio::time::timeout(HOOK_DEADLINE, telling).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(signal = S::NAME, %error, "a hook has panicked"),
                Err(_elapsed) => {
                    abort.abort();
                    let seconds = HOOK_DEADLINE.as_secs();
                    tracing::error!(signal = S::NAME, seconds, "a hook took too long");
                }
            }
        }
    }

    /// Asks the interceptors of a task's run; the first that does not let it begin decides.
    pub(crate) async fn before_run(&self, info: &TaskInfo) -> Result<()> {
        for hook in list::<TaskPrerun, Interceptor<TaskPrerun, ()>>(&self.interceptors) {
            in_time(TaskPrerun::NAME, hook(TaskPrerun { task: info.clone() })).await?;
        }
        Ok(())
    }

    /// Has the interceptors see, and perhaps change, the headers of everything that a plan sends.
    ///
    /// # Errors
    /// What the first said that refused; then nothing is to be sent.
    pub(crate) async fn before_publish(&self, mut plan: Plan) -> Result<Plan> {
        let hooks = list::<BeforeTaskPublish, Interceptor<BeforeTaskPublish, BeforeTaskPublish>>(
            &self.interceptors,
        );
        if !hooks.is_empty() || self.hears::<BeforeTaskPublish>() {
            for one in &mut plan.publish {
                let queue = one.queue.to_string();
                self.before_one(&hooks, &mut one.message, queue).await?;
            }
            for one in &mut plan.routed {
                self.before_one(&hooks, &mut one.message, String::new()).await?;
            }
        }
        Ok(plan)
    }

    async fn before_one(
        &self,
        hooks: &[Interceptor<BeforeTaskPublish, BeforeTaskPublish>],
        message: &mut Message,
        queue: String,
    ) -> Result<()> {
        let mut publish = BeforeTaskPublish { task: TaskInfo { message: message.clone(), queue } };
        for hook in hooks {
            publish = in_time(BeforeTaskPublish::NAME, hook(publish)).await?;
        }
        self.tell(|| publish.clone()).await;
        message.headers = publish.task.message.headers;
        Ok(())
    }

    /// Tells what was sent.
    pub(crate) async fn after_publish(&self, sent: Vec<TaskInfo>) {
        for task in sent {
            self.tell(|| AfterTaskPublish { task }).await;
        }
    }

    /// What [`Hooks::after_publish`] will tell of a plan.
    pub(crate) fn to_be_told(&self, plan: &Plan) -> Vec<TaskInfo> {
        if !self.hears::<AfterTaskPublish>() {
            return Vec::new();
        }
        let direct = plan
            .publish
            .iter()
            .map(|one| TaskInfo { message: one.message.clone(), queue: one.queue.to_string() });
        let routed = plan
            .routed
            .iter()
            .map(|one| TaskInfo { message: one.message.clone(), queue: String::new() });
        direct.chain(routed).collect()
    }
}

async fn in_time<D>(name: &str, asked: BoxFuture<'static, Result<D>>) -> Result<D> {
    match tokio::time::timeout(HOOK_DEADLINE, asked).await {
        Ok(decision) => decision,
        Err(_elapsed) => Err(TaskError::retry(format!(
            "a hook of {name} did not decide within {} s",
            HOOK_DEADLINE.as_secs()
        ))),
    }
}
