//! Finds out how occurrences ended, while their results are there.

use super::{BeatParts, BeatStatus};
use celeriac_core::StoreError;
use celeriac_core::clock::between;
use celeriac_wire::State;
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// The most occurrences of one look.
const LOOK_MAX: usize = 500;
/// How long the end of an occurrence is waited for at least, where results are kept for a shorter time.
const WAITED_MIN: Duration = Duration::from_hours(24);

/// Writes how occurrences ended, as long as this beat leads; never returns.
pub(super) async fn follow(parts: &BeatParts, mut status: watch::Receiver<BeatStatus>) {
    let mut after = Timestamp::MIN;
    // The beat holds the other end as long as this runs.
    while status.wait_for(|status| status.leading).await.is_ok() {
        match look(parts, after).await {
            Ok(next) => after = next,
            Err(error) => tracing::warn!(%error, "beat: how occurrences ended is not known now"),
        }
        if after == Timestamp::MIN {
            tokio::time::sleep(EVERY).await;
        }
    }
    std::future::pending::<()>().await;
}

/// Looks at the occurrences behind `after`; returns where to go on, the beginning if there are no more.
async fn look(parts: &BeatParts, after: Timestamp) -> Result<Timestamp, StoreError> {
    let open = parts.store.open_occurrences(after, LOOK_MAX).await?;
    let ids: Vec<String> = open.iter().filter_map(|(_, one)| one.task_id.clone()).collect();
    let results = parts.store.results(&ids).await?;
    let now = parts.clock.wall();
    let kept = parts.store.limits().result_expires.unwrap_or(Duration::MAX).max(WAITED_MIN);
    let mut ended = Vec::new();
    let with_id = open.iter().filter(|(_, one)| one.task_id.is_some());
    for ((name, one), result) in with_id.zip(results) {
        let state = match result {
            Some(record) if record.meta.state().is_ready() => Some(record.meta.state()),
            // Its task stores no result, or was lost where nobody could see it.
            _ if between(one.fired, now) > kept => Some(State::parse("UNKNOWN")),
            _ => None,
        };
        if let Some(state) = state {
            ended.push((name.clone(), one.due, state));
        }
    }
    if !ended.is_empty() {
        parts.store.end_occurrences(ended).await?;
    }
    match open.last() {
        Some((_, last)) if open.len() >= LOOK_MAX => Ok(last.fired),
        _ => Ok(Timestamp::MIN),
    }
}
