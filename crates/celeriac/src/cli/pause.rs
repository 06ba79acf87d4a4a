//! `celeriac pause`, `resume` and `pauses`: hold work back without touching it.

use super::Session;
use super::exit::Failed;
use super::limit::{TargetArgs, target_fields};
use super::output::span;
use celeriac_core::clock::between;
use celeriac_core::document;
use celeriac_core::throttle::Target;
use celeriac_wire::Value;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  celeriac pause --task app.mail --reason 'provider is down'\n  celeriac pause --key acme\n  celeriac pause --all --reason 'database migration'\n\nWhat runs goes on. Workers that start later keep the pause too."
)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Why, shown to everybody who looks
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  celeriac resume --task app.mail")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn pause(session: &Session, args: PauseArgs) -> Result<ExitCode, Failed> {
    let target = one(&args.target)?;
    session.app.store().await?.pause(&target, &args.reason).await?;
    session.output.line(format!("paused {target}"));
    session.output.value(&Value::Object(target_fields(&target)));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn resume(session: &Session, args: ResumeArgs) -> Result<ExitCode, Failed> {
    let target = one(&args.target)?;
    if !session.app.store().await?.resume(&target).await? {
        return Err(Failed::no(format!("{target} is not paused")).hint("see `celeriac pauses`"));
    }
    session.output.line(format!("resumed {target}"));
    session.output.value(&Value::Object(target_fields(&target)));
    Ok(ExitCode::SUCCESS)
}

/// What is meant, unless it cannot be paused.
fn one(args: &TargetArgs) -> Result<Target, Failed> {
    args.target()?.pausable().map_err(Failed::usage)
}

pub(super) async fn list(session: &Session) -> Result<ExitCode, Failed> {
    let now = session.app.clock().wall();
    let pauses = session.app.store().await?.pauses().await?;
    let row = |pause: &celeriac_core::store::Pause| {
        let since = span(between(pause.since, now));
        let cells = vec![pause.target.to_string(), since, pause.reason.clone()];
        (cells, document::pause(pause))
    };
    session.output.list(
        &["PAUSED", "FOR", "REASON"],
        pauses.iter().map(row).collect(),
        "nothing is paused",
    );
    Ok(ExitCode::SUCCESS)
}
