//! Slots that follow the load.

use super::Scene;
use super::kills::children_of;
use crate::kit::{PATIENCE, until};
use celeriac_testkit::{celery_or_skip, redis_or_skip};

const APP: &str = r"
import time

@app.task(name='waits')
def waits(key):
    app.backend.client.rpush('began', 1)
    assert app.backend.client.blpop(key)
";

const LOAD: &str = r"
from proj import *
results = [waits.delay('go') for _ in range(40)]
# Eight at once: Celery's own words for it.
for _ in range(8):
    assert app.backend.client.blpop('began', timeout=25)
told = app.control.broadcast('autoscale', arguments={'max': 9}, reply=True, timeout=2, limit=1)
print(told[0]['ours@test'])
assert app.backend.client.blpop('began', timeout=25)
print(app.control.inspect(timeout=2, limit=1).stats()['ours@test']['autoscaler'])
app.backend.client.rpush('go', *range(40))
for result in results:
    result.get(timeout=25)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_more_children_while_there_is_more_to_do() {
    // covers: S2-35
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let scene = Scene::with(redis, &python, APP, &[("AUTOSCALE_KEEPALIVE", "1")]);
    let mut worker = scene.worker("ours", &["--autoscale", "8,2"]).await;
    assert!(worker.log().contains("concurrency: {min=2, max=8} (prefork)"), "{}", worker.log());
    let template = children_of(worker.pid());
    let [template] = template[..] else { panic!("{template:?}") };
    let children = async |count: usize| {
        until("so many children", PATIENCE, async || {
            (children_of(template).len() == count).then_some(())
        })
        .await;
    };
    children(2).await;
    let said = scene.app.script(LOAD).await;
    let expected = "{'ok': 'autoscale now max=9 min=2'}\n\
                    {'max': 9, 'min': 2, 'current': 9, 'qty': 9}\n";
    assert_eq!(said, expected, "its log:\n{}", worker.log());
    children(2).await;
    assert!(worker.log().contains("Scaling up 2 processes."), "{}", worker.log());
    assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
}
