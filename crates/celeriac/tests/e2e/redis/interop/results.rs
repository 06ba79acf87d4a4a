//! Results: Python's `AsyncResult` of what a native worker ran, and a `Job` of what Celery ran.

use super::{Lane, Wire, assert_said, result_key};
use crate::kit::PATIENCE;
use crate::running::{application, start_with};
use celeriac::JobError;
use celeriac::prelude::*;
use celeriac_wire::{State, Value};

lanes!(
    pythons_get_hears_of_a_native_task,
    python_reads_what_a_native_worker_stored,
    a_job_hears_of_a_task_of_celery,
    a_job_reads_what_celery_stored,
    a_success_is_never_written_over,
    chords_have_members_in_both_kinds_of_workers,
);

/// Waits for one task and says what it heard on the way; each time it tells when.
const GET: &str = "
from proj import app
heard = []
def hears(meta):
    heard.append((meta['status'], meta['result']))
    app.backend.client.set('heard', len(heard))
result = app.send_task('t.steps', task_id='steps')
value = result.get(timeout=30, on_message=hears)
print('value', value)
print([state for state, _ in heard])
print(heard[0][1])
print(heard[1][1])
";

/// No poll: after the result is published nobody reads its key any more.
async fn pythons_get_hears_of_a_native_task(lane: Lane) {
    // interop: results.get results.custom-states in
    let test = application(lane.ours(""));
    let key = result_key("steps");
    let mut wire = Wire::of(&lane.redis).await;
    let celery = lane.celery("");
    let running = start_with(&test.app, test.app.worker().concurrency(1)).await;
    let telling = async {
        wire.sees("SUBSCRIBE", &key).await;
        for _ in 0..2 {
            wire.sees("SET", "heard").await;
            test.gate.0.add_permits(1);
        }
    };
    let (said, ()) = tokio::join!(celery.script(GET), telling);
    let progress = "{'current': 1, 'total': 4, 'percent': 25.0, 'message': 'a quarter'}";
    let states = "['PROGRESS', 'UPLOADING', 'SUCCESS']";
    assert_said(&said, &["value done", states, progress, "{'bytes': 17}"]);
    wire.assert_heard(&lane.redis, &key).await;
    running.stop().await;
}

/// Everything else that an `AsyncResult` and a `GroupResult` know.
const READ: &str = r"
from celery import chain, group
from celery.exceptions import TaskRevokedError, TimeoutError
from celery.result import AsyncResult, GroupResult
from proj import app, redis
def call(name, *args, **kwargs):
    return app.signature(name, args, kwargs)
one = call('t.add', 1, y=2).apply_async(queue='side')
print('value', one.get(timeout=30), one.state, one.successful(), one.ready())
print('extended', one.name, one.args, one.kwargs, one.worker, one.retries, one.queue)
print('retried', call('t.flaky', 2).apply_async().get(timeout=30))
bad = call('t.fails', 'no rows').delay()
try:
    bad.get(timeout=30)
except Exception as error:
    print('failed', type(error).__module__, type(error).__name__, error)
print('state', bad.state, bad.failed(), repr(bad.result), bad.traceback)
wrong = call('t.add', 1).delay()
try:
    wrong.get(timeout=30)
except TypeError as error:
    print('typed', error)
parent = call('t.parent').delay()
child = parent.get(timeout=30)
print('children', [one.id for one in parent.children] == [child])
print('collected', [value for _, value in parent.collect(timeout=30)] == [child, [parent.id, parent.id]])
child = AsyncResult(child, app=app)
print('parent id', child.parent is None, child._get_task_meta()['parent_id'] == parent.id)
line = chain(call('t.add', 1, 2), call('t.add', 3)).delay()
print('chain', line.get(timeout=30), [one.id for one in line.parent.children] == [line.id])
linked = call('t.add', 1, 2).apply_async(link=[call('t.told'), call('t.add', 4)])
print('linked', linked.get(timeout=30), [one.get(timeout=30) for one in linked.children])
several = group(call('t.add', n, n) for n in range(3)).apply_async()
print('several', several.get(timeout=30))
several.save()
again = GroupResult.restore(several.id, app=app)
print('group', again.get(timeout=30), again.completed_count(), again.successful())
print('joined', again.join_native(timeout=30))
print('of its group', all(one._get_task_meta()['group_id'] == several.id for one in several))
ttl = redis.ttl(f'celery-task-meta-{one.id}')
print('expiry', 3500 < ttl <= 3600, ttl)
one.forget()
print('forgotten', AsyncResult(one.id, app=app).state)
gone = call('t.add', 1, 1).apply_async(countdown=600)
ask = app.control.inspect(['ours@test'], timeout=20)
while gone.id not in str(ask.scheduled()): pass
gone.revoke()
try:
    gone.get(timeout=30)
except TaskRevokedError as error:
    print('revoked', error)
print('kept', bad.id)
";

async fn python_reads_what_a_native_worker_stored(lane: Lane) {
    // interop: results.states results.exceptions results.extended results.children in
    // interop: results.saved-groups results.forget results.expiry results.revoked results.retry in
    let celery = lane.celery("app.conf.result_extended = True");
    let test = application(lane.ours("result_extended = true\nresult_expires = \"1h\"\n"));
    let worker = test.app.worker().name("ours@test").queues(["celery", "side"]).concurrency(2);
    let running = start_with(&test.app, worker).await;
    let said = celery.script(READ).await;
    assert_said(
        &said,
        &[
            "value 3 SUCCESS True True",
            "extended t.add [1] {'y': 2} ours@test 0 side",
            "retried 3",
            "failed celery.exceptions TaskFailed no rows",
            "state FAILURE True TaskFailed('no rows') None",
            "children True",
            "collected True",
            "parent id True True",
            "chain 6 True",
            "linked 3 [[None, 7]]",
            "several [0, 2, 4]",
            "group [0, 2, 4] 3 True",
            "joined [0, 2, 4]",
            "of its group True",
            "forgotten PENDING",
            "revoked revoked",
        ],
    );
    assert!(said.contains("typed ") && said.contains("expiry True"), "{said}");
    // Ours forgets, and Python sees it.
    let kept = said.lines().find_map(|line| line.strip_prefix("kept ")).unwrap();
    assert!(running.client.job::<Value>(kept).forget().await.unwrap());
    let look = format!("from proj import app\nprint(app.AsyncResult('{kept}').state)");
    assert_eq!(celery.script(&look).await, "PENDING\n");
    running.stop().await;
}

const TASKS: &str = r"
app.conf.result_extended = True
app.conf.result_expires = 3600
@app.task(name='py.steps', bind=True)
def steps(self):
    redis.blpop('go')
    meta = {'current': 1, 'total': 4, 'percent': 25.0, 'message': 'a quarter'}
    self.update_state(state='PROGRESS', meta=meta)
    redis.blpop('go')
    self.update_state(state='UPLOADING', meta={'bytes': 17})
    redis.blpop('go')
    return 'done'
@app.task(name='py.add')
def add(x, y): return x + y
@app.task(name='py.sum')
def total(values): return sum(values)
@app.task(name='py.fails')
def fails(): raise ValueError('bad', 42)
@app.task(name='py.flaky', bind=True)
def flaky(self):
    if self.request.retries < 2: raise self.retry(countdown=0, exc=KeyError('not yet'))
    return self.request.retries
@app.task(name='py.parent', bind=True)
def parent(self): return [add.delay(1, 2).id, (add.s(1, 1) | add.s(2)).apply_async().id]
";

async fn a_job_hears_of_a_task_of_celery(lane: Lane) {
    // interop: results.get results.custom-states out
    let celery = lane.celery(TASKS);
    let client = lane.ours("").client().await.unwrap();
    let mut wire = Wire::of(&lane.redis).await;
    let _stock = lane.stock(&celery, &[]).await;
    let job = client.send(Call::named("py.steps").task_id("steps")).await.unwrap();
    let key = result_key("steps");
    let go = async || drop(lane.redis.cli(&["RPUSH", "go", "1"]).await);
    go().await;
    wire.sees("PUBLISH", &key).await;
    let progress = job.progress().await.unwrap().unwrap();
    assert_eq!((progress.current, progress.message.as_str()), (1, "a quarter"));
    go().await;
    wire.sees("PUBLISH", &key).await;
    assert_eq!(job.state().await.unwrap(), State::Custom("UPLOADING".to_owned()));
    let telling = async {
        wire.sees("SUBSCRIBE", &key).await;
        wire.sees("GET", &key).await;
        go().await;
    };
    let (value, ()) = tokio::join!(job.get(PATIENCE), telling);
    assert_eq!(value.unwrap(), Value::from("done"));
    wire.assert_heard(&lane.redis, &key).await;
}

async fn a_job_reads_what_celery_stored(lane: Lane) {
    // interop: results.exceptions results.traceback results.retry results.extended results.children out
    // interop: results.states results.forget results.expiry out
    // Versions before 5.7 do not know the last setting.
    let celery = lane.celery(&format!("{TASKS}app.conf.result_compression = 'zlib'\n"));
    let client = lane.ours("").client().await.unwrap();
    let _stock = lane.stock(&celery, &[]).await;
    let call = async |call: Call<Value>| client.send(call).await.unwrap();
    let add = call(Call::named("py.add").arg(&1).kwarg("y", &2)).await;
    let bad = call(Call::named("py.fails")).await;
    let flaky = call(Call::named("py.flaky")).await;
    let parent = call(Call::named("py.parent")).await;
    assert_eq!(add.get(PATIENCE).await.unwrap(), Value::from(3));
    let record = add.record().await.unwrap().unwrap();
    assert_eq!(record.task.as_deref(), Some("py.add"));
    assert_eq!(record.worker.as_deref(), Some("stock@test"));
    assert_eq!(record.queue.as_deref(), Some("celery"));
    assert_eq!(record.meta.args().unwrap().to_string(), "[1]");
    assert_eq!(record.meta.kwargs().unwrap().to_string(), "{\"y\": 2}");
    assert!(record.meta.date_done().unwrap().is_some());
    // interop: results.compression 5.7
    let stored = lane.redis.cli(&["GETRANGE", &result_key(add.id()), "0", "17"]).await.text();
    assert_eq!(stored == "\0celery-compressed", lane.python.version == "5.7", "{stored}");
    let ttl = lane.redis.cli(&["TTL", &result_key(add.id())]).await.int();
    assert!((3500..=3600).contains(&ttl), "{ttl}");
    let error = bad.get(PATIENCE).await.unwrap_err();
    let JobError::Failed { exception, traceback, .. } = error else { panic!("{error}") };
    assert_eq!(exception, "ValueError('bad', 42)");
    assert!(traceback.unwrap().contains("raise ValueError('bad', 42)"));
    assert_eq!(flaky.get(PATIENCE).await.unwrap(), Value::from(2));
    assert_eq!(flaky.record().await.unwrap().unwrap().retries, 2);
    let sent = parent.get(PATIENCE).await.unwrap();
    let record = parent.record().await.unwrap().unwrap();
    assert_eq!(record.meta.children().unwrap().len(), 2);
    let first = sent.as_array().unwrap()[0].as_str().unwrap();
    assert!(record.meta.children().unwrap()[0].to_string().contains(first));
    assert!(add.forget().await.unwrap());
    let look = format!("from proj import app\nprint(app.AsyncResult('{}').state)", add.id());
    assert_eq!(celery.script(&look).await, "PENDING\n");
    let forget = format!("from proj import app\napp.AsyncResult('{}').forget()", flaky.id());
    celery.script(&forget).await;
    assert_eq!(flaky.state().await.unwrap(), State::Pending);
}

/// Sends a second task with the id of the first, which has succeeded.
const AGAIN: &str = r"
from proj import app, redis
def again(name, *args, **options):
    app.send_task(name, args, task_id='one', **options)
print(app.send_task('t.add', (1, 2), task_id='one').get(timeout=30))
again('t.fails', 'late')
again('t.add', 1, 2, expires=-5)
again('py.fails', queue='py')
app.send_task('t.add', (1, 2), task_id='two').get(timeout=30)
app.send_task('py.add', (1, 2), task_id='three', queue='py').get(timeout=30)
app.send_task('t.add', (1, 2), task_id='last').get(timeout=30)
print(app.AsyncResult('one').state)
";

async fn a_success_is_never_written_over(lane: Lane) {
    // interop: results.never-over-success
    let celery = lane.celery(TASKS);
    let test = application(lane.ours(""));
    let _stock = lane.stock(&celery, &["-Q", "py"]).await;
    let running = start_with(&test.app, test.app.worker().concurrency(1)).await;
    assert_eq!(celery.script(AGAIN).await, "3\nSUCCESS\n");
    let job = running.client.job::<i64>("one");
    assert_eq!(job.get(PATIENCE).await.unwrap(), 3);
    // A success of Celery's stands against ours as well.
    running
        .client
        .send(crate::running::fails::call("late".to_owned()).task_id("three"))
        .await
        .unwrap();
    running.client.send(crate::running::add::call(1, 1).task_id("after")).await.unwrap();
    running.client.job::<i64>("after").get(PATIENCE).await.unwrap();
    assert_eq!(running.client.job::<i64>("three").get(PATIENCE).await.unwrap(), 3);
    running.stop().await;
}

/// Members and body here and there, in both orders of ending; and a member that fails.
const CHORDS: &str = r"
from celery import chord
from celery.exceptions import ChordError
from proj import app
def ours(name, *args, **options):
    return app.signature(f't.{name}', args, **options)
def theirs(name, *args, **options):
    return app.signature(f'py.{name}', args, queue='py', **options)
add = [ours('add', 1, 2), theirs('add', 3, 4)]
sums = [chord(members, body('sum')).delay() for members in (add, add[::-1]) for body in (ours, theirs)]
many = [kind('add', n, n) for n in range(20) for kind in (ours, theirs)]
sums.append(chord(many, ours('sum')).delay())
print([one.get(timeout=30) for one in sums])
for bad, label in ((ours('fails', 'no rows'), 'ours'), (theirs('fails'), 'theirs')):
    for body in (ours, theirs):
        try:
            failing = chord([ours('add', 1, 1), theirs('add', 1, 1), bad], body('sum')).delay()
            app.AsyncResult(failing.id).get(timeout=30)
        except ChordError as error:
            print(label, str(error).partition(' raised ')[2])
";

async fn chords_have_members_in_both_kinds_of_workers(lane: Lane) {
    // interop: results.mixed-chord
    let celery = lane.celery(TASKS);
    let test = application(lane.ours(""));
    let _stock = lane.stock(&celery, &["-Q", "py"]).await;
    let running = start_with(&test.app, test.app.worker().concurrency(2)).await;
    let expected = "[10, 10, 10, 10, 760]\n\
                    ours TaskFailed('no rows')\nours TaskFailed('no rows')\n\
                    theirs ValueError('bad', 42)\ntheirs ValueError('bad', 42)\n";
    assert_eq!(celery.script(CHORDS).await, expected);
    // The same sent by the library.
    let ours = crate::running::add::call(1, 2);
    let theirs = || Call::<i64>::remote("py.add").arg(&3).arg(&4).queue("py");
    for body in [Call::<i64>::remote("t.sum"), Call::remote("py.sum").queue("py")] {
        let both = chord(group([ours.clone(), theirs()])).then(body);
        assert_eq!(running.client.send(both).await.unwrap().get(PATIENCE).await.unwrap(), 10);
    }
    running.stop().await;
}
