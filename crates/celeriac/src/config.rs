//! Settings: the only place that reads the environment and configuration files.
//!
//! Precedence, later wins: defaults, the program's own, `celeriac.toml`, a Python application's own, `.env`,
//! environment, `[override]` in
//! `celeriac.toml` (the operator's word), flags. Every value keeps its source, so that
//! `celeriac config show` can say where it comes from. Resolving is pure ([`Settings::resolve`]);
//! [`Settings::load`] does the reading.

pub(crate) mod additions;
pub(crate) mod celery;
mod env;
mod file;
mod http;
mod interpreter;
mod keys;
mod source;
mod value;

#[cfg(feature = "otel")]
pub(crate) use env::foreign;
pub(crate) use env::worker_of_this_child;
pub(crate) use file::{CeleryOverride, EntrySection};
pub use http::HttpSettings;
pub use keys::reference_page;
pub use source::{ConfigError, Setting, Source};

use crate::pool::{Pool, PythonPool, StartMethod};
use additions::TaskTable;
use celeriac_core::QueueName;
use celeriac_core::exchange::{Binding, ExchangeKind};
use celeriac_core::limits::StoreLimits;
use celeriac_core::route::{Encoding, Route, Router};
use celeriac_runtime::UnknownTasks;
use celeriac_wire::codec::{Accept, Compression, Serializer};
use keys::KEYS;
use source::Raw;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What settings are made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The `.env` file: its path and its variables.
    pub dotenv: Option<(PathBuf, Vec<(String, String)>)>,
    /// The settings file: its path and its text.
    pub file: Option<(PathBuf, String)>,
    /// Settings that the program gives itself, by key: stronger than defaults only.
    pub program: Vec<(&'static str, String)>,
    /// Settings of a Python application: our key, the value, Celery's name. With one, results may be
    /// kept anywhere: it stores them itself.
    pub app: Option<Vec<(&'static str, String, String)>>,
    /// The Python of this machine that runs Celery applications when nobody names one, and the
    /// place that it was found by.
    pub python: Option<(PathBuf, &'static str)>,
    /// Settings given as flags, by key.
    pub flags: Vec<(&'static str, String)>,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store that moves messages.
    pub broker_url: Setting<String>,
    /// Where results are kept; today always the broker's own store.
    pub result_backend: Setting<String>,
    /// The queue of calls that match no route.
    pub default_queue: Setting<String>,
    /// The queues of a worker that is told none.
    pub queues: Setting<Vec<String>>,
    /// How many tasks a worker runs at once.
    pub concurrency: Setting<usize>,
    /// The most and the fewest slots, when they follow the load.
    pub autoscale: Setting<Option<(usize, usize)>>,
    /// For how long it must be quiet before slots go.
    pub autoscale_keepalive: Setting<Duration>,
    /// How long running tasks may finish after a stop was asked for.
    pub grace: Setting<Duration>,
    /// The soft time limit of tasks that have none.
    pub soft_time_limit: Setting<Option<Duration>>,
    /// The hard time limit of tasks that have none.
    pub time_limit: Setting<Option<Duration>>,
    /// Where a worker's tasks run.
    pub pool: Setting<Pool>,
    /// How the tasks of a Celery application run.
    pub python_pool: Setting<PythonPool>,
    /// How the processes of a Celery application begin.
    pub start_method: Setting<StartMethod>,
    /// The Python that runs a Celery application; empty when there is none.
    pub python: Setting<String>,
    /// A child of a process pool ends after so many tasks.
    pub max_tasks_per_child: Setting<Option<u64>>,
    /// A child that holds more bytes ends after its task.
    pub max_memory_per_child: Setting<Option<u64>>,
    /// A child that holds more bytes is killed.
    pub child_memory_max: Setting<Option<u64>>,
    /// Children's `oom_score_adj`.
    pub child_oom_score_adj: Setting<i32>,
    /// What becomes of messages whose task is not registered.
    pub unknown_tasks: Setting<UnknownTasks>,
    /// Whether task events are recorded.
    pub task_events: Setting<bool>,
    /// Whether monitors are told what is sent.
    pub sent_events: Setting<bool>,
    /// Whether workers answer to remote control.
    pub remote_control: Setting<bool>,
    /// Whether a worker that starts asks stock workers for their revocations.
    pub mingle: Setting<bool>,
    /// How often a worker sends a heartbeat event; `None` sends no events of workers.
    pub heartbeat_events: Setting<Option<Duration>>,
    /// What is logged.
    pub log_level: Setting<String>,
    /// How log lines are written.
    pub log_format: Setting<String>,
    /// The worker's node name.
    pub node_name: Setting<String>,
    /// How long a silent worker keeps its leases.
    pub lease_expiry: Setting<Duration>,
    /// Whether a task that is acknowledged early begins only once that is written.
    pub strict_early_ack: Setting<bool>,
    /// Whether calls without a level are sent at level normal.
    pub priority_levels: Setting<bool>,
    /// How long results are kept.
    pub result_expires: Setting<Option<Duration>>,
    /// After what time without the end of a member a chord fails; see [`Settings::chord_patience`].
    pub chord_expires: Setting<Option<Duration>>,
    /// Whether results say what their task was called with.
    pub result_extended: Setting<bool>,
    /// The largest message.
    pub message_bytes_max: Setting<usize>,
    /// The largest result.
    pub result_bytes_max: Setting<usize>,
    /// The deepest queue.
    pub queue_depth_max: Setting<u64>,
    /// The most dead letters kept.
    pub dead_letters_max: Setting<u64>,
    /// The most bytes of dead letters in the store.
    pub dead_bytes_max: Setting<usize>,
    /// How long a dead letter stays in the store; `None` keeps it.
    pub dead_expires: Setting<Option<Duration>>,
    /// The file for dead letters that the store has no room for; empty for none.
    pub dead_spill: Setting<String>,
    /// The most events kept.
    pub events_max: Setting<u64>,
    /// How long a revocation is remembered.
    pub revoke_expires: Setting<Duration>,
    /// The most occurrences kept of each entry of a schedule.
    pub schedule_history: Setting<u64>,
    /// How long an occurrence is kept at most.
    pub schedule_history_expires: Setting<Duration>,
    /// The exchange of the default queue; empty for none.
    pub default_exchange: Setting<String>,
    /// How it chooses.
    pub default_exchange_type: Setting<ExchangeKind>,
    /// What the default queue is bound with; empty for its name.
    pub default_routing_key: Setting<String>,
    /// How bodies are written.
    pub task_serializer: Setting<Serializer>,
    /// How bodies are compressed.
    pub task_compression: Setting<Option<Compression>>,
    /// Which bodies native tasks accept.
    pub accept_content: Setting<Accept>,
    /// Which tasks go where.
    pub routes: Setting<Vec<(String, Route)>>,
    /// The queues of exchanges.
    pub task_queues: Setting<Vec<Binding>>,
    /// The HTTP server.
    pub http: HttpSettings,
    /// What is added to tasks.
    tasks: TaskTable,
    schedule: Vec<EntrySection>,
    celery: Vec<CeleryOverride>,
    sources: Vec<(&'static str, Source)>,
    rows: Vec<SettingRow>,
    warnings: Vec<String>,
}

/// One line of `celeriac config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingRow {
    /// The key in `celeriac.toml`.
    pub key: &'static str,
    /// The value in force, secrets masked.
    pub value: String,
    /// Where it comes from.
    pub source: String,
    /// What it does.
    pub effect: &'static str,
}

/// Reads a duration as settings and flags write it: `500ms`, `10s`, `5m`, `2h`, `1d`, or seconds.
///
/// # Errors
/// A sentence with what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

/// The sections of the settings file.
struct Tables {
    routes: Setting<Vec<(String, Route)>>,
    task_queues: Setting<Vec<Binding>>,
    tasks: TaskTable,
}

impl Settings {
    /// Reads the environment, `.env` in the current folder, and the settings file: `path`, else
    /// `CELERIAC_CONFIG`, else `celeriac.toml` in the current folder if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or what [`Settings::resolve`] refuses.
    pub fn load(
        program: Vec<(&'static str, String)>,
        flags: Vec<(&'static str, String)>,
        path: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        Self::load_with_app(program, None, flags, path)
    }

    /// The same with the settings of a Python application, which are stronger than `celeriac.toml`.
    pub(crate) fn load_with_app(
        program: Vec<(&'static str, String)>,
        app: Option<Vec<(&'static str, String, String)>>,
        flags: Vec<(&'static str, String)>,
        path: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let env = env::process();
        let dotenv = env::dotenv(Path::new(".env"))?;
        let named = |name: &str| {
            let in_env = env.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            let in_file = dotenv.iter().flat_map(|(_, vars)| vars);
            in_env
                .or_else(|| in_file.clone().find(|(key, _)| key == name).map(|(_, value)| value))
                .cloned()
        };
        let path = path.map(Path::to_owned).or_else(|| named("CELERIAC_CONFIG").map(PathBuf::from));
        let file = file::read(path.as_deref())?;
        let python = interpreter::Places::of_process().python();
        Self::resolve(Inputs { env, dotenv, file, program, app, python, flags })
    }

    /// Makes settings from what was read.
    ///
    /// # Errors
    /// A value that cannot be used, or an unknown key; the text says where it stands, what is
    /// accepted and, if something is near, what was meant.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "inputs are for one use, callers need no `&`"
    )]
    pub fn resolve(inputs: Inputs) -> Result<Self, ConfigError> {
        let mut raw = Raw::default();
        for key in KEYS {
            raw.set(key.name, (key.default)(), Source::Default);
        }
        if let Some((program, place)) = &inputs.python {
            raw.set("python", program.display().to_string(), Source::Found { place });
        }
        for (key, value) in &inputs.program {
            raw.set(key, value.clone(), Source::Program);
        }
        let mut warnings = Vec::new();
        let parsed =
            inputs.file.as_ref().map(|(path, text)| file::parse(path, text)).transpose()?;
        if let Some(file) = &parsed {
            file.settings
                .iter()
                .for_each(|(key, value, source)| raw.set(key, value.clone(), source.clone()));
        }
        for (key, value, name) in inputs.app.iter().flatten() {
            raw.set(key, value.clone(), Source::App { name: name.clone() });
        }
        let of_app = inputs.app.is_some();
        if let Some((path, vars)) = &inputs.dotenv {
            let source = |name: &str| Source::DotEnv { name: name.to_owned(), path: path.clone() };
            env::apply(&mut raw, vars, &source, of_app, &mut warnings)?;
        }
        env::apply(
            &mut raw,
            &inputs.env,
            &|name| Source::Env { name: name.to_owned() },
            of_app,
            &mut warnings,
        )?;
        if let Some(file) = &parsed {
            file.overrides
                .iter()
                .for_each(|(key, value, source)| raw.set(key, value.clone(), source.clone()));
            for (name, value, source) in &file.celery {
                match celery::as_ours(name, value) {
                    Some((key, text)) => raw.set(key, text, source.clone()),
                    None if !of_app && KEYS.iter().all(|key| key.name != *name) => {
                        warnings.push(format!("{source}: {name} is a Celery app's: it needs -A"));
                    }
                    None => {}
                }
            }
        }
        for (key, value) in &inputs.flags {
            raw.set(key, value.clone(), Source::Flag { key });
        }
        let (routes, task_queues, celery, tasks, schedule) = parsed
            .map(|file| (file.routes, file.task_queues, file.celery, file.tasks, file.schedule))
            .unwrap_or_default();
        let bodies = if of_app { celery::take_bodies(&mut raw) } else { Vec::new() };
        let tables = Tables { routes, task_queues, tasks: TaskTable::new(tasks)? };
        let mut settings = Self::typed(&raw, tables, warnings, of_app)?;
        settings.celery = bodies.into_iter().chain(celery).collect();
        settings.schedule = schedule;
        Ok(settings)
    }

    fn typed(
        raw: &Raw,
        Tables { routes, task_queues, tasks }: Tables,
        warnings: Vec<String>,
        has_app: bool,
    ) -> Result<Self, ConfigError> {
        let broker_url = raw.parse("broker_url", value::text)?;
        let default_queue = raw.parse("default_queue", value::queue)?;
        let mut queues = raw.parse("queues", value::queues)?;
        if queues.value.is_empty() {
            queues.value = vec![default_queue.value.clone()];
        }
        let settings = Self {
            result_backend: result_backend(raw, &broker_url, has_app)?,
            broker_url,
            default_queue,
            queues,
            concurrency: raw.parse("concurrency", value::concurrency)?,
            autoscale: raw.parse("autoscale", value::autoscale)?,
            autoscale_keepalive: raw.parse("autoscale_keepalive", value::duration)?,
            grace: raw.parse("grace", value::duration)?,
            soft_time_limit: raw.parse("soft_time_limit", value::optional_duration)?,
            time_limit: raw.parse("time_limit", value::optional_duration)?,
            pool: raw.parse("pool", str::parse)?,
            python_pool: raw.parse("python_pool", str::parse)?,
            start_method: raw.parse("start_method", str::parse)?,
            python: raw.parse("python", value::text_or_empty)?,
            max_tasks_per_child: raw.parse("max_tasks_per_child", value::optional_count)?,
            max_memory_per_child: raw.parse("max_memory_per_child", value::optional_size)?,
            child_memory_max: raw.parse("child_memory_max", value::optional_size)?,
            child_oom_score_adj: raw.parse("child_oom_score_adj", value::oom_score)?,
            unknown_tasks: raw.parse("unknown_tasks", value::unknown_tasks)?,
            task_events: raw.parse("task_events", value::boolean)?,
            sent_events: raw.parse("sent_events", value::boolean)?,
            remote_control: raw.parse("remote_control", value::boolean)?,
            mingle: raw.parse("mingle", value::boolean)?,
            heartbeat_events: raw.parse("heartbeat_events", value::optional_duration)?,
            log_level: raw.parse("log_level", value::log_level)?,
            log_format: raw.parse("log_format", value::log_format)?,
            node_name: raw.parse("node_name", value::node_name)?,
            lease_expiry: raw.parse("lease_expiry", value::lease)?,
            strict_early_ack: raw.parse("strict_early_ack", value::boolean)?,
            priority_levels: raw.parse("priority_levels", value::boolean)?,
            result_expires: raw.parse("result_expires", value::optional_duration)?,
            chord_expires: raw.parse("chord_expires", value::optional_duration)?,
            result_extended: raw.parse("result_extended", value::boolean)?,
            message_bytes_max: raw.parse("message_bytes_max", value::size)?,
            result_bytes_max: raw.parse("result_bytes_max", value::size)?,
            queue_depth_max: raw.parse("queue_depth_max", value::count)?,
            dead_letters_max: raw.parse("dead_letters_max", value::count)?,
            dead_bytes_max: raw.parse("dead_bytes_max", value::size)?,
            dead_expires: raw.parse("dead_expires", value::optional_duration)?,
            dead_spill: raw.parse("dead_spill", value::text_or_empty)?,
            events_max: raw.parse("events_max", value::count)?,
            revoke_expires: raw.parse("revoke_expires", value::duration)?,
            schedule_history: raw.parse("schedule_history", value::count)?,
            schedule_history_expires: raw.parse("schedule_history_expires", value::duration)?,
            default_exchange: raw.parse("default_exchange", value::text_or_empty)?,
            default_exchange_type: raw.parse("default_exchange_type", str::parse)?,
            default_routing_key: raw.parse("default_routing_key", value::text_or_empty)?,
            task_serializer: raw.parse("task_serializer", str::parse)?,
            task_compression: raw.parse("task_compression", value::compression)?,
            accept_content: raw.parse("accept_content", value::accept)?,
            http: HttpSettings::parse(raw)?,
            routes,
            task_queues,
            tasks,
            celery: Vec::new(),
            schedule: Vec::new(),
            sources: Vec::new(),
            rows: Vec::new(),
            warnings,
        };
        if let (Some(soft), Some(hard)) =
            (settings.soft_time_limit.value, settings.time_limit.value)
            && soft >= hard
        {
            return Err(ConfigError::new(format!(
                "soft_time_limit ({}) must be shorter than time_limit ({})",
                settings.soft_time_limit.source, settings.time_limit.source
            )));
        }
        settings.router()?;
        Ok(settings.with_rows(raw))
    }

    fn with_rows(mut self, raw: &Raw) -> Self {
        let shown = |name: &'static str, text: &str| match name {
            "broker_url" | "result_backend" => celeriac_stores::redacted(text),
            "queues" if text.is_empty() => "every queue this application sends to".to_owned(),
            "node_name" => self.node_name.value.clone(),
            _ => text.to_owned(),
        };
        let row = |key: &keys::Key| {
            let (value, source) = raw.find(key.name);
            let value = match key.name {
                "result_backend" if value.is_empty() => "the broker's own store".to_owned(),
                "soft_time_limit"
                | "time_limit"
                | "max_tasks_per_child"
                | "max_memory_per_child"
                | "child_memory_max"
                | "task_compression"
                | "http_worker"
                | "http_probes_port"
                    if value.is_empty() =>
                {
                    "none".to_owned()
                }
                _ => shown(key.name, value),
            };
            SettingRow { key: key.name, value, source: source.to_string(), effect: key.effect }
        };
        let mut rows: Vec<SettingRow> = KEYS.iter().map(row).collect();
        let routes = self.routes.value.iter().map(|(pattern, route)| SettingRow {
            key: "routes",
            value: format!("{pattern} → {route}"),
            source: self.routes.source.to_string(),
            effect: "sends matching tasks to this queue",
        });
        rows.extend(routes);
        let task_queues = self.task_queues.value.iter().map(|one| SettingRow {
            key: "task_queues",
            value: format!("{} ← {} ({}) {}", one.queue, one.exchange, one.kind, one.routing_key),
            source: self.task_queues.source.to_string(),
            effect: "binds this queue to an exchange",
        });
        rows.extend(task_queues);
        rows.extend(self.tasks.sections().iter().map(|one| SettingRow {
            key: "tasks",
            value: format!("{}: {}", one.pattern, one.shown),
            source: one.source.to_string(),
            effect: "adds to matching tasks",
        }));
        rows.extend(self.warnings.iter().filter(|text| text.starts_with("rollout:")).map(|text| {
            SettingRow {
                key: "(rollout)",
                value: text.trim_start_matches("rollout:").trim().to_owned(),
                source: "environment".to_owned(),
                effect: "not used by this version",
            }
        }));
        self.rows = rows;
        self.sources = KEYS.iter().map(|key| (key.name, raw.find(key.name).1.clone())).collect();
        self.warnings.retain(|text| !text.starts_with("rollout:"));
        self
    }

    /// Every setting with its source, in a stable order.
    pub fn rows(&self) -> Vec<SettingRow> {
        self.rows.clone()
    }

    /// What is odd but not wrong: unknown environment variables, settings without effect here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The entries of the settings file.
    #[cfg(feature = "cli")]
    pub(crate) fn schedule(&self) -> &[EntrySection] {
        &self.schedule
    }

    /// What is added to tasks.
    pub(crate) fn tasks(&self) -> &TaskTable {
        &self.tasks
    }

    /// What the store refuses and how long it keeps things.
    pub fn limits(&self) -> StoreLimits {
        StoreLimits {
            message_bytes_max: self.message_bytes_max.value,
            result_bytes_max: self.result_bytes_max.value,
            queue_depth_max: self.queue_depth_max.value,
            result_expires: self.result_expires.value,
            events_max: self.events_max.value,
            dead_letters_max: self.dead_letters_max.value,
            dead_bytes_max: self.dead_bytes_max.value as u64,
            dead_expires: self.dead_expires.value,
            revoke_expires: self.revoke_expires.value,
            occurrences_max: u32::try_from(self.schedule_history.value).unwrap_or(u32::MAX),
            occurrence_expires: self.schedule_history_expires.value,
        }
    }

    /// The routing table.
    ///
    /// # Errors
    /// A pattern or a queue name that does not parse.
    pub fn router(&self) -> Result<Router, ConfigError> {
        let fail = |error: celeriac_core::StoreError| {
            ConfigError::new(format!("{}: {error}", self.routes.source))
        };
        let default = QueueName::parse(&self.default_queue.value).map_err(fail)?;
        let mut router = Router::new(default.clone());
        for (pattern, route) in &self.routes.value {
            router.add_route(pattern, route.clone()).map_err(fail)?;
        }
        let fail = |error: celeriac_core::StoreError| {
            ConfigError::new(format!("{}: {error}", self.task_queues.source))
        };
        if let Some(binding) = self.default_binding(default) {
            router.declare(binding).map_err(fail)?;
        }
        for binding in &self.task_queues.value {
            let mut binding = binding.clone();
            // Celery gives such a queue its default key (5.7 `app/amqp.py` `Queues._add`), which is
            // part of a fanout's channel on Redis.
            if binding.kind == ExchangeKind::Fanout && binding.routing_key.is_empty() {
                let key = &self.default_routing_key.value;
                let key = if key.is_empty() { &self.default_queue.value } else { key };
                binding.routing_key.clone_from(key);
            }
            router.declare(binding).map_err(fail)?;
        }
        router.set_encoding(Encoding {
            serializer: self.task_serializer.value,
            compression: self.task_compression.value,
        });
        Ok(router)
    }

    /// The exchange of the default queue, if it is another than every queue has by itself (Celery's
    /// `task_default_exchange`, `_type` and `task_default_routing_key`).
    fn default_binding(&self, queue: QueueName) -> Option<Binding> {
        let (exchange, key) = (&self.default_exchange.value, &self.default_routing_key.value);
        let kind = self.default_exchange_type.value;
        if exchange.is_empty() && key.is_empty() && kind == ExchangeKind::Direct {
            return None;
        }
        let or_queue = |text: &str| if text.is_empty() { queue.as_str() } else { text }.to_owned();
        let (exchange, routing_key) = (or_queue(exchange), or_queue(key));
        Some(Binding { exchange, kind, routing_key, queue })
    }

    /// The same settings with more queues that are bound to exchanges.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "cli")),
        allow(dead_code, reason = "apps are run by the command line, on Linux")
    )]
    pub(crate) fn with_task_queues(mut self, bindings: Vec<Binding>) -> Self {
        let known = |one: &Binding| self.task_queues.value.iter().any(|own| own.queue == one.queue);
        let more: Vec<Binding> = bindings.into_iter().filter(|one| !known(one)).collect();
        self.task_queues.value.extend(more);
        self
    }

    /// Where the store keeps results, if that is another place than its own. A Python app may have a result
    /// backend that only the app can write: then the store has nothing to do with it.
    pub(crate) fn results_beside(&self) -> Option<String> {
        let (broker, results) = (&self.broker_url.value, &self.result_backend.value);
        let kept = celeriac_stores::keeps_results(broker, results).is_ok();
        (kept && results != broker).then(|| results.clone())
    }

    /// How long a chord may wait without the end of a member. By default, a little less than its parts are
    /// kept: after that it could never be complete.
    pub fn chord_patience(&self) -> Option<Duration> {
        if !self.chord_expires.is_default() {
            return self.chord_expires.value;
        }
        self.result_expires.value.map(|kept| kept / 24 * 23)
    }

    /// The same settings on another store.
    pub fn with_broker(mut self, url: &str) -> Self {
        url.clone_into(&mut self.broker_url.value);
        url.clone_into(&mut self.result_backend.value);
        self
    }
}

/// Results live in the store itself, or beside it; another place is refused instead of ignored.
fn result_backend(
    raw: &Raw,
    broker: &Setting<String>,
    has_app: bool,
) -> Result<Setting<String>, ConfigError> {
    let given = raw.parse("result_backend", value::text_or_empty)?;
    if has_app && !given.value.is_empty() {
        return Ok(given);
    }
    if given.value.is_empty() || given.value == broker.value {
        return Ok(Setting { value: broker.value.clone(), source: given.source });
    }
    match celeriac_stores::keeps_results(&broker.value, &given.value) {
        Ok(()) => Ok(given),
        Err(error) => {
            let refused = ConfigError::new(format!("{}: {error}", given.source));
            Err(refused.hint(
                "unset it, or set it to the broker's URL or, on Redis, to another of its databases",
            ))
        }
    }
}

#[cfg(test)]
mod tests;
