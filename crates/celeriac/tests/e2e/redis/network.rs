//! Networks that freeze, cut, and leave connections half open between workers and Redis.

use crate::kit::{PATIENCE, pass, until};
use crate::running::{Diary, start_with};
use celeriac::prelude::*;
use celeriac_testkit::proxy::{Flow, How, Proxy, Way, Which};
use celeriac_testkit::redis_or_skip;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After a fault the next task has to end in so much time (P1).
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[task(name = "network.note", max_retries = 0)]
async fn note(diary: State<Arc<Diary>>, text: String) -> Result {
    diary.note(text);
    Ok(())
}

/// What one fault does to the connections of a worker.
fn strike(proxy: &Proxy, random: &mut fastrand::Rng) -> &'static str {
    let set = |way, flow| proxy.set(Which::All, way, |rule| rule.flow = flow);
    match random.u8(..6) {
        0 => {
            set(Way::Both, Flow::Freeze);
            "freeze"
        }
        1 => {
            set(Way::ToClient, Flow::Freeze);
            "answers are late"
        }
        2 => {
            // What is open now hears nothing more, whatever the network does later.
            proxy.connections().into_iter().for_each(|number| {
                proxy.set(Which::One(number), Way::Both, |rule| rule.flow = Flow::HalfOpen);
            });
            "half open"
        }
        3 => {
            // A stream that lost bytes cannot go on: these connections stay dead.
            proxy.connections().into_iter().for_each(|number| {
                proxy.set(Which::One(number), Way::ToClient, |rule| rule.flow = Flow::HalfOpen);
            });
            "answers are lost"
        }
        4 => {
            proxy.cut(Which::All, How::Reset);
            "reset"
        }
        _ => {
            proxy.cut(Which::All, How::Close);
            "close"
        }
    }
}

/// `CELERIAC_STRIKES` and `CELERIAC_SEED` change the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumption_comes_back_after_every_fault_and_nothing_is_lost() {
    let redis = redis_or_skip!();
    let number = |name: &str| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let strikes = number("CELERIAC_STRIKES").unwrap_or(6);
    let seed = number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{strikes} strikes, seed {seed}");
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
    let proxy = Proxy::start(server, seed).await.unwrap();
    let url = redis.url().replace(&redis.port().to_string(), &proxy.address().port().to_string());
    let diary = Arc::new(Diary::default());
    let behind = App::at(&url).unwrap().tasks(tasks![note]).state(Arc::clone(&diary));
    let running = start_with(&behind, behind.worker().concurrency(4)).await;
    // The producer's own network is healthy.
    let client = App::at(&redis.url()).unwrap().client().await.unwrap();
    let up = client.send(note::call("up")).await.unwrap();
    up.get(PATIENCE).await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut longest = Duration::ZERO;
    let mut sent = Vec::new();
    for strike_number in 0..strikes {
        let what = strike(&proxy, &mut random);
        for copy in 0..5 {
            let text = format!("{strike_number}-{copy}");
            sent.push((client.send(note::call(&text)).await.unwrap(), text));
        }
        pass(Duration::from_millis(random.u64(50..2500))).await;
        proxy.set(Which::All, Way::Both, |rule| {
            if rule.flow != Flow::HalfOpen {
                rule.flow = Flow::Forward;
            }
        });
        let healed = Instant::now();
        for (job, text) in &sent[sent.len() - 5..] {
            let left = BACK_WITHIN.saturating_sub(healed.elapsed());
            job.get(left).await.unwrap_or_else(|error| panic!("{what}: {text}: {error}"));
        }
        longest = longest.max(healed.elapsed());
        println!("{what}: back after {:?}", healed.elapsed());
    }
    println!("the longest way back took {longest:?}, at most {BACK_WITHIN:?}");
    until("every task has run", PATIENCE, async || {
        let ran = diary.read();
        sent.iter().all(|(_, text)| ran.contains(text)).then_some(())
    })
    .await;
    running.stop().await;
}
