//! A Celery app: the interpreter that runs it, what it is started with, and what it means here.

mod settings;
mod shim;

pub(crate) use settings::app_settings;

use crate::Result;
use crate::TaskError;
use crate::config::{Settings, Source};
use crate::worker::WorkerBuilder;
use celeriac_core::QueueName;
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::outcome::{Acks, Classifier, Outcome};
use celeriac_core::retry::RetryPolicy;
use celeriac_core::throttle::Rate;
use celeriac_runtime::pool::python::{
    ConsumedQueue, Hello, Interpreter, LoadError, PythonApp, PythonOptions, PythonTask,
};
use celeriac_runtime::pool::{Children, Relay, Stream};
use celeriac_runtime::{Handler, Registry, RunContext, TaskPolicy};
use celeriac_wire::{Body, Map, Value};
use futures::future::BoxFuture;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Loads an app as `-A` names it.
///
/// # Errors
/// There is no Python, or the app cannot be loaded.
pub(crate) async fn load(
    name: &str,
    settings: &Settings,
    arguments: Vec<String>,
) -> std::result::Result<PythonApp, LoadError> {
    let program = interpreter(settings)?;
    let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let interpreter = Interpreter {
        program,
        folder,
        environment: Vec::new(),
        boot: shim::BOOT,
        files: shim::FILES,
    };
    PythonApp::load(interpreter, start(name, settings, arguments)).await
}

/// The Python that is asked for, or the one of this environment.
pub(crate) fn interpreter(settings: &Settings) -> std::result::Result<PathBuf, LoadError> {
    if !settings.python.value.is_empty() {
        return Ok(PathBuf::from(&settings.python.value));
    }
    crate::config::python().ok_or_else(|| LoadError {
        text: "there is no Python: neither VIRTUAL_ENV, nor .venv, nor the PATH has one".to_owned(),
        hint: Some("name the Python of the app's environment with --python".to_owned()),
        traceback: None,
    })
}

/// What the protocol leaves to the configuration of the worker.
fn start(name: &str, settings: &Settings, arguments: Vec<String>) -> Map {
    let given = |setting: &crate::config::Setting<String>| {
        // What the app itself says is stronger than these.
        let weaker = match &setting.source {
            Source::Default | Source::Program | Source::File { .. } | Source::App { .. } => true,
            // Applications use it for other things too.
            Source::Env { name } | Source::DotEnv { name, .. } => name == "REDIS_URL",
            _ => false,
        };
        if weaker { Value::Null } else { Value::from(setting.value.as_str()) }
    };
    let queues = if settings.queues.is_default() {
        Value::Null
    } else {
        Value::from(settings.queues.value.join(","))
    };
    let concurrency = if settings.concurrency.is_default() {
        Value::Null
    } else {
        Value::from(settings.concurrency.value as u64)
    };
    let level = if settings.log_level.is_default() {
        Value::Null
    } else {
        Value::from(settings.log_level.value.to_ascii_uppercase())
    };
    let argv = std::iter::once("celery".to_owned()).chain(arguments).map(Value::from);
    Map::from([
        ("app", Value::from(name)),
        ("argv", Value::Array(argv.collect())),
        ("hostname", Value::from(settings.node_name.value.as_str())),
        ("queues", queues),
        ("exclude_queues", Value::Null),
        ("broker_url", given(&settings.broker_url)),
        ("result_backend", given(&settings.result_backend)),
        ("settings", Value::Object(Map::new())),
        ("pool", Value::from("prefork")),
        ("concurrency", concurrency),
        ("loglevel", level),
        ("logfile", Value::Null),
        ("color", Value::from(std::io::stderr().is_terminal())),
        ("options", Value::Object(Map::from([("task_events", settings.task_events.value)]))),
    ])
}

/// The children and the tasks of a worker for this app.
pub(crate) fn parts(app: &PythonApp, worker: &WorkerBuilder) -> Result<(Children, Registry)> {
    let settings = worker.application().settings();
    let hello = app.hello();
    let mut registry = Registry::default();
    for (name, task) in &hello.tasks {
        if let Some(strategy) = &task.strategy {
            return Err(TaskError::fail(format!(
                "task {name} has the strategy {strategy}, which works inside Celery's own worker only: \
                 consume its queue with `celery worker`, and the others here with -Q"
            )));
        }
        let policy = policy(name, task, settings)?;
        registry.add(Arc::new(Traced { name: name.clone(), policy }))?;
    }
    let children = Children::Python(PythonOptions {
        app: app.clone(),
        store_results: stores_results(hello, settings),
        bounds: worker.child_bounds(),
        relay: relay(),
    });
    Ok((children, registry))
}

/// Whether results go through the worker: the app keeps them in Celery's own way, as JSON, on the
/// server that is the worker's store.
fn stores_results(hello: &Hello, settings: &Settings) -> bool {
    let backend = &hello.backend;
    let same = hello.result_backend.as_deref().is_some_and(|url| {
        url.trim_end_matches('/') == settings.broker_url.value.trim_end_matches('/')
    });
    same && !backend.own
        && backend.serializer == "json"
        && backend.class.ends_with("RedisBackend")
        && matches!(backend.prefix.as_str(), "" | "celery-task-meta-")
}

/// Hands on what children print.
fn relay() -> Relay {
    Arc::new(|stream, bytes| {
        // Nobody can be told that a log cannot be written.
        let _closed = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
    })
}

/// The queues that the app's worker consumes.
pub(crate) fn queues(hello: &Hello) -> Result<Vec<QueueName>> {
    hello.queues.iter().map(|queue| Ok(QueueName::parse(&queue.name)?)).collect()
}

/// Those of them that are bound to another exchange than every queue has by itself.
pub(crate) fn bindings(hello: &Hello) -> Result<Vec<Binding>> {
    let bound = |queue: &&ConsumedQueue| {
        let own = |text: &Option<String>| {
            text.as_deref().is_none_or(|text| text.is_empty() || text == queue.name)
        };
        let direct = queue.kind.as_deref().is_none_or(|kind| kind == "direct");
        !(direct && own(&queue.exchange) && own(&queue.routing_key))
    };
    let binding = |queue: &ConsumedQueue| {
        let or_name = |text: &Option<String>| {
            text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| queue.name.clone())
        };
        let kind = queue.kind.as_deref().unwrap_or("direct");
        let kind: ExchangeKind = kind.parse().map_err(|error| {
            TaskError::fail(format!("queue {}: exchange type {kind:?}: {error}", queue.name))
        })?;
        Ok(Binding {
            exchange: or_name(&queue.exchange),
            kind,
            routing_key: queue.routing_key.clone().unwrap_or_default(),
            queue: QueueName::parse(&queue.name)?,
        })
    };
    hello.queues.iter().filter(bound).map(binding).collect()
}

/// How a task is run: its own attributes, then the app's settings, which the template has applied.
fn policy(name: &str, task: &PythonTask, settings: &Settings) -> Result<TaskPolicy> {
    let seconds = |limit: Option<f64>| {
        limit.filter(|limit| *limit > 0.0).and_then(|limit| Duration::try_from_secs_f64(limit).ok())
    };
    let rate_limit = match task.rate_limit.as_ref().filter(|rate| !rate.is_null()) {
        None => None,
        Some(rate) => {
            let text = rate.as_str().map_or_else(|| rate.describe(), str::to_owned);
            Rate::parse(&text).map_err(|error| {
                TaskError::fail(format!("task {name}: rate_limit {text:?}: {error}"))
            })?
        }
    };
    Ok(TaskPolicy {
        retry: RetryPolicy::never(),
        acks: Acks {
            late: task.acks_late,
            requeue_lost: task.acks_late && task.reject_on_worker_lost,
        },
        soft_time_limit: seconds(task.soft_time_limit).or(settings.soft_time_limit.value),
        time_limit: seconds(task.time_limit).or(settings.time_limit.value),
        ignore_result: task.ignore_result,
        classifier: Classifier::celery(),
        rate_limit,
        ..TaskPolicy::default()
    })
}

/// A task of a Celery app: children run it.
struct Traced {
    name: String,
    policy: TaskPolicy,
}

impl Handler for Traced {
    fn name(&self) -> &str {
        &self.name
    }

    fn policy(&self) -> &TaskPolicy {
        &self.policy
    }

    fn takes_bytes(&self) -> bool {
        true
    }

    fn run(&self, _run: RunContext, _body: Body) -> BoxFuture<'static, Outcome> {
        let reason = "a Python task runs in children only".to_owned();
        Box::pin(async move { Outcome::Returned { reason, begun: false } })
    }
}
