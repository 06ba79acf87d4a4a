//! `schedule`: entries are added, shown, changed, moved between files, and never lost by a mistake.

use crate::{celeriac, json, number, store, text};
use celeriac_wire::Value;

const NIGHTLY: [&str; 9] = [
    "schedule",
    "add",
    "nightly",
    "--task",
    "t.report",
    "--cron",
    "30 2 * * *",
    "--zone",
    "Europe/Berlin",
];

#[tokio::test]
async fn an_entry_lives_and_goes() {
    // covers: S4-06
    let place = store().await;
    celeriac(&place, &["schedule", "list"]).await.exits(0).says(&["no entries"]);
    let more =
        ["-a", r#"["full"]"#, "--queue", "reports", "--misfire", "all=3", "--overlap", "skip"];
    celeriac(&place, &[&NIGHTLY[..], &more].concat())
        .await
        .exits(0)
        .says(&["added nightly: t.report every day at 02:30 Europe/Berlin, next "]);
    celeriac(&place, &NIGHTLY).await.exits(5).warns(&["there is an entry \"nightly\" already"]);
    celeriac(&place, &["schedule", "list"])
        .await
        .exits(0)
        .says(&["nightly", "every day at 02:30 Europe/Berlin", "scheduled"])
        .warns(&["no beat runs"]);
    let shown = json(&place, 0, &["schedule", "show", "nightly"]).await;
    assert_eq!((text(&shown, "misfire"), number(&shown, "misfire_limit")), ("all", 3));
    assert_eq!((text(&shown, "overlap"), text(&shown, "zone")), ("skip", "Europe/Berlin"));
    assert_eq!(shown.get("options").unwrap().to_string(), r#"{"queue": "reports"}"#);
    assert_eq!(shown.get("leader"), Some(&Value::Null));
    let edit = ["schedule", "edit", "nightly", "--cron", "0 4 * * mon", "--priority", "high"];
    celeriac(&place, &edit).await.exits(0).says(&["changed nightly", "04:00"]);
    let shown = json(&place, 0, &["schedule", "show", "nightly"]).await;
    assert_eq!(text(&shown, "misfire"), "all", "what is not named stays");
    celeriac(&place, &["schedule", "pause", "nightly"]).await.exits(0).says(&["paused"]);
    celeriac(&place, &["schedule", "pause", "nightly"]).await.exits(0).says(&["already"]);
    celeriac(&place, &["schedule", "list"]).await.exits(0).says(&["paused"]);
    celeriac(&place, &["schedule", "resume", "nightly"]).await.exits(0).says(&["goes on"]);
    let ran = json(&place, 0, &["schedule", "run", "nightly"]).await;
    let task_id = text(&ran, "task_id").to_owned();
    let sent = json(&place, 0, &["task", "show", &task_id]).await;
    assert_eq!((text(&sent, "task"), text(&sent, "queue")), ("t.report", "reports"));
    celeriac(&place, &["schedule", "history", "nightly"])
        .await
        .exits(0)
        .says(&["manual", &task_id]);
    celeriac(&place, &["schedule", "remove", "nightly"]).await.exits(0).says(&["removed"]);
    // What was sent was sent.
    celeriac(&place, &["schedule", "history", "nightly"]).await.exits(0).says(&[&task_id]);
    celeriac(&place, &["schedule", "history", "nobody"])
        .await
        .exits(5)
        .warns(&["no entry \"nobody\""]);
    for verb in ["show", "remove", "pause", "resume", "run", "next"] {
        let ran = celeriac(&place, &["schedule", verb, "nightly"]).await.exits(5);
        ran.warns(&["there is no entry \"nightly\"", "celeriac schedule list"]);
    }
}

#[tokio::test]
async fn the_next_times_are_shown_on_both_clocks() {
    let place = store().await;
    let cron = ["schedule", "next", "--cron", "0 12 24 12 *", "--zone", "Europe/Berlin", "-n", "2"];
    let next = json(&place, 0, &cron).await;
    let next = next.as_array().unwrap();
    assert_eq!(next.len(), 2);
    assert!(text(&next[0], "local").contains("-12-24 12:00:00 +0100"), "{next:?}");
    assert!(text(&next[0], "utc").contains("-12-24T11:00:00"), "{next:?}");
    let shown = [&cron[..], &["--tz", "America/New_York"]].concat();
    celeriac(&place, &shown).await.exits(0).says(&[
        "America/New_York",
        "06:00:00 -0500",
        "11:00:00",
    ]);
    celeriac(&place, &["schedule", "next", "--at", "2001-01-01T00:00:00Z"])
        .await
        .exits(0)
        .says(&["never due again"]);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_is_added() {
    let place = store().await;
    let add = |more: &[&'static str]| [&["schedule", "add", "x", "--task", "t"], more].concat();
    for (more, said) in [
        (&["--cron", "0 0 30 2 *"][..], "30"),
        (&["--cron", "0 0 * * 7"], "0 is Sunday"),
        (&["--cron", "61 * * * *"], "61"),
        (&["--cron", "* * *"], "five"),
        (&["--every", "soon"], "--every"),
        (&["--every", "0s"], "every"),
        (&["--solar", "sunrise"], "latitude"),
        (&["--solar", "moonrise,52,13"], "moonrise"),
        (&["--at", "tomorrow"], "--at"),
        (&[], "--cron, --every, --solar, --at"),
        (&["--every", "5m", "--cron", "* * * * *"], "cannot be used with"),
        (&["--every", "5m", "--zone", "Europe/Berln"], "Europe/Berlin"),
        (&["--every", "5m", "-a", "{}"], "args: a list is expected"),
        (&["--every", "5m", "-k", "[]"], "kwargs: an object is expected"),
        (&["--every", "5m", "--overlap", "no"], "queue-one"),
        (&["--every", "5m", "--misfire", "all=many"], "many"),
        (&["--every", "5m", "--max-instances", "0"], "max_instances"),
        (
            &["--every", "5m", "--start", "2030-01-01T00:00:00Z", "--end", "2029-01-01T00:00:00Z"],
            "before its start",
        ),
    ] {
        celeriac(&place, &add(more)).await.exits(2).warns(&[said]);
    }
    celeriac(&place, &["schedule", "list"]).await.exits(0).says(&["no entries"]);
    celeriac(&place, &["beat", "-S", "django"]).await.exits(2).warns(&["Django's database"]);
    celeriac(&place, &["beat", "-S", "my.mod:Own"]).await.exits(2).warns(&["decides for itself"]);
    celeriac(&place, &["beat", "--lease", "0s"]).await.exits(2).warns(&["from 1s to 10m"]);
}

#[tokio::test]
async fn a_file_of_record_adds_changes_and_removes() {
    // covers: S4-07
    let place = store().await;
    let file = place.path("jobs.json");
    let write = |jobs: &str| std::fs::write(&file, jobs).unwrap();
    let sync = ["schedule", "sync", "jobs.json"];
    let job = |name: &str, every: u32| {
        format!(
            r#"{{"name": "{name}", "task": "t", "schedule": {{"type": "interval", "every": {every}}}}}"#
        )
    };
    celeriac(&place, &["schedule", "add", "own", "--task", "t", "--every", "1h"]).await.exits(0);
    write(&format!("[{}, {}, {}]", job("a", 60), job("b", 60), job("own", 60)));
    let dry = celeriac(&place, &[&sync[..], &["--dry-run"]].concat()).await.exits(0);
    dry.says(&["a: would be added", "b: would be added"])
        .warns(&["own: left as it is", "would be: "]);
    assert_eq!(json(&place, 0, &["schedule", "list"]).await.as_array().unwrap().len(), 1);
    celeriac(&place, &sync).await.exits(0).warns(&["2 entries added"]);
    celeriac(&place, &["schedule", "edit", "b", "--every", "5m"]).await.exits(0);
    write(&format!("{}\n{}\n", job("a", 30), job("b", 30)));
    celeriac(&place, &sync)
        .await
        .exits(0)
        .says(&["a: changed"])
        .warns(&["b: left as it is: it was changed here"]);
    celeriac(&place, &["schedule", "reset", "b"]).await.exits(0).says(&["as sync has it"]);
    celeriac(&place, &sync).await.exits(0).says(&["b: changed"]);
    write(&job("b", 30));
    celeriac(&place, &sync).await.exits(0).says(&["a: removed"]);
    write("{");
    celeriac(&place, &sync).await.exits(2).warns(&["line 1"]);
    write(r#"{"name": "b", "task": "t", "schedule": {"type": "weekly"}}"#);
    celeriac(&place, &sync).await.exits(2).warns(&["line 1", "weekly"]);
    let names: Vec<String> = json(&place, 0, &["schedule", "list"])
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "name").to_owned())
        .collect();
    assert_eq!(names, ["b", "own"], "a file with a mistake changes nothing");
}

#[tokio::test]
async fn entries_move_between_stores_with_their_next_times() {
    let (one, two) = (store().await, store().await);
    celeriac(&one, &NIGHTLY).await.exits(0);
    celeriac(&one, &["schedule", "add", "often", "--task", "t", "--every", "7h"]).await.exits(0);
    let file = two.path("entries.jsonl");
    let exported = celeriac(&one, &["schedule", "export"]).await.exits(0);
    std::fs::write(&file, exported.stdout).unwrap();
    let import = ["schedule", "import", "entries.jsonl"];
    celeriac(&two, &[&import[..], &["--dry-run"]].concat())
        .await
        .exits(0)
        .says(&["would be added"]);
    celeriac(&two, &import).await.exits(0).warns(&["2 entries added"]);
    celeriac(&two, &import).await.exits(0).warns(&["2 entries there already"]);
    for name in ["nightly", "often"] {
        let next = |value: Value| text(&value, "next").to_owned();
        let show = ["schedule", "show", name];
        assert_eq!(next(json(&one, 0, &show).await), next(json(&two, 0, &show).await), "{name}");
    }
    std::fs::write(two.path("crontab"), "MAILTO=me\n*/5 * * * * /usr/bin/sync --all\n").unwrap();
    let cron = ["schedule", "import", "--format", "cron", "--task", "shell.run", "crontab"];
    celeriac(&two, &cron)
        .await
        .exits(0)
        .says(&["cron-2: added"])
        .warns(&["MAILTO", "1 entry added"]);
    let shown = json(&two, 0, &["schedule", "show", "cron-2"]).await;
    assert_eq!(shown.get("args").unwrap().to_string(), r#"["/usr/bin/sync --all"]"#);
}

#[tokio::test]
async fn a_section_of_the_settings_is_an_entry() {
    let place = store().await;
    let config = |text: &str| std::fs::write(place.path("celeriac.toml"), text).unwrap();
    for (section, said) in [
        ("[schedule.a]\ntask = 't'\n", "one of cron, every, solar and at"),
        ("[schedule.a]\ntask = 't'\nevery = '5m'\ncron = '* * * * *'\n", "one of cron"),
        ("[schedule.a]\nevery = '5m'\n", "task's name"),
        ("[schedule.a]\ntask = 't'\nevery = '5m'\noverlp = 'skip'\n", "did you mean \"overlap\"?"),
        ("[schedule.a]\ntask = 't'\ncron = '0 0 31 2 *'\n", "cron"),
        ("[schedule.a]\ntask = 't'\nevery = '5m'\nzone = 'Europe/Nowhere'\n", "Europe/Nowhere"),
        ("[schedule]\na = 5\n", "must be a section"),
        ("schedule = 5\n", "schedule is a section"),
    ] {
        config(section);
        celeriac(&place, &["schedule", "list"]).await.exits(3).warns(&[said, "celeriac.toml"]);
    }
}
