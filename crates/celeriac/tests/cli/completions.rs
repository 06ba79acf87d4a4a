//! What shells get at Tab: from a real store, through each shell's protocol, and in bash itself.

use crate::kit::{PATIENCE, Place, Ran, Worker, command, until};
use crate::{call, celeriac, store, work};
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_celeriac");

/// What bash is offered for a line, of which it would replace `word`.
async fn offered(place: &Place, line: &str, word: &str) -> Vec<String> {
    let mut program = command(Path::new(PROGRAM), place.dir());
    program.env("CELERIAC_COMPLETE", "bash").args(["--", line, word]);
    let ran = Ran::new(&mut program).await.exits(0);
    assert_eq!(ran.stderr, "");
    ran.stdout.lines().map(str::to_owned).collect()
}

/// The same, once it is these: a busy machine may need longer than a person would wait.
async fn offers(place: &Place, line: &str, word: &str, expected: &[&str]) {
    until(&format!("{line:?} offers {expected:?}"), PATIENCE, async || {
        (offered(place, line, word).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_come_from_the_store_that_the_line_names() {
    let place = store().await;
    call(&place, &["nobody.knows", "--queue", "mail"]).await;
    call(&place, &["nobody.knows", "--queue", "reports"]).await;
    let line = |rest: &str| format!("celeriac -b {} {rest}", place.url());
    offers(&place, &line("queue peek "), "", &["mail", "reports"]).await;
    offers(&place, &line("queue peek r"), "r", &["reports"]).await;
    offers(&place, &line("purge -Q mail,re"), "mail,re", &["mail,reports"]).await;
    offers(&place, &line("worker -Q mail,re"), "mail,re", &["mail,reports"]).await;
    // Commands and options need no store.
    assert!(offered(&place, "celeriac queue pu", "pu").await.contains(&"purge".to_owned()));
    assert!(offered(&place, "celeriac top --on", "--on").await.contains(&"--once".to_owned()));

    celeriac(
        &place,
        &["worker", "-Q", "mail", "--stop-when-idle", "10ms", "--unknown-tasks", "dead-letter"],
    )
    .await
    .exits(0);
    offers(&place, &line("dead show "), "", &["1"]).await;
    std::fs::write(place.path("celeriac.toml"), format!("broker_url = {:?}\n", place.url()))
        .unwrap();
    offers(&place, "celeriac dead replay ", "", &["1"]).await;
    let elsewhere =
        format!("celeriac --config {} dead replay ", place.path("celeriac.toml").display());
    offers(&place, &elsewhere, "", &["1"]).await;
}

#[tokio::test]
async fn workers_and_their_tasks_are_offered_while_they_live() {
    let place = store().await;
    let open = place.app().store().await.unwrap();
    let mut worker = Worker::start(&place, &open, "web@one", "4s", &["-c", "1"]).await;
    let line = |rest: &str| format!("celeriac -b {} {rest}", place.url());
    // bash splits at the @: it replaces what follows and the sign itself.
    offers(&place, &line("inspect ping -d web@o"), "@o", &["@one"]).await;
    offers(&place, &line("inspect ping -d "), "", &["web@one"]).await;
    offers(&place, &line("call ledger.un"), "ledger.un", &["ledger.until_told"]).await;
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());
    offers(&place, &line("inspect ping -d "), "", &[]).await;
}

#[tokio::test]
async fn nothing_is_made_or_said_where_there_is_no_store() {
    let place = Place::sqlite();
    for url in [place.url(), "redis://127.0.0.1:1/0", "ftp://h", "memory://"] {
        let offered = offered(&place, &format!("celeriac -b {url} queue peek "), "").await;
        assert_eq!(offered, [""; 0], "{url}");
    }
    // The default store of this folder is not the one of an application that is not imported.
    std::fs::write(place.path("celeriac.toml"), "no_such_key = 1\n").unwrap();
    assert_eq!(offered(&place, "celeriac queue peek ", "").await, [""; 0]);
    std::fs::remove_file(place.path("celeriac.toml")).unwrap();
    assert_eq!(offered(&place, "celeriac -A proj queue peek ", "").await, [""; 0]);
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_scripts_work_in_their_shells() {
    let place = store().await;
    call(&place, &["nobody.knows", "--queue", "mail"]).await;
    work(&place).await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = celeriac(&place, &["completions", shell]).await.exits(0);
        script.says(&["CELERIAC_COMPLETE", PROGRAM]);
    }
    // bash itself, as it calls the function at Tab.
    let script = r#"
        source <("$1" completions bash)
        COMP_LINE="celeriac -b $2 queue peek m" COMP_POINT=1000
        complete -p celeriac
        _celeriac_complete celeriac m peek
        printf '<%s>' "${COMPREPLY[@]}"
    "#;
    until("bash completes a queue", PATIENCE, async || {
        let mut bash = command(Path::new("/bin/bash"), place.dir());
        let ran = Ran::new(bash.args(["-c", script, "bash", PROGRAM, place.url()])).await.exits(0);
        assert!(
            ran.stdout.contains("complete -o bashdefault -F _celeriac_complete celeriac"),
            "{ran:?}"
        );
        ran.stdout.ends_with("<mail>").then_some(())
    })
    .await;
    // The protocol of zsh and fish: words, with the place of the current one beside them.
    let mut fish = command(Path::new(PROGRAM), place.dir());
    fish.env("CELERIAC_COMPLETE", "fish").args(["--", "celeriac", "dead", "re"]);
    Ran::new(&mut fish).await.exits(0).says(&["replay\tPut dead letters back"]);
    let mut odd = command(Path::new(PROGRAM), place.dir());
    odd.env("CELERIAC_COMPLETE", "tcsh").args(["--", "celeriac"]);
    Ran::new(&mut odd).await.exits(2).warns(&["unknown shell `tcsh`"]);
}
