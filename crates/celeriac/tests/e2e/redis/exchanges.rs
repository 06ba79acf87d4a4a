//! Exchanges beside real Celery: it sends to queues that our workers have bound, and we to its own.

use super::configured;
use crate::kit::{ALL, PATIENCE, until};
use crate::running::{Diary, Running, start, start_with};
use celeriac::prelude::*;
use celeriac_core::store::DeadFilter;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::sync::Arc;
use std::time::Duration;

#[task(name = "x.note", max_retries = 0)]
async fn note(cx: Context, diary: State<Arc<Diary>>, text: String) -> String {
    diary.note(format!("{} {text}", cx.queue()));
    format!("celeriac {text}")
}

/// What our worker consumes: a queue of a topic exchange, one of a direct one, and the default.
const QUEUES: &str = "
[task_queues]
topical = { exchange = \"tx\", exchange_type = \"topic\", routing_key = \"a.#\" }
plain = { exchange = \"dx\", routing_key = \"k\" }
[routes]
\"x.routed\" = { exchange = \"tx\", routing_key = \"a.route\" }
";

const APP: &str = "
import os
from celery import Celery
from kombu import Exchange, Queue
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
topic = Exchange('tx', type='topic')
@app.task(name='x.note')
def note(text):
    raise NotImplementedError
";

fn ours(redis: &Redis, toml: &str, diary: &Arc<Diary>) -> App {
    configured(redis, toml).tasks(tasks![note]).state(Arc::clone(diary))
}

async fn worker(redis: &Redis, diary: &Arc<Diary>) -> Running {
    start(&ours(redis, QUEUES, diary)).await
}

fn sorted(diary: &Diary) -> Vec<String> {
    let mut lines = diary.read();
    lines.sort();
    lines
}

/// Python's producers know no queue, only the exchange: the bindings are those that our worker made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_reaches_the_queues_that_our_worker_has_bound() {
    // interop: messages.exchanges in 5.7
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let diary = Arc::new(Diary::default());
    let running = worker(&redis, &diary).await;
    let proj = python.app(APP, &[("URL", &redis.url())]);
    let script = "
from proj import *
def send(text, **options):
    print(note.apply_async((text,), **options).get(timeout=20))
send('topic', exchange='tx', routing_key='a.b.c', declare=[topic])
send('direct', exchange='dx', routing_key='k', declare=[])
send('own', exchange='celery', routing_key='celery', declare=[])
send('anonymous', queue='plain')
def tell(name, **arguments):
    return app.control.broadcast(name, arguments=arguments, reply=True, timeout=5)[0].popitem()[1]
more = dict(queue='extra', exchange='ex', exchange_type='topic', routing_key='e.*')
print(tell('add_consumer', **more))
send('added', exchange='ex', routing_key='e.1', declare=[Exchange('ex', type='topic')])
for queue in tell('active_queues'):
    print(queue['name'], queue['exchange']['name'], queue['exchange']['type'], queue['routing_key'])
print(tell('add_consumer', queue='news', exchange='fan', exchange_type='fanout'))
";
    let said = proj.script(script).await;
    for line in [
        "celeriac topic",
        "celeriac direct",
        "celeriac own",
        "celeriac anonymous",
        "{'ok': 'add consumer extra'}",
        "celeriac added",
        "topical tx topic a.#",
        "plain dx direct k",
        "celery celery direct celery",
        "extra ex topic e.*",
    ] {
        assert!(said.lines().any(|one| one == line), "{line}:\n{said}");
    }
    assert!(said.contains("keeps nothing for a worker that is away"), "{said}");
    let expected =
        ["celery own", "extra added", "plain anonymous", "plain direct", "topical topic"];
    assert_eq!(sorted(&diary), expected);
    running.stop().await;
}

const STOCK: &str = "
import os
from celery import Celery
from kombu import Exchange, Queue
import redis
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.task_queues = [
    Queue('words', Exchange('px', type='topic'), routing_key='news.*'),
    Queue('every', Exchange('px', type='topic'), routing_key='#'),
    Queue('plain', Exchange('pd'), routing_key='k'),
    Queue('all', Exchange('pf', type='fanout')),
]
@app.task(name='x.note', bind=True)
def note(self, text):
    info = self.request.delivery_info
    redis.Redis.from_url(os.environ['URL']).rpush('ran', f\"{info['exchange']} {info['routing_key']} {text}\")
    return f'python {text}'
";

/// Calls by exchange reach every queue that a stock worker has bound; we declare only the fanout, whose
/// type no table tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_calls_reach_the_queues_that_python_has_bound() {
    // interop: messages.exchanges messages.fanout out 5.7
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let fan = "[task_queues]\nall = { exchange = \"pf\", exchange_type = \"fanout\" }\n";
    let app = configured(&redis, fan).tasks(tasks![note]).state(Arc::new(Diary::default()));
    let client = app.client().await.unwrap();
    let say = |text: &str| note::call(text.to_owned());
    let to = |text: &str, exchange: &str, key: &str| say(text).exchange(exchange).routing_key(key);
    // Before anybody is there: nothing is lost without a word.
    let error = client.send(to("early", "px", "news.a")).await.unwrap_err().to_string();
    assert!(error.contains("\"px\"") && error.contains("to no queue"), "{error}");
    let error = client.send(say("early").queue("all")).await.unwrap_err().to_string();
    assert!(error.contains("nobody listens to the fanout exchange pf"), "{error}");
    let proj = python.app(STOCK, &[("URL", &redis.url())]);
    let mut stock = proj.worker("stock", &["-c", "1"]).await;
    for (call, result) in [
        (to("one", "px", "news.a"), "python one"),
        (to("two", "px", "other"), "python two"),
        (to("three", "pd", "k"), "python three"),
    ] {
        let job = client.send(call).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), result);
    }
    // A worker of Celery is ready before it listens to its fanouts.
    let heard = until("the stock worker listens", PATIENCE, async || {
        client.send(say("four").queue("all")).await.ok()
    });
    assert_eq!(heard.await.get(PATIENCE).await.unwrap(), "python four");
    let error = client.send(to("lost", "pd", "other")).await.unwrap_err().to_string();
    assert!(error.contains("\"other\"") && error.contains("to no queue"), "{error}");
    let ran = until("each copy has run", PATIENCE, async || {
        let mut ran = redis.cli(&["LRANGE", "ran", "0", "-1"]).await.texts();
        ran.sort();
        (ran.len() >= 5).then_some(ran)
    })
    .await;
    let expected =
        ["pd k three", "pf celery four", "px news.a one", "px news.a one", "px other two"];
    assert_eq!(ran, expected);
    until("stock Celery has settled all", PATIENCE, async || {
        (redis.cli(&["HLEN", "unacked"]).await.int() == 0).then_some(())
    })
    .await;
    stock.terminate().await;
}

/// A fanout keeps nothing for a worker that is away, so ours does not pretend to consume one.
#[tokio::test]
async fn a_worker_of_a_fanout_is_refused_at_its_start() {
    let redis = redis_or_skip!();
    let fan = "[task_queues]\nall = { exchange = \"pf\", exchange_type = \"fanout\" }\n";
    let diary = Arc::new(Diary::default());
    let app = ours(&redis, fan, &diary);
    let error = app.worker().run().await.unwrap_err().to_string();
    assert!(error.contains("queue all cannot be bound to the fanout exchange pf"), "{error}");
    assert!(error.contains("PUB/SUB"), "{error}");
    // The others of the application can be consumed.
    let running = start_with(&app, app.worker().queues(["celery"])).await;
    let job = running.client.send(note::call("x".to_owned())).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), "celeriac x");
    running.stop().await;
}

/// Bindings are part of what a node says of itself: who loses the one makes the other anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_come_back_after_the_server_has_forgotten_everything() {
    let redis = redis_or_skip!();
    let diary = Arc::new(Diary::default());
    let app = ours(&redis, QUEUES, &diary);
    let lease = Duration::from_secs(1);
    let running = start_with(&app, app.worker().lease_expiry(lease)).await;
    redis.cli(&["FLUSHALL"]).await;
    until("the worker has bound its queues again", PATIENCE, async || {
        let bound = redis.cli(&["SCARD", "_kombu.binding.tx"]).await.int();
        let kept = redis.cli(&["SCARD", "_kombu.binding_permanent.dx"]).await.int();
        (bound == 1 && kept == 1).then_some(())
    })
    .await;
    let call = note::call("again".to_owned()).exchange("tx").routing_key("a.b");
    let job = running.client.send(call).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), "celeriac again");
    running.stop().await;
}

/// A task whose callback nobody would get has not done its work: it is a dead letter that says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_that_no_queue_takes_is_not_lost() {
    let redis = redis_or_skip!();
    let diary = Arc::new(Diary::default());
    let running = worker(&redis, &diary).await;
    let nowhere = note::call("callback".to_owned()).exchange("tx").routing_key("z");
    let call = note::call("first".to_owned()).link(nowhere);
    let job = running.client.send(call).await.unwrap();
    let error = job.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("\"tx\"") && error.contains("to no queue"), "{error}");
    let store = running.client.store();
    let letters = store.dead_list(&DeadFilter::default(), ALL).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].detail.contains("to no queue"), "{}", letters[0].detail);
    running.stop().await;
}

/// A retry goes to the queue that the message came from, not to every queue of its exchange again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_stays_in_its_queue() {
    #[task(name = "x.retries", max_retries = 1)]
    async fn retries(cx: Context, diary: State<Arc<Diary>>) -> Result {
        diary.note(format!("{} {}", cx.queue(), cx.attempt()));
        if cx.attempt() == 1 {
            return Err(TaskError::retry_in(Duration::from_millis(1), "again"));
        }
        Ok(())
    }
    let redis = redis_or_skip!();
    let diary = Arc::new(Diary::default());
    let two = "[task_queues]\n\
        one = { exchange = \"tx\", exchange_type = \"topic\", routing_key = \"a\" }\n\
        two = { exchange = \"tx\", exchange_type = \"topic\", routing_key = \"#\" }\n";
    let app = configured(&redis, two).tasks(tasks![retries]).state(Arc::clone(&diary));
    let running = start(&app).await;
    running.client.send(retries::call().exchange("tx").routing_key("a")).await.unwrap();
    until("both copies have run twice", PATIENCE, async || {
        (sorted(&diary) == ["one 1", "one 2", "two 1", "two 2"]).then_some(())
    })
    .await;
    let report = running.stop().await;
    assert_eq!(diary.read().len(), 4, "{report:?}");
}
