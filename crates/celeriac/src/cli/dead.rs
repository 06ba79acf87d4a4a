//! `celeriac dead`: list, show, replay, edit, discard, export.

use super::Session;
use super::exit::Failed;
use super::jsonl;
use super::output::{cell, clock, history, object, plural, span};
use super::progress;
use celeriac_core::QueueName;
use celeriac_core::clock::between;
use celeriac_core::dead::{DeadLetter, DeadReason};
use celeriac_core::document;
use celeriac_core::operate::{self, DeadEdit};
use celeriac_core::store::{DeadFilter, Page, Replay, Store};
use celeriac_wire::{Map, Value};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Dead letters are handled so many at a time.
const BATCH: usize = 200;

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, oldest first
    #[command(
        after_help = "Examples:\n  celeriac dead list --reason failed --task 'reports.*'\n  celeriac dead list --contains 'Connection refused'"
    )]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// The most lines
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
        limit: usize,
        /// Only with higher numbers than this: the last of the page before
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: i64,
    },
    /// Show one dead letter with its message and history
    Show {
        /// Its number or task id
        id: String,
    },
    /// Put dead letters back into their queues
    #[command(
        after_help = "Examples:\n  celeriac dead replay 17\n  celeriac dead replay --reason failed --task 'reports.*' --rate 100\n  celeriac dead replay --all --to retry-tonight"
    )]
    Replay {
        #[command(flatten)]
        filter: FilterArgs,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Into this queue instead of their own
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
        /// Keep the retry count instead of starting at 0
        #[arg(long)]
        keep_retries: bool,
        /// At most so many a second
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// Change the arguments or the queue of a dead letter
    #[command(
        after_help = "Example:\n  celeriac dead edit 17 --args '[7, \"2026-11\"]' && celeriac dead replay 17"
    )]
    Edit {
        /// Its number
        number: i64,
        /// New positional arguments, a JSON array
        #[arg(short = 'a', long, value_name = "JSON")]
        args: Option<String>,
        /// New keyword arguments, a JSON object
        #[arg(short = 'k', long, value_name = "JSON")]
        kwargs: Option<String>,
        /// The queue it returns to
        #[arg(long, value_name = "QUEUE")]
        queue: Option<String>,
    },
    /// Delete dead letters for good
    #[command(
        after_help = "Examples:\n  celeriac dead discard 17 18\n  celeriac dead discard --all --reason undecodable"
    )]
    Discard {
        #[command(flatten)]
        filter: FilterArgs,
        /// All that match
        #[arg(long)]
        all: bool,
    },
    /// Write dead letters to a file that `queue load` can put back
    #[command(
        after_help = "Example:\n  celeriac dead export --task 'reports.*' --output dead.jsonl"
    )]
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// The file
        #[arg(short, long, value_name = "FILE", default_value = "dead.jsonl")]
        output: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Numbers or task ids
    ids: Vec<String>,
    /// Only from this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only this task, or names that begin so and end in *
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Only with this reason: failed, rejected, undecodable, unknown-task, bad-arguments, poison …
    #[arg(long, value_name = "REASON")]
    reason: Option<DeadReason>,
    /// Only with this text in the error
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
}

impl FilterArgs {
    fn filter(self) -> Result<DeadFilter, Failed> {
        Ok(DeadFilter {
            ids: self.ids,
            number: None,
            queue: self.queue.as_deref().map(QueueName::parse).transpose()?,
            task: self.task,
            reason: self.reason,
            detail: self.contains,
            before: None,
        })
    }
}

pub(super) async fn run(session: &Session, command: DeadCommand) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    match command {
        DeadCommand::List { filter, limit, after } => {
            let page = Page { after, count_max: limit };
            list(session, &*store, &filter.filter()?, page).await
        }
        DeadCommand::Show { id } => show(session, &*store, id).await,
        DeadCommand::Replay { filter, all, to, keep_retries, rate } => {
            let filter = narrowed(filter.filter()?, all)?;
            let queue = to.as_deref().map(QueueName::parse).transpose()?;
            replay(session, &*store, &filter, &Replay { queue, keep_retries }, rate).await
        }
        DeadCommand::Edit { number, args, kwargs, queue } => {
            let edits = DeadEdit {
                args: args.as_deref().map(positional).transpose()?,
                kwargs: kwargs.as_deref().map(keyword).transpose()?,
                queue: queue.as_deref().map(QueueName::parse).transpose()?,
            };
            edit(session, &*store, number, edits).await
        }
        DeadCommand::Discard { filter, all } => {
            discard(session, &*store, &narrowed(filter.filter()?, all)?).await
        }
        DeadCommand::Export { filter, output } => {
            export(session, &*store, &filter.filter()?, &output).await
        }
    }
}

/// What touches every dead letter must be asked for in words.
fn narrowed(filter: DeadFilter, all: bool) -> Result<DeadFilter, Failed> {
    if !all && filter == DeadFilter::default() {
        return Err(Failed::usage("which dead letters?")
            .hint("give numbers, task ids, a filter such as --reason, or --all"));
    }
    Ok(filter)
}

async fn list(
    session: &Session,
    store: &dyn Store,
    filter: &DeadFilter,
    page: Page,
) -> Result<ExitCode, Failed> {
    let now = session.app.clock().wall();
    let letters = store.dead_list(filter, page).await?;
    let mut rows = Vec::with_capacity(letters.len());
    for letter in &letters {
        let headers = &letter.message.headers;
        let cells = vec![
            letter.number.to_string(),
            headers.task().unwrap_or_default().to_owned(),
            letter.reason.to_string(),
            letter.queue.to_string(),
            span(between(letter.died_at, now)),
            cell(&letter.detail, 60),
        ];
        rows.push((cells, document::dead_letter(letter)));
    }
    let header = ["NUMBER", "TASK", "REASON", "QUEUE", "AGE", "ERROR"];
    session.output.list(&header, rows, "no dead letters");
    if let Some(last) = letters.last().filter(|_| letters.len() == page.count_max) {
        let behind = Page { after: last.number, count_max: 1 };
        if !store.dead_list(filter, behind).await?.is_empty() {
            session.output.next(&last.number.to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(store: &dyn Store, id: String) -> Result<DeadLetter, Failed> {
    let filter = DeadFilter { ids: vec![id.clone()], ..DeadFilter::default() };
    let mut letters = store.dead_list(&filter, Page { after: 0, count_max: BATCH }).await?;
    letters.pop().ok_or_else(|| {
        Failed::no(format!("there is no dead letter {id}")).hint("see `celeriac dead list`")
    })
}

async fn show(session: &Session, store: &dyn Store, id: String) -> Result<ExitCode, Failed> {
    let letter = find(store, id).await?;
    let headers = &letter.message.headers;
    let body = match std::str::from_utf8(&letter.message.body) {
        Ok(body) => body.to_owned(),
        Err(_) => format!("{} bytes, not text", letter.message.body.len()),
    };
    let facts = [
        ("number", letter.number.to_string()),
        ("reason", letter.reason.to_string()),
        ("error", letter.detail.clone()),
        ("task", headers.task().unwrap_or_default().to_owned()),
        ("id", headers.id().unwrap_or_default().to_owned()),
        ("queue", letter.queue.to_string()),
        ("enqueued", clock(letter.enqueued_at)),
        ("died", clock(letter.died_at)),
        ("history", history(&letter.history)),
        ("body", body),
        ("headers", headers.to_json()),
    ];
    session.output.facts(&facts, &document::dead_letter(&letter));
    Ok(ExitCode::SUCCESS)
}

async fn replay(
    session: &Session,
    store: &dyn Store,
    filter: &DeadFilter,
    replay: &Replay,
    rate: Option<u32>,
) -> Result<ExitCode, Failed> {
    let total = store.dead_count(filter).await?;
    if total == 0 {
        return Err(Failed::no("no such dead letter").hint("see `celeriac dead list`"));
    }
    let bar = progress::bar(session.output, total);
    let batch = rate.map_or(BATCH, |rate| (rate as usize).clamp(1, BATCH));
    // Dead letters that arrive meanwhile, perhaps from these very tasks, are not for this replay.
    let mut replayed = 0;
    let mut next = tokio::time::Instant::now();
    while replayed < total {
        tokio::time::sleep_until(next).await;
        let count = batch.min((total - replayed) as usize);
        let numbers = store.dead_replay(filter, replay, count).await?;
        if numbers.is_empty() {
            break;
        }
        replayed += numbers.len() as u64;
        bar.set_position(replayed);
        if let Some(rate) = rate {
            next += std::time::Duration::from_secs_f64(numbers.len() as f64 / f64::from(rate));
        }
    }
    bar.finish_and_clear();
    session.output.value(&object([("replayed", Value::from(replayed as i64))]));
    session.output.line(format!("back in the queues: {}", plural(replayed, "dead letter")));
    Ok(ExitCode::SUCCESS)
}

async fn edit(
    session: &Session,
    store: &dyn Store,
    number: i64,
    edit: DeadEdit,
) -> Result<ExitCode, Failed> {
    if edit.is_empty() {
        return Err(Failed::usage("nothing to edit").hint("give --args, --kwargs or --queue"));
    }
    operate::edit_dead(store, number, edit).await?;
    session.output.value(&object([("number", Value::from(number)), ("edited", Value::from(true))]));
    session.output.line(format!(
        "dead letter {number} is changed; replay it with: celeriac dead replay {number}"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Positional arguments as somebody typed them.
fn positional(text: &str) -> Result<Vec<Value>, Failed> {
    match super::call::parse("--args", "an array", text)? {
        Value::Array(values) => Ok(values),
        _ => Err(Failed::usage("--args must be an array")),
    }
}

/// Keyword arguments as somebody typed them.
fn keyword(text: &str) -> Result<Map, Failed> {
    match super::call::parse("--kwargs", "an object", text)? {
        Value::Object(values) => Ok(values),
        _ => Err(Failed::usage("--kwargs must be an object")),
    }
}

async fn discard(
    session: &Session,
    store: &dyn Store,
    filter: &DeadFilter,
) -> Result<ExitCode, Failed> {
    let total = store.dead_count(filter).await?;
    if total == 0 {
        return Err(Failed::no("no such dead letter").hint("see `celeriac dead list`"));
    }
    let bar = progress::bar(session.output, total);
    let mut discarded = 0;
    while discarded < total {
        let page = Page { after: 0, count_max: BATCH };
        let letters = store.dead_list(filter, page).await?;
        let numbers: Vec<i64> = letters.iter().map(|letter| letter.number).collect();
        let gone = store.dead_discard(&numbers).await?;
        if gone == 0 {
            break;
        }
        discarded += gone;
        bar.set_position(discarded);
    }
    bar.finish_and_clear();
    session.output.value(&object([("discarded", Value::from(discarded as i64))]));
    session.output.line(format!("deleted: {}", plural(discarded, "dead letter")));
    Ok(ExitCode::SUCCESS)
}

async fn export(
    session: &Session,
    store: &dyn Store,
    filter: &DeadFilter,
    path: &std::path::Path,
) -> Result<ExitCode, Failed> {
    let mut file = jsonl::Writer::create(path)?;
    let bar = progress::bar(session.output, store.dead_count(filter).await?);
    let mut page = Page { after: 0, count_max: BATCH };
    let mut exported = 0;
    loop {
        let letters = store.dead_list(filter, page).await?;
        let Some(last) = letters.last() else { break };
        page.after = last.number;
        for letter in &letters {
            file.dead_letter(letter)?;
        }
        exported += letters.len() as u64;
        bar.set_position(exported);
    }
    file.sync()?;
    bar.finish_and_clear();
    let shown = path.display().to_string();
    session.output.value(&object([
        ("exported", Value::from(exported as i64)),
        ("file", Value::from(shown.as_str())),
    ]));
    session.output.line(format!("{} written to {shown}", plural(exported, "dead letter")));
    Ok(ExitCode::SUCCESS)
}
