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
    let rate = "for _ in range(4):\n    rated.delay()\npassed(4)\nprint(redis.llen('rated'))\n";
    two.says(rate, "1\n").await;
    // One at a time; each of the others begins when one has ended.
    let single = "all = [held.delay() for _ in range(4)]\npassed(3)\n\
                  came('began', 1)\nprint(redis.llen('began'))\n\
                  redis.rpush('go', 1, 2, 3, 4)\nprint(*(end(one)[1] for one in all))\n";
    two.says(single, "0\n1 1 1 1\n").await;
    let keys = "send = lambda key: keyed.apply_async((key,), headers={'celeriac_key': key})\n\
                all = [send(key) for key in 'aab']\npassed(2)\n\
                print(sorted(redis.lrange('keyed', 0, -1)))\n\
                redis.rpush('go a', 1, 2), redis.rpush('go b', 1)\n\
                print(*(end(one)[0] for one in all))\n";
    two.says(keys, "[b'a', b'b']\nreturned returned returned\n").await;
}
