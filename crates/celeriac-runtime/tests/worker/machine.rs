//! The machine as tables: an event at a time, and what it leads to.

use crate::{delivery, registry};
use celeriac_core::lease::{Lease, Suspicion};
use celeriac_core::outcome::{ChildDeath, Failure, Outcome};
use celeriac_core::store::Delivery;
use celeriac_runtime::worker::decide::Refusal;
use celeriac_runtime::worker::machine::{Action, Event, Machine};
use celeriac_runtime::{Stop, TaskPolicy};
use celeriac_wire::{ExceptionInfo, TimeLimits, Value};
use jiff::Timestamp;
use std::time::Duration;

/// A machine and a clock in milliseconds.
struct Bench(Machine);

impl Bench {
    /// So many slots, and a grace period of ten seconds.
    fn new(slots: usize) -> Self {
        Self(Machine::new(registry(TaskPolicy::default()), slots, Duration::from_secs(10)))
    }

    /// One running task per row, begun at 0.
    fn running(rows: std::ops::RangeInclusive<i64>) -> Self {
        let mut bench = Self::new(8);
        bench.at(0, Event::Fetched(rows.map(delivery).collect()));
        bench
    }

    /// A running task with these limits in milliseconds, begun at 0.
    fn limited(soft: u64, hard: u64) -> Self {
        let mut bench = Self::new(8);
        let mut one = delivery(1);
        let limit = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        one.message.headers.set_time_limits(TimeLimits { soft: limit(soft), hard: limit(hard) });
        assert_eq!(bench.at(0, Event::Fetched(vec![one])), "start 1");
        bench
    }

    /// What an event at this time leads to, in words.
    fn at(&mut self, ms: u64, event: Event) -> String {
        let actions = self.0.step(event, Duration::from_millis(ms), Timestamp::UNIX_EPOCH);
        actions.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn tick(&mut self, ms: u64) -> String {
        self.at(ms, Event::Tick)
    }

    fn ends(&mut self, ms: u64, row: i64, outcome: Outcome) -> String {
        self.at(ms, Event::Ended(lease(row), outcome))
    }

    /// The time of the next tick in milliseconds.
    fn next(&self) -> Option<u128> {
        self.0.next_tick().map(|at| at.as_millis())
    }
}

fn lease(row: i64) -> Lease {
    Lease { row, token: row }
}

fn rows<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> String {
    leases.into_iter().map(|lease| lease.row.to_string()).collect::<Vec<_>>().join(" ")
}

fn word(action: &Action) -> String {
    match action {
        Action::Start(start) => format!("start {}", start.delivery.lease.row),
        Action::Refuse(delivery, _, refusal) => {
            let why = match refusal {
                Refusal::Dead(reason, _) => reason.to_string(),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("refuse {} {why}", delivery.lease.row)
        }
        Action::Meet(delivery, _) => format!("meet {}", delivery.lease.row),
        Action::Cancel(lease, reason) => format!("cancel {} {reason:?}", lease.row),
        Action::Abort(lease) => format!("abort {}", lease.row),
        Action::Settle(lease, outcome) => {
            let what = match outcome {
                Outcome::Success(_) => "success".to_owned(),
                Outcome::Failure(failure) => failure.exception.summary(),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("settle {} {what}", lease.row)
        }
        Action::Forget(lease) => format!("forget {}", lease.row),
        Action::MarkStarted(marked) => {
            format!("mark {}", rows(marked.iter().map(|begun| &begun.lease)))
        }
        Action::Return(leases) => format!("return {}", rows(leases)),
    }
}

fn success() -> Outcome {
    Outcome::Success(Value::Null)
}

fn failure() -> Outcome {
    Outcome::Failure(Failure::new(ExceptionInfo::new("builtins", "ValueError", vec![])))
}

fn soft_limit() -> Outcome {
    Outcome::Failure(Failure::new(ExceptionInfo::soft_time_limit_exceeded()))
}

fn terminated(row: i64) -> Event {
    Event::Terminated(vec![row.to_string(), "of another worker".to_owned()])
}

#[test]
fn a_task_takes_a_slot_until_it_ends() {
    let mut bench = Bench::new(3);
    assert_eq!((bench.0.free(0), bench.0.active()), (3, 0));
    assert_eq!(bench.at(0, Event::Fetched(vec![delivery(1), delivery(2)])), "start 1, start 2");
    assert_eq!((bench.0.free(0), bench.0.active()), (1, 2));
    assert_eq!(bench.ends(5, 1, success()), "settle 1 success");
    assert_eq!(bench.ends(6, 2, failure()), "settle 2 ValueError()");
    assert_eq!((bench.0.free(0), bench.0.active()), (3, 0));
    assert_eq!(bench.ends(7, 2, success()), "", "a run ends once");
    assert!(!bench.0.is_finished(), "a worker without work waits for more");
    assert_eq!(bench.next(), None);
}

#[test]
fn what_is_refused_takes_no_slot() {
    let mut bench = Bench::new(2);
    let changed = |row, change: fn(&mut Delivery)| {
        let mut delivery = delivery(row);
        change(&mut delivery);
        delivery
    };
    let deliveries = vec![
        changed(1, |one| one.revoked = true),
        changed(2, |one| {
            one.message.headers.set_task("t.other");
        }),
        changed(3, |one| one.suspicion = Suspicion { seen: 5, counted: 3 }),
        delivery(4),
        // Whatever else is true of it, it ran.
        changed(5, |one| {
            one.acknowledged = true;
            one.revoked = true;
            one.suspicion = Suspicion { seen: 5, counted: 3 };
            one.message.headers.set_task("t.other");
        }),
    ];
    let expected = "refuse 1 revoked, meet 2, refuse 3 poison, start 4, refuse 5 lost";
    assert_eq!(bench.at(0, Event::Fetched(deliveries)), expected);
    assert_eq!(bench.0.free(0), 1);
}

#[test]
fn a_suspect_runs_beside_no_other_suspect() {
    // covers: T-41
    let mut bench = Bench::new(4);
    assert!(bench.0.takes_suspects());
    let mut suspect = delivery(1);
    suspect.suspicion = Suspicion { seen: 2, counted: 0 };
    bench.at(0, Event::Fetched(vec![suspect, delivery(2)]));
    assert!(!bench.0.takes_suspects());
    assert_eq!(bench.0.free(0), 2, "innocent tasks go on");
    bench.ends(1, 2, success());
    assert!(!bench.0.takes_suspects());
    bench.ends(2, 1, success());
    assert!(bench.0.takes_suspects());
}

#[test]
fn only_tasks_that_last_are_marked_as_running() {
    let mut bench = Bench::running(1..=3);
    assert_eq!(bench.next(), Some(50));
    bench.ends(10, 2, success());
    assert_eq!(bench.tick(49), "");
    assert_eq!(bench.tick(50), "mark 1 3");
    assert_eq!(bench.tick(100), "", "once");
    assert_eq!(bench.next(), None);
}

#[test]
fn a_soft_limit_is_told_and_a_hard_limit_is_enforced() {
    let mut bench = Bench::limited(1000, 2000);
    bench.tick(50);
    assert_eq!(bench.next(), Some(1000));
    assert_eq!(bench.tick(1000), "cancel 1 SoftLimit");
    assert_eq!(bench.next(), Some(2000));
    assert_eq!(bench.tick(1500), "", "told once");
    assert_eq!(bench.tick(2000), "abort 1");
    assert_eq!(bench.ends(2001, 1, Outcome::Cancelled), "settle 1 TimeLimitExceeded(2)");

    let mut obedient = Bench::limited(1000, 2000);
    obedient.tick(1000);
    assert_eq!(obedient.ends(1001, 1, soft_limit()), "settle 1 SoftTimeLimitExceeded()");
    let mut quick = Bench::limited(1000, 2000);
    quick.tick(1000);
    assert_eq!(quick.ends(1001, 1, success()), "settle 1 success", "it may still finish its work");
    let mut lucky = Bench::limited(0, 2000);
    lucky.tick(2000);
    assert_eq!(lucky.ends(2001, 1, success()), "settle 1 success", "it beat the abort");
}

#[test]
fn a_cancelled_task_has_two_seconds_to_clean_up() {
    let mut bench = Bench::running(1..=2);
    bench.tick(50);
    assert_eq!(bench.at(100, terminated(1)), "cancel 1 Revoked");
    assert_eq!(bench.at(110, terminated(1)), "", "once");
    assert_eq!(bench.next(), Some(2100));
    assert_eq!(bench.tick(2100), "abort 1");
    assert_eq!(bench.ends(2101, 1, Outcome::Cancelled), "settle 1 cancelled");
    assert_eq!(bench.ends(2102, 2, success()), "settle 2 success", "the others go on");

    for (outcome, expected) in [
        (Outcome::Cancelled, "settle 1 cancelled"),
        (failure(), "settle 1 cancelled"),
        (success(), "settle 1 success"),
    ] {
        let mut bench = Bench::running(1..=1);
        bench.at(100, terminated(1));
        assert_eq!(bench.ends(200, 1, outcome), expected);
    }
}

#[test]
fn the_death_of_a_child_counts_unless_its_task_was_to_end() {
    let lost =
        || Outcome::ChildLost(ChildDeath { reason: "gone".to_owned(), ..Default::default() });
    let settled = |event: Option<Event>, outcome: Outcome| {
        let mut bench = Bench::limited(0, 2000);
        if let Some(event) = event {
            bench.at(100, event);
        }
        let words = bench.ends(200, 1, outcome);
        words.split_once(['(', '{']).map_or(words.clone(), |(word, _)| word.trim().to_owned())
    };
    let back = || Outcome::Returned { reason: "stopped".to_owned(), begun: true };
    assert_eq!(settled(None, lost()), "settle 1 childlost");
    assert_eq!(settled(None, back()), "settle 1 returned");
    assert_eq!(settled(Some(terminated(1)), lost()), "settle 1 cancelled");
    assert_eq!(settled(Some(terminated(1)), back()), "settle 1 cancelled");
    assert_eq!(settled(Some(Event::Stop(Stop::Now)), lost()), "settle 1 interrupted");
    let mut late = Bench::limited(0, 2000);
    assert!(late.tick(2000).contains("abort 1"));
    assert_eq!(late.ends(2001, 1, lost()), "settle 1 TimeLimitExceeded(2)");
}

#[test]
fn a_task_that_ignores_its_soft_limit_can_still_be_cancelled() {
    let mut bench = Bench::limited(1000, 0);
    bench.tick(1000);
    assert_eq!(bench.at(1500, terminated(1)), "cancel 1 Revoked");
    assert_eq!(bench.tick(3500), "abort 1");
    assert_eq!(bench.ends(3501, 1, Outcome::Cancelled), "settle 1 cancelled");
}

#[test]
fn a_task_that_is_cancelled_while_a_fetch_brings_it_does_not_run() {
    let mut bench = Bench::new(2);
    bench.0.fetch_begins();
    assert_eq!(bench.at(0, terminated(5)), "");
    let fetched = Event::Fetched(vec![delivery(5), delivery(6)]);
    assert_eq!(bench.at(1, fetched), "refuse 5 revoked, start 6");
    bench.0.fetch_begins();
    assert_eq!(bench.at(2, Event::Fetched(vec![delivery(5)])), "start 5", "a later one is new");
}

#[test]
fn a_grace_lets_tasks_finish_and_then_interrupts_them() {
    // covers: S3-06
    let mut bench = Bench::running(1..=3);
    bench.tick(50);
    assert_eq!(bench.at(1000, Event::Stop(Stop::Grace)), "");
    assert_eq!((bench.0.free(0), bench.0.is_finished()), (0, false));
    assert_eq!(bench.at(1001, Event::Fetched(vec![delivery(8), delivery(9)])), "return 8 9");
    assert_eq!(bench.ends(2000, 1, success()), "settle 1 success");
    assert_eq!(bench.at(3000, Event::Stop(Stop::Grace)), "", "asking twice does not prolong it");
    assert_eq!(bench.next(), Some(11_000));
    assert_eq!(bench.tick(11_000), "cancel 2 Shutdown, cancel 3 Shutdown");
    assert_eq!(bench.ends(11_010, 2, Outcome::Interrupted), "settle 2 interrupted");
    assert_eq!(bench.next(), Some(11_250));
    assert_eq!(bench.tick(11_250), "abort 3");
    assert_eq!(bench.ends(11_251, 3, Outcome::Cancelled), "settle 3 interrupted");
    assert!(bench.0.is_finished());
}

#[test]
fn a_second_stop_interrupts_at_once() {
    let mut bench = Bench::running(1..=1);
    bench.at(100, Event::Stop(Stop::Grace));
    assert_eq!(bench.at(200, Event::Stop(Stop::Now)), "cancel 1 Shutdown");
    assert_eq!(bench.at(210, Event::Stop(Stop::Grace)), "", "nothing makes it gentle again");
    assert_eq!(bench.tick(450), "abort 1, mark 1");
    assert_eq!(bench.ends(451, 1, Outcome::Cancelled), "settle 1 interrupted");
    let mut idle = Bench::new(1);
    idle.at(0, Event::Stop(Stop::Now));
    assert!(idle.0.is_finished());
}

#[test]
fn a_task_that_does_not_yield_is_left_behind() {
    let mut bench = Bench::running(1..=1);
    bench.tick(50);
    bench.at(1000, Event::Stop(Stop::Now));
    assert_eq!(bench.tick(1250), "abort 1");
    assert_eq!(bench.next(), Some(1400));
    assert_eq!(bench.tick(1400), "forget 1");
    assert!(bench.0.is_finished());
    assert_eq!(bench.ends(1500, 1, success()), "", "what it brings later is too late");
}

#[test]
fn an_interrupted_task_goes_back_whatever_it_was_told_before() {
    let mut late = Bench::limited(1000, 60_000);
    late.tick(1000);
    late.at(2000, Event::Stop(Stop::Now));
    late.tick(2250);
    let settled = late.ends(2251, 1, Outcome::Cancelled);
    assert_eq!(settled, "settle 1 interrupted", "it ignored its soft limit, but nobody revoked it");

    let mut revoked = Bench::running(1..=1);
    revoked.at(1000, terminated(1));
    revoked.at(1001, Event::Stop(Stop::Now));
    revoked.tick(1251);
    assert_eq!(revoked.ends(1252, 1, Outcome::Cancelled), "settle 1 cancelled", "it was revoked");

    let mut failed = Bench::running(1..=1);
    failed.at(1000, Event::Stop(Stop::Now));
    assert_eq!(failed.ends(1001, 1, failure()), "settle 1 ValueError()", "its own failure counts");
}

#[test]
fn nothing_of_a_lost_lease_is_settled() {
    // covers: S5-05
    for outcome in [success(), failure(), Outcome::Cancelled, Outcome::Interrupted] {
        let mut bench = Bench::running(1..=2);
        bench.tick(50);
        bench.at(60, terminated(2));
        let expected = "cancel 1 LeaseLost, abort 1, cancel 2 LeaseLost, abort 2";
        assert_eq!(bench.at(100, Event::LeaseLost), expected);
        assert_eq!(bench.next(), None, "there is nothing left to wait for");
        assert_eq!(bench.ends(101, 1, outcome.clone()), "forget 1");
        assert_eq!(bench.ends(101, 2, outcome), "forget 2");
        assert_eq!(bench.0.free(0), 8, "it works on under a new lease");
        assert_eq!(bench.at(200, Event::Fetched(vec![delivery(3)])), "start 3");
    }
}

#[test]
fn a_stopped_machine_has_nothing_more_to_tick_for() {
    let mut bench = Bench::running(1..=1);
    bench.tick(100);
    bench.at(1000, Event::Stop(Stop::Now));
    assert_eq!(bench.next(), Some(1250));
    bench.tick(1250);
    assert_eq!(bench.next(), Some(1400));
    assert_eq!(bench.tick(1400), "forget 1");
    assert_eq!((bench.0.is_finished(), bench.next()), (true, None));
    let mut idle = Bench::new(1);
    idle.at(0, Event::Stop(Stop::Now));
    assert_eq!((idle.tick(400), idle.next()), (String::new(), None));
}
