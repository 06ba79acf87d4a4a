//! `celeriac limit`: rate and concurrency limits that hold for all workers together.

use super::Session;
use super::exit::Failed;
use super::output::span;
use celeriac_core::clock::between;
pub(super) use celeriac_core::document::target as target_fields;
use celeriac_core::store::LimitView;
use celeriac_core::throttle::{LimitRule, RuleOrigin, Target, parse_rates};
use celeriac_core::{document, operate};
use celeriac_wire::Value;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum LimitCommand {
    /// List limits with what runs under them
    #[command(after_help = "Example:\n  celeriac limit list --json")]
    List,
    /// Limit a task, a queue, a key or everything; acts at once, in all workers
    #[command(
        after_help = "Examples:\n  celeriac limit set --task app.mail --rate 100/m\n  celeriac limit set --queue reports --concurrency 2\n  celeriac limit set --each-key --rate '100/m burst, 1000/h burst'\n  celeriac limit set --task app.sync --concurrency 1 --per-key"
    )]
    Set {
        #[command(flatten)]
        target: TargetArgs,
        /// How many may start: 10/s, 100/m, 1000/h; several with commas; `burst` lets them come at once
        #[arg(long, value_name = "RATES", required_unless_present = "concurrency")]
        rate: Option<String>,
        /// How many may run at once
        #[arg(long, value_name = "COUNT")]
        concurrency: Option<u32>,
        /// Count for each key of its own
        #[arg(long)]
        per_key: bool,
    },
    /// Take a limit away; a limit that the application states holds again
    #[command(after_help = "Example:\n  celeriac limit remove --task app.mail")]
    Remove {
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// What a limit or a pause is about: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct TargetArgs {
    /// One queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// One task, by its name
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// All messages of one key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Each key for itself
    #[arg(long)]
    each_key: bool,
    /// Everything in the store
    #[arg(long)]
    all: bool,
}

impl TargetArgs {
    pub(super) fn target(&self) -> Result<Target, Failed> {
        let (kind, name) = match (&self.queue, &self.task, &self.key) {
            (Some(name), ..) => ("queue", name.as_str()),
            (_, Some(name), _) => ("task", name.as_str()),
            (.., Some(name)) => ("key", name.as_str()),
            _ if self.each_key => ("key", "*"),
            _ => ("everything", ""),
        };
        Target::named(kind, name).map_err(Failed::usage)
    }
}

pub(super) async fn run(session: &Session, command: LimitCommand) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    match command {
        LimitCommand::List => Ok(list(session, &store.limits_in_force().await?)),
        LimitCommand::Set { target, rate, concurrency, per_key } => {
            let rates = rate.as_deref().map(parse_rates).transpose().map_err(Failed::usage)?;
            let rule = LimitRule {
                target: target.target()?,
                per_key,
                rates: rates.unwrap_or_default(),
                concurrency,
                origin: RuleOrigin::Operator,
            };
            let target = rule.target.clone();
            operate::set_limit(&*store, rule).await?;
            session.output.line(format!("limited {target}"));
            session.output.value(&Value::Object(target_fields(&target)));
            Ok(ExitCode::SUCCESS)
        }
        LimitCommand::Remove { target } => {
            let target = target.target()?;
            if !store.remove_limit(&target, RuleOrigin::Operator).await? {
                return Err(Failed::no(format!("no limit was set for {target}"))
                    .hint("limits that the application states change with the application"));
            }
            session.output.line(format!("the limit of {target} is gone"));
            session.output.value(&Value::Object(target_fields(&target)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(session: &Session, views: &[LimitView]) -> ExitCode {
    let now = session.app.clock().wall();
    let row = |view: &LimitView| {
        let rule = &view.rule;
        let rates: Vec<String> = rule.rates.iter().map(ToString::to_string).collect();
        let concurrency = rule.concurrency.map(|count| count.to_string());
        let mut note = Vec::new();
        if rule.per_key {
            note.push("for each key".to_owned());
        }
        if !view.in_force {
            note.push("overridden".to_owned());
        }
        if rule.is_empty() {
            note.push("a rate for each worker".to_owned());
        }
        if let Some(next) = view.next_at {
            note.push(format!("next in {}", span(between(now, next))));
        }
        let cells = vec![
            rule.target.to_string(),
            rates.join(", "),
            concurrency.unwrap_or_default(),
            view.running.to_string(),
            rule.origin.as_str().to_owned(),
            note.join(", "),
        ];
        (cells, document::limit(view))
    };
    session.output.list(
        &["LIMIT", "RATES", "CONCURRENCY", "RUNNING", "SET BY", ""],
        views.iter().map(row).collect(),
        "no limits",
    );
    ExitCode::SUCCESS
}
