//! What is wrong with an application: its settings, tasks, routes and schedule.

use super::Finding;
use celeriac_wire::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Celery's default of `worker_prefetch_multiplier`.
const PREFETCH: f64 = 4.0;
/// Entries that come more seldom than this are not asked for `expires`, in seconds.
const OFTEN: f64 = 3600.0;

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The file, relative to the application's folder.
    pub file: String,
    /// The line, from 1; `None` where only the file is known.
    pub line: Option<u64>,
}

impl fmt::Display for Spot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}:{line}", self.file),
            None => formatter.write_str(&self.file),
        }
    }
}

/// A task, as its decorator and the application have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFacts {
    /// Its name.
    pub name: String,
    /// Where it is written, if that is known.
    pub spot: Option<Spot>,
    /// The queue that its decorator names.
    pub queue: Option<String>,
    /// Whether it is acknowledged late.
    pub acks_late: bool,
    /// Whether it runs again when its process dies.
    pub reject_on_worker_lost: bool,
    /// Its own hard limit, in seconds.
    pub time_limit: Option<f64>,
    /// Its own soft limit, in seconds.
    pub soft_time_limit: Option<f64>,
}

/// A written call that sends a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallFacts {
    /// Where it is.
    pub spot: Spot,
    /// Its `priority`.
    pub priority: Option<Value>,
    /// Its `queue`.
    pub queue: Option<Value>,
    /// Its `countdown`.
    pub countdown: Option<Value>,
}

/// A written command that starts a worker, a beat or Flower.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandFacts {
    /// Where it is.
    pub spot: Spot,
    /// `worker`, `beat` or `flower`.
    pub role: String,
    /// `-P`.
    pub pool: Option<String>,
    /// `-c`.
    pub concurrency: Option<String>,
    /// `-Q`.
    pub queues: Option<String>,
}

/// What Celery's transport for the application's broker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// After how long it delivers a message again that is not acknowledged, unless told otherwise.
    pub redelivers_after: Option<Duration>,
    /// Whether it is reached over a network.
    pub network: bool,
}

/// What is known of an application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppFacts {
    /// Whether it was imported; else everything is from its files.
    pub loaded: bool,
    /// Its settings.
    pub settings: Map,
    /// Where settings are written.
    pub places: BTreeMap<String, Spot>,
    /// Where entries of beat are written.
    pub entries: BTreeMap<String, Spot>,
    /// Its tasks.
    pub tasks: Vec<TaskFacts>,
    /// The queues that its worker consumes without `-Q`; `None` where that is not known.
    pub queues: Option<Vec<String>>,
    /// Calls in its files.
    pub calls: Vec<CallFacts>,
    /// Commands in its files.
    pub commands: Vec<CommandFacts>,
    /// What its broker does.
    pub transport: Transport,
}

impl AppFacts {
    fn value(&self, name: &str) -> &Value {
        self.settings.get(name).unwrap_or(&Value::Null)
    }

    fn is_on(&self, name: &str) -> bool {
        *self.value(name) == Value::Bool(true)
    }

    fn seconds(&self, name: &str) -> Option<f64> {
        self.value(name).as_f64().filter(|seconds| *seconds > 0.0)
    }

    /// Where a setting is written, or its name.
    pub fn place(&self, name: &str) -> String {
        self.places.get(name).map_or_else(|| name.to_owned(), ToString::to_string)
    }

    fn task_place(task: &TaskFacts) -> String {
        task.spot.as_ref().map_or_else(|| format!("task {}", task.name), ToString::to_string)
    }

    fn hard_limit(&self, task: &TaskFacts) -> Option<f64> {
        task.time_limit.or_else(|| self.seconds("task_time_limit"))
    }

    fn redelivers_after(&self) -> Option<f64> {
        let given = self.value("broker_transport_options").get("visibility_timeout");
        let given = given.and_then(Value::as_f64);
        given.or_else(|| self.transport.redelivers_after.map(|after| after.as_secs_f64()))
    }

    /// Tasks of the application itself.
    fn own_tasks(&self) -> impl Iterator<Item = &TaskFacts> {
        self.tasks.iter().filter(|task| !task.name.starts_with("celery."))
    }
}

/// Every check of an application.
pub fn check_app(app: &AppFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    for check in [
        beat_expires,
        beat_registered,
        routes_registered,
        queues_declared,
        queues_used,
        pools,
        redelivery,
        prefetch,
        visibility,
        etas,
        priorities,
        sockets,
        result_expiry,
        pickle,
    ] {
        found.extend(check(app));
    }
    found
}

fn schedule(app: &AppFacts) -> impl Iterator<Item = (&str, &Value, String)> {
    let entries = app.value("beat_schedule").as_object();
    entries.into_iter().flat_map(Map::iter).map(|(name, entry)| {
        let spot = app.entries.get(name).map(ToString::to_string);
        (name, entry, spot.unwrap_or_else(|| app.place("beat_schedule")))
    })
}

/// Whether an entry comes more often than once in an hour, as far as its text tells.
fn comes_often(schedule: &Value) -> bool {
    if let Some(seconds) = schedule.as_f64() {
        return seconds <= OFTEN;
    }
    let text = schedule.get("repr").and_then(Value::as_str).unwrap_or_default();
    let loaded = text.strip_prefix("<crontab: ").is_some_and(|minutes| minutes.starts_with('*'));
    let minutes = text.contains("minute=") || !text.contains("hour=");
    let written = text.starts_with("crontab(")
        && (text.contains("minute='*")
            || text.contains("minute=\"*")
            || !minutes
            || text == "crontab()");
    loaded || written
}

fn beat_expires(app: &AppFacts) -> Vec<Finding> {
    let told = |(name, entry, place): (&str, &Value, String)| {
        let expires = entry.get("options").and_then(|options| options.get("expires"));
        let runs = entry.get("schedule").filter(|schedule| comes_often(schedule))?;
        if expires.is_some_and(|expires| !expires.is_null()) {
            return None;
        }
        let (every, expires) = match runs.as_f64() {
            Some(seconds) => (format!("every {seconds} s"), seconds),
            None => ("every few minutes".to_owned(), 60.0),
        };
        let what = format!("The entry {name} is sent {every} and never expires.");
        let fix = format!(
            "Add \"options\": {{\"expires\": {expires}}}, and a queue of its own for what must not wait."
        );
        Some(Finding::new("D-APP-BEAT-EXPIRES", place, what, fix))
    };
    schedule(app).filter_map(told).collect()
}

fn beat_registered(app: &AppFacts) -> Vec<Finding> {
    if !app.loaded {
        return Vec::new();
    }
    let names: BTreeSet<&str> = app.tasks.iter().map(|task| task.name.as_str()).collect();
    let told = |(name, entry, place): (&str, &Value, String)| {
        let task = entry.get("task")?.as_str().filter(|task| !names.contains(task))?;
        let what = format!("The entry {name} sends {task}, and the app has no such task.");
        Some(Finding::new("D-APP-BEAT-UNREGISTERED", place, what, registered_fix(app, task)))
    };
    schedule(app).filter_map(told).collect()
}

fn registered_fix(app: &AppFacts, task: &str) -> String {
    let last = task.rsplit('.').next().unwrap_or(task);
    let near = app.own_tasks().find(|known| known.name.rsplit('.').next() == Some(last));
    match near {
        Some(near) => format!("Write {}, which the app has, or name the task so.", near.name),
        None => "Import the module with the task: Celery(…, include=[…]).".to_owned(),
    }
}

/// The routes that are written as a dictionary: pattern and queue.
fn routes(app: &AppFacts) -> Vec<(String, Option<String>)> {
    let mut all = Vec::new();
    let value = app.value("task_routes");
    let tables = match value.as_array() {
        Some(tables) => tables.iter().collect(),
        None => vec![value],
    };
    for (pattern, route) in tables.into_iter().filter_map(Value::as_object).flat_map(Map::iter) {
        let queue = route.as_str().or_else(|| route.get("queue").and_then(Value::as_str));
        all.push((pattern.to_owned(), queue.map(str::to_owned)));
    }
    all
}

fn routes_registered(app: &AppFacts) -> Vec<Finding> {
    if !app.loaded {
        return Vec::new();
    }
    let told = |(pattern, _): (String, Option<String>)| {
        let glob = globset::Glob::new(&pattern).ok()?.compile_matcher();
        if pattern == "repr" || app.tasks.iter().any(|task| glob.is_match(&task.name)) {
            return None;
        }
        let what = format!("The route {pattern} fits no task of the app.");
        let fix = registered_fix(app, &pattern);
        Some(Finding::new("D-APP-ROUTE-UNREGISTERED", app.place("task_routes"), what, fix))
    };
    routes(app).into_iter().filter_map(told).collect()
}

/// Who sends to which queue, and where that is written.
fn senders(app: &AppFacts) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for task in app.own_tasks() {
        if let Some(queue) = &task.queue {
            let who = format!("The task {}", task.name);
            all.push((queue.clone(), who, AppFacts::task_place(task)));
        }
    }
    for (pattern, queue) in routes(app) {
        if let Some(queue) = queue {
            all.push((queue, format!("The route {pattern}"), app.place("task_routes")));
        }
    }
    for call in &app.calls {
        if let Some(queue) = call.queue.as_ref().and_then(Value::as_str) {
            all.push((queue.to_owned(), "This call".to_owned(), call.spot.to_string()));
        }
    }
    for (name, entry, place) in schedule(app) {
        let queue = entry.get("options").and_then(|options| options.get("queue"));
        if let Some(queue) = queue.and_then(Value::as_str) {
            all.push((queue.to_owned(), format!("The entry {name}"), place));
        }
    }
    all
}

/// The queues that somebody consumes: those of a worker without `-Q`, and those of written commands.
fn consumed(app: &AppFacts) -> Option<BTreeSet<String>> {
    let mut all: BTreeSet<String> = match (&app.queues, app.value("task_queues")) {
        (Some(queues), _) => queues.iter().cloned().collect(),
        (None, Value::Object(queues)) if !queues.contains_key("repr") => {
            queues.keys().map(str::to_owned).collect()
        }
        (None, Value::Null) => BTreeSet::from([app
            .value("task_default_queue")
            .as_str()
            .unwrap_or("celery")
            .to_owned()]),
        (None, _) => return None,
    };
    for command in app.commands.iter().filter(|command| command.role == "worker") {
        let named = command.queues.iter().flat_map(|queues| queues.split(','));
        all.extend(named.map(str::to_owned));
    }
    Some(all)
}

fn queues_declared(app: &AppFacts) -> Vec<Finding> {
    let Some(consumed) = consumed(app) else { return Vec::new() };
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    let mut found = Vec::new();
    for (queue, who, place) in senders(app) {
        if consumed.contains(&queue) || !told.insert((queue.clone(), place.clone())) {
            continue;
        }
        let what =
            format!("{who} sends to the queue {queue}, which is not among the declared ones.");
        let fix = format!("Start a worker with -Q {queue}, or declare it in task_queues.");
        found.push(Finding::new("D-APP-QUEUE-UNDECLARED", place, what, fix));
    }
    found
}

fn queues_used(app: &AppFacts) -> Vec<Finding> {
    let declared = match app.value("task_queues") {
        Value::Object(queues) if !queues.contains_key("repr") => {
            queues.keys().map(str::to_owned).collect()
        }
        Value::Array(_) => app.queues.clone().unwrap_or_default(),
        _ => Vec::new(),
    };
    let default = app.value("task_default_queue").as_str().unwrap_or("celery");
    let used: BTreeSet<String> = senders(app).into_iter().map(|(queue, ..)| queue).collect();
    let unused: Vec<&str> = declared
        .iter()
        .map(String::as_str)
        .filter(|queue| *queue != default && !used.contains(*queue))
        .collect();
    if unused.is_empty() {
        return Vec::new();
    }
    let what = format!("Nothing in the app sends to {}.", unused.join(", "));
    let fix = "Route tasks there (task_routes), or leave the queues out.";
    vec![Finding::new("D-APP-QUEUE-UNUSED", app.place("task_queues"), what, fix)]
}

/// What a pool of Celery cannot do, of what is configured.
fn missing(app: &AppFacts, pool: &str, concurrency: Option<&str>) -> Vec<&'static str> {
    let any =
        |limit: fn(&TaskFacts) -> Option<f64>| app.own_tasks().any(|task| limit(task).is_some());
    let soft = app.seconds("task_soft_time_limit").is_some() || any(|task| task.soft_time_limit);
    let hard = app.seconds("task_time_limit").is_some() || any(|task| task.time_limit);
    let recycled = app.seconds("worker_max_tasks_per_child").is_some()
        || app.seconds("worker_max_memory_per_child").is_some();
    let several = concurrency.is_some_and(|count| count != "1");
    // celery/concurrency/{solo,thread,gevent,eventlet}.py, 5.3 to 5.7.
    let (no_soft, no_hard, no_several) = match pool {
        "solo" => (true, true, true),
        "threads" | "eventlet" => (true, true, false),
        "gevent" => (true, false, false),
        _ => return Vec::new(),
    };
    [
        (no_soft && soft, "soft time limits"),
        (no_hard && hard, "hard time limits"),
        (recycled, "max-tasks-per-child and max-memory-per-child"),
        (no_several && several, "a concurrency above 1"),
    ]
    .into_iter()
    .filter_map(|(is_missing, name)| is_missing.then_some(name))
    .collect()
}

fn pools(app: &AppFacts) -> Vec<Finding> {
    let workers = app.commands.iter().filter(|command| command.role == "worker");
    let written = workers.filter_map(|command| {
        let pool = command.pool.as_deref()?;
        Some((pool, command.concurrency.as_deref(), command.spot.to_string()))
    });
    let set = app.value("worker_pool").as_str();
    let set = set.map(|pool| (pool, None, app.place("worker_pool")));
    let told = |(pool, concurrency, place): (&str, Option<&str>, String)| {
        let missing = missing(app, pool, concurrency);
        let what = format!(
            "Celery's pool {pool} does not know {}, which the app sets.",
            missing.join(", ")
        );
        let fix =
            "Use the prefork pool, or celeriac's worker, whose pools keep limits in all of them.";
        (!missing.is_empty()).then(|| Finding::new("D-APP-POOL", place, what, fix))
    };
    written.chain(set).filter_map(told).collect()
}

fn redelivery(app: &AppFacts) -> Vec<Finding> {
    const FIX: &str = "Leave reject_on_worker_lost out in stock workers, or run them with celeriac, which \
                       makes a dead letter after three deaths.";
    let global = app.is_on("task_acks_late") && app.is_on("task_reject_on_worker_lost");
    if global {
        let what = "task_acks_late and task_reject_on_worker_lost are set for all tasks: one that kills \
                    its process runs again without end.";
        return vec![Finding::new(
            "D-APP-REDELIVERY",
            app.place("task_reject_on_worker_lost"),
            what,
            FIX,
        )];
    }
    let tasks = app.own_tasks().filter(|task| task.acks_late && task.reject_on_worker_lost);
    tasks
        .map(|task| {
            let what = format!("{} runs again without end when it kills its process.", task.name);
            Finding::new("D-APP-REDELIVERY", AppFacts::task_place(task), what, FIX)
        })
        .collect()
}

fn is_late(app: &AppFacts, task: &TaskFacts) -> bool {
    task.acks_late || app.is_on("task_acks_late")
}

fn multiplier(app: &AppFacts) -> f64 {
    app.value("worker_prefetch_multiplier").as_f64().unwrap_or(PREFETCH)
}

fn prefetch(app: &AppFacts) -> Vec<Finding> {
    let multiplier = multiplier(app);
    let late = app.own_tasks().find(|task| is_late(app, task));
    let Some(late) = late.filter(|_| multiplier > 1.0 || multiplier <= 0.0) else {
        return Vec::new();
    };
    let place = match app.places.get("worker_prefetch_multiplier") {
        Some(spot) => spot.to_string(),
        None if app.is_on("task_acks_late") => app.place("task_acks_late"),
        None => AppFacts::task_place(late),
    };
    let count = if multiplier == 0.0 {
        "all messages".to_owned()
    } else {
        format!("{multiplier} messages")
    };
    let what = format!(
        "Tasks are acknowledged late, and each process of a worker takes {count} at a time \
         (worker_prefetch_multiplier)."
    );
    let fix = "Set worker_prefetch_multiplier = 1. celeriac's worker takes what it has slots for.";
    vec![Finding::new("D-APP-PREFETCH", place, what, fix)]
}

fn visibility(app: &AppFacts) -> Vec<Finding> {
    let Some(timeout) = app.redelivers_after() else { return Vec::new() };
    let longest = app
        .own_tasks()
        .filter_map(|task| Some((app.hard_limit(task)?, task)))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let multiplier = multiplier(app);
    let found = |place: String, what: String, needed: f64| {
        let hours = (needed / 3600.0).floor() + 1.0;
        let fix = format!(
            "Set broker_transport_options = {{\"visibility_timeout\": {}}} in every program of the app. \
             celeriac's workers hold messages by leases, whatever the timeout.",
            hours * 3600.0
        );
        vec![Finding::new("D-APP-VISIBILITY", place, what, fix)]
    };
    let Some((limit, task)) = longest else {
        let late = app.own_tasks().find(|task| is_late(app, task));
        return late.map_or_else(Vec::new, |late| {
            let what = format!(
                "{} is acknowledged late and has no time limit: when it takes longer than {timeout} s it \
                 is delivered again.",
                late.name
            );
            found(AppFacts::task_place(late), what, timeout)
        });
    };
    let late = app.own_tasks().any(|task| is_late(app, task));
    let needed = if multiplier == 0.0 { f64::INFINITY } else { multiplier * limit }
        + if late { limit } else { 0.0 };
    if needed < timeout {
        return Vec::new();
    }
    // An imported task has the limit of the settings where it has none of its own.
    let place = match app.places.get("task_time_limit") {
        Some(spot) if app.seconds("task_time_limit") == Some(limit) => spot.to_string(),
        _ => AppFacts::task_place(task),
    };
    let needed_text =
        if needed.is_finite() { format!("{needed} s") } else { "any time".to_owned() };
    let what = format!(
        "{} may take {limit} s, and each process of a worker takes {multiplier} ahead: a message may be held for \
         {needed_text}, and goes to a second worker after {timeout} s.",
        task.name
    );
    found(place, what, if needed.is_finite() { needed } else { timeout * 4.0 })
}

fn etas(app: &AppFacts) -> Vec<Finding> {
    let Some(timeout) = app.redelivers_after() else { return Vec::new() };
    let told = |call: &CallFacts| {
        let countdown = call.countdown.as_ref()?.as_f64().filter(|seconds| *seconds >= timeout)?;
        let what =
            format!("countdown={countdown} is longer than the visibility timeout of {timeout} s.");
        let fix = "Raise visibility_timeout above it, or let celeriac's workers consume the queue: they \
                   leave such messages in the store until it is time.";
        Some(Finding::new("D-APP-ETA", call.spot.to_string(), what, fix))
    };
    app.calls.iter().filter_map(told).collect()
}

fn priorities(app: &AppFacts) -> Vec<Finding> {
    let told = |place: String, priority: i64| {
        let step = match priority {
            ..=2 => 0,
            3..=5 => 3,
            6..=8 => 6,
            _ => 9,
        };
        let what = format!(
            "priority={priority}: on Redis that is step {step}, where 0 runs first; on RabbitMQ 9 runs first."
        );
        let fix = "Give urgent tasks a queue of their own, or use celeriac's levels (critical, high, normal, \
                   low), which mean the same on every broker.";
        Finding::new("D-APP-PRIORITY", place, what, fix)
    };
    // Once for each number in a file: who looks at the first sees the others.
    let mut seen = BTreeSet::new();
    let calls = app.calls.iter().filter_map(|call| {
        let priority = call.priority.as_ref()?.as_i64()?;
        seen.insert((&call.spot.file, priority)).then(|| told(call.spot.to_string(), priority))
    });
    let default = app.value("task_default_priority").as_i64();
    let default = default.map(|priority| told(app.place("task_default_priority"), priority));
    calls.chain(default).collect()
}

fn sockets(app: &AppFacts) -> Vec<Finding> {
    let options = app.value("broker_transport_options");
    let has = |name| options.get(name).is_some_and(|value| !value.is_null());
    if !app.loaded
        || !app.transport.network
        || (has("socket_timeout") && has("health_check_interval"))
    {
        return Vec::new();
    }
    let what = "broker_transport_options has no socket_timeout and no health_check_interval.";
    let fix = "Set {\"socket_timeout\": 10, \"socket_connect_timeout\": 5, \"socket_keepalive\": True, \
               \"health_check_interval\": 5, \"retry_on_timeout\": True}. celeriac's workers have deadlines.";
    vec![Finding::new("D-APP-SOCKET", app.place("broker_transport_options"), what, fix)]
}

fn result_expiry(app: &AppFacts) -> Vec<Finding> {
    let kept = app.value("result_expires");
    let for_ever = kept.is_null() || kept.as_f64() == Some(0.0);
    let is_set =
        app.settings.contains_key("result_expires") && !app.value("result_backend").is_null();
    if !(for_ever && is_set) {
        return Vec::new();
    }
    let what = "result_expires is off: results stay for ever.";
    let fix = "Set result_expires = 86400, or ignore_result for tasks whose result nobody reads.";
    vec![Finding::new("D-APP-RESULT-EXPIRY", app.place("result_expires"), what, fix)]
}

fn pickle(app: &AppFacts) -> Vec<Finding> {
    let content = app.value("accept_content").as_array().unwrap_or_default();
    let accepts = content.iter().filter_map(Value::as_str).any(|name| name.contains("pickle"));
    if !accepts {
        return Vec::new();
    }
    let what = "accept_content takes pickle.";
    let fix = "Send JSON, and take pickle out of accept_content once the queues are empty.";
    vec![Finding::new("D-APP-PICKLE", app.place("accept_content"), what, fix)]
}

#[cfg(test)]
mod tests;
