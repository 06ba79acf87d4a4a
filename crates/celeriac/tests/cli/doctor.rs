//! `doctor`: the seeds' code before its correction, and servers with each mistake made real.

use crate::kit::{Ran, command};
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::{Redis, RedisOptions};
use celeriac_testkit::services::resp::Reply;
use celeriac_wire::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The seeds' code as it was written (`interop/seeds/uncorrected`).
fn uncorrected(seed: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/seeds/uncorrected");
    folder.join(seed).canonicalize().unwrap()
}

async fn doctor(folder: &Path, args: &[&str]) -> Ran {
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    // Options of all commands may stand behind it.
    let mut asked = command(program, folder);
    Ran::new(asked.args(["doctor", "--older-than", "0s"]).args(args)).await
}

fn read(ran: &Ran) -> Value {
    Value::parse(ran.stdout.trim().as_bytes()).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

/// What was found: code and place.
fn found(ran: &Ran) -> BTreeSet<(String, String)> {
    let report = read(ran);
    let findings = report.get("findings").and_then(Value::as_array).unwrap();
    let text = |one: &Value, name| one.get(name).and_then(Value::as_str).unwrap().to_owned();
    findings.iter().map(|one| (text(one, "code"), text(one, "place"))).collect()
}

/// The traps of the seeds that were found.
fn traps(ran: &Ran) -> BTreeSet<String> {
    let report = read(ran);
    let findings = report.get("findings").and_then(Value::as_array).unwrap();
    let traps = findings.iter().flat_map(|one| one.get("traps").unwrap().as_array().unwrap());
    traps.map(|trap| trap.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn has(found: &BTreeSet<(String, String)>, expected: &[(&str, &str)]) {
    for (code, place) in expected {
        let is_there = found.iter().any(|(one, at)| one == code && at == place);
        assert!(is_there, "no {code} at {place} in {found:#?}");
    }
}

async fn seed(seed: &str, app: &str, environment: &[(&str, &str)]) -> Option<Ran> {
    let python = Python::with_celery("5.7")?;
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    let mut asked = command(program, &uncorrected(seed));
    asked.envs(environment.iter().copied());
    asked.arg("--python").arg(python.program());
    let ran =
        Ran::new(asked.args(["--json", "-A", app, "doctor", "--no-broker", "--strict"])).await;
    // Not one of them is fit to be run.
    Some(ran.exits(1))
}

#[tokio::test]
async fn the_first_seed_is_read_although_it_cannot_be_imported() {
    // covers: S1-11 T-01 T-11 T-12 T-35 T-36 T-40 T-42 T-43 T-45
    let Some(ran) = seed("s1", "queue.celery_app", &[]).await else { return };
    let found = found(&ran);
    has(
        &found,
        &[
            ("D-APP-LOAD", "-A queue.celery_app"),
            ("D-APP-SHADOW", "queue/__init__.py:1"),
            ("D-CODE-BOUND-CALL", "queue/tasks.py:92"),
            ("D-CODE-BOUND-CALL", "queue/tasks.py:105"),
            ("D-CODE-BOUND-CALL", "queue/tasks.py:118"),
            ("D-CODE-ERROR-RESULT", "queue/execution.py:70"),
            ("D-CODE-ERROR-RESULT", "queue/execution.py:105"),
            ("D-ENV-COMMENT", ".env:2"),
            ("D-ENV-UNREAD", ".env:9"),
            ("D-ENV-UNREAD", ".env:10"),
            ("D-ENV-OVERRIDE", "queue/celery_app.py:17"),
            ("D-APP-POOL", "integration.ps1:5"),
            ("D-APP-QUEUE-UNDECLARED", "queue/tasks.py:90"),
            ("D-APP-VISIBILITY", "queue/tasks.py:116"),
            ("D-FILE-OPEN", "integration.ps1:2"),
        ],
    );
    let first = read(&ran).get("findings").unwrap().as_array().unwrap()[0].clone();
    assert_eq!(first.get("code").unwrap().as_str(), Some("D-APP-LOAD"), "{first}");
    assert!(first.get("fix").unwrap().as_str().unwrap().contains("queue_app"), "{first}");
}

#[tokio::test]
async fn fragments_of_the_other_seeds_are_read_without_an_application() {
    // covers: T-07 T-09 T-37 T-44 T-45 T-65 S3-24
    let Some(second) = seed("s2", "api.gateway", &[]).await else { return };
    has(
        &found(&second),
        &[("D-CODE-ENV-NUMBER", "api/gateway.py:2"), ("D-CODE-ENV-BOOL", "api/emergency.py:2")],
    );
    let third = seed("s3", "consultantos.jobs.celery_app", &[]).await.unwrap();
    has(
        &found(&third),
        &[
            ("D-APP-PRIORITY", "queue_test_task.py:4"),
            ("D-APP-QUEUE-UNDECLARED", "queue_test_task.py:4"),
            ("D-FILE-OPEN", "redis.sh:3"),
            ("D-FILE-FLOWER", "start.sh:8"),
        ],
    );
    let fourth = seed("s4", "app.celery_worker", &[]).await.unwrap();
    has(
        &found(&fourth),
        &[
            ("D-FILE-YAML", "docker-compose.beat.yml:1"),
            ("D-FILE-CREDENTIALS", "docker-compose.flower.yml:5"),
            ("D-CODE-ENV-BOOL", "app/main.py:1"),
            ("D-APP-QUEUE-UNDECLARED", "app/celery_worker.py:1"),
        ],
    );
}

/// The fifth seed's app imports one thing that is not Celery's: `dotenv.load_dotenv`, whose work here is
/// to find no file.
fn with_dotenv() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dotenv.py"), "def load_dotenv():\n    return False\n")
        .unwrap();
    folder
}

#[tokio::test]
async fn the_fifth_seed_is_imported_and_its_settings_are_judged() {
    // covers: T-05 T-30 T-33 T-37 T-40 T-41 T-42 T-45 S1-11
    let dotenv = with_dotenv();
    let path = dotenv.path().to_str().unwrap();
    let Some(ran) = seed("s5", "celery_app", &[("PYTHONPATH", path)]).await else { return };
    let found = found(&ran);
    has(
        &found,
        &[
            ("D-APP-BEAT-UNREGISTERED", "celery_config.py:132"),
            ("D-APP-BEAT-UNREGISTERED", "celery_config.py:136"),
            ("D-APP-BEAT-EXPIRES", "celery_config.py:136"),
            ("D-APP-UNKNOWN-SETTING", "celery_config.py:119"),
            ("D-APP-UNKNOWN-SETTING", "celery_config.py:122"),
            ("D-APP-REDELIVERY", "celery_config.py:47"),
            ("D-APP-VISIBILITY", "celery_config.py:50"),
            ("D-APP-QUEUE-UNUSED", "celery_config.py:94"),
            ("D-APP-POOL", "worker.ps1:1"),
            ("D-APP-POOL", "workers.ps1:5"),
            ("D-CODE-AUTODISCOVER", "celery_app.py:37"),
            ("D-CODE-ERROR-RESULT", "queue/tasks.py:84"),
            ("D-FILE-FLOWER", "flower.ps1:1"),
        ],
    );
    assert!(!found.iter().any(|(code, _)| code == "D-APP-LOAD"), "{found:?}");
    let versions = read(&ran).get("versions").unwrap().clone();
    for name in ["celeriac", "Python", "Celery", "kombu", "redis-py"] {
        assert!(versions.get(name).is_some(), "{name} in {versions}");
    }
    // Without its module the same settings are judged by their text.
    let ran = seed("s5", "celery_app", &[]).await.unwrap();
    let read: BTreeSet<String> = self::found(&ran).into_iter().map(|(code, _)| code).collect();
    for code in ["D-APP-LOAD", "D-APP-UNKNOWN-SETTING", "D-APP-VISIBILITY", "D-APP-BEAT-EXPIRES"] {
        assert!(read.contains(code), "{code} in {read:?}");
    }
    assert!(traps(&ran).contains("T-41"), "{ran:#?}");
}

#[tokio::test]
async fn a_sound_application_is_left_alone() {
    let Some(python) = Python::with_celery("5.7") else { return };
    let app = python.app(
        "from celery import Celery\n\
         app = Celery('proj', broker='memory://')\n\
         @app.task\n\
         def add(x, y):\n    return x + y\n",
        &[],
    );
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    let mut asked = command(program, app.folder());
    asked.arg("--python").arg(python.program());
    asked.args(["-A", "proj", "doctor", "--no-broker", "--strict"]);
    Ran::new(&mut asked).await.exits(0).says(&["Celery 5.7", "nothing found; 1 file read"]);
}

/// A server, told to be as bad as can be, and what is found on it.
async fn on_redis(options: RedisOptions, commands: &[&[&str]], args: &[&str]) -> (Redis, Ran) {
    let redis = options.start().await;
    for command in commands {
        redis.cli(command).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec!["--json", "-b"];
    let url = redis.url();
    all.push(&url);
    all.extend(args);
    let ran = doctor(folder.path(), &all).await;
    (redis, ran)
}

const MESSAGE: &str = r#"{"body": "W10=", "content-type": "application/json", "content-encoding": "utf-8",
    "headers": {"id": "t-1", "task": "t"}, "properties": {"delivery_tag": "d", "delivery_info":
    {"exchange": "", "routing_key": "reports"}}}"#;

#[tokio::test]
async fn each_mistake_of_a_server_is_found_and_nothing_is_written() {
    // covers: S2-32 S2-46 T-37 T-65
    let held = format!("[{MESSAGE}, \"\", \"reports\"]");
    let commands: &[&[&str]] = &[
        &["LPUSH", "reports", MESSAGE],
        &["LPUSH", "reports\u{6}\u{16}9", MESSAGE],
        &["LPUSH", "another-programs-list", "x"],
        &["LPUSH", "a-b-c.reply.celery.pidbox", "{}"],
        &["HSET", "unacked", "tag-1", &held],
        &["ZADD", "unacked_index", "1000", "tag-1"],
        &["HSET", "unacked", "tag-2", &held],
    ];
    let options = Redis::options().config("maxmemory-policy allkeys-lru").config("save \"\"");
    let (redis, ran) = on_redis(options, commands, &[]).await;
    let ran = ran.exits(0);
    let codes: Vec<String> = found(&ran).into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        codes,
        [
            "D-BROKER-EVICTION",
            "D-BROKER-LEFTOVERS",
            "D-BROKER-LOST-UNACKED",
            "D-BROKER-MIXED-PRIORITY",
            "D-BROKER-NO-CONSUMER",
            "D-BROKER-PERSISTENCE",
            "D-BROKER-STALE-UNACKED",
        ],
        "{ran:#?}"
    );
    let steps = read(&ran).get("steps").unwrap().to_string();
    for step in ["URL", "TCP", "AUTH", "PING"] {
        assert!(steps.contains(&format!("\"step\": \"{step}\"")), "{step} in {steps}");
    }
    let keys = redis.cli(&["DBSIZE"]).await.int();
    assert_eq!(keys, 6, "nothing was written");
}

/// With the rights of a worker, as `docs/reference/redis-keys.md` has them.
#[tokio::test]
async fn the_rights_of_a_worker_are_enough() {
    let rights = "resetkeys ~celeriac:* ~celery* ~_kombu.binding* ~unacked* ~*.reply.celery.pidbox* \
                  &celeriac:bell &/0.celery.pidbox &/0.celeryev/* &celery-task-meta-* \
                  -@all +@read +@write +@connection +@pubsub +@scripting +@transaction +info +time \
                  -@dangerous +info";
    let redis = Redis::options().append_only().user("celeriac", "secret", rights).start().await;
    redis.cli(&["LPUSH", "celery", MESSAGE]).await;
    redis.cli(&["LPUSH", "another-programs-list", "x"]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = redis.url_as("celeriac", "secret");
    let ran = doctor(folder.path(), &["--json", "-b", &url]).await.exits(0);
    let codes: Vec<String> = found(&ran).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["D-BROKER-NO-CONSUMER"], "{ran:#?}");
}

#[tokio::test]
async fn leftovers_go_only_when_somebody_says_so() {
    let key = "a-b-c.reply.celery.pidbox";
    let member = "a-b-c\u{6}\u{16}\u{6}\u{16}a-b-c.reply.celery.pidbox";
    let commands: &[&[&str]] = &[
        &["LPUSH", key, "{}"],
        &["SADD", "_kombu.binding.reply.celery.pidbox", member, "another"],
    ];
    let (redis, ran) = on_redis(Redis::options().append_only(), commands, &["--clean"]).await;
    ran.exits(5).warns(&[key, "nothing was deleted", "--yes"]);
    let url = redis.url();
    let folder = tempfile::tempdir().unwrap();
    let args = ["-b", url.as_str(), "--clean", "--yes"];
    doctor(folder.path(), &args).await.exits(0).warns(&["1 of 1 removed"]);
    assert_eq!(redis.cli(&["EXISTS", key]).await.int(), 0);
    let bound = redis.cli(&["SMEMBERS", "_kombu.binding.reply.celery.pidbox"]).await;
    assert_eq!(bound, Reply::List(vec![Reply::Bytes(b"another".to_vec())]));
}

#[tokio::test]
async fn the_step_that_fails_is_named() {
    // covers: S3-24
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::options().password("of-the-server").append_only().start().await;
    let address = redis.url();
    let host = address.split('@').next_back().unwrap();
    let host = host.trim_start_matches("redis://");
    let wrong = format!("redis://:nobodys@{host}");
    let none = format!("redis://{host}");
    let closed = "redis://127.0.0.1:1/0";
    for (url, step, fix) in [
        ("redis://h/x", "URL", "settings.md"),
        ("nosuch://h", "URL", "redis://"),
        ("redis://no-such-host.invalid/0", "DNS", "name"),
        (closed, "TCP", "Start the server"),
        (&wrong, "AUTH", "password"),
        (&none, "AUTH", "password"),
        ("sqlite:///nowhere/at/all.db", "FILE", "path"),
    ] {
        let ran = doctor(folder.path(), &["--json", "-b", url]).await.exits(0);
        let report = read(&ran);
        let last = report.get("steps").unwrap().as_array().unwrap().last().unwrap().clone();
        assert_eq!(last.get("step").unwrap().as_str(), Some(step), "{url}: {ran:#?}");
        assert_eq!(last.get("ok").unwrap().as_bool(), Some(false), "{url}: {ran:#?}");
        let told = last.get("fix").unwrap().as_str().unwrap();
        assert!(told.contains(fix), "{url}: {told}");
        assert!(!ran.stdout.contains("nobodys"), "a password is masked: {ran:#?}");
        assert_eq!(found(&ran).into_iter().next().unwrap().0, "D-BROKER-ANSWER");
    }
    doctor(folder.path(), &["-b", &address]).await.exits(0).says(&["PING", "ok", "nothing found"]);
}

#[tokio::test]
async fn a_certificate_is_told_from_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::options().password("of-the-server").append_only().tls().start().await;
    let (url, authority) = (redis.tls_url(), redis.authority().display().to_string());
    let trusted = format!("{url}?ssl_ca_certs={authority}");
    let nobodys = trusted.replace("of-the-server", "nobodys");
    let unchecked = format!("{url}?ssl_cert_reqs=none");
    for (url, step, is_well) in [
        (&url, "TLS", false),
        (&nobodys, "AUTH", false),
        (&trusted, "PING", true),
        (&unchecked, "PING", true),
    ] {
        let ran = doctor(folder.path(), &["--json", "-b", url]).await.exits(0);
        let steps = read(&ran).get("steps").unwrap().clone();
        let last = steps.as_array().unwrap().last().unwrap();
        assert_eq!(last.get("step").unwrap().as_str(), Some(step), "{ran:#?}");
        assert_eq!(last.get("ok").unwrap().as_bool(), Some(is_well), "{ran:#?}");
    }
    doctor(folder.path(), &["-b", &url]).await.exits(0).says(&["certificate"]);
    doctor(folder.path(), &["-b", &unchecked]).await.exits(0).says(&["is not checked"]);
}

#[tokio::test]
async fn an_embedded_store_is_looked_at_without_making_one() {
    let place = crate::store().await;
    crate::call(&place, &["t"]).await;
    let ran = doctor(place.dir(), &["--json", "-b", place.url()]).await.exits(0);
    has(&found(&ran), &[("D-BROKER-NO-CONSUMER", "queue celery")]);
    assert_eq!(found(&ran).len(), 1, "{ran:#?}");
    std::fs::write(
        place.path("text.db"),
        "This is no database, but a file of text that is long enough.",
    )
    .unwrap();
    let url = format!("sqlite://{}", place.path("text.db").display());
    doctor(place.dir(), &["-b", &url]).await.exits(0).says(&["OPEN", "FAILED", "1 error"]);
    let nothing = format!("sqlite://{}", place.path("none.db").display());
    doctor(place.dir(), &["-b", &nothing]).await.exits(0).says(&["FILE", "FAILED"]);
    assert!(!place.path("none.db").exists());
}
