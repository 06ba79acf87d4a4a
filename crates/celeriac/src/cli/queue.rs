//! `celeriac queue`: list, peek, pause, resume, purge, load, move.

mod release;
mod transfer;

pub(super) use self::transfer::{MigrateArgs, migrate};

use super::Session;
use super::exit::Failed;
use super::jsonl;
use super::output::{Output, cell, clock, object, plural, span};
use super::progress;
use celeriac_core::QueueName;
use celeriac_core::clock::between;
use celeriac_core::document;
pub(super) use celeriac_core::operate::waiting;
use celeriac_core::store::{DeadFilter, Outgoing, Page, Store};
use celeriac_core::throttle::Target;
use celeriac_wire::{State, Value};
use clap::Subcommand;
use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Messages are moved so many, or so many bytes, at a time.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List queues with what waits in them
    #[command(after_help = "Example:\n  celeriac queue list --json")]
    List,
    /// Show waiting messages, oldest first
    #[command(after_help = "Example:\n  celeriac queue peek celery -n 5")]
    Peek {
        /// The queue
        queue: String,
        /// The most lines
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
        limit: usize,
    },
    /// Let no worker take messages from a queue; what runs goes on
    #[command(
        after_help = "Example:\n  celeriac queue pause reports --reason 'database migration'"
    )]
    Pause {
        /// The queue
        queue: String,
        /// Why, shown to everybody who looks
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a paused queue go on
    Resume {
        /// The queue
        queue: String,
    },
    /// Put what only celeriac's workers would find (scheduled, limited, suspect messages, and what
    /// dead workers held) where stock Celery workers take it
    #[command(
        after_help = "Examples:\n  celeriac queue release reports\n  celeriac queue release --all     # after the last celeriac worker has stopped\n\nWorkers that still run take the messages up again; stop them first."
    )]
    Release {
        /// The queue
        #[arg(required_unless_present = "all")]
        queue: Option<String>,
        /// Every queue
        #[arg(long, conflicts_with = "queue")]
        all: bool,
    },
    /// Delete the waiting messages of a queue, after saving them to a file
    #[command(
        after_help = "Examples:\n  celeriac queue purge reports\n  celeriac queue purge reports --yes 37 --save reports.jsonl\n  celeriac queue load reports.jsonl      # puts them back"
    )]
    Purge {
        /// The queue
        queue: String,
        /// Do not ask; the number of messages that are expected to go
        #[arg(long, value_name = "COUNT")]
        yes: Option<u64>,
        /// Where the messages are saved [default: purged-<queue>-<time>.jsonl]
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Move the waiting messages of a queue to another, in this store or in another one
    #[command(after_help = transfer::MOVE_EXAMPLES)]
    Move(transfer::MoveArgs),
    /// Enqueue the messages of a file that purge or `dead export` wrote
    #[command(
        after_help = "Examples:\n  celeriac queue load purged-reports.jsonl\n  celeriac queue load dead.jsonl --queue retry-tonight"
    )]
    Load {
        /// The file
        file: PathBuf,
        /// Another queue than the one in the file
        #[arg(long, value_name = "QUEUE")]
        queue: Option<String>,
    },
}

pub(super) async fn run(session: &Session, command: QueueCommand) -> Result<ExitCode, Failed> {
    match command {
        QueueCommand::List => list(session).await,
        QueueCommand::Peek { queue, limit } => {
            peek(session, &QueueName::parse(&queue)?, limit).await
        }
        QueueCommand::Pause { queue, reason } => {
            let queue = QueueName::parse(&queue)?;
            session.app.store().await?.pause(&Target::from(&queue), &reason).await?;
            done(session, &queue, "paused");
            Ok(ExitCode::SUCCESS)
        }
        QueueCommand::Resume { queue } => {
            let queue = QueueName::parse(&queue)?;
            if !session.app.store().await?.resume(&Target::from(&queue)).await? {
                return Err(Failed::no(format!("queue {queue} is not paused")));
            }
            done(session, &queue, "resumed");
            Ok(ExitCode::SUCCESS)
        }
        QueueCommand::Release { queue, all: _ } => {
            let queue = queue.as_deref().map(QueueName::parse).transpose()?;
            release::run(session, queue).await
        }
        QueueCommand::Purge { queue, yes, save } => {
            purge(session, &QueueName::parse(&queue)?, yes, save).await
        }
        QueueCommand::Move(args) => transfer::run(session, args).await,
        QueueCommand::Load { file, queue } => {
            let queue = queue.as_deref().map(QueueName::parse).transpose()?;
            load(session, &file, queue).await
        }
    }
}

fn done(session: &Session, queue: &QueueName, what: &str) {
    session
        .output
        .value(&object([("queue", Value::from(queue.as_str())), (what, Value::from(true))]));
    session.output.line(format!("queue {queue} is {what}"));
}

async fn list(session: &Session) -> Result<ExitCode, Failed> {
    let now = session.app.clock().wall();
    let queues = session.app.store().await?.queues().await?;
    let rows = queues
        .into_iter()
        .map(|queue| {
            let oldest = queue.oldest.map_or(String::new(), |at| span(between(at, now)));
            let cells = vec![
                queue.name.clone(),
                queue.ready.to_string(),
                queue.scheduled.to_string(),
                queue.leased.to_string(),
                queue.dead.to_string(),
                oldest,
                queue.consumers.len().to_string(),
                if queue.paused { "paused".to_owned() } else { String::new() },
            ];
            let value = document::queue(&queue);
            (cells, value)
        })
        .collect();
    let header = ["QUEUE", "READY", "SCHEDULED", "LEASED", "DEAD", "OLDEST", "WORKERS", ""];
    session.output.list(&header, rows, "no queue has a message, a worker or a dead letter");
    Ok(ExitCode::SUCCESS)
}

async fn peek(session: &Session, queue: &QueueName, limit: usize) -> Result<ExitCode, Failed> {
    let page = Page { after: 0, count_max: limit };
    let stored = session.app.store().await?.peek(queue, page).await?;
    let mut rows = Vec::with_capacity(stored.len());
    for one in stored {
        let headers = &one.outgoing.message.headers;
        let id = headers.id().unwrap_or_default().to_owned();
        let task = headers.task().unwrap_or_default().to_owned();
        let at = one.outgoing.enqueued_at.map_or(String::new(), clock);
        let eta = headers.eta().ok().flatten().map_or(String::new(), clock);
        let args = cell(headers.argsrepr().unwrap_or_default(), 40);
        let value = document::stored(&one);
        rows.push((vec![id, task, args, at, eta], value));
    }
    session.output.list(&["ID", "TASK", "ARGS", "ENQUEUED", "ETA"], rows, "nothing waits in it");
    Ok(ExitCode::SUCCESS)
}

async fn purge(
    session: &Session,
    queue: &QueueName,
    yes: Option<u64>,
    save: Option<PathBuf>,
) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let count = waiting(&*store, queue).await?;
    if count == 0 {
        session.output.value(&object([("purged", Value::from(0))]));
        session.output.line(format!("nothing waits in queue {queue}"));
        return Ok(ExitCode::SUCCESS);
    }
    confirm(queue, count, yes)?;
    let path = save.unwrap_or_else(|| purge_file(session, queue));
    let purged = purge_messages(&*store, queue, count, Some(&path), session.output).await?;
    let shown = path.display().to_string();
    session.output.value(&object([
        ("purged", Value::from(purged as i64)),
        ("saved_to", Value::from(shown.as_str())),
    ]));
    session.output.line(format!(
        "{} of queue {queue} deleted, saved to {shown}\nput them back with: celeriac queue load {shown}",
        plural(purged, "message")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Where the messages of a queue are saved when nobody says so.
pub(super) fn purge_file(session: &Session, queue: &QueueName) -> PathBuf {
    let stamp = session.app.clock().wall().strftime("%Y%m%dT%H%M%S").to_string();
    let name: String = queue
        .as_str()
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    PathBuf::from(format!("purged-{name}-{stamp}.jsonl"))
}

/// Deletes up to `count` waiting messages, each after it is saved; returns how many went.
pub(super) async fn purge_messages(
    store: &dyn Store,
    queue: &QueueName,
    count: u64,
    save: Option<&Path>,
    output: Output,
) -> Result<u64, Failed> {
    let mut file = save.map(jsonl::Writer::create).transpose()?;
    let bar = progress::bar(output, count);
    let mut page = Page { after: 0, count_max: BATCH };
    let mut purged = 0;
    let mut seen = 0;
    // What producers add meanwhile was not confirmed.
    while seen < count {
        let left = usize::try_from(count - seen).unwrap_or(BATCH);
        page.count_max = BATCH.min(left);
        let stored = store.peek(queue, page).await?;
        let Some(last) = stored.last() else { break };
        page.after = last.row;
        seen += stored.len() as u64;
        // Saved and on disk before it is deleted; a worker may be faster with some of them.
        if let Some(file) = &mut file {
            for one in &stored {
                file.message(&one.outgoing)?;
            }
            file.sync()?;
        }
        let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
        purged += store.remove(&rows).await?.len() as u64;
        bar.set_position(purged);
    }
    bar.finish_and_clear();
    Ok(purged)
}

/// Asks on a terminal; elsewhere the expected count must be given and must be right.
fn confirm(queue: &QueueName, count: u64, yes: Option<u64>) -> Result<(), Failed> {
    match yes {
        Some(expected) if expected == count => Ok(()),
        Some(expected) => Err(Failed::no(format!(
            "{count} messages wait in queue {queue}, not {expected}; nothing was deleted"
        ))
        .hint(format!("look with `celeriac queue peek {queue}`, then give --yes {count}"))),
        None if !std::io::stdin().is_terminal() => {
            Err(Failed::no(format!("{count} messages wait in queue {queue}; nothing was deleted"))
                .hint(format!("give --yes {count} to delete them without being asked")))
        }
        None => {
            super::output::ask(&format!(
                "Delete {count} waiting messages of queue {queue}? [y/N] "
            ));
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer)?;
            if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
                Ok(())
            } else {
                Err(Failed::no("nothing was deleted"))
            }
        }
    }
}

async fn load(
    session: &Session,
    file: &std::path::Path,
    queue: Option<QueueName>,
) -> Result<ExitCode, Failed> {
    let client = session.app.client().await?;
    let bar = progress::busy(session.output, "0 loaded");
    let mut loaded = 0;
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut failed = None;
    for outgoing in jsonl::read(file)? {
        match outgoing {
            Ok(mut outgoing) => {
                outgoing.queue = queue.clone().unwrap_or(outgoing.queue);
                bytes += outgoing.message.body.len();
                batch.push(outgoing);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
        if batch.len() == BATCH || bytes > BATCH_BYTES {
            bytes = 0;
            loaded += load_batch(&client, std::mem::take(&mut batch), loaded).await?;
            bar.set_message(format!("{loaded} loaded"));
        }
    }
    loaded += load_batch(&client, batch, loaded).await?;
    bar.finish_and_clear();
    session.output.value(&object([("loaded", Value::from(loaded as i64))]));
    session.output.line(format!("{} loaded", plural(loaded as u64, "message")));
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Enqueues a batch. Failed results of these tasks are forgotten first, or their new ones could not
/// be stored; their dead letters go afterwards, or a later replay would run them again.
async fn load_batch(
    client: &crate::Client,
    batch: Vec<Outgoing>,
    before: usize,
) -> Result<usize, Failed> {
    let store = client.store();
    let ids: BTreeSet<String> =
        batch.iter().filter_map(|one| one.message.headers.id().map(str::to_owned)).collect();
    for id in &ids {
        let old = store.result(id).await?;
        if old.is_some_and(|record| record.meta.state() != State::Success) {
            store.forget(id).await?;
        }
    }
    let count = batch.len();
    client.send_messages(batch).await.map_err(|error| {
        let failed = Failed::from(error);
        let message =
            format!("{} loaded, then: {}", plural(before as u64, "message"), failed.message);
        Failed { message, ..failed }
            .hint(format!("remove the first {before} lines of the file before you load it again"))
    })?;
    let filter = DeadFilter { ids: ids.iter().cloned().collect(), ..DeadFilter::default() };
    if !ids.is_empty() {
        let letters = store.dead_list(&filter, Page { after: 0, count_max: 10_000 }).await?;
        let numbers: Vec<i64> = letters
            .iter()
            .filter(|letter| letter.message.headers.id().is_some_and(|id| ids.contains(id)))
            .map(|letter| letter.number)
            .collect();
        store.dead_discard(&numbers).await?;
    }
    Ok(count)
}
