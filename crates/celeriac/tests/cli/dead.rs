//! `dead`: list, show, replay, edit, discard, export.

use crate::kit::Place;
use crate::{call, celeriac, json, number, store, text, work};
use celeriac_wire::Value;

/// Three dead letters: two failed inspections and an unknown task.
async fn graveyard() -> Place {
    let place = store().await;
    call(&place, &["demo.inspect", "-a", "[\"one.csv\"]", "--task-id", "one"]).await;
    call(&place, &["demo.inspect", "-a", "[\"two.csv\"]", "--task-id", "two"]).await;
    call(&place, &["nobody.knows", "--queue", "celery", "--task-id", "three"]).await;
    work(&place).await;
    place
}

async fn count(place: &Place) -> usize {
    json(place, 0, &["dead", "list"]).await.as_array().unwrap().len()
}

#[tokio::test]
async fn dead_letters_are_listed_filtered_and_shown() {
    // covers: S2-26 S3-02 S3-26 T-67
    let place = graveyard().await;
    let list = celeriac(&place, &["dead", "list"]).await.exits(0);
    list.says(&["NUMBER", "demo.inspect", "failed", "unknown-task", "cannot read one.csv"]);
    for (filter, expected) in [
        (vec!["--reason", "failed"], 2),
        (vec!["--reason", "unknown-task"], 1),
        (vec!["--task", "demo.*"], 2),
        (vec!["--contains", "two.csv"], 1),
        (vec!["--queue", "other"], 0),
        (vec!["one", "three"], 2),
    ] {
        let mut args = vec!["dead", "list"];
        args.extend(&filter);
        let listed = json(&place, 0, &args).await;
        assert_eq!(listed.as_array().map(<[Value]>::len), Some(expected), "{filter:?}");
    }
    celeriac(&place, &["dead", "list", "--reason", "bored"])
        .await
        .exits(2)
        .warns(&["unknown-task"]);
    let shown = celeriac(&place, &["dead", "show", "two"]).await.exits(0);
    shown.says(&["TaskFailed", "[[\"two.csv\"]", "history", "headers"]);
    let letter = json(&place, 0, &["dead", "show", "two"]).await;
    assert_eq!(text(&letter, "task_id"), "two");
    assert_eq!(letter.get("history").unwrap().as_array().unwrap().len(), 1);
    celeriac(&place, &["dead", "show", "99"]).await.exits(5).warns(&["no dead letter 99"]);
}

#[tokio::test]
async fn an_edited_dead_letter_succeeds_when_it_is_replayed() {
    let place = graveyard().await;
    std::fs::write(place.path("good.csv"), "a,b\n1,2\n").unwrap();
    celeriac(&place, &["dead", "edit", "1"]).await.exits(2).warns(&["nothing to edit"]);
    celeriac(&place, &["dead", "edit", "1", "-a", "7"]).await.exits(2).warns(&["must be an array"]);
    celeriac(&place, &["dead", "edit", "1", "-a", "[\"good.csv\"]"]).await.exits(0);
    let replayed = json(&place, 0, &["dead", "replay", "1"]).await;
    assert_eq!(number(&replayed, "replayed"), 1);
    work(&place).await;
    celeriac(&place, &["result", "one"]).await.exits(0).says(&["header"]);
    assert_eq!(count(&place).await, 2);
}

#[tokio::test]
async fn replays_need_to_know_what_and_may_be_slow() {
    let place = graveyard().await;
    celeriac(&place, &["dead", "replay"]).await.exits(2).warns(&["which dead letters?", "--all"]);
    celeriac(&place, &["dead", "replay", "99"]).await.exits(5).warns(&["no such dead letter"]);
    celeriac(&place, &["dead", "replay", "--all", "--rate", "0"]).await.exits(2);
    let slow = ["dead", "replay", "--all", "--rate", "50", "--to", "tonight"];
    assert_eq!(number(&json(&place, 0, &slow).await, "replayed"), 3);
    assert_eq!(count(&place).await, 0);
    let queues = json(&place, 0, &["queue", "list"]).await;
    let tonight = queues.as_array().unwrap().iter().find(|queue| text(queue, "queue") == "tonight");
    assert_eq!(number(tonight.unwrap(), "ready"), 3);
}

#[tokio::test]
async fn dead_letters_are_exported_discarded_and_loaded_again() {
    let place = graveyard().await;
    let export = ["dead", "export", "--task", "demo.*", "-o", "dead.jsonl"];
    assert_eq!(number(&json(&place, 0, &export).await, "exported"), 2);
    celeriac(&place, &export).await.exits(2).warns(&["not overwritten"]);
    let file = std::fs::read_to_string(place.path("dead.jsonl")).unwrap();
    assert!(file.lines().all(|line| line.contains("\"reason\": \"failed\"")), "{file}");
    celeriac(&place, &["dead", "discard"]).await.exits(2).warns(&["which dead letters?"]);
    let discard = json(&place, 0, &["dead", "discard", "--all", "--reason", "failed"]).await;
    assert_eq!(number(&discard, "discarded"), 2);
    assert_eq!(count(&place).await, 1);
    assert_eq!(number(&json(&place, 0, &["queue", "load", "dead.jsonl"]).await, "loaded"), 2);
    work(&place).await;
    assert_eq!(count(&place).await, 3);
}
