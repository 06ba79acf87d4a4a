//! Flower's pages with our worker on them.

use crate::kit::{PATIENCE, Place, Worker};
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const SOURCE: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
@app.task(name='ledger.work')
def work(ms): pass
";

/// Starts Flower, waits until it knows our worker, and reads its pages.
const SCRIPT: &str = r"
import json, os, socket, subprocess, sys, time, urllib.request, urllib.parse
from proj import app, work
with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
environment = dict(os.environ, FLOWER_UNAUTHENTICATED_API='1')
flower = subprocess.Popen([sys.executable, '-m', 'celery', '-A', 'proj', 'flower', f'--port={port}',
                           '--address=127.0.0.1', '--inspect_timeout=3000'],
                          env=environment, stdout=subprocess.DEVNULL, stderr=open('flower.log', 'w'))
base = f'http://127.0.0.1:{port}'
def page(path, data=None):
    request = urllib.request.Request(base + path, data=data)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
try:
    deadline = time.time() + 45
    workers = {}
    while time.time() < deadline and 'ours@test' not in workers:
        try:
            workers = json.loads(page('/api/workers?refresh=1')[1])
        except (OSError, ValueError):
            pass
    worker = workers['ours@test']
    print('worker', sorted(worker))
    print('registered', 'ledger.work' in worker['registered'])
    sent = work.delay(1)
    sent.get(timeout=10)
    info = {}
    while time.time() < deadline and info.get('state') != 'SUCCESS':
        status, text = page(f'/api/task/info/{sent.id}')
        info = json.loads(text) if status == 200 else {}
    print('task', info.get('name'), info.get('state'), info.get('args'), info.get('worker'))
    for path in ['/workers', '/worker/ours@test', '/tasks', f'/task/{sent.id}', '/broker', '/metrics']:
        status, text = page(path)
        print('page', path.split('/')[1], status, 'Error' in text and 'Traceback' in text)
    status, text = page('/worker/ours@test')
    words = ['ledger.work', 'maxrss', 'celery', 'redis']
    print('not shown', [word for word in words if word not in text])
    def post(path, **data):
        status, text = page(path, urllib.parse.urlencode(data).encode())
        print('post', path, status, json.loads(text)['message'])
    post('/api/worker/pool/grow/ours@test', n=1)
    post('/api/worker/pool/shrink/ours@test', n=1)
    post('/api/worker/queue/add-consumer/ours@test', queue='extra')
    post('/api/worker/queue/cancel-consumer/ours@test', queue='extra')
    post('/api/task/rate-limit/ledger.work', workername='ours@test', ratelimit='10/m')
    post('/api/task/timeout/ledger.work', workername='ours@test', soft=5, hard=10)
    post('/api/worker/shutdown/ours@test')
finally:
    flower.kill()
    flower.wait()
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_worker_is_on_every_page_of_flower() {
    // interop: events.flower
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let url = redis.url();
    let place = Place::at(&url);
    let store = place.app().store().await.unwrap();
    let mut ours = Worker::start(&place, &store, "ours@test", "8s", &["-c", "2"]).await;
    let celery = python.app(SOURCE, &[("URL", &url)]);
    let said = celery.script(SCRIPT).await;
    for line in [
        "worker ['active_queues', 'conf', 'registered', 'stats', 'timestamp']",
        "registered True",
        "task ledger.work SUCCESS (1,) ours@test",
        "page workers 200 False",
        "page worker 200 False",
        "page tasks 200 False",
        "page task 200 False",
        "page broker 200 False",
        "page metrics 200 False",
        "not shown []",
        "grow/ours@test 200 Growing 'ours@test' worker's pool by 1",
        "shrink/ours@test 200 Shrinking 'ours@test' worker's pool by 1",
        "add-consumer/ours@test 200 add consumer extra",
        "cancel-consumer/ours@test 200 no longer consuming from extra",
        "rate-limit/ledger.work 200 new rate limit set successfully",
        "timeout/ledger.work 200 time limits set successfully",
        "shutdown/ours@test 200 Shutting down!",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(ours.ended_within(PATIENCE).await.success(), "Flower has shut it down");
}
