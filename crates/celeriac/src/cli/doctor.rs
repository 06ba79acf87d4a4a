//! `celeriac doctor`.

#[cfg(target_os = "linux")]
mod application;
mod broker;
mod report;

use super::exit::Failed;
use super::output::Output;
use super::progress;
use crate::app::App;
use broker::Looked;
use celeriac_core::doctor::{Finding, Severity, sort};
use celeriac_core::store::{Diagnose, Leftover};
use clap::Args;
use report::Report;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  celeriac -A proj doctor
  celeriac -A proj doctor --no-broker --strict      (for CI: exit code 1 when anything is wrong)
  celeriac doctor --broker redis://cache:6379/0
  celeriac doctor --broker redis://cache:6379/0 --clean

With -A it imports the application as a worker does, reads the Python, .env, compose and
script files below the current folder, and looks at the application's broker. It writes
nothing, except with --clean, and with --ask, which opens an inbox for the answers of
Celery's workers and removes it.

Exit codes: 0 whatever was found; 1 with --strict, when there was a warning or an error;
2 wrong command line; 5 --clean was not confirmed. Every code is explained in
docs/reference/doctor.md.";

#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Exit with 1 when there is a warning or an error
    #[arg(long)]
    strict: bool,
    /// With -A: leave the broker alone
    #[arg(long)]
    no_broker: bool,
    /// Ask Celery's workers which queues they consume
    #[arg(long, conflicts_with = "no_broker")]
    ask: bool,
    /// Remove what is left over and nobody will read, after asking
    #[arg(long, conflicts_with = "no_broker")]
    clean: bool,
    /// With --clean: do not ask
    #[arg(long, requires = "clean")]
    yes: bool,
    /// How long nobody may have touched what is left over
    #[arg(long, value_name = "TIME", default_value = "10m")]
    older_than: String,
}

/// Leftovers are removed so many at a time.
const BATCH: usize = 200;

/// Who is examined.
pub(super) struct Patient {
    pub(super) app: App,
    pub(super) name: Option<String>,
    pub(super) flags: Vec<(&'static str, String)>,
    pub(super) config: Option<PathBuf>,
    pub(super) output: Output,
}

pub(super) async fn run(mut patient: Patient, args: DoctorArgs) -> Result<ExitCode, Failed> {
    let idle = super::call::duration("--older-than", &args.older_than)?;
    let mut report = Report::default();
    if let Some(name) = patient.name.take() {
        examine(&mut patient, &name, &mut report).await?;
    }
    if !args.no_broker {
        let looked = broker::look(&patient.app, idle, args.ask).await;
        if args.clean {
            clean(&patient, &looked, idle, args.yes).await?;
        }
        report.add_broker(looked);
    }
    sort(&mut report.findings);
    report.print(patient.output);
    let is_wrong = report.findings.iter().any(|one| one.severity() > Severity::Note);
    Ok(if args.strict && is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Looks at the application, and takes its broker for the one to look at.
#[cfg(target_os = "linux")]
async fn examine(patient: &mut Patient, name: &str, report: &mut Report) -> Result<(), Failed> {
    let examined = application::look(name, patient.app.settings()).await;
    report.add_application(&examined);
    if let Some(loaded) = &examined.loaded {
        let program = patient.app.program_settings();
        let settings =
            loaded.settings(program, patient.flags.clone(), patient.config.as_deref())?;
        patient.app = patient.app.clone().replace_settings(settings);
    }
    report.findings.extend(examined.findings);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
async fn examine(patient: &mut Patient, name: &str, _report: &mut Report) -> Result<(), Failed> {
    super::loaded::load(name, patient.app.settings(), false).await.map(drop)
}

/// Removes leftovers, once somebody has said yes.
async fn clean(
    patient: &Patient,
    looked: &Looked,
    idle: Duration,
    yes: bool,
) -> Result<(), Failed> {
    let (Some(facts), Some(store)) = (&looked.facts, &looked.store) else {
        return Err(Failed::unavailable(
            "there is nothing to clean: the store cannot be looked at",
        )
        .hint("run it without --clean to see why"));
    };
    let found = &facts.leftovers;
    for Leftover { key, what, idle } in found {
        patient.output.note(format!("{key}: {what}, untouched for {} s", idle.as_secs()));
    }
    if found.is_empty() {
        patient.output.note("nothing is left over");
        return Ok(());
    }
    if !yes {
        confirm(found.len())?;
    }
    let removed = remove(patient.output, &**store, found, idle).await?;
    patient.output.note(format!("{removed} of {} removed", found.len()));
    Ok(())
}

/// Removes them batch by batch, so that it is seen how far it is.
async fn remove(
    output: Output,
    store: &dyn Diagnose,
    found: &[Leftover],
    idle: Duration,
) -> Result<u64, Failed> {
    let bar = progress::bar(output, found.len() as u64);
    let mut removed = 0;
    for some in found.chunks(BATCH) {
        removed += store.clean(some, idle).await?;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    Ok(removed)
}

fn confirm(count: usize) -> Result<(), Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Failed::no(format!("{count} keys are left over; nothing was deleted"))
            .hint("give --yes to delete them without being asked"));
    }
    super::output::ask(&format!("Delete these {count} keys? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failed::no("nothing was deleted"))
    }
}

/// What keeps the store from being looked at.
fn unreachable(place: &str, what: String, fix: String) -> Finding {
    Finding::new("D-BROKER-ANSWER", place, what, fix)
}
