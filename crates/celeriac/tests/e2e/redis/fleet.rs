//! A mixed fleet whose tasks take longer than Celery's visibility timeout: what celeriac takes runs
//! once (P2). Then its nodes die, everything is given back, and stock Celery alone drains it.
//!
//! `CELERIAC_FLEET` changes the number of tasks; from 1000 on they run for up to 30 s and wait for up to
//! 60 s, as the promise has it.

use super::app;
use crate::kit::{self, Line, Place, Worker, until};
use celeriac::prelude::*;
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::{State as TaskState, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The stock worker notes its runs in the same ledger.
const SOURCE: &str = "
import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.broker_transport_options = {'visibility_timeout': int(os.environ['TIMEOUT'])}
def note(step, id):
    line = f'{step} {id} 1 {os.getpid()} {time.time_ns() // 1000} redelivered=no deaths=0\\n'
    fd = os.open(os.environ['LEDGER'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)
@app.task(name='ledger.work', bind=True)
def work(self, ms):
    note('start', self.request.id)
    time.sleep(ms / 1000)
    note('end', self.request.id)
    return 'stock'
";

struct Plan {
    tasks: usize,
    /// Celery's visibility timeout, in seconds.
    timeout: u64,
    eta_max: Duration,
    run_max: Duration,
    slots: String,
    patience: Duration,
}

impl Plan {
    fn from_env() -> Self {
        let tasks = std::env::var_os("CELERIAC_FLEET")
            .map_or(60, |text| text.to_str().unwrap().parse().unwrap());
        let seconds = Duration::from_secs;
        if tasks < 1000 {
            let (eta_max, run_max) = (seconds(3), seconds(3));
            let (slots, patience) = ("12".to_owned(), seconds(90));
            return Self { tasks, timeout: 1, eta_max, run_max, slots, patience };
        }
        let (eta_max, run_max) = (seconds(60), seconds(30));
        let (slots, patience) = ("60".to_owned(), seconds(900));
        Self { tasks, timeout: 4, eta_max, run_max, slots, patience }
    }
}

async fn send(client: &Client, plan: &Plan) -> BTreeSet<String> {
    let mut random = fastrand::Rng::with_seed(4);
    let mut millis = |most: Duration| random.u64(..most.as_millis() as u64);
    let calls: Vec<_> = (0..plan.tasks)
        .map(|_| {
            let eta = Duration::from_millis(millis(plan.eta_max));
            Call::named("ledger.work").arg(&millis(plan.run_max)).countdown(eta)
        })
        .collect();
    let jobs = client.send_all(calls).await.unwrap();
    jobs.iter().map(|job| job.id().to_owned()).collect()
}

/// The runs of each task: those of our nodes, and those of the stock worker.
fn runs<'a>(ledger: &'a [Line], ours: &BTreeSet<u32>) -> BTreeMap<&'a str, (usize, usize)> {
    let mut runs: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for line in ledger.iter().filter(|line| line.step == "start") {
        let (of_ours, of_stock) = runs.entry(&line.id).or_default();
        *(if ours.contains(&line.pid) { of_ours } else { of_stock }) += 1;
    }
    runs
}

async fn waits(redis: &Redis) -> (i64, i64) {
    let (list, held) = (redis.cli(&["LLEN", "celery"]), redis.cli(&["HLEN", "unacked"]));
    (list.await.int(), held.await.int())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_celeriac_takes_runs_once_beside_a_short_visibility_timeout() {
    // interop: queue.release queue.mixed-fleet
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let plan = Plan::from_env();
    let url = format!("{}?visibility_timeout={}", redis.url(), plan.timeout);
    let place = Place::at(&url);
    let client = app(&redis).client().await.unwrap();
    let ledger = place.path("ledger.txt");
    let (bare, timeout) = (redis.url(), plan.timeout.to_string());
    let environment =
        [("URL", bare.as_str()), ("TIMEOUT", &timeout), ("LEDGER", ledger.to_str().unwrap())];
    let proj = python.app(SOURCE, &environment);
    let mut stock = proj.worker("stock", &["-P", "threads", "-c", &plan.slots]).await;
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let slots = ["-c", plan.slots.as_str()];
        nodes.push(Worker::start(&place, client.store(), name, "2s", &slots).await);
    }
    let ours: BTreeSet<u32> = nodes.iter().map(|node| node.pid).collect();

    let sent = send(&client, &plan).await;
    until("half of it has begun", plan.patience, async || {
        let ledger = kit::ledger(&place);
        (runs(&ledger, &ours).len() * 2 >= plan.tasks).then_some(())
    })
    .await;
    let before = kit::ledger(&place);
    let received = stock.log();
    let (mut alone, mut shared) = (0, 0);
    for (id, (of_ours, of_stock)) in runs(&before, &ours) {
        assert!(of_ours <= 1, "{id} ran {of_ours} times in our nodes");
        if received.contains(id) {
            shared += usize::from(of_ours + of_stock > 1);
        } else {
            assert_eq!((of_ours, of_stock), (1, 0), "{id}: the stock worker never had it");
            alone += 1;
        }
    }
    println!("{alone} tasks were never with the stock worker: each ran once");
    println!("{shared} that it had run twice at least: Celery's visibility timeout");
    assert!(alone > 0, "inconclusive: our nodes took nothing");

    for node in &mut nodes {
        node.kill().await;
    }
    let mut release = kit::command(&kit::ledger_program(), place.dir());
    release.args(["-b", &url, "queue", "release", "--all"]);
    let ran = kit::Ran::new(&mut release).await.exits(0);
    println!("{}", ran.stdout.trim());
    for id in &sent {
        let record = client.store().wait_result(id, plan.patience).await.unwrap();
        let record = record.unwrap_or_else(|| panic!("{id} is lost"));
        assert_eq!(record.meta.state(), TaskState::Success, "{id}");
    }
    until("stock Celery has drained it all", plan.patience, async || {
        (waits(&redis).await == (0, 0)).then_some(())
    })
    .await;
    let by_stock = async |id: &String| {
        let record = client.store().result(id).await.unwrap().unwrap();
        usize::from(record.meta.result() == &Value::from("stock"))
    };
    let mut drained = 0;
    for id in &sent {
        drained += by_stock(id).await;
    }
    println!("{drained} of {} results are the stock worker's, 0 lost", sent.len());
    assert!(stock.terminate().await.success());
}
