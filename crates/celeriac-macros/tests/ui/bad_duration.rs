use celeriac::prelude::*;

#[task(time_limit = "soon")]
async fn wait() {}

#[task(soft_time_limit = "60s", time_limit = "50s")]
async fn limits() {}

fn main() {}
