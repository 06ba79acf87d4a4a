//! Both ways between celeriac and real Celery, each scene in a lane for each version of Celery.
//!
//! A scene is a function that takes a [`Lane`]; `lanes!` makes a test of it for each version. Markers
//! (`// interop: results.get`) name the features of `docs/compatibility.tsv` that a scene shows; the page
//! `docs/reference/compatibility.md` is written from them.

/// Makes a test of each scene for each version of Celery.
macro_rules! lanes {
    ($($scene:ident),* $(,)?) => {
        lanes!(@version celery_5_4 "5.4" $($scene)*);
        lanes!(@version celery_5_6 "5.6" $($scene)*);
        lanes!(@version celery_5_7 "5.7" $($scene)*);
    };
    (@version $lane:ident $version:literal $($scene:ident)*) => {
        mod $lane {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scene() {
                    let redis = celeriac_testkit::redis_or_skip!();
                    let python = celeriac_testkit::celery_or_skip!($version);
                    super::$scene($crate::redis::interop::Lane::new(redis, python)).await;
                }
            )*
        }
    };
}

mod back;
mod control;
mod events;
mod messages;
mod results;

use crate::kit::{PATIENCE, Place, until};
use crate::library::configured;
use crate::running::{Running, start_with};
use celeriac::{App, WorkerBuilder};
use celeriac_testkit::services::python::{App as Celery, CeleryWorker, Python};
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::services::resp::Connection;
use std::sync::Arc;

/// A Redis, a folder, and a Python with Celery.
struct Lane {
    redis: Redis,
    place: Place,
    python: Python,
}

/// What a worker of Celery needs not do here; it starts a second sooner.
const ALONE: [&str; 6] =
    ["-P", "solo", "--without-mingle", "--without-gossip", "--prefetch-multiplier", "1"];

impl Lane {
    fn new(redis: Redis, python: Python) -> Self {
        let place = Place::at(&redis.url());
        Self { redis, place, python }
    }

    /// An application of ours with settings as `celeriac.toml` has them.
    fn ours(&self, toml: &str) -> App {
        configured(&self.place, toml)
    }

    /// An app of Celery on the same Redis, with these lines after those that make it.
    fn celery(&self, more: &str) -> Celery {
        let source = format!(
            "import os\nfrom celery import Celery\n\
             app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])\n\
             app.conf.accept_content = ['json', 'msgpack', 'yaml']\n\
             app.conf.broker_connection_retry_on_startup = True\n\
             {more}\nredis = app.backend.client\n"
        );
        self.python.app(&source, &[("URL", &self.redis.url())])
    }

    /// A worker of Celery that runs one task at a time.
    async fn stock(&self, celery: &Celery, more: &[&str]) -> CeleryWorker {
        celery.worker("stock", &[&ALONE, more].concat()).await
    }

    /// Waits until Python has set a key.
    async fn told(&self, key: &str) {
        until(key, PATIENCE, async || {
            (self.redis.cli(&["EXISTS", key]).await.int() == 1).then_some(())
        })
        .await;
    }

    /// Runs a script, and once it has set the key `sent` a worker beside it; returns what it printed.
    async fn script_then_worker(
        &self,
        celery: &Celery,
        script: &str,
        worker: WorkerBuilder,
        app: &App,
    ) -> (String, Running) {
        let serving = async {
            self.told("sent").await;
            start_with(app, worker).await
        };
        tokio::join!(celery.script(script), serving)
    }
}

/// What a server is told, in order: `MONITOR`.
struct Wire {
    connection: Connection,
    lines: Vec<String>,
    sentinel: Arc<str>,
}

impl Wire {
    async fn of(redis: &Redis) -> Self {
        let mut connection = redis.connect().await;
        assert_eq!(connection.call(&["MONITOR"]).await.unwrap().text(), "OK");
        Self { connection, lines: Vec::new(), sentinel: Arc::from("the end of what is looked at") }
    }

    async fn line(&mut self) -> String {
        let line = self.connection.next().await.unwrap().text();
        self.lines.push(line.clone());
        line
    }

    /// Waits until a client has sent this command with this argument.
    async fn sees(&mut self, command: &str, key: &str) {
        let seen = async { while !is(&self.line().await, command, key) {} };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "no {command} {key} in:\n{}", self.lines.join("\n"));
    }

    /// Asserts that whoever waits for this result has heard it from the channel: nobody reads the key
    /// after it was published.
    async fn assert_heard(&mut self, redis: &Redis, key: &str) {
        redis.cli(&["ECHO", &self.sentinel]).await;
        let sentinel = Arc::clone(&self.sentinel);
        while !self.line().await.contains(&*sentinel) {}
        let published = self.lines.iter().rposition(|line| is(line, "PUBLISH", key));
        let after = &self.lines[published.expect("the result is published")..];
        let read: Vec<_> = after.iter().filter(|line| is(line, "GET", key)).collect();
        assert!(read.is_empty(), "the result was polled: {read:?}");
        self.lines.clear();
    }
}

/// Whether a line of `MONITOR` is this command, whoever sent it and however it is spelled.
fn is(line: &str, command: &str, key: &str) -> bool {
    let Some((_, sent)) = line.split_once("] ") else { return false };
    let mut words = sent.split('"').skip(1).step_by(2);
    words.next().is_some_and(|word| word.eq_ignore_ascii_case(command))
        && words.any(|word| word == key)
}

/// The key of a task's result, which is also its channel.
fn result_key(id: &str) -> String {
    format!("celery-task-meta-{id}")
}

/// Asserts that each line was printed.
#[track_caller]
fn assert_said(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.lines().any(|one| one == *line), "{line:?} is not in:\n{said}");
    }
}
