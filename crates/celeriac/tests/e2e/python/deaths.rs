//! Tasks that kill their child, leave it, or say what cannot be said: the worker lives, and their
//! callers hear of it.

use super::Scene;
use crate::kit::{PATIENCE, until};
use celeriac::App;
use celeriac_core::store::{DeadFilter, Page};
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const APP: &str = r"
import ctypes, os, signal, sys, threading, time

@app.task(name='add')
def add(x, y):
    return x + y

@app.task(name='segv')
def segv():
    print('the last words', file=sys.__stderr__, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

@app.task(name='exits')
def exits():
    os._exit(3)

@app.task(name='quits')
def quits():
    raise SystemExit(4)

@app.task(name='poison', acks_late=True, reject_on_worker_lost=True)
def poison():
    app.backend.client.incr('poisoned')
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name='deep')
def deep():
    return deep.run()

class Odd(Exception):
    def __init__(self, lock):
        super().__init__(lock)
    def __reduce__(self):
        raise TypeError('cannot be pickled')

@app.task(name='odd')
def odd():
    raise Odd(threading.Lock())

@app.task(name='unencodable')
def unencodable():
    return threading.Lock()

@app.task(name='noise')
def noise():
    os.write(1, bytes(range(256)) * 100)
    os.write(2, b'\xff' * 1000)
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b'garbage')
        except OSError:
            pass
    return 'loud'

@app.task(name='thread')
def thread():
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    return 'left behind'

@app.task(name='deaf', time_limit=0.5)
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass

@app.task(name='large')
def large(text):
    return text
";

const CALLS: &str = r"
from proj import *
def end(task, *args):
    try:
        value = task.delay(*args).get(timeout=25)
        return 'returned', value
    except BaseException as error:
        return type(error).__name__, str(error)
for task in (segv, exits, quits, poison, deep, odd, unencodable, noise, thread, deaf):
    kind, text = end(task)
    print(task.name, kind, end(add, 2, 3))
print(len(large.delay('x' * 5_000_000).get(timeout=25)))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_task_does_its_worker_lives_and_its_caller_hears_of_it() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let scene = Scene::new(redis, &python, APP);
    let worker = scene.worker("ours", &["-c", "2"]).await;
    let said = scene.app.script(CALLS).await;
    let five = "('returned', 5)";
    let expected = [
        format!("segv WorkerLostError {five}"),
        format!("exits WorkerLostError {five}"),
        format!("quits WorkerLostError {five}"),
        format!("poison WorkerLostError {five}"),
        format!("deep RecursionError {five}"),
        // As under Celery's own worker (celery 5.7.0 `utils/serialization.py`).
        format!("odd UnpickleableExceptionWrapper {five}"),
        format!("unencodable EncodeError {five}"),
        // It writes into every descriptor that it finds; that of the worker too.
        format!("noise WorkerLostError {five}"),
        format!("thread returned {five}"),
        format!("deaf TimeLimitExceeded {five}"),
        "5000000".to_owned(),
    ];
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, expected, "its log:\n{}", worker.log());
    assert_eq!(scene.redis.cli(&["GET", "poisoned"]).await.text(), "3");
    let store = App::at(&scene.redis.url()).unwrap().store().await.unwrap();
    let letters = until("all dead letters", PATIENCE, async || {
        let page = Page { after: 0, count_max: 100 };
        let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
        (letters.len() >= 8).then_some(letters)
    })
    .await;
    let of = |task: &str| {
        let letter = letters.iter().find(|one| one.message.headers.task() == Some(task)).unwrap();
        (letter.reason.as_str(), letter.history.last().map(|one| one.detail.clone()))
    };
    let (reason, detail) = of("segv");
    let detail = detail.unwrap();
    assert_eq!(reason, "worker-lost");
    assert!(
        detail.contains("signal 11 (SIGSEGV)") && detail.contains("the last words"),
        "{detail}"
    );
    assert_eq!(of("poison").0, "poison");
    assert_eq!(of("deaf").0, "timed-out");
    assert_eq!(of("deep").0, "failed");
}

/// What the store knows of running tasks when a body begins.
const MARKED: &str = r"
@app.task(name='marked')
def marked():
    client = app.backend.client
    return [mark.decode() for key in client.keys('celeriac:started:*') for mark in client.hvals(key)]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_acknowledgement_is_written_before_the_body_if_that_is_asked_for() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let scene = Scene::with(redis, &python, MARKED, &[("CELERIAC_STRICT_EARLY_ACK", "true")]);
    let worker = scene.worker("ours", &["-c", "1"]).await;
    let script = "from proj import marked\n\
                  for _ in range(20):\n    marks = marked.delay().get(timeout=20)\n\
                  \x20   assert len(marks) == 1 and marks[0].endswith('a'), marks\nprint('all')\n";
    assert_eq!(scene.app.script(script).await, "all\n", "its log:\n{}", worker.log());
}
