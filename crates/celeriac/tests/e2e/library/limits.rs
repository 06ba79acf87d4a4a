//! Rate and concurrency limits with real workers.

use crate::kit::{PATIENCE, Place};
use crate::running::{Running, start_with};
use celeriac::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// When tasks of each key began, by the wall clock, and how many ran at once.
#[derive(Default)]
struct Watch {
    starts: Mutex<BTreeMap<String, Vec<i64>>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Watch {
    fn start(&self, key: &str, cx: &Context) {
        let at = cx.now().as_microsecond();
        self.starts.lock().unwrap().entry(key.to_owned()).or_default().push(at);
    }

    /// The start times of a key, sorted.
    fn of(&self, key: &str) -> Vec<i64> {
        let mut starts = self.starts.lock().unwrap().get(key).cloned().unwrap_or_default();
        starts.sort_unstable();
        starts
    }
}

#[task(name = "limits.slow", rate_limit = "20/s")]
async fn slow(cx: Context, watch: State<Arc<Watch>>) {
    watch.start("slow", &cx);
}

#[task(name = "limits.shared", global_rate_limit = "50/s")]
async fn shared(cx: Context, watch: State<Arc<Watch>>) {
    watch.start("shared", &cx);
}

#[task(name = "limits.keyed", key = "key", global_rate_limit = "10/s burst, 16/2s burst")]
async fn keyed(cx: Context, watch: State<Arc<Watch>>, key: String) {
    watch.start(&key, &cx);
}

#[task(name = "limits.tenant", key = "tenant", concurrency_limit = 2)]
async fn tenant(cx: Context, watch: State<Arc<Watch>>, tenant: String) {
    watch.start(&tenant, &cx);
    if tenant == "flood" {
        let now = watch.running.fetch_add(1, Ordering::SeqCst) + 1;
        watch.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(20.millis()).await;
        watch.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[task(name = "limits.free")]
async fn free(cx: Context, watch: State<Arc<Watch>>) {
    watch.start("free", &cx);
}

fn application(place: &Place) -> (App, Arc<Watch>) {
    let watch = Arc::new(Watch::default());
    let app =
        place.app().tasks(tasks![slow, shared, keyed, tenant, free]).state(Arc::clone(&watch));
    (app, watch)
}

/// Several workers on the same file, each with a connection of its own.
async fn workers(place: &Place, count: usize) -> (Vec<Running>, Client, Arc<Watch>) {
    let (app, watch) = application(place);
    let mut running = Vec::new();
    for number in 0..count {
        let own = place.app().tasks(tasks![slow, shared, keyed, tenant, free]);
        let own = own.state(Arc::clone(&watch));
        let worker = own.worker().name(&format!("w{number}@test")).concurrency(4);
        running.push(start_with(&own, worker).await);
    }
    (running, app.client().await.unwrap(), watch)
}

async fn all_done<R: serde::de::DeserializeOwned>(jobs: &[Job<R>]) {
    for job in jobs {
        job.get(PATIENCE).await.unwrap();
    }
}

/// Whether there are never more than `count` starts within `window`, but for the time that a task
/// needs from its lease to its first line.
fn never_over(starts: &[i64], count: usize, window: Duration) {
    let slack = Duration::from_millis(60);
    let least = i64::try_from(window.saturating_sub(slack.min(window / 4)).as_micros()).unwrap();
    for span in starts.windows(count + 1) {
        let within = span[count] - span[0];
        assert!(within >= least, "{} starts within {within} µs of {window:?}", count + 1);
    }
}

#[tokio::test]
async fn a_workers_own_rate_holds_and_holds_up_nobody() {
    for place in Place::every() {
        let (app, watch) = application(&place);
        let client = app.client().await.unwrap();
        let limited = client.send_all((0..8).map(|_| slow::call())).await.unwrap();
        let others = client.send_all((0..8).map(|_| free::call())).await.unwrap();
        let running = start_with(&app, app.worker().concurrency(4)).await;
        all_done(&others).await;
        all_done(&limited).await;
        let starts = watch.of("slow");
        // A start may be late by a hundredth of the period, and the next is not.
        assert!(starts[7] - starts[0] >= 7 * 50_000 - 20_000, "8 at 20/s: {starts:?}");
        assert!(watch.of("free")[7] < starts[7], "what is free does not wait");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_rate_is_exact_over_two_workers() {
    // covers: S2-28, S3-04, T-66
    let place = Place::shared();
    let (running, client, watch) = workers(&place, 2).await;
    let jobs = client.send_all((0..150).map(|_| shared::call())).await.unwrap();
    all_done(&jobs).await;
    let starts = watch.of("shared");
    never_over(&starts, 50, Duration::from_secs(1));
    let micros = starts[149] - starts[0];
    println!("150 tasks at 50/s over two workers: {:.3} s", micros as f64 / 1e6);
    for one in running {
        one.stop().await;
    }
}

/// P17, scaled: two windows on a key, three workers; a second key and free tasks do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_on_a_key_hold_over_three_workers() {
    let place = Place::shared();
    let (running, client, watch) = workers(&place, 3).await;
    let flood = client.send_all((0..30).map(|_| keyed::call("flood"))).await.unwrap();
    let calm = client.send_all((0..5).map(|_| keyed::call("calm"))).await.unwrap();
    let others = client.send_all((0..20).map(|_| free::call())).await.unwrap();
    all_done(&others).await;
    all_done(&calm).await;
    assert!(watch.of("flood").len() < 30, "the flood still waits");
    all_done(&flood).await;
    let starts = watch.of("flood");
    never_over(&starts, 10, Duration::from_secs(1));
    never_over(&starts, 16, Duration::from_secs(2));
    for one in running {
        one.stop().await;
    }
}

/// P18, the part with caps: a tenant that floods keeps to its slots, another is served at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_tenant_keeps_to_its_slots() {
    let place = Place::shared();
    let (running, client, watch) = workers(&place, 2).await;
    let flood = client.send_all((0..60).map(|_| tenant::call("flood"))).await.unwrap();
    let quiet = client.send_all((0..10).map(|_| tenant::call("quiet"))).await.unwrap();
    all_done(&quiet).await;
    assert!(watch.of("flood").len() < 60, "the flood still waits");
    all_done(&flood).await;
    assert_eq!(watch.most.load(Ordering::SeqCst), 2, "two at once, and no slot of the two idle");
    for one in running {
        one.stop().await;
    }
}
