//! A deploy: HUP loads the app anew while its tasks run.

use super::Scene;
use super::kills::children_of;
use crate::kit::{PATIENCE, until};
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use rustix::process::Signal;

const APP: &str = r"
import os

VERSION = 'first'

@app.task(name='version')
def version():
    return VERSION

@app.task(name='waits')
def waits(key):
    app.backend.client.rpush('began', 1)
    assert app.backend.client.blpop(key)
    return VERSION
";

/// What the next version has besides.
const FRESH: &str = r"
@app.task(name='fresh')
def fresh():
    return 'of the new version'
";

const BEFORE: &str = r"
from proj import *
print(version.delay().get(timeout=25))
slow = waits.apply_async(['go'], task_id='slow')
assert app.backend.client.blpop('began', timeout=25)
app.send_task('fresh', task_id='early')
";

const AFTER: &str = r"
from proj import *
while version.delay().get(timeout=25) != 'second':
    pass
# Every child is new, or busy: none of the old ones takes anything any more.
print({version.delay().get(timeout=25) for _ in range(20)})
print(app.AsyncResult('early').get(timeout=25))
app.backend.client.rpush('go', 1)
print(app.AsyncResult('slow').get(timeout=25))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_loads_the_app_anew_and_no_task_notices() {
    deploy(redis_or_skip!(), &celery_or_skip!(), "prefork").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_several_tasks_is_renewed_too() {
    deploy(redis_or_skip!(), &celery_or_skip!(), "threads").await;
}

async fn deploy(redis: Redis, python: &Python, pool: &str) {
    let scene = Scene::new(redis, python, APP);
    let file = scene.app.folder().join("proj.py");
    let first = std::fs::read_to_string(&file).unwrap();
    let mut worker = scene.worker("ours", &["-P", pool, "-c", "2"]).await;
    let processes = children_of(worker.pid()).len();
    assert_eq!(scene.app.script(BEFORE).await, "first\n", "its log:\n{}", worker.log());

    let second = first.replace("'first'", "'second'") + FRESH;
    std::fs::write(&file, second.clone() + "import nothing_of_this_name\n").unwrap();
    worker.process().signal(Signal::HUP);
    worker.logs("everything stays as it is").await;
    assert!(worker.log().contains("nothing_of_this_name"), "{}", worker.log());
    std::fs::write(&file, &first).unwrap();
    let said = scene.app.script("from proj import *; print(version.delay().get(timeout=25))").await;
    assert_eq!(said, "first\n", "its log:\n{}", worker.log());

    std::fs::write(&file, second).unwrap();
    worker.process().signal(Signal::HUP);
    let said = scene.app.script(AFTER).await;
    let expected = "{'second'}\nof the new version\nfirst\n";
    assert_eq!(said, expected, "its log:\n{}", worker.log());
    // The template of the first version ends with its last child.
    until("one template", PATIENCE, async || {
        (children_of(worker.pid()).len() == processes).then_some(())
    })
    .await;
    assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
}
