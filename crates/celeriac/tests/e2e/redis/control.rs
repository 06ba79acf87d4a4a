//! Remote control and events, both ways: Celery's client and monitors with our worker, ours with
//! Celery's worker.

use crate::kit::{PATIENCE, Place, Ran, Worker, command, count, until};
use celeriac_testkit::services::python::App as Celery;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::Value;
use std::path::Path;

/// The Celery app: the tasks of the ledger application that are used here, and one of its own.
const SOURCE: &str = "
import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.task_routes = {'py.*': 'py'}
@app.task(name='ledger.work')
def work(ms): time.sleep(ms / 1000)
@app.task(name='ledger.until_told')
def until_told(): time.sleep(600)
@app.task(name='py.sleep', rate_limit='100/s')
def sleep(seconds, k=None): time.sleep(seconds)
";

/// A Redis with our worker and an app of Celery.
struct Scene {
    redis: Redis,
    place: Place,
    celery: Celery,
}

impl Scene {
    fn new(redis: Redis, python: &celeriac_testkit::services::python::Python) -> Self {
        let url = redis.url();
        let place = Place::at(&url);
        let celery = python.app(SOURCE, &[("URL", &url)]);
        Self { redis, place, celery }
    }

    /// Our worker, once it answers.
    async fn worker(&self, name: &str) -> Worker {
        let store = self.place.app().store().await.unwrap();
        let worker = Worker::start(&self.place, &store, name, "8s", &["-c", "2"]).await;
        until("our worker answers", PATIENCE, async || {
            let ping = self.celeriac(&["inspect", "ping", "-d", name, "-t", "300ms"]).await;
            (ping.code == 0).then_some(())
        })
        .await;
        worker
    }

    async fn celeriac(&self, args: &[&str]) -> Ran {
        let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
        let mut command = command(program, self.place.dir());
        Ran::new(command.args(["-b", self.place.url()]).args(args)).await
    }

    /// `celery …`, which must succeed.
    async fn ask(&self, args: &[&str]) -> String {
        let ended = self.celery.celery(args).await;
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        ended.stdout
    }

    /// `celery inspect … -d node -j`.
    async fn inspect(&self, node: &str, args: &[&str]) -> Value {
        let mut all = vec!["inspect", "-d", node, "-t", "5", "-j"];
        all.extend(args);
        let text = self.ask(&all).await;
        let line = text.lines().find(|line| line.starts_with('{')).expect("JSON");
        Value::parse(line.as_bytes()).unwrap().get(node).expect("its answer").clone()
    }
}

/// The keys of a value, of its members and of the first element of its lists.
fn keys(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter() {
                let place = format!("{at}.{name}");
                found.push(place.clone());
                keys(value, &place, found);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                keys(first, &format!("{at}[]"), found);
            }
        }
        _ => {}
    }
}

fn keys_of(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    keys(value, "", &mut found);
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celerys_inspect_sees_our_worker_as_one_of_its_own() {
    // interop: control.keys control.ping control.stats control.active in
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let ours = scene.worker("ours@test").await;
    let mut theirs = scene.celery.worker("theirs", &["-c", "1", "-Q", "py"]).await;
    scene
        .celery
        .script(
            "from proj import *\nuntil_told.delay()\nsleep.delay(600, k='v')\n\
             work.apply_async((1,), countdown=3600)\nsleep.apply_async((1,), {'k': 1}, countdown=3600)",
        )
        .await;
    until("ours runs", PATIENCE, async || (count(&scene.place, "start") == 1).then_some(())).await;
    theirs.logs("received").await;
    for command in ["ping", "active", "scheduled", "active_queues", "revoked", "reserved", "clock"]
    {
        let ours = scene.inspect("ours@test", &[command]).await;
        until("theirs answers the same", PATIENCE, async || {
            // What a worker is told to run it shows a moment later.
            let theirs = scene.inspect("theirs@test", &[command]).await;
            let without = |value: &Value| {
                let mut keys = keys_of(value);
                keys.retain(|key| !key.contains(".kwargs."));
                keys
            };
            (without(&ours) == without(&theirs)).then_some(())
        })
        .await;
    }
    let (mine, celerys) = (
        scene.inspect("ours@test", &["stats"]).await,
        scene.inspect("theirs@test", &["stats"]).await,
    );
    let of = |stats: &Value| {
        let mut keys = keys_of(stats);
        // Which tasks were run differs, and what a pool of children writes to them.
        keys.retain(|key| !key.starts_with(".total.") && !key.starts_with(".pool.writes"));
        keys
    };
    assert_eq!(of(&mine), of(&celerys));
    assert_eq!(mine.get("pid").unwrap().as_u64(), Some(u64::from(ours.pid)));
    let registered = scene.inspect("ours@test", &["registered"]).await.to_string();
    assert!(registered.contains("\"ledger.work\""), "{registered}");
    for command in ["conf", "report", "memsample", "memdump"] {
        scene.inspect("ours@test", &[command]).await;
    }
    let status = scene.ask(&["status", "-t", "3"]).await;
    assert!(status.contains("ours@test") && status.contains("2 nodes online"), "{status}");
    theirs.kill9().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celerys_control_moves_our_worker() {
    // interop: control.pool control.consumers control.terminate control.shutdown in
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let mut ours = scene.worker("ours@test").await;
    let script = "
from proj import *
import time
def tell(name, **arguments):
    reply = app.control.broadcast(name, arguments=arguments, destination=['ours@test'], reply=True,
                                  timeout=5)
    print(name, reply[0]['ours@test'] if reply else None)
tell('add_consumer', queue='extra')
work.apply_async((1,), queue='extra')
tell('pool_grow', n=2)
tell('pool_shrink', n=1)
tell('rate_limit', task_name='ledger.work', rate_limit='10/m')
tell('time_limit', task_name='ledger.work', soft=5, hard=10)
running = until_told.delay()
waiting = work.apply_async((1,), queue='nobody')
while True:
    active = app.control.inspect(['ours@test'], timeout=5).active()['ours@test']
    if any(one['id'] == running.id for one in active): break
waiting.revoke()
running.revoke(terminate=True)
try:
    running.get(timeout=20)
except Exception as error:
    print('ended', type(error).__name__)
tell('revoke', task_id=waiting.id)
tell('enable_events')
tell('disable_events')
tell('autoscale', max=4, min=1)
tell('nosuch')
tell('revoke', wrong=1)
tell('cancel_consumer', queue='extra')
app.control.shutdown(destination=['ours@test'])
print('id', waiting.id)
";
    let said = scene.celery.script(script).await;
    let id = said.lines().find_map(|line| line.strip_prefix("id ")).unwrap().to_owned();
    for line in [
        "add_consumer {'ok': 'add consumer extra'}",
        "pool_grow {'ok': 'pool will grow'}",
        "pool_shrink {'ok': 'pool will shrink'}",
        "rate_limit {'ok': 'new rate limit set successfully'}",
        "time_limit {'ok': 'time limits set successfully'}",
        "ended TaskRevokedError",
        &format!("revoke {{'ok': \"tasks {{'{id}'}} flagged as revoked\"}}"),
        "enable_events {'ok': 'task events already enabled'}",
        "disable_events {'ok': 'task events disabled'}",
        "autoscale {'error': \"ValueError('Autoscale not enabled')\"}",
        "nosuch {'error': \"KeyError('nosuch')\"}",
        "cancel_consumer {'ok': 'no longer consuming from extra'}",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(said.contains(r"missing 1 required positional argument: \'task_id\'"), "{said}");
    assert!(ours.ended().await.success(), "a warm shutdown");
    assert_eq!(count(&scene.place, "end"), 1, "the one of the added queue");
    // Nothing is left of the askers.
    let members = scene.redis.cli(&["SCARD", "_kombu.binding.reply.celery.pidbox"]).await.int();
    assert!(members <= 1, "{members}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_commands_move_a_worker_of_celery() {
    // interop: control.pool control.consumers control.shutdown out
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let mut theirs = scene.celery.worker("theirs", &["-c", "1", "-Q", "py"]).await;
    let json = async |args: &[&str]| {
        let mut all = vec!["--json"];
        all.extend(args);
        let ran = scene.celeriac(&all).await.exits(0);
        Value::parse(ran.stdout.as_bytes()).unwrap()
    };
    let ping = json(&["inspect", "ping", "-t", "3s"]).await;
    assert_eq!(ping.to_string(), "{\"theirs@test\": {\"ok\": \"pong\"}}");
    let told = |value: &Value| value.as_array().unwrap()[0].get("theirs@test").unwrap().to_string();
    for (args, expected) in [
        (&["rate_limit", "py.sleep", "10/m"][..], "{\"ok\": \"new rate limit set successfully\"}"),
        (&["time_limit", "py.sleep", "5", "10"], "{\"ok\": \"time limits set successfully\"}"),
        (&["pool_grow", "1"], "{\"ok\": \"pool will grow\"}"),
        (&["add_consumer", "extra"], "{\"ok\": \"add consumer extra\"}"),
        (&["enable_events"], "{\"ok\": \"task events enabled\"}"),
        (&["revoke", "a"], "{\"ok\": \"tasks {'a'} flagged as revoked\"}"),
        (&["autoscale", "4", "1"], "{\"error\": \"ValueError('Autoscale not enabled')\"}"),
    ] {
        let mut all = vec!["control", "-d", "theirs@test", "-t", "5s"];
        all.extend(args);
        assert_eq!(told(&json(&all).await), expected, "{args:?}");
    }
    let registered = json(&["inspect", "registered", "-t", "3s"]).await.to_string();
    assert!(registered.contains("py.sleep [rate_limit=10/m]"), "{registered}");
    let queues = json(&["inspect", "active_queues", "-t", "3s"]).await.to_string();
    assert!(queues.contains("\"name\": \"extra\""), "{queues}");
    scene.celeriac(&["status", "-t", "3s"]).await.exits(0).says(&["theirs@test: OK"]);
    scene.celeriac(&["control", "shutdown"]).await.exits(0);
    assert!(theirs.process().ended_within(PATIENCE).await.success());
    let gone = scene.celeriac(&["inspect", "ping", "-t", "300ms"]).await.exits(69);
    gone.warns(&["No nodes replied"]);
    let left = scene.redis.cli(&["EXISTS", "_kombu.binding.reply.celery.pidbox"]).await.int();
    assert_eq!(left, 0, "no inbox is left behind");
}

/// Revocations of before are exchanged by the hello of whoever starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_are_exchanged_when_a_worker_starts() {
    // interop: worker.mingle
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let mut first = scene.celery.worker("first", &["-c", "1", "-Q", "py"]).await;
    scene.celeriac(&["control", "revoke", "from-celery", "-t", "3s"]).await.exits(0);
    let _ours = scene.worker("ours@test").await;
    until("ours knows", PATIENCE, async || {
        let revoked = scene.inspect("ours@test", &["revoked"]).await.to_string();
        revoked.contains("from-celery").then_some(())
    })
    .await;
    scene.celeriac(&["control", "revoke", "from-us", "-d", "ours@test", "-t", "3s"]).await.exits(0);
    let mut second = scene.celery.worker("second", &["-c", "1", "-Q", "py"]).await;
    second.logs("sync complete").await;
    let revoked = scene.inspect("second@test", &["revoked"]).await.to_string();
    assert!(revoked.contains("from-us") && revoked.contains("from-celery"), "{revoked}");
    first.kill9().await;
    second.kill9().await;
}

/// Celery's own state of a cluster, fed with our events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn celerys_monitors_follow_our_tasks() {
    // interop: events.state events.dump in
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let _ours = scene.worker("ours@test").await;
    let script = "
from proj import *
import time
class Done(Exception): pass
state = app.events.State()
good, bad = work.s(1).freeze(), app.signature('ledger.fails').freeze()
told = app.signature('ledger.until_told').freeze()
def look(event):
    state.event(event)
    good_, bad_, told_ = (state.tasks.get(one.id) for one in (good, bad, told))
    if told_ and told_.state == 'STARTED':
        told.revoke(terminate=True)
    if (good_ and bad_ and told_ and good_.succeeded and bad_.failed and told_.revoked
            and (state.workers['ours@test'].processed or 0) > 1):
        raise Done
with app.connection_for_read() as connection:
    receiver = app.events.Receiver(connection, handlers={'*': look})
    work.apply_async((1,), task_id=good.id)
    app.send_task('ledger.fails', task_id=bad.id)
    until_told.apply_async(task_id=told.id)
    try:
        receiver.capture(limit=None, timeout=40)
    except Done:
        pass
for one in (good, bad, told):
    task = state.tasks[one.id]
    print(task.name, task.state, bool(task.received), bool(task.started), task.args, task.worker.hostname,
          task.clock > 0, task.exception, task.result is not None, type(task.runtime).__name__)
worker = state.workers['ours@test']
print(worker.alive, worker.freq, worker.sw_ident, worker.processed >= 2, len(worker.loadavg))
";
    let said = scene.celery.script(script).await;
    for line in [
        "ledger.work SUCCESS True True (1,) ours@test True None True float",
        "ledger.fails FAILURE True True () ours@test True",
        "ledger.until_told REVOKED True True () ours@test True",
        "True 2.0 celeriac True 3",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    // `celery events --dump` prints them too; it runs until it is stopped.
    let mut dump = scene.celery.command();
    dump.args(["-m", "celery", "-A", "proj", "events", "--dump"]).kill_on_drop(true);
    let log = scene.place.path("dump.log");
    let out = std::fs::File::create(&log).unwrap();
    dump.stdout(out).stderr(std::process::Stdio::null());
    let mut running = dump.spawn().unwrap();
    until("our heartbeat is printed", PATIENCE, async || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("ours@test [").then_some(())
    })
    .await;
    running.kill().await.unwrap();
}

/// Our own view, fed with the events of a worker of Celery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_monitor_follows_the_tasks_of_celery() {
    // interop: events.state out
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = Scene::new(redis, &python);
    let mut theirs = scene.celery.worker("theirs", &["-c", "1", "-Q", "py", "-E"]).await;
    let mut events = celeriac::events::EventReceiver::of(&scene.place.app()).await.unwrap();
    let send = "from proj import *\nprint(sleep.delay(0, k='v').id)";
    let id = scene.celery.script(send).await.trim().to_owned();
    let watching = async {
        while events.monitor().find_task(&id).is_none_or(|task| task.state != "SUCCESS") {
            events.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, watching).await.unwrap();
    let task = events.monitor().find_task(&id).unwrap();
    assert_eq!((task.name(), task.text("kwargs")), (Some("py.sleep"), Some("{'k': 'v'}")));
    assert_eq!(task.times.keys().collect::<Vec<_>>(), ["received", "started", "succeeded"]);
    let worker = events.monitor().worker("theirs@test").unwrap();
    assert!(worker.is_alive(scene.place.app().client().await.unwrap().now()));
    assert_eq!(worker.fields.get("sw_ident").and_then(Value::as_str), Some("py-celery"));
    theirs.kill9().await;
}

/// kombu's `global_keyprefix` is before every channel and every key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_prefix_is_before_every_channel() {
    // interop: queue.prefix out
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let url = redis.url();
    let source =
        format!("{SOURCE}\napp.conf.broker_transport_options = {{'global_keyprefix': 'pre:'}}\n");
    let celery = python.app(&source, &[("URL", &url)]);
    let joint = if url.contains('?') { '&' } else { '?' };
    let place = Place::at(&format!("{url}{joint}global_keyprefix=pre%3A"));
    let mut theirs = celery.worker("theirs", &["-c", "1", "-Q", "py"]).await;
    let app = place.app();
    let mut events = celeriac::events::EventReceiver::of(&app).await.unwrap();
    let heartbeat = async {
        while events.monitor().worker("theirs@test").is_none() {
            events.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, heartbeat).await.unwrap();
    let whom = celeriac::Ask::nodes(["theirs@test"]).within(PATIENCE);
    let remote = app.remote().await.unwrap();
    let replies = remote.ask("ping", celeriac_wire::Map::new(), &whom).await.unwrap();
    assert_eq!(replies.len(), 1);
    theirs.kill9().await;
}
