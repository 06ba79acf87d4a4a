//! Remote control in brief, with each version; `redis::control` has all of it with the newest.

use super::{Lane, assert_said};
use crate::kit::{PATIENCE, until};
use crate::running::{application, start_with};
use celeriac::Ask;
use celeriac::prelude::*;
use celeriac_wire::{Map, Value};

lanes!(celery_asks_and_moves_our_worker, we_ask_and_move_a_worker_of_celery);

const ASK: &str = r"
from proj import app
def tell(name, **arguments):
    reply = app.control.broadcast(name, arguments=arguments, destination=['ours@test'],
                                  reply=True, timeout=20)
    return reply[0]['ours@test']
ask = app.control.inspect(['ours@test'], timeout=20)
print('ping', ask.ping())
stats = ask.stats()['ours@test']
pool = stats['pool']['max-concurrency']
print('stats', stats['broker']['transport'], pool, stats['total'], type(stats['pid']).__name__)
print('registered', 't.add' in ask.registered()['ours@test'])
steps = app.send_task('t.steps')
while not (running := ask.active()['ours@test']): pass
print('active', running[0]['id'] == steps.id, running[0]['name'], running[0]['hostname'])
later = app.send_task('t.add', (1, 1), countdown=600)
print('revoked', tell('revoke', task_id=later.id) == {'ok': f'tasks {{{later.id!r}}} flagged as revoked'})
print('knows', later.id in ask.revoked()['ours@test'])
steps.revoke(terminate=True)
try:
    steps.get(timeout=30)
except Exception as error:
    print('terminated', type(error).__name__, error)
print('rate', tell('rate_limit', task_name='t.add', rate_limit='100/s'))
print('queue', tell('add_consumer', queue='extra'))
print('queues', sorted(one['name'] for one in ask.active_queues()['ours@test']))
print('from it', app.send_task('t.add', (1, 1), queue='extra').get(timeout=30))
print('cancel', tell('cancel_consumer', queue='extra'))
print('clock', tell('clock')['clock'] > 0)
app.control.shutdown(destination=['ours@test'])
";

async fn celery_asks_and_moves_our_worker(lane: Lane) {
    // interop: control.ping control.stats control.registered control.active control.revoke in
    // interop: control.terminate control.rate-limit control.consumers control.shutdown in
    let celery = lane.celery("");
    let test = application(lane.ours(""));
    let worker = test.app.worker().name("ours@test").concurrency(1);
    let running = start_with(&test.app, worker).await;
    let said = celery.script(ASK).await;
    assert_said(
        &said,
        &[
            "ping {'ours@test': {'ok': 'pong'}}",
            "stats redis 1 {} int",
            "registered True",
            "active True t.steps ours@test",
            "revoked True",
            "knows True",
            "terminated TaskRevokedError terminated",
            "rate {'ok': 'new rate limit set successfully'}",
            "queue {'ok': 'add consumer extra'}",
            "queues ['celery', 'extra']",
            "from it 2",
            "cancel {'ok': 'no longer consuming from extra'}",
            "clock True",
        ],
    );
    running.ended().await;
}

async fn we_ask_and_move_a_worker_of_celery(lane: Lane) {
    // interop: control.ping control.stats control.registered control.active control.revoke out
    // interop: control.rate-limit control.consumers control.shutdown results.revoked out
    let celery = lane.celery(
        "@app.task(name='py.waits')\ndef waits(): redis.blpop('go')\n\
         @app.task(name='py.add')\ndef add(x, y): return x + y\n",
    );
    let app = lane.ours("");
    let (client, remote) = (app.client().await.unwrap(), app.remote().await.unwrap());
    // Another pool than `solo`, which answers nothing while it runs a task.
    let more = ["-P", "threads", "-c", "1", "--without-mingle", "--without-gossip"];
    let mut stock = celery.worker("stock", &more).await;
    let whom = Ask::nodes(["stock@test"]).within(PATIENCE);
    let ask = async |name: &str, arguments: &[(&str, &str)]| -> Value {
        let arguments: Map = arguments
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect();
        let mut replies = remote.ask(name, arguments, &whom).await.unwrap();
        let (node, value) = replies.pop().expect("it answers");
        assert_eq!(node, "stock@test");
        value
    };
    let told = async |name: &str, arguments: &[(&str, &str)], expected: &str| {
        assert_eq!(ask(name, arguments).await.to_string(), expected, "{name}");
    };
    told("ping", &[], r#"{"ok": "pong"}"#).await;
    let stats = ask("stats", &[]).await;
    assert!(stats.get("pool").is_some() && stats.get("rusage").is_some(), "{stats}");
    let registered = ask("registered", &[]).await.to_string();
    assert!(registered.contains("\"py.waits\""), "{registered}");
    let job = client.send(Call::named("py.waits")).await.unwrap();
    until("it runs", PATIENCE, async || {
        ask("active", &[]).await.to_string().contains(job.id()).then_some(())
    })
    .await;
    told("revoke", &[("task_id", "some-id")], r#"{"ok": "tasks {'some-id'} flagged as revoked"}"#)
        .await;
    assert_eq!(ask("revoked", &[]).await.to_string(), "[\"some-id\"]");
    let revoked = client.send(Call::named("py.waits").task_id("some-id")).await.unwrap();
    let rate = [("task_name", "py.add"), ("rate_limit", "10/m")];
    told("rate_limit", &rate, r#"{"ok": "new rate limit set successfully"}"#).await;
    told("add_consumer", &[("queue", "extra")], r#"{"ok": "add consumer extra"}"#).await;
    lane.redis.cli(&["RPUSH", "go", "1"]).await;
    let add = Call::named("py.add").arg(&1).arg(&2).queue("extra");
    assert_eq!(client.send(add).await.unwrap().get(PATIENCE).await.unwrap(), Value::from(3));
    let error = revoked.get(PATIENCE).await.unwrap_err();
    assert!(matches!(error, celeriac::JobError::Revoked { .. }), "{error}");
    let cancelled = r#"{"ok": "no longer consuming from extra"}"#;
    told("cancel_consumer", &[("queue", "extra")], cancelled).await;
    remote.cast("shutdown", Map::new(), &whom).await.unwrap();
    assert!(stock.process().ended_within(PATIENCE).await.success());
}
