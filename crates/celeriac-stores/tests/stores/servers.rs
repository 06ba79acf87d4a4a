//! Ways to a Redis, and servers that are refused.

use super::{celery, plan};
use celeriac_core::limits::StoreLimits;
use celeriac_core::store::{ChordFinisher, ChordPart, ChordStart, Page, Plan, Store};
use celeriac_core::testing::{FixedClock, Seeded};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_stores::{Resources, connect};
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::{Redis, make_certificates};
use celeriac_testkit::services::sentinel::Sentinel;
use celeriac_wire::{Signature, State, Value};
use std::sync::{Arc, Mutex};

/// The store behind a URL.
fn store(url: &str) -> Arc<dyn Store> {
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let entropy = Arc::new(Seeded::new(7));
    connect(url, Resources { clock, entropy, limits: StoreLimits::default(), results: None })
        .unwrap()
}

/// Sends a message, and reads it back by another way.
async fn works(url: &str, redis: &Redis) -> Result<(), StoreError> {
    store(url).publish(plan(&["a"]), None).await?;
    let seen = store(&redis.url()).peek(&celery(), Page { after: 0, count_max: 9 }).await?;
    assert_eq!(seen.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_socket_file_is_a_way() {
    let redis = redis_or_skip!();
    works(&format!("redis+socket://{}", redis.socket().display()), &redis).await.unwrap();
}

/// An ended member of the chord `g`.
fn part(index: i64, task_id: &str) -> ChordPart {
    ChordPart {
        group: "g".to_owned(),
        index,
        task_id: task_id.to_owned(),
        state: State::Success,
        result: Value::from(index),
        body: Signature::new("app.sum"),
    }
}

/// Celery 5.4 sets the size of a chord to that of a group at the end of one of its chains.
#[tokio::test]
async fn a_chord_waits_for_the_members_that_its_saved_header_names() {
    let redis = redis_or_skip!();
    let header = r#"{"result": [["g", null], [[["a", null], null],
        [["h", null], [[["b", null], null], [["c", null], null]]]]]}"#;
    redis.cli(&["SET", "celery-taskset-meta-g", header]).await;
    let store = store(&redis.url());
    let ended = Arc::new(Mutex::new(Vec::new()));
    let diary = Arc::clone(&ended);
    let finisher: ChordFinisher = Arc::new(move |done| {
        diary.lock().unwrap().push(done.parts.len());
        Plan::default()
    });
    let chords = vec![ChordStart { group: "g".to_owned(), size: 2 }];
    let steps = [(0, "a", chords, false), (1, "b", Vec::new(), false), (2, "c", Vec::new(), true)];
    for (index, task_id, chords, complete) in steps {
        let plan = Plan { chords, parts: vec![part(index, task_id)], ..Plan::default() };
        store.publish(plan, Some(Arc::clone(&finisher))).await.unwrap();
        let done = redis.cli(&["EXISTS", "celery-taskset-meta-g.c"]).await.int() == 1;
        assert_eq!(done, complete, "after {task_id}");
        let size = redis.cli(&["GET", "celery-taskset-meta-g.s"]).await;
        assert_eq!(
            (!size.is_nil()).then(|| size.text()),
            (!complete).then(|| (2 + index).to_string())
        );
    }
    assert_eq!(*ended.lock().unwrap(), [3]);
}

/// What is kept for ever has parts of chords that are kept, too.
#[tokio::test]
async fn parts_of_chords_outlive_results_that_never_expire() {
    let redis = redis_or_skip!();
    let clock = Arc::new(FixedClock::at("2026-11-21T12:00:00Z"));
    let limits = StoreLimits { result_expires: None, ..StoreLimits::default() };
    let resources = Resources { clock, entropy: Arc::new(Seeded::new(7)), limits, results: None };
    let store = connect(&redis.url(), resources).unwrap();
    let chords = vec![ChordStart { group: "g".to_owned(), size: 2 }];
    let plan = Plan { chords, parts: vec![part(0, "a")], ..Plan::default() };
    store.publish(plan, None).await.unwrap();
    for suffix in ["j", "s", "d"] {
        let left = redis.cli(&["TTL", &format!("celery-taskset-meta-g.{suffix}")]).await;
        assert!(left.int() > 86_400 * 365, "{suffix}: {left:?}");
    }
}

#[tokio::test]
async fn tls_checks_the_certificate_unless_it_is_told_not_to() {
    let redis = redis_or_skip!(Redis::options().tls());
    let url = redis.tls_url();
    let authority = redis.authority();
    works(&format!("{url}?ssl_ca_certs={}", authority.display()), &redis).await.unwrap();
    let unknown = works(&format!("{url}?ssl_cert_reqs=required"), &redis).await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    store(&format!("{url}?ssl_cert_reqs=CERT_NONE")).queues().await.unwrap();
    let missing = store(&format!("{url}?ssl_ca_certs=/no/such/file")).queues().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Invalid, "{missing}");
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
}

#[tokio::test]
async fn a_server_may_want_a_certificate_of_the_client() {
    let redis = redis_or_skip!(Redis::options().tls_of_known_clients());
    let (certificate, key) = redis.client_certificate();
    let (certificate, key) = (certificate.display(), key.display());
    let url = format!("{}?ssl_ca_certs={}", redis.tls_url(), redis.authority().display());
    works(&format!("{url}&ssl_certfile={certificate}&ssl_keyfile={key}"), &redis).await.unwrap();
    // One file may hold both, as in Python.
    let both = redis.folder().join("both.pem");
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, read(certificate.to_string()) + &read(key.to_string())).unwrap();
    store(&format!("{url}&ssl_certfile={}", both.display())).queues().await.unwrap();
    for (more, hint) in [
        (String::new(), "ssl_certfile=FILE&ssl_keyfile=FILE"),
        // Certificates of another authority.
        (strangers(&redis), "does not know the authority"),
        (format!("&ssl_certfile={certificate}"), "ssl_keyfile"),
        (format!("&ssl_keyfile={key}"), "ssl_certfile"),
        (format!("&ssl_certfile=/no/such/file&ssl_keyfile={key}"), "/no/such/file"),
    ] {
        let error = store(&format!("{url}{more}")).queues().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{more}: {error}");
        let said = format!("{error}; {}", error.hint_text().unwrap_or_default());
        assert!(said.contains(hint), "{more}: {said}");
    }
}

/// The options for a client's certificate that another server's authority has signed.
fn strangers(redis: &Redis) -> String {
    let folder = redis.folder().join("strangers");
    std::fs::create_dir(&folder).unwrap();
    make_certificates(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    format!("&ssl_certfile={}&ssl_keyfile={}", file("client.pem"), file("client.key"))
}

#[tokio::test]
async fn passwords_are_asked_for_and_named_when_they_are_wrong() {
    let redis = redis_or_skip!(Redis::options().user("worker", "p@ss:/word", "~* &* +@all"));
    works(&redis.url_as("worker", "p%40ss%3A%2Fword"), &redis).await.unwrap();
    let wrong = works(&redis.url_as("worker", "other"), &redis).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid, "{wrong}");
    assert!(wrong.hint_text().unwrap().contains("password"), "{wrong}");
    assert!(!wrong.to_string().contains("other"), "{wrong}");
}

#[tokio::test]
async fn the_second_server_of_a_url_is_tried_when_the_first_is_away() {
    let redis = redis_or_skip!();
    works(&format!("redis://127.0.0.1:1/0;{}", redis.url()), &redis).await.unwrap();
}

#[tokio::test]
async fn a_sentinel_names_the_master() {
    let redis = redis_or_skip!();
    let sentinel = Sentinel::of(&redis).await;
    let port = sentinel.port();
    works(&format!("sentinel://127.0.0.1:{port}/0?master_name=main"), &redis).await.unwrap();
    let unknown = format!("sentinel://127.0.0.1:{port}/0?master_name=nobody");
    let error = store(&unknown).queues().await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}

#[tokio::test]
async fn servers_that_cannot_keep_our_promises_are_refused() {
    let evicts = redis_or_skip!(Redis::options().config("maxmemory-policy allkeys-lru"));
    let error = store(&evicts.url()).queues().await.unwrap_err();
    assert!(error.to_string().contains("allkeys-lru"), "{error}");
    works(&format!("{}?allow_eviction=true", evicts.url()), &evicts).await.unwrap_err();
    store(&format!("{}?allow_eviction=true", evicts.url())).queues().await.unwrap();
    let cluster = redis_or_skip!(Redis::options().config("cluster-enabled yes"));
    let error = store(&cluster.url()).queues().await.unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");
    let newer = redis_or_skip!();
    newer.cli(&["SET", "celeriac:format", "99"]).await;
    let error = store(&newer.url()).queues().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Outdated, "{error}");
}

#[tokio::test]
async fn keys_of_an_older_format_go_on_and_older_programs_are_told() {
    let redis = redis_or_skip!();
    redis.cli(&["SET", "celeriac:format", "1"]).await;
    works(&redis.url(), &redis).await.unwrap();
    assert_eq!(redis.cli(&["GET", "celeriac:format"]).await.text(), "2");
}

/// Results carry Celery's time to live, and nothing else of ours grows without bound.
#[tokio::test]
async fn results_go_by_themselves() {
    let redis = redis_or_skip!();
    let meta = celeriac_wire::ResultMeta::new("a", &celeriac_wire::State::Success, 5);
    let record = celeriac_core::store::ResultRecord {
        meta,
        task: None,
        queue: None,
        worker: None,
        enqueued_at: None,
        started_at: None,
        written_at: jiff::Timestamp::UNIX_EPOCH,
        retries: 0,
    };
    let plan = celeriac_core::store::Plan { results: vec![record], ..Default::default() };
    store(&redis.url()).publish(plan, None).await.unwrap();
    let left = redis.cli(&["TTL", "celery-task-meta-a"]).await.int();
    assert!((86_390..=86_400).contains(&left), "{left}");
}
