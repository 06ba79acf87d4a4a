//! `celeriac purge`, `celeriac list`, `celeriac report`: Celery's words for what is asked less often.

use super::Session;
use super::exit::Failed;
use super::output::{ask, plural};
use super::queue;
use celeriac_core::QueueName;
use celeriac_core::exchange::Binding;
use celeriac_wire::{Map, Value};
use clap::{Args, Subcommand};
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  celeriac purge -Q reports -f
  celeriac purge                        # the queues of this application, after a question
  celeriac queue load purged-….jsonl    # puts them back

Unlike Celery's, it saves the messages to a file first; --no-save leaves that out. What workers hold
and what waits for its time on other queues stays.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PurgeArgs {
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
    /// Purge only these queues, separated by commas
    #[arg(short = 'Q', long, value_name = "QUEUES", value_delimiter = ',')]
    queues: Vec<String>,
    /// Do not purge these queues, separated by commas
    #[arg(short = 'X', long, value_name = "QUEUES", value_delimiter = ',')]
    exclude_queues: Vec<String>,
    /// Do not save the messages before they are deleted
    #[arg(long)]
    no_save: bool,
}

pub(super) async fn purge(session: &Session, args: PurgeArgs) -> Result<ExitCode, Failed> {
    let parse = |names: &[String]| -> Result<Vec<QueueName>, Failed> {
        let names = names.iter().filter(|name| !name.is_empty());
        Ok(names.map(|name| QueueName::parse(name)).collect::<Result<_, _>>()?)
    };
    let excluded = parse(&args.exclude_queues)?;
    let mut queues = parse(&args.queues)?;
    if queues.is_empty() {
        queues = session.app.worker_queues()?;
    }
    queues.retain(|queue| !excluded.contains(queue));
    queues.sort();
    queues.dedup();
    if queues.is_empty() {
        return Err(Failed::usage("no queue is left to purge").hint("leave out some of -X"));
    }
    let store = session.app.store().await?;
    let mut counts = Vec::new();
    for queue in queues {
        counts.push((queue::waiting(&*store, &queue).await?, queue));
    }
    let total: u64 = counts.iter().map(|(count, _)| count).sum();
    if total > 0 && !args.force {
        confirm(&counts, total)?;
    }
    let mut purged = Map::new();
    let mut gone = 0;
    for (count, queue) in &counts {
        let saved = (!args.no_save && *count > 0).then(|| queue::purge_file(session, queue));
        let (save, output) = (saved.as_deref(), session.output);
        let deleted = queue::purge_messages(&*store, queue, *count, save, output).await?;
        gone += deleted;
        purged.insert(queue.as_str(), deleted);
        if let Some(path) = saved {
            let shown = path.display();
            session
                .output
                .note(format!("saved to {shown}; `celeriac queue load {shown}` puts them back"));
        }
    }
    session.output.value(&Value::Object(Map::from([
        ("purged", Value::from(gone)),
        ("queues", Value::Object(purged)),
    ])));
    let queues = plural(counts.len() as u64, "queue");
    session.output.line(if gone == 0 {
        format!("No messages purged from {queues}.")
    } else {
        format!("Purged {} from {queues}.", plural(gone, "message"))
    });
    Ok(ExitCode::SUCCESS)
}

fn confirm(counts: &[(u64, QueueName)], total: u64) -> Result<(), Failed> {
    let names: Vec<String> =
        counts.iter().map(|(count, queue)| format!("{queue} ({count})")).collect();
    let names = names.join(", ");
    if !std::io::stdin().is_terminal() {
        return Err(Failed::no(format!("{total} messages wait in {names}; nothing was deleted"))
            .hint("give -f to delete them without being asked"));
    }
    ask(&format!("This removes all waiting tasks from {names}. Are you sure? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failed::no("nothing was deleted"))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ListCommand {
    /// List the queues with what waits in them, as `celeriac queue list`
    Queues,
    /// List which exchange and routing key leads to which queue
    #[command(after_help = "Example:\n  celeriac list bindings --json")]
    Bindings,
}

pub(super) async fn list(session: &Session, command: ListCommand) -> Result<ExitCode, Failed> {
    if matches!(command, ListCommand::Queues) {
        return queue::run(session, queue::QueueCommand::List).await;
    }
    let store = session.app.store().await?;
    let mut bindings = store.bindings().await?;
    if !store.capabilities().exchanges {
        // Every queue is bound to the exchange of its own name (wire specification 1.10).
        let names =
            store.queues().await?.into_iter().filter_map(|one| QueueName::parse(&one.name).ok());
        bindings = names.map(|name| Binding::own(&name)).collect();
    }
    let row = |one: &Binding| {
        let fields = [
            ("queue", one.queue.as_str()),
            ("exchange", &one.exchange),
            ("exchange_type", one.kind.as_str()),
            ("routing_key", &one.routing_key),
        ];
        let cells = fields.iter().map(|(_, text)| (*text).to_owned()).collect();
        (cells, Value::Object(Map::from(fields)))
    };
    let rows = bindings.iter().map(row).collect();
    let head = ["Queue", "Exchange", "Type", "Routing Key"];
    session.output.list(&head, rows, "no queue is bound to anything");
    Ok(ExitCode::SUCCESS)
}

/// `celeriac report`: what a bug report needs, secrets masked.
pub(super) fn report(session: &Session) -> ExitCode {
    let text = crate::node::report(session.app.settings());
    session.output.value(&Value::Object(Map::from([("report", text.as_str())])));
    session.output.line(text.trim_start());
    ExitCode::SUCCESS
}
