//! Chords whose members, bodies and errbacks run in workers of all kinds, which are killed: each chord
//! calls its body once, or its errback.
//!
//! A native worker and one with Python children share the queue, and are killed: children, and the native
//! worker. `CELERIAC_CHORDS`, `CELERIAC_CHORD_MEMBERS`, `CELERIAC_CHORD_KILLS` (of children) and
//! `CELERIAC_SEED` change the run. With `CELERIAC_CHORD_WORKER_KILLS` another worker with children of
//! Celery 5.4 and stock workers of Celery 5.7 and 5.6 join, and workers of ours are killed with all their
//! children so often, and replaced. A child that dies while it sends a body keeps the claim of Celery 5.7 for
//! half a minute, so that a run may take as long.

use super::kills::{children_of, kill};
use crate::kit::{self, PATIENCE, until};
use celeriac_testkit::process::Process;
use celeriac_testkit::services::python::{App as Celery, CeleryWorker, Python};
use celeriac_testkit::services::redis::Redis;
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The tasks; those of `crates/celeriac/examples/canvas.rs` have the same names and do the same.
const APP: &str = r"
import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

def note(number, what, id, who='-'):
    with open(os.environ['ENDS'], 'ab', buffering=0) as ends:
        ends.write(f'{number} {what} {id} {who}\n'.encode())

@app.task(name='late', acks_late=True, reject_on_worker_lost=True)
def late(number):
    time.sleep(0.01)
    return number

@app.task(name='early')
def early(number):
    time.sleep(0.01)
    return number

@app.task(name='body', bind=True)
def body(self, numbers, *, number):
    what = 'body' if sorted(numbers) == list(range(len(numbers))) else 'wrong'
    note(number, what, self.request.id, self.request.hostname)

@app.task(name='errback')
def errback(id, *, number):
    note(number, 'errback', id)
";

/// What the children do not read: it is sent by somebody else.
const SEND: &str = r"
import sys
from proj import *
from celery import chord
chords, members = CHORDS, MEMBERS
for number in range(chords):
    # Of early members a killed one is lost, which the errback hears of.
    task = early if number % 3 == 0 else late
    header = [task.s(n) for n in range(members)]
    chord(header)(body.s(number=number).on_error(errback.s(number=number)))
";

/// How a body failed.
const LOST: &str = r"
from proj import *
print(type(app.AsyncResult('ID').result).__name__)
";

/// Slots of each worker of ours.
const SLOTS: &str = "3";

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// A worker that may be killed.
enum Ours {
    /// With children of a Celery.
    Python(String, CeleryWorker),
    Native(Process),
}

impl Ours {
    async fn terminate(&mut self) {
        match self {
            Self::Python(_, worker) => {
                assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
            }
            Self::Native(process) => {
                process.signal(Signal::TERM);
                let ended = process.ended_within(PATIENCE).await;
                assert!(ended.success(), "its log:\n{}", process.log());
            }
        }
    }
}

/// One end of a chord, as a task has noted it.
struct End {
    chord: String,
    what: String,
    id: String,
    /// The worker that ran it; of an errback nobody.
    who: String,
}

/// All workers of the queue.
struct Fleet {
    redis: Redis,
    folder: TempDir,
    /// The same app for each Celery.
    apps: BTreeMap<String, Celery>,
    ours: Vec<Ours>,
    random: fastrand::Rng,
    started: usize,
    /// Children that were there to be killed.
    killed: usize,
}

impl Fleet {
    fn new(redis: Redis, pythons: &[Python], seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let mut fleet = Self {
            redis,
            folder,
            apps: BTreeMap::new(),
            ours: Vec::new(),
            random,
            started: 0,
            killed: 0,
        };
        for python in pythons {
            let (url, ends) = (fleet.redis.url(), fleet.ends_file());
            let environment = [("URL", url.as_str()), ("ENDS", ends.to_str().unwrap())];
            fleet.apps.insert(python.version.clone(), python.app(APP, &environment));
        }
        fleet
    }

    fn ends_file(&self) -> PathBuf {
        self.folder.path().join("ends.txt")
    }

    /// The app of the newest Celery.
    fn app(&self) -> &Celery {
        self.apps.values().next_back().unwrap()
    }

    async fn with_children(&mut self, version: &str) -> Ours {
        self.started += 1;
        let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
        let name = format!("ours{}", self.started);
        let worker = self.apps[version].worker_of(program, &name, &["-c", SLOTS]).await;
        Ours::Python(version.to_owned(), worker)
    }

    async fn native(&mut self) -> Ours {
        self.started += 1;
        let mut command = kit::command(&kit::example("canvas"), self.folder.path());
        let name = format!("native{}@test", self.started);
        command.env("ENDS", self.ends_file()).env("CELERIAC_LEASE_EXPIRY", "2s").env("NODE", &name);
        command.args(["-b", &self.redis.url(), "worker", "-n", &name, "-c", SLOTS, "-l", "INFO"]);
        let log = self.folder.path().join(format!("{name}.log"));
        let process = Process::spawn(&mut command, log);
        until("the native worker is ready", PATIENCE, async || {
            process.log().contains("ready").then_some(())
        })
        .await;
        Ours::Native(process)
    }

    fn kill_child(&mut self) {
        let python = self.ours.iter().filter_map(|one| match one {
            Ours::Python(_, worker) => Some(worker.pid()),
            Ours::Native(_) => None,
        });
        let Some(pid) = self.random.choice(python.collect::<Vec<_>>()) else { return };
        let Some(template) = children_of(pid).first().copied() else { return };
        if let Some(child) = self.random.choice(children_of(template)) {
            kill(child);
            self.killed += 1;
        }
    }

    async fn kill_worker(&mut self, index: usize) {
        let again = match &mut self.ours[index] {
            Ours::Python(version, worker) => {
                worker.kill9().await;
                Some(version.clone())
            }
            Ours::Native(process) => {
                process.kill().await;
                None
            }
        };
        self.ours[index] = match again {
            Some(version) => self.with_children(&version).await,
            None => self.native().await,
        };
    }

    fn ends(&self) -> Vec<End> {
        let text = std::fs::read_to_string(self.ends_file()).unwrap_or_default();
        let end = |line: &str| {
            let words: [&str; 4] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let [chord, what, id, who] = words.map(str::to_owned);
            Some(End { chord, what, id, who })
        };
        text.lines().filter_map(end).collect()
    }

    /// Waits until so many ends were noted.
    async fn has(&self, count: u64) {
        let enough = async || (self.ends().len() as u64 >= count).then_some(());
        until("chords end", 2 * PATIENCE, enough).await;
    }

    /// Kills children and workers, spread over the whole of the work.
    async fn strike(&mut self, chords: u64, kills: u64, worker_kills: u64) {
        let strikes = kills + worker_kills;
        for strike in 0..strikes {
            let some = chords * strike / strikes + self.random.u64(0..2);
            self.has(some).await;
            if (strike + 1) * worker_kills / strikes > strike * worker_kills / strikes {
                let index = self.random.usize(..self.ours.len());
                self.kill_worker(index).await;
            } else {
                self.kill_child();
            }
        }
    }

    /// Waits until every chord has ended and nothing waits.
    async fn settle(&self, chords: u64) {
        until("every chord ends", 2 * PATIENCE, async || {
            let ended: BTreeSet<String> = self.ends().into_iter().map(|end| end.chord).collect();
            (ended.len() as u64 == chords).then_some(())
        })
        .await;
        // What would be an end too many has been sent by then, and is done when the workers have stopped.
        until("the queue is empty", PATIENCE, async || {
            let waiting = self.redis.cli(&["LLEN", "celery"]).await.text();
            (waiting == "0").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chord_ends_once_whoever_is_killed() {
    let redis = redis_or_skip!();
    let mut pythons = vec![celery_or_skip!()];
    let chords = number("CELERIAC_CHORDS").unwrap_or(20);
    let members = number("CELERIAC_CHORD_MEMBERS").unwrap_or(10);
    let kills = number("CELERIAC_CHORD_KILLS").unwrap_or(3);
    let whole = number("CELERIAC_CHORD_WORKER_KILLS");
    let worker_kills = whole.unwrap_or(1);
    let seed = number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{chords} chords of {members}, {kills} + {worker_kills} kills, seed {seed}");
    if whole.is_some() {
        pythons.extend([celery_or_skip!("5.6"), celery_or_skip!("5.4")]);
    }
    let mut fleet = Fleet::new(redis, &pythons, seed);
    let native = fleet.native().await;
    let newest = fleet.with_children("5.7").await;
    fleet.ours.extend([native, newest]);
    let mut stock = Vec::new();
    if whole.is_some() {
        let oldest = fleet.with_children("5.4").await;
        fleet.ours.push(oldest);
        for version in ["5.7", "5.6"] {
            let name = format!("stock{version}");
            stock.push(fleet.apps[version].worker(&name, &["-c", "1"]).await);
        }
    }
    let script =
        SEND.replace("CHORDS", &chords.to_string()).replace("MEMBERS", &members.to_string());
    fleet.app().script(&script).await;
    if whole.is_some() {
        fleet.strike(chords, kills, worker_kills).await;
    } else {
        fleet.has(1).await;
        fleet.kill_worker(0).await;
        fleet.strike(chords, kills, 0).await;
    }
    fleet.settle(chords).await;
    for worker in &mut fleet.ours {
        worker.terminate().await;
    }
    for worker in &mut stock {
        assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
    }
    check(&fleet, worker_kills).await;
}

/// Each chord has called its body once, or its errback.
async fn check(fleet: &Fleet, worker_kills: u64) {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut ids, mut bodies_of) = (BTreeMap::new(), BTreeMap::<String, u64>::new());
    for end in fleet.ends() {
        if end.what == "body" {
            *bodies_of.entry(end.who).or_default() += 1;
        }
        ids.insert(end.chord.clone(), end.id);
        all.entry(end.chord).or_default().push(end.what);
    }
    let bodies = all.values().filter(|ends| **ends == ["body"]).count();
    let errbacks = all.values().filter(|ends| **ends == ["errback"]).count();
    println!("{bodies} bodies, {errbacks} errbacks; {} children were killed", fleet.killed);
    println!("bodies of each worker: {bodies_of:?}");
    // A body whose child was killed once it had done its work has failed all the same.
    for (of, ends) in &mut all {
        // Celery calls an errback that takes the error where it is told of it: when that process is killed,
        // it has perhaps called it, and the errback is called again.
        ends.dedup_by(|next, one| next == "errback" && one == "errback");
        if *ends == ["body", "errback"] {
            // The errback was told whose error it is.
            let script = LOST.replace("ID", &ids[of]);
            assert_eq!(fleet.app().script(&script).await, "WorkerLostError\n", "chord {of}");
            ends.pop();
        }
    }
    // A task that is acknowledged early runs again when its worker dies before that is written.
    let twice = all.values().filter(|ends| **ends == ["body", "body"]).count() as u64;
    println!("{twice} bodies ran twice");
    let slots: u64 = SLOTS.parse().unwrap();
    assert!(twice <= worker_kills * slots, "{all:?}");
    all.retain(|_, ends| *ends != ["body", "body"]);
    let one = |ends: &Vec<String>| *ends == ["body"] || *ends == ["errback"];
    all.retain(|_, ends| !one(ends));
    assert_eq!(all, BTreeMap::new(), "{bodies} bodies, {errbacks} errbacks");
    assert!(bodies > 0);
}

const PURGED: &str = "
from celery import chord
@app.task
def double(x): return 2 * x
@app.task
def total(values): return sum(values)
@app.task
def told(failed): app.backend.client.set('told', failed)
";

/// Celery waits for ever for a member that was purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_whose_member_was_purged_fails() {
    let (redis, python) = (redis_or_skip!(), celery_or_skip!());
    let scene = super::Scene::with(redis, &python, PURGED, &[("CELERIAC_CHORD_EXPIRES", "1s")]);
    let worker = scene.worker("ours", &["-c", "2", "-Q", "celery"]).await;
    let said = scene
        .app
        .script(
            "import time\nfrom proj import *\n\
             members = [double.s(1), double.s(2).set(queue='nobody'), double.s(3)]\n\
             body = chord(members)(total.s().on_error(told.s()))\n\
             assert app.backend.client.delete('nobody') == 1\n\
             print(type(body.get(timeout=25, propagate=False)).__name__)\n\
             end = time.time() + 20\n\
             while not app.backend.client.get('told') and time.time() < end: time.sleep(0.01)\n\
             print(app.backend.client.get('told').decode() == body.id, body.result)\n",
        )
        .await;
    let expected = "ChordError\nTrue Dependency member 1 raised MemberLost(";
    assert!(said.starts_with(expected), "{said}\nits log:\n{}", worker.log());
}
