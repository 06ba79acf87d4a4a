//! What is known of a Python application, from Python's answers.

use crate::cli::loaded::{Loaded, examine};
use crate::config::Settings;
use crate::config::celery::{self, Role};
use crate::python;
use celeriac_core::doctor::{
    AppFacts, CallFacts, CommandFacts, Finding, Spot, TaskFacts, check_app, find_code,
};
use celeriac_runtime::pool::python::{Hello, LoadError};
use celeriac_wire::{Map, Value, from_value};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What was found of an application.
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    /// The application, where it could be imported.
    pub(super) loaded: Option<Loaded>,
    /// How many files were read.
    pub(super) files: u64,
    /// Whether there were more.
    pub(super) cut: bool,
}

/// What Python read in the application's files (`doctor.py`).
#[derive(Default, Deserialize)]
struct Sources {
    findings: Vec<Found>,
    settings: BTreeMap<String, Written>,
    entries: BTreeMap<String, At>,
    tasks: Vec<WrittenTask>,
    calls: Vec<WrittenCall>,
    commands: Vec<WrittenCommand>,
    files: u64,
    cut: bool,
}

#[derive(Deserialize)]
struct At {
    file: String,
    line: Option<u64>,
}

#[derive(Deserialize)]
struct Found {
    code: String,
    file: String,
    line: Option<u64>,
    what: String,
    fix: String,
}

#[derive(Deserialize)]
struct Written {
    value: Value,
    file: String,
    line: Option<u64>,
}

#[derive(Deserialize)]
struct WrittenTask {
    name: String,
    file: String,
    line: Option<u64>,
    #[serde(default)]
    queue: Value,
    #[serde(default)]
    acks_late: Value,
    #[serde(default)]
    reject_on_worker_lost: Value,
    #[serde(default)]
    time_limit: Value,
    #[serde(default)]
    soft_time_limit: Value,
}

#[derive(Deserialize)]
struct WrittenCall {
    file: String,
    line: Option<u64>,
    #[serde(default)]
    priority: Value,
    #[serde(default)]
    queue: Value,
    #[serde(default)]
    countdown: Value,
}

#[derive(Deserialize)]
struct WrittenCommand {
    file: String,
    line: Option<u64>,
    role: String,
    pool: Option<String>,
    concurrency: Option<String>,
    queues: Option<String>,
}

fn given(value: Value) -> Option<Value> {
    Some(value).filter(|value| !value.is_null())
}

/// Imports the application, reads its files, and checks both.
pub(super) async fn look(name: &str, settings: &Settings) -> Examined {
    let (loaded, error) = match examine(name, settings).await {
        Ok(loaded) => (Some(loaded), None),
        Err(error) => (None, Some(error)),
    };
    let read = match (&loaded, &error) {
        (Some(loaded), _) => loaded.hello().sources.clone(),
        (None, Some(error)) => error.sources.as_deref().cloned().unwrap_or_default(),
        (None, None) => Value::Null,
    };
    let sources: Sources = match read {
        Value::Null => Sources::default(),
        read => from_value(read).unwrap_or_else(|error| {
            tracing::warn!(%error, "what Python read of the files cannot be understood");
            Sources { cut: true, ..Sources::default() }
        }),
    };
    let mut findings: Vec<Finding> = sources.findings.iter().filter_map(as_finding).collect();
    findings.extend(error.as_ref().map(|error| failed(name, error)));
    let (files, cut) = (sources.files, sources.cut);
    let hello = loaded.as_ref().map(Loaded::hello);
    let facts = facts(hello, sources, settings);
    findings.extend(unknown(hello, &facts));
    findings.extend(hello.into_iter().flat_map(|hello| refused(hello, &facts)));
    findings.extend(check_app(&facts));
    Examined { findings, loaded, files, cut }
}

fn as_finding(found: &Found) -> Option<Finding> {
    let place = Spot { file: found.file.clone(), line: found.line }.to_string();
    find_code(&found.code)?;
    Some(Finding::new(&found.code, place, &found.what, &found.fix))
}

/// An application that cannot be imported, with the line of the user's that Python names.
fn failed(name: &str, error: &LoadError) -> Finding {
    let place = line_in(&error.text).unwrap_or_else(|| {
        let first = error.text.split(' ').next().unwrap_or_default();
        let is_file = Path::new(first).extension().is_some_and(|ending| ending == "py");
        if is_file { first.to_owned() } else { format!("-A {name}") }
    });
    let fix = error
        .hint
        .clone()
        .unwrap_or_else(|| "Mend the line; `python -c 'import …'` shows it too.".to_owned());
    Finding::new("D-APP-LOAD", place, &error.text, fix)
}

/// `a.py:3` of `…, a.py, line 3: …`.
fn line_in(text: &str) -> Option<String> {
    let (before, after) = text.split_once(", line ")?;
    let file = before.rsplit(' ').next().unwrap_or_default();
    let line: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("{file}:{line}"))
}

fn facts(hello: Option<&Hello>, sources: Sources, settings: &Settings) -> AppFacts {
    let spot = |file: &str, line| Spot { file: file.to_owned(), line };
    let places: BTreeMap<String, Spot> = sources
        .settings
        .iter()
        .map(|(name, written)| (name.clone(), spot(&written.file, written.line)))
        .collect();
    let written: Map = sources
        .settings
        .into_iter()
        .map(|(name, written)| (name, written.value))
        .fold(Map::new(), |mut map, (name, value)| {
            map.insert(name, value);
            map
        });
    let url = match hello {
        Some(hello) => hello.broker_url.clone(),
        None => written.get("broker_url").and_then(url_in),
    };
    let url = url.or_else(|| {
        let own = &settings.broker_url;
        (!own.is_default()).then(|| own.value.clone())
    });
    let tasks = match hello {
        Some(hello) => hello
            .tasks
            .iter()
            .map(|(name, task)| TaskFacts {
                name: name.clone(),
                spot: sources
                    .tasks
                    .iter()
                    .find(|one| one.name == *name)
                    .map(|one| spot(&one.file, one.line)),
                queue: task.queue.clone(),
                acks_late: task.acks_late,
                reject_on_worker_lost: task.reject_on_worker_lost,
                time_limit: task.time_limit,
                soft_time_limit: task.soft_time_limit,
            })
            .collect(),
        None => sources.tasks.iter().map(written_task).collect(),
    };
    AppFacts {
        loaded: hello.is_some(),
        settings: hello.map_or(written, |hello| hello.settings.clone()),
        places,
        entries: sources
            .entries
            .iter()
            .map(|(name, at)| (name.clone(), spot(&at.file, at.line)))
            .collect(),
        tasks,
        queues: hello.map(|hello| hello.queues.iter().map(|queue| queue.name.clone()).collect()),
        calls: sources
            .calls
            .into_iter()
            .map(|call| CallFacts {
                spot: spot(&call.file, call.line),
                priority: given(call.priority),
                queue: given(call.queue),
                countdown: given(call.countdown),
            })
            .collect(),
        commands: sources
            .commands
            .into_iter()
            .map(|command| CommandFacts {
                spot: spot(&command.file, command.line),
                role: command.role,
                pool: command.pool,
                concurrency: command.concurrency,
                queues: command.queues,
            })
            .collect(),
        transport: url.as_deref().map(celeriac_stores::transport).unwrap_or_default(),
    }
}

fn written_task(task: &WrittenTask) -> TaskFacts {
    TaskFacts {
        name: task.name.clone(),
        spot: Some(Spot { file: task.file.clone(), line: task.line }),
        queue: task.queue.as_str().map(str::to_owned),
        acks_late: task.acks_late == Value::Bool(true),
        reject_on_worker_lost: task.reject_on_worker_lost == Value::Bool(true),
        time_limit: task.time_limit.as_f64(),
        soft_time_limit: task.soft_time_limit.as_f64(),
    }
}

/// The URL in a written value, also when it is the default of something that has to be computed.
fn url_in(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("repr").and_then(Value::as_str))?;
    let mut parts = text.split(['\'', '"']);
    parts.find(|part| part.contains("://")).map(str::to_owned)
}

/// Settings that Celery does not know.
fn unknown(hello: Option<&Hello>, facts: &AppFacts) -> Vec<Finding> {
    let names: Vec<String> = match hello {
        Some(hello) => hello.unknown.keys().map(str::to_owned).collect(),
        None => {
            facts.settings.keys().filter(|name| is_ours_or_no(name)).map(str::to_owned).collect()
        }
    };
    let version = hello.map_or("", |hello| &hello.celery);
    let told = |name: String| {
        let ours = celery::find(&name).is_some_and(|known| known.role == Role::Ours);
        let (what, fix) = if ours {
            let what = format!(
                "Celery has no setting {name} and ignores it; celeriac's workers act on it."
            );
            (what, "Set it on the tasks too (retry_backoff=True and the like), while stock workers run them.".to_owned())
        } else {
            let (_, text) = python::unknown(version, &name)?;
            let fix = match text.rsplit_once("did you mean ") {
                Some((_, near)) => {
                    format!("Write {}, or leave it out.", near.trim_end_matches('?'))
                }
                None => "Leave it out, or write it as Celery's list of settings has it.".to_owned(),
            };
            (format!("{name}: {text}."), fix)
        };
        Some(Finding::new("D-APP-UNKNOWN-SETTING", facts.place(&name), what, fix))
    };
    names.into_iter().filter_map(told).collect()
}

/// Whether a written name is not Celery's own.
fn is_ours_or_no(name: &str) -> bool {
    celery::find(name).is_none_or(|known| known.role == Role::Ours)
}

fn refused(hello: &Hello, facts: &AppFacts) -> Vec<Finding> {
    let told = |refusal: python::Refusal| {
        let place = facts.place(refusal.name);
        let what = format!("{}.", refusal.text);
        Finding::new("D-APP-REFUSED", place, what, format!("{}.", refusal.hint))
    };
    python::refusals(hello, None).into_iter().map(told).collect()
}
