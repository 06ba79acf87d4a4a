use celeriac::prelude::*;

#[task(name = "t.add")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

fn main() {
    let _typed = add::call("two", 3);
}
