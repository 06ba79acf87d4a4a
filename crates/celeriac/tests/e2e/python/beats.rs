//! A Celery app's `beat_schedule`, sent by our beat and run by stock Celery.

use super::Scene;
use super::settings::celeriac;
use crate::kit::{PATIENCE, command, until};
use celeriac_testkit::process::Process;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::Value;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;

const SCHEDULE: &str = r#"
from datetime import timedelta
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule, solar

class Odd(schedule):
    pass

app.conf.timezone = "Europe/Berlin"
app.conf.beat_schedule = {
    "often": {"task": "proj.add", "schedule": 1.0, "args": (2, 3), "options": {"expires": 30.0}},
    "delta": {"task": "proj.add", "schedule": timedelta(hours=6), "relative": True},
    "cron": {"task": "proj.add", "schedule": crontab(minute="*/15", hour=[8, 12], day_of_week="mon-fri")},
    "sun": {"task": "proj.add", "schedule": solar("sunset", 52.5, 13.4)},
    "lazy": {"task": "proj.add", "schedule": 60, "args": [BeatLazyFunc(list)]},
    "odd": {"task": "proj.add", "schedule": Odd(60)},
    "nobody": {"schedule": 60},
}

@app.task(expires=99, queue="celery")
def add(x, y):
    return x + y

@app.on_after_configure.connect
def more(sender, **kwargs):
    sender.add_periodic_task(3600.0, add.s(4, 5), name="handler")
"#;

/// Starts our beat of the app.
fn beat(scene: &Scene) -> Process {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), scene.app.folder());
    command.args(["--python".as_ref(), scene.app.python.program().as_os_str()]);
    command.env("URL", scene.redis.url()).args(["-A", "proj", "beat", "--lease", "2s"]);
    Process::spawn(&mut command, scene.app.folder().join("beat.log"))
}

async fn listed(scene: &Scene) -> BTreeMap<String, Value> {
    let url = scene.redis.url();
    let list = ["--json", "schedule", "list"];
    let ran = celeriac(&scene.app, &[("URL", &url)], &list).await.exits(0);
    let list = Value::parse(ran.stdout.trim().as_bytes()).unwrap();
    let list = list.as_array().unwrap().iter();
    list.map(|one| (one.get("name").unwrap().as_str().unwrap().to_owned(), one.clone())).collect()
}

async fn an_apps_entries_are_sent(version: &str) {
    let python = celery_or_skip!(version);
    // The library for the sun is only with the newest Celery.
    let sun = version == "5.7";
    let lines = SCHEDULE.lines().filter(|line| sun || !line.contains("solar("));
    let scene = Scene::new(redis_or_skip!(), &python, &lines.collect::<Vec<_>>().join("\n"));
    let mut beat = beat(&scene);
    until("an entry is sent", PATIENCE, async || {
        beat.log().contains("Scheduler: Sending due task often (proj.add)").then_some(())
    })
    .await;
    let entries = listed(&scene).await;
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    let all = ["cron", "delta", "handler", "often", "sun"];
    assert_eq!(names, if sun { &all[..] } else { &all[..4] });
    let field = |name: &str, field: &str| entries[name].get(field).unwrap().to_string();
    assert_eq!(field("often", "args"), "[2, 3]");
    // The task's own options, then those of the entry.
    assert!(
        field("often", "options").contains(r#""expires": 30.0"#),
        "{}",
        field("often", "options")
    );
    assert!(field("cron", "options").contains(r#""expires": 99"#), "{}", field("cron", "options"));
    assert_eq!(field("cron", "zone"), r#""Europe/Berlin""#);
    assert_eq!(field("handler", "args"), "[4, 5]");
    assert!(field("delta", "schedule").contains(r#""relative": true"#));
    assert!(!sun || field("sun", "sentence").contains("sunset"));
    for (name, why) in [
        ("lazy", "BeatLazyFunc"),
        ("odd", "which decides in Python"),
        ("nobody", "it names no task"),
    ] {
        let line =
            beat.log().lines().find(|line| line.contains(&format!("{name:?}"))).map(str::to_owned);
        assert!(line.as_ref().is_some_and(|line| line.contains(why)), "{name}: {line:?}");
    }
    // A stock worker runs what our beat has sent.
    let mut stock = scene.app.worker("stock", &["-P", "solo"]).await;
    stock.logs("succeeded in").await;
    stock.terminate().await;
    beat.signal(Signal::TERM);
    assert!(beat.ended_within(PATIENCE).await.success(), "{}", beat.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_an_app_are_sent_and_others_refused_with_the_reason() {
    // covers: S5-19, S5-24
    an_apps_entries_are_sent("5.7").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_an_older_celery_too() {
    an_apps_entries_are_sent("5.3").await;
}

const PINGED: &str = r#"
from celery.schedules import crontab

app.conf.beat_enable_remote_control = True
app.conf.beat_cron_starting_deadline = 90
app.conf.beat_schedule = {
    "cron": {"task": "proj.add", "schedule": crontab(minute="*/15")},
    "often": {"task": "proj.add", "schedule": 60.0},
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_celerys_beat_hold_for_ours() {
    let python = celery_or_skip!();
    let scene = Scene::new(redis_or_skip!(), &python, PINGED);
    let mut beat = beat(&scene);
    until("it leads", PATIENCE, async || beat.log().contains("this one leads").then_some(())).await;
    let node = format!("celerybeat@{}", rustix::system::uname().nodename().to_str().unwrap());
    let ping = ["inspect", "ping", "-d", &node];
    let answered = until("it answers a ping", PATIENCE, async || {
        let ended = scene.app.celery(&ping).await;
        ended.status.success().then_some(ended.stdout)
    })
    .await;
    assert!(answered.contains(&node) && answered.contains("pong"), "{answered}");
    // Whatever else is asked is for workers.
    let active = scene.app.celery(&["inspect", "active", "-t", "1"]).await;
    assert!(!active.status.success() && !active.stdout.contains("celerybeat"), "{}", active.stdout);

    let entries = listed(&scene).await;
    let field = |name: &str, field: &str| entries[name].get(field).unwrap().to_string();
    assert_eq!(
        (field("cron", "misfire"), field("cron", "misfire_grace")),
        ("\"skip\"".into(), "90.0".into())
    );
    assert_eq!(field("often", "misfire"), "\"once\"");
    beat.signal(Signal::STOP);
    assert!(!scene.app.celery(&ping).await.status.success(), "nobody is there");
    beat.signal(Signal::CONT);
    beat.signal(Signal::TERM);
    assert!(beat.ended_within(PATIENCE).await.success(), "{}", beat.log());
}

const ROUTED: &str = r#"
from kombu import Exchange, Queue

def by_tenant(name, args, kwargs, options, task=None, **kw):
    if name == "proj.add":
        return {"queue": "of_" + kwargs["tenant"]}

app.conf.task_queues = [
    Queue("celery"), Queue("topicq", Exchange("topical", type="topic"), routing_key="a.#"), Queue("slow"),
]
app.conf.task_routes = ([
    ("topic.keyed", {"queue": "topicq", "routing_key": "a.b.c"}), ("topic.*", {"queue": "topicq"}),
    ("slow.*", {"queue": "slow", "priority": 7}),
], by_tenant)
app.conf.task_serializer = "pickle"
app.conf.accept_content = ["json", "pickle"]

def every(task, **more):
    return {"task": task, "schedule": 3600.0, **more}

app.conf.beat_schedule = {
    "keyed": every("topic.keyed"),
    "named": every("topic.other", options={"routing_key": "a.x"}),
    "plain": every("topic.other"),
    "slow": every("slow.one"),
    "slower": every("slow.one", options={"queue": "celery", "priority": 1}),
    "usual": every("proj.other"),
    "tenant": every("proj.add", kwargs={"tenant": "acme"}),
    "nobody": every("proj.add"),
}

@app.task(priority=4, expires=50)
def add(tenant):
    return tenant

@app.task(serializer="pickle")
def other():
    return os.getpid()
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_where_celery_would_send_them() {
    let python = celery_or_skip!();
    let scene = Scene::new(redis_or_skip!(), &python, ROUTED);
    let mut beat = beat(&scene);
    until("it leads", PATIENCE, async || beat.log().contains("this one leads").then_some(())).await;
    let entries = listed(&scene).await;
    let option = |entry: &str, option: &str| {
        let found = entries[entry].get("options").unwrap().get(option);
        found.map_or("-".to_owned(), |value| value.to_string().replace('"', ""))
    };
    // What Celery 5.7 publishes with: exchange, key, or the queue of an unnamed exchange.
    let way = |entry: &str| ["exchange", "routing_key", "queue"].map(|one| option(entry, one));
    assert_eq!(way("keyed"), ["topical", "a.b.c", "-"]);
    assert_eq!(way("named"), ["topical", "a.x", "-"]);
    assert_eq!(way("plain"), ["topical", "a.#", "-"]);
    assert_eq!(way("slow"), ["-", "-", "slow"]);
    assert_eq!(option("slow", "priority"), "7");
    assert_eq!(way("slower"), ["-", "-", "celery"]);
    assert_eq!(option("slower", "priority"), "1");
    assert_eq!(way("usual"), ["-", "-", "-"]);
    assert_eq!(way("tenant"), ["-", "-", "of_acme"]);
    assert!(!entries.contains_key("nobody"));
    assert!(beat.log().contains("its route: KeyError: 'tenant'"), "{}", beat.log());

    // An entry of the store has what its task says, where its router needs arguments; it is sent as JSON,
    // which these workers take.
    let url = scene.redis.url();
    let add = [
        "schedule",
        "add",
        "mine",
        "--task",
        "proj.add",
        "-k",
        r#"{"tenant": 1}"#,
        "--every",
        "1s",
    ];
    celeriac(&scene.app, &[("URL", &url)], &add).await.exits(0);
    until("it waits in its queue", PATIENCE, async || {
        // Priority 4 is in the list of 3.
        (scene.redis.cli(&["LLEN", "celery\u{6}\u{16}3"]).await.int() > 0).then_some(())
    })
    .await;
    let ran = celeriac(&scene.app, &[("URL", &url)], &["schedule", "run", "mine"]).await.exits(0);
    let held = scene.redis.cli(&["LRANGE", "celery\u{6}\u{16}3", "0", "-1"]).await;
    assert!(held.texts().iter().any(|one| one.contains(ran.stdout.trim())), "run by hand as well");
    beat.signal(Signal::TERM);
    assert!(beat.ended_within(PATIENCE).await.success(), "{}", beat.log());
}
