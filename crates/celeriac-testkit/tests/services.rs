//! The services do what tests rely on.

use celeriac_testkit::process::{Footprint, Process, until};
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::services::resp::Reply;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::time::Duration;

#[tokio::test]
async fn redis_answers_and_is_alone() {
    let (one, two) = (redis_or_skip!(), redis_or_skip!());
    assert_ne!(one.port(), two.port());
    one.cli(&["SET", "key", "value"]).await;
    assert_eq!(one.cli(&["GET", "key"]).await.text(), "value");
    assert!(two.cli(&["GET", "key"]).await.is_nil());
    assert!(
        matches!(one.try_cli(&["NOSUCH"]).await, Reply::Error(text) if text.contains("NOSUCH"))
    );
    let raw: [&[u8]; 3] = [b"RPUSH", b"list", b"\x00\xff\r\n"];
    assert_eq!(one.cli(&raw).await.int(), 1);
    let nested =
        one.cli(&["EVAL", "return {1, {'a', {}}, redis.call('LRANGE', 'list', 0, -1)}", "0"]);
    let expected = [
        Reply::Int(1),
        Reply::List(vec![Reply::Bytes(b"a".to_vec()), Reply::List(vec![])]),
        Reply::List(vec![Reply::Bytes(b"\x00\xff\r\n".to_vec())]),
    ];
    assert_eq!(nested.await.list(), expected);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", one.port())).await.is_ok());
    let figures = one.figures().await;
    assert!(figures.memory_bytes > 100_000 && figures.clients >= 1 && figures.commands >= 5);
}

#[tokio::test]
async fn redis_comes_back_with_its_data() {
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let port = redis.port();
    redis.cli(&["SET", "key", "1"]).await;
    redis.kill9().await;
    redis.restart().await;
    assert_eq!(redis.cli(&["GET", "key"]).await.text(), "1");
    redis.cli(&["INCR", "key"]).await;
    redis.restart().await;
    assert_eq!((redis.cli(&["GET", "key"]).await.text(), redis.port()), ("2".to_owned(), port));

    let mut connection = redis.connect().await;
    redis.stop();
    connection.send(&["PING"]).await.unwrap();
    let frozen = tokio::time::timeout(Duration::from_millis(50), connection.next()).await;
    assert!(frozen.is_err());
    redis.cont();
    assert_eq!(connection.next().await.unwrap().text(), "PONG");
}

#[tokio::test]
async fn redis_knows_passwords_and_users() {
    let options = Redis::options().password("secret").user("ann", "pass", "~a:* +@all");
    let redis = redis_or_skip!(options);
    assert_eq!(redis.url(), format!("redis://:secret@127.0.0.1:{}/0", redis.port()));
    let mut plain =
        celeriac_testkit::services::resp::Connection::open(&redis.socket()).await.unwrap();
    assert!(
        matches!(plain.call(&["PING"]).await.unwrap(), Reply::Error(text) if text.starts_with("NOAUTH"))
    );
    assert_eq!(plain.call(&["AUTH", "ann", "pass"]).await.unwrap().text(), "OK");
    assert!(matches!(plain.call(&["GET", "b"]).await.unwrap(), Reply::Error(_)));
    assert!(plain.call(&["GET", "a:b"]).await.unwrap().is_nil());
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn redis_listens_with_tls() {
    let redis = redis_or_skip!(Redis::options().tls());
    assert_eq!(redis.tls_url(), format!("rediss://127.0.0.1:{}/0", redis.port() + 1));
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", redis.port() + 1)).await.is_ok());
    let text = std::fs::read_to_string(redis.authority()).unwrap();
    assert!(text.starts_with("-----BEGIN CERTIFICATE-----"));
    let Some(program) = celeriac_testkit::services::find("redis-cli") else { return };
    let mut command = tokio::process::Command::new(program);
    command.args(["--tls", "--cacert"]).arg(redis.authority());
    command.args(["-u", &redis.tls_url(), "PING"]);
    let output = command.output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "PONG\n", "{output:?}");
}

#[tokio::test]
async fn a_redis_dies_with_its_value() {
    let mut redis = redis_or_skip!();
    let pid = redis.process().pid;
    assert!(Footprint::of(pid).is_some());
    drop(redis);
    until("it is gone", Duration::from_secs(10), async || {
        Footprint::of(pid).is_none().then_some(())
    })
    .await;
}

/// The order to the kernel holds for a test that is killed as well, where nothing is dropped.
#[cfg(target_os = "linux")]
#[test]
fn a_bound_process_dies_with_the_thread_that_started_it() {
    let folder = std::env::temp_dir();
    let log = folder.join(format!("celeriac-testkit-bound-{}.log", std::process::id()));
    let path = log.clone();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = std::thread::spawn(move || {
        let mut command = tokio::process::Command::new("sleep");
        celeriac_testkit::process::bind_to_us(command.arg("60"));
        runtime()
            .block_on(async { std::mem::ManuallyDrop::new(Process::spawn(&mut command, path)) })
    });
    let mut process = started.join().unwrap();
    let runtime = runtime();
    let ended = runtime.block_on(process.ended_within(Duration::from_secs(10)));
    assert!(!ended.success());
    std::fs::remove_file(log).unwrap();
}

const APP: &str = "
import os
from celery import Celery
app = Celery('proj', broker=os.environ['BROKER'], backend=os.environ['BROKER'])

@app.task
def add(x, y):
    return x + y
";

#[tokio::test]
async fn python_runs_a_real_worker() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let app = python.app(APP, &[("BROKER", &redis.url())]);
    let version = app.script("import celery; print(celery.__version__)").await;
    assert!(version.starts_with("5.7."), "{version}");
    let mut worker = app.worker("w1", &["-c", "1"]).await;
    let said = app.script("from proj import add; print(add.delay(2, 3).get(timeout=30))").await;
    assert_eq!(said, "5\n");
    worker.logs("succeeded in").await;
    let pong = app.celery(&["inspect", "ping", "-j"]).await;
    assert!(pong.status.success() && pong.stdout.contains("w1@test"), "{pong:?}");
    assert!(worker.terminate().await.success());
    let mut worker = app.worker("w2", &["-c", "1"]).await;
    worker.kill9().await;
}

#[tokio::test]
async fn the_other_versions_are_what_they_say() {
    for version in ["5.4", "5.6"] {
        let python = celery_or_skip!(version);
        let app = python.app(APP, &[("BROKER", "memory://")]);
        let said = app.script("import celery; print(celery.__version__)").await;
        assert!(said.starts_with(version), "{version}: {said}");
    }
}
