//! Messages: whatever Celery sends a native worker runs, whatever the library sends Celery runs.

use super::{Lane, assert_said};
use crate::kit::{PATIENCE, Place, until};
use crate::running::{application, start_with};
use celeriac::prelude::*;
use celeriac::{Compression, Serializer};
use celeriac_testkit::process::pass;
use celeriac_wire::{Special, State, Value};

lanes!(
    python_sends_and_a_native_worker_runs,
    the_library_sends_and_celery_runs,
    everything_is_behind_a_key_prefix,
);

/// Sends everything before there is a worker; then prints what came of it.
const SEND: &str = r"
from datetime import datetime, timedelta, timezone
from celery import chain, chord, group
from proj import app, redis
held = []
def call(name, *args, **kwargs):
    return app.signature(name, args, kwargs)
def send(label, signature, **options):
    result = signature.apply_async(**options)
    held.append((label, result))
    return result
for kind in ('json', 'msgpack', 'yaml'):
    send(f'body {kind}', call('t.add', 1, y=2), serializer=kind)
for kind in ('gzip', 'bzip2', 'lzma', 'brotli', 'zstd'):
    send(f'body {kind}', call('t.add', 1, 2), compression=kind)
send('types', call('t.echo', {'at': datetime(2026, 1, 2, tzinfo=timezone.utc), 'raw': b'\xff', 'e': 'é'}))
send('routed', call('t.header', 'task'))
send('header', call('t.header', 'tenant'), headers={'tenant': 'acme'})
send('stamps', call('t.header', 'stamps').stamp(trace='t-1'))
send('limits', call('t.header', 'timelimit'), time_limit=9, soft_time_limit=8)
send('shadow', call('t.header', 'shadow'), shadow='other')
send('repr', call('t.header', 'argsrepr'))
send('retries', call('t.flaky', 2), retries=2)
send('expired', call('t.add', 1, 1), expires=-5)
send('lives', call('t.add', 1, 1), expires=600)
send('stuck', call('t.steps'), time_limit=0.3)
late = datetime.now(timezone(timedelta(hours=5, minutes=30))) + timedelta(seconds=0.4)
waits = [send('countdown', call('t.header', 'eta'), countdown=0.4)]
waits += [send('eta', call('t.header', 'eta'), eta=late)]
for number in (9, 5, 0):
    call('t.note', f'priority {number}').apply_async(priority=number)
unstored = call('t.add', 1, 1).apply_async(ignore_result=True)
send('link', call('t.add', 1, 1), link=call('t.told'))
failing = send('link error', call('t.fails', 'no'), link_error=call('t.told'))
line = send('chain', chain(call('t.add', 1, 2), call('t.lineage').set(immutable=True)))
several = send('group', group(call('t.add', n, n) for n in range(3)))
grouped = group([call('t.header', 'group')]).apply_async()
send('chord', chord([call('t.add', 1, 1), call('t.add', 2, 2)], call('t.sum')))
stays = call('t.add', 1, 1).apply_async(countdown=600)
print('reply to', stays.id, app.thread_oid)
app.conf.task_protocol = 1
app.amqp.__dict__.pop('create_task_message', None)
send('old', call('t.add', 1, 2))
send('old link', call('t.add', 1, 2), countdown=0.1, link=call('t.told'))
redis.set('sent', 1)
for label, result in held:
    try:
        print(label, result.get(timeout=30))
    except Exception as error:
        print(label, type(error).__name__, error)
def early(result):
    done = result.date_done
    done = done if isinstance(done, datetime) else datetime.fromisoformat(done)
    return done < datetime.fromisoformat(result.get()).astimezone(timezone.utc)
print('early', any(early(one) for one in waits))
print('lineage', line.get() == [line.parent.id, line.parent.id])
print('of its group', grouped.get() == [grouped.id])
print('unstored', unstored.state, redis.exists(f'celery-task-meta-{unstored.id}'))
print('failing', failing.id)
";

async fn python_sends_and_a_native_worker_runs(lane: Lane) {
    // interop: messages.json messages.msgpack messages.yaml messages.types messages.kwargs in
    // interop: messages.zlib messages.bzip2 messages.lzma messages.protocol-1 messages.headers in
    // interop: messages.brotli messages.zstd messages.shadow messages.reply-to messages.chain in
    // interop: messages.stamps messages.limits messages.ignore-result messages.retries messages.lineage in
    // interop: messages.links messages.route queue.expires queue.eta queue.priority in
    // interop: results.group results.chord results.expired in
    let celery = lane.celery("app.conf.task_routes = {'t.header': {'queue': 'side'}}");
    let test = application(lane.ours(""));
    let worker = test.app.worker().queues(["celery", "side"]).concurrency(1);
    let (said, running) = lane.script_then_worker(&celery, SEND, worker, &test.app).await;
    let expected = [
        "body json 3",
        "body msgpack 3",
        "body yaml 3",
        "body gzip 3",
        "body bzip2 3",
        "body lzma 3",
        "body brotli 3",
        "body zstd 3",
        "types {'at': datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc), 'raw': b'\\xff', 'e': 'é'}",
        "routed t.header",
        "header acme",
        "stamps {'trace': 't-1'}",
        "limits [9, 8]",
        "shadow other",
        "repr ('argsrepr',)",
        "retries 3",
        "expired TaskRevokedError expired",
        "lives 2",
        "stuck TimeLimitExceeded TimeLimitExceeded(0.3,)",
        "link 2",
        "link error TaskFailed no",
        "group [0, 2, 4]",
        "chord 6",
        "old 3",
        "old link 3",
        "early False",
        "lineage True",
        "of its group True",
        "unstored PENDING 0",
    ];
    assert_said(&said, &expected);
    let reply_to = said.lines().find_map(|line| line.strip_prefix("reply to ")).unwrap();
    let (id, reply_to) = reply_to.split_once(' ').unwrap();
    let held = running.client.job::<Value>(id).view().await.unwrap().message.unwrap();
    assert_eq!(held.properties.reply_to(), Some(reply_to));
    let failing = said.lines().find_map(|line| line.strip_prefix("failing ")).unwrap();
    let failed = format!("told '{failing}'");
    let wanted = ["priority 0", "priority 5", "priority 9", "told 2", "told 3", &failed];
    until("callbacks have run", PATIENCE, async || {
        let noted = test.diary.read();
        wanted.iter().all(|text| noted.iter().any(|one| one == text)).then_some(())
    })
    .await;
    let noted = test.diary.read();
    let order: Vec<_> = noted.iter().filter(|one| one.starts_with("priority")).collect();
    assert_eq!(order, ["priority 0", "priority 5", "priority 9"]);
    running.stop().await;
}

/// Tasks that show what reached them.
const TASKS: &str = r"
@app.task(name='py.show', bind=True)
def show(self, *args, **kwargs):
    r = self.request
    return {'args': list(args), 'kwargs': kwargs, 'id': r.id, 'root': r.root_id, 'parent': r.parent_id,
            'group': r.group, 'retries': r.retries, 'timelimit': r.timelimit, 'shadow': r.shadow,
            'tenant': getattr(r, 'tenant', None) or (r.headers or {}).get('tenant'),
            'key': r.delivery_info['routing_key'], 'priority': r.delivery_info['priority'],
            'eta': r.eta, 'expires': r.expires, 'argsrepr': r.argsrepr, 'ignore_result': r.ignore_result,
            'types': [type(one).__name__ for one in args]}
@app.task(name='py.add')
def add(x, y): return x + y
@app.task(name='py.sum')
def total(values): return sum(values)
@app.task(name='py.note')
def note(text): redis.rpush('notes', str(text))
@app.task(name='py.fails')
def fails(): raise ValueError('bad', 42)
";

async fn the_library_sends_and_celery_runs(lane: Lane) {
    let celery = lane.celery(TASKS);
    let client = lane.ours("[routes]\n\"py.sum\" = \"side\"\n").client().await.unwrap();
    // interop: queue.priority out
    let note = |text: &str| Call::named("py.note").arg(text);
    for number in [9, 5, 0] {
        let call = note(&format!("priority {number}")).priority_number(number);
        client.send(call).await.unwrap();
    }
    let add = || Call::named("py.add").arg(&1).kwarg("y", &2);
    let mut sums = Vec::new();
    // interop: messages.json messages.msgpack messages.yaml messages.kwargs out
    for serializer in Serializer::ALL {
        sums.push(client.send(add().serializer(serializer)).await.unwrap());
    }
    // interop: messages.zlib messages.bzip2 messages.lzma out
    // interop: messages.brotli messages.zstd out
    for compression in Compression::ALL {
        sums.push(client.send(add().compression(compression)).await.unwrap());
    }
    let postponed = client.send(add().countdown(700.millis())).await.unwrap();
    let due = client.now() + std::time::Duration::from_millis(600);
    let expired = client.send(add().expires_in(1.millis())).await.unwrap();
    let lives = client.send(add().expires_in(600.secs())).await.unwrap();
    let unstored = client.send(add().ignore_result()).await.unwrap();
    let linked = client.send(add().link(Call::named("py.note"))).await.unwrap();
    let failing = Call::named("py.fails").link_error(Call::named("py.note"));
    let failing = client.send(failing).await.unwrap();
    pass(2.millis()).await;
    let _stock = lane.stock(&celery, &["-Q", "celery,side"]).await;
    for job in &sums {
        assert_eq!(job.get(PATIENCE).await.unwrap(), Value::from(3));
    }
    // interop: queue.eta queue.expires messages.ignore-result messages.links results.expired out
    assert_eq!(postponed.get(PATIENCE).await.unwrap(), Value::from(3));
    let done = postponed.record().await.unwrap().unwrap().meta.date_done().unwrap().unwrap();
    assert!(done >= due, "it ran at {done}, before {due}");
    lives.get(PATIENCE).await.unwrap();
    let error = expired.get(PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("revoked") && error.contains("expired"), "{error}");
    linked.get(PATIENCE).await.unwrap();
    failing.get(PATIENCE).await.unwrap_err();
    assert_eq!(unstored.state().await.unwrap(), State::Pending);
    let notes = until("all have noted", PATIENCE, async || {
        let notes = lane.redis.cli(&["LRANGE", "notes", "0", "-1"]).await.texts();
        (notes.len() == 5).then_some(notes)
    })
    .await;
    let order: Vec<_> = notes.iter().filter(|one| one.starts_with("priority")).collect();
    assert_eq!(order, ["priority 0", "priority 5", "priority 9"]);
    assert!(
        notes.contains(&"3".to_owned()) && notes.contains(&failing.id().to_owned()),
        "{notes:?}"
    );
    // interop: messages.types messages.headers messages.shadow messages.limits messages.retries out
    requests_show_what_was_sent(&client).await;
    // interop: messages.route messages.chain messages.lineage results.group results.chord out
    workflows(&client).await;
}

async fn requests_show_what_was_sent(client: &Client) {
    let raw = Special::Bytes(vec![255]).to_value();
    let when = Special::DateTime("2026-01-02T03:04:05+00:00".to_owned()).to_value();
    let call = Call::named("py.show").arg(&raw).arg(&when).arg("é").header("tenant", "acme");
    let call = call.shadow("other").task_id("my-id").retries(2).queue("side").priority_number(5);
    let call = call.time_limit(9.secs()).soft_time_limit(8.secs());
    let shown = client.send(call).await.unwrap().get(PATIENCE).await.unwrap();
    for (name, expected) in [
        ("id", "\"my-id\""),
        ("root", "\"my-id\""),
        ("parent", "null"),
        ("group", "null"),
        ("retries", "2"),
        ("timelimit", "[9, 8]"),
        ("shadow", "\"other\""),
        ("tenant", "\"acme\""),
        ("key", "\"side\""),
        ("priority", "5"),
        ("types", "[\"bytes\", \"datetime\", \"str\"]"),
        ("ignore_result", "false"),
    ] {
        let found = shown.get(name).unwrap().to_string().replace(".0", "");
        assert_eq!(found, expected, "{name} in {shown}");
    }
}

async fn workflows(client: &Client) {
    let add = |x: i64, y: i64| Call::<i64>::remote("py.add").arg(&x).arg(&y);
    let sum = || Call::<i64>::remote("py.sum");
    let line = chain(add(1, 2)).then(Call::<i64>::remote("py.add").arg(&3));
    assert_eq!(client.send(line).await.unwrap().get(PATIENCE).await.unwrap(), 6);
    let several = client.send_group(group((0..3).map(|n| add(n, n)))).await.unwrap();
    assert_eq!(several.get(PATIENCE).await.unwrap(), [0, 2, 4]);
    let member = client.send_group(group([Call::named("py.show")])).await.unwrap();
    let shown = member.get(PATIENCE).await.unwrap();
    assert_eq!(shown[0].get("group").unwrap().as_str(), Some(member.id()));
    let both = chord(group([add(1, 1), add(2, 2)])).then(sum());
    assert_eq!(client.send(both).await.unwrap().get(PATIENCE).await.unwrap(), 6);
    let lineage = chain(add(1, 2)).then(Call::named("py.show").immutable());
    let job = client.send(lineage).await.unwrap();
    let shown = job.get(PATIENCE).await.unwrap();
    let (root, parent) = (shown.get("root").unwrap(), shown.get("parent").unwrap());
    assert!(root == parent && root.as_str().is_some_and(|root| root != job.id()), "{shown}");
}

/// The prefix of the broker and that of the results are two settings; the second gets a `_` (Celery 5.4
/// adds one to every prefix, later ones only where nothing separates).
const PREFIX: &str = "
app.conf.broker_transport_options = {'global_keyprefix': 'pre:'}
app.conf.result_backend_transport_options = {'global_keyprefix': 'pre'}
@app.task(name='py.add')
def add(x, y): return x + y
";

async fn everything_is_behind_a_key_prefix(lane: Lane) {
    // interop: queue.prefix
    let celery = lane.celery(PREFIX);
    let prefixes = "global_keyprefix=pre%3A&result_keyprefix=pre";
    let place = Place::at(&format!("{}?{prefixes}", lane.redis.url()));
    let test = application(place.app());
    let _stock = lane.stock(&celery, &["-Q", "py"]).await;
    let running = start_with(&test.app, test.app.worker().concurrency(1)).await;
    let send = "from proj import app\nprint(app.send_task('t.add', (1, 2)).get(timeout=30))";
    assert_eq!(celery.script(send).await, "3\n");
    let add = Call::named("py.add").arg(&1).arg(&2).queue("py");
    let job = running.client.send(add).await.unwrap();
    assert_eq!(job.get(PATIENCE).await.unwrap(), Value::from(3));
    let keys = lane.redis.cli(&["KEYS", "*"]).await.texts();
    let outside: Vec<_> = keys.iter().filter(|key| !key.starts_with("pre")).collect();
    assert!(outside.is_empty(), "{outside:?}");
    running.stop().await;
}
