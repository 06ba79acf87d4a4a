use celeriac::prelude::*;

#[task(que = "mail")]
async fn send(to: String) -> Result {
    let _ = to;
    Ok(())
}

#[task(rate_limit = "ten a second")]
async fn limited() {}

#[task(key = "tenent")]
async fn keyed(tenant: String) {
    let _ = tenant;
}

#[task(unique_for = "1h")]
async fn lonely() {}

fn main() {}
