//! A beat whose Redis goes away and comes back.

use super::app;
use crate::kit::{PATIENCE, pass, until};
use celeriac::Call;
use celeriac::schedule::{Entry, Interval, Misfire, Schedules};
use celeriac_core::beat::occurrence_id;
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use jiff::SignedDuration;
use std::collections::BTreeSet;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(250);
/// The lease of the beat, and how much longer its server is away.
const LEASE: Duration = Duration::from_secs(1);

async fn sent(schedules: &Schedules, name: &str, more_than: u64) -> u64 {
    until("the entry is sent", PATIENCE, async || {
        let runs = schedules.status(name).await.ok()?.kept.state.runs;
        (runs > more_than).then_some(runs)
    })
    .await
}

/// S4: no crash, no lost schedule, and for what was missed what the entries say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_outlives_an_outage_and_makes_up_for_it_once() {
    // covers: S4-03, S4-11
    let mut redis = redis_or_skip!(Redis::options().append_only());
    let app = app(&redis);
    let schedules = app.schedules().await.unwrap();
    let entry = |name: &str, misfire: Misfire| {
        let every = Interval::new(EVERY, false).unwrap();
        let entry = Entry::new(name, every, Call::named("t.add").arg(&1).arg(&2));
        entry.misfire(misfire).misfire_grace(LEASE)
    };
    schedules.add(entry("once", Misfire::Once)).await.unwrap();
    schedules.add(entry("all", Misfire::All(1000))).await.unwrap();
    let beat = app.beat().lease(LEASE).build().await.unwrap();
    let (stop, mut status) = (beat.stop_handle(), beat.status());
    let running = tokio::spawn(beat.run());
    sent(&schedules, "once", 2).await;
    redis.shutdown().await;
    // The server is away, not slow.
    pass(LEASE * 4).await;
    redis.restart().await;
    let runs = sent(&schedules, "all", 20).await;
    status.wait_for(|status| status.leading && status.terms > 1).await.unwrap();
    sent(&schedules, "once", 6).await;
    stop.stop();
    let ended = running.await.unwrap();
    assert!(ended.sent >= runs, "{ended:?}");
    // One line stands for all that were missed.
    let lines = schedules.history("once", 1000).await.unwrap();
    let missed: Vec<u64> = lines.iter().map(|line| line.count).filter(|count| *count > 1).collect();
    assert_eq!(missed.len(), 1, "{lines:?}");
    assert!(missed[0] >= 12, "{missed:?}");
    // None of these was left out.
    let kept = schedules.status("all").await.unwrap().kept;
    let lines = schedules.history("all", 1000).await.unwrap();
    let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line.task_id.as_deref()).collect();
    let (first, last) = (lines.last().unwrap().due, kept.state.last_due.unwrap());
    let mut due = first;
    while due <= last {
        assert!(ids.contains(occurrence_id("all", due).as_str()), "{due} was left out");
        due += SignedDuration::try_from(EVERY).unwrap();
    }
}
