//! Makes a task runnable by the worker.

use crate::arguments::Arguments;
use crate::client::Client;
use crate::context::{Context, States};
use crate::error::TaskError;
use crate::hooks::{Hooks, TaskInfo, TaskPostrun, TaskPrerun};
use crate::task::{Requirements, Task, TaskOptions};
use celeriac_core::outcome::Outcome;
use celeriac_runtime::{Handler, RunContext, TaskPolicy};
use celeriac_wire::{Body, to_value};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::time::Instant;

/// A task in the list that an application registers; [`crate::tasks!`] makes it.
#[derive(Clone)]
pub struct TaskDef {
    name: &'static str,
    options: TaskOptions,
    requirements: Requirements,
    build: fn(Surroundings, TaskPolicy) -> Arc<dyn Handler>,
}

impl fmt::Debug for TaskDef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TaskDef").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TaskDef {
    /// The definition of a task.
    pub fn of<T: Task>() -> Self {
        let mut requirements = Requirements::default();
        T::require(&mut requirements);
        Self {
            name: T::NAME,
            options: T::options(TaskOptions::default()),
            requirements,
            build: |around, policy| {
                Arc::new(TaskHandler::<T> { around, policy, task: PhantomData })
            },
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn options(&self) -> &TaskOptions {
        &self.options
    }

    pub(crate) fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    pub(crate) fn handler(&self, around: Surroundings, policy: TaskPolicy) -> Arc<dyn Handler> {
        (self.build)(around, policy)
    }
}

/// What an application gives to the tasks that run in this process.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) states: Arc<States>,
    pub(crate) client: Client,
    pub(crate) hooks: Arc<Hooks>,
}

struct TaskHandler<T> {
    around: Surroundings,
    policy: TaskPolicy,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> Handler for TaskHandler<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn policy(&self) -> &TaskPolicy {
        &self.policy
    }

    fn run(&self, run: RunContext, body: Body) -> BoxFuture<'static, Outcome> {
        let Surroundings { states, client, hooks } = self.around.clone();
        let classifier = self.policy.classifier.clone();
        let info = (!hooks.is_empty()).then(|| TaskInfo::of(&run.delivery));
        let client = client.for_task(&run.delivery.message.headers, run.trail.clone());
        let context = Context::new(run, states, client);
        let body = async move {
            let finished: Result<_, TaskError> = async {
                let arguments = Arguments::bind(T::NAME, T::PARAMS, body.args, body.kwargs)?;
                let output = T::run(context, arguments).await?;
                to_value(&output).map_err(|error| {
                    TaskError::fail(format!("the returned value cannot be encoded: {error}"))
                })
            }
            .await;
            match finished {
                Ok(value) => classifier.classify(value),
                Err(error) => error.into_outcome(),
            }
        };
        match info {
            None => Box::pin(body),
            Some(info) => Box::pin(hooked(hooks, info, body)),
        }
    }
}

/// Runs a body between its hooks.
async fn hooked(
    hooks: Arc<Hooks>,
    task: TaskInfo,
    body: impl Future<Output = Outcome> + Send,
) -> Outcome {
    if let Err(error) = hooks.before_run(&task).await {
        return error.into_outcome();
    }
    hooks.tell(|| TaskPrerun { task: task.clone() }).await;
    let began = Instant::now();
    let ended = AssertUnwindSafe(body).catch_unwind().await;
    let succeeded = matches!(ended, Ok(Outcome::Success(_)));
    let runtime = began.elapsed();
    hooks.tell(|| TaskPostrun { task, succeeded, runtime }).await;
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
