//! Leases: who may settle a delivery, when a silent owner loses it, and when a message is poison.
//!
//! A lease belongs to a node (one run of a worker). The node's heartbeat keeps all its leases; a
//! node that is silent for [`LeaseTimes::expiry`] is dead and its messages go back.

use std::time::Duration;

/// The times of the delivery contract (`docs/delivery-contract.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How often a node renews.
    pub heartbeat: Duration,
    /// How long a silent node keeps its leases.
    pub expiry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(2), expiry: Duration::from_secs(8) }
    }
}

impl LeaseTimes {
    /// The same proportions, faster or slower, for tests and slow disks.
    pub fn with_expiry(expiry: Duration) -> Self {
        Self { heartbeat: expiry / 4, expiry }
    }
}

/// The proof of ownership of one delivery: the store compares it in every write of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The message's row.
    pub row: i64,
    /// Drawn anew for every delivery of the row.
    pub token: i64,
}

/// Whether a node may take on more work: it has renewed within half of its lease, which a healthy node
/// always has. An owner that comes back from an outage renews first, or its new leases would be over
/// when they begin.
pub fn may_take_more(since_last_renewal: Duration, times: LeaseTimes) -> bool {
    since_last_renewal * 2 < times.expiry
}

/// Whether a node that cannot renew its leases has to kill its own work.
///
/// `stands` is what the store says of the node when it is asked by a read alone, `None` when it does
/// not even answer that. A store that is locked, full or read-only for everybody takes nothing from
/// anybody, so work goes on and nothing runs twice; a node that cannot know whether others have taken
/// its work ends it when its lease is over.
pub fn must_fence_itself(
    since_last_renewal: Duration,
    times: LeaseTimes,
    stands: Option<bool>,
) -> bool {
    match stands {
        Some(stands) => !stands,
        None => since_last_renewal >= times.expiry,
    }
}

/// Decides when silence means death and not an outage of the store.
///
/// A sweeper may take leases only after it has itself seen the store reachable without a gap for
/// one full expiry: owners that were cut off by the same outage then had the time to renew first.
#[derive(Clone, Debug)]
pub struct SweepGuard {
    times: LeaseTimes,
    reachable_since: Option<Duration>,
    last_seen: Option<Duration>,
}

impl SweepGuard {
    /// A guard that has seen nothing yet.
    pub fn new(times: LeaseTimes) -> Self {
        Self { times, reachable_since: None, last_seen: None }
    }

    /// Notes a successful call at `now` (boot clock). A pause of more than two heartbeats is a gap:
    /// the guard slept, or the machine was suspended.
    pub fn reached(&mut self, now: Duration) {
        let gap =
            self.last_seen.is_none_or(|last| now.saturating_sub(last) > self.times.heartbeat * 2);
        if gap {
            self.reachable_since = Some(now);
        }
        self.last_seen = Some(now);
    }

    /// Notes a failed call.
    pub fn failed(&mut self) {
        self.reachable_since = None;
        self.last_seen = None;
    }

    /// Whether leases of silent nodes may be taken at `now`.
    pub fn may_sweep(&self, now: Duration) -> bool {
        self.reachable_since.is_some_and(|since| now.saturating_sub(since) >= self.times.expiry)
    }
}

/// Whether a node last heard of at `beat` on boot `beat_boot` is dead, by the host's own clock.
///
/// A different boot id, or a beat that lies in the future of this boot's clock, means that the host
/// restarted: nothing of that node can be alive.
pub fn is_dead(beat: Duration, same_boot: bool, now: Duration, times: LeaseTimes) -> bool {
    let restarted = !same_boot || beat > now.saturating_add(times.expiry);
    restarted || now.saturating_sub(beat) >= times.expiry
}

/// What a message has been through when its owners died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    /// Workers that died while they held it.
    pub seen: u32,
    /// Deaths that count against it: it was the only suspect its worker ran, or its own child died.
    pub counted: u32,
}

/// After so many worker deaths a message re-runs one at a time.
///
/// The first death of a worker proves nothing: a deploy or the kernel kills a worker with a hundred
/// innocent tasks in it, and running those one by one would break the ten seconds of the contract.
pub const SUSPECT_AFTER: u32 = 2;
/// After so many counted deaths a message is poison.
pub const POISON_AFTER: u32 = 3;

/// What happens to a message whose owner died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Back to its place in the queue.
    Requeue(Suspicion),
    /// Back, but it runs only where no other suspect runs.
    Isolate(Suspicion),
    /// Set aside as a dead letter.
    Poison(Suspicion),
}

impl Suspicion {
    /// Whether the message must run as its worker's only suspect.
    pub fn is_suspect(self) -> bool {
        self.seen >= SUSPECT_AFTER
    }

    /// The rule for the death of a worker that held the message.
    pub fn after_worker_death(self) -> Recovery {
        let counted = self.counted + u32::from(self.is_suspect());
        Self { seen: self.seen + 1, counted }.verdict()
    }

    /// The rule for the death of a child that ran exactly this message.
    pub fn after_child_death(self) -> Recovery {
        Self { seen: self.seen.max(SUSPECT_AFTER), counted: self.counted + 1 }.verdict()
    }

    fn verdict(self) -> Recovery {
        if self.counted >= POISON_AFTER {
            Recovery::Poison(self)
        } else if self.is_suspect() {
            Recovery::Isolate(self)
        } else {
            Recovery::Requeue(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn poison_needs_three_counted_deaths() {
        // covers: T-41
        let mut suspicion = Suspicion::default();
        let mut kinds = Vec::new();
        loop {
            let (kind, next) = match suspicion.after_worker_death() {
                Recovery::Requeue(next) => ("requeue", next),
                Recovery::Isolate(next) => ("isolate", next),
                Recovery::Poison(next) => ("poison", next),
            };
            kinds.push(kind);
            suspicion = next;
            if kind == "poison" {
                break;
            }
        }
        assert_eq!(kinds, ["requeue", "isolate", "isolate", "isolate", "poison"]);
    }

    #[test]
    fn a_childs_death_counts_at_once() {
        let Recovery::Isolate(one) = Suspicion::default().after_child_death() else { panic!() };
        let Recovery::Isolate(two) = one.after_child_death() else { panic!() };
        assert!(matches!(two.after_child_death(), Recovery::Poison(s) if s.counted == 3));
    }

    #[test]
    fn a_sweeper_waits_one_expiry_after_every_gap() {
        let times = LeaseTimes::default();
        let mut guard = SweepGuard::new(times);
        assert!(!guard.may_sweep(SECOND * 100));
        for second in 0..8 {
            guard.reached(SECOND * second);
            assert!(!guard.may_sweep(SECOND * second), "{second}");
        }
        guard.reached(SECOND * 8);
        assert!(guard.may_sweep(SECOND * 8));
        guard.failed();
        assert!(!guard.may_sweep(SECOND * 9));
        guard.reached(SECOND * 9);
        guard.reached(SECOND * 40);
        assert!(!guard.may_sweep(SECOND * 40), "the 31 s without a call are a gap");
    }

    #[test]
    fn a_node_is_dead_after_its_expiry_or_a_reboot() {
        let times = LeaseTimes::default();
        for (beat, same_boot, now, dead) in [
            (10, true, 17, false),
            (10, true, 18, true),
            (10, false, 11, true),
            (10, true, 5, false),
            (20, true, 5, true),
        ] {
            assert_eq!(is_dead(SECOND * beat, same_boot, SECOND * now, times), dead);
        }
        for (silent, stands, fence) in [
            (7, None, false),
            (8, None, true),
            (30, Some(true), false),
            (9, Some(false), true),
            (1, Some(false), true),
        ] {
            assert_eq!(must_fence_itself(SECOND * silent, times, stands), fence, "{silent}");
        }
        assert!(may_take_more(SECOND * 3, times) && !may_take_more(SECOND * 4, times));
    }
}
