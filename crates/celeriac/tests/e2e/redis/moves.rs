//! Queues that move from Redis to SQLite and back while the mover is killed: what arrives is what was sent,
//! byte for byte, each message once (P25).
//!
//! `CELERIAC_MOVES` messages and `CELERIAC_MOVE_KILLS` kills of each way change the run; `CELERIAC_SEED` is
//! that of the kills.

use crate::kit::{PATIENCE, command};
use celeriac_testkit::process::{Process, pass};
use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::services::resp::Connection;
use celeriac_wire::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// kombu's lists of a queue, by priority.
const LISTS: [&str; 4] =
    ["celery", "celery\u{6}\u{16}3", "celery\u{6}\u{16}6", "celery\u{6}\u{16}9"];

fn number(name: &str, usual: u64) -> u64 {
    std::env::var_os(name).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(usual)
}

/// Messages as Celery 5.7 sends them: ready and scheduled, in four priorities, in several encodings.
async fn fill(connection: &mut Connection, count: u64) {
    let far = "2099-01-01T00:00:00+00:00";
    let mut waiting: [Vec<String>; 4] = Default::default();
    for number in 0..count {
        let list = usize::from(number % 7 == 0) * (1 + number as usize % 3);
        let priority = list * 3;
        let eta = if number % 5 == 0 { format!("\"{far}\"") } else { "null".to_owned() };
        let body = match number % 3 {
            0 => "W1tdLCB7fSwge31d",
            1 => "W1sixIdpIFx1ZDgzZFx1ZGUwMCIsIDEuMGUzMDBdLCB7fSwge31d",
            _ => "gASVDwAAAAAAAABdlCh9lGUu",
        };
        // Ids repeat: a task may be sent twice.
        let id = number - number % 2 * (number % 100 / 99);
        waiting[list].push(format!(
            "{{\"body\": \"{body}\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", \
             \"headers\": {{\"lang\": \"py\", \"task\": \"t.{}\", \"id\": \"id-{id}\", \"eta\": {eta}, \
             \"retries\": 0, \"big\": 12345678901234567890123, \"ключ\": \"\\u00fc\", \"argsrepr\": \"({number},)\"}}, \
             \"properties\": {{\"correlation_id\": \"id-{id}\", \"reply_to\": \"r\", \"delivery_mode\": 2, \
             \"delivery_info\": {{\"exchange\": \"\", \"routing_key\": \"celery\"}}, \"priority\": {priority}, \
             \"body_encoding\": \"base64\", \"delivery_tag\": \"tag-{number}\"}}}}",
            number % 11
        ));
    }
    for (list, payloads) in LISTS.iter().zip(&waiting) {
        for some in payloads.chunks(2000) {
            let words = ["LPUSH", list].into_iter().chain(some.iter().map(String::as_str));
            connection.call(&words.collect::<Vec<_>>()).await.unwrap();
        }
    }
}

/// How often each message is there, without celeriac's notes, and how many there are.
async fn read(connection: &mut Connection, lists: &[String]) -> (BTreeMap<String, u32>, u64) {
    let (mut all, mut count) = (BTreeMap::new(), 0);
    for list in lists {
        let mut from = 0_u64;
        loop {
            let (first, last) = (from.to_string(), (from + 4999).to_string());
            let some = connection.call(&["LRANGE", list, &first, &last]).await.unwrap().texts();
            if some.is_empty() {
                break;
            }
            from += some.len() as u64;
            for payload in some {
                let mut message = Value::parse(payload.as_bytes()).unwrap();
                if let Value::Object(members) = &mut message {
                    members.remove("celeriac");
                }
                *all.entry(message.to_string()).or_default() += 1;
                count += 1;
            }
        }
    }
    (all, count)
}

/// Moves everything; the first movers are killed, and how many of them were at work is told.
async fn move_all(
    folder: &Path,
    (from, to): (&str, &str),
    kills: u64,
    takes: Duration,
    dice: &mut fastrand::Rng,
) -> u64 {
    let start = || {
        let mut one = command(Path::new(env!("CARGO_BIN_EXE_celeriac")), folder);
        one.args(["-b", from, "queue", "move", "celery", "celery", "--to", to, "--json"]);
        // What a killed one held is back after this time.
        one.env("CELERIAC_LEASE_EXPIRY", "1s");
        Process::spawn(&mut one, folder.join("move.log"))
    };
    let mut killed = 0;
    for _ in 0..kills {
        let mut one = start();
        pass(takes.mul_f64(dice.f64())).await;
        killed += u64::from(!one.is_over());
        one.kill().await;
    }
    let mut last = start();
    assert!(last.ended_within(takes + 4 * PATIENCE).await.success(), "{}", last.log());
    println!("{}", last.log().trim());
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_changed_whoever_is_killed() {
    let redis: Redis = redis_or_skip!();
    let (count, kills) = (number("CELERIAC_MOVES", 10_000), number("CELERIAC_MOVE_KILLS", 2));
    let mut dice = fastrand::Rng::with_seed(number("CELERIAC_SEED", 7));
    let mut connection = redis.connect().await;
    fill(&mut connection, count).await;
    let stock: Vec<String> = LISTS.iter().map(|list| (*list).to_owned()).collect();
    let (sent, there) = read(&mut connection, &stock).await;
    assert_eq!(there, count);
    let sqlite = format!("sqlite://{}", redis.folder().join("moved.db").display());
    let (a, b) = (redis.url_of(0), redis.url_of(1));
    // So long does it take, more or less.
    let takes = Duration::from_micros(100 * count);
    let out = move_all(redis.folder(), (&a, &sqlite), kills, takes, &mut dice).await;
    let back = move_all(redis.folder(), (&sqlite, &b), kills, takes, &mut dice).await;
    println!("{count} messages, {out} and {back} of {kills} movers killed at work");
    assert_eq!(read(&mut connection, &stock).await.1, 0, "nothing stays at the old place");
    connection.call(&["SELECT", "1"]).await.unwrap();
    let (arrived, there) = read(&mut connection, &stock).await;
    assert_eq!(there, count);
    assert!(arrived == sent, "a message is not what it was");
}
