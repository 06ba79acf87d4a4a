use celeriac::prelude::*;

#[task(max_retries = 3, max_retries = 4)]
async fn twice() {}

#[task(queue)]
async fn no_value() {}

#[task(ignore_result = true)]
async fn no_flag() {}

#[task(priority = "urgent")]
async fn level() {}

#[task(priority = 3)]
async fn number_for_text() {}

#[task(name = "a\nb")]
async fn lines() {}

#[task(queue = "celeriac:own")]
async fn reserved() {}

#[task(jitter = "no")]
async fn jittery() {}

#[task(backoff = "2s")]
async fn no_ceiling() {}

#[task(backoff = "1500ms..1m")]
async fn half_seconds() {}

#[task(backoff = "10m..2s")]
async fn backwards() {}

#[task(retry_schedule = "60s")]
async fn no_list() {}

#[task(retry_schedule = [])]
async fn empty_list() {}

#[task(time_limit = "0s")]
async fn no_time() {}

#[task(rate_limit = "1/s, 2/m")]
async fn two_rates() {}

#[task(concurrency_limit = 0)]
async fn nobody() {}

#[task(concurrency_limit = "two")]
async fn words() {}

#[task(unique, unique_until = "noon")]
async fn until_noon() {}

#[task(bind)]
async fn of_celery() {}

#[task(zzz)]
async fn of_nobody() {}

fn main() {}
