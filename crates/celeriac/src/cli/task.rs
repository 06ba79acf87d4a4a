//! `celeriac task`: show, list, retry, cancel.

use super::Session;
use super::exit::Failed;
use super::output::{cell, clock, history, object, span};
use celeriac_core::clock::between;
use celeriac_core::document;
use celeriac_core::operate::{self, Retried};
use celeriac_core::store::{Phase, TaskFilter, TaskPage, TaskView};
use celeriac_wire::Value;
use clap::Subcommand;
use jiff::Timestamp;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Say what is true of one task, with or without a running worker
    #[command(
        after_help = "Examples:\n  celeriac task show 0193…\n  celeriac task show 0193… --json"
    )]
    Show {
        /// The task id
        id: String,
    },
    /// List tasks, newest first
    #[command(
        after_help = "Examples:\n  celeriac task list --state running\n  celeriac task list --task 'reports.*' --state FAILURE -n 50\n  celeriac task list -n 500 --after CURSOR   # the next page, as the one before says"
    )]
    List {
        /// queued, scheduled, retry, reserved, running, done, dead, or a result state such as FAILURE
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// A task name, or its beginning followed by *
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// A queue
        #[arg(long, value_name = "QUEUE")]
        queue: Option<String>,
        /// The most lines
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20, value_parser = many)]
        limit: usize,
        /// Go on behind the page that named this cursor (on stderr)
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
    },
    /// Run a task again now: a dead letter is replayed, a waiting retry does not wait any longer
    #[command(after_help = "Example:\n  celeriac task retry 0193…")]
    Retry {
        /// The task id
        id: String,
    },
    /// Cancel tasks: waiting ones never run, running ones are told to stop
    #[command(after_help = "Example:\n  celeriac task cancel 0193… 0193…")]
    Cancel {
        /// The task ids
        #[arg(required = true)]
        ids: Vec<String>,
        /// Let running tasks finish; only waiting ones are cancelled
        #[arg(long)]
        keep_running: bool,
    },
}

/// A count of lines, which is not 0: a page without lines never ends.
fn many(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "give a number from 1 on".to_owned())
}

const STATES: [&str; 7] = ["queued", "scheduled", "retry", "reserved", "running", "done", "dead"];

pub(super) async fn run(session: &Session, command: TaskCommand) -> Result<ExitCode, Failed> {
    match command {
        TaskCommand::Show { id } => show(session, &id).await,
        TaskCommand::List { state, task, queue, limit, after } => {
            let upper =
                state.as_deref().is_some_and(|state| state.chars().all(|c| !c.is_lowercase()));
            if let Some(state) = state.as_deref().filter(|state| !upper && !STATES.contains(state))
            {
                let hint = format!("use {}, or a result state in capitals", STATES.join(", "));
                return Err(Failed::usage(format!("unknown state {state:?}")).hint(hint));
            }
            list(session, TaskFilter { state, task, queue, after, count_max: limit }).await
        }
        TaskCommand::Retry { id } => retry(session, &id).await,
        TaskCommand::Cancel { ids, keep_running } => cancel(session, &ids, keep_running).await,
    }
}

async fn show(session: &Session, id: &str) -> Result<ExitCode, Failed> {
    let view = session.app.store().await?.task(id).await?;
    let now = session.app.clock().wall();
    let mut facts = vec![("task", id.to_owned()), ("state", sentence(&view, now))];
    let mut fact = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    fact("name", view.task.clone());
    fact("queue", view.queue.clone());
    if let Some(message) = &view.message {
        fact("args", message.headers.argsrepr().map(str::to_owned));
        fact("kwargs", message.headers.kwargsrepr().map(str::to_owned));
        let parent = message.headers.parent_id().map(str::to_owned);
        fact("parent", parent.filter(|parent| parent != id));
    }
    fact(
        "enqueued",
        view.enqueued_at.map(|at| format!("{} ({} ago)", clock(at), span(between(at, now)))),
    );
    fact("retries", (view.retries > 0).then(|| view.retries.to_string()));
    if let Some(record) = &view.result {
        fact("result", Some(result_line(record)));
        fact("worker", record.worker.clone());
        let ran = record.started_at.map(|started| span(between(started, record.written_at)));
        fact("ran for", ran.filter(|_| record.meta.state().is_ready()));
    }
    fact("history", Some(history(&view.history)).filter(|text| !text.is_empty()));
    session.output.facts(&facts, &document::task(&view));
    Ok(if view.phase == Phase::Unknown { ExitCode::from(5) } else { ExitCode::SUCCESS })
}

/// The state in one sentence for people.
fn sentence(view: &TaskView, now: Timestamp) -> String {
    match &view.phase {
        Phase::Unknown => match &view.result {
            Some(record) => format!("{} (its message is gone)", record.meta.state()),
            None => "unknown: never sent here, forgotten, or its result has expired".to_owned(),
        },
        Phase::Scheduled { until, retry } => {
            let kind = if *retry { "waits for its retry" } else { "scheduled" };
            format!("{kind} until {} (in {})", clock(*until), span(between(now, *until)))
        }
        Phase::Queued { position, paused, limited, revoked } => {
            let place =
                position.map_or("far back".to_owned(), |ahead| format!("{ahead} ahead of it"));
            let paused = if *paused { ", paused (see `celeriac pauses`)" } else { "" };
            let limited =
                if *limited { ", held back by a limit (see `celeriac limit list`)" } else { "" };
            let revoked = if *revoked { ", revoked: it will not run" } else { "" };
            format!("queued, {place}{paused}{limited}{revoked}")
        }
        Phase::Reserved { worker } => format!("reserved by {worker}"),
        Phase::Running { worker, since } => {
            format!("running on {worker} for {}", span(between(*since, now)))
        }
        Phase::Done => view
            .result
            .as_ref()
            .map_or("done".to_owned(), |record| format!("done, {}", record.meta.state())),
        Phase::Dead { number, reason } => format!("dead letter {number}: {reason}"),
        phase => phase.as_str().to_owned(),
    }
}

fn result_line(record: &celeriac_core::store::ResultRecord) -> String {
    match record.meta.exception() {
        Ok(Some(exception)) => cell(&exception.summary(), 200),
        _ => cell(&record.meta.result().to_string(), 200),
    }
}

async fn list(session: &Session, filter: TaskFilter) -> Result<ExitCode, Failed> {
    let now = session.app.clock().wall();
    let TaskPage { views, next } = session.app.store().await?.tasks(&filter).await?;
    let mut rows = Vec::with_capacity(views.len());
    for view in &views {
        let state = match (&view.phase, &view.result) {
            (Phase::Done, Some(record)) => record.meta.state().to_string(),
            (phase, _) => phase.as_str().to_owned(),
        };
        let age = view.enqueued_at.map_or(String::new(), |at| span(between(at, now)));
        let detail = view.result.as_ref().map(result_line).unwrap_or_default();
        let name = view.task.clone().unwrap_or_default();
        let queue = view.queue.clone().unwrap_or_default();
        let cells = vec![view.task_id.clone(), name, state, queue, age, cell(&detail, 50)];
        rows.push((cells, document::task(view)));
    }
    session.output.list(&["ID", "TASK", "STATE", "QUEUE", "AGE", "RESULT"], rows, "no such tasks");
    if let Some(next) = next {
        session.output.next(&next);
    }
    Ok(ExitCode::SUCCESS)
}

async fn retry(session: &Session, id: &str) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    match operate::retry(&*store, id).await? {
        Retried::Replayed(number) => {
            session.output.line(format!("dead letter {number} is back in its queue"));
        }
        Retried::RunsNow => session.output.line("it runs as soon as a worker is free"),
        Retried::JustTaken => {
            return Err(Failed::no(format!("task {id} has just been taken by a worker")));
        }
        Retried::Unknown => return Err(Failed::no(format!("nothing is known of task {id}"))),
        Retried::Done => {
            return Err(Failed::no(format!("task {id} is done and its message is gone"))
                .hint("send it again with `celeriac call`"));
        }
        Retried::Nothing(phase) => {
            return Err(Failed::no(format!("task {id} is {phase}, there is nothing to retry")));
        }
    }
    session.output.value(&object([("task_id", Value::from(id)), ("retried", Value::from(true))]));
    Ok(ExitCode::SUCCESS)
}

async fn cancel(session: &Session, ids: &[String], keep_running: bool) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let mut outcome = ExitCode::SUCCESS;
    let mut rows = Vec::new();
    for id in ids {
        let phase = operate::cancel(&*store, id, keep_running).await?;
        let note = operate::cancelled(&phase, keep_running);
        if matches!(phase, Phase::Done | Phase::Dead { .. }) {
            outcome = ExitCode::from(5);
        }
        let value = object([("task_id", Value::from(id.as_str())), ("note", Value::from(note))]);
        rows.push((vec![id.clone(), note.to_owned()], value));
    }
    session.output.list(&["ID", "NOTE"], rows, "");
    Ok(outcome)
}
