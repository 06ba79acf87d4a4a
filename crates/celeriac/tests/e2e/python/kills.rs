//! The worker of a Celery app is killed again and again, or its template, its steward, a child. Nothing may
//! be lost, nothing be left behind, and an early task runs twice only when its mark had not landed.
//!
//! `CELERIAC_PYTHON_KILLS` and `CELERIAC_SEED` change the run; the defaults are made for CI.

use super::Scene;
use crate::kit::{PATIENCE, until};
use celeriac::{App, Call, Client};
use celeriac_core::store::{DeadFilter, Page, Store};
use celeriac_testkit::services::python::CeleryWorker;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use celeriac_wire::State;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Runs take so long, in milliseconds.
const RUNS: std::ops::Range<u64> = 20..150;
/// Throughput is back after a kill within this time; a new worker loads Python and Celery first.
const BACK: Duration = Duration::from_secs(5);
/// A worker that has much to do writes a mark so late, in seconds.
const MARK_WINDOW: f64 = 0.3;
/// Tasks for each kill.
const TASKS: usize = 24;

const APP: &str = r"
import os, time
from celery import signals

@signals.worker_ready.connect
@signals.heartbeat_sent.connect
def sits(**_):
    app.backend.client.set('steward', os.getpid())

def note(task, what):
    app.backend.client.rpush('runs', f'{task.request.id} {what} {time.time()}')

@app.task(name='early', bind=True)
def early(self, millis):
    note(self, 'begins')
    time.sleep(millis / 1000)
    note(self, 'ends')
    return millis

@app.task(name='late', bind=True, acks_late=True, reject_on_worker_lost=True)
def late(self, millis):
    note(self, 'begins')
    time.sleep(millis / 1000)
    note(self, 'ends')
    return millis
";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Template,
    Child,
    Steward,
}

/// The processes whose parent is this one.
pub(super) fn children_of(parent: i32) -> Vec<i32> {
    let listed = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        fields.split(' ').nth(1).is_some_and(|field| field == parent.to_string())
    };
    pids.filter(is_child).collect()
}

pub(super) fn kill(pid: i32) {
    let _gone = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn is_there(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is gone; init reaps those whose parent was killed.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The state of one test.
struct Trial {
    scene: Scene,
    client: Client,
    random: fastrand::Rng,
    sent: BTreeMap<String, &'static str>,
    /// Between which times workers were killed, in seconds of Unix time.
    worker_kills: Vec<[f64; 2]>,
    longest: Duration,
}

impl Trial {
    async fn send(&mut self) {
        let calls = (0..TASKS).map(|n| {
            let name = ["early", "late"][n % 2];
            Call::<u64>::remote(name).arg(&self.random.u64(RUNS))
        });
        let jobs = self.client.send_all(calls.collect::<Vec<_>>()).await.unwrap();
        for (n, job) in jobs.iter().enumerate() {
            self.sent.insert(job.id().to_owned(), ["early", "late"][n % 2]);
        }
    }

    async fn ended(&self) -> usize {
        self.runs().await.iter().filter(|(_, what, _)| what == "ends").count()
    }

    /// Id, what and when, in the order in which Python wrote them.
    async fn runs(&self) -> Vec<(String, String, f64)> {
        let lines = self.scene.redis.cli(&["LRANGE", "runs", "0", "-1"]).await.texts();
        let parsed = lines.iter().map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let (id, what) = (words.next().unwrap(), words.next().unwrap());
            (id, what, words.next().unwrap().parse().unwrap())
        });
        parsed.collect()
    }

    /// The child that stands for Celery's main process.
    async fn steward(&self, template: i32) -> i32 {
        until("a steward", PATIENCE, async || {
            let pid = self.scene.redis.cli(&["GET", "steward"]).await.text().parse().ok()?;
            children_of(template).contains(&pid).then_some(pid)
        })
        .await
    }

    async fn now(&self) -> f64 {
        let time = self.scene.redis.cli(&["TIME"]).await.texts();
        time[0].parse::<f64>().unwrap() + time[1].parse::<f64>().unwrap() / 1e6
    }

    /// Kills somebody in the middle of the work; returns a worker that lives.
    async fn strike(
        &mut self,
        worker: CeleryWorker,
        victim: Victim,
        number: usize,
    ) -> CeleryWorker {
        self.send().await;
        let before = self.ended().await;
        let some = self.random.usize(1..6);
        until("it works", PATIENCE, async || (self.ended().await >= before + some).then_some(()))
            .await;
        let own = worker.pid();
        let template = children_of(own)[0];
        let children = children_of(template);
        let mut next = None;
        let begun = Instant::now();
        match victim {
            Victim::Worker => {
                let before = self.now().await;
                kill(own);
                self.worker_kills.push([before, self.now().await]);
                for pid in [template].into_iter().chain(children) {
                    until("no process is left", BACK, async || (!is_there(pid)).then_some(()))
                        .await;
                }
                next = Some(self.start(number).await);
            }
            Victim::Template => kill(template),
            Victim::Steward => kill(self.steward(template).await),
            Victim::Child => kill(children[self.random.usize(..children.len())]),
        }
        let after = self.ended().await;
        self.send().await;
        until("work goes on", PATIENCE, async || (self.ended().await > after).then_some(())).await;
        let took = begun.elapsed();
        println!("{victim:?}: work went on after {took:?}");
        self.longest = self.longest.max(took);
        next.unwrap_or(worker)
    }

    async fn start(&self, number: usize) -> CeleryWorker {
        self.scene.worker(&format!("w{number}"), &["-c", "2"]).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_process_lose_nothing() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let number = |name: &str| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let kills = number("CELERIAC_PYTHON_KILLS").unwrap_or(5) as usize;
    let seed = number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{kills} kills, seed {seed}");
    let scene = Scene::with(redis, &python, APP, &[("CELERIAC_LEASE_EXPIRY", "1s")]);
    let client = App::at(&scene.redis.url()).unwrap().client().await.unwrap();
    let mut trial = Trial {
        scene,
        client,
        random: fastrand::Rng::with_seed(seed),
        sent: BTreeMap::new(),
        worker_kills: Vec::new(),
        longest: Duration::ZERO,
    };
    let mut worker = trial.start(0).await;
    for n in 0..kills {
        let victim =
            [Victim::Child, Victim::Worker, Victim::Steward, Victim::Child, Victim::Template]
                [n % 5];
        worker = trial.strike(worker, victim, n + 1).await;
    }
    everything_has_an_end(&trial, &**trial.client.store()).await;
    println!("{} tasks; longest way back {:?}", trial.sent.len(), trial.longest);
    assert!(trial.longest < BACK, "work came back after {:?}", trial.longest);
    drop(worker);
}

async fn everything_has_an_end(trial: &Trial, store: &dyn Store) {
    let mut failed = BTreeSet::new();
    for id in trial.sent.keys() {
        let ready = store.wait_result(id, PATIENCE).await.unwrap();
        let record = ready.unwrap_or_else(|| panic!("{id} is lost"));
        match record.meta.state() {
            State::Success => {}
            State::Failure => drop(failed.insert(id.clone())),
            other => panic!("{id} is {other:?}"),
        }
    }
    // A failure is a dead letter, and the other way round. The app hears of it first, and a worker that
    // dies in between leaves the letter to the next.
    let dead = until("each failure is a dead letter", PATIENCE, async || {
        let page = Page { after: 0, count_max: 10_000 };
        let letters = store.dead_list(&DeadFilter::default(), page).await.unwrap();
        let named = letters
            .iter()
            .map(|one| (one.message.headers.id().unwrap().to_owned(), one.reason.as_str()));
        let dead: BTreeMap<String, &str> = named.collect();
        (failed == dead.keys().cloned().collect::<BTreeSet<_>>()).then_some(dead)
    })
    .await;
    for (id, reason) in &dead {
        let expected: &[&str] =
            if trial.sent[id] == "early" { &["worker-lost"] } else { &["poison"] };
        assert!(expected.contains(reason), "{id}, {}: {reason}", trial.sent[id]);
    }
    let mut begins: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (id, what, at) in trial.runs().await {
        if what == "begins" {
            begins.entry(id).or_default().push(at);
        }
    }
    let mut doubled = 0;
    for (id, times) in &begins {
        if trial.sent[id] == "late" || times.len() == 1 {
            continue;
        }
        doubled += 1;
        let excused = times[..times.len() - 1].iter().all(|began| {
            let hit = |[from, to]: &[f64; 2]| (from - MARK_WINDOW..*to).contains(began);
            trial.worker_kills.iter().any(hit)
        });
        assert!(excused, "{id} is early and ran at {times:?}; kills {:?}", trial.worker_kills);
    }
    println!("{} dead letters, {doubled} early tasks ran twice", dead.len());
}
