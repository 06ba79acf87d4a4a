//! Makes a task runnable by the worker.

use crate::arguments::Arguments;
use crate::client::Client;
use crate::context::{Context, States};
use crate::error::TaskError;
use crate::task::{Requirements, Task, TaskOptions};
use celeriac_core::outcome::Outcome;
use celeriac_runtime::{Handler, RunContext, TaskPolicy};
use celeriac_wire::{Body, to_value};
use futures::future::BoxFuture;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A task in the list that an application registers; [`crate::tasks!`] makes it.
#[derive(Clone)]
pub struct TaskDef {
    name: &'static str,
    options: TaskOptions,
    requirements: Requirements,
    build: fn(Arc<States>, Client, TaskPolicy) -> Arc<dyn Handler>,
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
            build: |states, client, policy| {
                Arc::new(TaskHandler::<T> { states, client, policy, task: PhantomData })
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

    pub(crate) fn handler(
        &self,
        states: Arc<States>,
        client: Client,
        policy: TaskPolicy,
    ) -> Arc<dyn Handler> {
        (self.build)(states, client, policy)
    }
}

struct TaskHandler<T> {
    states: Arc<States>,
    client: Client,
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
        let client = self.client.for_task(&run.delivery.message.headers, run.trail.clone());
        let context = Context::new(run, Arc::clone(&self.states), client);
        let classifier = self.policy.classifier.clone();
        Box::pin(async move {
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
        })
    }
}
