//! Goes through an app's settings: what holds, what has no effect, what a worker cannot start with.

use super::settings::has;
use crate::config::Settings;
use crate::config::celery::{self, CeleryRow, Role};
use crate::pool::{PythonPool, StartMethod};
use celeriac_runtime::pool::python::Hello;
use celeriac_wire::Value;

/// Parts of names whose values are secrets, as in Celery's `HIDDEN_SETTINGS` (celery 5.7.0
/// app/utils.py), without those that hide names of queues.
const SECRET: [&str; 7] =
    ["pass", "secret", "token", "credential", "signature", "api", "database_url"];
/// Where a setting of Celery begins.
const SPACES: [&str; 9] =
    ["task_", "worker_", "broker_", "result_", "beat_", "event_", "control_", "redis_", "accept_"];

/// The strategy of tasks of celery-batches.
const BATCHES: &str = "celery_batches.Batches.Strategy";

/// A value that this version cannot keep: what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) hint: &'static str,
}

/// What a worker must not start with. With `pool`, `-P` of the command line has the say.
pub(crate) fn refusals(hello: &Hello, pool: Option<&str>) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut refuse = |name, value: &Value, text: &str, hint| {
        let text = format!("the app's {name} is {}: {text}", shown(name, value));
        found.push(Refusal { name, text, hint });
    };
    let value = |name| hello.settings.get(name).unwrap_or(&Value::Null);
    let own = value("worker_pool");
    if let (None, Some(Err(text))) = (pool, own.as_str().map(str::parse::<PythonPool>)) {
        refuse("worker_pool", own, &text, "change the setting, or give another pool with -P");
    }
    let start = value("worker_pool_start_method");
    if let Some(Err(text)) = start.as_str().map(str::parse::<StartMethod>) {
        refuse("worker_pool_start_method", start, &text, "set it to one of these");
    }
    let consumer = value("worker_consumer");
    let is_own = |text: &str| !text.replace(':', ".").starts_with("celery.worker.consumer");
    if consumer.as_str().is_some_and(is_own) || consumer.get("repr").is_some() {
        refuse(
            "worker_consumer",
            consumer,
            "the worker is not Celery's, and has no such class",
            "leave it out, or keep `celery worker` for this app",
        );
    }
    // Stock workers and clients of this app would look elsewhere for their messages.
    for (option, usual) in [
        ("sep", Value::from("\u{6}\u{16}")),
        ("priority_steps", [0, 3, 6, 9].into_iter().collect()),
        ("body_encoding", Value::from("base64")),
    ] {
        let given = value("broker_transport_options").get(option);
        if let Some(given) = given.filter(|given| !given.is_null() && **given != usual) {
            let text = format!("{option} is {given}, and the worker knows {usual} only");
            let name = "broker_transport_options";
            let text = format!("the app's {name}: {text}");
            let hint =
                "leave this option out in all of the app's processes, once its queues are empty";
            found.push(Refusal { name, text, hint });
        }
    }
    found
}

/// The first task that only Celery's own worker can run, for it has its own way to take messages
/// from there. With queues that were chosen (`-Q`) such tasks are somebody else's.
pub(crate) fn strategy_refusal(hello: &Hello, chosen: bool) -> Option<Refusal> {
    let (name, class) = strategies(hello).next().filter(|_| !chosen)?;
    let text = match class {
        BATCHES => format!(
            "task {name} is one of celery-batches, which collects messages inside Celery's own \
             worker and works nowhere else"
        ),
        class => format!(
            "task {name} takes its messages in a way of its own ({class}), which works inside \
             Celery's own worker only"
        ),
    };
    let hint = "give it a queue of its own with task_routes, have `celery worker -Q` consume that \
                one, and name the others here with -Q";
    Some(Refusal { name: "task_routes", text, hint })
}

fn strategies(hello: &Hello) -> impl Iterator<Item = (&str, &str)> {
    hello.tasks.iter().filter_map(|(name, task)| Some((name.as_str(), task.strategy.as_deref()?)))
}

/// What the operator is told when a worker starts, a line for each setting.
pub(crate) fn warnings(hello: &Hello) -> Vec<String> {
    let mut told: Vec<String> = strategies(hello)
        .map(|(name, class)| {
            format!("task {name} is left to Celery's own worker, where alone {class} works")
        })
        .collect();
    for name in &hello.changed {
        let Some(known) = celery::find(name) else { continue };
        let value = hello.settings.get(name).unwrap_or(&Value::Null);
        if known.role == Role::Idle && !known.is_default(value) {
            told.push(format!("the app's {name} has no effect here: {}", known.text));
        }
    }
    for (options, text) in [
        (
            &["fanout_prefix", "fanout_patterns"][..],
            "events and remote control use Celery's defaults",
        ),
        (
            &["unacked_key", "unacked_index_key", "unacked_mutex_key"],
            "what stock workers leave there is not given back by this one",
        ),
        (&["deadletter_queue"], "messages that no queue takes are not kept there"),
    ] {
        let given = hello.settings.get("broker_transport_options");
        let set: Vec<&str> = options
            .iter()
            .copied()
            .filter(|option| given.and_then(|map| map.get(option)).is_some())
            .collect();
        if !set.is_empty() {
            let names = set.join(", ");
            told.push(format!("the app's broker_transport_options: {names} has no effect: {text}"));
        }
    }
    told.extend(
        hello
            .unknown
            .keys()
            .filter_map(|name| unknown(&hello.celery, name))
            .map(|(name, text)| format!("the app's {name} has no effect: {text}")),
    );
    told
}

/// What is to be said of a setting that the installed Celery does not know; `None` for what is
/// celeriac's own, and for what may be anything of the app's.
pub(crate) fn unknown<'a>(version: &str, name: &'a str) -> Option<(&'a str, String)> {
    match celery::find(name) {
        Some(known) if known.role == Role::Ours || known.old.is_empty() => None,
        Some(_) => Some((name, format!("Celery {version} does not know it, later ones do"))),
        None => {
            // Django's way to write them, which has to be asked for.
            let plain = name.strip_prefix("CELERY_").map(str::to_lowercase);
            if let Some(known) = plain.and_then(|plain| celery::find(&plain)) {
                let known = known.name;
                let text = format!(
                    "it has to be {known}, or `namespace=\"CELERY\"` given to config_from_object"
                );
                return Some((name, text));
            }
            let near = celery::like(name)
                .map(|near| format!("Celery has no such setting; did you mean {near}?"));
            let alike = SPACES.iter().any(|space| name.starts_with(space));
            near.or_else(|| alike.then(|| "Celery has no such setting".to_owned()))
                .map(|text| (name, text))
        }
    }
}

/// The app's settings for `config show`: those that it changes, or all of Celery's.
pub(crate) fn rows(hello: &Hello, settings: &Settings, all: bool) -> Vec<CeleryRow> {
    let refused = refusals(hello, None);
    let row = |known: &celery::Known| {
        let changed = hello.changed.iter().any(|name| name == known.name);
        let ours = known.role == Role::Ours;
        if unknown(&hello.celery, known.name).is_some() && hello.unknown.contains_key(known.name) {
            // A later Celery's: below.
            return None;
        }
        let value =
            if ours { hello.unknown.get(known.name) } else { hello.settings.get(known.name) }?;
        if !(changed || ours || all) {
            return None;
        }
        let source = source(settings, known.name, changed || ours);
        let effect = match refused.iter().find(|one| one.name == known.name) {
            Some(one) => format!("refused: {}; {}", one.text, one.hint),
            None if known.role == Role::Idle => format!("no effect: {}", known.text),
            None if ours => format!("{} (Celery has no such setting)", known.text),
            None => known.text.to_owned(),
        };
        let is_refused = refused.iter().any(|one| one.name == known.name);
        let acts = if is_refused { "refused" } else { known.role.word() };
        let value = shown(known.name, value);
        Some(CeleryRow { key: known.name.to_owned(), value, source, effect, acts })
    };
    let mut rows: Vec<CeleryRow> = celery::all().iter().filter_map(row).collect();
    for (name, value) in hello.unknown.iter() {
        if let Some((name, text)) = unknown(&hello.celery, name) {
            rows.push(CeleryRow {
                key: name.to_owned(),
                value: shown(name, value),
                source: "the application".to_owned(),
                effect: format!("no effect: {text}"),
                acts: "unknown",
            });
        }
    }
    rows
}

/// Where a value in force comes from.
fn source(settings: &Settings, name: &str, changed: bool) -> String {
    let overruled = settings.celery_overrides().iter().find(|(known, ..)| *known == name);
    if let Some((_, _, source)) = overruled {
        return source.to_string();
    }
    let ours = celery::our_key(name).and_then(|key| settings.source_of(key));
    match ours.filter(|source| source.overrules_app()) {
        Some(source) => source.to_string(),
        None if changed => "the application".to_owned(),
        None => "default".to_owned(),
    }
}

/// A value as people read it, secrets masked.
fn shown(name: &str, value: &Value) -> String {
    match masked(name, value) {
        Value::String(text) => text,
        value => value
            .get("repr")
            .and_then(Value::as_str)
            .map_or_else(|| value.to_string(), str::to_owned),
    }
}

fn masked(name: &str, value: &Value) -> Value {
    let lower = name.to_ascii_lowercase();
    let is_key = lower == "key" || (lower.ends_with("_key") && !lower.ends_with("routing_key"));
    let is_secret = is_key || SECRET.iter().any(|part| lower.contains(part));
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Object(map) if map.len() == 1 && map.contains_key("repr") => {
            let text = map.get("repr").and_then(Value::as_str).unwrap_or_default();
            let lower = text.to_ascii_lowercase();
            let hides =
                is_secret || lower.contains("://") || SECRET.iter().any(|s| lower.contains(s));
            if hides { Value::from("**") } else { Value::from(text) }
        }
        Value::Object(map) => {
            let members = map.iter().map(|(name, value)| (name, masked(name, value)));
            Value::Object(members.collect())
        }
        _ if is_secret => Value::from("**"),
        Value::Array(items) => items.iter().map(|item| masked(name, item)).collect(),
        Value::String(text) if text.contains("://") => {
            let parts: Vec<String> = text.split(';').map(celeriac_stores::redacted).collect();
            Value::from(parts.join(";"))
        }
        _ => value.clone(),
    }
}

/// Whether rates are kept.
pub(super) fn keeps_rates(hello: &Hello) -> bool {
    !has(hello, "worker_disable_rate_limits", true)
}

/// How often a worker tries to reach its broker when it starts; `None` for ever.
pub(crate) fn connection_tries(hello: &Hello) -> Option<u32> {
    let value = |name: &str| hello.settings.get(name).unwrap_or(&Value::Null);
    // celery 5.7.0 worker/consumer/consumer.py `ensure_connected`: the second is for those without
    // the first, which Celery 5.2 does not have.
    let retry = match value("broker_connection_retry_on_startup") {
        Value::Null => value("broker_connection_retry"),
        given => given,
    };
    if *retry == Value::Bool(false) {
        return Some(1);
    }
    match value("broker_connection_max_retries").as_u64() {
        None | Some(0) => None,
        Some(most) => Some(u32::try_from(most).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
pub(super) mod tests;
