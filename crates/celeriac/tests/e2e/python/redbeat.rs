//! RedBeat's keys, shared by our beat and a stock RedBeat 2.4 that take turns.
//!
//! `CELERIAC_REDBEAT_ROUNDS=20` is the run of the promise; the default is made for CI.

use super::Scene;
use super::settings::celeriac;
use crate::kit::{PATIENCE, command, until};
use celeriac_testkit::process::Process;
use celeriac_testkit::{environment_or_skip, redis_or_skip};
use celeriac_wire::Value;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// A task that notes that it ran, and an entry of the application itself. RedBeat's lock lasts 3 seconds.
const APP: &str = r#"
import time
from celery import signals
from redis import Redis
from redbeat import RedBeatSchedulerEntry as Entry
from celery.schedules import crontab, schedule

app.conf.redbeat_redis_url = os.environ["URL"]
app.conf.redbeat_lock_timeout = 3
app.conf.beat_scheduler = "redbeat.RedBeatScheduler"
app.conf.beat_max_loop_interval = 1
app.conf.timezone = "Europe/Berlin"
app.conf.task_routes = {"proj.tick": {"queue": "ticks"}}
app.conf.beat_schedule = {"static": {"task": "proj.tick", "schedule": 1.0, "args": ["static"]}}

@app.task(priority=3)
def tick(name):
    Redis.from_url(os.environ["URL"]).rpush("ran:" + name, time.time())
"#;

/// Starts a beat of the application: ours, or the stock RedBeat.
fn beat(scene: &Scene, ours: bool, round: usize) -> Process {
    let app = &scene.app;
    let who = if ours { "ours" } else { "stock" };
    let log = app.folder().join(format!("{who}-{round}.log"));
    if !ours {
        let mut command = app.command();
        command.args(["-m", "celery", "-A", "proj", "beat", "-l", "INFO"]);
        return Process::spawn(&mut command, log);
    }
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), app.folder());
    command.args(["--python".as_ref(), app.python.program().as_os_str()]);
    command.env("URL", scene.redis.url()).args(["-A", "proj", "beat", "--lease", "2s"]);
    Process::spawn(&mut command, log)
}

/// How often a task has run for an entry, by the clock of each run.
async fn runs(scene: &Scene, name: &str) -> Vec<f64> {
    let list = scene.redis.cli(&["LRANGE", &format!("ran:{name}"), "0", "-1"]).await;
    list.texts().iter().map(|text| text.parse().unwrap()).collect()
}

/// Waits until an entry has run so often again.
async fn runs_on(scene: &Scene, name: &str, more: usize) {
    let before = runs(scene, name).await.len();
    until(&format!("{name} runs {more} times more"), PATIENCE, async || {
        (runs(scene, name).await.len() >= before + more).then_some(())
    })
    .await;
}

/// What RedBeat reads of an entry: the latest run, in seconds, and how many there were.
async fn meta(scene: &Scene, name: &str) -> (f64, u64) {
    let read = format!(
        "from proj import app, Entry\n\
         one = Entry.from_key('redbeat:{name}', app=app)\n\
         print(one.last_run_at.timestamp(), one.total_run_count)"
    );
    let said = scene.app.script(&read).await;
    let (last, count) = said.trim().split_once(' ').unwrap();
    (last.parse().unwrap(), count.parse().unwrap())
}

/// The text of `celeriac --json schedule …`.
async fn told(scene: &Scene, arguments: &[&str]) -> Value {
    let url = scene.redis.url();
    let arguments = [&["--json", "schedule"], arguments].concat();
    let ran = celeriac(&scene.app, &[("URL", &url)], &arguments).await.exits(0);
    Value::parse(ran.stdout.trim().as_bytes()).unwrap()
}

fn rounds() -> usize {
    let given = std::env::var_os("CELERIAC_REDBEAT_ROUNDS");
    given.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_redbeat_and_our_beat_take_turns() {
    let python = environment_or_skip!("redbeat-5.7");
    let scene = Scene::new(redis_or_skip!(), &python, APP);
    scene.app.script("from proj import *; Entry('made', 'proj.tick', schedule(1), args=['made'], app=app).save()").await;
    let start = ["static", "made"];
    let mut worker = scene.app.worker("stock", &["-P", "threads", "-c", "4", "-Q", "ticks"]).await;
    let mut stock = beat(&scene, false, 0);
    runs_on(&scene, "static", 2).await;
    let (begun, before) = meta(&scene, "made").await;
    let ran_before = runs(&scene, "made").await.len();

    let mut ours = beat(&scene, true, 0);
    until("ours waits for RedBeat's lock", PATIENCE, async || {
        ours.log().contains("another scheduler has RedBeat's lock").then_some(())
    })
    .await;
    for round in 1..=rounds() {
        // The stock one gives the lock back.
        stock.signal(Signal::TERM);
        stock.ended_within(PATIENCE).await;
        runs_on(&scene, "made", 2).await;
        stock = beat(&scene, false, round);
        runs_on(&scene, "static", 1).await;
        assert!(!stock.log().contains("Acquired lock"), "{}", stock.log());
        // Ours is killed; the stock one asks for the lock each second.
        ours.kill().await;
        until("the stock one leads", PATIENCE, async || {
            stock.log().contains("Acquired lock").then_some(())
        })
        .await;
        runs_on(&scene, "made", 1).await;
        // The next of ours leads our beats, and waits again.
        ours = beat(&scene, true, round);
        until("ours waits again", PATIENCE, async || {
            ours.log().contains("another scheduler has RedBeat's lock").then_some(())
        })
        .await;
    }
    stock.signal(Signal::TERM);
    stock.ended_within(PATIENCE).await;
    runs_on(&scene, "made", 2).await;

    // Nobody sends any more: what was sent is what RedBeat counts, and it runs on from there.
    ours.signal(Signal::TERM);
    assert!(ours.ended_within(PATIENCE).await.success(), "{}", ours.log());
    assert!(scene.redis.cli(&["GET", "redbeat::lock"]).await.is_nil());
    for name in start {
        let (_, count) = meta(&scene, name).await;
        let all = until("what was sent has run", PATIENCE, async || {
            let all = runs(&scene, name).await;
            (all.len() as u64 >= count).then_some(all)
        })
        .await;
        assert_eq!(all.len() as u64, count, "{name}: each time once");
        let gap = all.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(gap < 10.0, "{name}: {gap} s between two runs");
    }
    // Each run moves the time from which RedBeat counts by its second or more.
    let (ended, after) = meta(&scene, "made").await;
    let (sent, seconds) = ((after - before) as f64, ended - begun);
    assert!(sent <= seconds + 0.1, "{sent} runs in {seconds} s");
    println!("{} rounds: {sent} runs in {seconds:.1} s, {ran_before} before", rounds());
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_use_redbeats_entries_go_on() {
    let python = environment_or_skip!("redbeat-5.7");
    let scene = Scene::new(redis_or_skip!(), &python, APP);
    let mut ours = beat(&scene, true, 0);
    // The application's route and the task's own priority count, as with a stock RedBeat.
    until("a message waits in its queue", PATIENCE, async || {
        (scene.redis.cli(&["LLEN", "ticks\u{6}\u{16}3"]).await.int() > 0).then_some(())
    })
    .await;
    let mut worker = scene.app.worker("stock", &["-P", "threads", "-c", "4", "-Q", "ticks"]).await;
    runs_on(&scene, "static", 1).await;
    let saved = "from proj import *\n\
        Entry('made', 'proj.tick', schedule(1), args=['made'], app=app).save()\n\
        Entry('nightly', 'proj.tick', crontab(minute='30', hour='2'), args=['nightly'], app=app).save()";
    scene.app.script(saved).await;
    runs_on(&scene, "made", 2).await;
    let nightly = told(&scene, &["show", "nightly"]).await;
    let field = |value: &Value, name: &str| value.get(name).unwrap().as_str().unwrap().to_owned();
    assert_eq!(
        (field(&nightly, "source"), field(&nightly, "zone")),
        ("redbeat".into(), "Europe/Berlin".into())
    );
    assert_eq!(field(&nightly, "status"), "scheduled");

    // Paused here, seen there; changed there, acted on here.
    told(&scene, &["pause", "made"]).await;
    let read = "from proj import *; print(Entry.from_key('redbeat:made', app=app).enabled)";
    assert_eq!(scene.app.script(read).await.trim(), "False");
    let more = "from proj import *\n\
        one = Entry.from_key('redbeat:made', app=app)\n\
        one.enabled, one.args = True, ['changed']\n\
        one.save()";
    scene.app.script(more).await;
    runs_on(&scene, "changed", 1).await;
    scene.app.script("from proj import *; Entry.from_key('redbeat:made', app=app).delete()").await;
    let listed = told(&scene, &["list"]).await;
    let names = listed.as_array().unwrap().iter().map(|one| field(one, "name"));
    assert_eq!(names.collect::<Vec<_>>(), ["nightly", "static"]);
    let history = told(&scene, &["history", "made"]).await;
    assert!(history.as_array().unwrap().len() >= 3, "{history}");

    let view = told(&scene, &["redbeat"]).await;
    assert_eq!(
        (field(&view, "holder"), field(&view, "lock")),
        ("celeriac".into(), "redbeat::lock".into())
    );
    told(&scene, &["redbeat", "leave"]).await;
    let sent = runs(&scene, "static").await.len();
    let view = told(&scene, &["redbeat"]).await;
    assert_eq!(view.get("shared").and_then(Value::as_bool), Some(false));
    // What was on its way when it was left may still run; a stock RedBeat goes on at once.
    let mut stock = beat(&scene, false, 0);
    until("the stock one leads", PATIENCE, async || {
        stock.log().contains("Acquired lock").then_some(())
    })
    .await;
    runs_on(&scene, "static", 2).await;
    let (_, count) = meta(&scene, "static").await;
    assert!(count as usize > sent, "{count} of {sent}");
    stock.signal(Signal::TERM);
    stock.ended_within(Duration::from_secs(20)).await;
    ours.signal(Signal::TERM);
    ours.ended_within(PATIENCE).await;
    worker.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_cannot_run_here_is_refused_with_what_to_do() {
    let python = environment_or_skip!("redbeat-5.7");
    let scene = Scene::new(redis_or_skip!(), &python, "");
    let url = scene.redis.url();
    let module = scene.app.folder().join("proj.py");
    let source = std::fs::read_to_string(&module).unwrap();
    let refused = async |more: &str, arguments: &[&str], words: &[&str]| {
        std::fs::write(&module, format!("{source}\n{more}\n")).unwrap();
        let ran = celeriac(&scene.app, &[("URL", &url)], arguments).await;
        assert_ne!(ran.code, 0, "{arguments:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{arguments:?}: {word:?} in {}", ran.stderr);
        }
    };
    let django = "app.conf.beat_scheduler = 'django_celery_beat.schedulers:DatabaseScheduler'";
    let words = ["beat_scheduler", "Django's database", "-S celeriac"];
    refused(django, &["beat"], &words).await;
    refused(django, &["worker", "-B"], &words).await;
    let lockless = "app.conf.beat_scheduler = 'redbeat.RedBeatScheduler'\n\
                    app.conf.redbeat_lock_key = None";
    refused(lockless, &["beat"], &["redbeat_lock_key is None"]).await;
    // Settings as RedBeat reads them, and a class instead of its name.
    let loud = "class Settings:\n    REDBEAT_REDIS_URL = os.environ['URL'].replace('/0', '/1')\n    \
                REDBEAT_KEY_PREFIX = 'dj:'\n    CELERY_TIMEZONE = 'Europe/Paris'\n\
                from redbeat import RedBeatScheduler\n\
                app.config_from_object(Settings, namespace='CELERY')\n\
                app.conf.broker_url = os.environ['URL']\n\
                app.conf.beat_scheduler = RedBeatScheduler";
    std::fs::write(&module, format!("{source}\n{loud}\n")).unwrap();
    let view = told(&scene, &["redbeat", "share"]).await;
    assert_eq!(view.get("prefix").and_then(Value::as_str), Some("dj:"), "{view}");
    assert_eq!(view.get("lock").and_then(Value::as_str), Some("dj::lock"));
    assert_eq!(view.get("database").and_then(Value::as_i64), Some(1));
    let mut ours = beat(&scene, true, 0);
    until("it has the lock", PATIENCE, async || {
        ours.log().contains("RedBeat's lock is ours").then_some(())
    })
    .await;
    ours.signal(Signal::TERM);
    assert!(ours.ended_within(PATIENCE).await.success(), "{}", ours.log());
    let file = scene.app.folder().join("queue.db");
    let sqlite = format!("sqlite://{}", file.display());
    let redbeat = ["-b", &sqlite, "beat", "-S", "redbeat.RedBeatScheduler"];
    refused("", &redbeat, &["RedBeat keeps its entries in Redis", "schedule import"]).await;
}
