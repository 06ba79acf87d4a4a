//! What a worker of an application tells of it: `conf`, `report`, `stats.broker`.

use crate::config::{SettingRow, Settings};
#[cfg(target_os = "linux")]
use celeriac_runtime::pool::python::Hello;
use celeriac_runtime::{ControlOptions, Limits};
use celeriac_wire::{Map, Value};
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::time::Duration;

/// How a worker with these settings shows itself to others.
pub(crate) fn control_options(settings: &Settings) -> ControlOptions {
    let (conf, conf_defaults) = conf(settings);
    ControlOptions {
        enabled: settings.remote_control.value,
        mingle: settings.mingle.value,
        heartbeat: settings.heartbeat_events.value,
        conf,
        conf_defaults,
        report: report(settings),
        broker: broker(&settings.broker_url.value),
        // What Python's time.timezone is made from.
        time_zone: TimeZone::system(),
        limits: Limits { soft: settings.soft_time_limit.value, hard: settings.time_limit.value },
        sent_events: settings.sent_events.value,
    }
}

/// Adds what a Celery app is set to, as its own worker would show it (celery 5.7.0 app/utils.py
/// `Settings.table`).
#[cfg(target_os = "linux")]
#[cfg_attr(
    not(all(target_os = "linux", feature = "cli")),
    allow(dead_code, reason = "apps are run by the command line, on Linux")
)]
pub(crate) fn with_app(mut control: ControlOptions, hello: &Hello) -> ControlOptions {
    for (name, value) in hello.settings.iter() {
        // What the worker itself acts on is known.
        if control.conf.contains_key(name) {
            continue;
        }
        let set = hello.changed.iter().any(|changed| changed == name);
        let place = if set { &mut control.conf } else { &mut control.conf_defaults };
        place.insert(name, censored(name, value));
    }
    control
}

/// A setting without secrets (celery 5.7.0 app/utils.py `filter_hidden_settings`).
#[cfg(target_os = "linux")]
fn censored(name: &str, value: &Value) -> Value {
    const HIDDEN: [&str; 9] = [
        "API",
        "TOKEN",
        "KEY",
        "SECRET",
        "PASS",
        "PROFANITIES_LIST",
        "SIGNATURE",
        "DATABASE",
        "BEAT_DBURI",
    ];
    let upper = name.to_ascii_uppercase();
    if HIDDEN.iter().any(|word| upper.contains(word)) {
        return Value::from("********");
    }
    match value {
        // What JSON has no word for.
        Value::Object(map) if map.len() == 1 && map.contains_key("repr") => {
            map.get("repr").cloned().unwrap_or_default()
        }
        Value::Object(map) => {
            let inner = map.iter().map(|(name, value)| (name.to_owned(), censored(name, value)));
            Value::Object(inner.collect())
        }
        Value::String(text) if text.contains("://") => Value::from(celeriac_stores::redacted(text)),
        other => other.clone(),
    }
}

/// The settings by Celery's names where it has them: first those that somebody has set.
fn conf(settings: &Settings) -> (Map, Map) {
    let (mut set, mut defaults) = (Map::new(), Map::new());
    for row in settings.rows() {
        let (name, value) = conf_entry(settings, &row);
        if row.source == "default" { &mut defaults } else { &mut set }.insert(name, value);
    }
    // A worker without it would not be reached by who asks.
    for name in ["result_backend", "broker_url"] {
        if let Some(value) = defaults.remove(name) {
            set.insert_at(0, name, value);
        }
    }
    (set, defaults)
}

/// A setting under Celery's name and with its type, or under our own name as people write it.
fn conf_entry(settings: &Settings, row: &SettingRow) -> (String, Value) {
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64()).into();
    let kib = |bytes: Option<u64>| bytes.map(|bytes| bytes / 1024).into();
    let (name, value) = match row.key {
        "broker_url" => (row.key, Value::from(row.value.as_str())),
        "result_backend" => {
            let url = celeriac_stores::redacted(&settings.result_backend.value);
            (row.key, Value::from(url))
        }
        "result_expires" => (row.key, seconds(settings.result_expires.value)),
        "result_extended" => (row.key, settings.result_extended.value.into()),
        "default_queue" => ("task_default_queue", Value::from(row.value.as_str())),
        "concurrency" => ("worker_concurrency", settings.concurrency.value.into()),
        "soft_time_limit" => ("task_soft_time_limit", seconds(settings.soft_time_limit.value)),
        "time_limit" => ("task_time_limit", seconds(settings.time_limit.value)),
        "pool" => ("worker_pool", Value::from(row.value.as_str())),
        "max_tasks_per_child" => {
            ("worker_max_tasks_per_child", settings.max_tasks_per_child.value.into())
        }
        "max_memory_per_child" => {
            ("worker_max_memory_per_child", kib(settings.max_memory_per_child.value))
        }
        "task_events" => ("worker_send_task_events", settings.task_events.value.into()),
        "sent_events" => ("task_send_sent_event", settings.sent_events.value.into()),
        "remote_control" => ("worker_enable_remote_control", settings.remote_control.value.into()),
        key => return (format!("celeriac_{key}"), Value::from(row.value.as_str())),
    };
    (name.to_owned(), value)
}

/// The text of `report`, in the layout of Celery's (celery 5.7.0 app/utils.py `bugreport`).
pub(crate) fn report(settings: &Settings) -> String {
    let url = celeriac_stores::redacted(&settings.broker_url.value);
    let results = celeriac_stores::redacted(&settings.result_backend.value);
    let transport = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let bits = usize::BITS;
    let kernel = rustix::system::uname();
    let mut text = format!(
        "\nsoftware -> celeriac:{version} (protocol of Celery 5.7)\n\
         platform -> system:{system} arch:{bits}bit, {arch}\n            kernel version:{release}\n\
         loader   -> celeriac\n\
         settings -> transport:{transport} results:{results}\n\n",
        version = env!("CARGO_PKG_VERSION"),
        system = kernel.sysname().to_string_lossy(),
        arch = std::env::consts::ARCH,
        release = kernel.release().to_string_lossy(),
    );
    for (name, value) in conf(settings).0.iter() {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{name}: {}", celeriac_wire::value_repr(value));
    }
    text
}

/// The parts of a URL as kombu's `Connection.info` shows them; null for what the store does not have.
fn broker(url: &str) -> Map {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('?').next().unwrap_or_default();
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (user.split(':').next().filter(|name| !name.is_empty()), place),
        None => (None, rest),
    };
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    // A store in a file has no host; its file stands where others name a virtual host.
    let served = !authority.is_empty() && matches!(scheme, "redis" | "rediss" | "amqp" | "amqps");
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if served => (Some(host), port.parse::<u16>().ok()),
        _ => (served.then_some(authority), None),
    };
    let virtual_host = if served { path } else { place };
    Map::from([
        ("hostname", Value::from(host)),
        ("userid", Value::from(user)),
        ("virtual_host", Value::from(virtual_host)),
        ("port", Value::from(port)),
        ("insist", Value::from(false)),
        ("ssl", Value::from(scheme == "rediss" || scheme == "amqps")),
        ("transport", Value::from(scheme)),
        ("connect_timeout", Value::Null),
        ("transport_options", Value::Object(Map::new())),
        ("login_method", Value::Null),
        ("uri_prefix", Value::Null),
        ("heartbeat", Value::Null),
        ("failover_strategy", Value::from("round-robin")),
        ("alternates", Value::Array(Vec::new())),
        ("credential_provider", Value::Null),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_shown_without_its_password() {
        let shown = |url: &str| {
            let broker = broker(url);
            assert_eq!(broker.len(), 15);
            let text = |name: &str| broker.get(name).unwrap().to_string();
            let names = ["transport", "hostname", "port", "virtual_host", "userid"];
            let texts = names.map(text);
            assert!(!texts.concat().contains("secret"));
            texts.join(" ")
        };
        for (url, expected) in [
            ("sqlite:///var/q.db", r#""sqlite" null null "/var/q.db" null"#),
            ("memory://", r#""memory" null null "" null"#),
            ("redis://:secret@h:7101/0", r#""redis" "h" 7101 "0" null"#),
            ("rediss://u:se@cret@h/2?x=secret", r#""rediss" "h" null "2" "u""#),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
