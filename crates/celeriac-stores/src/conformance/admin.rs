//! What operators do to whole queues.

use super::fixture::{ALL, Harness, ids, outgoing, queue};
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{Fate, Page, Settled};

/// Pages follow the rows and end.
pub async fn peek_pages_through_a_queue(harness: &Harness) {
    let fixture = harness.store();
    fixture.send(&["a", "b"]).await;
    fixture.send_to("reports", &["x"]).await;
    fixture.send(&["c", "d", "e"]).await;
    let mut page = Page { after: 0, count_max: 2 };
    let mut read = Vec::new();
    loop {
        let stored = fixture.store.peek(&queue("celery"), page).await.unwrap();
        assert!(stored.len() <= 2);
        let Some(last) = stored.last() else { break };
        page.after = last.row;
        read.extend(stored.iter().map(|one| one.outgoing.message.headers.id().unwrap().to_owned()));
    }
    assert_eq!(read, ["a", "b", "c", "d", "e"]);
    assert!(fixture.store.peek(&queue("none"), ALL).await.unwrap().is_empty());
}

/// Waiting and scheduled messages are shown as they were sent, held ones are not.
pub async fn peek_shows_what_was_sent_but_nothing_that_is_held(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    let mut later = outgoing("celery", "later");
    later.message.headers.set_eta(Some(fixture.at(60)));
    fixture.publish(vec![outgoing("celery", "held"), later.clone()]).await;
    fixture.take(node).await;
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].outgoing.message, later.message);
    assert_eq!(stored[0].outgoing.enqueued_at, Some(fixture.now()));
}

/// A purge takes nothing away from a worker, and says what it took.
pub async fn remove_skips_what_was_fetched_meanwhile(harness: &Harness) {
    let fixture = harness.store();
    let node = fixture.node("celery@a").await;
    fixture.send(&["a", "b", "c"]).await;
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
    let held = fixture.take(node).await;
    assert_eq!(fixture.store.remove(&[rows[0], rows[1], 9999]).await.unwrap(), [rows[1]]);
    assert!(fixture.store.remove(&[rows[1]]).await.unwrap().is_empty(), "gone already");
    assert_eq!(fixture.settle(held.lease, Fate::Done).await, Settled::Done);
    assert_eq!(ids(&fixture.fetch(node, 9).await), ["c"]);
}

/// A purged queue takes new messages up to its whole depth, and no row number comes twice.
pub async fn removed_messages_free_their_place(harness: &Harness) {
    let limits = StoreLimits { queue_depth_max: 2, ..StoreLimits::default() };
    let fixture = harness.store_with(limits);
    fixture.send(&["a", "b"]).await;
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    let rows: Vec<i64> = stored.iter().map(|one| one.row).collect();
    assert_eq!(fixture.store.remove(&rows).await.unwrap(), rows);
    fixture.send(&["c", "d"]).await;
    let stored = fixture.store.peek(&queue("celery"), ALL).await.unwrap();
    assert!(stored.iter().all(|one| !rows.contains(&one.row)));
}
