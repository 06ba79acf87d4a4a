//! `limit`, `pause`, `resume`, `pauses`.

use crate::{call, celeriac, json, number, store, text, work};
use celeriac_wire::Value;

#[tokio::test]
async fn limits_are_set_listed_and_removed() {
    let place = store().await;
    celeriac(&place, &["limit", "list"]).await.exits(0).says(&["no limits"]);
    let set = ["limit", "set", "--task", "nobody.knows", "--rate", "1/h", "--concurrency", "3"];
    celeriac(&place, &set).await.exits(0).says(&["limited task nobody.knows"]);
    let keys = ["limit", "set", "--each-key", "--rate", "100/m burst, 1000/h burst"];
    celeriac(&place, &keys).await.exits(0);
    let listed = json(&place, 0, &["limit", "list"]).await;
    let listed = listed.as_array().unwrap();
    assert_eq!((text(&listed[0], "kind"), text(&listed[0], "name")), ("key", "*"));
    assert_eq!(text(&listed[1], "origin"), "operator");
    assert_eq!(number(&listed[1], "concurrency"), 3);
    let rates = listed[0].get("rates").and_then(Value::as_array).unwrap().len();
    assert_eq!(rates, 2);
    celeriac(&place, &["limit", "list"]).await.exits(0).says(&[
        "task nobody.knows",
        "1/h",
        "100/m",
    ]);

    let (first, second) =
        (call(&place, &["nobody.knows"]).await, call(&place, &["nobody.knows"]).await);
    work(&place).await;
    assert_eq!(text(&json(&place, 0, &["task", "show", &first]).await, "phase"), "dead");
    let held = json(&place, 0, &["task", "show", &second]).await;
    assert_eq!((text(&held, "phase"), held.get("limited")), ("queued", Some(&Value::from(true))));
    celeriac(&place, &["task", "show", &second]).await.exits(0).says(&["held back by a limit"]);
    let remove = ["limit", "remove", "--task", "nobody.knows"];
    celeriac(&place, &remove).await.exits(0).says(&["is gone"]);
    celeriac(&place, &remove).await.exits(5).warns(&["no limit was set"]);
    work(&place).await;
    assert_eq!(text(&json(&place, 0, &["task", "show", &second]).await, "phase"), "dead");
}

#[tokio::test]
async fn a_limit_that_makes_no_sense_is_refused() {
    let place = store().await;
    for (args, why) in [
        (["limit", "set", "--task", "t", "--rate", "ten"].as_slice(), "is no rate"),
        (&["limit", "set", "--task", "t", "--rate", "0/s"], "limits nothing"),
        (&["limit", "set", "--task", "t", "--rate", "5/s, 0/s"], "limits nothing"),
        (&["limit", "set", "--key", "", "--rate", "5/s"], "has no name"),
        (&["limit", "set", "--task", "t", "--concurrency", "0"], "lets nothing run"),
        (&["limit", "set", "--task", "t"], "--rate"),
        (&["limit", "set", "--rate", "1/s"], "--task"),
        (&["limit", "set", "--queue", "celeriac:x", "--rate", "1/s"], "reserved"),
        (&["pause", "--each-key"], "for limits"),
    ] {
        celeriac(&place, args).await.exits(2).warns(&[why]);
    }
}

#[tokio::test]
async fn a_task_a_key_and_everything_are_paused_and_resumed() {
    let place = store().await;
    let id = call(&place, &["nobody.knows"]).await;
    celeriac(&place, &["pauses"]).await.exits(0).says(&["nothing is paused"]);
    for target in [["--task", "nobody.knows"].as_slice(), &["--key", "acme"], &["--all"]] {
        let mut args = vec!["pause", "--reason", "provider is down"];
        args.extend(target);
        celeriac(&place, &args).await.exits(0).says(&["paused"]);
    }
    let listed = json(&place, 0, &["pauses"]).await;
    let kinds: Vec<&str> =
        listed.as_array().unwrap().iter().map(|pause| text(pause, "kind")).collect();
    assert_eq!(kinds, ["everything", "key", "task"]);
    celeriac(&place, &["status"]).await.exits(69).says(&["paused everything: provider is down"]);
    celeriac(&place, &["queue", "list"]).await.exits(0).says(&["paused"]);
    celeriac(&place, &["pauses"]).await.exits(0).says(&["task nobody.knows", "provider is down"]);
    celeriac(&place, &["resume", "--all"]).await.exits(0).says(&["resumed everything"]);
    work(&place).await;
    celeriac(&place, &["task", "show", &id]).await.exits(0).says(&["paused"]);
    celeriac(&place, &["resume", "--task", "nobody.knows"]).await.exits(0);
    celeriac(&place, &["resume", "--task", "nobody.knows"]).await.exits(5);
    work(&place).await;
    assert_eq!(text(&json(&place, 0, &["task", "show", &id]).await, "phase"), "dead");
}
