use celeriac::prelude::*;

#[task(name = "mail.send", remote)]
async fn send(to: String) -> u64 {
    to.len() as u64
}

#[task(name = "mail.receive")]
async fn receive(from: String) -> u64;

fn main() {}
