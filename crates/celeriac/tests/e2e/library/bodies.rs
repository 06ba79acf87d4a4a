//! Bodies of every kind, from us and from real Celery, and what becomes of those that nobody reads.

use super::application::configured;
use crate::kit::{ALL, PATIENCE, Place};
use crate::running::{add, echo, start};
use celeriac::prelude::*;
use celeriac::{Compression, Serializer};
use celeriac_core::store::{DeadFilter, Plan};
use celeriac_core::{QueueName, store::Outgoing};
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::{Headers, Message, Special, Value};

#[tokio::test]
async fn calls_are_written_as_they_or_the_settings_say() {
    for place in Place::every() {
        let toml = "task_serializer = \"msgpack\"\ntask_compression = \"gzip\"\n\
                    [routes]\n\"t.echo\" = { queue = \"side\", serializer = \"yaml\" }\n";
        let app = configured(&place, toml).tasks(tasks![add, echo]);
        let client = app.client().await.unwrap();
        let bytes = Special::Bytes(vec![255, 0]).to_value();
        client.send(add::call(1, 2)).await.unwrap();
        client.send(echo::call(bytes.clone())).await.unwrap();
        client.send(add::call(3, 4).serializer(Serializer::Json)).await.unwrap();
        let held = app.store().await.unwrap();
        let kinds = |queue: &'static str| {
            let (held, queue) = (std::sync::Arc::clone(&held), QueueName::parse(queue).unwrap());
            async move {
                let stored = held.peek(&queue, ALL).await.unwrap();
                let messages = stored.into_iter().map(|one| one.outgoing.message);
                let kind = |one: Message| {
                    let compression = one.headers.compression().unwrap_or("none").to_owned();
                    (one.content_type, compression)
                };
                messages.map(kind).collect::<Vec<_>>()
            }
        };
        let of = |kind: &str| (format!("application/{kind}"), "application/x-gzip".to_owned());
        assert_eq!(kinds("celery").await, [of("x-msgpack"), of("json")]);
        assert_eq!(kinds("side").await, [of("x-yaml")]);
        let running = start(&app).await;
        for compression in
            [Compression::Bzip2, Compression::Lzma, Compression::Brotli, Compression::Zstd]
        {
            let call = add::call(20, 1).compression(compression);
            let job = running.client.send(call).await.unwrap();
            assert_eq!(job.get(PATIENCE).await.unwrap(), 21);
        }
        let job = running.client.send(echo::call(bytes.clone())).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), bytes);
        // What a format cannot carry is found by the sender.
        let when = Special::DateTime("2026-01-02T03:04:05".to_owned()).to_value();
        let call = echo::call(when).serializer(Serializer::Msgpack);
        let error = running.client.send(call).await.unwrap_err().to_string();
        assert!(error.contains("msgpack cannot carry a datetime"), "{error}");
        running.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_with_its_bytes() {
    for place in Place::every() {
        let app = configured(&place, "accept_content = [\"json\"]\n").tasks(tasks![add]);
        let store = app.store().await.unwrap();
        let mut plan = Plan::default();
        for (id, content_type, body) in [
            ("pickle", "application/x-python-serialize", &b"\x80\x04N."[..]),
            ("yaml", "application/x-yaml", b"[[1, 2], {}, {}]"),
            ("stranger", "application/x-protobuf", b"\x08\x01"),
            ("broken", "application/json", b"[["),
        ] {
            let mut message = Message::new("t.add", id, body);
            content_type.clone_into(&mut message.content_type);
            plan.publish.push(Outgoing::new(QueueName::celery(), message));
        }
        store.publish(plan, None).await.unwrap();
        let worker = app.worker().concurrency(2).stop_when_idle(1.millis());
        worker.run().await.unwrap();
        let mut letters = store.dead_list(&DeadFilter::default(), ALL).await.unwrap();
        letters.sort_by_key(|one| one.message.headers.id().unwrap_or_default().to_owned());
        let said: Vec<String> =
            letters.iter().map(|one| format!("{} {}", one.reason, one.detail)).collect();
        assert_eq!(said.len(), 4, "{said:?}");
        for ((said, letter), (reason, text, body)) in said.iter().zip(&letters).zip([
            ("undecodable", "cannot be decoded", &b"[["[..]),
            ("disallowed", "only a Python worker can read it", b"\x80\x04N."),
            ("disallowed", "application/x-protobuf", b"\x08\x01"),
            ("disallowed", "accepted are json", b"[[1, 2], {}, {}]"),
        ]) {
            assert!(said.starts_with(reason) && said.contains(text), "{said}");
            assert_eq!(letter.message.body, body);
        }
    }
}

#[tokio::test]
async fn protocol_1_runs_at_its_time() {
    for place in Place::every() {
        let app = place.app().tasks(tasks![add]);
        let store = app.store().await.unwrap();
        let eta = app.client().await.unwrap().now() + std::time::Duration::from_millis(300);
        let old = |id: &str, more: &str| {
            let body = format!(
                r#"{{"task": "t.add", "id": "{id}", "args": [1], "kwargs": {{"y": 2}}, "utc": true{more}}}"#
            );
            let mut message = Message::new("", "", body);
            message.headers = Headers::default();
            Outgoing::new(QueueName::celery(), message)
        };
        let late = format!(r#", "eta": "{}""#, celeriac_wire::print_iso(eta));
        let publish = vec![old("at-once", ""), old("later", &late)];
        store.publish(Plan { publish, ..Plan::default() }, None).await.unwrap();
        let running = start(&app).await;
        for id in ["at-once", "later"] {
            let value: i64 = running.client.job(id).get(PATIENCE).await.unwrap();
            assert_eq!(value, 3, "{id}");
        }
        assert!(running.client.now() >= eta, "it waited for its time");
        running.stop().await;
    }
}

#[tokio::test]
async fn exchanges_are_refused_where_there_are_none() {
    let place = Place::memory();
    let app = place.app().tasks(tasks![add]);
    let client = app.client().await.unwrap();
    let error = client.send(add::call(1, 2).exchange("news")).await.unwrap_err().to_string();
    assert!(error.contains("exchange") && error.contains("no exchanges"), "{error}");
    let toml = "[task_queues]\nnews = { exchange = \"news\", exchange_type = \"fanout\" }\n";
    let error = configured(&place, toml).tasks(tasks![add]).client().await.unwrap_err().to_string();
    assert!(error.contains("news") && error.contains("no exchanges"), "{error}");
    // A direct one is reached by the name of its queue.
    let toml = "[task_queues]\nside = { exchange = \"work\", routing_key = \"k\" }\n";
    let running = start(&configured(&place, toml).tasks(tasks![add])).await;
    let job = running.client.send(add::call(1, 2).queue("side")).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), 3);
    running.stop().await;
}

const APP: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['BROKER'], backend=os.environ['BROKER'])
app.conf.accept_content = ['json', 'msgpack', 'yaml', 'pickle']

@app.task(name='t.add')
def add(x, y):
    raise NotImplementedError
";

/// Sends with every serializer, compression and protocol; prints what comes back.
const SEND: &str = "
from proj import add, app
jobs = {}
for name in ('json', 'msgpack', 'yaml'):
    jobs[name] = add.apply_async((1, 2), serializer=name)
for name in ('gzip', 'bzip2', 'lzma', 'brotli', 'zstd'):
    jobs[name] = add.apply_async((1,), {'y': 2}, compression=name)
for name, job in jobs.items():
    print(name, job.get(timeout=20))
add.apply_async((1, 2), serializer='pickle', task_id='pickled')
";

#[tokio::test]
async fn real_celery_may_send_in_whatever_it_can_write() {
    // interop: messages.json messages.msgpack messages.yaml messages.protocol-1 in
    let redis = redis_or_skip!();
    let celery = celery_or_skip!().app(APP, &[("BROKER", &redis.url())]);
    let app = App::at(&redis.url()).unwrap().tasks(tasks![add]);
    let running = start(&app).await;
    let expected = "json 3\nmsgpack 3\nyaml 3\ngzip 3\nbzip2 3\nlzma 3\nbrotli 3\nzstd 3\n";
    assert_eq!(celery.script(SEND).await, expected);
    let error = running.client.job::<Value>("pickled").get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("only a Python worker"), "{error}");
    let old = "from proj import add, app\napp.conf.task_protocol = 1\n\
               print(add.delay(1, 2).get(timeout=20))\n\
               print(add.apply_async((1, 2), countdown=0.5, link=add.s(4)).get(timeout=20))";
    assert_eq!(celery.script(old).await, "3\n3\n");
    running.stop().await;
}
