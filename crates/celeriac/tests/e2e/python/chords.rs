//! Chords of Python tasks while their children are killed: each calls its body once, or its errback.
//!
//! `CELERIAC_CHORDS`, `CELERIAC_CHORD_MEMBERS`, `CELERIAC_CHORD_KILLS` (of children) and `CELERIAC_SEED`
//! change the run. With `CELERIAC_CHORD_WORKER_KILLS` two workers and one of Celery's share the queue, and
//! one of the two is killed with its children so often, and replaced. A child that dies while it sends a
//! body keeps the claim of Celery 5.7 for half a minute, so that a run may take as long.

use super::Scene;
use super::kills::{children_of, kill};
use crate::kit::{PATIENCE, until};
use celeriac_testkit::services::python::CeleryWorker;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::collections::{BTreeMap, BTreeSet};

const APP: &str = r"
import time
from celery import chord

def note(what, number):
    app.backend.client.rpush('ends', f'{number} {what}')

@app.task(name='late', acks_late=True, reject_on_worker_lost=True)
def late(number):
    time.sleep(0.01)
    return number

@app.task(name='early')
def early(number):
    time.sleep(0.01)
    return number

@app.task(name='body', bind=True)
def body(self, numbers, number):
    app.backend.client.set(f'body-{number}', self.request.id)
    note('body' if sorted(numbers) == list(range(len(numbers))) else f'wrong {numbers}', number)

@app.task(name='errback')
def errback(request, error, traceback, number):
    note('errback', number)
";

/// What the children do not read: it is sent by somebody else.
const SEND: &str = r"
import sys
from proj import *
chords, members = CHORDS, MEMBERS
for number in range(chords):
    # Of early members a killed one is lost, which the errback hears of.
    task = early if number % 3 == 0 else late
    header = [task.s(n) for n in range(members)]
    chord(header)(body.s(number).on_error(errback.s(number)))
";

/// How a body failed.
const LOST: &str = r"
from proj import *
id = app.backend.client.get('body-NUMBER').decode()
print(type(app.AsyncResult(id).result).__name__)
";

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// The workers that may be killed.
struct Fleet {
    scene: Scene,
    ours: Vec<CeleryWorker>,
    random: fastrand::Rng,
}

impl Fleet {
    async fn worker(&self, name: &str) -> CeleryWorker {
        self.scene.worker(name, &["-c", "3"]).await
    }

    fn kill_child(&mut self) {
        let worker = self.random.choice(&self.ours).unwrap();
        let Some(template) = children_of(worker.pid()).first().copied() else { return };
        if let Some(child) = self.random.choice(children_of(template)) {
            kill(child);
        }
    }

    async fn kill_worker(&mut self) {
        let index = self.random.usize(..self.ours.len());
        self.ours[index].kill9().await;
        let name = format!("ours{index}");
        self.ours[index] = self.worker(&name).await;
    }

    async fn ends(&self) -> Vec<String> {
        self.scene.redis.cli(&["LRANGE", "ends", "0", "-1"]).await.texts()
    }

    /// Waits until so many ends were noted.
    async fn has(&self, count: u64) {
        let enough = async || (self.ends().await.len() as u64 >= count).then_some(());
        until("chords end", 2 * PATIENCE, enough).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chord_ends_once_whoever_is_killed() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let chords = number("CELERIAC_CHORDS").unwrap_or(20);
    let members = number("CELERIAC_CHORD_MEMBERS").unwrap_or(10);
    let kills = number("CELERIAC_CHORD_KILLS").unwrap_or(3);
    let worker_kills = number("CELERIAC_CHORD_WORKER_KILLS").unwrap_or(0);
    let seed = number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{chords} chords of {members}, {kills} + {worker_kills} kills, seed {seed}");
    let random = fastrand::Rng::with_seed(seed);
    let mut fleet = Fleet { scene: Scene::new(redis, &python, APP), ours: Vec::new(), random };
    fleet.ours.push(fleet.worker("ours0").await);
    let mut stock = None;
    if worker_kills > 0 {
        fleet.ours.push(fleet.worker("ours1").await);
        stock = Some(fleet.scene.app.worker("stock", &["-c", "1"]).await);
    }
    let script =
        SEND.replace("CHORDS", &chords.to_string()).replace("MEMBERS", &members.to_string());
    fleet.scene.app.script(&script).await;
    // Spread over the whole of the work.
    let strikes = kills + worker_kills;
    for strike in 0..strikes {
        let some = chords * strike / strikes + fleet.random.u64(0..2);
        fleet.has(some).await;
        if (strike + 1) * worker_kills / strikes > strike * worker_kills / strikes {
            fleet.kill_worker().await;
        } else {
            fleet.kill_child();
        }
    }
    until("every chord ends", 2 * PATIENCE, async || {
        let ended: BTreeSet<String> = named(&fleet.ends().await).map(|(of, _)| of).collect();
        (ended.len() as u64 == chords).then_some(())
    })
    .await;
    // What would be an end too many has been sent by then, and is done when the workers have stopped.
    until("the queue is empty", PATIENCE, async || {
        let waiting = fleet.scene.redis.cli(&["LLEN", "celery"]).await.text();
        (waiting == "0").then_some(())
    })
    .await;
    let workers = fleet.ours.iter_mut().chain(stock.as_mut());
    for worker in workers {
        assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
    }
    let scene = &fleet.scene;
    let ended = fleet.ends().await;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (of, what) in named(&ended) {
        all.entry(of).or_default().push(what);
    }
    let bodies = all.values().filter(|ends| **ends == ["body"]).count();
    let errbacks = all.values().filter(|ends| **ends == ["errback"]).count();
    println!("{bodies} bodies, {errbacks} errbacks");
    // A body whose child was killed once it had done its work has failed all the same.
    for (of, ends) in &mut all {
        // Celery calls an errback that takes the error where it is told of it: when that process is killed,
        // it has perhaps called it, and the errback is called again.
        ends.dedup_by(|next, one| next == "errback" && one == "errback");
        if *ends == ["body", "errback"] {
            let script = LOST.replace("NUMBER", of);
            assert_eq!(scene.app.script(&script).await, "WorkerLostError\n", "chord {of}");
            ends.pop();
        }
    }
    // A task that is acknowledged early runs again when its worker dies before that is written.
    let twice = all.values().filter(|ends| **ends == ["body", "body"]).count() as u64;
    println!("{twice} bodies ran twice");
    assert!(twice <= worker_kills, "{all:?}");
    all.retain(|_, ends| *ends != ["body", "body"]);
    let one = |ends: &Vec<String>| *ends == ["body"] || *ends == ["errback"];
    all.retain(|_, ends| !one(ends));
    assert_eq!(all, BTreeMap::new(), "{bodies} bodies, {errbacks} errbacks");
    assert!(bodies > 0);
}

/// Which chord, and how it ended.
fn named(ends: &[String]) -> impl Iterator<Item = (String, String)> {
    ends.iter().filter_map(|line| {
        let (of, what) = line.split_once(' ')?;
        Some((of.to_owned(), what.to_owned()))
    })
}
