//! What `[tasks]` of `celeriac.toml` adds to an app's tasks.

use super::Scene;
use super::settings::celeriac;
use celeriac_testkit::services::python::{CeleryWorker, Python};
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::Value;

/// What every app begins with.
const KIT: &str = r"
redis = app.backend.client

@app.task(name='meets')
def meets():
    '''Holds its slot: as many of them as there are slots run in every worker.'''
    redis.rpush('met', 1)
    assert redis.blpop('part', timeout=25)
";

/// What every script begins with.
const SCRIPT: &str = r"
from proj import *
def end(result):
    try:
        return 'returned', result.get(timeout=25)
    except BaseException as error:
        return type(error).__name__, str(error)
def came(name, count):
    for _ in range(count):
        assert redis.blpop(name, timeout=25), name
def passed(slots):
    '''Every slot of every worker has taken a message that was sent after all others.'''
    held = [meets.delay() for _ in range(slots)]
    came('met', slots)
    redis.rpush('part', *range(slots))
    for one in held:
        one.get(timeout=25)
";

/// An app, its settings file, and two workers of two slots.
struct Two {
    scene: Scene,
    workers: [CeleryWorker; 2],
}

impl Two {
    async fn start(redis: Redis, python: &Python, app: &str, file: &str) -> Self {
        let scene = Scene::new(redis, python, &format!("{KIT}{app}"));
        std::fs::write(scene.app.folder().join("celeriac.toml"), file).unwrap();
        let workers =
            [scene.worker("one", &["-c", "2"]).await, scene.worker("two", &["-c", "2"]).await];
        Self { scene, workers }
    }

    async fn says(&self, script: &str, expected: &str) {
        let said = self.scene.app.script(&format!("{SCRIPT}{script}")).await;
        let [one, two] = self.workers.each_ref().map(CeleryWorker::log);
        assert_eq!(said, expected, "the log of one:\n{one}\nof the other:\n{two}");
    }

    /// The tasks of the dead letters, sorted.
    async fn dead(&self) -> Vec<String> {
        let url = self.scene.redis.url();
        let ran = celeriac(&self.scene.app, &[("URL", &url)], &["--json", "dead", "list"]).await;
        let ran = ran.exits(0);
        let rows = Value::parse(ran.stdout.trim().as_bytes()).unwrap();
        let name = |row: &Value| row.get("task").and_then(Value::as_str).unwrap().to_owned();
        let mut names: Vec<String> = rows.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }
}

const LIMITED: &str = r"
@app.task(name='rated')
def rated():
    return redis.rpush('rated', 1)

@app.task(name='single.held')
def held():
    most = redis.incr('running')
    redis.rpush('began', most)
    assert redis.blpop('go', timeout=25)
    redis.decr('running')
    return most

@app.task(name='keyed')
def keyed(key):
    redis.rpush('keyed', key)
    assert redis.blpop('go ' + key, timeout=25)
";

const LIMITS: &str = r#"
[tasks.rated]
global_rate_limit = ["1/h", "5/d burst"]

[tasks."single.*"]
concurrency_limit = 1

[tasks.'/^key/']
concurrency_limit = 1
per_key = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_in_all_workers_together_and_stand_in_nobodys_way() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let two = Two::start(redis, &python, LIMITED, LIMITS).await;
    let rate = "for _ in range(4):\n    rated.delay()\ncame('rated', 1)\npassed(4)\n\
                print(redis.llen('rated'))\n";
    two.says(rate, "0\n").await;
    // One at a time; each of the others begins when one has ended.
    let single = "all = [held.delay() for _ in range(4)]\ncame('began', 1)\npassed(3)\n\
                  print(redis.llen('began'))\n\
                  redis.rpush('go', 1, 2, 3, 4)\nprint(*(end(one)[1] for one in all))\n";
    two.says(single, "0\n1 1 1 1\n").await;
    let keys = "send = lambda key: keyed.apply_async((key,), headers={'celeriac_key': key})\n\
                all = [send(key) for key in 'aab']\n\
                print(*sorted(redis.blpop('keyed', timeout=25)[1] for _ in range(2)))\n\
                passed(2)\nprint(redis.llen('keyed'))\n\
                redis.rpush('go a', 1, 2), redis.rpush('go b', 1)\n\
                print(*(end(one)[0] for one in all))\n";
    two.says(keys, "b'a' b'b'\n0\nreturned returned returned\n").await;
    two.says("print(redis.llen('rated'))", "0\n").await;
}

const RETRIED: &str = r"
from celery.exceptions import Ignore

class Told(app.Task):
    def on_retry(self, *args):
        redis.rpush('retry ' + self.name, 1)
    def on_failure(self, *args, **kwargs):
        redis.rpush('failure ' + self.name, 1)

@app.task(name='errback')
def errback(request, error, traceback):
    redis.rpush('errback', type(error).__name__)

@app.task(name='net.mends', bind=True, base=Told)
def mends(self, key='x', *, times=3):
    redis.incr('runs ' + self.name)
    if self.request.retries < times:
        raise ConnectionResetError('gone')
    return [self.request.retries, self.request.id, key]

@app.task(name='net.fails', bind=True, base=Told)
def fails(self):
    redis.incr('runs ' + self.name)
    raise ConnectionResetError('gone')

@app.task(name='net.final', bind=True, base=Told)
def final(self, kind):
    redis.incr('runs ' + self.name)
    raise {'FileNotFoundError': FileNotFoundError, 'KeyError': KeyError, 'Ignore': Ignore}[kind](kind)

@app.task(name='own.kept', bind=True, autoretry_for=(ValueError,), max_retries=1,
          default_retry_delay=0)
def kept(self):
    redis.incr('runs ' + self.name)
    raise ValueError('own')

@app.task(name='own.overruled', bind=True, autoretry_for=(ValueError,), max_retries=1,
          default_retry_delay=600)
def overruled(self):
    redis.incr('runs ' + self.name)
    raise ValueError('own')

@app.task(name='awaits', bind=True)
async def awaits(self):
    if self.request.retries < 2:
        raise ValueError('not yet')
    return self.request.retries
";

const RETRIES: &str = r#"
[tasks."net.*"]
retry_schedule = ["10ms", 0, 0.02, "10ms"]
retry_for = ["OSError"]
retry_except = ["FileNotFound*"]

[tasks."own.*"]
retry_schedule = [0, 0, 0]

[override.tasks."own.overruled"]
retry_schedule = [0, 0]

[tasks.awaits]
max_retries = 2
retry_delay = 0
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_lets_through_is_retried_and_told_once() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let two = Two::start(redis, &python, RETRIED, RETRIES).await;
    // Called as a function it is one.
    // The retry may run before `on_retry` of the run that sent it.
    let script = "def told(name, retries, failures):\n    \
                      came('retry ' + name, retries), came('failure ' + name, failures)\n    \
                      more = [redis.llen(word + name) for word in ('retry ', 'failure ')]\n    \
                      return [int(redis.get('runs ' + name)), *more]\n\
                  sent = mends.delay('k', times=4)\n\
                  print(end(sent) == ('returned', [4, sent.id, 'k']), told('net.mends', 4, 0))\n\
                  print(*end(fails.apply_async(link_error=errback.s())), told('net.fails', 4, 1))\n\
                  print(redis.blpop('errback', timeout=25)[1])\n\
                  for kind in ('FileNotFoundError', 'KeyError'):\n    print(end(final.delay(kind))[0])\n\
                  ignored = final.delay('Ignore')\npassed(4)\n\
                  print(ignored.state, told('net.final', 0, 2), redis.llen('errback'))\n\
                  print(end(kept.delay())[0], redis.get('runs own.kept'))\n\
                  print(end(overruled.delay())[0], redis.get('runs own.overruled'))\n\
                  print(*end(awaits.delay()))\n\
                  try:\n    mends()\nexcept ConnectionResetError:\n    print('raised')\n";
    let expected = "True [5, 0, 0]\nConnectionResetError gone [5, 0, 0]\nb'ConnectionResetError'\n\
                    FileNotFoundError\nKeyError\nPENDING [3, 0, 0] 0\nValueError b'2'\nValueError b'3'\n\
                    returned 2\nraised\n";
    two.says(script, expected).await;
    let dead = ["net.fails", "net.final", "net.final", "own.kept", "own.overruled"];
    assert_eq!(two.dead().await, dead);
    let log = two.workers[0].log();
    assert!(log.contains("no effect on own.kept, which has an autoretry_for of its own"), "{log}");
    assert!(!log.contains("no effect on own.overruled"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_are_the_same_in_every_pool() {
    for (pool, method) in [
        ("solo", "fork"),
        ("threads", "fork"),
        ("asyncio", "fork"),
        ("gevent", "fork"),
        ("prefork", "spawn"),
    ] {
        let redis = redis_or_skip!();
        let python = celery_or_skip!();
        let method = [("CELERIAC_START_METHOD", method)];
        let scene = Scene::with(redis, &python, &format!("{KIT}{RETRIED}"), &method);
        std::fs::write(scene.app.folder().join("celeriac.toml"), RETRIES).unwrap();
        let worker = scene.worker("ours", &["-P", pool, "-c", "4"]).await;
        // Greenlets run no coroutines.
        let other = match pool {
            "gevent" => "mends.delay('g', times=2).get(timeout=25)[0]",
            _ => "awaits.delay().get(timeout=25)",
        };
        let script = format!(
            "all = [mends.delay(n, times=n % 4) for n in range(8)]\n\
             print(*(end(one)[1][::2] for one in all))\n\
             print({other})\nprint(end(fails.delay())[0])\n"
        );
        let said = scene.app.script(&format!("{SCRIPT}{script}")).await;
        let expected = "[0, 0] [1, 1] [2, 2] [3, 3] [0, 4] [1, 5] [2, 6] [3, 7]\n2\n\
                        ConnectionResetError\n";
        assert_eq!(said, expected, "{pool}, its log:\n{}", worker.log());
    }
}

const CLASSIFIED: &str = r"
@app.task(name='asks')
def asks(answer):
    return answer

@app.task(name='asks.again', bind=True, autoretry_for=(Exception,), max_retries=3, default_retry_delay=0)
def asks_again(self, answer):
    redis.incr('asked again')
    return answer

@app.task(name='states')
def states(answer):
    return answer

@app.task(name='quiet')
def quiet():
    raise ValueError('quiet')

@app.task(name='picky')
def picky(kind):
    raise {'key': KeyError, 'os': ConnectionResetError}[kind](kind)

@app.task(name='patient', bind=True)
def patient(self, kind):
    raise {'key': KeyError, 'os': ConnectionResetError}[kind](kind)

@app.task(name='own.end', bind=True)
def own_end(self, least):
    if self.request.retries < least:
        self.retry(countdown=0, max_retries=5)
    raise ValueError('over')

@app.task(name='never.dies', acks_late=True)
def dies():
    os.kill(os.getpid(), 9)
";

const RULES: &str = r#"
[tasks.'/^asks/']
failure_if = { status = "error", "meta.code" = [5, 6] }

[tasks.states]
success_if = { state = "done" }
dead_letter = "never"

[tasks.quiet]
dead_letter = "never"

[tasks.picky]
dead_letter_except = ["OSError"]

[tasks.patient]
retry_schedule = [0, 0]
retry_for = ["OSError"]
dead_letter = "when-retries-end"

[tasks."own.end"]
dead_letter = "when-retries-end"

[tasks."never.*"]
dead_letter = "never"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_failures_are_failures_and_dead_letters_are_those_that_are_wanted() {
    // covers: T-12
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let two = Two::start(redis, &python, CLASSIFIED, RULES).await;
    let script = "for answer in ({'status': 'ok'}, {'meta': {'code': 4}}, None, 'error', [5],\n    \
                                 {'status': 'error', 'error': 'no rows'}, {'meta': {'code': 6}}):\n    \
                  print(*end(asks.delay(answer)))\n\
                  print(end(asks_again.delay({'status': 'error'}))[0], redis.get('asked again'))\n\
                  print(asks({'status': 'error'}))\n\
                  for answer in ({'state': 'done'}, {'state': 'half'}, None):\n    \
                  print(end(states.delay(answer))[0])\n\
                  print(end(quiet.delay())[0])\n\
                  print(*(end(task.delay(kind))[0] for task in (picky, patient) for kind in ('key', 'os')))\n\
                  print(*(end(own_end.delay(least))[0] for least in (1, 3)))\n\
                  print(end(dies.delay())[0])\n";
    let expected = "returned {'status': 'ok'}\nreturned {'meta': {'code': 4}}\nreturned None\n\
                    returned error\nreturned [5]\n\
                    TaskReturnedError no rows\nTaskReturnedError {'meta': {'code': 6}}\n\
                    TaskReturnedError b'4'\n{'status': 'error'}\n\
                    returned\nTaskReturnedError\nTaskReturnedError\nValueError\n\
                    KeyError ConnectionResetError KeyError ConnectionResetError\n\
                    ValueError ValueError\nWorkerLostError\n";
    two.says(script, expected).await;
    // Of `picky` the key, of `patient` the one whose retries ended, of `own.end` the third.
    let dead = ["asks", "asks", "asks.again", "never.dies", "own.end", "patient", "picky"];
    assert_eq!(two.dead().await, dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_added_is_refused_and_what_is_added_is_shown() {
    let python = celery_or_skip!();
    let app = python.app(
        "from celery import Celery\napp = Celery('proj', broker='redis://127.0.0.1:1/0')\n",
        &[],
    );
    let file = |text: &str| std::fs::write(app.folder().join("celeriac.toml"), text).unwrap();
    file("\n[tasks.report]\nunique = true\n");
    let ran = celeriac(&app, &[], &["worker"]).await.exits(3);
    ran.warns(&[
        "celeriac.toml, line 3: task \"report\": unique cannot be said here",
        "celery-singleton",
    ]);
    file(
        "[tasks.\"a.*\"]\nglobal_rate_limit = \"10/s\"\n[override.tasks.\"a.*\"]\nmax_retries = 2\n",
    );
    let ran = celeriac(&app, &[], &["config", "show"]).await.exits(0);
    for expected in ["a.*: global_rate_limit = 10/s", "a.*: max_retries = 2", "[override], line 3"]
    {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
}
