//! Real worker processes: killed, stopped, frozen, and with tasks that misbehave.

mod beats;
mod children;
mod disk;
mod failpoints;
mod faults;
mod freeze;
mod kills;
mod outdated;
mod revokes;
mod sharing;
mod stops;
mod stuck;
mod unique;

use celeriac::{Call, Client};

/// Enqueues tasks of so many milliseconds; returns their ids in order.
async fn enqueue(client: &Client, count: usize, ms: u64) -> Vec<String> {
    let calls = (0..count).map(|_| Call::named("ledger.work").arg(&ms));
    let jobs = client.send_all(calls).await.unwrap();
    jobs.iter().map(|job| job.id().to_owned()).collect()
}
