//! apalis 1.0 with its Redis storage: `fill COUNT PADDING`, `work CONCURRENCY`, `stamps COUNT`.

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use bench_programs::{now, stamp_into_file};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Deserialize, Serialize)]
struct Job {
    sent_at: Option<f64>,
    padding: String,
}

async fn run(job: Job) -> Result<(), BoxDynError> {
    if let Some(sent_at) = job.sent_at {
        stamp_into_file(sent_at);
    }
    Ok(())
}

#[tokio::main]
async fn main() {
    let url = std::env::var("BROKER").expect("BROKER is a URL");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> usize { arguments[at].parse().expect("a number") };
    let connection = apalis_redis::connect(url).await.expect("Redis answers");
    // Its own advice for throughput: large batches, results and events off.
    let config = Config::default()
        .queue("bench")
        .batch_size(100)
        .persist_results(false)
        .emit_events(false)
        // An idle worker looks only at each heartbeat, by default every 30 seconds.
        .heartbeat_interval(Duration::from_secs(1));
    let mut storage = RedisStorage::new(connection).with_config(config);
    match arguments[0].as_str() {
        "fill" => {
            let padding = "x".repeat(number(2));
            let mut left = number(1);
            while left > 0 {
                let count = left.min(1000);
                let jobs = (0..count).map(|_| Job { sent_at: None, padding: padding.clone() });
                storage.push_bulk(jobs.collect()).await.expect("pushed");
                left -= count;
            }
        }
        "stamps" => {
            for _ in 0..number(1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let job = Job { sent_at: Some(now()), padding: String::new() };
                storage.push(job).await.expect("pushed");
            }
        }
        "work" => {
            let worker = WorkerBuilder::new("bench")
                .backend(storage)
                .concurrency(number(1))
                .parallelize(tokio::spawn)
                .build(run);
            worker.run().await.expect("it runs");
        }
        other => panic!("{other}?"),
    }
}
