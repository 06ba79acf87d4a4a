//! celeriac with two native tasks: `bench.noop`, and `bench.stamp` for the pickup latency.

use bench_programs::stamp_into_file;
use celeriac::{App, task, tasks};
use std::process::ExitCode;

/// Takes what the stock producer of the comparison sends and does nothing.
#[task(name = "bench.noop", ignore_result, max_retries = 0)]
async fn noop(_padding: String) {}

/// As above, with a result.
#[task(name = "bench.result", max_retries = 0)]
async fn result(_padding: String) {}

/// Notes how long after its sending it began.
#[task(name = "bench.stamp", ignore_result, max_retries = 0)]
async fn stamp(sent_at: f64) {
    stamp_into_file(sent_at);
}

fn main() -> ExitCode {
    match App::from_env() {
        Ok(app) => app.tasks(tasks![noop, result, stamp]).run(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
