//! `celeriac schedule import` from what other schedulers have really written.

use crate::kit::{PATIENCE, Place, command, until};
use celeriac_testkit::process::Process;
use celeriac_testkit::services::python::{App, Python};
use celeriac_testkit::{celery_or_skip, environment_or_skip, redis_or_skip};
use celeriac_wire::Value;
use rustix::process::Signal;
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_celeriac");

/// Runs `celeriac` in the folder of an app, on a store; its code, what it printed, and its errors.
async fn celeriac(app: &App, place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(Path::new(PROGRAM), app.folder());
    command.arg("--python").arg(app.python.program()).args(["--json", "-b", place.url()]);
    let output = command.args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The same for what has to succeed: the lines of its JSON, and its errors.
async fn told(app: &App, place: &Place, arguments: &[&str]) -> (Vec<Value>, String) {
    let (code, stdout, stderr) = celeriac(app, place, arguments).await;
    assert_eq!(code, 0, "{arguments:?}\n{stdout}\n{stderr}");
    let lines = stdout.lines().map(|line| Value::parse(line.as_bytes()).unwrap());
    (lines.collect(), stderr)
}

/// An entry of the store.
async fn entry(app: &App, place: &Place, name: &str) -> Value {
    told(app, place, &["schedule", "show", name]).await.0.remove(0)
}

fn text(value: &Value, field: &str) -> String {
    let found = value.get(field).unwrap_or(&Value::Null);
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}

fn runs(entry: &Value) -> u64 {
    entry.get("runs").and_then(Value::as_u64).unwrap()
}

/// Our beat sends an entry of the app that has run so often already.
async fn goes_on(app: &App, place: &Place, name: &str, runs_before: u64) {
    let mut command = command(Path::new(PROGRAM), app.folder());
    command.arg("--python").arg(app.python.program()).args(["-A", "proj", "-b", place.url()]);
    command.arg("beat");
    let process = Process::spawn(&mut command, app.folder().join("ours.log"));
    until("our beat sends it", PATIENCE, async || {
        (runs(&entry(app, place, name).await) > runs_before).then_some(())
    })
    .await;
    assert!(!process.log().contains("has its name"), "{}", process.log());
}

/// Runs a scheduler of theirs until it has done something, and ends it.
async fn scheduler(app: &App, arguments: &[&str], done: &str, at: impl Fn(&str) -> bool) {
    let mut command = app.command();
    command.args(["-m", "celery", "-A", "proj", "beat", "-l", "DEBUG"]).args(arguments);
    let mut process = Process::spawn(&mut command, app.folder().join("beat.log"));
    until(done, PATIENCE, async || {
        assert!(!process.is_over(), "it ended:\n{}", process.log());
        at(&process.log()).then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    process.ended_within(PATIENCE).await;
}

const BEAT: &str = "
from datetime import date
from celery import Celery
from celery.schedules import crontab, solar
app = Celery('proj', broker='memory://')
app.conf.timezone = 'Europe/Berlin'
app.conf.beat_schedule = {
    'often': {'task': 'jobs.often', 'schedule': 0.2, 'args': [1]},
    'nightly': {'task': 'jobs.nightly', 'schedule': crontab(minute=30, hour='2', day_of_week='mon-fri'),
                'options': {'queue': 'slow', 'expires': 60}},
    'dusk': {'task': 'jobs.dusk', 'schedule': solar('sunset', 52.5, 13.4)},
    'dated': {'task': 'jobs.dated', 'schedule': 60.0, 'kwargs': {'since': date(2026, 1, 2)}},
}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_celery_beat() {
    let python = celery_or_skip!();
    let app = python.app(BEAT, &[]);
    let is_sent = |log: &str| log.matches("jobs.often sent").count() > 1;
    scheduler(&app, &["-s", "kept"], "beat has sent a task twice", is_sent).await;

    let place = Place::sqlite();
    let import = ["schedule", "import", "--format", "celerybeat", "kept"];
    let (would, _) = told(&app, &place, &[&import[..], &["--dry-run"]].concat()).await;
    // One more is Celery's own, `celery.backend_cleanup`.
    assert_eq!(would.iter().filter(|line| text(line, "did") == "added").count(), 4, "{would:?}");
    let (code, _, stderr) = celeriac(&app, &place, &["schedule", "show", "often"]).await;
    assert_eq!(code, 5, "a dry run adds nothing: {stderr}");

    let (_, stderr) = told(&app, &place, &import).await;
    assert!(stderr.contains("dated") && stderr.contains("kwargs.since has a date"), "{stderr}");
    assert!(stderr.contains("4 entries added"), "{stderr}");
    let often = entry(&app, &place, "often").await;
    assert!(runs(&often) > 1, "{often}");
    assert_eq!(text(&often, "args"), "[1]");
    let nightly = entry(&app, &place, "nightly").await;
    assert_eq!(text(&nightly, "zone"), "Europe/Berlin", "the file says it");
    assert_eq!(text(&nightly, "source"), "store");
    assert!(text(&nightly, "options").contains("slow"), "{nightly}");
    let (again, _) = told(&app, &place, &import).await;
    assert!(again.iter().all(|line| text(line, "did") != "added"), "{again:?}");

    // With the application its own entries stay its own.
    let place = Place::sqlite();
    told(&app, &place, &[&["-A", "proj"], &import[..]].concat()).await;
    let often = entry(&app, &place, "often").await;
    assert_eq!(text(&often, "source"), "app");
    assert!(runs(&often) > 1, "{often}");
    goes_on(&app, &place, "often", runs(&often)).await;

    let missing = ["schedule", "import", "--format", "celerybeat", "missing"];
    let (code, _, stderr) = celeriac(&app, &place, &missing).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("missing: there is no such file"), "{stderr}");
    let other = ["schedule", "import", "--format", "celerybeat", "proj.py"];
    let (code, _, stderr) = celeriac(&app, &place, &other).await;
    assert!(code == 2 && stderr.contains("proj.py is no file"), "{stderr}");
}

const REDBEAT: &str = "
import os
from celery import Celery
from celery.schedules import crontab
app = Celery('proj', broker=os.environ['URL'])
app.conf.redbeat_redis_url = os.environ['URL']
app.conf.beat_scheduler = 'redbeat.RedBeatScheduler'
app.conf.beat_max_loop_interval = 1
app.conf.timezone = 'Europe/Berlin'
app.conf.beat_schedule = {'static': {'task': 'jobs.static', 'schedule': 1.0}}
";

const REDBEAT_ENTRIES: &str = "
from proj import app
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry as Entry
from redbeat.schedules import rrule
Entry('nightly', 'jobs.nightly', crontab(minute='30', hour='2'), args=[1], kwargs={'a': 'b'},
      options={'queue': 'slow'}, app=app).save()
Entry('off', 'jobs.off', schedule(3600), enabled=False, app=app).save()
Entry('ruled', 'jobs.ruled', rrule('DAILY'), app=app).save()
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_redbeat() {
    let redis = redis_or_skip!();
    let python = environment_or_skip!("redbeat-5.7");
    let url = redis.url();
    let app = python.app(REDBEAT, &[("URL", &url)]);
    app.script(REDBEAT_ENTRIES).await;
    let is_sent = |log: &str| log.contains("jobs.static sent");
    scheduler(&app, &[], "RedBeat has sent a task", is_sent).await;

    let place = Place::sqlite();
    let import = ["schedule", "import", "--format", "redbeat", &url, "--zone", "Europe/Berlin"];
    let (_, stderr) = told(&app, &place, &import).await;
    assert!(stderr.contains("ruled: its schedule is an rrule"), "{stderr}");
    // One more is Celery's own, `celery.backend_cleanup`.
    assert!(stderr.contains("4 entries added"), "{stderr}");
    let nightly = entry(&app, &place, "nightly").await;
    assert_eq!(text(&nightly, "kwargs"), r#"{"a": "b"}"#);
    assert_eq!(text(&nightly, "zone"), "Europe/Berlin");
    assert!(text(&nightly, "options").contains("slow"), "{nightly}");
    let next = text(&nightly, "next");
    assert!(["T01:30:00+", "T00:30:00+"].iter().any(|at| next.contains(at)), "{nightly}");
    assert_eq!(text(&entry(&app, &place, "off").await, "enabled"), "false");
    let fixed = entry(&app, &place, "static").await;
    assert!(runs(&fixed) > 0, "{fixed}");

    let unused = ["schedule", "import", "--format", "redbeat", &url, "--tasks", "names.toml"];
    let (code, _, stderr) = celeriac(&app, &place, &unused).await;
    assert!(code == 2 && stderr.contains("--tasks"), "{stderr}");
    let other = ["schedule", "import", "--format", "redbeat", &url, "--prefix", "other:"];
    let (code, _, stderr) = celeriac(&app, &place, &other).await;
    assert_eq!(code, 5);
    assert!(stderr.contains("other::schedule") && stderr.contains("--prefix"), "{stderr}");
}

const JOBS: &str = "
import os
from datetime import datetime, timedelta, timezone
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
import jobs

stores = {'default': SQLAlchemyJobStore('sqlite:///jobs.db'),
          'redis': RedisJobStore(host='127.0.0.1', port=int(os.environ['PORT']))}
scheduler = BackgroundScheduler(jobstores=stores, timezone='Europe/Berlin')
scheduler.start(paused=True)
add = scheduler.add_job
for store in stores:
    add(jobs.collect, 'interval', minutes=5, id='often', args=[1], jobstore=store, max_instances=2,
        misfire_grace_time=30, jitter=3, start_date=datetime(2030, 1, 1, tzinfo=timezone.utc))
add(jobs.report, 'cron', day_of_week='0-4', hour=9, minute='*/15', id='weekdays', coalesce=True,
    misfire_grace_time=None, kwargs={'to': 'all'}, name='the report')
add(jobs.report, 'cron', day_of_week='mon', day='1-7', id='first-monday', coalesce=False,
    misfire_grace_time=None)
add(jobs.report, 'date', run_date=datetime(2031, 5, 1, 12, tzinfo=timezone.utc), id='once')
add(jobs.report, 'interval', hours=1, id='held')
scheduler.pause_job('held')
add(jobs.report, 'cron', second='*/10', id='seconds')
add(jobs.report, 'cron', day='last', id='last-day')
add(jobs.report, 'cron', day='2nd fri', id='second-friday')
add(jobs.report, OrTrigger([CronTrigger(hour=1), CronTrigger(hour=2)]), id='either')
add(jobs.report, 'interval', hours=1, id='dated', args=[datetime(2026, 1, 1)])
add(jobs.report, 'interval', seconds=30, id='gone', args=[jobs.Thing()])
";

const FUNCTIONS: &str = "
class Thing: pass
def collect(*args): pass
def report(*args, **kwargs): pass
";

async fn the_jobs_of(python: Python) {
    let redis = redis_or_skip!();
    let port = redis.port().to_string();
    let app = python.app("", &[("PORT", &port)]);
    std::fs::write(app.folder().join("jobs.py"), FUNCTIONS).unwrap();
    app.script(JOBS).await;
    let dump = "import sqlite3; print(list(sqlite3.connect('jobs.db').execute('select * from \
                apscheduler_jobs order by id')))";
    let before = app.script(dump).await;
    // APScheduler itself would delete what it cannot import; here a pickle that cannot be read is named.
    std::fs::write(app.folder().join("jobs.py"), "").unwrap();

    let place = Place::sqlite();
    std::fs::write(app.folder().join("names.toml"), "\"jobs:report\" = \"reports.send\"\n")
        .unwrap();
    let import = ["schedule", "import", "--format", "apscheduler", "sqlite:///jobs.db"];
    let with_names = [&import[..], &["--tasks", "names.toml"]].concat();
    let (lines, stderr) = told(&app, &place, &with_names).await;
    assert_eq!(lines.iter().filter(|line| text(line, "did") == "added").count(), 5, "{stderr}");
    for why in [
        "seconds: second = \"*/10\" has no equivalent",
        "last-day: day = \"last\"",
        "second-friday: day = \"2nd fri\"",
        "either: its trigger is a apscheduler.triggers.combining.OrTrigger",
        "dated: args[0] is a datetime",
        "gone: it cannot be unpickled",
    ] {
        assert!(stderr.contains(why), "without {why:?}:\n{stderr}");
    }
    let often = entry(&app, &place, "often").await;
    for (field, expected) in [
        ("task", "jobs.collect"),
        ("args", "[1]"),
        ("max_instances", "2"),
        ("misfire", "skip"),
        ("misfire_grace", "30.0"),
        ("jitter", "3.0"),
    ] {
        assert_eq!(text(&often, field), expected, "{field} of {often}");
    }
    assert!(text(&often, "next").starts_with("2030-01-01T00:00:0"), "{often}");
    let weekdays = entry(&app, &place, "weekdays").await;
    assert_eq!(text(&weekdays, "task"), "reports.send");
    assert_eq!(text(&weekdays, "misfire"), "once");
    assert_eq!(text(&weekdays, "zone"), "Europe/Berlin");
    assert!(text(&weekdays, "schedule").contains("mon,tue,wed,thu,fri"), "{weekdays}");
    assert_eq!(text(&entry(&app, &place, "first-monday").await, "misfire"), "all");
    assert!(text(&entry(&app, &place, "once").await, "next").starts_with("2031-05-01T12:00:00"));
    assert_eq!(text(&entry(&app, &place, "held").await, "enabled"), "false");
    assert_eq!(app.script(dump).await, before, "nothing was written");

    let place = Place::sqlite();
    let url = redis.url();
    let import = ["schedule", "import", "--format", "apscheduler", &url, "--task", "run.this"];
    told(&app, &place, &import).await;
    let often = entry(&app, &place, "often").await;
    assert_eq!(text(&often, "task"), "run.this");
    for (source, why) in [
        ("sqlite:///missing.db", "missing.db: there is no such file"),
        ("sqlite:///empty.db", "--table"),
        ("jobs.db", "is no URL"),
    ] {
        std::fs::write(app.folder().join("empty.db"), "").unwrap();
        let import = ["schedule", "import", "--format", "apscheduler", source];
        let (code, _, stderr) = celeriac(&app, &place, &import).await;
        assert_eq!(code, 2, "{source}: {stderr}");
        assert!(stderr.contains(why), "{source}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_apscheduler_3_10() {
    the_jobs_of(environment_or_skip!("apscheduler-3.10")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_apscheduler_3_11() {
    the_jobs_of(environment_or_skip!("apscheduler-3.11")).await;
}
