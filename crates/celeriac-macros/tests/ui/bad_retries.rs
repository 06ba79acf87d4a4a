use celeriac::prelude::*;

#[task(backoff = "2s..10m", retry_schedule = ["1s"])]
async fn two_schedules() {}

#[task(max_retries = -1)]
async fn negative() {}

fn main() {}
