//! A worker is killed again and again under load. Nothing that was confirmed may be lost, and what
//! ran comes back within the time that the delivery contract states.
//!
//! `CELERIAC_KILLS`, `CELERIAC_LEASE` (seconds) and `CELERIAC_SEED` change the run; the defaults
//! are made for CI.

use crate::kit::{self, Line, PATIENCE, Place, Worker};
use celeriac::{Call, Client};
use celeriac_core::dead::{DeadLetter, DeadReason};
use celeriac_core::lease::{POISON_AFTER, SUSPECT_AFTER};
use celeriac_core::store::{DeadFilter, Store};
use celeriac_wire::{State, from_value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Messages that wait are kept at about so many, so that every kill finds a busy worker.
const BACKLOG: u64 = 40;
/// No task runs longer.
const LONGEST_TASK: Duration = Duration::from_millis(200);
/// Slots of a worker.
const SLOTS: &str = "8";

struct Plan {
    kills: usize,
    lease: Duration,
    seed: u64,
}

impl Plan {
    fn from_env() -> Self {
        let number = |name: &str| {
            std::env::var_os(name)?.to_str()?.trim_end_matches('s').parse::<u64>().ok()
        };
        Self {
            kills: number("CELERIAC_KILLS").unwrap_or(16) as usize,
            lease: Duration::from_secs(number("CELERIAC_LEASE").unwrap_or(1)),
            seed: number("CELERIAC_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32)),
        }
    }

    /// The longest that a killed task may wait for its next run: lease and heartbeat. Short leases
    /// get three seconds for starting a process on a busy machine; the promise of ten seconds is
    /// tested by hand, with the default lease and no slack.
    fn recovery_max(&self) -> Duration {
        let slack = if self.lease < Duration::from_secs(8) {
            Duration::from_secs(3)
        } else {
            Duration::ZERO
        };
        self.lease * 5 / 4 + slack
    }
}

struct Kill {
    pid: u32,
    /// When, in the ledger's microseconds.
    at: i64,
}

/// What a run left behind.
struct Evidence {
    confirmed: Vec<String>,
    kills: Vec<Kill>,
    names: BTreeMap<u32, String>,
    ledger: Vec<Line>,
    poisoned: BTreeMap<String, usize>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_work_comes_back_in_time() {
    // covers: S3-06, S5-05
    let plan = Plan::from_env();
    println!("{} kills, lease {:?}, seed {}", plan.kills, plan.lease, plan.seed);
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(client.clone(), plan.seed, Arc::clone(&enough)));

    let (kills, names) = kill_again_and_again(&place, client.store(), &plan).await;
    enough.store(true, Ordering::Release);
    let confirmed = producer.await.unwrap();
    let name = format!("w{}", plan.kills + 1);
    let lease = format!("{}s", plan.lease.as_secs());
    let mut last = Worker::start(&place, client.store(), &name, &lease, &["-c", SLOTS]).await;
    let names = names.into_iter().chain([(last.pid, name)]).collect();
    for id in &confirmed {
        let ready = client.store().wait_result(id, PATIENCE).await.unwrap();
        assert!(ready.is_some_and(|record| record.meta.state().is_ready()), "{id} is lost");
    }
    last.signal(rustix::process::Signal::TERM);
    assert!(last.ended().await.success());
    let poisoned = poisoned(&**client.store()).await;
    let ledger = kit::ledger(&place);
    let evidence = Evidence { confirmed, kills, names, ledger, poisoned };

    every_result_is_that_of_the_last_run(&evidence, &**client.store()).await;
    only_killed_runs_are_repeated(&evidence);
    nothing_is_left(&**client.store()).await;
    let hits = work_came_back_in_time(&evidence, &plan);
    println!("{} tasks, {hits} of {} kills hit running work", evidence.confirmed.len(), plan.kills);
    assert!(hits * 2 >= plan.kills, "inconclusive: too few kills hit running work");
}

/// Sends tasks of random length and returns the ids that the store confirmed.
pub(super) async fn produce(client: Client, seed: u64, enough: Arc<AtomicBool>) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut confirmed = Vec::new();
    while !enough.load(Ordering::Acquire) {
        pace.tick().await;
        let ready: u64 =
            client.store().queues().await.unwrap().iter().map(|queue| queue.ready).sum();
        if ready < BACKLOG {
            let calls: Vec<_> =
                (0..16).map(|_| Call::named("ledger.work").arg(&random.u64(20..200))).collect();
            let jobs = client.send_all(calls).await.unwrap();
            confirmed.extend(jobs.iter().map(|job| job.id().to_owned()));
        }
    }
    confirmed
}

async fn kill_again_and_again(
    place: &Place,
    store: &Arc<dyn Store>,
    plan: &Plan,
) -> (Vec<Kill>, BTreeMap<u32, String>) {
    let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x6b69_6c6c);
    let lease = format!("{}s", plan.lease.as_secs());
    let clock = place.app().client().await.unwrap();
    let (mut kills, mut names): (Vec<Kill>, _) = (Vec::new(), BTreeMap::new());
    // What these kills hit is back.
    let mut settled = 0;
    for number in 1..=plan.kills {
        let name = format!("w{number}");
        let mut worker = Worker::start(place, store, &name, &lease, &["-c", SLOTS]).await;
        // One kill in four comes before the work of the worker before is back.
        if random.u8(..4) > 0 {
            let dead: BTreeSet<u32> = kills.iter().map(|kill| kill.pid).collect();
            let fresh: BTreeSet<u32> = kills[settled..].iter().map(|kill| kill.pid).collect();
            kit::until(
                "the work of the killed worker is back",
                plan.recovery_max() * 2,
                async || {
                    let ledger = kit::ledger(place);
                    let away = still_away(&ledger, &fresh, &dead);
                    let poisoned = poisoned(&**store).await;
                    away.iter().all(|id| poisoned.contains_key(*id)).then_some(())
                },
            )
            .await;
            settled = kills.len();
        }
        kit::pass(Duration::from_millis(random.u64(50..600))).await;
        kills.push(Kill { pid: worker.pid, at: clock.now().as_microsecond() });
        names.insert(worker.pid, name);
        worker.kill().await;
    }
    (kills, names)
}

/// Tasks that chance has killed five times, with the deaths in their history: twice with their worker,
/// and three times as its only suspect, which is what makes a message poison.
async fn poisoned(store: &dyn Store) -> BTreeMap<String, usize> {
    let letters = store.dead_list(&DeadFilter::default(), kit::ALL).await.unwrap();
    let of = |letter: &DeadLetter| {
        assert_eq!(letter.reason, DeadReason::Poison, "{letter:?}");
        let deaths = letter.history.iter().filter(|one| one.outcome == "worker-lost").count();
        (letter.message.headers.id().unwrap().to_owned(), deaths)
    };
    letters.iter().map(of).collect()
}

/// What a process began and did not end.
fn victims(ledger: &[Line], pid: u32) -> impl Iterator<Item = &str> {
    let of = move |step: &'static str| {
        ledger
            .iter()
            .filter(move |line| line.pid == pid && line.step == step)
            .map(|line| line.id.as_str())
    };
    let ended: BTreeSet<&str> = of("end").collect();
    of("start").filter(move |id| !ended.contains(id))
}

/// What processes of `fresh` began, and nobody ended or began again outside of the dead. One look at
/// each line: the ledger of a long run is long.
fn still_away<'a>(
    ledger: &'a [Line],
    fresh: &BTreeSet<u32>,
    dead: &BTreeSet<u32>,
) -> BTreeSet<&'a str> {
    let mut away = BTreeSet::new();
    for line in ledger {
        let (id, ends) = (line.id.as_str(), line.step == "end");
        if ends || !dead.contains(&line.pid) {
            away.remove(id);
        } else if fresh.contains(&line.pid) && line.step == "start" {
            away.insert(id);
        }
    }
    away
}

/// I1, I4, I6: every confirmed task succeeded, and its result is from the last owner, which is the
/// one that reached its end.
async fn every_result_is_that_of_the_last_run(evidence: &Evidence, store: &dyn Store) {
    println!("{} tasks were hit so often that they are poison", evidence.poisoned.len());
    for id in &evidence.confirmed {
        let record = store.result(id).await.unwrap().unwrap();
        if let Some(deaths) = evidence.poisoned.get(id) {
            assert!(*deaths as u32 >= SUSPECT_AFTER + POISON_AFTER, "{id}: {deaths} deaths");
            assert_eq!(record.meta.state(), State::Failure, "{id}");
            continue;
        }
        assert_eq!(record.meta.state(), State::Success, "{id}");
        let lines = || evidence.ledger.iter().filter(|line| line.id == *id);
        let last = lines().rfind(|line| line.step == "start").unwrap().pid;
        let by: u32 = from_value(record.meta.result().clone()).unwrap();
        assert_eq!(by, last, "{id} has the result of an earlier owner");
        assert!(lines().any(|line| line.step == "end" && line.pid == by), "{id} has not ended");
        let node = record.worker.unwrap();
        assert!(node.starts_with(&format!("{}@", evidence.names[&by])), "{id}: {node}");
    }
}

/// I2: a task runs once, and once more for each kill of a process that had it.
fn only_killed_runs_are_repeated(evidence: &Evidence) {
    let killed: BTreeSet<u32> = evidence.kills.iter().map(|kill| kill.pid).collect();
    let mut runs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for line in evidence.ledger.iter().filter(|line| line.step == "start") {
        runs.entry(&line.id).or_default().push(line.pid);
    }
    for (id, pids) in runs {
        let different: BTreeSet<u32> = pids.iter().copied().collect();
        assert_eq!(different.len(), pids.len(), "{id} ran twice in one process: {pids:?}");
        let (_, earlier) = pids.split_last().unwrap();
        assert!(earlier.iter().all(|pid| killed.contains(pid)), "{id} ran again: {pids:?}");
    }
}

/// I5: nothing waits, nothing is held.
async fn nothing_is_left(store: &dyn Store) {
    for queue in store.queues().await.unwrap() {
        assert_eq!((queue.ready, queue.scheduled, queue.leased), (0, 0, 0), "{queue:?}");
    }
}

/// What happened to a task, and every kill, in seconds since its first run began.
fn story(evidence: &Evidence, id: &str) -> String {
    let lines = || evidence.ledger.iter().filter(|line| line.id == id);
    let begin = lines().map(|line| line.micros).min().unwrap_or_default();
    let name = |pid: u32| evidence.names.get(&pid).map_or("?", String::as_str);
    let mut story: Vec<(i64, String)> = lines()
        .map(|line| (line.micros, format!("{} in {}", line.step, name(line.pid))))
        .chain(evidence.kills.iter().map(|kill| (kill.at, format!("kill of {}", name(kill.pid)))))
        .collect();
    story.sort();
    let seconds = |micros: i64| (micros - begin) as f64 / 1e6;
    let line = |(at, what): &(i64, String)| format!("{:9.3} s  {what}", seconds(*at));
    story.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// I3: a task that a kill hit begins again in time. Returns how many kills hit something.
///
/// Suspects run one at a time, so each of them may also have to wait for all others.
fn work_came_back_in_time(evidence: &Evidence, plan: &Plan) -> usize {
    let mut hits = 0;
    let mut suspects: BTreeSet<&str> = BTreeSet::new();
    let (mut longest, mut longest_suspect) = (Duration::ZERO, Duration::ZERO);
    for kill in &evidence.kills {
        let hit: BTreeSet<&str> = victims(&evidence.ledger, kill.pid).collect();
        hits += usize::from(!hit.is_empty());
        for id in hit {
            let again = evidence
                .ledger
                .iter()
                .find(|line| line.id == id && line.step == "start" && line.micros > kill.at);
            let Some(again) = again else {
                assert!(evidence.poisoned.contains_key(id), "{id} did not come back");
                continue;
            };
            // A kill of the next worker before it could help starts the clock anew.
            let last = evidence.kills.iter().rfind(|kill| kill.at < again.micros).unwrap();
            let took = Duration::from_micros((again.micros - last.at).unsigned_abs());
            // The ledger alone does not tell: a worker may die between its mark and the first line.
            if again.deaths >= SUSPECT_AFTER {
                suspects.insert(id);
                longest_suspect = longest_suspect.max(took);
                let allowed = plan.recovery_max() + LONGEST_TASK * 2 * suspects.len() as u32;
                assert!(took <= allowed, "suspect {id}: {took:?}, at most {allowed:?}");
            } else {
                longest = longest.max(took);
                let story = || story(evidence, id);
                assert!(took <= plan.recovery_max(), "{id}: {took:?}\n{}", story());
            }
        }
    }
    let allowed = plan.recovery_max();
    println!("longest way back: {longest:?} of {allowed:?}; of a suspect: {longest_suspect:?}");
    hits
}
