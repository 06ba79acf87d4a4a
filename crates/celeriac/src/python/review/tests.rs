use super::*;
use crate::config::Inputs;
use celeriac_wire::{Map, from_value};
use std::path::PathBuf;

/// What an app with these settings says; `unknown` are those that its Celery does not know.
pub(in crate::python) fn hello(settings: &str, unknown: &str) -> Hello {
    let settings = Value::parse(settings.as_bytes()).unwrap();
    let unknown = Value::parse(unknown.as_bytes()).unwrap();
    let changed: Value = settings.as_object().unwrap().keys().collect();
    let text = |text: &str| Value::from(text);
    let empty = || Value::Array(Vec::new());
    let members = Map::from([
        ("protocol", Value::from(1)),
        ("pid", Value::from(1)),
        ("python", text("3.11")),
        ("celery", text("5.3.4")),
        ("kombu", text("5.3.7")),
        ("app", text("proj")),
        ("hostname", text("w@h")),
        ("threads", empty()),
        ("backend", Value::Object(Map::default())),
        ("queues", empty()),
        ("settings", settings),
        ("changed", changed),
        ("unknown", unknown),
        ("tasks", Value::Object(Map::default())),
        ("receivers", empty()),
        ("steps", empty()),
    ]);
    from_value(Value::Object(members)).unwrap()
}

fn settings(file: &str) -> Settings {
    let file = Some((PathBuf::from("celeriac.toml"), file.to_owned()));
    Settings::resolve(Inputs { file, app: Some(Vec::new()), ..Inputs::default() }).unwrap()
}

#[test]
fn a_worker_does_not_start_with_what_it_cannot_keep() {
    for (app, expected) in [
        (r#"{"worker_pool": "eventlet"}"#, "worker_pool is eventlet: there is no pool eventlet"),
        (r#"{"worker_pool": "my.pool:Pool"}"#, "worker_pool is my.pool:Pool"),
        (r#"{"worker_pool_start_method": "forkserver"}"#, "expected fork or spawn"),
        (r#"{"worker_consumer": "my:Consumer"}"#, "worker_consumer is my:Consumer"),
        (r#"{"worker_consumer": {"repr": "<class 'my.Consumer'>"}}"#, "<class 'my.Consumer'>"),
        (r#"{"broker_transport_options": {"sep": ":"}}"#, r#"sep is ":", and the worker"#),
        (r#"{"broker_transport_options": {"priority_steps": [0, 5]}}"#, "priority_steps is [0, 5]"),
    ] {
        let found = refusals(&hello(app, "{}"), None);
        assert_eq!(found.len(), 1, "{app}: {found:?}");
        assert!(found[0].text.contains(expected), "{app}: {found:?}");
    }
    for app in [
        r#"{"worker_pool": "prefork", "worker_pool_start_method": "fork"}"#,
        r#"{"worker_pool": "solo", "worker_consumer": "celery.worker.consumer:Consumer"}"#,
        r#"{"broker_transport_options": {"priority_steps": [0, 3, 6, 9], "sep": "\u0006\u0016"}}"#,
    ] {
        assert_eq!(refusals(&hello(app, "{}"), None), [], "{app}");
    }
    // The command line has the say.
    assert_eq!(refusals(&hello(r#"{"worker_pool": "eventlet"}"#, "{}"), Some("prefork")), []);
}

#[test]
fn what_has_no_effect_is_said_once() {
    let app = r#"{"worker_prefetch_multiplier": 1, "worker_lost_wait": 10.0, "task_acks_late": true,
        "broker_heartbeat": 0, "broker_transport_options": {"fanout_prefix": true}}"#;
    let unknown = r#"{"task_ack_late": true, "result_compression": "gzip", "task_retry_backoff": true,
        "task_mine": 1, "project": "x", "redis_client_name": "x", "CELERY_BROKER_URL": "x",
        "CELERYD_CONCURENCY": 3}"#;
    let told = warnings(&hello(app, unknown));
    let expected = [
        "worker_prefetch_multiplier has no effect here: what the worker fetches it runs",
        "broker_transport_options: fanout_prefix has no effect",
        "task_ack_late has no effect: Celery has no such setting; did you mean task_acks_late?",
        "result_compression has no effect: Celery 5.3.4 does not know it, later ones do",
        "task_mine has no effect: Celery has no such setting",
        "CELERY_BROKER_URL has no effect: it has to be broker_url, or `namespace=\"CELERY\"`",
        "CELERYD_CONCURENCY has no effect: Celery has no such setting; did you mean CELERYD_CONCURRENCY?",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(&format!("the app's {expected}")), "{told}");
    }
}

#[test]
fn every_line_has_value_source_and_effect() {
    let app = r#"{"task_acks_late": true, "task_time_limit": 30, "worker_pool": "eventlet",
        "worker_prefetch_multiplier": 1, "redis_password": "secret", "task_default_queue": "jobs",
        "task_default_routing_key": "jobs", "result_backend": "redis://:secret@h/0",
        "broker_transport_options": {"sentinel_kwargs": {"password": "secret"}, "visibility_timeout": 9},
        "database_engine_options": {"repr": "Engine('postgresql://u:secret@h')"}}"#;
    let hello = hello(app, r#"{"task_retry_backoff": true, "task_ack_late": 1}"#);
    let file = "[override]\ntask_acks_late = true\ntime_limit = 30\n";
    let rows = rows(&hello, &settings(file), false);
    let row = |key: &str| rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("{key}"));
    for (key, value, source, acts) in [
        ("task_acks_late", "true", "celeriac.toml [override], line 2", "celery"),
        ("task_time_limit", "30", "celeriac.toml [override], line 3", "worker"),
        ("task_default_queue", "jobs", "the application", "worker"),
        ("task_default_routing_key", "jobs", "the application", "worker"),
        ("worker_pool", "eventlet", "the application", "refused"),
        ("worker_prefetch_multiplier", "1", "the application", "no effect"),
        ("redis_password", "**", "the application", "celery"),
        ("result_backend", "redis://:**@h/0", "the application", "worker"),
        ("task_retry_backoff", "true", "the application", "celeriac"),
        ("task_ack_late", "1", "the application", "unknown"),
        ("database_engine_options", "**", "the application", "celery"),
    ] {
        let row = row(key);
        assert_eq!(
            (row.value.as_str(), row.source.as_str(), row.acts),
            (value, source, acts),
            "{key}"
        );
    }
    let options = row("broker_transport_options").value.as_str();
    assert_eq!(options, r#"{"sentinel_kwargs": {"password": "**"}, "visibility_timeout": 9}"#);
    assert!(row("worker_pool").effect.starts_with("refused: "), "{:?}", row("worker_pool"));
    assert!(row("worker_prefetch_multiplier").effect.starts_with("no effect: "));
    assert!(rows.iter().all(|row| !format!("{row:?}").contains("secret")), "{rows:#?}");
}

#[test]
fn the_first_connection_is_tried_as_often_as_the_app_says() {
    for (app, expected) in [
        (r#"{"broker_connection_max_retries": 100, "broker_connection_retry": true}"#, Some(100)),
        (r#"{"broker_connection_max_retries": null}"#, None),
        (r#"{"broker_connection_max_retries": 0}"#, None),
        (r#"{"broker_connection_retry": false, "broker_connection_max_retries": 9}"#, Some(1)),
        (r#"{"broker_connection_retry": false, "broker_connection_retry_on_startup": true}"#, None),
        (r#"{"broker_connection_retry_on_startup": false}"#, Some(1)),
    ] {
        assert_eq!(connection_tries(&hello(app, "{}")), expected, "{app}");
    }
}
