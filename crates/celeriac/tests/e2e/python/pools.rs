//! Pools whose tasks share a process: limits hold, neighbours are not harmed, and one that dies is told.

use super::Scene;
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const APP: &str = r"
import asyncio, contextvars, ctypes, os, signal, threading, time
from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded

redis = app.backend.client

@app.task(name='pid')
def pid():
    return os.getpid()

@app.task(name='waits', bind=True)
def waits(self, key):
    redis.rpush('began', self.request.id)
    assert redis.blpop(key)
    return [os.getpid(), self.request.id, current_task.request.id]

@app.task(name='sleeps', soft_time_limit=0.3, time_limit=0.9)
def sleeps():
    ctypes.CDLL(None).sleep(600)

@app.task(name='polite', soft_time_limit=0.3)
def polite():
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return 'stopped'

@app.task(name='dies', acks_late=True, reject_on_worker_lost=True)
def dies():
    redis.incr('died')
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name='late', acks_late=True, reject_on_worker_lost=True)
def late():
    if redis.incr('runs') == 1:
        redis.rpush('began', 'late')
        redis.blpop('never')
    return 'again'

mark = contextvars.ContextVar('mark', default=None)

@app.task(name='meets', bind=True)
async def meets(self, count):
    '''Returns when so many of its kind are in the same process.'''
    assert mark.get() is None
    mark.set(self.request.id)
    me = self.request.id
    here = meets.__dict__.setdefault('here', [])
    here.append(me)
    while len(here) < count:
        await asyncio.sleep(0.01)
    assert mark.get() == me == self.request.id == current_task.request.id
    return me

@app.task(name='cleans')
async def cleans():
    redis.rpush('began', 'cleans')
    try:
        await asyncio.sleep(600)
    finally:
        redis.rpush('cleaned', 'yes')

@app.task(name='again', bind=True, max_retries=2)
async def again(self):
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries
";

/// What every script begins with.
const KIT: &str = r"
from proj import *
def end(result):
    try:
        return 'returned', result.get(timeout=25)
    except BaseException as error:
        return type(error).__name__, str(error)
def other(*pids):
    '''The next process that takes tasks.'''
    while (found := pid.delay().get(timeout=25)) in pids:
        pass
    return found
def began(count=1):
    for _ in range(count):
        assert redis.blpop('began', timeout=25)
";

/// A scene of this app, played under a pool.
async fn play(redis: Redis, python: &Python, arguments: &[&str], script: &str) -> (String, String) {
    let scene = Scene::new(redis, python, APP);
    let worker = scene.worker("ours", arguments).await;
    let said = scene.app.script(&format!("{KIT}{script}")).await;
    (said, worker.log())
}

const LIMITS: &str = r"
beside = [waits.delay('go') for _ in range(3)]
began(3)
first = pid.delay().get(timeout=25)
print(end(polite.delay())[1])
print(end(sleeps.delay())[0])
# The task that does not stop has its process for itself and those that were there.
second = other(first)
redis.rpush('go', 1, 2, 3)
for one in beside:
    kind, (own, *ids) = end(one)
    print(kind, own == first, ids == [one.id] * 2)
print(end(sleeps.delay())[0])
other(first, second)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_stop_in_a_thread_costs_its_neighbours_nothing() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let (said, log) = play(redis, &python, &["-P", "threads", "-c", "5"], LIMITS).await;
    let beside = "returned True True\n".repeat(3);
    let expected = format!("stopped\nTimeLimitExceeded\n{beside}TimeLimitExceeded\n");
    assert_eq!(said, expected, "its log:\n{log}");
}

const DEATHS: &str = r"
early = waits.delay('never')
began()
again_ = late.delay()
began()
print(end(dies.delay())[0], redis.get('died'))
print(*end(again_))
print(end(early)[0])
print(end(pid.delay())[0])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_takes_its_tasks_along_and_each_is_told() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let (said, log) = play(redis, &python, &["-P", "threads", "-c", "4"], DEATHS).await;
    let expected = "WorkerLostError b'3'\nreturned again\nWorkerLostError\nreturned\n";
    assert_eq!(said, expected, "its log:\n{log}");
}

const COROUTINES: &str = r"
met = [meets.delay(100) for _ in range(100)]
print(sorted(end(one) for one in met) == sorted(('returned', one.id) for one in met))
print(*end(again.delay()))
gone = cleans.delay()
began()
gone.revoke(terminate=True)
print(redis.blpop('cleaned', timeout=25)[1])
print(end(gone)[0])
print(end(pid.delay())[0])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coroutines_are_in_one_process_together_and_can_be_cancelled() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let (said, log) = play(redis, &python, &["-P", "asyncio", "-c", "100"], COROUTINES).await;
    let expected = "True\nreturned 2\nb'yes'\nTaskRevokedError\nreturned\n";
    assert_eq!(said, expected, "its log:\n{log}");
}

const GREENLETS: &str = r"
beside = [waits.delay('go') for _ in range(20)]
began(20)
print(end(polite.delay())[1])
redis.rpush('go', *range(20))
print({end(one)[0] for one in beside})
print(end(sleeps.delay())[0])
print(end(pid.delay())[0])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greenlets_share_a_process_and_their_limits_hold() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let (said, log) = play(redis, &python, &["-P", "gevent", "-c", "30"], GREENLETS).await;
    let expected = "stopped\n{'returned'}\nTimeLimitExceeded\nreturned\n";
    assert_eq!(said, expected, "its log:\n{log}");
}

const RECYCLED: &str = r"
pids = [pid.delay().get(timeout=25) for _ in range(7)]
print([pids.count(one) for one in dict.fromkeys(pids)])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_process_is_replaced_after_its_tasks() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let arguments = ["-P", "threads", "-c", "2", "--max-tasks-per-child", "3"];
    let (said, log) = play(redis, &python, &arguments, RECYCLED).await;
    assert_eq!(said, "[3, 3, 1]\n", "its log:\n{log}");
}

/// A thread that a module starts does not live in a fork.
const THREAD: &str = r"
import os, threading, time
from billiard import current_process

threading.Thread(target=time.sleep, args=(600,), name='of the module', daemon=True).start()

@app.task(name='where')
def where():
    alive = [one.name for one in threading.enumerate()].count('of the module')
    return alive, os.getppid(), current_process().name.split('-')[0]

@app.task(name='dies')
def dies():
    os._exit(1)

@app.task(name='long', time_limit=0.5)
def long():
    time.sleep(600)
";

const WHERE: &str = r"
from proj import *
def end(result):
    try:
        return result.get(timeout=25)
    except BaseException as error:
        return type(error).__name__
print(end(where.delay()))
print(end(dies.delay()), end(long.delay()))
print(end(where.delay()))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_may_load_the_app_itself() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let scene = Scene::with(redis, &python, THREAD, &[("CELERIAC_START_METHOD", "spawn")]);
    for (pool, name) in [("prefork", "SpawnPoolWorker"), ("threads", "MainProcess")] {
        let mut worker = scene.worker("ours", &["-P", pool, "-c", "2"]).await;
        let said = scene.app.script(WHERE).await;
        let place = format!("[1, {}, '{name}']", worker.pid());
        let expected = format!("{place}\nWorkerLostError TimeLimitExceeded\n{place}\n");
        assert_eq!(said, expected, "{pool}, its log:\n{}", worker.log());
        assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
    }
}
