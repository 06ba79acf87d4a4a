//! `celeriac schedule`: entries that a beat sends at their times.

mod define;
mod files;
mod foreign;
mod redbeat;

use super::Session;
use super::exit::Failed;
use super::output::{cell, object, span};
use crate::schedule::{Kept, Schedules, Zone};
use celeriac_core::StoreError;
use celeriac_core::clock::between;
use celeriac_core::document::entries as document;
use celeriac_core::operate::entries;
use celeriac_core::store::Phase;
use celeriac_wire::{Map, Value};
use clap::Subcommand;
use define::{AddArgs, EditArgs, NextArgs};
use files::{ImportArgs, SyncArgs};
use jiff::Timestamp;
use redbeat::RedBeatCommand;
use std::path::PathBuf;
use std::process::ExitCode;

/// The most lines of a history at a time.
const HISTORY_MAX: usize = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// List entries with their next times
    #[command(after_help = "Examples:\n  celeriac schedule list\n  celeriac schedule list --json")]
    List,
    /// Show an entry, its latest occurrence and where the task of that is
    Show {
        /// Its name
        name: String,
    },
    /// Add an entry; a beat acts on it within a second
    Add(Box<AddArgs>),
    /// Change an entry; what is not named stays
    Edit(Box<EditArgs>),
    /// Remove entries; what they have sent stays sent
    #[command(after_help = "Example:\n  celeriac schedule remove nightly")]
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Hold entries back; workers and what is sent already go on
    #[command(after_help = "Example:\n  celeriac schedule pause nightly")]
    Pause {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Let entries go on; what passed meanwhile is dealt with by their misfire rule
    Resume {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Send an entry's task now, beside its schedule
    Run {
        /// Its name
        name: String,
    },
    /// Show the next times, in the entry's zone and in UTC
    Next(NextArgs),
    /// Show what was fired of an entry, latest first
    #[command(after_help = "Example:\n  celeriac schedule history nightly -n 20")]
    History {
        /// Its name
        name: String,
        /// How many at most
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        count: usize,
    },
    /// Take back what was changed here in an entry of the application or of celeriac.toml
    Reset {
        /// Its name
        name: String,
    },
    /// Give an entry to another scheduler, which asks for each occurrence before it runs it, or to beat
    #[command(
        after_help = "Examples:\n  celeriac schedule give collect-7 apscheduler\n  celeriac schedule give collect-7 beat --next 2026-12-01T10:00:00Z"
    )]
    Give {
        /// The entry's name
        name: String,
        /// `beat`, or the name of the other scheduler
        owner: String,
        /// The first time that the new owner runs [default: as it stands]
        #[arg(long, value_name = "INSTANT")]
        next: Option<String>,
    },
    /// Write all entries as JSON, one a line
    Export {
        /// Where to [default: standard output]
        file: Option<PathBuf>,
    },
    /// Add the entries of a file, of cron, Celery's beat, APScheduler or RedBeat
    Import(Box<ImportArgs>),
    /// Make the schedule what a file of record says: adds, changes, removes
    Sync(SyncArgs),
    /// Share the entries in RedBeat's keys with a stock RedBeat, or see who sends them
    Redbeat {
        #[command(subcommand)]
        command: Option<RedBeatCommand>,
    },
}

impl ScheduleCommand {
    /// Whether it makes no sense without a store that exists.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Add(_) | Self::Import(_) | Self::Sync(_) => false,
            Self::Next(args) => args.names_an_entry(),
            _ => true,
        }
    }
}

pub(super) async fn run(session: &Session, command: ScheduleCommand) -> Result<ExitCode, Failed> {
    let schedules = session.app.schedules().await?;
    match command {
        ScheduleCommand::List => list(session).await,
        ScheduleCommand::Show { name } => show(session, &schedules, &name).await,
        ScheduleCommand::Add(args) => define::add(session, *args).await,
        ScheduleCommand::Edit(args) => define::edit(session, *args).await,
        ScheduleCommand::Remove { names } => {
            for name in names {
                schedules.remove(&name).await?;
                said(session, &name, "removed");
            }
            Ok(ExitCode::SUCCESS)
        }
        ScheduleCommand::Pause { names } => {
            for name in names {
                let changed = schedules.pause(&name).await?;
                said(session, &name, if changed { "paused" } else { "was paused already" });
            }
            Ok(ExitCode::SUCCESS)
        }
        ScheduleCommand::Resume { names } => {
            for name in names {
                let changed = schedules.resume(&name).await?;
                said(session, &name, if changed { "goes on" } else { "was not paused" });
            }
            Ok(ExitCode::SUCCESS)
        }
        ScheduleCommand::Run { name } => {
            let job = schedules.run_now(&name).await?;
            session.output.line(job.id());
            let fields = [("name", Value::from(name)), ("task_id", Value::from(job.id()))];
            session.output.value(&object(fields));
            Ok(ExitCode::SUCCESS)
        }
        ScheduleCommand::Next(args) => define::next(session, &schedules, args).await,
        ScheduleCommand::History { name, count } => {
            history(session, &schedules, &name, count).await
        }
        ScheduleCommand::Reset { name } => reset(session, &name).await,
        ScheduleCommand::Give { name, owner, next } => {
            let next = next.as_deref().map(|text| instant("--next", text)).transpose()?;
            let kept = schedules.give(&name, &owner, next).await?;
            let epoch = kept.entry.owner.epoch;
            session.output.line(format!("{name} belongs to {owner}, epoch {epoch}"));
            session.output.value(&document::entry(&kept));
            Ok(ExitCode::SUCCESS)
        }
        ScheduleCommand::Export { file } => files::export(session, file).await,
        ScheduleCommand::Import(args) => files::import(session, *args).await,
        ScheduleCommand::Sync(args) => files::sync(session, args).await,
        ScheduleCommand::Redbeat { command } => redbeat::run(session, command).await,
    }
}

fn said(session: &Session, name: &str, what: &str) {
    session.output.line(format!("{name}: {what}"));
    session.output.value(&object([("name", Value::from(name)), ("did", Value::from(what))]));
}

/// Reads an instant.
fn instant(flag: &str, text: &str) -> Result<Timestamp, Failed> {
    celeriac_wire::parse_iso(text).map_err(|_| {
        Failed::usage(format!("{flag} {text:?} is no instant"))
            .hint("write it as 2026-12-31T23:00:00Z or 2026-12-31T23:00:00+01:00")
    })
}

async fn list(session: &Session) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let lead = store.leader().await?;
    let row = |kept: Result<Kept, StoreError>| match kept {
        Ok(kept) => {
            let entry = &kept.entry;
            let next = match (entry.enabled, kept.state.due) {
                (true, Some(due)) if due > now => format!("in {}", span(between(now, due))),
                (true, Some(_)) => "now".to_owned(),
                _ => String::new(),
            };
            let cells = vec![
                entry.name.clone(),
                entry.task.clone(),
                entry.schedule.sentence(&entry.zone),
                document::status(&kept).to_owned(),
                next,
                kept.state.runs.to_string(),
                entry.source.kind.as_str().to_owned(),
            ];
            (cells, document::entry(&kept))
        }
        Err(error) => {
            let text = error.to_string();
            let value = object([("error", Value::from(text.as_str()))]);
            (vec![cell(&text, 60), String::new(), String::new(), "unreadable".to_owned()], value)
        }
    };
    let rows: Vec<_> = entries::all_entries(&*store).await?.into_iter().map(row).collect();
    let some = !rows.is_empty();
    session.output.list(
        &["NAME", "TASK", "WHEN", "STATUS", "NEXT", "RUNS", "FROM"],
        rows,
        "no entries",
    );
    if some && lead.is_none() && !session.output.is_json() {
        session.output.note(
            "no beat runs: start one with `celeriac beat`, `celeriac worker -B` or `celeriac up`",
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(session: &Session, schedules: &Schedules, name: &str) -> Result<ExitCode, Failed> {
    let status = schedules.status(name).await?;
    let store = session.app.store().await?;
    let lead = store.leader().await?;
    let (kept, now) = (&status.kept, session.app.clock().wall());
    let mut value = document::entry(kept);
    if let Some(fields) = value.as_object_mut() {
        let latest = status.latest.as_ref();
        let latest = latest.map(|one| document::occurrence(one, status.phase.as_ref()));
        fields.insert("latest", latest.unwrap_or(Value::Null));
        fields.insert("leader", document::leader(lead.as_ref()));
        fields.insert("edited", kept.is_edited());
    }
    let (entry, state) = (&kept.entry, &kept.state);
    let at = |time: Option<Timestamp>| time.map_or("-".to_owned(), |time| local(time, &entry.zone));
    let mut facts = vec![
        ("name", entry.name.clone()),
        ("task", entry.task.clone()),
        ("arguments", arguments(&entry.args, &entry.kwargs)),
        ("when", entry.schedule.sentence(&entry.zone)),
        ("status", status.word.to_owned()),
        ("next", at(if entry.enabled { state.due } else { None })),
        ("last", at(state.last_due)),
        ("runs", state.runs.to_string()),
        ("misfire", word(&value, "misfire")),
        ("overlap", word(&value, "overlap")),
        ("from", from(kept)),
        ("owner", format!("{}, epoch {}", entry.owner.name, entry.owner.epoch)),
    ];
    if !entry.options.is_empty() {
        facts.push(("options", Value::Object(entry.options.clone()).to_string()));
    }
    if !entry.description.is_empty() {
        facts.push(("description", entry.description.clone()));
    }
    if let Some(latest) = &status.latest {
        let phase = status.phase.as_ref().map_or("", Phase::as_str);
        let outcome = latest.outcome.as_ref().map_or(phase, |state| state.as_str());
        let task_id = latest.task_id.as_deref().unwrap_or("-");
        facts.push(("latest", format!("{} {outcome} {task_id}", latest.kind.as_str())));
    }
    facts.push((
        "leader",
        lead.map_or("no beat runs".to_owned(), |lead| {
            let left = span(between(now, lead.until));
            format!("{}, epoch {}, lease {left}", lead.holder, lead.epoch)
        }),
    ));
    session.output.facts(&facts, &value);
    Ok(ExitCode::SUCCESS)
}

fn word(value: &Value, field: &str) -> String {
    let one = value.get(field).and_then(Value::as_str).unwrap_or_default();
    match value.get("misfire_limit").and_then(Value::as_u64) {
        Some(limit) if field == "misfire" => format!("{one}, at most {limit}"),
        _ => one.to_owned(),
    }
}

fn arguments(args: &[Value], kwargs: &Map) -> String {
    let placed = args.iter().map(ToString::to_string);
    let named = kwargs.iter().map(|(name, value)| format!("{name}={value}"));
    format!("({})", placed.chain(named).collect::<Vec<_>>().join(", "))
}

fn from(kept: &Kept) -> String {
    let source = kept.entry.source.kind.as_str();
    if kept.is_edited() { format!("{source}, changed here") } else { source.to_owned() }
}

/// An instant on the clock of a zone.
fn local(instant: Timestamp, zone: &Zone) -> String {
    instant.to_zoned(zone.timezone().clone()).strftime("%a %Y-%m-%d %H:%M:%S %z").to_string()
}

async fn history(
    session: &Session,
    schedules: &Schedules,
    name: &str,
    count: usize,
) -> Result<ExitCode, Failed> {
    let lines = schedules.history(name, count.min(HISTORY_MAX)).await?;
    if lines.is_empty() {
        // An unknown name is an error, one that has not run yet an empty list.
        schedules.status(name).await?;
    }
    let zone = schedules.status(name).await.map_or_else(|_| Zone::utc(), |one| one.kept.entry.zone);
    let row = |one: &celeriac_core::store::Occurrence| {
        let outcome = one.outcome.as_ref().map_or("", |state| state.as_str());
        let many = if one.count > 1 { format!(" ×{}", one.count) } else { String::new() };
        let cells = vec![
            local(one.due, &zone),
            span(one.drift()),
            format!("{}{many}", one.kind.as_str()),
            outcome.to_owned(),
            one.task_id.clone().unwrap_or_default(),
            cell(&one.note, 60),
        ];
        (cells, document::occurrence(one, None))
    };
    session.output.list(
        &["DUE", "LATE", "WHAT", "OUTCOME", "TASK ID", ""],
        lines.iter().map(row).collect(),
        "nothing was fired yet",
    );
    Ok(ExitCode::SUCCESS)
}

async fn reset(session: &Session, name: &str) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let reset = entries::change_entry(&*store, name, now, |kept| {
        let original = kept.entry.source.original.as_deref().cloned().ok_or_else(|| {
            StoreError::invalid(format!(
                "the entry {name:?} was not given by an application or a file"
            ))
            .hint("only such entries have something to go back to")
        })?;
        let old = kept.entry.clone();
        let mut entry = celeriac_core::beat::Entry::from_value(&original, &Zone::utc())
            .map_err(|error| StoreError::invalid(error.to_string()))?;
        entry.enabled = old.enabled;
        entry.owner = old.owner;
        entry.source = old.source;
        kept.entry = entry;
        Ok(())
    });
    let kept = reset.await?;
    session.output.line(format!("{name}: as {} has it", kept.entry.source.kind.as_str()));
    session.output.value(&document::entry(&kept));
    Ok(ExitCode::SUCCESS)
}

/// Shows the next times of an entry.
fn show_next(session: &Session, kept: &Kept, zone: &Zone, count: usize) -> ExitCode {
    let now = session.app.clock().wall();
    let times: Vec<Timestamp> = kept.next_times(now).take(count).collect();
    let row = |time: &Timestamp| {
        let utc = local(*time, &Zone::utc());
        let mut fields = Map::new();
        fields.insert("utc", celeriac_wire::print_iso(*time));
        fields.insert("local", local(*time, zone));
        fields.insert("zone", zone.name());
        fields.insert("in", between(now, *time).as_secs_f64());
        (vec![local(*time, zone), utc, span(between(now, *time))], Value::Object(fields))
    };
    if !session.output.is_json() {
        session.output.note(kept.entry.schedule.sentence(&kept.entry.zone));
    }
    let header = [zone.name(), "UTC", "IN"];
    session.output.list(&header, times.iter().map(row).collect(), "it is never due again");
    ExitCode::SUCCESS
}

/// What an import or a sync has done or would do.
fn summary(session: &Session, counts: &[(&str, usize)], dry: bool) {
    let some: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| match count {
            1 => format!("1 entry {what}"),
            count => format!("{count} entries {what}"),
        })
        .collect();
    let text = if some.is_empty() { "nothing to do".to_owned() } else { some.join(", ") };
    session.output.note(if dry { format!("would be: {text}") } else { text });
}
