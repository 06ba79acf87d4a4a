//! What the settings of a Celery app mean for its worker.

use celeriac_runtime::pool::python::Hello;
use celeriac_wire::Value;

/// Celery's names of the settings that the worker itself acts on, and ours.
const SETTINGS: [(&str, &str); 12] = [
    ("worker_pool", "python_pool"),
    ("task_default_queue", "default_queue"),
    ("worker_concurrency", "concurrency"),
    ("task_soft_time_limit", "soft_time_limit"),
    ("task_time_limit", "time_limit"),
    ("worker_max_tasks_per_child", "max_tasks_per_child"),
    ("worker_max_memory_per_child", "max_memory_per_child"),
    ("task_send_sent_event", "sent_events"),
    ("worker_enable_remote_control", "remote_control"),
    ("result_expires", "result_expires"),
    ("result_extended", "result_extended"),
    ("worker_soft_shutdown_timeout", "grace"),
];

/// The app's own settings by our names, with Celery's.
pub(crate) fn app_settings(hello: &Hello) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    let urls = [("broker_url", &hello.broker_url), ("result_backend", &hello.result_backend)];
    for (name, url) in urls {
        found.extend(url.clone().map(|url| (name, url, name.to_owned())));
    }
    for (theirs, ours) in SETTINGS {
        if !hello.changed.iter().any(|name| name == theirs) {
            continue;
        }
        let Some(text) = hello.settings.get(theirs).and_then(|value| text_of(theirs, value)) else {
            continue;
        };
        found.push((ours, text, theirs.to_owned()));
    }
    found
}

/// A value as our settings write it; `None` leaves the default.
fn text_of(name: &str, value: &Value) -> Option<String> {
    let text = match value {
        Value::Bool(on) => on.to_string(),
        Value::String(text) => text.clone(),
        Value::Number(_) => value.as_f64()?.to_string(),
        // Results that never expire; our word for it is 0.
        Value::Null if name == "result_expires" => "0".to_owned(),
        _ => return None,
    };
    match name {
        // Celery counts in KiB.
        "worker_max_memory_per_child" => Some(format!("{text}KiB")),
        // No time at all is Celery's default: it waits for ever.
        "worker_soft_shutdown_timeout" if text == "0" => None,
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_our_settings_write_them() {
        for (name, value, expected) in [
            ("worker_concurrency", Value::from(4), Some("4")),
            ("task_time_limit", Value::from(1.5), Some("1.5")),
            ("task_time_limit", Value::Null, None),
            ("task_default_queue", Value::from("jobs"), Some("jobs")),
            ("task_send_sent_event", Value::from(true), Some("true")),
            ("worker_max_memory_per_child", Value::from(12_000), Some("12000KiB")),
            ("worker_soft_shutdown_timeout", Value::from(0.0), None),
            ("worker_soft_shutdown_timeout", Value::from(10.0), Some("10")),
            ("result_expires", Value::from(3600.0), Some("3600")),
            ("result_expires", Value::Null, Some("0")),
        ] {
            assert_eq!(text_of(name, &value).as_deref(), expected, "{name} = {value:?}");
        }
    }
}
