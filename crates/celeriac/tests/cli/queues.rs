//! `queue`: list, peek, pause, resume, purge, load.

use crate::kit::Place;
use crate::{call, celeriac, json, number, store, text, work};
use celeriac_core::QueueName;
use celeriac_core::store::{Page, Stored};
use celeriac_wire::Value;

const ALL: Page = Page { after: 0, count_max: 100 };

async fn stored(place: &Place, queue: &str) -> Vec<Stored> {
    let store = place.app().store().await.unwrap();
    store.peek(&QueueName::parse(queue).unwrap(), ALL).await.unwrap()
}

#[tokio::test]
async fn queues_are_listed_with_what_is_in_them() {
    let place = store().await;
    celeriac(&place, &["queue", "list"]).await.exits(0).says(&["no queue has a message"]);
    call(&place, &["a"]).await;
    call(&place, &["a", "--countdown", "1h"]).await;
    call(&place, &["a", "--queue", "other"]).await;
    let listed = json(&place, 0, &["queue", "list"]).await;
    let celery = &listed.as_array().unwrap()[0];
    assert_eq!(text(celery, "queue"), "celery");
    assert_eq!((number(celery, "ready"), number(celery, "scheduled")), (1, 1));
    celeriac(&place, &["queue", "list"]).await.exits(0).says(&["QUEUE", "celery", "other"]);
    celeriac(&place, &["queue", "peek", "celery", "-n", "1"]).await.exits(0).says(&["TASK", "()"]);
    celeriac(&place, &["queue", "peek", "empty"]).await.exits(0).says(&["nothing waits"]);
}

#[tokio::test]
async fn a_paused_queue_rests_until_it_is_resumed() {
    let place = store().await;
    let id = call(&place, &["nobody.knows"]).await;
    let reason = ["queue", "pause", "celery", "--reason", "migration"];
    celeriac(&place, &reason).await.exits(0).says(&["paused"]);
    work(&place).await;
    assert_eq!(text(&json(&place, 0, &["task", "show", &id]).await, "phase"), "queued");
    celeriac(&place, &["queue", "list"]).await.exits(0).says(&["paused"]);
    celeriac(&place, &["queue", "resume", "celery"]).await.exits(0).says(&["resumed"]);
    celeriac(&place, &["queue", "resume", "celery"]).await.exits(5).warns(&["is not paused"]);
    work(&place).await;
    assert_eq!(text(&json(&place, 0, &["task", "show", &id]).await, "phase"), "dead");
}

#[tokio::test]
async fn a_purge_must_be_confirmed_and_can_be_undone_to_the_byte() {
    // covers: S1-53
    let place = store().await;
    call(&place, &["a", "-a", "[NaN, 18446744073709551617, \"é\"]", "--priority", "high"]).await;
    call(&place, &["b", "--countdown", "1h"]).await;
    let before = stored(&place, "celery").await;
    celeriac(&place, &["queue", "purge", "celery"]).await.exits(5).warns(&[
        "2 messages wait",
        "nothing was deleted",
        "--yes 2",
    ]);
    celeriac(&place, &["queue", "purge", "celery", "--yes", "3"]).await.exits(5).warns(&["not 3"]);
    assert_eq!(stored(&place, "celery").await.len(), 2);

    let purge = ["queue", "purge", "celery", "--yes", "2", "--save", "saved.jsonl"];
    celeriac(&place, &purge).await.exits(0).says(&["2 messages", "queue load saved.jsonl"]);
    assert_eq!(stored(&place, "celery").await.len(), 0);
    celeriac(&place, &["queue", "purge", "celery"]).await.exits(0).says(&["nothing waits"]);

    let loaded = json(&place, 0, &["queue", "load", "saved.jsonl"]).await;
    assert_eq!(number(&loaded, "loaded"), 2);
    let after = stored(&place, "celery").await;
    let outgoing =
        |stored: &[Stored]| stored.iter().map(|one| one.outgoing.clone()).collect::<Vec<_>>();
    for (one, other) in outgoing(&before).into_iter().zip(outgoing(&after)) {
        assert_eq!(one.message.body, other.message.body);
        assert_eq!(one.message.headers, other.message.headers);
        assert_eq!(one.enqueued_at, other.enqueued_at);
    }
    // An existing file is never overwritten.
    celeriac(&place, &purge).await.exits(2).warns(&["not overwritten"]);
    assert_eq!(stored(&place, "celery").await.len(), 2);
}

#[tokio::test]
async fn a_bad_line_stops_a_load_and_is_named() {
    let place = store().await;
    call(&place, &["a"]).await;
    celeriac(&place, &["queue", "purge", "celery", "--yes", "1", "--save", "s.jsonl"])
        .await
        .exits(0);
    let good = std::fs::read_to_string(place.path("s.jsonl")).unwrap();
    std::fs::write(place.path("bad.jsonl"), format!("{good}{{\"queue\": \"x\"}}\n{good}")).unwrap();
    let load = celeriac(&place, &["queue", "load", "bad.jsonl", "--queue", "moved"]).await;
    load.exits(2).warns(&["line 2", "\"envelope\" is missing"]);
    assert_eq!(stored(&place, "moved").await.len(), 1);
    celeriac(&place, &["queue", "load", "nix.jsonl"])
        .await
        .exits(2)
        .warns(&["cannot read nix.jsonl"]);
    let empty = json(&place, 0, &["queue", "list"]).await;
    assert!(empty.as_array().map(<[Value]>::len).is_some());
}
