//! A queue whose tasks partly only a stock worker has: they go back until it takes them.

use crate::kit::{PATIENCE, Place, until};
use crate::running::{Diary, start_with};
use celeriac::prelude::*;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::sync::Arc;

/// The app of the stock worker: it has both tasks. What it has not, it destroys.
const SOURCE: &str = "
import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
@app.task(name='mixed.ours')
def ours(number): return 'stock'
@app.task(name='mixed.theirs')
def theirs(number): return number
";

/// Sends forty of both, one after the other.
const SEND: &str = "
import sys
from proj import app, ours, theirs
for n in range(40):
    theirs.apply_async((n,), task_id=f't{sys.argv[1]}-{n}')
    ours.apply_async((n,), task_id=f'o{sys.argv[1]}-{n}')
";

#[task(name = "mixed.ours", max_retries = 0)]
async fn ours(diary: State<Arc<Diary>>, number: i64) -> String {
    diary.note(number.to_string());
    "celeriac".to_owned()
}

async fn all_done(app: &App, round: usize, letter: char) -> bool {
    let client = app.client().await.unwrap();
    for number in 0..40 {
        let id = format!("{letter}{round}-{number}");
        let record = client.store().result(&id).await.unwrap();
        if !record.is_some_and(|record| record.meta.state().is_ready()) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_stock_worker_has_goes_back_to_it() {
    // interop: worker.unknown-tasks 5.7
    let redis = redis_or_skip!();
    let python = celery_or_skip!("5.7");
    let url = redis.url();
    let celery = python.app(SOURCE, &[("URL", &url)]);
    let app = Place::at(&url).app();
    let diary = Arc::new(Diary::default());
    let ours = app.clone().tasks(tasks![ours]).state(Arc::clone(&diary));
    let running = start_with(&ours, ours.worker().concurrency(2)).await;
    let send = async |round: usize| {
        let ended = celery.run(&["-c", SEND, &round.to_string()]).await;
        assert!(ended.status.success(), "{ended:?}");
    };

    // Nobody has the other task yet: it waits, and stands in nobody's way.
    send(1).await;
    until("our own tasks end", PATIENCE, async || all_done(&app, 1, 'o').await.then_some(())).await;
    assert_eq!(diary.read().len(), 40);
    assert!(!all_done(&app, 1, 't').await);

    // A stock worker comes. It gets what waits, although it never asks for it.
    let mut stock = celery.worker("stock", &["-c", "1"]).await;
    until("the stock worker gets its own", PATIENCE, async || {
        all_done(&app, 1, 't').await.then_some(())
    })
    .await;
    send(2).await;
    until("both get their own", PATIENCE, async || {
        (all_done(&app, 2, 'o').await && all_done(&app, 2, 't').await).then_some(())
    })
    .await;

    // Without it they wait again.
    assert!(stock.terminate().await.success());
    send(3).await;
    until("our own tasks end", PATIENCE, async || all_done(&app, 3, 'o').await.then_some(())).await;
    let report = running.stop().await;
    assert_eq!(report.failed, 0);
    let again = celery.worker("again", &["-c", "1"]).await;
    let store = app.store().await.unwrap();
    let queue = celeriac_core::QueueName::celery();
    // Some may stand in the list already: for a while it was not known that nobody has them.
    store.release(&queue, 1000).await.unwrap();
    until("what waited is given back", PATIENCE, async || {
        all_done(&app, 3, 't').await.then_some(())
    })
    .await;
    drop(again);
}
