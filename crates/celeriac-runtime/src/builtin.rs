//! Celery's own tasks that a workflow may need, over the tasks of a program: `celery.accumulate`,
//! `celery.map` and `celery.starmap` (`celery/app/builtins.py` 5.7, wire specification 5.6).

use crate::handler::{Handler, Registry, RunContext, TaskPolicy};
use celeriac_core::StoreError;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::retry::RetryPolicy;
use celeriac_core::workflow::ACCUMULATE;
use celeriac_wire::{Body, ExceptionInfo, Map, Value};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Registry {
    /// Adds Celery's own tasks, over those that are registered now.
    ///
    /// # Errors
    /// `Conflict` where a task has the name of one of them.
    pub fn add_builtins(&mut self) -> Result<(), StoreError> {
        let known = self.names().into_iter();
        let tasks: BTreeMap<_, _> =
            known.filter_map(|name| self.find(&name).map(|task| (name, task))).collect();
        let tasks = Arc::new(tasks);
        self.add(Arc::new(Accumulate(policy())))?;
        for (name, star) in [("celery.map", false), ("celery.starmap", true)] {
            self.add(Arc::new(Each { name, star, tasks: Arc::clone(&tasks), policy: policy() }))?;
        }
        Ok(())
    }
}

fn policy() -> TaskPolicy {
    TaskPolicy { retry: RetryPolicy::never(), ..TaskPolicy::default() }
}

fn failed(kind: &str, text: String) -> Outcome {
    Outcome::Failure(Failure::permanent(ExceptionInfo::new(
        "builtins",
        kind,
        vec![Value::from(text)],
    )))
}

/// Returns what it is given, or one of it: the end of a group that counts as one member of a chord.
struct Accumulate(TaskPolicy);

impl Handler for Accumulate {
    fn name(&self) -> &'static str {
        ACCUMULATE
    }

    fn policy(&self) -> &TaskPolicy {
        &self.0
    }

    fn run(&self, _run: RunContext, body: Body) -> BoxFuture<'static, Outcome> {
        let outcome = match body.kwargs.get("index").unwrap_or(&Value::Null) {
            Value::Null => Outcome::Success(Value::Array(body.args)),
            index => match index.as_u64().and_then(|index| body.args.get(index as usize)) {
                Some(value) => Outcome::Success(value.clone()),
                None => failed("IndexError", format!("there is no argument {index}")),
            },
        };
        std::future::ready(outcome).boxed()
    }
}

/// Calls a task with each of many values, one after another, in the place of one task.
struct Each {
    name: &'static str,
    /// Whether each value is a list of arguments.
    star: bool,
    tasks: Arc<BTreeMap<String, Arc<dyn Handler>>>,
    policy: TaskPolicy,
}

impl Each {
    fn task(&self, body: &Body) -> Option<Arc<dyn Handler>> {
        let name = body.kwargs.get("task")?.get("task")?.as_str()?;
        self.tasks.get(name).cloned()
    }
}

impl Handler for Each {
    fn name(&self) -> &'static str {
        self.name
    }

    fn policy(&self) -> &TaskPolicy {
        &self.policy
    }

    fn knows(&self, body: &Body) -> bool {
        self.task(body).is_some()
    }

    fn run(&self, run: RunContext, body: Body) -> BoxFuture<'static, Outcome> {
        let task = self.task(&body);
        let star = self.star;
        async move {
            let Some(task) = task else {
                return failed(
                    "KeyError",
                    "the task of this map is not registered here".to_owned(),
                );
            };
            let Some(values) = body.kwargs.get("it").and_then(Value::as_array) else {
                return failed("TypeError", "'it' is not a list".to_owned());
            };
            let mut results = Vec::with_capacity(values.len());
            for value in values {
                let args = match value.as_array().filter(|_| star) {
                    Some(args) => args.to_vec(),
                    None => vec![value.clone()],
                };
                match task.run(run.clone(), Body::new(args, Map::default())).await {
                    Outcome::Success(value) => results.push(value),
                    other => return other,
                }
            }
            Outcome::Success(Value::Array(results))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is never run here.
    struct Named(TaskPolicy);

    impl Handler for Named {
        fn name(&self) -> &'static str {
            "app.known"
        }

        fn policy(&self) -> &TaskPolicy {
            &self.0
        }

        fn run(&self, _run: RunContext, _body: Body) -> BoxFuture<'static, Outcome> {
            std::future::ready(Outcome::Ignore).boxed()
        }
    }

    #[test]
    fn a_map_is_known_where_its_task_is() {
        let mut registry = Registry::default();
        registry.add(Arc::new(Named(TaskPolicy::default()))).unwrap();
        registry.add_builtins().unwrap();
        let map = registry.find("celery.map").unwrap();
        for (task, known) in [("app.known", true), ("app.other", false)] {
            let signature = Value::Object(Map::from([("task", Value::from(task))]));
            let body = Body::new(Vec::new(), Map::from([("task", signature)]));
            assert_eq!(map.knows(&body), known, "{task}");
        }
        assert!(!map.knows(&Body::default()));
    }
}
