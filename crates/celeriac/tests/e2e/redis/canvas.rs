//! Every shape of canvas on a native worker, Python children and stock Celery, which share one queue:
//! `interop/canvas/run.py` sends them all at once and compares with what stock Celery alone has made of them.
//!
//! `CELERIAC_CANVAS_FLEETS` is a glob of the fleets to play instead (`*` for all; it needs every Celery).

use crate::kit;
use celeriac_testkit::services::python::{App, environments};
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::path::Path;
use std::process::Stdio;

/// The fleet in which every kind of worker meets every other.
const TELLING: &str = "native, children 5.7, stock 5.7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_of_canvas_on_a_mixed_fleet_is_what_celery_makes_of_it() {
    // interop: results.mixed-chord
    let python = celery_or_skip!();
    let redis = redis_or_skip!();
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/canvas/run.py");
    let fleets = std::env::var_os("CELERIAC_CANVAS_FLEETS");
    let fleets = fleets.as_ref().and_then(|fleets| fleets.to_str());
    let app: App = python.app("", &[]);
    let mut command = app.command();
    command.env_remove("PYTHONPATH").arg(&runner).arg("--venvs").arg(environments());
    command.args(["--celeriac", env!("CARGO_BIN_EXE_celeriac"), "--redis", &redis.url()]);
    command.arg("--native").arg(kit::example("canvas"));
    command.args(["--fleet", fleets.unwrap_or(TELLING)]);
    if fleets.is_none() {
        command.args(["--sender", "5.7", "--sender", "rust"]);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{wrong}");
}
