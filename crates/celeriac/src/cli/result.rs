//! `celeriac result`.

use super::Session;
use super::call::duration;
use super::exit::Failed;
use celeriac_core::store::Phase;
use celeriac_wire::{State, Value};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  celeriac result 0193…\n  celeriac result 0193… --wait 30s --traceback"
)]
pub(super) struct ResultArgs {
    /// The task id
    id: String,
    /// Print the traceback as well
    #[arg(long)]
    traceback: bool,
    /// Wait so long until it is ready
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
}

pub(super) async fn run(session: &Session, args: ResultArgs) -> Result<ExitCode, Failed> {
    let wait = args.wait.as_deref().map(|text| duration("--wait", text)).transpose()?;
    let store = session.app.store().await?;
    let record = store.wait_result(&args.id, wait.unwrap_or(Duration::ZERO)).await?;
    let Some(record) = record else {
        let view = store.task(&args.id).await?;
        return Err(match view.phase {
            Phase::Unknown => Failed::no(format!("nothing is known of task {}", args.id)),
            phase => {
                Failed::no(format!("task {} has no result yet, it is {}", args.id, phase.as_str()))
                    .hint(format!("see `celeriac task show {}`", args.id))
            }
        });
    };
    session.output.value(&Value::Object(record.meta.as_map().clone()));
    let state = record.meta.state();
    if state == State::Success {
        session.output.line(record.meta.result().to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let text = match record.meta.exception() {
        Ok(Some(exception)) => exception.summary(),
        _ => record.meta.result().to_string(),
    };
    session.output.line(format!("{state}: {text}"));
    if let Some(traceback) = record.meta.traceback().filter(|_| args.traceback) {
        session.output.line(traceback);
    }
    Ok(ExitCode::from(5))
}
