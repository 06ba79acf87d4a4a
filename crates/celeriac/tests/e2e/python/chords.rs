//! Chords of Python tasks while their children are killed: each calls its body once, or its errback.
//!
//! `CELERIAC_CHORDS`, `CELERIAC_CHORD_KILLS` and `CELERIAC_SEED` change the run. A child that dies while it
//! sends a body keeps the claim of Celery 5.7 for half a minute, so that a run may take as long.

use super::Scene;
use super::kills::{children_of, kill};
use crate::kit::{PATIENCE, until};
use celeriac_testkit::{celery_or_skip, redis_or_skip};
use std::collections::{BTreeMap, BTreeSet};

/// Members of each.
const MEMBERS: u64 = 10;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chord_ends_once_whoever_is_killed() {
    let redis = redis_or_skip!();
    let python = celery_or_skip!();
    let number = |name: &str| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let chords = number("CELERIAC_CHORDS").unwrap_or(20);
    let kills = number("CELERIAC_CHORD_KILLS").unwrap_or(3);
    let seed = number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{chords} chords of {MEMBERS}, {kills} kills, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(redis, &python, APP);
    let mut worker = scene.worker("ours", &["-c", "3"]).await;
    let template = children_of(worker.pid())[0];
    let script =
        SEND.replace("CHORDS", &chords.to_string()).replace("MEMBERS", &MEMBERS.to_string());
    scene.app.script(&script).await;
    let ends = async || scene.redis.cli(&["LRANGE", "ends", "0", "-1"]).await.texts();
    for kill_number in 0..kills {
        // Spread over the whole of the work.
        let after = chords * kill_number / kills;
        let some = after + random.u64(0..2);
        until("chords end", PATIENCE, async || (ends().await.len() as u64 >= some).then_some(()))
            .await;
        let children = children_of(template);
        if let Some(child) = random.choice(children.iter()) {
            kill(*child);
        }
    }
    until("every chord ends", PATIENCE, async || {
        let ended: BTreeSet<String> = named(&ends().await).map(|(of, _)| of).collect();
        (ended.len() as u64 == chords).then_some(())
    })
    .await;
    // What would be an end too many has been sent by then, and is done when the worker has stopped.
    until("the queue is empty", PATIENCE, async || {
        let waiting = scene.redis.cli(&["LLEN", "celery"]).await.text();
        (waiting == "0").then_some(())
    })
    .await;
    assert!(worker.terminate().await.success(), "its log:\n{}", worker.log());
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (of, what) in named(&ends().await) {
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
