//! Lists full of what is no message, or a broken one: each becomes a dead letter with its bytes, and
//! the worker lives.
//!
//! `CELERIAC_DAMAGED` says how many; the default is made for CI.

use super::app;
use crate::kit::{PATIENCE, until};
use crate::running::start_with;
use celeriac::UnknownTasks;
use celeriac::prelude::*;
use celeriac_core::store::{DeadFilter, Page};
use celeriac_testkit::process::Footprint;
use celeriac_testkit::redis_or_skip;
use std::time::Duration;
use tokio::time::Instant;

/// How many are pushed at once.
const BATCH: usize = 1000;

#[task(name = "damaged.add", max_retries = 0)]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

/// A whole envelope, as Celery writes it.
fn whole(n: usize) -> String {
    format!(
        r#"{{"body": "W1syLCAzXSwge30sIHt9XQ==", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": "damaged.add", "id": "d{n}", "retries": 0, "argsrepr": "(2, 3)"}}, "properties": {{"delivery_tag": "t{n}", "body_encoding": "base64", "priority": 0, "delivery_info": {{"exchange": "", "routing_key": "celery"}}}}}}"#
    )
}

/// Something that no worker can run.
fn damaged(n: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let text = whole(n);
    match n % 10 {
        0 => (0..random.usize(1..200)).map(|_| random.u8(..)).collect(),
        1 => text.as_bytes()[..random.usize(1..text.len() - 1)].to_vec(),
        2 => text.replace("W1syLCAzXSwge30sIHt9XQ==", "W1syLCAzXSwge30sIH").into_bytes(),
        3 => text.replace("W1syLCAzXSwge30sIHt9XQ==", "!!!").into_bytes(),
        4 => text.replace("W1syLCAzXSwge30sIHt9XQ==", "e30=").into_bytes(),
        5 => text.replace("application/json", "application/x-python-serialize").into_bytes(),
        6 => text.replace(r#""retries": 0"#, r#""retries": 0, "eta": "next tuesday""#).into_bytes(),
        7 => text.replace("damaged.add", "damaged.nosuch").into_bytes(),
        8 => text
            .replace(r#""lang": "py""#, &format!(r#""lang": "{}""#, "x".repeat(20_000)))
            .replace("(2, 3)", "")
            .replace(r#""task": "damaged.add""#, r#""task": 7"#)
            .into_bytes(),
        _ => format!("[{}", "[".repeat(random.usize(1..2000))).into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_become_dead_letters_with_their_bytes() {
    // covers: S2-28
    let redis = redis_or_skip!();
    let count = std::env::var_os("CELERIAC_DAMAGED")
        .map_or(3000, |text| text.to_str().unwrap().parse::<usize>().unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    let mut connection = redis.connect().await;
    let mut first = Vec::new();
    for from in (0..count).step_by(BATCH) {
        let mut push: Vec<Vec<u8>> = vec![b"LPUSH".to_vec(), b"celery".to_vec()];
        push.extend((from..count.min(from + BATCH)).map(|n| damaged(n, &mut random)));
        if from == 0 {
            first = push[2..].to_vec();
        }
        connection.call(&push).await.unwrap();
    }
    let app = app(&redis).tasks(tasks![add]);
    let before = Footprint::of(std::process::id()).unwrap();
    let running =
        start_with(&app, app.worker().concurrency(16).unknown_tasks(UnknownTasks::DeadLetter))
            .await;
    let begun = Instant::now();
    let store = running.client.store();
    let patience = PATIENCE + Duration::from_millis(count as u64);
    until("each is a dead letter", patience, async || {
        let letters = store.dead_count(&DeadFilter::default()).await.unwrap();
        (letters as usize >= count).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert_eq!(store.dead_count(&DeadFilter::default()).await.unwrap() as usize, count);
    let page = Page { after: 0, count_max: count.min(10_000) };
    let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
    let kept = |bytes: &Vec<u8>| {
        letters.iter().any(|letter| {
            letter.message.body[..] == bytes[..]
                || String::from_utf8_lossy(bytes)
                    .contains(letter.message.headers.id().unwrap_or("?"))
        })
    };
    assert!(first.iter().take(50).all(kept), "the bytes of each are in its letter");
    let after = Footprint::of(std::process::id()).unwrap();
    println!("{count} damaged messages in {took:?}: {before:?} -> {after:?}");
    let alive = running.client.send(add::call(2, 3)).await.unwrap();
    assert_eq!(alive.get(PATIENCE).await.unwrap(), 5, "the worker lives");
    running.stop().await;
}
