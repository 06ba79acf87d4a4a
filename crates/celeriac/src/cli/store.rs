//! `celeriac store`: back up, check and compact the store's files.

use super::Session;
use super::exit::Failed;
use super::output::plural;
use super::progress;
use celeriac_core::store::Finding;
use celeriac_wire::{Map, Value};
use clap::Subcommand;
use indicatif::{HumanBytes, ProgressBar};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy the store into a new file while it is in use
    #[command(
        after_help = "Examples:\n  celeriac store backup /backup/queue.db\n  celeriac -b sqlite:///backup/queue.db queue list     # look into it\n\nTo restore, stop every process that uses the store, move the copy (and its -events file) to its\nplace, delete the old -wal and -shm files, and start again. What was running at the time of the\ncopy runs again."
    )]
    Backup {
        /// The new file; an existing one is refused
        file: PathBuf,
    },
    /// Look for damage and wrong counters
    #[command(after_help = "Example:\n  celeriac store check --mend")]
    Check {
        /// Set wrong counters right
        #[arg(long)]
        mend: bool,
    },
    /// Rewrite the files without holes; nothing else can write meanwhile
    #[command(after_help = "Example:\n  celeriac store compact")]
    Compact {
        /// Also while workers run: they wait, and leases may run out on a large store
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn run(session: &Session, command: StoreCommand) -> Result<ExitCode, Failed> {
    match command {
        StoreCommand::Backup { file } => backup(session, file).await,
        StoreCommand::Check { mend } => check(session, mend).await,
        StoreCommand::Compact { force } => compact(session, force).await,
    }
}

async fn backup(session: &Session, file: PathBuf) -> Result<ExitCode, Failed> {
    let template = "{bar:40} {percent}% of {len} pages, {eta} left";
    let bar = progress::styled(session.output, ProgressBar::new(0), template);
    let progress = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let copied = session.app.store().await?.backup(&file, &progress).await;
    bar.finish_and_clear();
    let copied = copied?;
    session.output.line(format!(
        "{}, {} in {}",
        plural(copied.messages, "message"),
        HumanBytes(copied.bytes),
        file.display()
    ));
    let mut fields = Map::default();
    fields.insert("file", file.display().to_string());
    fields.insert("messages", copied.messages as i64);
    fields.insert("bytes", copied.bytes as i64);
    session.output.value(&Value::Object(fields));
    Ok(ExitCode::SUCCESS)
}

async fn check(session: &Session, mend: bool) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let bar = progress::busy(session.output, "looking at every page and every row");
    let findings = store.check(mend).await;
    bar.finish_and_clear();
    let findings = findings?;
    let row = |finding: &Finding| {
        let state = if finding.mended { "mended" } else { "" };
        let cells = vec![finding.place.clone(), finding.what.clone(), state.to_owned()];
        let mut fields = Map::default();
        fields.insert("place", finding.place.as_str());
        fields.insert("what", finding.what.as_str());
        fields.insert("mended", finding.mended);
        (cells, Value::Object(fields))
    };
    session.output.list(
        &["PLACE", "WHAT", ""],
        findings.iter().map(row).collect(),
        "no damage, all counters right",
    );
    if findings.iter().all(|finding| finding.mended) {
        return Ok(ExitCode::SUCCESS);
    }
    session.output.note(
        "hint: wrong counters are mended with --mend; damaged files are restored from a backup",
    );
    Ok(ExitCode::from(5))
}

async fn compact(session: &Session, force: bool) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let alive = store.nodes().await?.into_iter().filter(|node| node.alive).count();
    if alive > 0 && !force {
        return Err(Failed::no(format!("{alive} workers use the store"))
            .hint("stop them first, or add --force and accept that they wait"));
    }
    let bar = progress::busy(session.output, "writing the files anew");
    let compacted = store.compact().await;
    bar.finish_and_clear();
    let (before, after) = compacted?;
    session.output.line(format!("{} before, {} now", HumanBytes(before), HumanBytes(after)));
    let mut fields = Map::default();
    fields.insert("bytes_before", before as i64);
    fields.insert("bytes_after", after as i64);
    session.output.value(&Value::Object(fields));
    Ok(ExitCode::SUCCESS)
}
