//! What an app's settings mean for its worker, and what the worker's mean for the app.

use crate::config::{Setting, Settings, celery};
use celeriac_runtime::pool::python::Hello;
use celeriac_wire::{Map, Value};
use std::time::Duration;

/// The app's own settings by our names, with Celery's.
pub(crate) fn app_settings(hello: &Hello) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    let urls = [("broker_url", &hello.broker_url), ("result_backend", &hello.result_backend)];
    for (name, url) in urls {
        found.extend(url.clone().map(|url| (name, url, name.to_owned())));
    }
    for name in &hello.changed {
        let ours = hello.settings.get(name).and_then(|value| celery::as_ours(name, value));
        found.extend(ours.map(|(ours, text)| (ours, text, name.clone())));
    }
    found
}

/// Whether a setting of the app has this value.
pub(super) fn has(hello: &Hello, name: &str, value: impl Into<Value>) -> bool {
    hello.settings.get(name) == Some(&value.into())
}

/// The settings of Celery that overrule the app's, as Python has them.
pub(super) fn overruled(settings: &Settings) -> Map {
    fn seconds(span: Option<Duration>) -> Value {
        span.map_or(Value::Null, |span| Value::from(span.as_secs_f64()))
    }
    fn text(text: &str) -> Value {
        if text.is_empty() { Value::Null } else { Value::from(text) }
    }
    fn add<T>(map: &mut Map, name: &str, setting: &Setting<T>, value: impl Fn(&T) -> Value) {
        if setting.source.overrules_app() {
            map.insert(name, value(&setting.value));
        }
    }
    let mut map = Map::default();
    let one = &mut map;
    add(one, "task_default_queue", &settings.default_queue, |name| text(name));
    add(one, "task_default_exchange", &settings.default_exchange, |name| text(name));
    add(one, "task_default_exchange_type", &settings.default_exchange_type, |kind| {
        Value::from(kind.as_str())
    });
    add(one, "task_default_routing_key", &settings.default_routing_key, |key| text(key));
    add(one, "task_soft_time_limit", &settings.soft_time_limit, |span| seconds(*span));
    add(one, "task_time_limit", &settings.time_limit, |span| seconds(*span));
    add(one, "worker_max_tasks_per_child", &settings.max_tasks_per_child, |count| {
        Value::from(*count)
    });
    add(one, "worker_max_memory_per_child", &settings.max_memory_per_child, |bytes| {
        Value::from(bytes.map(|bytes| bytes / 1024))
    });
    add(one, "task_send_sent_event", &settings.sent_events, |on| Value::from(*on));
    add(one, "worker_enable_remote_control", &settings.remote_control, |on| Value::from(*on));
    add(one, "result_expires", &settings.result_expires, |span| seconds(*span));
    add(one, "result_extended", &settings.result_extended, |on| Value::from(*on));
    // What was written under Celery's own name is closest to what was meant.
    for (name, value, _) in settings.celery_overrides() {
        map.insert(*name, value.clone());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;
    use crate::python::review::tests::hello;
    use std::path::PathBuf;

    #[test]
    fn the_apps_settings_have_our_names() {
        let found = |settings: &str| {
            let found = app_settings(&hello(settings, "{}"));
            found.into_iter().map(|(key, text, _)| format!("{key}={text}")).collect::<Vec<_>>()
        };
        let app = r#"{"task_time_limit": 9, "task_acks_late": true, "worker_pool": "prefork"}"#;
        assert_eq!(found(app), ["time_limit=9", "python_pool=prefork"]);
    }

    #[test]
    fn only_what_is_stronger_than_the_app_reaches_it() {
        let file = "concurrency = 3\ntime_limit = 7\n[override]\ntask_acks_late = true\n\
                    task_soft_time_limit = 5\nmax_memory_per_child = \"12MiB\"\n\
                    task_annotations = { add = { rate_limit = \"1/s\" } }\n";
        let settings = Settings::resolve(Inputs {
            file: Some((PathBuf::from("celeriac.toml"), file.to_owned())),
            env: vec![
                ("CELERY_TASK_SERIALIZER".to_owned(), "pickle".to_owned()),
                ("CELERY_ACCEPT_CONTENT".to_owned(), "json, pickle".to_owned()),
            ],
            app: Some(Vec::new()),
            ..Inputs::default()
        })
        .unwrap();
        let expected = r#"{"task_soft_time_limit":5,"worker_max_memory_per_child":12288,
            "task_serializer":"pickle","accept_content":["json","pickle"],
            "task_acks_late":true,"task_annotations":{"add":{"rate_limit":"1/s"}}}"#;
        let expected = Value::parse(expected.as_bytes()).unwrap();
        assert_eq!(Value::Object(overruled(&settings)), expected);
        assert_eq!(settings.soft_time_limit.value, Some(Duration::from_secs(5)));
        assert_eq!(settings.soft_time_limit.source.to_string(), "celeriac.toml [override], line 5");
        assert!(settings.warnings().is_empty(), "{:?}", settings.warnings());
    }
}
