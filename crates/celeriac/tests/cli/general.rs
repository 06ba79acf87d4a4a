//! Settings, errors, help and manual pages.

use crate::kit::{Place, Ran, command};
use crate::{celeriac, json, store, text};
use std::path::Path;

/// Runs `celeriac` without a store URL, with these variables.
async fn with_env(place: &Place, vars: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), place.dir());
    Ran::new(command.envs(vars.iter().copied()).args(args)).await
}

#[tokio::test]
async fn settings_are_shown_with_their_sources() {
    // covers: S1-13 S1-15 S3-11 S5-12
    let place = store().await;
    std::fs::write(place.path(".env"), "CELERY_WORKER_CONCURRENCY=7\n").unwrap();
    std::fs::write(place.path("celeriac.toml"), "grace = \"10s\"\n").unwrap();
    let vars = [("CELERY_BROKER_URL", "sqlite://x.db"), ("CELERY_TASK_TIME_LIMIT", "1800")];
    let shown = with_env(&place, &vars, &["config", "show"]).await.exits(0);
    shown.says(&[
        "environment CELERY_BROKER_URL",
        ".env CELERY_WORKER_CONCURRENCY",
        "celeriac.toml, line 1",
        "environment CELERY_TASK_TIME_LIMIT",
    ]);
    let rows = json(&place, 0, &["config", "show"]).await;
    let broker = &rows.as_array().unwrap()[0];
    assert_eq!((text(broker, "key"), text(broker, "source")), ("broker_url", "flag --broker-url"));
}

#[tokio::test]
async fn wrong_settings_stop_the_program_and_odd_ones_warn() {
    // covers: T-33 T-43
    let place = store().await;
    let junk = [("CELERIAC_TASK_EVENTS", "false  # Feature flag")];
    with_env(&place, &junk, &["status"]).await.exits(3).warns(&["comment", "Feature flag"]);
    let typo = [("CELERY_WORKER_CONCURENCY", "3"), ("CELERIAC_BROKER_URL", place.url())];
    with_env(&place, &typo, &["pauses"])
        .await
        .exits(0)
        .warns(&["did you mean CELERY_WORKER_CONCURRENCY?"]);
    std::fs::write(place.path("celeriac.toml"), "\nqueus = [\"a\"]\n").unwrap();
    celeriac(&place, &["status"]).await.exits(3).warns(&["line 2", "did you mean \"queues\"?"]);
    std::fs::remove_file(place.path("celeriac.toml")).unwrap();
    celeriac(&place, &["--config", "nix.toml", "status"])
        .await
        .exits(3)
        .warns(&["cannot read nix.toml"]);
}

/// Each command of Celery 5.7 is here, or is refused with where its work is done (celery/bin/celery.py).
#[tokio::test]
async fn every_command_of_celery_has_its_place() {
    let place = store().await;
    let here = [
        "purge", "call", "list", "result", "migrate", "status", "worker", "events", "inspect",
        "control", "report", "beat", "schedule",
    ];
    for command in here {
        celeriac(&place, &[command, "--help"]).await.exits(0).says(&["Usage:"]);
    }
    let elsewhere = ["amqp", "graph", "logtool", "multi", "rollout", "shell", "upgrade"];
    for command in elsewhere {
        let said = format!("there is no `celeriac {command}`: ");
        celeriac(&place, &[command, "-A", "proj"]).await.exits(2).warns(&[&said, "hint: "]);
    }
    celeriac(&place, &["wroker"]).await.exits(2).warns(&["'worker'"]);
}

#[tokio::test]
async fn what_is_not_here_is_refused_with_a_sentence() {
    let place = store().await;
    for (args, code, expected) in [
        (vec!["--workdir", "/nowhere/at/all", "config", "show"], 2, "--workdir /nowhere/at/all"),
        (
            vec!["-A", "proj", "--python", "/nowhere/python", "worker"],
            3,
            "cannot start /nowhere/python",
        ),
        (vec!["-b", "redis://user:secret@h/0?odd=1", "status"], 2, "unknown option \"odd\""),
        (vec!["-b", "amqp://h", "status"], 2, "cannot use amqp:// yet"),
        (vec!["-b", "ftp://h", "status"], 2, "unknown store scheme"),
        (vec!["-b", "sqlite://", "status"], 2, "names no file"),
        (vec!["worker", "-P", "gevent"], 3, "there is no pool gevent: use async"),
        (vec!["worker", "-c", "0"], 3, "from 1 to 10000"),
        (vec!["inspect", "nosuch"], 2, "available inspect commands: active, active_queues"),
        (vec!["inspect", "revoke", "x"], 2, "write `celeriac control revoke`"),
        (vec!["control", "revoke"], 2, "takes arguments: [id1 [id2"),
        (vec!["control", "pool_grow", "many"], 2, "n is a whole number, not \"many\""),
        (vec!["inspect", "ping", "-t", "soon"], 2, "--timeout: expected a duration"),
        (vec!["events", "-c", "my.Camera"], 2, "cameras are Python classes"),
        (vec!["wroker"], 2, "worker"),
        (vec!["call"], 2, "Usage"),
    ] {
        let ran = with_env(&place, &[], &args).await.exits(code).warns(&[expected]);
        assert!(!ran.stderr.contains("secret"), "{ran:?}");
    }
}

#[tokio::test]
async fn errors_are_json_for_programs() {
    let place = store().await;
    let ran = celeriac(&place, &["--json", "dead", "show", "9"]).await.exits(5);
    let error = celeriac_wire::Value::parse(ran.stderr.trim().as_bytes()).unwrap();
    assert_eq!(error.get("exit_code").unwrap().as_i64(), Some(5));
    assert!(
        text(&error, "error").contains("no dead letter 9")
            && text(&error, "hint").contains("dead list")
    );
}

#[tokio::test]
async fn a_store_that_is_none_is_refused() {
    let place = store().await;
    std::fs::write(place.path("text.db"), "this is no database, it is a longer text").unwrap();
    let url = format!("sqlite://{}", place.path("text.db").display());
    let ran = with_env(&place, &[], &["-b", &url, "status"]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("not a database"), "{ran:?}");
    let nowhere = with_env(&place, &[], &["-b", "sqlite:///proc/nix/q.db", "call", "x"]).await;
    nowhere.exits(2).warns(&["/proc/nix/q.db", "may write"]);
}

#[tokio::test]
async fn help_has_examples() {
    let place = store().await;
    celeriac(&place, &["--help"]).await.exits(0).says(&["Exit codes", "worker", "demo", "dead"]);
    let with_examples = ["worker", "demo", "call", "result", "bench", "completions", "man", "top"];
    let remote = ["inspect", "control", "status", "events", "purge", "report"];
    for command in with_examples.into_iter().chain(remote) {
        celeriac(&place, &[command, "--help"]).await.exits(0).says(&["Example"]);
    }
    for command in [["queue", "purge"], ["dead", "replay"], ["task", "list"], ["config", "show"]] {
        celeriac(&place, &[command[0], command[1], "--help"]).await.exits(0).says(&["Example"]);
    }
}

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let place = store().await;
    let written = json(&place, 0, &["man", "pages/man1"]).await;
    let names: Vec<String> = std::fs::read_dir(place.path("pages/man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        written.get("pages").and_then(celeriac_wire::Value::as_i64),
        Some(names.len() as i64)
    );
    for name in ["celeriac.1", "celeriac-worker.1", "celeriac-queue-purge.1", "celeriac-man.1"] {
        assert!(names.iter().any(|one| one == name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("dashboard") || name.contains("help")));
    let page = std::fs::read_to_string(place.path("pages/man1/celeriac-queue-purge.1")).unwrap();
    let shown = celeriac(&place, &["man", "--page", "queue purge"]).await.exits(0);
    assert_eq!(shown.stdout.trim_end(), page.trim_end());
    shown.says(&[".TH celeriac-queue-purge 1", "Delete the waiting messages", "reports.jsonl"]);
    celeriac(&place, &["man"]).await.exits(0).says(&[".TH celeriac 1", "Exit codes"]);
    let unknown = celeriac(&place, &["man", "--page", "queue prune"]).await;
    unknown.exits(2).warns(&["there is no command \"queue prune\"", "celeriac queue --help"]);
    std::fs::write(place.path("file"), "").unwrap();
    celeriac(&place, &["man", "file"]).await.exits(2).warns(&["cannot write pages into file"]);
}

#[tokio::test]
async fn the_bench_prints_its_figures_and_leaves_nothing_behind() {
    let place = store().await;
    let bench = ["bench", "--dir", ".", "--tasks", "200", "--single", "20", "-c", "4"];
    let figures = json(&place, 0, &bench).await;
    let names: Vec<&str> =
        figures.as_array().unwrap().iter().map(|one| text(one, "figure")).collect();
    assert!(names.contains(&"execute no-ops, results on") && names.contains(&"enqueue one by one"));
    let left = std::fs::read_dir(place.dir()).unwrap();
    assert!(
        left.map(|entry| entry.unwrap().file_name())
            .all(|name| !name.to_string_lossy().contains("bench"))
    );
}

#[tokio::test]
async fn nothing_is_made_by_looking() {
    let place = Place::sqlite();
    for args in [
        vec!["status"],
        vec!["task", "show", "x"],
        vec!["queue", "list"],
        vec!["dead", "list"],
        vec!["inspect", "ping"],
        vec!["control", "shutdown"],
        vec!["events"],
        vec!["purge", "-f"],
    ] {
        celeriac(&place, &args).await.exits(4).warns(&["there is no store at", "-b"]);
    }
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0);
}

/// What only children can do is refused where there are none, not ignored.
#[tokio::test]
async fn limits_of_children_need_children() {
    let place = store().await;
    for args in [["--max-tasks-per-child", "5"], ["--max-memory-per-child", "200000"]] {
        let mut all = vec!["worker", "-P", "async"];
        all.extend(args);
        celeriac(&place, &all).await.exits(2).warns(&["need child processes", "-P process"]);
    }
}
