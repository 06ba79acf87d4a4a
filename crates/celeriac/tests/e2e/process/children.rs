//! P6: children of the process pool are killed and stopped under load, again and again.
//!
//! `CELERIAC_CHILD_KILLS` and `CELERIAC_SEED` change the run; the defaults are made for CI.

use super::kills::produce;
use crate::kit::{self, PATIENCE, Place, Worker};
use celeriac_core::Clock as _;
use celeriac_core::clock::between;
use celeriac_core::dead::DeadReason;
use celeriac_core::store::{DeadFilter, Phase, Store, TaskFilter};
use celeriac_runtime::SystemClock;
use celeriac_wire::State;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The hard limit of every task.
const LIMIT: Duration = Duration::from_secs(3);
/// No task may be held for longer than its limit and this.
const SLACK: Duration = Duration::from_secs(5);
/// Throughput is back within this time after a kill.
const BACK: Duration = Duration::from_secs(5);

/// The living children of a process.
fn children(parent: u32) -> Vec<u32> {
    let pid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let of_parent = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc_pid_stat(5): after the name in brackets come the state and the parent.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest).trim();
        let mut fields = rest.split_whitespace();
        let alive = fields.next().is_some_and(|state| state != "Z");
        alive && fields.next() == Some(parent.to_string().as_str())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(pid).filter(of_parent).collect()
}

fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself a moment before.
    let _gone = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_are_killed_and_stopped_and_nothing_sticks() {
    // covers: S5-06
    let number = |name: &str, default: u64| {
        std::env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
    };
    let kills = number("CELERIAC_CHILD_KILLS", 20);
    let seed = number("CELERIAC_SEED", fastrand::u64(..1 << 32));
    println!("{kills} kills of children, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::shared();
    let client = place.app().client().await.unwrap();
    let store = Arc::clone(client.store());
    let limit = format!("{}s", LIMIT.as_secs());
    let args = ["-P", "process", "-c", "4", "--time-limit", &limit];
    let mut worker = Worker::start(&place, &store, "w1", "8s", &args).await;
    let enough = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(client.clone(), seed, Arc::clone(&enough)));
    kit::until("work goes on", PATIENCE, async || (kit::count(&place, "end") > 5).then_some(()))
        .await;

    let (mut killed, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    let mut moments = Vec::new();
    for _ in 0..kills {
        kit::pass(Duration::from_millis(random.u64(20..150))).await;
        nothing_is_held_for_too_long(&*store).await;
        let alive = children(worker.pid);
        let Some(child) = random.choice(alive) else { continue };
        moments.push(client.now().as_microsecond());
        if random.u8(..10) == 0 {
            stopped.insert(child);
            signal(child, Signal::STOP);
        } else {
            killed.insert(child);
            signal(child, Signal::KILL);
        }
    }
    enough.store(true, Ordering::Release);
    let confirmed = producer.await.unwrap();
    for id in &confirmed {
        nothing_is_held_for_too_long(&*store).await;
        let ready = store.wait_result(id, PATIENCE * 4).await.unwrap();
        assert!(ready.is_some_and(|record| record.meta.state().is_ready()), "{id} is lost");
    }
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success(), "{}", worker.log());

    let hit = every_task_ended_for_a_reason(&place, &*store, &confirmed, &killed, &stopped).await;
    work_went_on(&place, &moments);
    println!(
        "{} tasks, {} children killed, {} stopped, {hit} runs hit",
        confirmed.len(),
        killed.len(),
        stopped.len()
    );
    assert!(hit > 0, "inconclusive: no kill hit running work");
}

/// No task runs for longer than its limit and a little; what is reserved is shown as running after
/// 50 ms.
async fn nothing_is_held_for_too_long(store: &dyn Store) {
    let filter =
        TaskFilter { state: Some("running".to_owned()), count_max: 100, ..TaskFilter::default() };
    for view in store.tasks(&filter).await.unwrap().views {
        if let Phase::Running { since, .. } = view.phase {
            let held = between(since, SystemClock.wall());
            assert!(held <= LIMIT + SLACK, "{} is held for {held:?}", view.task_id);
        }
    }
}

/// Success, or a reason that the kills explain.
async fn every_task_ended_for_a_reason(
    place: &Place,
    store: &dyn Store,
    confirmed: &[String],
    killed: &BTreeSet<u32>,
    stopped: &BTreeSet<u32>,
) -> usize {
    let ledger = kit::ledger(place);
    let mut runs: BTreeMap<&str, Vec<(u32, i64)>> = BTreeMap::new();
    for line in ledger.iter().filter(|line| line.step == "start") {
        runs.entry(&line.id).or_default().push((line.pid, line.micros));
    }
    let dead = store.dead_list(&DeadFilter::default(), kit::ALL).await.unwrap();
    let reason_of = |id: &str| {
        let letter = dead.iter().find(|letter| letter.message.headers.id() == Some(id));
        letter.map(|letter| letter.reason)
    };
    let mut hit = 0;
    for id in confirmed {
        let record = store.result(id).await.unwrap().unwrap();
        let runs = runs.get(id.as_str()).cloned().unwrap_or_default();
        let (_, earlier) = runs.split_last().unwrap_or((&(0, 0), &[]));
        hit += earlier.len();
        for (pid, _) in earlier {
            assert!(killed.contains(pid) || stopped.contains(pid), "{id} ran again: {runs:?}");
        }
        match (record.meta.state(), reason_of(id)) {
            (State::Success, None) => {}
            // Stopped in the middle, it ran into its limit; or before it could note that it began.
            (State::Failure, Some(DeadReason::TimedOut)) => {
                let in_stopped = runs.iter().any(|(pid, _)| stopped.contains(pid));
                let unnoted =
                    runs.iter().all(|(pid, _)| killed.contains(pid)) && !stopped.is_empty();
                assert!(in_stopped || unnoted, "{id} timed out: {runs:?}");
            }
            // Chance may kill three children under one task.
            (State::Failure, Some(DeadReason::Poison)) => {
                let deaths = runs.iter().filter(|(pid, _)| killed.contains(pid)).count();
                assert!(deaths <= 3, "{id}: {deaths} deaths");
            }
            other => panic!("{id} ended as {other:?}"),
        }
    }
    hit
}

/// After every kill another task ends soon.
fn work_went_on(place: &Place, moments: &[i64]) {
    let ledger = kit::ledger(place);
    let ends: Vec<i64> =
        ledger.iter().filter(|line| line.step == "end").map(|line| line.micros).collect();
    let mut longest = 0;
    for moment in moments {
        if let Some(next) = ends.iter().find(|at| *at > moment) {
            longest = longest.max(next - moment);
        }
    }
    let longest = Duration::from_micros(longest.unsigned_abs());
    println!("the next task ended at most {longest:?} after a kill");
    assert!(longest <= BACK, "{longest:?}");
}
