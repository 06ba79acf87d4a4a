//! One app under stock Celery and under celeriac: `interop/semantics/run.py` plays it twice and compares
//! all that can be seen. `CELERIAC_SEMANTICS_LANES=5.3,5.7` plays other versions of Celery than the newest.

use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::path::Path;
use std::process::Stdio;

/// The version that `docs/reference/semantics.md` shows.
const NEWEST: &str = "5.7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_app_does_the_same_under_both_workers() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/semantics/run.py");
    let lanes = std::env::var_os("CELERIAC_SEMANTICS_LANES");
    let lanes = lanes.as_ref().and_then(|lanes| lanes.to_str()).unwrap_or(NEWEST);
    for version in lanes.split(',') {
        let python = celery_or_skip!(version);
        let (stock, ours) = (redis_or_skip!(), redis_or_skip!());
        let app = python.app("", &[]);
        let mut command = app.command();
        command.env_remove("PYTHONPATH").arg(&runner).arg("--python").arg(python.program());
        command.args(["--celeriac", env!("CARGO_BIN_EXE_celeriac")]);
        command.args(["--redis", &stock.url(), "--redis", &ours.url()]);
        if version == NEWEST {
            command.arg("--page");
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Celery {version}:\n{said}\n{wrong}");
        println!("{}", said.lines().last().unwrap_or_default());
    }
}
