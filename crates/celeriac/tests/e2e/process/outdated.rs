//! A newer program migrates the store while an older one runs on it.

use super::enqueue;
use crate::kit::{self, PATIENCE, Place, Worker};

/// The store as a newer program leaves it: another schema, a higher format.
fn migrate(place: &Place) {
    let file = rusqlite::Connection::open(place.path("queue.db")).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    file.execute_batch(
        "BEGIN IMMEDIATE; CREATE TABLE of_the_future (x); \
         UPDATE meta SET value = '99' WHERE key = 'format_version'; COMMIT;",
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_worker_stops_when_its_store_becomes_newer() {
    // With one slot, which is taken, nothing is fetched any more.
    for (pool, slots) in [("async", "2"), ("process", "2"), ("process", "1"), ("async", "1")] {
        let place = Place::sqlite();
        let client = place.app().client().await.unwrap();
        let store = client.store().clone();
        enqueue(&client, 1, 60_000).await;
        let args = ["-P", pool, "-c", slots];
        let mut worker = Worker::start(&place, &store, "w1", "1s", &args).await;
        kit::until("it runs", PATIENCE, async || (kit::count(&place, "start") == 1).then_some(()))
            .await;
        migrate(&place);
        let status = worker.ended().await;
        assert_eq!(status.code(), Some(2), "{}", worker.log());
        assert!(worker.log().contains("migrated to format 99"), "{}", worker.log());
        let refused = client.send(celeriac::Call::named("t")).await.unwrap_err();
        assert!(refused.to_string().contains("migrated to format 99"), "{refused}");
        // What it held is there for the newer program.
        assert_eq!(store.queues().await.unwrap()[0].leased, 1);
    }
}
