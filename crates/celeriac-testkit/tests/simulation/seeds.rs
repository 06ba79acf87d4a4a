//! Seeds on the real system.
//!
//! `CELERIAC_SEEDS=20000` plays more of them, `CELERIAC_SEED=42` plays one and prints its ledger.

use super::play;
use celeriac_testkit::invariants::{self, Verdict};
use celeriac_testkit::{ledger, sim};
use std::collections::BTreeMap;

/// Seeds of a run in CI, both halves together.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.to_str()?.parse().ok()
}

/// Plays every second seed and checks everything; each promise is put to the test by some.
fn half(first: u64) {
    sim::quiet_panics();
    let (mut passed, mut failed): (BTreeMap<&str, u64>, Vec<u64>) = Default::default();
    let count = number("CELERIAC_SEEDS").unwrap_or(SEEDS);
    let from = number("CELERIAC_SEED").unwrap_or(0);
    for seed in (from + first..from + count).step_by(2) {
        let judgement = invariants::judge(&play(seed, None));
        if !judgement.failed().is_empty() {
            let (table, again) = (judgement.table(), sim::replay_command(seed));
            println!("seed {seed} breaks {:?}\n{table}\nagain: {again}\n", judgement.failed());
            failed.push(seed);
        }
        for (invariant, verdict) in judgement.0 {
            *passed.entry(invariant.name).or_default() += u64::from(verdict == Verdict::Pass);
        }
    }
    println!("seeds that put each promise to the test: {passed:?}");
    assert_eq!(failed, [], "these seeds break a promise");
    assert_eq!(passed.len(), invariants::ALL.len());
    assert!(passed.values().all(|count| *count > 0), "never put to the test: {passed:?}");
}

#[test]
fn even_seeds_hold_every_promise() {
    half(0);
}

#[test]
fn odd_seeds_hold_every_promise() {
    half(1);
}

#[test]
fn one_seed_repeats_byte_by_byte() {
    sim::quiet_panics();
    let given = number("CELERIAC_SEED");
    let seeds = given.map_or(0..10, |seed| seed..seed + 1);
    for seed in seeds {
        let (once, again) = (play(seed, None), play(seed, None));
        let (once, again) = (once, ledger::print(&again.ledger));
        let text = ledger::print(&once.ledger);
        if given.is_some() {
            println!("{text}\n{}", invariants::judge(&once).table());
        }
        let differs = text.lines().zip(again.lines()).find(|(one, two)| one != two);
        assert!(text == again, "seed {seed} does not repeat: {differs:?}");
        assert!(text.lines().count() > 20, "seed {seed} does something");
    }
}
