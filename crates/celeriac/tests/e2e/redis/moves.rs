//! Queues that move from Redis to SQLite and back while the mover is killed: what arrives is what was sent,
//! byte for byte, each message once (P25).
//!
//! `CELERIAC_MOVES` messages and `CELERIAC_MOVE_KILLS` kills of each way change the run; `CELERIAC_SEED` is
//! that of the kills.

use celeriac_testkit::redis_or_skip;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::services::resp::Connection;
use celeriac_wire::Value;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// kombu's lists of a queue, by priority.
const LISTS: [&str; 4] =
    ["celery", "celery\u{6}\u{16}3", "celery\u{6}\u{16}6", "celery\u{6}\u{16}9"];

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
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

fn mover(from: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(["-b", from, "queue", "move", "celery", "celery", "--json"]).args(arguments);
    // What a killed one held is back after this time.
    command.env("CELERIAC_LEASE_EXPIRY", "1s");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Moves everything; the first movers are killed, and how many of them were at work is told.
fn move_all(from: &str, to: &str, kills: u64, takes: Duration, dice: &mut fastrand::Rng) -> u64 {
    let mut killed = 0;
    for _ in 0..kills {
        let mut one = mover(from, &["--to", to]);
        // Not before it works, not long after it has ended. What it does meanwhile is its own affair.
        let until = Instant::now() + takes.mul_f64(dice.f64());
        while Instant::now() < until && one.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        killed += u64::from(one.try_wait().unwrap().is_none());
        one.kill().unwrap();
        one.wait().unwrap();
    }
    let last = mover(from, &["--to", to]).wait_with_output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    println!("{}", String::from_utf8_lossy(&last.stdout).trim());
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
    let killed = tokio::task::spawn_blocking(move || {
        let out = move_all(&a, &sqlite, kills, takes, &mut dice);
        let back = move_all(&sqlite, &b, kills, takes, &mut dice);
        (out, back)
    })
    .await
    .unwrap();
    println!("{count} messages, {killed:?} of {kills} movers killed at work on each way");
    assert_eq!(read(&mut connection, &stock).await.1, 0, "nothing stays at the old place");
    connection.call(&["SELECT", "1"]).await.unwrap();
    let (arrived, there) = read(&mut connection, &stock).await;
    assert_eq!(there, count);
    assert!(arrived == sent, "a message is not what it was");
}
