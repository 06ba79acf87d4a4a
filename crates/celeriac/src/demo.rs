//! `celeriac demo`: profiles a CSV file with queued tasks, and shows what the queue does about
//! faults on the way.
//!
//! Every number of the report is computed by a task that went through the store; the command only
//! sends, watches and prints. The pure profiling code is in [`profile`].

pub mod profile;
mod story;
mod tasks;
mod watch;

use crate::app::App;
use crate::error::TaskError;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub use tasks::{Tables, task_defs};

const PENGUINS: &[u8] = include_bytes!("../data/penguins-raw.csv");
const PENGUINS_NAME: &str = "penguins-raw.csv";

const EXAMPLES: &str = "Examples:
  celeriac demo
  celeriac demo sales.csv --dir /tmp/sales

The demo starts a store and a worker, and sends one task a column as a chord. On the way one task
meets a passing fault and is retried, one is cancelled, and one becomes a dead letter and is
replayed. The report and the store stay in the folder.";

/// The arguments of `celeriac demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// The CSV file to profile [default: a bundled table of 344 penguins]
    file: Option<PathBuf>,
    /// The folder for the store and the report; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "celeriac-demo")]
    dir: PathBuf,
    /// Start no worker here: another process has to run `celeriac worker` on the store
    #[arg(long)]
    no_worker: bool,
    /// Give up when the work is not done by then
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration, default_value = "10m")]
    timeout: Duration,
}

/// Why a demo cannot go on, when it is not a fault of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// What it was given cannot be used.
    #[error("{0}")]
    Usage(String),
    /// It is not ready in time.
    #[error("{0}")]
    NotReady(String),
}

/// Runs the demo.
pub(crate) async fn run(app: &App, args: DemoArgs) -> Result<ExitCode, TaskError> {
    let place = Place::prepare(&args).await?;
    let settings = app.settings().clone().with_broker(&place.url());
    let app = app.clone().on_own_store(settings);
    let stop = tokio::sync::oneshot::channel::<()>();
    let worker = if args.no_worker {
        None
    } else {
        let ended = async {
            // Either way the story is over: the sender was used or dropped.
            let _over = stop.1.await;
        };
        let worker = app.worker().grace(Duration::from_secs(2));
        Some(tokio::spawn(worker.run_until(ended)))
    };
    let told = story::tell(&app, &place, args.timeout).await;
    drop(stop.0);
    if let Some(worker) = worker {
        worker.await??;
    }
    told
}

/// The folder of one demo and what lies in it.
#[derive(Clone, Debug)]
struct Place {
    dir: PathBuf,
    input: PathBuf,
    /// The file's name as the report shows it.
    shown: String,
}

impl Place {
    async fn prepare(args: &DemoArgs) -> Result<Self, TaskError> {
        let dir = args.dir.clone();
        tokio::fs::create_dir_all(&dir).await.map_err(|error| {
            Refused::Usage(format!(
                "cannot make the folder {}: {error}; choose another with --dir",
                dir.display()
            ))
        })?;
        let dir = tokio::fs::canonicalize(&dir).await?;
        claim(&dir).await?;
        for old in [
            "demo.db",
            "demo.db-wal",
            "demo.db-shm",
            "demo.db-events",
            "demo.db-events-wal",
            "demo.db-events-shm",
            "demo.db-bell",
            "report.json",
            "report.html",
            "service.sock",
        ] {
            remove(&dir.join(old)).await?;
        }
        if tokio::fs::try_exists(dir.join("archive")).await? {
            tokio::fs::remove_dir_all(dir.join("archive")).await?;
        }
        let (input, shown) = match &args.file {
            None => {
                let input = dir.join(PENGUINS_NAME);
                tokio::fs::write(&input, PENGUINS).await?;
                (input, PENGUINS_NAME.to_owned())
            }
            Some(file) => {
                let input = tokio::fs::canonicalize(file).await.map_err(|error| {
                    Refused::Usage(format!("cannot read {}: {error}", file.display()))
                })?;
                let name = file
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                (input, name)
            }
        };
        Ok(Self { dir, input, shown })
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.dir.join("demo.db").display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("service.sock")
    }

    fn archive(&self) -> PathBuf {
        self.dir.join("archive")
    }

    fn input(&self) -> String {
        self.input.display().to_string()
    }
}

/// Only a folder that is empty or of an earlier demo is cleaned up.
async fn claim(dir: &Path) -> Result<(), TaskError> {
    let marker = dir.join(".celeriac-demo");
    if tokio::fs::try_exists(&marker).await? {
        return Ok(());
    }
    if tokio::fs::read_dir(dir).await?.next_entry().await?.is_some() {
        let text = format!("{} is not empty and not of an earlier demo", dir.display());
        return Err(Refused::Usage(format!("{text}; choose another folder with --dir")).into());
    }
    Ok(tokio::fs::write(&marker, "This folder belongs to `celeriac demo`.\n").await?)
}

async fn remove(path: &Path) -> Result<(), TaskError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
