//! `celeriac up`: a worker, a beat and the HTTP server in one process.

use super::Session;
use super::beside::Beside;
use super::exit::Failed;
use super::{serve, worker};
use clap::{Arg, Args};
use std::process::ExitCode;
use worker::WorkerArgs;

const EXAMPLES: &str = "Examples:
  celeriac up
  celeriac -A proj up -l info -c 4 -Q default,high
  celeriac up --http 127.0.0.1:9000
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8555/api/v1/status

One command for a laptop or a small machine: it runs tasks, sends what is due, and serves the
HTTP API, probes and metrics; there is no dashboard yet. The first start makes a token for an
administrator and prints it once. More workers and beats may run elsewhere on the same store.

Signals are those of `celeriac worker`: TERM or INT stops fetching and lets running tasks finish
within the grace period; a second one, or QUIT, interrupts at once. When one of the three ends by
itself, so do the others, with exit code 1.";

#[derive(Debug, Args)]
#[command(
    mut_arg("beat", |flag| flag.hide(true)),
    mut_arg("http", address_flag),
    after_help = EXAMPLES
)]
pub(super) struct UpArgs {
    #[command(flatten)]
    worker: WorkerArgs,
}

/// What `--http` of a worker is here.
fn address_flag(flag: Arg) -> Arg {
    flag.help(
        "Where the HTTP API, probes and metrics are [default: the setting http_worker, else http_bind, \
         127.0.0.1:8555]",
    )
}

impl UpArgs {
    /// The flags that are settings, by their key.
    pub(super) fn flags(&self, flags: &mut Vec<(&'static str, String)>, of_app: bool) {
        self.worker.flags(flags, of_app);
    }
}

pub(super) async fn run(session: &Session, args: UpArgs) -> Result<ExitCode, Failed> {
    let mut args = args.worker;
    args.beat = true;
    // Before an address is opened and a token made.
    worker::check(session, &args)?;
    let mut beside = Beside::default();
    serve::start_beside(session, worker::node(session), &mut beside).await?;
    worker::run(session, args, beside).await
}
