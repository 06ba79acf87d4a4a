//! Short stories that broke a promise once, told by hand.

use super::link::{Mode, Rates};
use super::scenario::{FaultPlan, Scenario, Send, WorkerPlan};
use super::tasks::{Arguments, Kind};
use super::world::World;
use crate::evidence::{Evidence, Expected};
use crate::invariants::{self, Verdict};
use crate::ledger::What;
use celeriac_core::lease::LeaseTimes;
use celeriac_wire::{Signature, State};
use std::time::Duration;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A task of so many milliseconds, sent at this time.
fn work(at: u64, id: &str, takes: u64) -> Send {
    let kwargs = Arguments { ms: takes, times: 0 }.to_kwargs();
    let work = Signature::new(Kind::Works.name()).with_kwargs(kwargs).with_option("task_id", id);
    let tasks = vec![(id.to_owned(), Expected::once(State::Success))];
    Send { at: ms(at), works: vec![work], tasks }
}

/// So many workers with one slot, on leases of two seconds, in a world that is calm but for this.
fn play(workers: usize, sends: Vec<Send>, faults: &[(u64, FaultPlan)]) -> Evidence {
    let scenario = Scenario {
        times: LeaseTimes::with_expiry(ms(2000)),
        workers: vec![WorkerPlan { slots: 1, line: false }; workers],
        sends,
        revokes: Vec::new(),
        faults: faults.iter().map(|(at, fault)| (ms(*at), *fault)).collect(),
        rates: Rates::default(),
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let evidence = runtime.block_on(async {
        let world = World::new(0, scenario, None).unwrap();
        Box::pin(world.play()).await
    });
    let judgement = invariants::judge(&evidence);
    assert!(judgement.failed().is_empty(), "{}", judgement.table());
    evidence
}

fn starts<'a>(evidence: &'a Evidence, id: &str) -> Vec<(&'a str, i64)> {
    let starts = evidence.lines(&What::Started).filter(|line| line.id == id);
    starts.map(|line| (line.who.as_str(), line.micros / 1000)).collect()
}

/// The messages of a fetch whose answer was lost stayed leased to a worker that lived on.
#[test]
fn a_fetch_without_an_answer_holds_nothing_up() {
    let evidence = play(1, vec![work(1450, "a", 10)], &[(1400, FaultPlan::Lose(0, "fetch"))]);
    let leases = evidence.lines(&What::Leased).filter(|line| line.id == "a").count();
    assert_eq!(leases, 2, "the first answer is lost");
    let started = starts(&evidence, "a");
    assert!(started.len() == 1 && started[0].1 < 2500, "{started:?}");
}

/// After an outage, what a worker fetched before it had a new identity went back while it ran.
#[test]
fn a_worker_without_leases_fetches_nothing() {
    for span in (1800..2600).step_by(20) {
        let back = 1000 + span + 5;
        let sends = (0..6).map(|number| work(back, &format!("t{number}"), 300)).collect();
        let outage = FaultPlan::Cut(None, Mode::Refused, ms(span));
        let evidence = play(2, sends, &[(1000, outage)]);
        for number in 0..6 {
            let started = starts(&evidence, &format!("t{number}"));
            assert_eq!(started.len(), 1, "an outage of {span} ms: {started:?}");
        }
    }
}

/// A heartbeat that hung kept a worker from noticing that its lease was over.
#[test]
fn a_worker_that_is_cut_off_stops_its_tasks_in_time() {
    let mut taken = 0;
    for takes in (2300..3300).step_by(100) {
        for mode in [Mode::Silent, Mode::OneWay] {
            let sends = vec![work(100, "a", takes), work(100, "b", takes)];
            let evidence = play(3, sends, &[(600, FaultPlan::Cut(Some(0), mode, ms(6000)))]);
            taken += evidence.lines(&What::Swept).count();
            let verdict = invariants::judge(&evidence).of("I4").clone();
            assert!(!matches!(verdict, Verdict::Fail(_)), "{verdict:?}");
        }
    }
    assert_eq!(taken, 10, "a heartbeat that arrives, though unanswered, keeps others away");
}
