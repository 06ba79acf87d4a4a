//! `schedule add`, `edit` and `next`: entries as flags describe them.

use super::{document, instant, show_next};
use crate::cli::Session;
use crate::cli::exit::Failed;
use crate::config::parse_duration;
use crate::schedule::{Kept, Schedules, Zone};
use celeriac_core::StoreError;
use celeriac_core::beat::Entry;
use celeriac_core::operate::entries;
use celeriac_core::schedule::{Crontab, Schedule};
use celeriac_wire::{Map, Value};
use clap::Args;
use std::process::ExitCode;

const ADD: &str = "Examples:
  celeriac schedule add nightly --task reports.write -a '[\"full\"]' --cron '0 3 * * *' --zone Europe/Berlin
  celeriac schedule add heartbeat --task app.health --every 60s --expires 60s --queue system
  celeriac schedule add lamps --task lamps.on --solar sunset,52.52,13.40
  celeriac schedule add once --task app.migrate --at 2026-12-24T18:00:00+01:00
  celeriac schedule add sync --task app.sync --every 5m --overlap skip --misfire skip";

const NEXT: &str = "Examples:
  celeriac schedule next nightly -n 10
  celeriac schedule next --cron '30 2 * * *' --zone Europe/Berlin -n 3
  celeriac schedule next nightly --tz America/New_York";

/// When something is due.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct When {
    /// Five fields as cron has them, minute hour day month weekday; all of them must match
    #[arg(long, value_name = "FIELDS")]
    cron: Option<String>,
    /// Every so often: 30s, 5m, 1h, 1d
    #[arg(long, value_name = "TIME")]
    every: Option<String>,
    /// An event of the sun, and where: sunrise,52.52,13.40
    #[arg(long, value_name = "EVENT,LAT,LON", allow_hyphen_values = true)]
    solar: Option<String>,
    /// Once, at an ISO 8601 instant
    #[arg(long, value_name = "INSTANT")]
    at: Option<String>,
}

impl When {
    fn schedule(&self) -> Result<Option<Schedule>, Failed> {
        let flags = [
            ("--cron", self.cron.is_some()),
            ("--every", self.every.is_some()),
            ("--solar", self.solar.is_some()),
        ];
        let flag = flags.iter().find(|(_, given)| *given).map_or("--at", |(flag, _)| flag);
        let wrong = |error: celeriac_core::schedule::ScheduleError| {
            Failed::usage(format!("{flag}: {error}"))
        };
        if let Some(line) = &self.cron {
            return Ok(Some(Schedule::Crontab(Crontab::from_string(line).map_err(wrong)?)));
        }
        let value = if let Some(text) = &self.every {
            let every = parse_duration(text)
                .map_err(|wanted| Failed::usage(format!("--every {text:?}: {wanted}")))?;
            document_of([("type", "interval".into()), ("every", every.as_secs_f64().into())])
        } else if let Some(text) = &self.solar {
            let parts: Vec<&str> = text.split(',').map(str::trim).collect();
            let number = |text: &str| text.parse::<f64>().ok();
            let (event, place) = match parts[..] {
                [event, lat, lon] => (event, number(lat).zip(number(lon))),
                _ => ("", None),
            };
            let (lat, lon) = place.ok_or_else(|| {
                Failed::usage(format!("--solar {text:?} is no event and place"))
                    .hint("write an event, the latitude and the longitude: sunrise,52.52,13.40")
            })?;
            document_of([
                ("type", "solar".into()),
                ("event", event.into()),
                ("lat", lat.into()),
                ("lon", lon.into()),
            ])
        } else if let Some(text) = &self.at {
            return Ok(Some(Schedule::Once(instant("--at", text)?)));
        } else {
            return Ok(None);
        };
        Schedule::from_value(&value).map(Some).map_err(wrong)
    }
}

fn document_of<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(Map::from(fields))
}

/// What holds for an entry beside its time.
#[derive(Debug, Args)]
struct Rules {
    /// Positional arguments, a JSON array
    #[arg(short = 'a', long, value_name = "JSON")]
    args: Option<String>,
    /// Keyword arguments, a JSON object
    #[arg(short = 'k', long, value_name = "JSON")]
    kwargs: Option<String>,
    /// Send it to this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// critical, high, normal or low
    #[arg(long, value_name = "LEVEL")]
    priority: Option<crate::Priority>,
    /// Drop an occurrence that has not begun after this time
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// More options of Celery's `apply_async`, a JSON object
    #[arg(long, value_name = "JSON")]
    options: Option<String>,
    /// The time zone of its clock, such as Europe/Berlin [default: the application's, or UTC]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Not before this instant
    #[arg(long, value_name = "INSTANT")]
    start: Option<String>,
    /// Not after this instant
    #[arg(long, value_name = "INSTANT")]
    end: Option<String>,
    /// Send each occurrence up to so much later, by chance
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// What passed while no beat ran: skip, once, all, or all=N for the latest N [default: once]
    #[arg(long, value_name = "RULE")]
    misfire: Option<String>,
    /// How late an occurrence may be without counting as missed [default: 15s]
    #[arg(long, value_name = "TIME")]
    misfire_grace: Option<String>,
    /// While an earlier one runs: allow, skip, queue-one or cancel-previous [default: allow]
    #[arg(long, value_name = "RULE")]
    overlap: Option<String>,
    /// How many occurrences may wait or run at a time
    #[arg(long, value_name = "N")]
    max_instances: Option<u32>,
    /// A time that the clock skips in spring: shift or skip [default: shift]
    #[arg(long, value_name = "RULE")]
    dst_gap: Option<String>,
    /// A time that comes twice in autumn: auto, first, last or both [default: auto]
    #[arg(long, value_name = "RULE")]
    dst_repeat: Option<String>,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

impl Rules {
    /// Writes what was given into a document of an entry.
    fn write(&self, fields: &mut Map) -> Result<(), Failed> {
        let mut text = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                fields.insert(name, value.as_str());
            }
        };
        text("zone", &self.zone);
        text("start", &self.start);
        text("end", &self.end);
        text("overlap", &self.overlap);
        text("dst_gap", &self.dst_gap);
        text("dst_repeat", &self.dst_repeat);
        text("description", &self.description);
        for (name, value) in [("jitter", &self.jitter), ("misfire_grace", &self.misfire_grace)] {
            if let Some(value) = value {
                let flag = format!("--{}", name.replace('_', "-"));
                fields.insert(name, seconds(&flag, value)?);
            }
        }
        if let Some(rule) = &self.misfire {
            let (rule, limit) = rule
                .split_once('=')
                .map_or((rule.as_str(), None), |(rule, limit)| (rule, Some(limit)));
            let limit = match limit {
                None => Value::Null,
                Some(limit) => Value::from(limit.parse::<u64>().map_err(|_| {
                    Failed::usage(format!("--misfire {rule}={limit}: {limit:?} is no number"))
                })?),
            };
            fields.insert("misfire", rule);
            fields.insert("misfire_limit", limit);
        }
        if let Some(most) = self.max_instances {
            fields.insert("max_instances", u64::from(most));
        }
        for (name, flag, value) in
            [("args", "--args", &self.args), ("kwargs", "--kwargs", &self.kwargs)]
        {
            if let Some(value) = value {
                fields.insert(name, json(flag, value)?);
            }
        }
        let mut options =
            fields.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(more) = &self.options {
            match json("--options", more)? {
                Value::Object(more) => {
                    for (name, value) in more.iter() {
                        options.insert(name, value.clone());
                    }
                }
                _ => return Err(Failed::usage("--options must be a JSON object")),
            }
        }
        if let Some(queue) = &self.queue {
            options.insert("queue", queue.as_str());
        }
        if let Some(level) = self.priority {
            options.insert("priority", u64::from(level.ascending()));
        }
        if let Some(expires) = &self.expires {
            options.insert("expires", seconds("--expires", expires)?);
        }
        fields.insert("options", options);
        Ok(())
    }
}

fn seconds(flag: &str, text: &str) -> Result<f64, Failed> {
    parse_duration(text)
        .map(|span| span.as_secs_f64())
        .map_err(|wanted| Failed::usage(format!("{flag} {text:?}: {wanted}")))
}

fn json(flag: &str, text: &str) -> Result<Value, Failed> {
    Value::parse(text.as_bytes()).map_err(|error| Failed::usage(format!("{flag}: {error}")))
}

#[derive(Debug, Args)]
#[command(after_help = ADD)]
pub(in crate::cli) struct AddArgs {
    /// Its name
    name: String,
    /// The task's name
    #[arg(long, value_name = "NAME")]
    task: String,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rules: Rules,
    /// Begin paused
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  celeriac schedule edit nightly --cron '0 4 * * *'\n  celeriac schedule edit nightly --overlap skip --misfire all=3"
)]
pub(in crate::cli) struct EditArgs {
    /// Its name
    name: String,
    /// Another task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Debug, Args)]
#[command(after_help = NEXT)]
pub(in crate::cli) struct NextArgs {
    /// An entry; without one, say when with a flag
    #[arg(required_unless_present_any = ["cron", "every", "solar", "at"])]
    name: Option<String>,
    #[command(flatten)]
    when: When,
    /// How many times
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    count: usize,
    /// The zone of the flags' clock
    #[arg(long, value_name = "ZONE", conflicts_with = "name")]
    zone: Option<String>,
    /// Show the times on the clock of this zone [default: the entry's]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

impl NextArgs {
    pub(super) fn names_an_entry(&self) -> bool {
        self.name.is_some()
    }
}

fn zone(flag: &str, name: &str) -> Result<Zone, Failed> {
    Zone::named(name).map_err(|error| Failed::usage(format!("{flag}: {error}")))
}

pub(super) async fn add(session: &Session, args: AddArgs) -> Result<ExitCode, Failed> {
    let schedule = args.when.schedule()?.ok_or_else(|| {
        Failed::usage("an entry needs a time").hint("give one of --cron, --every, --solar, --at")
    })?;
    let mut fields = Map::new();
    fields.insert("name", args.name.as_str());
    fields.insert("task", args.task.as_str());
    fields.insert("schedule", schedule.to_value());
    fields.insert("enabled", !args.paused);
    args.rules.write(&mut fields)?;
    let entry = Entry::from_value(&Value::Object(fields), &session.zone()?)
        .map_err(|error| Failed::usage(error.to_string()))?;
    let store = session.app.store().await?;
    let kept = entries::add_entry(&*store, entry, None, session.app.clock().wall()).await?;
    told(session, &kept, "added");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn edit(session: &Session, args: EditArgs) -> Result<ExitCode, Failed> {
    let schedule = args.when.schedule()?;
    // What is wrong in the flags is said before anything is read.
    args.rules.write(&mut Map::new())?;
    let store = session.app.store().await?;
    let now = session.app.clock().wall();
    let kept = entries::change_entry(&*store, &args.name, now, |kept| {
        let mut fields = kept.entry.to_value().as_object().cloned().unwrap_or_default();
        if let Some(schedule) = &schedule {
            fields.insert("schedule", schedule.to_value());
        }
        if let Some(task) = &args.task {
            fields.insert("task", task.as_str());
        }
        args.rules.write(&mut fields).map_err(|failed| StoreError::invalid(failed.message))?;
        kept.entry = Entry::from_value(&Value::Object(fields), &kept.entry.zone)
            .map_err(|error| StoreError::invalid(error.to_string()))?;
        Ok(())
    });
    told(session, &kept.await?, "changed");
    Ok(ExitCode::SUCCESS)
}

fn told(session: &Session, kept: &Kept, what: &str) {
    let entry = &kept.entry;
    let sentence = entry.schedule.sentence(&entry.zone);
    let next = match kept.state.due {
        _ if !entry.enabled => "paused".to_owned(),
        Some(due) => format!("next {}", super::local(due, &entry.zone)),
        None => "never due".to_owned(),
    };
    session.output.line(format!("{what} {}: {} {sentence}, {next}", entry.name, entry.task));
    session.output.value(&document::entry(kept));
}

pub(super) async fn next(
    session: &Session,
    schedules: &Schedules,
    args: NextArgs,
) -> Result<ExitCode, Failed> {
    let kept = if let Some(name) = &args.name {
        schedules.status(name).await?.kept
    } else {
        let schedule = args.when.schedule()?.ok_or_else(|| Failed::usage("when?"))?;
        let own = match &args.zone {
            Some(name) => zone("--zone", name)?,
            None => session.zone()?,
        };
        let entry = Entry::new("next", "next", schedule, own)
            .map_err(|error| Failed::usage(error.to_string()))?;
        Kept::new(entry, None, session.app.clock().wall())
    };
    let shown = match &args.tz {
        Some(name) => zone("--tz", name)?,
        None => kept.entry.zone.clone(),
    };
    Ok(show_next(session, &kept, &shown, args.count.clamp(1, 10_000)))
}
