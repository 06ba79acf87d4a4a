//! Apps that cannot be loaded: whose fault it is, where, and what to do.

use celeriac_testkit::celery_or_skip;
use std::path::Path;
use tokio::process::Command;

/// What `celeriac -A <app> worker` says, and its exit code.
async fn refused(folder: &Path, python: &Path, app: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.current_dir(folder).arg("-A").arg(app).arg("--python").arg(python).arg("worker");
    let output = command.kill_on_drop(true).output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_cannot_be_loaded_says_why() {
    // covers: T-01
    let python = celery_or_skip!();
    let app = python.app("from celery import Celery\napp = Celery('proj')\n", &[]);
    for (name, text) in [
        ("imports.py", "from celery import Celery\n\nimport nosuchmodule\n"),
        ("syntax.py", "app = (\n"),
        ("raises.py", "import os\nos.environ['NOT_SET_ANYWHERE']\n"),
        ("leaves.py", "import sys\nsys.exit('no license')\n"),
        ("empty.py", ""),
        // Standard modules that an app's own hide from whoever imports them later.
        ("queue.py", "raise RuntimeError('this is not the queue of Python')\n"),
        ("json.py", "raise RuntimeError('this is not the json of Python')\n"),
    ] {
        std::fs::write(app.folder().join(name), text).unwrap();
    }
    for (name, expected) in [
        ("imports", ["imports.py, line 3", "nosuchmodule"]),
        ("syntax", ["syntax.py, line 1", "SyntaxError"]),
        ("raises", ["raises.py, line 2", "NOT_SET_ANYWHERE"]),
        ("leaves", ["leaves.py, line 2", "no license"]),
        ("empty", ["empty", "hint: "]),
        ("nothere", ["nothere", "hint: "]),
        ("proj:nope", ["nope", "hint: "]),
    ] {
        let (code, said) = refused(app.folder(), python.program(), name).await;
        assert_eq!(code, 3, "{name}: {said}");
        for part in expected {
            assert!(said.contains(part), "{name}: {part:?} is not in:\n{said}");
        }
        assert!(!said.contains("celeriac_child"), "{name}: our own frames in:\n{said}");
    }
}
