//! What other schedulers have kept, as entries: Celery's beat, APScheduler and RedBeat.

mod apscheduler;
#[cfg(target_os = "linux")]
mod child;

use super::files::{Found, Past};
use crate::cli::Session;
use crate::cli::exit::Failed;
#[cfg(target_os = "linux")]
use crate::cli::loaded::Loaded;
use crate::schedule::Zone;
#[cfg(feature = "redis")]
use celeriac_core::beat::EntryError;
#[cfg(feature = "redis")]
use celeriac_core::beat::redbeat::{RedBeatEntry, RedBeatPast};
use celeriac_core::beat::{Entry, SourceKind};
use celeriac_wire::{Map, Value};
use clap::Args;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest file of names that is read, in bytes.
const NAMES_BYTES_MAX: u64 = 16 << 20;

/// What was found, and what has no equivalent, each with its name and the reason.
pub(super) type Taken = (Vec<Found>, Vec<String>);

/// Where other schedulers keep what they keep.
#[derive(Debug, Args)]
pub(super) struct ForeignArgs {
    /// With --format apscheduler: which task a function is, a TOML or JSON file of "module:function" = "task"
    /// [default: the function as module.function]
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    pub(super) tasks: Option<PathBuf>,
    /// With --format apscheduler: the table, perhaps schema.table
    #[arg(long, value_name = "NAME", default_value = "apscheduler_jobs")]
    table: String,
    /// With --format apscheduler: the key of the jobs in Redis
    #[arg(long, value_name = "KEY", default_value = "apscheduler.jobs")]
    jobs_key: String,
    /// With --format redbeat: `redbeat_key_prefix` of the application
    #[arg(long, value_name = "TEXT", default_value = "redbeat:")]
    prefix: String,
}

/// The entries in the file of Celery's beat. `zone`: the one that is asked for, or the application's.
pub(super) async fn celerybeat(
    session: &Session,
    path: &Path,
    zone: Option<&Zone>,
) -> Result<Taken, Failed> {
    let asked = Map::from([
        ("from", Value::from("celerybeat")),
        ("source", Value::from(path.to_string_lossy().into_owned())),
        ("app", application(session).map_or(Value::Null, Value::from)),
    ]);
    let own = own_entries(session)?;
    let lines = read(session, asked).await?;
    Ok(sorted(&lines, |line| entry_of_beat(line, zone, &own)))
}

/// The jobs in a store of APScheduler.
pub(super) async fn apscheduler(
    session: &Session,
    url: &str,
    task: Option<&str>,
    args: &ForeignArgs,
    zone: &Zone,
) -> Result<Taken, Failed> {
    let names = match &args.tasks {
        None => BTreeMap::new(),
        Some(file) => names_of(file)?,
    };
    let asked = Map::from([
        ("from", Value::from("apscheduler")),
        ("source", Value::from(url)),
        ("table", Value::from(args.table.as_str())),
        ("jobs_key", Value::from(args.jobs_key.as_str())),
    ]);
    let lines = read(session, asked).await?;
    let task_of = |function: &str| {
        let given = task.or_else(|| names.get(function).map(String::as_str));
        given.map_or_else(|| function.replace(':', "."), str::to_owned)
    };
    Ok(sorted(&lines, |line| apscheduler::entry(line, &task_of, zone)))
}

/// The entries of RedBeat.
#[cfg(feature = "redis")]
pub(super) async fn redbeat(
    session: &Session,
    url: &str,
    args: &ForeignArgs,
    zone: &Zone,
) -> Result<Taken, Failed> {
    let own = own_entries(session)?;
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for kept in celeriac_stores::read_redbeat(url, &args.prefix).await? {
        match entry_of_redbeat(&kept, zone) {
            Ok(mut one) => {
                take_own(&mut one, &own);
                found.push(one);
            }
            Err(why) => left.push(format!("{}: {why}", kept.name)),
        }
    }
    Ok((found, left))
}

/// An entry of RedBeat's: it goes on after its latest run.
#[cfg(feature = "redis")]
fn entry_of_redbeat(kept: &RedBeatEntry, zone: &Zone) -> Result<Found, EntryError> {
    let entry = kept.entry(zone, &Map::new())?;
    let RedBeatPast { last, due, runs } = kept.past(&entry)?;
    if due.is_none() {
        return Err(EntryError("it is never due again".to_owned()));
    }
    let past = Past { due, anchor: last, last: last.filter(|_| runs > 0), runs };
    Ok(Found { entry, past })
}

/// This program speaks no Redis.
#[cfg(not(feature = "redis"))]
pub(super) async fn redbeat(
    _session: &Session,
    _url: &str,
    _args: &ForeignArgs,
    _zone: &Zone,
) -> Result<Taken, Failed> {
    Err(Failed::usage("--format redbeat: this program was built without Redis"))
}

/// The lines that are entries, and the reasons of the others.
fn sorted(lines: &[Value], entry: impl Fn(&Value) -> Result<Found, String>) -> Taken {
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for line in lines {
        let name = line.get("name").and_then(Value::as_str).unwrap_or_default();
        let refused = line.get("refused").and_then(Value::as_str);
        match refused.map_or_else(|| entry(line), |why| Err(why.to_owned())) {
            Ok(one) => found.push(one),
            Err(why) => left.push(format!("{name}: {why}")),
        }
    }
    (found, left)
}

/// An entry of Celery's beat: it goes on after its latest run (celery/beat.py 5.7, `ScheduleEntry`).
fn entry_of_beat(
    line: &Value,
    zone: Option<&Zone>,
    own: &BTreeMap<String, Entry>,
) -> Result<Found, String> {
    let zone = match (zone, line.get("zone").and_then(Value::as_str)) {
        (Some(zone), _) => zone.clone(),
        (None, Some(name)) => Zone::named(name).map_err(|error| error.to_string())?,
        (None, None) => Zone::utc(),
    };
    let document = line.get("entry").unwrap_or(&Value::Null);
    let entry = Entry::from_value(document, &zone).map_err(|error| error.to_string())?;
    let last = instant(line, "last")?;
    let runs = line.get("runs").and_then(Value::as_u64).unwrap_or_default();
    let mut found = Found::new(entry);
    take_own(&mut found, own);
    let entry = &found.entry;
    found.past = Past {
        due: last.and_then(|last| entry.next(last, last)),
        anchor: last,
        // Before its first run Celery has the time at which it was made.
        last: last.filter(|_| runs > 0),
        runs,
    };
    Ok(found)
}

/// An instant of a line.
fn instant(line: &Value, name: &str) -> Result<Option<Timestamp>, String> {
    let Some(text) = line.get(name).and_then(Value::as_str) else { return Ok(None) };
    let read = celeriac_wire::parse_iso(text);
    read.map(Some).map_err(|_| format!("{name}: {text} is no instant"))
}

/// An entry that the application has itself stays the application's: only how far it has come is new.
fn take_own(found: &mut Found, own: &BTreeMap<String, Entry>) {
    if let Some(entry) = own.get(&found.entry.name) {
        let enabled = found.entry.enabled;
        found.entry = entry.clone();
        found.entry.enabled = enabled;
        found.entry.source.kind = SourceKind::App;
        let original = Value::Object(entry.definition());
        found.entry.source.original = Some(Box::new(original));
    }
}

/// The entries of the application that `-A` names.
#[cfg(target_os = "linux")]
fn own_entries(session: &Session) -> Result<BTreeMap<String, Entry>, Failed> {
    let Some(loaded) = &session.python else { return Ok(BTreeMap::new()) };
    let found = crate::python::schedule(loaded.hello(), &session.zone()?);
    Ok(found.entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect())
}

#[cfg(target_os = "linux")]
fn application(session: &Session) -> Option<&str> {
    session.python.as_ref().map(Loaded::name)
}

#[cfg(target_os = "linux")]
async fn read(session: &Session, asked: Map) -> Result<Vec<Value>, Failed> {
    let program = crate::python::interpreter(session.app.settings()).map_err(|error| {
        let failed = Failed::configuration(error.text);
        match error.hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    })?;
    child::read(&program, asked).await
}

/// There are no Python applications here.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as where there are applications")]
fn own_entries(_session: &Session) -> Result<BTreeMap<String, Entry>, Failed> {
    Ok(BTreeMap::new())
}

#[cfg(not(target_os = "linux"))]
fn application(_session: &Session) -> Option<&str> {
    None
}

#[cfg(not(target_os = "linux"))]
async fn read(_session: &Session, _asked: Map) -> Result<Vec<Value>, Failed> {
    Err(Failed::usage("what Python has pickled is read on Linux only")
        .hint("import it there, then `celeriac schedule export`"))
}

/// Reads which task a function is.
fn names_of(file: &Path) -> Result<BTreeMap<String, String>, Failed> {
    let wrong = |text: String| Failed::usage(format!("--tasks {}: {text}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > NAMES_BYTES_MAX {
        return Err(wrong(format!("it has {size} bytes, at most {NAMES_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    names_in(&text).map_err(|text| {
        wrong(text).hint("write a line \"module:function\" = \"task.name\" for each function")
    })
}

/// The names in a text: an object of JSON, or a table of TOML.
fn names_in(text: &str) -> Result<BTreeMap<String, String>, String> {
    if !text.trim_start().starts_with('{') {
        let read: Result<BTreeMap<String, String>, _> = toml::from_str(text);
        return read.map_err(|error| error.to_string());
    }
    let value = Value::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    let fields = value.as_object().ok_or("it is no object")?;
    let name = |(function, task): (&str, &Value)| match task.as_str() {
        Some(task) => Ok((function.to_owned(), task.to_owned())),
        None => Err(format!("{function}: a task's name is a text, not {}", task.describe())),
    };
    fields.iter().map(|(function, task)| name((function, task))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_toml_or_json() {
        let toml = names_in("\"jobs:collect\" = \"jobs.collect\"\n").unwrap();
        assert_eq!(toml["jobs:collect"], "jobs.collect");
        assert_eq!(names_in("{\"jobs:collect\": \"jobs.collect\"}").unwrap(), toml);
        assert!(names_in("{\"jobs:collect\": 3}").unwrap_err().contains("jobs:collect"));
        assert!(names_in("\"jobs:collect\" = 3").is_err());
    }

    #[test]
    fn an_entry_of_beat_goes_on_after_its_latest_run() {
        let line = r#"{"name": "often", "zone": "Europe/Berlin", "last": "2026-11-21T10:00:00+01:00",
            "runs": 3, "entry": {"name": "often", "task": "t",
            "schedule": {"type": "crontab", "minute": "30", "hour": "10"}}}"#;
        let line = Value::parse(line.as_bytes()).unwrap();
        let found = entry_of_beat(&line, None, &BTreeMap::new()).unwrap();
        assert_eq!(found.past.due, Some("2026-11-21T09:30:00Z".parse().unwrap()));
        assert_eq!(found.past.runs, 3);
        let utc = entry_of_beat(&line, Some(&Zone::utc()), &BTreeMap::new()).unwrap();
        assert_eq!(utc.past.due, Some("2026-11-21T10:30:00Z".parse().unwrap()));
    }

    #[test]
    #[cfg(feature = "redis")]
    fn an_entry_of_redbeat_goes_on_after_its_latest_run() {
        let definition = br#"{"task": "t", "schedule": {"__type__": "interval", "every": 60}}"#;
        let meta =
            br#"{"last_run_at": {"year": 2026, "month": 11, "day": 21}, "total_run_count": 3}"#;
        let (definition, meta) = (Some(definition.to_vec()), Some(meta.to_vec()));
        let kept = RedBeatEntry { name: "one".to_owned(), definition, meta, due: 1.0 };
        let found = entry_of_redbeat(&kept, &Zone::utc()).unwrap();
        assert_eq!(found.past.due, Some("2026-11-21T00:01:00Z".parse().unwrap()));
        assert_eq!(found.past.runs, 3);
        let never = RedBeatEntry { due: -1.0, ..kept };
        assert!(entry_of_redbeat(&never, &Zone::utc()).unwrap_err().0.contains("never"));
    }

    #[test]
    fn an_entry_of_the_application_stays_its_own() {
        let line = r#"{"name": "own", "last": "2026-11-21T10:00:00Z", "runs": 1, "entry": {"name": "own",
            "task": "old", "schedule": {"type": "interval", "every": 60}}}"#;
        let line = Value::parse(line.as_bytes()).unwrap();
        let schedule =
            r#"{"name": "own", "task": "new", "schedule": {"type": "interval", "every": 90}}"#;
        let own = Entry::from_value(&Value::parse(schedule.as_bytes()).unwrap(), &Zone::utc());
        let own = BTreeMap::from([("own".to_owned(), own.unwrap())]);
        let found = entry_of_beat(&line, None, &own).unwrap();
        assert_eq!(found.entry.task, "new");
        assert_eq!(found.entry.source.kind, SourceKind::App);
        assert_eq!(found.past.due, Some("2026-11-21T10:01:30Z".parse().unwrap()));
        let definition = Value::Object(found.entry.definition());
        assert_eq!(found.entry.source.original.as_deref(), Some(&definition));
    }
}
