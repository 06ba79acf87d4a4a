//! Results and parts of chords that a stock worker with `result_compression` (Celery 5.7) has written.

use super::app;
use crate::kit::{PATIENCE, until};
use crate::running::{add, start, sum};
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const APP: &str = "
import os
from celery import Celery, chord
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.result_compression = 'gzip'
@app.task(name='py.double')
def double(x): return 2 * x
@app.task(name='t.add')
def add(x, y): raise NotImplementedError
@app.task(name='t.sum')
def total(values): raise NotImplementedError
";

const SEND: &str = "
from proj import *
double.apply_async((21,), queue='py', task_id='alone').get(timeout=20)
chord([double.s(1).set(queue='py', task_id='part'), add.s(3, 4)])(total.s().set(task_id='body'))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_has_compressed_is_read() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let proj = python.app(APP, &[("URL", &redis.url())]);
    let mut stock = proj.worker("stock", &["-c", "1", "-Q", "py"]).await;
    proj.script(SEND).await;
    let stored = redis.cli(&["GETRANGE", "celery-task-meta-alone", "0", "18"]).await.text();
    assert_eq!(stored, "\0celery-compressed\0", "the stock worker has compressed it");
    let ours = app(&redis).tasks(celeriac::tasks![add, sum]);
    let client = ours.client().await.unwrap();
    assert_eq!(client.job::<i64>("alone").get(PATIENCE).await.unwrap(), 42);
    // Its part of the chord is counted before ours, which then has to read it.
    until("the stock worker's part is there", PATIENCE, async || {
        let parts = redis.cli(&["KEYS", "celery-taskset-meta-*.j"]).await.texts();
        (!parts.is_empty()).then_some(())
    })
    .await;
    let running = start(&ours).await;
    assert_eq!(client.job::<i64>("body").get(PATIENCE).await.unwrap(), 9);
    running.stop().await;
    stock.terminate().await;
}
