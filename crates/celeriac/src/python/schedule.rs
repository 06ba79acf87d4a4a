//! The entries of a Celery app.

use celeriac_core::beat::Entry;
use celeriac_core::schedule::Zone;
use celeriac_core::store::RedBeatKeys;
use celeriac_runtime::pool::python::{Hello, PythonRedBeat};
use celeriac_wire::codec::Serializer;
use celeriac_wire::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What an app gives a beat.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The entries.
    pub(crate) entries: Vec<Entry>,
    /// Those that only Celery's beat can send, by name, with the reason.
    pub(crate) refused: Vec<(String, String)>,
}

/// The entries of an app, on its clock.
pub(crate) fn schedule(hello: &Hello, zone: &Zone) -> Found {
    let mut found = Found::default();
    for one in &hello.schedule {
        match &one.refused {
            Some(why) => found.refused.push((one.name.clone(), why.clone())),
            None => match Entry::from_value(&one.entry, zone) {
                Ok(entry) => found.entries.push(entry),
                Err(error) => found.refused.push((one.name.clone(), error.to_string())),
            },
        }
    }
    found
}

/// The zone of an app's clock (its `timezone`; the machine's where `enable_utc` is off).
///
/// # Errors
/// It has none that is known here; the text says what to do.
pub(crate) fn zone(hello: &Hello) -> Result<Zone, String> {
    let name = hello.zone.as_deref().ok_or_else(|| {
        "the time zone of the app is the machine's, which has no name; set `timezone` in the app, or TZ"
            .to_owned()
    })?;
    Zone::named(name).map_err(|error| format!("the app's timezone: {error}"))
}

/// What runs of an app's tasks have beside what they are called with, by the tasks' names. A
/// serializer of Python's alone is left out where workers take JSON as well; elsewhere the call is refused.
pub(crate) fn task_options(hello: &Hello) -> BTreeMap<String, Map> {
    let takes = hello.settings.get("accept_content").and_then(Value::as_array).unwrap_or_default();
    let read = |name: &Value| name.as_str()?.parse::<Serializer>().ok();
    let takes_json = takes.iter().any(|one| read(one) == Some(Serializer::Json));
    let mut all = hello.task_options.clone();
    for options in all.values_mut() {
        if takes_json && options.get("serializer").is_some_and(|name| read(name).is_none()) {
            drop(options.remove("serializer"));
        }
    }
    all
}

/// The scheduler that an app names in `beat_scheduler`.
pub(crate) fn scheduler(hello: &Hello) -> Option<String> {
    let value = hello.settings.get("beat_scheduler")?;
    // A class instead of its name.
    let of_class = || value.get("repr")?.as_str()?.strip_prefix("<class '")?.strip_suffix("'>");
    value.as_str().or_else(of_class).map(str::to_owned)
}

/// Whether an app's beat answers pings, and how long ago it may have worked then, if the app says so
/// (celery/beat.py 5.7, `BeatPidbox`).
pub(crate) fn pings(hello: &Hello) -> (bool, Option<Duration>) {
    let setting = |name: &str| hello.settings.get(name);
    let on = setting("beat_enable_remote_control").and_then(Value::as_bool) == Some(true);
    let age = setting("beat_remote_control_max_tick_age").and_then(Value::as_f64);
    (on, age.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// Where RedBeat keeps an app's entries, by the app's settings (redbeat/schedulers.py 2.4, `RedBeatConfig`).
///
/// # Errors
/// RedBeat is told to take no lock.
pub(crate) fn redbeat_keys(hello: &Hello, zone: Zone) -> Result<RedBeatKeys, String> {
    let PythonRedBeat { prefix, lock, url, .. } = hello.redbeat.clone();
    let lock = lock.ok_or_else(|| {
        "redbeat_lock_key is None: without a lock nobody can tell who sends RedBeat's entries, and two \
         schedulers would send each of them; give it a name"
            .to_owned()
    })?;
    let url = url.filter(|url| Some(url) != hello.broker_url.as_ref());
    Ok(RedBeatKeys { url, prefix, lock, zone })
}
