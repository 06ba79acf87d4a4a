//! The tasks of the demo; ordinary functions with `#[task]`.

use super::profile::{ColumnProfile, Report, Table, TableLimits};
use crate::context::{Context, State};
use crate::error::{Result, TaskError};
use crate::handler::TaskDef;
use crate::task;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// How often a running column reports its progress.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// The tasks of the demo, for any application that wants to serve them.
pub fn task_defs() -> Vec<TaskDef> {
    crate::tasks![inspect, column, report, ask_service, wait_for_cancel, archive]
}

/// The table that was read last: a chord reads one file many times.
#[derive(Debug, Default)]
pub struct Tables(Mutex<BTreeMap<String, Arc<Table>>>);

impl Tables {
    /// The table in a file; read at most once in a row.
    ///
    /// # Errors
    /// Permanent: the file is missing or is no table, with the place and what to do.
    async fn read(&self, path: String) -> Result<Arc<Table>> {
        if let Some(table) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&path) {
            return Ok(Arc::clone(table));
        }
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| TaskError::fail(format!("cannot read {path}: {error}")))?;
        let table =
            tokio::task::spawn_blocking(move || Table::read(&bytes, &TableLimits::default()))
                .await?
                .map_err(|error| TaskError::fail(format!("{path}: {error}")))?;
        let table = Arc::new(table);
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.clear();
        tables.insert(path, Arc::clone(&table));
        Ok(table)
    }
}

/// What is known of a file before its columns are profiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TableFacts {
    /// The columns' names.
    pub header: Vec<String>,
    /// Data rows.
    pub rows: usize,
    /// The encoding it was read in.
    pub encoding: String,
    /// What separates fields.
    pub delimiter: char,
    /// The file's size.
    pub bytes: u64,
}

/// Reads a file's structure.
#[task(name = "demo.inspect", max_retries = 0)]
pub(super) async fn inspect(tables: State<Tables>, path: String) -> Result<TableFacts> {
    let bytes = tokio::fs::metadata(&path).await.map_or(0, |file| file.len());
    let table = tables.read(path).await?;
    Ok(TableFacts {
        header: table.header.clone(),
        rows: table.rows,
        encoding: table.encoding.clone(),
        delimiter: table.delimiter,
        bytes,
    })
}

/// Profiles one column.
#[task(name = "demo.column")]
pub(super) async fn column(
    tables: State<Tables>,
    cx: Context,
    path: String,
    index: usize,
) -> Result<ColumnProfile> {
    let table = tables.read(path).await?;
    let name = table
        .header
        .get(index)
        .cloned()
        .ok_or_else(|| TaskError::fail(format!("there is no column {index}")))?;
    let (rows, done) = (table.rows, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&done);
    let label = name.clone();
    let mut computing = tokio::task::spawn_blocking(move || {
        let mut count = |cells| counted.store(cells, Ordering::Relaxed);
        ColumnProfile::compute(&name, table.column(index), &mut count)
    });
    loop {
        // The handle is polled on across rounds: a timeout loses nothing.
        match tokio::time::timeout(REPORT_EVERY, &mut computing).await {
            Ok(profile) => {
                cx.progress(rows, rows, &label).await;
                return Ok(profile?);
            }
            Err(_running) => {
                cx.check()?;
                cx.progress(done.load(Ordering::Relaxed).min(rows.saturating_sub(1)), rows, &label)
                    .await;
            }
        }
    }
}

/// Where the report was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReportFiles {
    /// For programs.
    pub json: String,
    /// For people.
    pub html: String,
    /// How many columns are in it.
    pub columns: usize,
}

/// Writes the report from all profiles: the body of the chord.
#[task(name = "demo.report")]
pub(super) async fn report(
    columns: Vec<ColumnProfile>,
    facts: TableFacts,
    file: String,
    dir: String,
) -> Result<ReportFiles> {
    let count = columns.len();
    let report = Report {
        file,
        bytes: facts.bytes,
        encoding: facts.encoding,
        delimiter: facts.delimiter,
        rows: facts.rows,
        facts: vec![("Made by".to_owned(), format!("{} queued tasks and their chord", count + 1))],
        columns,
    };
    let dir = Path::new(&dir);
    let (json, html) = (dir.join("report.json"), dir.join("report.html"));
    tokio::fs::write(&json, celeriac_wire::to_value(&report)?.to_bytes()).await?;
    tokio::fs::write(&html, report.to_html()).await?;
    Ok(ReportFiles {
        json: json.display().to_string(),
        html: html.display().to_string(),
        columns: count,
    })
}

/// Asks a local service, which is not up yet when the demo sends this: a passing fault.
#[task(name = "demo.ask_service", retry_schedule = ["500ms", "1s", "2s", "5s", "10s"])]
pub(super) async fn ask_service(socket: String) -> Result<String> {
    let mut stream = tokio::net::UnixStream::connect(&socket).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Works until it is cancelled.
#[task(name = "demo.wait_for_cancel")]
pub(super) async fn wait_for_cancel(cx: Context) -> Result<()> {
    cx.progress(0, 1, "working until somebody cancels this").await;
    Err(cx.cancelled().await)
}

/// Copies the report into an archive folder, which must exist.
#[task(name = "demo.archive", max_retries = 0)]
pub(super) async fn archive(report: String, folder: String) -> Result<String> {
    if !tokio::fs::try_exists(&folder).await? {
        return Err(TaskError::fail(format!("the archive folder {folder} does not exist")));
    }
    let copy = Path::new(&folder).join("report.json");
    tokio::fs::copy(&report, &copy).await?;
    Ok(copy.display().to_string())
}
