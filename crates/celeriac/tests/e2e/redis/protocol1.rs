//! Messages of `task_protocol = 1` from real Celery: what stands in their body counts before they are
//! delivered.

use super::app;
use crate::kit::{PATIENCE, until};
use crate::running::{Diary, start};
use celeriac::prelude::*;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::sync::Arc;

#[task(name = "old.note", max_retries = 0)]
async fn note(diary: State<Arc<Diary>>, text: String) -> String {
    diary.note(text.clone());
    text
}

#[task(name = "old.slow", rate_limit = "1/h", max_retries = 0)]
async fn slow(diary: State<Arc<Diary>>, n: u64) {
    diary.note(format!("slow {n}"));
}

const APP: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.task_protocol = 1
@app.task(name='old.note')
def note(text): raise NotImplementedError
@app.task(name='old.slow')
def slow(n): raise NotImplementedError
";

const SEND: &str = "
from proj import *
for n in range(4):
    slow.delay(n)
note.apply_async(('revoked',), task_id='revoked')
note.apply_async(('expired',), task_id='expired', expires=-1)
note.apply_async(('later',), task_id='later', countdown=2)
note.apply_async(('compressed',), task_id='compressed', compression='zlib')
note.apply_async(('last',), task_id='last')
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_revocations_and_limits_of_protocol_1_hold() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let proj = python.app(APP, &[("URL", &redis.url())]);
    proj.script(SEND).await;
    let diary = Arc::new(Diary::default());
    let app = app(&redis).tasks(tasks![note, slow]).state(Arc::clone(&diary));
    let store = app.store().await.unwrap();
    store.revoke(&["revoked".to_owned()], false).await.unwrap();
    let running = start(&app).await;
    let client = &running.client;
    let get = async |id: &str| client.job::<String>(id).get(PATIENCE).await;
    assert_eq!(get("last").await.unwrap(), "last");
    assert_eq!(get("compressed").await.unwrap(), "compressed");
    for id in ["revoked", "expired"] {
        let error = get(id).await.unwrap_err().to_string();
        assert!(error.contains("revoked") || error.contains("expired"), "{id}: {error}");
    }
    // It waits in the store and in no worker; its time is in the body.
    let due = redis.cli(&["ZRANGE", "celeriac:due:celery", "0", "-1", "WITHSCORES"]).await.texts();
    let waits = redis.cli(&["ZCARD", "celeriac:due:celery"]).await.int();
    let later = get("later").await.unwrap();
    let now = client.now().as_microsecond() as f64;
    assert_eq!(later, "later");
    if waits == 1 {
        let due: f64 = due.last().unwrap().parse().unwrap();
        assert!(now >= due, "it ran at {now}, due at {due}");
    }
    // One in an hour may run; the others hold nobody up.
    until("the first has run", PATIENCE, async || {
        diary.read().iter().any(|line| line == "slow 0").then_some(())
    })
    .await;
    let mut ran = diary.read();
    ran.sort();
    assert_eq!(ran, ["compressed", "last", "later", "slow 0"]);
    running.stop().await;
}
