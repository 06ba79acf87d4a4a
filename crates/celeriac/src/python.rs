//! A Celery app: the interpreter that runs it, what it is started with, and what it means here.

mod additions;
mod broker;
mod review;
mod schedule;
mod settings;
mod shim;

pub(crate) use additions::warnings as task_warnings;
pub(crate) use review::{Refusal, connection_tries, refusals, rows, unknown, warnings};
pub(crate) use schedule::{pings, redbeat_keys, schedule, scheduler, task_options, zone};
pub(crate) use settings::app_settings;
#[cfg(feature = "cli")]
pub(crate) use shim::{BOOT_IMPORT, FILES};

use crate::Result;
use crate::TaskError;
use crate::config::Settings;
use crate::pool::{PythonPool, StartMethod};
use crate::worker::WorkerBuilder;
use celeriac_core::QueueName;
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::outcome::{Acks, Classifier, Outcome};
use celeriac_core::retry::RetryPolicy;
use celeriac_core::throttle::Rate;
use celeriac_runtime::pool::python::{
    ConsumedQueue, Hello, Interpreter, LoadError, PythonApp, PythonOptions, PythonTask, Tenancy,
};
use celeriac_runtime::pool::{Children, Relay, Stream};
use celeriac_runtime::{Handler, Registry, Renewal, RunContext, TaskPolicy};
use celeriac_wire::{Body, Map, Value};
use futures::future::BoxFuture;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What an app is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run it, as its worker does, which sends the signals of a worker.
    Run,
    /// To know its settings and tasks.
    Look,
    /// To look at it and at its files.
    Examine,
}

/// Loads an app as `-A` names it. `of_schedule`: it says what a beat needs, too.
///
/// # Errors
/// There is no Python, or the app cannot be loaded.
pub(crate) async fn load(
    name: &str,
    settings: &Settings,
    arguments: Vec<String>,
    purpose: Purpose,
    of_schedule: bool,
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
    let given = Some(settings.python_pool.value).filter(|_| !settings.python_pool.is_default());
    let start = |pool: PythonPool| {
        let mut start = start(name, settings, arguments.clone(), pool);
        start.insert("look", purpose != Purpose::Run);
        start.insert("doctor", purpose == Purpose::Examine);
        start.insert("schedule", of_schedule);
        start
    };
    let app = PythonApp::load(interpreter.clone(), start(given.unwrap_or_default())).await?;
    // What its interpreter is prepared for depends on the pool, so it has to be known before.
    let own = app.hello().settings.get("worker_pool").and_then(Value::as_str);
    match own.and_then(|name| name.parse::<PythonPool>().ok()) {
        Some(pool)
            if purpose == Purpose::Run && given.is_none() && pool != PythonPool::default() =>
        {
            PythonApp::load(interpreter, start(pool)).await
        }
        _ => Ok(app),
    }
}

/// The Python that is asked for, or the one that was found.
pub(crate) fn interpreter(settings: &Settings) -> std::result::Result<PathBuf, LoadError> {
    if !settings.python.value.is_empty() {
        return Ok(PathBuf::from(&settings.python.value));
    }
    Err(LoadError {
        text: "there is no Python: neither VIRTUAL_ENV, nor .venv, nor the environment that celeriac is \
               installed in, nor the PATH has one"
            .to_owned(),
        hint: Some("name the Python of the app's environment with --python".to_owned()),
        traceback: None,
        sources: None,
    })
}

/// What the protocol leaves to the configuration of the worker.
fn start(name: &str, settings: &Settings, arguments: Vec<String>, pool: PythonPool) -> Map {
    let given = |setting: &crate::config::Setting<String>| {
        if setting.source.overrules_app() {
            broker::for_app(&setting.value)
        } else {
            broker::ForApp::default()
        }
    };
    let (broker, results) = (given(&settings.broker_url), given(&settings.result_backend));
    let url = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
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
        ("broker_url", url(&broker.url)),
        ("result_backend", url(&results.url)),
        ("transport_options", Value::Object(broker.transport)),
        ("result_options", Value::Object(broker.results)),
        ("settings", Value::Object(settings::overruled(settings))),
        ("pool", Value::from(pool.as_str())),
        ("concurrency", concurrency),
        ("loglevel", level),
        ("logfile", Value::Null),
        ("color", Value::from(std::io::stderr().is_terminal())),
        ("options", options(settings)),
    ])
}

/// The URL for the worker's store, with the broker's options of the app.
///
/// # Errors
/// Options that the store cannot use; a sentence.
pub(crate) fn store_url(hello: &Hello, settings: &Settings) -> std::result::Result<String, String> {
    let value = |name: &str| hello.settings.get(name).unwrap_or(&Value::Null);
    broker::for_store(
        &settings.broker_url.value,
        value("broker_transport_options"),
        value("broker_use_ssl"),
    )
}

/// Why a worker must not start with this app. With `pool`, `-P` of the command line has the say.
pub(crate) fn refusal(hello: &Hello, settings: &Settings, pool: Option<&str>) -> Option<Refusal> {
    let chosen = !settings.queues.is_default();
    let found = review::refusals(hello, pool).into_iter().next();
    found.or_else(|| review::strategy_refusal(hello, chosen))
}

/// Further arguments of Celery's `Worker`.
fn options(settings: &Settings) -> Value {
    let mut options = Map::from([("task_events", settings.task_events.value)]);
    if let Some((max, min)) = settings.autoscale.value {
        options.insert("autoscale", [max, min].into_iter().collect::<Value>());
    }
    Value::Object(options)
}

/// The children and the tasks of a worker for this app.
pub(crate) fn parts(app: &PythonApp, worker: &WorkerBuilder) -> Result<(Children, Registry)> {
    let settings = worker.application().settings();
    let hello = app.hello();
    let mut registry = Registry::default();
    let mut added = Map::new();
    for (name, task) in &hello.tasks {
        if task.strategy.is_some() {
            // Celery's own worker runs it; see `refusal`.
            continue;
        }
        let mut policy = policy(name, task, settings, review::keeps_rates(hello))?;
        if let Some(members) = additions::add(name, task, settings, &mut policy) {
            added.insert(name.as_str(), Value::Object(members));
        }
        registry.add(Arc::new(Traced { name: name.clone(), policy }))?;
    }
    let children = Children::Python(PythonOptions {
        app: app.clone().with_additions(added),
        tenancy: match settings.python_pool.value {
            PythonPool::Prefork | PythonPool::Solo => Tenancy::Single,
            PythonPool::Threads | PythonPool::Asyncio | PythonPool::Gevent => Tenancy::Shared,
        },
        spawn: settings.start_method.value == StartMethod::Spawn,
        store_results: stores_results(hello),
        bounds: worker.child_bounds(),
        relay: relay(),
    });
    Ok((children, registry))
}

/// The same for a worker that runs already.
pub(crate) fn renewal(app: &PythonApp, worker: &WorkerBuilder) -> Result<Renewal> {
    let (children, registry) = parts(app, worker)?;
    Ok(Renewal { registry, children })
}

/// Whether results go through the worker: the app keeps them in Celery's own way, as JSON, on the
/// server that is the worker's store.
fn stores_results(hello: &Hello) -> bool {
    /// Parts of the backend's place that its URL may leave to settings.
    const ELSEWHERE: [&str; 3] = ["redis_host", "redis_port", "redis_db"];
    let backend = &hello.backend;
    let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    let same = given(&hello.broker_url)
        .zip(given(&hello.result_backend))
        .is_some_and(|(broker, results)| celeriac_stores::keeps_results(&broker, &results).is_ok())
        && !hello.changed.iter().any(|name| ELSEWHERE.contains(&name.as_str()));
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
fn policy(
    name: &str,
    task: &PythonTask,
    settings: &Settings,
    keeps_rates: bool,
) -> Result<TaskPolicy> {
    let seconds = |limit: Option<f64>| {
        limit.filter(|limit| *limit > 0.0).and_then(|limit| Duration::try_from_secs_f64(limit).ok())
    };
    let rate = task.rate_limit.as_ref().filter(|rate| keeps_rates && !rate.is_null());
    let rate_limit = match rate {
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

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_wire::from_value;

    #[test]
    fn an_app_may_say_that_rates_are_not_kept() {
        let task = r#"{"acks_late": false, "reject_on_worker_lost": false, "ignore_result": false,
            "rate_limit": "3/m"}"#;
        let task: PythonTask = from_value(Value::parse(task.as_bytes()).unwrap()).unwrap();
        let settings = Settings::resolve(crate::config::Inputs::default()).unwrap();
        for (app, is_limited) in [
            ("{}", true),
            (r#"{"worker_disable_rate_limits": false}"#, true),
            (r#"{"worker_disable_rate_limits": true}"#, false),
        ] {
            let keeps = review::keeps_rates(&review::tests::hello(app, "{}"));
            let policy = policy("add", &task, &settings, keeps).unwrap();
            assert_eq!(policy.rate_limit.is_some(), is_limited, "{app}");
        }
    }

    #[test]
    fn results_go_through_the_worker_only_where_its_store_is_their_place() {
        let check = |broker: &str, backend: &str, app: &str, expected| {
            let mut hello = review::tests::hello(app, "{}");
            hello.broker_url = Some(broker.to_owned());
            hello.result_backend = Some(backend.to_owned());
            hello.backend.serializer = "json".to_owned();
            hello.backend.class = "celery.backends.redis.RedisBackend".to_owned();
            assert_eq!(stores_results(&hello), expected, "{broker} {backend} {app}");
        };
        check("redis://h/0", "redis://h/0", "{}", true);
        check("redis://h/", "redis://h", "{}", true);
        check("redis://h/0", "redis://h/1", "{}", true);
        check("redis://h/0", "redis://i/0", "{}", false);
        check("redis://h/0", "redis://:secret@h/1", "{}", false);
        check("redis://h/0", "", "{}", false);
        // The backend's place is completed from settings that the broker does not have.
        check("redis://", "redis://", r#"{"redis_host": "other"}"#, false);
        // A prefix of the broker is not one of the results.
        let prefixed = r#"{"broker_transport_options": {"global_keyprefix": "a"}}"#;
        check("redis://h/0", "redis://h/0", prefixed, true);
    }
}
