//! `celeriac config`.

use super::Session;
use super::output::object;
use celeriac_wire::Value;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every effective setting with its source
    #[command(
        after_help = "Examples:\n  celeriac config show\n  CELERY_CONCURRENCY=8 celeriac config show --json"
    )]
    Show {
        /// Sources are always shown; the flag is accepted for scripts
        #[arg(long)]
        sources: bool,
    },
}

pub(super) fn run(session: &Session, command: &ConfigCommand) -> ExitCode {
    let ConfigCommand::Show { sources: _ } = command;
    let rows = session
        .app
        .settings()
        .rows()
        .into_iter()
        .map(|row| {
            let value = object([
                ("key", Value::from(row.key)),
                ("value", Value::from(row.value.as_str())),
                ("source", Value::from(row.source.as_str())),
                ("effect", Value::from(row.effect)),
            ]);
            (vec![row.key.to_owned(), row.value, row.source, row.effect.to_owned()], value)
        })
        .collect();
    session.output.list(&["SETTING", "VALUE", "SOURCE", "EFFECT"], rows, "no settings");
    ExitCode::SUCCESS
}
