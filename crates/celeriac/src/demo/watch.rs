//! Shows the columns' progress while the worker profiles them.

use super::profile::ColumnProfile;
use crate::client::Client;
use crate::error::Result;
use crate::job::Job;
use celeriac_wire::State;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::time::Duration;

/// More columns than this share one bar.
const BARS_MAX: usize = 24;
/// The longest wait before the bars are drawn anew.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Column {
    job: Job<ColumnProfile>,
    bar: ProgressBar,
    done: bool,
}

/// Draws one bar a column until all have ended, whichever way.
pub(super) async fn columns(
    client: &Client,
    ids: &[String],
    header: &[String],
    rows: usize,
) -> Result<()> {
    let bars = MultiProgress::new();
    let total = bars.add(ProgressBar::new(ids.len() as u64));
    total.set_style(style("{prefix:28} {bar:30} {pos}/{len} columns")?);
    total.set_prefix("all");
    let line = style("{prefix:28} {bar:30} {percent:>3}% {msg}")?;
    let mut columns = Vec::with_capacity(ids.len());
    for (id, name) in ids.iter().zip(header) {
        let bar = if ids.len() <= BARS_MAX {
            bars.add(ProgressBar::new(rows as u64))
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(line.clone());
        bar.set_prefix(name.chars().take(28).collect::<String>());
        columns.push(Column { job: client.job(id), bar, done: false });
    }
    while columns.iter().any(|column| !column.done) {
        let seen = client.store().changes();
        for column in columns.iter_mut().filter(|column| !column.done) {
            look(column, rows).await?;
        }
        total.set_position(columns.iter().filter(|column| column.done).count() as u64);
        if columns.iter().any(|column| !column.done) {
            client.store().wait_change(seen, LOOK_EVERY).await;
        }
    }
    total.finish();
    Ok(())
}

async fn look(column: &mut Column, rows: usize) -> Result<()> {
    let Some(record) = column.job.record().await? else { return Ok(()) };
    match record.meta.state() {
        State::Success => {
            column.bar.set_position(rows as u64);
            column.bar.finish_with_message("✓");
            column.done = true;
        }
        state if state.is_ready() => {
            column.bar.abandon_with_message(state.to_string());
            column.done = true;
        }
        state => {
            if let Some(progress) = crate::context::progress_of(&state, record.meta.result()) {
                column.bar.set_position(progress.current as u64);
            }
        }
    }
    Ok(())
}

fn style(template: &str) -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template(template)?.progress_chars("━━╌"))
}
