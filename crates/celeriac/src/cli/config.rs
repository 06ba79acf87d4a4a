//! `celeriac config`.

use super::Session;
use super::output::object;
use crate::config::celery::{self, Role};
use celeriac_wire::Value;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every effective setting with its source
    #[command(
        after_help = "Examples:\n  celeriac config show\n  celeriac -A proj config show --all\n  \
                      CELERY_CONCURRENCY=8 celeriac config show --json"
    )]
    Show {
        /// Sources are always shown; the flag is accepted for scripts
        #[arg(long)]
        sources: bool,
        /// With -A: Celery's defaults too, not only what the application sets
        #[arg(long)]
        all: bool,
    },
}

/// The longest value in a table, in characters; programs get all of it.
const SHOWN_MAX: usize = 80;

pub(super) fn run(session: &Session, command: &ConfigCommand) -> ExitCode {
    let ConfigCommand::Show { sources: _, all } = command;
    let settings = session.app.settings();
    let theirs = session.python.as_ref().map(|loaded| loaded.rows(settings, *all));
    let theirs = theirs.unwrap_or_default();
    // A few keys are Celery's too: one line tells whose value holds.
    let celerys = |key: &str| {
        celery::find(key).is_some_and(|known| known.role == Role::Celery)
            && session.python.is_some()
    };
    let mut rows: Vec<(Vec<String>, Value)> = Vec::new();
    let ours = settings.rows().into_iter().filter(|row| !celerys(row.key));
    let keys: Vec<&str> = ours.clone().map(|row| row.key).collect();
    for row in ours {
        rows.push(line(row.key, &row.value, &row.source, row.effect, "celeriac"));
    }
    for row in theirs.iter().filter(|row| !keys.contains(&row.key.as_str())) {
        rows.push(line(&row.key, &row.value, &row.source, &row.effect, row.acts));
    }
    session.output.list(&["SETTING", "VALUE", "SOURCE", "EFFECT"], rows, "no settings");
    ExitCode::SUCCESS
}

fn line(key: &str, value: &str, source: &str, effect: &str, acts: &str) -> (Vec<String>, Value) {
    let json = object([
        ("key", Value::from(key)),
        ("value", Value::from(value)),
        ("source", Value::from(source)),
        ("effect", Value::from(effect)),
        ("acts", Value::from(acts)),
    ]);
    let mut short: String = value.chars().take(SHOWN_MAX).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    (vec![key.to_owned(), short, source.to_owned(), effect.to_owned()], json)
}
