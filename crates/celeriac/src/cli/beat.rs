//! `celeriac beat`, and the beat beside a worker.

use super::Session;
use super::beside::Beside;
use super::exit::Failed;
use super::signals::told_to_stop;
use crate::beat::BeatBuilder;
#[cfg(target_os = "linux")]
use crate::python;
use celeriac_core::beat::{Entry, SourceKind};
use celeriac_core::store::RedBeatKeys;
use celeriac_runtime::BeatStop;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  celeriac beat
  celeriac -A proj beat -l info
  celeriac beat --lease 3s
  celeriac -A proj beat -S redbeat.RedBeatScheduler    # entries in RedBeat's keys, beside a stock RedBeat

Any number of beats may run: one leads, and another takes over within the lease when it dies. Entries
come from the application's beat_schedule, from [schedule] in celeriac.toml, and from
`celeriac schedule add`; every change acts within a second. TERM, INT or QUIT stops it.";

/// How long ago a beat may have worked to answer a ping (celery/beat.py 5.7, `BeatPidbox.min_tick_age`).
const PING_AGE_MAX: Duration = Duration::from_mins(1);

/// Schedulers whose work this beat does, beside RedBeat's: they only keep Celery's entries somewhere else.
const KNOWN: [&str; 5] = [
    "celery.beat:PersistentScheduler",
    "celery.beat:Scheduler",
    "celeriac",
    "persistent",
    "RedisBeatScheduler",
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BeatArgs {
    /// Its node name; %h is the host [default: celerybeat@%h]
    #[arg(short = 'n', long, value_name = "NAME")]
    hostname: Option<String>,
    /// How long a leader that is not heard of keeps the lead [default: 6s]
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,
    /// Celery's scheduler class; RedBeat's shares its keys, those that keep entries elsewhere are this one
    #[arg(short = 'S', long, value_name = "CLASS")]
    scheduler: Option<String>,
    /// Answer `celery inspect ping` [default: as the application says, or not]
    #[arg(long, overrides_with = "no_enable_remote_control")]
    enable_remote_control: bool,
    /// Answer no pings
    #[arg(long, overrides_with = "enable_remote_control")]
    no_enable_remote_control: bool,
    /// Celery's file of entries; they are in the store here
    #[arg(short = 's', long, value_name = "FILE", hide_short_help = true)]
    schedule: Option<String>,
    /// Celery's longest sleep; a beat of ours acts on changes within a second
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    max_interval: Option<f64>,
}

pub(super) async fn run(session: &Session, args: BeatArgs) -> Result<ExitCode, Failed> {
    if let Some(file) = &args.schedule {
        session.output.warn(format!(
            "-s {file}: entries are in the store; what is in such a file is not read"
        ));
    }
    let pinged = match (args.enable_remote_control, args.no_enable_remote_control) {
        (false, false) => None,
        (on, _) => Some(on),
    };
    let mut builder = builder(session, args.scheduler.as_deref(), pinged)?;
    if let Some(name) = &args.hostname {
        builder = builder.name(&name.replace("%h", session.app.host()));
    }
    if let Some(text) = &args.lease {
        let lease = crate::config::parse_duration(text)
            .map_err(|wanted| Failed::usage(format!("--lease {text:?}: {wanted}")))?;
        if !(1..=600).contains(&lease.as_secs()) {
            return Err(Failed::usage(format!("--lease {text}: from 1s to 10m is possible")));
        }
        builder = builder.lease(lease);
    }
    let beat = builder.build().await?;
    let url = celeriac_stores::redacted(&session.app.settings().broker_url.value);
    // Celery's line (celery/apps/beat.py 5.7).
    tracing::info!("beat: Starting...");
    session.output.note(format!("celeriac beat {} · store {url}", env!("CARGO_PKG_VERSION")));
    let signals = tokio::spawn(stop_on_signal(beat.stop_handle()));
    let status = beat.run().await;
    signals.abort();
    tracing::info!(sent = status.sent, "beat stopped");
    Ok(ExitCode::SUCCESS)
}

/// Which entries a beat sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduler {
    /// Those of this program's store.
    Ours,
    /// Those in RedBeat's keys too.
    RedBeat,
}

/// Whether a scheduler's work is done here, by the last part of its name. `of_app`: the application names it.
fn accept(scheduler: &str, of_app: bool) -> Result<Scheduler, Failed> {
    let plain = |name: &str| name.replace(':', ".");
    let class = scheduler.rsplit(['.', ':']).next().unwrap_or(scheduler);
    if class == "RedBeatScheduler" {
        return Ok(Scheduler::RedBeat);
    }
    if KNOWN.iter().any(|known| plain(known) == plain(scheduler) || *known == class) {
        return Ok(Scheduler::Ours);
    }
    let (why, instead) = match class {
        "DatabaseScheduler" | "django" => (
            "its entries are in Django's database",
            "go on with `celery beat` for these entries, or write them to a file of record and use \
             `celeriac schedule sync`; celeriac's workers run what both send",
        ),
        _ => (
            "it is a Python class that decides for itself when something is due",
            "go on with `celery beat` for it: celeriac's workers run what it sends",
        ),
    };
    let said = if of_app { ", which the application names in beat_scheduler," } else { "" };
    let text = format!("the scheduler {scheduler}{said} does not run here: {why}");
    let hint = if of_app {
        format!(
            "{instead}. `celeriac beat -S celeriac` sends everything else; start workers without -B"
        )
    } else {
        instead.to_owned()
    };
    Err(Failed::usage(text).hint(hint))
}

/// Whether a beat answers pings by the application's settings, and how long ago it may have worked then.
fn pings(session: &Session) -> (bool, Duration) {
    #[cfg(target_os = "linux")]
    if let Some(loaded) = &session.python {
        let (on, age_max) = python::pings(loaded.hello());
        return (on, age_max.unwrap_or(PING_AGE_MAX));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = session;
    (false, PING_AGE_MAX)
}

/// Which entries are wanted: as the command line says, or the application.
fn chosen(session: &Session, scheduler: Option<&str>) -> Result<Scheduler, Failed> {
    if let Some(scheduler) = scheduler {
        return accept(scheduler, false);
    }
    #[cfg(target_os = "linux")]
    if let Some(loaded) = &session.python
        && let Some(scheduler) = python::scheduler(loaded.hello())
    {
        return accept(&scheduler, true);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = session;
    Ok(Scheduler::Ours)
}

/// Where RedBeat's keys are: as the application says, or where RedBeat has them unless it is told otherwise.
pub(super) fn redbeat_keys(session: &Session) -> Result<RedBeatKeys, Failed> {
    let zone = session.zone()?;
    #[cfg(target_os = "linux")]
    if let Some(loaded) = &session.python {
        return python::redbeat_keys(loaded.hello(), zone).map_err(Failed::configuration);
    }
    let prefix = "redbeat:".to_owned();
    Ok(RedBeatKeys { url: None, lock: format!("{prefix}:lock"), prefix, zone })
}

/// A beat with the entries of the application and of the settings. `pinged`: whether it answers pings,
/// whatever the application says.
fn builder(
    session: &Session,
    scheduler: Option<&str>,
    pinged: Option<bool>,
) -> Result<BeatBuilder, Failed> {
    let mut builder = session.app.beat();
    if chosen(session, scheduler)? == Scheduler::RedBeat {
        builder = builder.redbeat(redbeat_keys(session)?);
    }
    let zone = session.zone()?;
    let sections = session.app.settings().schedule();
    let entries = sections.iter().map(|section| section.entry(&zone));
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    builder = builder.source(SourceKind::Config, entries);
    #[cfg(target_os = "linux")]
    if let Some(loaded) = &session.python {
        let found = python::schedule(loaded.hello(), &zone);
        for (name, why) in &found.refused {
            tracing::error!("beat_schedule[{name:?}] is not sent by this beat: {why}");
        }
        builder = builder.source(SourceKind::App, found.entries);
    }
    let (on, age_max) = pings(session);
    if pinged.unwrap_or(on) {
        builder = builder.answer_pings(age_max);
    }
    Ok(builder)
}

async fn stop_on_signal(stop: BeatStop) {
    told_to_stop().await;
    stop.stop();
}

/// Refuses what no beat beside a worker could do, before anything is started.
pub(super) fn check(session: &Session) -> Result<(), Failed> {
    match chosen(session, None)? {
        Scheduler::RedBeat => redbeat_keys(session).map(drop),
        Scheduler::Ours => Ok(()),
    }
}

/// Starts a beat beside a worker.
pub(super) async fn start_beside(session: &Session, beside: &mut Beside) -> Result<(), Failed> {
    let beat = builder(session, None, None)?.build().await?;
    let stop = beat.stop_handle();
    let name = format!("celerybeat@{}", session.app.host());
    beside.start("beat", name, |end| async move {
        let told = async {
            end.asked().await;
            stop.stop();
            std::future::pending::<()>().await;
        };
        // It gives the lead back before it ends.
        tokio::select! {
            _status = beat.run() => {}
            () = told => {}
        }
    });
    Ok(())
}
