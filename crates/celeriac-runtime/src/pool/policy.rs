//! What the pool decides: when a child is replaced, how long to wait after a failed start, and what
//! a death means for the message. Pure.

use celeriac_core::outcome::{ChildDeath, Outcome};
use rustix::process::Signal;
use std::time::Duration;

/// So many failed starts in a row stop a worker that never had a child.
pub(super) const FAILED_STARTS_MAX: u32 = 3;
/// The first pause after a failed start; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a child is started again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Failures are forgotten when none followed for so long.
const FORGIVEN: Duration = Duration::from_mins(1);

/// Why a child was killed by its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// The run was dropped: hard limit, cancellation, lost lease, end of the worker.
    Aborted,
    /// It did not take a task that it was given.
    Deaf,
    /// It stood still, stopped by a signal.
    Stopped,
    /// It held more memory than `child_memory_max`; both in bytes.
    Memory { held: u64, limit: u64 },
    /// It closed its connection, or said what cannot be understood.
    Broken(String),
    /// It did not become ready, or did not end, in time.
    Late,
    /// The process that it was forked from has ended, which ends it too.
    Orphaned,
    /// A task beside others in it could not be stopped in any other way.
    Stuck,
}

/// How a child ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) signal: Option<i32>,
    pub(super) code: Option<i32>,
    /// Bytes.
    pub(super) memory_peak: Option<u64>,
    pub(super) killed: Option<Killed>,
}

impl Exit {
    /// What happened, for people.
    pub(super) fn reason(&self) -> String {
        match (&self.killed, self.signal, self.code) {
            (Some(Killed::Memory { held, limit }), ..) => {
                let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
                format!(
                    "memory limit: it held {:.1} MiB, child_memory_max is {:.1} MiB",
                    mib(held),
                    mib(limit)
                )
            }
            (Some(Killed::Broken(what)), ..) => what.clone(),
            (Some(Killed::Deaf), ..) => "it did not take its task in time".to_owned(),
            (Some(Killed::Stopped), ..) => "it stood still, stopped by a signal".to_owned(),
            (Some(Killed::Late), ..) => "it was not ready in time".to_owned(),
            (Some(Killed::Orphaned), ..) => {
                "the template that it was forked from has ended".to_owned()
            }
            (Some(Killed::Stuck), ..) => {
                "another task of its process could not be stopped".to_owned()
            }
            (Some(Killed::Aborted), ..) => "killed by its worker".to_owned(),
            (None, Some(signal), _) => {
                let perhaps =
                    if signal == Signal::KILL.as_raw() { ", perhaps out of memory" } else { "" };
                format!("killed by signal {signal} ({}){perhaps}", signal_name(signal))
            }
            (None, None, Some(code)) => format!("it ended with exit code {code}"),
            (None, None, None) => "it ended, nobody knows how".to_owned(),
        }
    }

    /// What its end means for the task that it ran.
    pub(super) fn outcome(&self, stderr_tail: String) -> Outcome {
        match &self.killed {
            Some(Killed::Aborted) => Outcome::Cancelled,
            Some(
                killed @ (Killed::Deaf
                | Killed::Stopped
                | Killed::Late
                | Killed::Orphaned
                | Killed::Stuck),
            ) => Outcome::Returned {
                reason: format!("its child was replaced: {}", self.reason()),
                begun: !matches!(killed, Killed::Deaf | Killed::Late),
            },
            None | Some(Killed::Memory { .. } | Killed::Broken(_)) => {
                Outcome::ChildLost(ChildDeath {
                    signal: self.signal,
                    exit_code: self.code,
                    memory_peak: self.memory_peak,
                    stderr_tail,
                    reason: self.reason(),
                })
            }
        }
    }
}

/// The name of a signal on this system.
fn signal_name(raw: i32) -> &'static str {
    const NAMES: [(Signal, &str); 20] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(signal, _)| signal.as_raw() == raw)
        .map_or("of another name", |(_, name)| name)
}

/// How many more tasks a child may take.
pub(super) fn tasks_left(taken: u64, tasks_max: Option<u64>) -> u64 {
    tasks_max.map_or(u64::MAX, |max| max.saturating_sub(taken))
}

/// A child as the reckoning of starts sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Tasks that it may still take.
    pub(super) left: u64,
    /// It ends after its present task, or is ending.
    pub(super) leaving: bool,
}

/// How many children to start now. One that may take only one more task has a successor started
/// beside it, so that its slot never waits; in all there are at most two children a slot.
pub(super) fn starts(slots: usize, children: impl Iterator<Item = Standing>) -> usize {
    let (mut all, mut lasting) = (0, 0);
    for child in children {
        all += 1;
        lasting += usize::from(!child.leaving && child.left >= 2);
    }
    slots.saturating_sub(lasting).min((2 * slots).saturating_sub(all))
}

/// How many children are too many after the slots became fewer.
pub(super) fn surplus(slots: usize, children: impl Iterator<Item = Standing>) -> usize {
    let (mut staying, mut lasting) = (0_usize, 0_usize);
    for child in children.filter(|child| !child.leaving) {
        staying += 1;
        lasting += usize::from(child.left >= 2);
    }
    lasting.saturating_sub(slots).max(staying.saturating_sub(2 * slots))
}

/// Spaces starts out after failures.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// A start failed, or a child ended that had no task, at `now`.
    pub(super) fn failed(&mut self, now: Duration) -> u32 {
        if now.saturating_sub(self.until) > FORGIVEN {
            self.failures = 0;
        }
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures += 1;
        self.until = now + pause;
        self.failures
    }

    /// A new child did its first task: children start and are good.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When the next start may be, if not at once.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        (self.failures > 0).then(|| self.until.checked_sub(now)).flatten().filter(|w| !w.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn child(left: u64) -> Standing {
        Standing { left, leaving: false }
    }

    #[test]
    fn a_successor_is_started_before_the_last_task() {
        let leaving = Standing { left: u64::MAX, leaving: true };
        let many = || child(u64::MAX);
        for (slots, children, expected) in [
            (2, vec![], 2),
            (2, vec![many()], 1),
            (2, vec![many(), many()], 0),
            (2, vec![many(), child(1)], 1),
            (2, vec![many(), child(1), many()], 0),
            (2, vec![many(), child(0), many()], 0),
            (2, vec![leaving, many()], 1),
            (2, vec![leaving, many(), many()], 0),
            // One task each: a successor stands by for every slot, and no more.
            (2, vec![child(1), child(1)], 2),
            (2, vec![child(0), child(0), child(1), child(1)], 0),
            (2, vec![child(0), child(1), child(1)], 1),
        ] {
            assert_eq!(starts(slots, children.iter().copied()), expected, "{slots} {children:?}");
        }
    }

    #[test]
    fn children_beyond_the_slots_are_too_many() {
        let leaving = Standing { left: u64::MAX, leaving: true };
        let many = || child(u64::MAX);
        for (slots, children, expected) in [
            (2, vec![many(), many()], 0),
            (1, vec![many(), many(), many()], 2),
            (1, vec![many(), many(), leaving], 1),
            (0, vec![many()], 1),
            // A successor beside one that may take a last task is not too many.
            (1, vec![many(), child(1)], 0),
            (1, vec![child(1), child(1), child(1)], 1),
        ] {
            assert_eq!(surplus(slots, children.iter().copied()), expected, "{slots} {children:?}");
            assert!(expected == 0 || starts(slots, children.iter().copied()) == 0);
        }
    }

    #[test]
    fn pauses_after_failed_starts_double_and_end_with_success() {
        let mut backoff = Backoff::default();
        let now = Duration::from_secs(100);
        assert_eq!(backoff.wait(now), None);
        let waits: Vec<_> = (0..12)
            .map(|_| {
                backoff.failed(now);
                backoff.wait(now).unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(backoff.wait(now + PAUSE_MAX), None);
        backoff.succeeded();
        assert_eq!(backoff.wait(now), None);
        assert_eq!(backoff.failed(now), 1);
        assert_eq!(backoff.wait(now + 40 * MILLI), Some(60 * MILLI));
        assert_eq!(backoff.failed(now + 90 * MILLI), 2);
        assert_eq!(backoff.failed(now + FORGIVEN * 2), 1);
    }

    #[test]
    fn deaths_count_unless_the_worker_brought_them_about() {
        let exit = |signal, code, killed| Exit { signal, code, memory_peak: Some(1 << 20), killed };
        let memory = Killed::Memory { held: 300 << 20, limit: 256 << 20 };
        for (exit, word, text) in [
            (exit(Some(11), None, None), "lost", "killed by signal 11 (SIGSEGV)"),
            (
                exit(Some(9), None, None),
                "lost",
                "killed by signal 9 (SIGKILL), perhaps out of memory",
            ),
            (exit(None, Some(3), None), "lost", "it ended with exit code 3"),
            (
                exit(Some(9), None, Some(memory)),
                "lost",
                "memory limit: it held 300.0 MiB, child_memory_max is 256.0 MiB",
            ),
            (exit(Some(9), None, Some(Killed::Broken("it closed".into()))), "lost", "it closed"),
            (exit(Some(9), None, Some(Killed::Aborted)), "cancelled", "killed by its worker"),
            (
                exit(Some(9), None, Some(Killed::Deaf)),
                "returned",
                "it did not take its task in time",
            ),
            (
                exit(Some(9), None, Some(Killed::Stopped)),
                "returned",
                "it stood still, stopped by a signal",
            ),
        ] {
            assert_eq!(exit.reason(), text);
            let found = match exit.outcome("tail".to_owned()) {
                Outcome::ChildLost(death) => {
                    assert_eq!(
                        (death.stderr_tail.as_str(), death.memory_peak),
                        ("tail", Some(1 << 20))
                    );
                    "lost"
                }
                Outcome::Returned { .. } => "returned",
                Outcome::Cancelled => "cancelled",
                other => panic!("{other:?}"),
            };
            assert_eq!(found, word, "{text}");
        }
    }
}
