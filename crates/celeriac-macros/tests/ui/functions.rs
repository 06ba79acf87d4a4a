use celeriac::prelude::*;

#[task]
async unsafe fn dangerous() {}

#[task]
async fn apart((x, y): (i64, i64)) -> i64 {
    x + y
}

#[task]
async fn both(#[inject] #[default(1)] x: i64) -> i64 {
    x
}

#[task]
async fn no_default(#[default] x: i64) -> i64 {
    x
}

#[task]
async fn sometimes(#[cfg(test)] x: i64) {}

#[task]
async fn anything(x: impl ToString) -> String {
    x.to_string()
}

#[task(name = "app.add", remote, queue = "other")]
async fn elsewhere(x: i64) -> i64;

#[task(remote)]
async fn nameless(x: i64) -> i64;

#[task(name = "app.add", remote)]
async fn injected(cx: Context, x: i64) -> i64;

#[task(name = "app.add", remote)]
async fn defaulted(#[default(1)] x: i64) -> i64;

fn main() {}
