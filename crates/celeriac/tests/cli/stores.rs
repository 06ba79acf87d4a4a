//! `store`: backup, check, compact.

use crate::kit::{PATIENCE, command};
use crate::top::Screen;
use crate::{call, celeriac, json, number, store, text};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

#[tokio::test]
async fn a_backup_is_a_whole_store() {
    let place = store().await;
    let id = call(&place, &["nobody.knows"]).await;
    let copy = place.path("copy.db");
    let written = json(&place, 0, &["store", "backup", copy.to_str().unwrap()]).await;
    assert_eq!(number(&written, "messages"), 1);
    assert!(number(&written, "bytes") > 0);
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "readable by this user only");
    let url = format!("sqlite://{}", copy.display());
    let restored = celeriac::App::at(&url).unwrap().client().await.unwrap();
    let view = restored.job::<()>(&id).view().await.unwrap();
    assert_eq!(view.phase.as_str(), "queued");
    let again = celeriac(&place, &["store", "backup", copy.to_str().unwrap()]).await;
    again.exits(2).warns(&["exists", "a new file"]);
}

#[tokio::test]
async fn a_check_finds_and_mends_wrong_counters() {
    let place = store().await;
    call(&place, &["nobody.knows"]).await;
    celeriac(&place, &["store", "check"]).await.exits(0).says(&["no damage"]);
    let file = rusqlite::Connection::open(place.path("queue.db")).unwrap();
    file.busy_timeout(PATIENCE).unwrap();
    file.execute("UPDATE counter SET value = 7 WHERE name = 'depth:celery'", []).unwrap();
    file.execute("DELETE FROM message_body", []).unwrap();
    drop(file);
    let found = json(&place, 5, &["store", "check", "--mend"]).await;
    let found = found.as_array().unwrap();
    assert_eq!(text(&found[0], "place"), "message", "a message without its bytes: {found:?}");
    assert!(text(&found[1], "what").contains("depth:celery is 7, but there are 1"));
    celeriac(&place, &["store", "check"]).await.exits(5).says(&["message"]);
}

#[tokio::test]
async fn compacting_gives_space_back() {
    let place = store().await;
    let big = format!("[\"{}\"]", "x".repeat(100_000));
    for _ in 0..5 {
        call(&place, &["nobody.knows", "-a", &big]).await;
    }
    celeriac(&place, &["queue", "purge", "celery", "--yes", "5"]).await.exits(0);
    let sizes = json(&place, 0, &["store", "compact"]).await;
    assert!(number(&sizes, "bytes_after") * 2 < number(&sizes, "bytes_before"), "{sizes}");
    celeriac(&place, &["store", "check"]).await.exits(0).says(&["no damage"]);
}

#[tokio::test]
async fn a_file_that_is_no_store_any_more_says_what_to_do() {
    let place = store().await;
    call(&place, &["nobody.knows"]).await;
    let length = std::fs::metadata(place.path("queue.db")).unwrap().len();
    std::fs::write(place.path("queue.db"), vec![0x5a; length as usize]).unwrap();
    for name in ["queue.db-wal", "queue.db-shm"] {
        let _gone = std::fs::remove_file(place.path(name));
    }
    let failed = celeriac(&place, &["queue", "list"]).await.exits(1);
    failed.warns(&["file is not a database", "restore the file from a backup"]);
}

/// What takes long says so on a terminal, and nowhere else.
#[tokio::test]
async fn who_waits_at_a_terminal_sees_that_it_goes_on() {
    let place = store().await;
    call(&place, &["nobody.knows"]).await;
    let run = async |args: &[&str]| {
        let screen = Screen::open();
        let mut program = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), place.dir());
        program.args(["-b", place.url()]).args(args).env("TERM", "xterm");
        program.stdout(Stdio::null()).stderr(screen.theirs.try_clone().unwrap());
        let ended = program.spawn().unwrap().wait().await.unwrap();
        assert!(ended.success(), "{args:?}: {ended:?}");
        screen
    };
    let shown = [
        (&["store", "check"][..], "looking at every page"),
        (&["store", "compact"], "writing the files anew"),
        (&["purge", "-Q", "celery", "-f"], "1/1"),
    ];
    for (args, text) in shown {
        run(args).await.shows(text).await;
    }
    // A word of the shell's after it: what a program has written has come by then.
    for args in [&["store", "check", "--json"][..], &["store", "compact", "--json"]] {
        let screen = run(args).await;
        rustix::io::write(&screen.theirs, b"that is all").unwrap();
        screen.shows("that is all").await;
        assert_eq!(screen.text(), "that is all", "{args:?}");
    }
}
