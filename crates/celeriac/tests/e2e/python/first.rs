//! The headline: an app that knows nothing of celeriac, and all that its callers see.

use super::Scene;
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const APP: &str = r"
import time
from celery import chain, chord, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

@app.task(name='add')
def add(x, y):
    return x + y

@app.task(name='total')
def total(numbers):
    return sum(numbers)

@app.task(name='who', bind=True)
def who(self):
    return [self.request.hostname, self.request.id, self.request.delivery_info['routing_key']]

@app.task(name='fails')
def fails(text):
    raise ValueError(text)

@app.task(name='again', bind=True, max_retries=3)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return self.request.retries

@app.task(name='steps', bind=True)
def steps(self):
    self.update_state(state='HALF', meta={'percent': 50})
    return 'done'

@app.task(name='ignores')
def ignores():
    raise Ignore()

@app.task(name='soft', soft_time_limit=0.5)
def soft():
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return 'stopped'

@app.task(name='hard', time_limit=0.5)
def hard():
    time.sleep(30)
";

/// Every way a task can end, as its caller sees it.
const CALLS: &str = r"
from celery import chain, chord, group
from proj import app, add, total, who, fails, again, steps, soft, hard
print(add.delay(2, 3).get(timeout=20))
name, id, key = who.delay().get(timeout=20)
print(name, key)
try:
    fails.delay('no rows').get(timeout=20)
except ValueError as error:
    print('failed', error)
print(again.delay().get(timeout=20))
print(steps.delay().get(timeout=20))
print(soft.delay().get(timeout=20))
try:
    hard.delay().get(timeout=20)
except Exception as error:
    print(type(error).__name__, error)
print(chain(add.s(1, 2), add.s(10))().get(timeout=20))
print(group(add.s(n, n) for n in range(5))().get(timeout=20))
print(chord([add.s(n, n) for n in range(5)], total.s())().get(timeout=20))
";

/// What every caller is told.
const SAID: &str = "5\nours@test celery\nfailed no rows\n2\ndone\nstopped\n\
                    TimeLimitExceeded TimeLimitExceeded(0.5,)\n13\n[0, 2, 4, 6, 8]\n20\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_knows_nothing_of_celeriac_runs() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let scene = Scene::new(redis, &python, APP);
    let worker = scene.worker("ours", &["-c", "2"]).await;
    let said = scene.app.script(CALLS).await;
    assert_eq!(said, SAID, "its log:\n{}", worker.log());
}

/// Messages that will not run, and a run that is terminated.
const REVOKED: &str = r"
from celery.exceptions import TaskRevokedError
from proj import app, add, hard
def end(result):
    try:
        return result.get(timeout=20)
    except TaskRevokedError as error:
        return error
print(end(add.apply_async((1, 1), expires=-1)))
waiting = add.apply_async((1, 1), countdown=600)
waiting.revoke()
print(end(waiting))
running = hard.apply_async(time_limit=600)
while not app.control.inspect().active()['ours@test']:
    pass
running.revoke(terminate=True)
print(end(running))
print(end(add.delay(2, 3)))
from celery.exceptions import WorkerLostError
try:
    app.send_task('poison').get(timeout=20)
except WorkerLostError:
    print('lost')
";

/// Another database of the broker's server: the worker writes them, with its notes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_may_be_kept_in_another_database() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    results_kept_at(redis, &python, "os.environ['URL'].rsplit('/', 1)[0] + '/1'", true).await;
}

/// Children and the steward store them, through the app's own backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_may_be_kept_somewhere_else() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    // For all that the worker knows, this is another server.
    let place = "f\"redis://localhost:{os.environ['URL'].rsplit(':', 1)[1][:-2]}/1\"";
    results_kept_at(redis, &python, place, false).await;
}

async fn results_kept_at(redis: Redis, python: &Python, place: &str, by_worker: bool) {
    let more = format!(
        "app.conf.result_backend = {place}\n{APP}\n\
         from celery.signals import task_revoked\n\
         @task_revoked.connect\n\
         def note(**kwargs):\n    app.backend.client.incr('revoked')\n\
         @app.task(name='poison', acks_late=True, reject_on_worker_lost=True)\n\
         def poison():\n    os._exit(1)\n"
    );
    let scene = Scene::new(redis, python, &more);
    let worker = scene.worker("ours", &["-c", "2"]).await;
    let said = scene.app.script(CALLS).await;
    assert_eq!(said, SAID, "its log:\n{}", worker.log());
    let said = scene.app.script(REVOKED).await;
    assert_eq!(said, "expired\nrevoked\nterminated\n5\nlost\n", "its log:\n{}", worker.log());
    // A receiver of Celery's main process has heard of all three.
    let mut results = scene.redis.connect().await;
    results.call(&["SELECT", "1"]).await.unwrap();
    assert_eq!(results.call(&["GET", "revoked"]).await.unwrap().text(), "3");
    let last =
        scene.app.script("from proj import add\nprint(add.delay(1, 1).get(timeout=20))").await;
    assert_eq!(last, "2\n");
    let ids = results.call(&["KEYS", "celery-task-meta-*"]).await.unwrap().texts();
    let mut noted = 0;
    for id in &ids {
        noted +=
            usize::from(results.call(&["GET", id]).await.unwrap().text().contains("\"celeriac\""));
    }
    assert_eq!(noted > 0, by_worker, "{noted} of {}", ids.len());
}
