//! A checker that cannot fail proves nothing: each is run against a build that breaks its promise.

use super::play;
use celeriac_testkit::invariants::{self, Verdict};
use celeriac_testkit::sim::{self, Sabotage};

/// The most seeds that may pass before a broken build is noticed.
const SEEDS: u64 = 30;

/// Plays seeds on the broken build until the checker says so; the same seed passes on the real one.
#[track_caller]
fn is_noticed(sabotage: Sabotage, name: &str) {
    sim::quiet_panics();
    for seed in 0..SEEDS {
        let broken = invariants::judge(&play(seed, Some(sabotage)));
        if let Verdict::Fail(cases) = broken.of(name) {
            println!("{sabotage:?} is noticed at seed {seed}: {}", cases[0]);
            assert!(broken.table().contains("FAIL"), "the table shows it");
            let real = invariants::judge(&play(seed, None));
            assert!(real.failed().is_empty(), "seed {seed}:\n{}", real.table());
            return;
        }
    }
    panic!("{name} did not notice {sabotage:?} in {SEEDS} seeds");
}

#[test]
fn a_dropped_publish_is_noticed() {
    is_noticed(Sabotage::DropPublish, "I1");
}

#[test]
fn a_second_run_without_a_fault_is_noticed() {
    is_noticed(Sabotage::RunAgain, "I2");
}

#[test]
fn a_hidden_redelivery_is_noticed() {
    is_noticed(Sabotage::HideRedelivery, "I2");
}

#[test]
fn leases_that_stay_with_the_dead_are_noticed() {
    is_noticed(Sabotage::NeverSweep, "I3");
}

#[test]
fn an_accepted_write_of_a_fenced_owner_is_noticed() {
    is_noticed(Sabotage::IgnoreLease, "I4");
}

#[test]
fn a_task_that_never_ends_is_noticed() {
    is_noticed(Sabotage::ForgetSettlement, "I5");
}

#[test]
fn a_result_of_another_run_is_noticed() {
    is_noticed(Sabotage::OtherRunsResult, "I6");
}

#[test]
fn a_wrong_counter_is_noticed() {
    is_noticed(Sabotage::Miscount, "I7");
}

#[test]
fn what_is_left_behind_is_noticed() {
    is_noticed(Sabotage::Leak, "I8");
}

#[test]
fn a_wrong_order_is_noticed() {
    is_noticed(Sabotage::Reorder, "I9");
}
