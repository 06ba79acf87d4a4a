//! `schedule export`, `import` and `sync`: entries in files.

use super::foreign::{self, ForeignArgs};
use super::summary;
use crate::cli::Session;
use crate::cli::exit::Failed;
use crate::cli::output::object;
use crate::schedule::{Kept, Zone};
use celeriac_core::beat::{Change, Entry, EntryState, Reason, Source, SourceKind, reconcile};
use celeriac_core::operate::entries;
use celeriac_core::schedule::{Crontab, Schedule};
use celeriac_core::store::Saved;
use celeriac_wire::Value;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// How many entries are written at a time.
const BATCH: usize = 1000;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Of `schedule export`: entries as JSON, one a line or a list
    Json,
    /// A crontab of cron: each line sends a task with the command as its argument
    Cron,
    /// The file of Celery's beat, a shelve: reading it runs what its pickles name
    Celerybeat,
    /// A job store of APScheduler 3, by its SQLAlchemy or Redis URL: its jobs are pickles too
    Apscheduler,
    /// The keys of RedBeat in Redis, by its URL
    Redbeat,
}

const IMPORT_HELP: &str = "Examples:
  celeriac schedule import entries.jsonl
  celeriac schedule import --format cron --task shell.run --zone Europe/Berlin /etc/crontab --dry-run
  celeriac -A proj schedule import --format celerybeat celerybeat-schedule
  celeriac schedule import --format apscheduler sqlite:///jobs.db --tasks names.toml
  celeriac -A proj schedule import --format redbeat redis://localhost/0

What has no equivalent is named, and everything else is imported; entries that are there stay as they \
are. Stop the other scheduler first, or both send. Celery's file and APScheduler's jobs are pickles: only \
read those that you trust.";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub(in crate::cli) struct ImportArgs {
    /// The file, or - for standard input; with --format apscheduler and redbeat a URL
    #[arg(value_name = "FILE|URL")]
    file: PathBuf,
    /// What it is
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// With --format cron: the task that runs a command; with --format apscheduler: the task of all jobs
    #[arg(long, value_name = "NAME", required_if_eq("format", "cron"))]
    task: Option<String>,
    #[command(flatten)]
    foreign: ForeignArgs,
    /// The time zone of entries that name none [default: the application's, or UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// With --format cron: the lines name a user, as those of /etc/crontab do
    #[arg(long)]
    system: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  celeriac schedule sync jobs.json --dry-run\n  sqlite3 -json app.db \"SELECT name, task, ... FROM jobs\" | celeriac schedule sync -\n\nEntries of other sources are not touched. What was changed here by hand is kept and named."
)]
pub(in crate::cli) struct SyncArgs {
    /// The file of record: entries as JSON, one a line or a list; - for standard input
    file: PathBuf,
    /// The time zone of entries that name none [default: the application's, or UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// An entry, and how far it has come elsewhere.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) past: Past,
}

/// How far an entry has come elsewhere.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The next occurrence, which may have passed; `None`: the next one from now.
    pub(super) due: Option<Timestamp>,
    /// Where an interval counts from [default: `due`, or now].
    pub(super) anchor: Option<Timestamp>,
    /// When it was sent last.
    pub(super) last: Option<Timestamp>,
    /// How often it was sent.
    pub(super) runs: u64,
}

impl Found {
    /// An entry that begins now.
    pub(super) fn new(entry: Entry) -> Self {
        Self { entry, past: Past::default() }
    }

    /// As a store keeps it.
    fn kept(self, now: Timestamp) -> Kept {
        let Self { entry, past } = self;
        let mut state = EntryState::new(&entry, now);
        if let Some(anchor) = past.anchor.or(past.due) {
            state.anchor = anchor;
            state.due = past.due.or_else(|| entry.next(now, anchor));
        }
        (state.last_due, state.last_fired, state.runs) = (past.last, past.last, past.runs);
        Kept { version: 0, entry, state }
    }
}

fn zone_of(session: &Session, name: Option<&str>) -> Result<Zone, Failed> {
    match name {
        Some(name) => Zone::named(name).map_err(|error| Failed::usage(format!("--zone: {error}"))),
        None => session.zone(),
    }
}

fn read(path: &Path) -> Result<String, Failed> {
    let failed = |error: std::io::Error| Failed::usage(format!("read {}: {error}", path.display()));
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

pub(super) async fn export(session: &Session, file: Option<PathBuf>) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let mut text = String::new();
    let mut count = 0;
    for kept in entries::all_entries(&*store).await? {
        match kept {
            Ok(kept) => {
                let mut fields = kept.entry.definition();
                fields.insert("enabled", kept.entry.enabled);
                fields.insert(
                    "next",
                    kept.state.due.map_or(Value::Null, |due| due.to_string().into()),
                );
                text.push_str(&Value::Object(fields).to_string());
                text.push('\n');
                count += 1;
            }
            Err(error) => session.output.warn(error.to_string()),
        }
    }
    match file {
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
        }
        Some(path) => {
            std::fs::write(&path, text)
                .map_err(|error| Failed::usage(format!("write {}: {error}", path.display())))?;
            session.output.note(format!("{count} entries in {}", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The entries of a JSON file: a list, or one a line.
fn of_json(text: &str, zone: &Zone) -> Result<Vec<Found>, Failed> {
    if text.trim_start().starts_with('[') {
        let list =
            Value::parse(text.as_bytes()).map_err(|error| Failed::usage(error.to_string()))?;
        let list = list.as_array().unwrap_or_default().iter().enumerate();
        return list.map(|(at, one)| of_object(&format!("entry {}", at + 1), one, zone)).collect();
    }
    // A line at a time: the values of all of them would take much more room than the entries.
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(at, line)| {
        let place = format!("line {}", at + 1);
        let value = Value::parse(line.as_bytes())
            .map_err(|error| Failed::usage(format!("{place}: {error}")))?;
        of_object(&place, &value, zone)
    });
    read.collect()
}

/// An entry, and when it is due next if that is said.
fn of_object(place: &str, value: &Value, zone: &Zone) -> Result<Found, Failed> {
    let wrong = |text: String| Failed::usage(format!("{place}: {text}"));
    let mut fields = value
        .as_object()
        .cloned()
        .ok_or_else(|| wrong(format!("an entry is an object, not {}", value.describe())))?;
    let next = fields.remove("next").unwrap_or(Value::Null);
    let next = match next.as_str().map(celeriac_wire::parse_iso) {
        None => None,
        Some(Ok(next)) => Some(next),
        Some(Err(_)) => return Err(wrong(format!("next: {next} is no instant"))),
    };
    let mut entry = Entry::from_value(&Value::Object(fields), zone)
        .map_err(|error| wrong(error.to_string()))?;
    entry.source = Source::default();
    Ok(Found { entry, past: Past { due: next, ..Past::default() } })
}

/// The entries of a crontab, and what has no equivalent (crontab(5) of Vixie cron and cronie).
fn of_cron(text: &str, task: &str, zone: &Zone, system: bool) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut left) = (Vec::new(), Vec::new());
    let mut zone = zone.clone();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = at + 1;
        if let Some((name, value)) = variable(line) {
            match (name, Zone::named(value)) {
                ("CRON_TZ" | "TZ", Ok(own)) => zone = own,
                ("CRON_TZ" | "TZ", Err(error)) => left.push(format!("line {number}: {error}")),
                _ => left.push(format!("line {number}: the variable {name} is the task's affair")),
            }
            continue;
        }
        match cron_line(line, system) {
            Err(text) => left.push(format!("line {number}: {text}")),
            Ok((times, command)) => {
                let entries = cron_entries(&times, &command, task, &zone, number);
                match entries {
                    Ok((entries, note)) => {
                        found.extend(entries.into_iter().map(Found::new));
                        left.extend(note.map(|note| format!("line {number}: {note}")));
                    }
                    Err(text) => left.push(format!("line {number}: {text}")),
                }
            }
        }
    }
    (found, left)
}

/// `NAME=value`, with or without quotes.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty()
        && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
        && !name.starts_with(|one: char| one.is_ascii_digit());
    is_name.then(|| (name, value.trim().trim_matches(['"', '\''])))
}

/// The times and the command of a line.
fn cron_line(line: &str, system: bool) -> Result<(String, String), String> {
    let fields = if line.starts_with('@') { 1 } else { 5 };
    let mut rest = line;
    let mut words = Vec::new();
    for _ in 0..fields + usize::from(system) {
        let (word, after) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{line:?} has no command behind its {fields} fields"))?;
        words.push(word);
        rest = after.trim_start();
    }
    words.truncate(fields);
    // What follows a bare % goes to the command's standard input.
    let command = rest.split_once('%').map_or(rest, |(command, _)| command);
    if command.trim().is_empty() {
        return Err("it has no command".to_owned());
    }
    Ok((words.join(" "), command.trim().to_owned()))
}

/// One entry, or two where cron takes either of two days: all fields of ours must match.
fn cron_entries(
    times: &str,
    command: &str,
    task: &str,
    zone: &Zone,
    number: usize,
) -> Result<(Vec<Entry>, Option<String>), String> {
    if times == "@reboot" {
        return Err("@reboot has no equivalent: a beat has no machine to start".to_owned());
    }
    let fields: Vec<String> = times.split(' ').map(str::to_owned).collect();
    let restricted = |field: &str| !field.starts_with('*');
    let mut lines = vec![fields.clone()];
    let mut note = None;
    if let [_, _, day, _, weekday] = &fields[..]
        && restricted(day)
        && restricted(weekday)
    {
        let (mut by_day, mut by_weekday) = (fields.clone(), fields.clone());
        "*".clone_into(&mut by_day[4]);
        "*".clone_into(&mut by_weekday[2]);
        lines = vec![by_day, by_weekday];
        note = Some(
            "cron runs it on either of its days, so it is two entries; where both meet, both run"
                .to_owned(),
        );
    }
    let mut entries = Vec::new();
    for (index, mut line) in lines.into_iter().enumerate() {
        if let Some(weekday) = line.get_mut(4) {
            *weekday = sunday(weekday);
        }
        let schedule = Crontab::from_string(&line.join(" ")).map_err(|error| error.to_string())?;
        let suffix = if index == 0 { "" } else { "-weekday" };
        let name = format!("cron-{number}{suffix}");
        let mut entry = Entry::new(&name, task, Schedule::Crontab(schedule), zone.clone())
            .map_err(|error| error.to_string())?;
        entry.args = vec![Value::from(command)];
        entry.description = format!("line {number} of a crontab");
        entries.push(entry);
    }
    Ok((entries, note))
}

/// cron's Sunday may be 7; Celery's is 0.
fn sunday(field: &str) -> String {
    let item = |item: &str| match item {
        "7" => "0".to_owned(),
        _ => match item.split_once('-') {
            Some((from, "7")) => format!("{from}-6,0"),
            _ => item.to_owned(),
        },
    };
    field.split(',').map(item).collect::<Vec<_>>().join(",")
}

/// What is to be imported, and what has no equivalent.
async fn gathered(session: &Session, args: &ImportArgs) -> Result<foreign::Taken, Failed> {
    let zone = zone_of(session, args.zone.as_deref())?;
    let task = args.task.as_deref();
    if !matches!(args.format, Format::Cron | Format::Apscheduler) && task.is_some() {
        return Err(Failed::usage("--task: entries of this format name their tasks")
            .hint("it goes with --format cron and apscheduler"));
    }
    if args.format != Format::Apscheduler && args.foreign.tasks.is_some() {
        return Err(Failed::usage("--tasks: only jobs of APScheduler name functions")
            .hint("it goes with --format apscheduler"));
    }
    let url = || {
        let text = args.file.to_str().filter(|text| text.contains("://"));
        text.ok_or_else(|| {
            Failed::usage(format!("{} is no URL", args.file.display()))
                .hint("write sqlite:///jobs.db or redis://localhost:6379/0")
        })
    };
    match args.format {
        Format::Json => Ok((of_json(&read(&args.file)?, &zone)?, Vec::new())),
        Format::Cron => {
            let text = read(&args.file)?;
            Ok(of_cron(&text, task.unwrap_or_default(), &zone, args.system))
        }
        Format::Celerybeat => {
            let is_given = args.zone.is_some() || session.python.is_some();
            foreign::celerybeat(session, &args.file, is_given.then_some(&zone)).await
        }
        Format::Apscheduler => {
            foreign::apscheduler(session, url()?, task, &args.foreign, &zone).await
        }
        Format::Redbeat => foreign::redbeat(session, url()?, &args.foreign, &zone).await,
    }
}

pub(super) async fn import(session: &Session, args: ImportArgs) -> Result<ExitCode, Failed> {
    let (found, left) = gathered(session, &args).await?;
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let (mut added, mut there) = (0, 0);
    let progress = crate::cli::progress::bar(session.output, found.len() as u64);
    let mut found = found.into_iter();
    loop {
        // Documents take much more room than entries: only those of a batch are there at a time.
        let batch: Vec<_> = found.by_ref().take(BATCH).map(|one| one.kept(now).record()).collect();
        if batch.is_empty() {
            break;
        }
        let answers = if args.dry_run {
            let mut answers = Vec::new();
            for record in &batch {
                let known = store.entry(&record.name).await?.is_some();
                answers.push(if known { Saved::Conflict } else { Saved::Done(0) });
            }
            answers
        } else {
            store.save_entries(batch.clone()).await?
        };
        for (record, answer) in batch.iter().zip(answers) {
            let is_new = answer != Saved::Conflict;
            let what = if is_new { "added" } else { "there already" };
            added += usize::from(is_new);
            there += usize::from(!is_new);
            told(session, &record.name, what, args.dry_run);
        }
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    for text in &left {
        session.output.warn(format!("not imported: {text}"));
        let fields = [("did", Value::from("not imported")), ("why", Value::from(text.as_str()))];
        session.output.value(&object(fields));
    }
    let counts = [("added", added), ("there already", there), ("not imported", left.len())];
    summary(session, &counts, args.dry_run);
    Ok(ExitCode::SUCCESS)
}

fn told(session: &Session, name: &str, what: &str, dry: bool) {
    let fields =
        [("name", Value::from(name)), ("did", Value::from(what)), ("dry_run", Value::from(dry))];
    session.output.value(&object(fields));
    session.output.line(format!("{name}: {}{what}", if dry { "would be " } else { "" }));
}

pub(super) async fn sync(session: &Session, args: SyncArgs) -> Result<ExitCode, Failed> {
    let zone = zone_of(session, args.zone.as_deref())?;
    let given: Vec<Entry> =
        of_json(&read(&args.file)?, &zone)?.into_iter().map(|found| found.entry).collect();
    let store = session.app.store().await?;
    let mut stored = Vec::new();
    for kept in entries::all_entries(&*store).await? {
        match kept {
            Ok(kept) => stored.push(kept.entry),
            Err(error) => session.output.warn(error.to_string()),
        }
    }
    let changes = reconcile(&stored, given, SourceKind::Sync);
    let mut counts = [("added", 0), ("changed", 0), ("removed", 0), ("left as it is", 0)];
    for change in &changes {
        let (name, index, reason) = match change {
            Change::Add(entry) => (&entry.name, 0, None),
            Change::Replace(entry) => (&entry.name, 1, None),
            Change::Remove(name) => (name, 2, None),
            Change::Keep(name, reason) => (name, 3, Some(*reason)),
        };
        counts[index].1 += 1;
        let what = counts[index].0;
        match reason {
            None => told(session, name, what, args.dry_run),
            Some(reason) => session.output.warn(format!("{name}: left as it is: {}", why(reason))),
        }
    }
    if !args.dry_run {
        entries::apply_changes(&*store, changes, session.app.clock().wall()).await?;
    }
    summary(session, &counts, args.dry_run);
    Ok(ExitCode::SUCCESS)
}

fn why(reason: Reason) -> String {
    match reason {
        Reason::Edited => "it was changed here; `schedule reset` takes that back".to_owned(),
        Reason::EditedAndGone => {
            "it was changed here, and the file has it no more; `schedule remove` removes it"
                .to_owned()
        }
        Reason::Taken(kind) => format!("an entry of {} has its name", kind.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str, system: bool) -> (Vec<String>, Vec<String>) {
        let (found, left) = of_cron(text, "shell.run", &Zone::utc(), system);
        let line = |found: &Found| {
            let entry = &found.entry;
            let command = entry.args[0].as_str().unwrap();
            format!("{} {} {command}", entry.name, entry.schedule.sentence(&entry.zone))
        };
        (found.iter().map(line).collect(), left)
    }

    #[test]
    fn lines_of_cron_become_entries() {
        let (found, left) = cron(
            "# a comment\n\n0 3 * * 1-5 /usr/bin/report --full\n@daily   backup%stdin\n30 4 1 * 7 clean\n",
            false,
        );
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("cron-3 every weekday at 03:00"), "{found:?}");
        assert!(found[0].ends_with("/usr/bin/report --full"));
        assert!(found[1].ends_with(" backup"));
        assert!(found[3].starts_with("cron-5-weekday "));
        assert!(left[0].contains("either of its days"), "{left:?}");
    }

    #[test]
    fn what_cron_has_alone_is_named() {
        let (found, left) = cron(
            "MAILTO=root\n@reboot start\n* * * *\n61 * * * * x\nCRON_TZ=Europe/Berlin\n0 5 * * * root y\n",
            true,
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("Europe/Berlin") && found[0].ends_with(" y"), "{found:?}");
        for (line, said) in left.iter().zip(["MAILTO", "@reboot", "no command", "line 4"]) {
            assert!(line.contains(said), "{line}");
        }
        assert_eq!(left.len(), 4);
    }

    #[test]
    fn seven_is_sunday() {
        assert_eq!(sunday("7"), "0");
        assert_eq!(sunday("5-7"), "5-6,0");
        assert_eq!(sunday("mon,7"), "mon,0");
    }
}
