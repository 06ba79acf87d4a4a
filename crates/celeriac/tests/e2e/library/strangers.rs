//! Messages of tasks that a worker does not know wait for one that does (P35).

use crate::kit::{PATIENCE, Place, until};
use crate::running::{add, echo, start, start_with};
use celeriac::JobSet;
use celeriac::prelude::*;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Page, Phase};
use celeriac_wire::Value;

#[tokio::test]
async fn an_unknown_task_waits_for_a_worker_that_has_it() {
    // covers: S2-37
    for place in Place::every() {
        let app = place.app();
        let old = start(&app.clone().tasks(tasks![add])).await;
        let calls = (0..1000).map(|number| echo::call(number.into()));
        let strangers = old.client.send_all(calls).await.unwrap();
        let known = old.client.send_all((0..50).map(|n| add::call(n, n))).await.unwrap();
        for job in known {
            job.get(PATIENCE).await.unwrap();
        }
        for job in strangers.iter().step_by(50) {
            let phase = job.view().await.unwrap().phase;
            assert!(matches!(phase, Phase::Queued { .. } | Phase::Reserved { .. }), "{phase:?}");
        }
        // A worker that starts anew meets the first of them and leaves it, too.
        let later = old.client.send(add::call(1, 1)).await.unwrap();
        assert_eq!(old.stop().await.failed, 0);
        let again = start(&app.clone().tasks(tasks![add])).await;
        later.get(PATIENCE).await.unwrap();
        let new = start_with(&app, app.clone().tasks(tasks![echo]).worker().concurrency(1)).await;
        let strangers: JobSet<Value> = strangers.into_iter().collect();
        let echoed = strangers.get(PATIENCE).await.unwrap();
        assert_eq!(echoed, (0..1000).map(Value::from).collect::<Vec<_>>());
        assert_eq!(
            again.client.send(add::call(2, 2)).await.unwrap().get(PATIENCE).await.unwrap(),
            4
        );
        again.stop().await;
        let report = new.stop().await;
        assert_eq!((report.succeeded, report.failed), (1000, 0), "each once");
    }
}

#[tokio::test]
async fn too_many_unknown_names_become_dead_letters_and_block_nothing() {
    for place in Place::every() {
        let running = start(&place.app().tasks(tasks![add])).await;
        let calls = (0..300).map(|number| Call::named(&format!("t.unknown_{number}")));
        running.client.send_all(calls).await.unwrap();
        let job = running.client.send(add::call(1, 2)).await.unwrap();
        assert_eq!(job.get(PATIENCE).await.unwrap(), 3);
        let store = running.client.store();
        let letters = until("the names beyond the bound are set aside", PATIENCE, async || {
            let page = Page { after: 0, count_max: 500 };
            let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
            (letters.len() == 44).then_some(letters)
        })
        .await;
        assert!(letters.iter().all(|letter| letter.reason == DeadReason::UnknownTask));
        let queue = store.queues().await.unwrap().remove(0);
        assert_eq!(queue.ready, 256, "{queue:?}");
        running.stop().await;
    }
}
