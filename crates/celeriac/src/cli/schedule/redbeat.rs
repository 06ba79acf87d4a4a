//! `celeriac schedule redbeat`: entries in RedBeat's keys.

use crate::cli::Session;
use crate::cli::beat::redbeat_keys;
use crate::cli::exit::Failed;
use crate::cli::output::{object, span};
use crate::schedule::Zone;
use celeriac_core::store::{RedBeatHolder, RedBeatView, Schedules};
use celeriac_wire::Value;
use clap::{Args, Subcommand};
use std::process::ExitCode;

const SHARE: &str = "Examples:
  celeriac -A proj schedule redbeat share
  celeriac schedule redbeat share --url redis://localhost/1 --zone Europe/Berlin

The entries stay in RedBeat's keys: programs that use RedBeatSchedulerEntry go on as they are, and a stock
RedBeat waits for its lock while a beat of celeriac has it, or the other way round. With -A everything is
as the application says; `celeriac -A proj beat` does the same by itself where the application's
beat_scheduler is RedBeat's.";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RedBeatCommand {
    /// Show where its keys are, and who sends what is in them [the default]
    Show,
    /// Share its keys from now on; the beat that leads sends their entries while it has RedBeat's lock
    #[command(after_help = SHARE)]
    Share(ShareArgs),
    /// Leave its keys to RedBeat alone, and give its lock back
    Leave,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShareArgs {
    /// `redbeat_redis_url`, on the store's server [default: as the application says, or the store's]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// `redbeat_key_prefix` [default: as the application says, or redbeat:]
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// The complete key of its lock [default: as the application says, or :lock behind the prefix]
    #[arg(long, value_name = "KEY")]
    lock_key: Option<String>,
    /// The zone in which its crontabs are meant [default: the application's, or UTC]
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
}

pub(super) async fn run(
    session: &Session,
    command: Option<RedBeatCommand>,
) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    match command {
        None | Some(RedBeatCommand::Show) => show(session, &*store).await,
        Some(RedBeatCommand::Share(args)) => {
            let mut keys = redbeat_keys(session)?;
            if let Some(prefix) = args.prefix {
                keys.lock = format!("{prefix}:lock");
                keys.prefix = prefix;
            }
            keys.lock = args.lock_key.unwrap_or(keys.lock);
            keys.url = args.url.or(keys.url);
            if let Some(name) = &args.zone {
                keys.zone = Zone::named(name)
                    .map_err(|error| Failed::usage(format!("--zone {name:?}: {error}")))?;
            }
            store.share_redbeat(keys).await?;
            show(session, &*store).await
        }
        Some(RedBeatCommand::Leave) => {
            let left = store.leave_redbeat().await?;
            let text = if left { "left to RedBeat alone" } else { "were not shared" };
            session.output.line(format!("RedBeat's keys: {text}"));
            session.output.value(&object([("left", Value::from(left))]));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn show(session: &Session, store: &dyn Schedules) -> Result<ExitCode, Failed> {
    let Some(view) = store.redbeat().await? else {
        session.output.line("RedBeat's keys are not shared");
        session.output.value(&object([("shared", Value::from(false))]));
        if !session.output.is_json() {
            session.output.note("share them with `celeriac schedule redbeat share`");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (word, who) = holder(&view, store.leader().await?.map(|lead| lead.holder));
    let left = view.left.map_or(Value::Null, |left| Value::from(left.as_secs_f64()));
    let value = object([
        ("shared", Value::from(true)),
        ("prefix", Value::from(view.prefix.as_str())),
        ("database", Value::from(view.database)),
        ("zone", Value::from(view.zone.name())),
        ("entries", Value::from(view.count)),
        ("lock", Value::from(view.lock.as_str())),
        ("holder", Value::from(word)),
        ("left", left),
    ]);
    let facts = [
        ("keys", format!("{}* in database {}", view.prefix, view.database)),
        ("zone", view.zone.name().to_owned()),
        ("entries", view.count.to_string()),
        ("lock", view.lock.clone()),
        ("sent by", who),
    ];
    session.output.facts(&facts, &value);
    Ok(ExitCode::SUCCESS)
}

/// Who sends what is in the keys: in a word, and for people.
fn holder(view: &RedBeatView, leader: Option<String>) -> (&'static str, String) {
    let left = view.left.map_or("it does not expire".to_owned(), |left| {
        format!("expires in {} unless it is renewed", span(left))
    });
    match &view.holder {
        RedBeatHolder::Nobody => {
            ("nobody", "nobody: no beat runs, neither celeriac's nor RedBeat's".to_owned())
        }
        RedBeatHolder::Us => {
            let name = leader.unwrap_or_else(|| "a beat of celeriac that has ended".to_owned());
            ("celeriac", format!("{name}, {left}"))
        }
        RedBeatHolder::Other(token) => {
            ("other", format!("another scheduler, which has its lock ({token}), {left}"))
        }
    }
}
