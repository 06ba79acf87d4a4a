//! `store`: backup, check, compact.

use crate::kit::PATIENCE;
use crate::{call, celeriac, json, number, store, text};
use std::os::unix::fs::PermissionsExt as _;

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
