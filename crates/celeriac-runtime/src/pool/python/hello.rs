//! What a template says of the app that it has loaded.

use celeriac_wire::{Map, Value, from_value};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// An app that cannot be loaded, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadError {
    /// One sentence that says whose fault it is.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the app it happened.
    pub traceback: Option<String>,
    /// What was read in the app's files, where that was asked for.
    pub sources: Option<Box<Value>>,
}

impl LoadError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, traceback: None, sources: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for LoadError {}

/// A Celery app, as its template describes it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Hello {
    protocol: u64,
    /// The template's process id.
    pub pid: i64,
    /// The version of Python.
    pub python: String,
    /// The version of Celery.
    pub celery: String,
    /// The version of kombu.
    pub kombu: String,
    /// The name of the app.
    pub app: String,
    /// The node name, complete.
    pub hostname: String,
    /// The names of threads beside the main one: a fork loses them.
    pub threads: Vec<String>,
    /// The broker that the app uses.
    pub broker_url: Option<String>,
    /// Where it keeps results.
    pub result_backend: Option<String>,
    /// How it keeps them.
    pub backend: Backend,
    /// What the worker consumes.
    pub queues: Vec<ConsumedQueue>,
    /// Every setting of the app.
    pub settings: Map,
    /// Those that the app sets itself.
    pub changed: Vec<String>,
    /// What it sets beside, as if Celery knew it.
    #[serde(default)]
    pub unknown: Map,
    /// Every task by name.
    pub tasks: BTreeMap<String, PythonTask>,
    /// Signals of Celery's main process that somebody listens to.
    pub receivers: Vec<String>,
    /// The app's bootsteps.
    pub steps: Vec<String>,
    /// What Celery's worker would show when it starts, by lines.
    #[serde(default)]
    pub banner: Vec<String>,
    /// The version of redis-py, where it is installed.
    #[serde(default)]
    pub redis: Option<String>,
    /// The entries of its `beat_schedule`, where that was asked for.
    #[serde(default)]
    pub schedule: Vec<PythonEntry>,
    /// What runs have beside what they are called with, the decorator's options and the app's route, by
    /// task; where that was asked for.
    #[serde(default)]
    pub task_options: BTreeMap<String, Map>,
    /// Where RedBeat keeps its entries, where that was asked for.
    #[serde(default)]
    pub redbeat: PythonRedBeat,
    /// The zone of its clock, by its IANA name, if it can be told.
    #[serde(default)]
    pub zone: Option<String>,
    /// What was read in the app's files, where that was asked for.
    #[serde(default)]
    pub sources: Value,
}

/// Where RedBeat keeps the entries of an app, by the app's settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct PythonRedBeat {
    /// Before all of its keys.
    pub prefix: String,
    /// The key of its lock; `None`: it takes none.
    pub lock: Option<String>,
    /// The URL of its Redis; `None`: the broker's.
    pub url: Option<String>,
}

/// An entry of an app's `beat_schedule`.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PythonEntry {
    /// Its name.
    pub name: String,
    /// The document of the entry; null if it is refused.
    #[serde(default)]
    pub entry: Value,
    /// Why only Python can send it.
    #[serde(default)]
    pub refused: Option<String>,
}

/// How an app keeps its results.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Backend {
    /// The class.
    #[serde(default)]
    pub class: String,
    /// What results are encoded with.
    #[serde(default)]
    pub serializer: String,
    /// What keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// It keeps results in a way of its own.
    #[serde(default)]
    pub own: bool,
}

/// A queue that the app's worker consumes.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ConsumedQueue {
    /// Its name.
    pub name: String,
    /// The exchange that it is bound to.
    #[serde(default)]
    pub exchange: Option<String>,
    /// The exchange's type.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// What it is bound with.
    #[serde(default)]
    pub routing_key: Option<String>,
}

/// A task of the app.
#[expect(clippy::struct_excessive_bools, reason = "Celery's own switches of a task")]
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct PythonTask {
    /// Its message counts as done only when it has ended.
    pub acks_late: bool,
    /// It runs again when its child dies.
    pub reject_on_worker_lost: bool,
    /// How many one worker may start, as Celery writes it.
    #[serde(default)]
    pub rate_limit: Option<Value>,
    /// Seconds.
    #[serde(default)]
    pub time_limit: Option<f64>,
    /// Seconds.
    #[serde(default)]
    pub soft_time_limit: Option<f64>,
    /// Its result is not wanted.
    pub ignore_result: bool,
    /// Its `Strategy`, when it is not Celery's.
    #[serde(default)]
    pub strategy: Option<String>,
    /// How often it may be retried; `None` is without end.
    #[serde(default)]
    pub max_retries: Option<u64>,
    /// It says itself which exceptions it is retried for.
    #[serde(default)]
    pub autoretry: bool,
    /// It is an `async def`.
    #[serde(default)]
    pub coroutine: bool,
    /// The queue that its decorator names.
    #[serde(default)]
    pub queue: Option<String>,
}

impl Hello {
    /// Reads the answer to a start.
    pub(super) fn read(frame: Value) -> Result<Self, LoadError> {
        let text = |name: &str| frame.get(name).and_then(Value::as_str).map(str::to_owned);
        match text("op").as_deref() {
            Some("hello") => {}
            Some("failed") => {
                return Err(LoadError {
                    text: text("text").unwrap_or_else(|| "the app cannot be loaded".to_owned()),
                    hint: text("hint"),
                    traceback: text("traceback"),
                    sources: frame.get("sources").cloned().map(Box::new),
                });
            }
            other => return Err(LoadError::new(format!("the template began with {other:?}"))),
        }
        let hello: Self = from_value(frame)
            .map_err(|error| LoadError::new(format!("the template's hello is wrong: {error}")))?;
        if hello.protocol != super::template::PROTOCOL {
            let text = format!("the template speaks protocol {}", hello.protocol);
            return Err(LoadError::new(text));
        }
        Ok(hello)
    }
}
