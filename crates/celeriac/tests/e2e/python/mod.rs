//! Existing Celery apps, run by `celeriac -A proj worker`: real Celery sends and reads.

mod additions;
mod beats;
mod chords;
mod deaths;
mod deploys;
mod first;
mod imports;
mod kills;
mod libraries;
mod loading;
mod pools;
mod redbeat;
mod scaling;
mod semantics;
mod settings;

use celeriac_testkit::services::python::{App as Celery, CeleryWorker, Python};
use celeriac_testkit::services::redis::Redis;
use std::path::Path;

/// A Redis, and an app that uses it for messages and results.
struct Scene {
    redis: Redis,
    app: Celery,
}

impl Scene {
    /// The lines of an app after those that make it.
    fn new(redis: Redis, python: &Python, more: &str) -> Self {
        Self::with(redis, python, more, &[])
    }

    /// The same with more environment variables.
    fn with(redis: Redis, python: &Python, more: &str, environment: &[(&str, &str)]) -> Self {
        let source = format!(
            "import os\nfrom celery import Celery\n\
             app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])\n{more}\n"
        );
        let url = redis.url();
        let app = python.app(&source, &[&[("URL", url.as_str())], environment].concat());
        Self { redis, app }
    }

    /// Starts `celeriac -A proj worker` with more arguments.
    async fn worker(&self, name: &str, arguments: &[&str]) -> CeleryWorker {
        let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
        self.app.worker_of(program, name, arguments).await
    }
}
