//! Events: Celery's receiver with our worker and client, ours with Celery's, and the logical clock.

use super::Lane;
use crate::kit::PATIENCE;
use crate::running::{add, application, fails, flaky, start_with};
use celeriac::events::{Event, EventReceiver};
use celeriac::prelude::*;
use celeriac_wire::{Map, Value};
use std::collections::BTreeMap;

lanes!(celerys_receiver_sees_our_events, our_receiver_sees_celerys_events);

/// Prints every event until our worker has gone.
const WATCH: &str = r"
import json
from proj import app, redis
class Gone(Exception): pass
def show(event):
    print(json.dumps(event))
    redis.set('listening', 1)
    if event['type'] == 'task-received' and event['name'] == 't.header':
        app.control.mailbox.clock.adjust(1_000_000)
        app.control.broadcast('ping', destination=['ours@test'], reply=True, timeout=20)
        redis.set('asked', 1)
    if event['hostname'] == 'stock@test' and event['clock'] > 1_000_000:
        redis.set('ahead', 1)
    if event['type'] == 'worker-offline' and event['hostname'] == 'ours@test':
        raise Gone
with app.connection_for_read() as connection:
    try:
        app.events.Receiver(connection, handlers={'*': show}).capture(limit=None, timeout=60)
    except Gone:
        pass
";

async fn celerys_receiver_sees_our_events(lane: Lane) {
    // interop: events.task-events events.task-sent events.worker-events events.clock in
    let celery = lane.celery("app.conf.task_send_sent_event = True");
    let test = application(lane.ours("heartbeat_events = \"100ms\"\nsent_events = true\n"));
    // Somebody has to be heard for the script to know that it listens.
    let more = ["-P", "solo", "--without-mingle", "-E", "-Q", "py", "--heartbeat-interval", "1"];
    let _stock = celery.worker("stock", &more).await;
    let watching = async {
        lane.told("listening").await;
        let worker = test.app.worker().name("ours@test").concurrency(1);
        let running = start_with(&test.app, worker).await;
        let client = &running.client;
        let clocks = crate::running::header::call("clock".to_owned());
        client.send(clocks).await.unwrap().get(PATIENCE).await.unwrap();
        lane.told("asked").await;
        client.send(add::call(1, 2).task_id("good")).await.unwrap();
        client.send(fails::call("no rows".to_owned()).task_id("bad")).await.unwrap();
        client.send(flaky::call(1).task_id("again")).await.unwrap();
        client.send(add::call(1, 2).expires_in(0.secs()).task_id("late")).await.unwrap();
        client.send(crate::running::rejects::call(false).task_id("rejected")).await.unwrap();
        client.job::<u32>("again").get(PATIENCE).await.unwrap();
        let last = client.send(add::call(1, 2)).await.unwrap();
        last.get(PATIENCE).await.unwrap();
        // The other worker hears our clock from our events.
        lane.told("ahead").await;
        running.stop().await;
    };
    let (said, ()) = tokio::join!(celery.script(WATCH), watching);
    let events: Vec<Event> = said
        .lines()
        .flat_map(|line| Event::parse_many(line.as_bytes()).expect("an event a line"))
        .collect();
    tasks_tell_their_story(&events);
    workers_tell_theirs(&events);
    clocks_grow(&events);
}

/// The types of a task's events, in order, and the event of a type.
fn story<'a>(events: &'a [Event], id: &str) -> Vec<(&'a str, &'a Event)> {
    let of = events.iter().filter(|event| event.uuid() == Some(id));
    of.map(|event| (event.kind().unwrap(), event)).collect()
}

/// Asserts that an event has these fields, none of them null.
#[track_caller]
fn has(event: &Event, fields: &[&str]) {
    for field in fields {
        let value = event.as_map().get(field);
        assert!(value.is_some_and(|value| !value.is_null()), "{field} is missing in {event:?}");
    }
}

fn tasks_tell_their_story(events: &[Event]) {
    for (id, last) in [
        ("good", &["task-succeeded"][..]),
        ("bad", &["task-failed"]),
        ("again", &["task-retried", "task-received", "task-started", "task-succeeded"]),
        ("rejected", &["task-rejected"]),
    ] {
        let story = story(events, id);
        let (sent, run): (Vec<_>, Vec<_>) =
            story.iter().map(|(kind, event)| (*kind, *event)).partition(|one| one.0 == "task-sent");
        let kinds: Vec<_> = run.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [&["task-received", "task-started"][..], last].concat(), "{id}");
        // Who sends tells it after the send, and a retry is sent as well.
        assert_eq!(sent.len(), 1 + usize::from(id == "again"), "{id}");
        for (_, event) in &story {
            has(event, &["hostname", "utcoffset", "pid", "clock", "timestamp"]);
        }
        has(sent[0].1, &["root_id", "name", "args", "kwargs", "retries", "queue", "routing_key"]);
        has(run[0].1, &["name", "args", "kwargs", "root_id", "retries"]);
    }
    let last = |id: &str| {
        let mut story = story(events, id);
        story.retain(|(kind, _)| *kind != "task-sent");
        story.last().unwrap().1.clone()
    };
    has(&last("good"), &["result", "runtime"]);
    has(&last("bad"), &["exception"]);
    let kinds = story(events, "late").into_iter().map(|(kind, _)| kind);
    let kinds: Vec<_> = kinds.filter(|kind| *kind != "task-sent").collect();
    // Celery tells nobody that it has received what is revoked or too late (worker/strategy.py 5.7).
    assert_eq!(kinds, ["task-revoked"]);
    assert_eq!(last("late").as_map().get("expired"), Some(&Value::from(true)));
    has(&last("late"), &["terminated", "expired"]);
    assert_eq!(last("rejected").as_map().get("requeue"), Some(&Value::from(false)));
}

fn workers_tell_theirs(events: &[Event]) {
    let of_worker = |event: &&Event| event.kind().is_some_and(|kind| kind.starts_with("worker-"));
    let ours = events.iter().filter(of_worker).filter(|one| one.hostname() == Some("ours@test"));
    let ours: Vec<_> = ours.collect();
    let kinds: Vec<_> = ours.iter().map(|event| event.kind().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("worker-online", "worker-offline"));
    assert!(kinds[1..kinds.len() - 1].iter().all(|kind| *kind == "worker-heartbeat"), "{kinds:?}");
    for event in ours {
        has(event, &["freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"]);
    }
}

/// Each node's clock grows, and jumps ahead when it hears of a later one.
fn clocks_grow(events: &[Event]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ahead = 0;
    for event in events.iter().filter(|event| event.kind() != Some("task-sent")) {
        let (node, clock) = (event.hostname().unwrap(), event.clock().unwrap());
        let before = last.insert(node, clock).unwrap_or(0);
        assert!(clock > before, "{node} went from {before} to {clock}");
        ahead += usize::from(node == "ours@test" && clock > 1_000_000);
    }
    assert!(ahead > 5, "it has heard of the monitor's clock");
}

async fn our_receiver_sees_celerys_events(lane: Lane) {
    // interop: events.task-events events.task-sent events.worker-events events.state out
    let celery = lane.celery(
        "app.conf.task_send_sent_event = True\n\
         @app.task(name='py.add')\ndef add(x, y): return x + y\n\
         @app.task(name='py.fails')\ndef fails(): raise ValueError('bad', 42)\n\
         @app.task(name='py.again', bind=True)\ndef again(self):\n    \
         if not self.request.retries: raise self.retry(countdown=0, exc=KeyError('not yet'))\n\
         @app.task(name='py.rejects', acks_late=True)\ndef rejects():\n    \
         from celery.exceptions import Reject\n    raise Reject('not mine')\n",
    );
    let app = lane.ours("");
    let mut events = EventReceiver::of(&app).await.unwrap();
    let mut stock = lane.stock(&celery, &["-E"]).await;
    // Its next beat may be two seconds away.
    let everybody = celeriac::Ask::default();
    app.remote().await.unwrap().cast("heartbeat", Map::new(), &everybody).await.unwrap();
    let send = "from proj import *\nadd.apply_async((1, 2), task_id='good')\n\
                fails.apply_async(task_id='bad')\nadd.apply_async((1, 2), task_id='late', expires=-1)\n\
                rejects.apply_async(task_id='rejected')\nagain.apply_async(task_id='again')";
    celery.script(send).await;
    let mut heard = Vec::new();
    let ends = [
        ("good", "task-succeeded"),
        ("bad", "task-failed"),
        ("late", "task-revoked"),
        ("rejected", "task-rejected"),
        ("again", "task-succeeded"),
    ];
    let has_beaten =
        |heard: &[Event]| heard.iter().any(|event| event.kind() == Some("worker-heartbeat"));
    let watching = async {
        while !has_beaten(&heard)
            || !ends.iter().all(|(id, end)| story(&heard, id).iter().any(|(kind, _)| kind == end))
        {
            heard.extend(events.next().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, watching).await.unwrap();
    let kinds = |id: &str| story(&heard, id).iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
    let mut good = kinds("good");
    // The sender and the worker tell it side by side.
    good.sort_unstable();
    assert_eq!(good, ["task-received", "task-sent", "task-started", "task-succeeded"]);
    assert!(kinds("again").contains(&"task-retried"));
    let task = events.monitor().find_task("bad").unwrap();
    assert_eq!(task.text("exception"), Some("ValueError('bad', 42)"));
    assert_eq!(task.worker.as_deref(), Some("stock@test"));
    assert!(task.client.is_some(), "who sent it is known");
    let now = app.client().await.unwrap().now();
    assert!(events.monitor().worker("stock@test").unwrap().is_alive(now));
    assert!(stock.terminate().await.success());
    let leaving = async {
        while events.monitor().worker("stock@test").is_some_and(|one| one.is_alive(now)) {
            heard.extend(events.next().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, leaving).await.unwrap();
    for kind in ["worker-online", "worker-heartbeat", "worker-offline"] {
        assert!(heard.iter().any(|event| event.kind() == Some(kind)), "{kind}");
    }
}
