//! What an app configures: shown, honoured, warned of or refused, and what the operator overrules.

use super::Scene;
use crate::kit::{Ran, command};
use celeriac_testkit::services::python::App as Celery;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs `celeriac -A proj …` in the folder of an app.
pub(super) async fn celeriac(app: &Celery, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), app.folder());
    command.args(["--python".as_ref(), app.python.program().as_os_str()]);
    command.envs(variables.iter().copied()).args(["-A", "proj"]).args(arguments);
    Ran::new(&mut command).await
}

/// The rows of `config show`, by setting.
async fn shown(app: &Celery, variables: &[(&str, &str)], more: &[&str]) -> BTreeMap<String, Value> {
    let arguments = [&["--json", "config", "show"], more].concat();
    let ran = celeriac(app, variables, &arguments).await.exits(0);
    let rows = Value::parse(ran.stdout.trim().as_bytes()).unwrap();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (member(row, "key").to_owned(), row.clone())).collect()
}

fn member<'a>(row: &'a Value, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("{row} has no {name}"))
}

/// Value, source and who acts on it.
fn said<'a>(rows: &'a BTreeMap<String, Value>, key: &str) -> [&'a str; 3] {
    let row = rows.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", rows.keys()));
    ["value", "source", "acts"].map(|name| member(row, name))
}

/// An app without a broker to be reached.
const ALONE: &str =
    "from celery import Celery\napp = Celery('proj', broker='redis://127.0.0.1:1/0')\n";

/// A setting that a Celery has and the table has not would be passed over without a word.
async fn every_setting_is_known(version: &str) {
    let python = celery_or_skip!(version);
    let app = python.app(ALONE, &[]);
    let names = app.script("from celery.app.defaults import DEFAULTS; print(*DEFAULTS)").await;
    let rows = shown(&app, &[], &["--all"]).await;
    let missing: Vec<&str> =
        names.split_whitespace().filter(|name| !rows.contains_key(*name)).collect();
    assert!(missing.is_empty(), "Celery {version} has {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_of_every_celery_is_known() {
    for version in ["5.3", "5.4", "5.5", "5.6", "5.7"] {
        every_setting_is_known(version).await;
    }
}

/// Settings of all kinds, as an app writes them, and how the installed Celery reads them back.
const MANY: &str = r"
from datetime import timedelta
app.conf.update(
    task_acks_late=True, task_time_limit=1800, task_soft_time_limit=1500.5, worker_concurrency=3,
    worker_prefetch_multiplier=1, result_expires=timedelta(hours=2), task_default_queue='default',
    task_routes={'proj.*': {'queue': 'high'}}, accept_content=['json'], timezone='Europe/Berlin',
    task_serializer='json', worker_max_tasks_per_child=50, worker_send_task_events=True,
    broker_transport_options={'visibility_timeout': 43200}, task_track_started=True,
)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_is_what_the_app_has() {
    // covers: S1-17
    let python = celery_or_skip!();
    let app = python.app(&format!("{ALONE}{MANY}"), &[]);
    let script = "import json\nfrom proj import app\nfor name in sorted(set(app.conf.table()) - {'deprecated_settings'}):\n    \
                  value = app.conf[name]\n    \
                  value = value.total_seconds() if hasattr(value, 'total_seconds') else value\n    \
                  print(name, value if isinstance(value, str) else json.dumps(value))\n";
    let rows = shown(&app, &[], &[]).await;
    // Ours have other names, and values in our own words.
    let ours = [
        ("broker_url", "redis://127.0.0.1:1/0?visibility_timeout=43200"),
        ("result_expires", "7200"),
    ];
    let mut count = 0;
    for line in app.script(script).await.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        let value = ours.iter().find(|(ours, _)| *ours == name).map_or(value, |(_, value)| value);
        assert_eq!(said(&rows, name)[0], value, "{name}");
        count += 1;
    }
    assert!(count > 14, "{count} settings");
    assert_eq!(said(&rows, "task_acks_late")[1..], ["the application", "celery"]);
    assert_eq!(said(&rows, "worker_prefetch_multiplier")[2], "no effect");
    assert_eq!(
        said(&rows, "concurrency"),
        ["3", "the application's worker_concurrency", "celeriac"]
    );
    assert!(!rows.contains_key("task_ignore_result"), "defaults are not shown");
}

/// Each value that a run has, by the way that it came.
const ASKS: &str = r"
@app.task(name='asks', bind=True)
def asks(self):
    conf = self.app.conf
    return [conf.task_soft_time_limit, conf.task_default_queue, conf.task_routes, self.acks_late,
            self.request.timelimit, conf.worker_redirect_stdouts_level, conf.result_extended]

@app.task(name='stays', time_limit=600)
def stays():
    import time
    time.sleep(30)

@app.task(name='sleeps')
def sleeps():
    import time
    time.sleep(30)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_overrules_the_app() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let more = format!(
        "import sys\napp.conf.update(task_default_queue='apps', task_acks_late=False,\n    \
         worker_redirect_stdouts_level='DEBUG', result_extended=True)\n\
         if 'worker' in sys.argv:\n    \
         # Celery 5.7 puts the limits of a sender into its messages, where they stay.\n    \
         app.conf.update(task_time_limit=60, task_soft_time_limit=50)\n{ASKS}"
    );
    let scene = Scene::new(redis, &python, &more);
    let file = "time_limit = 70\n\n[override]\ntime_limit = 1\ntask_soft_time_limit = 0.5\n\
                default_queue = \"operators\"\ntask_acks_late = true\n\
                task_routes = { \"other.*\" = { queue = \"q\" } }\n";
    std::fs::write(scene.app.folder().join("celeriac.toml"), file).unwrap();
    let url = scene.redis.url();
    let rows = shown(&scene.app, &[("URL", &url)], &[]).await;
    for (key, expected) in [
        ("time_limit", ["1", "celeriac.toml [override], line 4", "celeriac"]),
        ("task_time_limit", ["1.0", "celeriac.toml [override], line 4", "worker"]),
        ("soft_time_limit", ["0.5", "celeriac.toml [override], line 5", "celeriac"]),
        ("task_acks_late", ["true", "celeriac.toml [override], line 7", "celery"]),
        ("result_extended", ["true", "the application's result_extended", "celeriac"]),
        ("worker_redirect_stdouts_level", ["DEBUG", "the application", "celery"]),
    ] {
        assert_eq!(said(&rows, key), expected, "{key}");
    }
    let worker = scene.worker("ours", &["-c", "2"]).await;
    let asked = "from proj import app, asks, sleeps, stays\n\
                 print(asks.apply_async(queue='operators').get(timeout=20))\n\
                 for task in (sleeps, stays):\n    \
                     try:\n        task.apply_async(queue='operators').get(timeout=20)\n    \
                     except Exception as error:\n        print(type(error).__name__)\n";
    // `stays` has a hard limit of its own, and the soft one of the operator.
    let expected = "[0.5, 'operators', {'other.*': {'queue': 'q'}}, True, [None, None], 'DEBUG', True]\n\
                    SoftTimeLimitExceeded\nSoftTimeLimitExceeded\n";
    assert_eq!(scene.app.script(asked).await, expected, "its log:\n{}", worker.log());
}

/// A task that sends another: the second has to arrive where the worker reads.
const SENDS: &str = r"
@app.task(name='inner')
def inner(number):
    app.backend.client.rpush('done', number)

@app.task(name='outer')
def outer(number):
    inner.delay(number)
    return number
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prefix_of_the_broker_holds_for_worker_and_tasks() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let prefixed = "app.conf.broker_transport_options = {'global_keyprefix': 'pre:'}\n";
    let scene = Scene::new(redis, &python, &format!("{prefixed}{SENDS}"));
    let worker = scene.worker("ours", &["-c", "1"]).await;
    let call = "from proj import outer\nprint(outer.delay(1).get(timeout=20))";
    assert_eq!(scene.app.script(call).await, "1\n", "its log:\n{}", worker.log());
    worker.logs("Task inner").await;
    let mut client = scene.redis.connect().await;
    let done = client.call(&["BLPOP", "done", "20"]).await.unwrap();
    assert_eq!(done.texts()[1], "1", "its log:\n{}", worker.log());
    // Nothing was written beside the prefix: neither a queue nor what is ours.
    let names = client.call(&["KEYS", "*"]).await.unwrap();
    let stray: Vec<String> = names
        .texts()
        .into_iter()
        .filter(|name| !name.starts_with("pre:") && !name.starts_with("celery-task-meta-"))
        .collect();
    assert_eq!(stray, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_url_of_the_operator_reaches_the_tasks() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    // The app's own broker is nowhere; the operator's has another database and a prefix.
    let scene = Scene::new(
        redis,
        &python,
        &format!("app.conf.broker_url = 'redis://127.0.0.1:1/0'\n{SENDS}"),
    );
    let url = format!("{}?global_keyprefix=op%3A&visibility_timeout=60", scene.redis.url_of(3));
    let file = format!("[override]\nbroker_url = \"{url}\"\n");
    std::fs::write(scene.app.folder().join("celeriac.toml"), file).unwrap();
    let worker = scene.worker("ours", &["-c", "1"]).await;
    let own = scene.redis.url();
    celeriac(&scene.app, &[("URL", &own)], &["call", "outer", "--args", "[7]"]).await.exits(0);
    let mut client = scene.redis.connect().await;
    let done = client.call(&["BLPOP", "done", "20"]).await.unwrap();
    assert_eq!(done.texts()[1], "7", "its log:\n{}", worker.log());
}

/// Certificates in settings, not in the URL: the worker's store has them too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_the_app_are_the_workers() {
    let redis = redis_or_skip!(Redis::options().tls_of_known_clients());
    let python = celery_or_skip!();
    let (certificate, key) = redis.client_certificate();
    let (authority, url) = (redis.authority(), redis.tls_url());
    let more = format!(
        "import ssl\napp.conf.broker_url = app.conf.result_backend = '{}'\n\
         how = {{'ssl_cert_reqs': ssl.CERT_REQUIRED, 'ssl_ca_certs': '{}', 'ssl_certfile': '{}',\n    \
         'ssl_keyfile': '{}'}}\n\
         app.conf.update(broker_use_ssl=how, redis_backend_use_ssl=how)\n\
         @app.task(name='add')\ndef add(x, y):\n    return x + y\n",
        url,
        authority.display(),
        certificate.display(),
        key.display()
    );
    let scene = Scene::new(redis, &python, &more);
    let worker = scene.worker("ours", &["-c", "1"]).await;
    let call = "from proj import add\nprint(add.delay(2, 3).get(timeout=20))";
    assert_eq!(scene.app.script(call).await, "5\n", "its log:\n{}", worker.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_kept_is_refused_and_what_has_no_effect_is_said() {
    // covers: T-33 T-40 S5-18
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let app = python.app(&format!("{ALONE}app.conf.worker_pool = 'eventlet'\n"), &[]);
    let ran = celeriac(&app, &[], &["worker"]).await.exits(3);
    ran.warns(&[
        "the app's worker_pool is eventlet",
        "use gevent, threads or asyncio",
        "hint: change the setting, or give another pool with -P",
    ]);
    assert_eq!(said(&shown(&app, &[], &[]).await, "worker_pool")[2], "refused");
    // The names of T-33, which Celery ignores, and one that is written wrong.
    let more = "app.conf.update(task_default_retry_delay=1, task_retry_backoff=True, task_retry_backoff_max=1,\n    \
                task_retry_jitter=False, worker_prefetch_multiplier=1, task_ack_late=True)\n\
                @app.task(name='again', bind=True, autoretry_for=(ValueError,), max_retries=2)\n\
                def again(self):\n    if self.request.retries < 2:\n        raise ValueError('not yet')\n    \
                return self.request.retries\n";
    let scene = Scene::new(redis, &python, more);
    let url = scene.redis.url();
    let rows = shown(&scene.app, &[("URL", &url)], &[]).await;
    for name in [
        "task_default_retry_delay",
        "task_retry_backoff",
        "task_retry_backoff_max",
        "task_retry_jitter",
    ] {
        assert_eq!(said(&rows, name)[2], "celeriac", "{name}");
    }
    let worker = scene.worker("ours", &["-c", "1"]).await;
    let log = worker.log();
    assert_eq!(log.matches("worker_prefetch_multiplier has no effect here").count(), 1, "{log}");
    assert!(
        log.contains("task_ack_late has no effect: Celery has no such setting; did you mean"),
        "{log}"
    );
    // Without the settings the second try would come after three minutes.
    let call = "from proj import again\nprint(again.delay().get(timeout=20))";
    assert_eq!(scene.app.script(call).await, "2\n", "its log:\n{}", worker.log());
}
