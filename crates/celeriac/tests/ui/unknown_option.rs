use celeriac::prelude::*;

#[task(que = "mail")]
async fn send(to: String) -> Result {
    let _ = to;
    Ok(())
}

#[task(rate_limit = "10/s")]
async fn limited() {}

fn main() {}
