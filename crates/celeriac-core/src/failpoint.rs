//! Named places where a test may end the process: one for every step in the life of a task.
//!
//! Without the feature `failpoints` [`reach`] is an empty function and the optimiser removes it.
//! With it, a program sets one hook, and the hook decides what happens at a step; this crate itself
//! does nothing. The test `process::failpoints` dies once at every [`Step`].

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A step that a hook can be called at. The names are stable: tests and scripts use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// Every step, in the order of a task's life.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

steps! {
    /// A publish was asked for; nothing is written.
    PublishBegins = "publish-begins",
    /// Its rows are written and not committed.
    PublishWritten = "publish-written",
    /// It is committed and not answered.
    PublishCommitted = "publish-committed",
    /// A worker is about to register.
    RegisterBegins = "register-begins",
    /// It is registered and does not know yet.
    RegisterCommitted = "register-committed",
    /// A heartbeat is about to be written.
    HeartbeatBegins = "heartbeat-begins",
    /// A heartbeat is written.
    HeartbeatCommitted = "heartbeat-committed",
    /// A sweep is about to begin.
    SweepBegins = "sweep-begins",
    /// Leases of dead workers are taken, and not committed.
    SweepWritten = "sweep-written",
    /// A sweep is committed.
    SweepCommitted = "sweep-committed",
    /// A worker with free slots is about to fetch.
    FetchBegins = "fetch-begins",
    /// Messages are leased and not committed.
    FetchWritten = "fetch-written",
    /// The leases are committed; the worker does not know yet.
    FetchCommitted = "fetch-committed",
    /// The worker has messages and has started none.
    Fetched = "fetched",
    /// A task was started.
    Started = "started",
    /// Long tasks are about to be shown as running.
    MarkBegins = "mark-begins",
    /// A task ended; nothing is concluded from it.
    Ended = "ended",
    /// Its settlement is made and not sent.
    Concluded = "concluded",
    /// A settlement is about to be written.
    SettleBegins = "settle-begins",
    /// The message is gone from its queue; what follows is not written.
    SettleAdvances = "settle-advances",
    /// The message went back to its queue, and that is not committed.
    SettleReleased = "settle-released",
    /// The message is a dead letter, and that is not committed.
    SettleSetAside = "settle-set-aside",
    /// A chord is complete; its body is not sent.
    ChordCompleted = "chord-completed",
    /// Everything of the settlements is written and not committed.
    SettleWritten = "settle-written",
    /// The settlements are committed and not answered.
    SettleCommitted = "settle-committed",
    /// The worker knows that a task is settled; no event says so.
    Settled = "settled",
    /// Occurrences are about to be fired.
    FireBegins = "fire-begins",
    /// Their messages and lines are written and not committed.
    FireWritten = "fire-written",
    /// They are committed and not answered.
    FireCommitted = "fire-committed",
    /// Events are about to be recorded.
    EventBegins = "event-begins",
    /// Events are recorded.
    EventCommitted = "event-committed",
    /// A worker is about to sign off.
    DeregisterBegins = "deregister-begins",
    /// It is signed off and does not know yet.
    DeregisterCommitted = "deregister-committed",
}

impl Step {
    /// Whether it lies inside a transaction of an embedded store. On a server a transaction is one
    /// script, and no process of ours can die in the middle of it.
    pub fn is_inside_a_transaction(self) -> bool {
        matches!(
            self,
            Self::PublishWritten
                | Self::FetchWritten
                | Self::SettleAdvances
                | Self::SettleReleased
                | Self::SettleSetAside
                | Self::SettleWritten
                | Self::FireWritten
        )
    }
}

impl std::str::FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|step| step.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|step| step.as_str()).collect();
            format!("{text:?} is no step; use one of {}", names.join(", "))
        })
    }
}

#[cfg(feature = "failpoints")]
static HOOK: std::sync::OnceLock<fn(Step)> = std::sync::OnceLock::new();

/// Sets the hook of this process; `false` when there is one already, which stays.
#[cfg(feature = "failpoints")]
pub fn set_hook(hook: fn(Step)) -> bool {
    HOOK.set(hook).is_ok()
}

/// Says that a step is reached: calls the hook, if there is one.
#[cfg(feature = "failpoints")]
pub fn reach(step: Step) {
    if let Some(hook) = HOOK.get() {
        hook(step);
    }
}

/// Says that a step is reached; without the feature `failpoints` nobody listens.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_step: Step) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Step::ALL.iter().map(|step| step.as_str()).collect();
        assert_eq!(names.len(), Step::ALL.len());
        for step in Step::ALL {
            assert_eq!(step.as_str().parse(), Ok(*step));
        }
        assert!("oops".parse::<Step>().unwrap_err().contains("settle-committed"));
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn the_first_hook_is_called_and_stays() {
        use std::sync::Mutex;
        static SEEN: Mutex<Vec<Step>> = Mutex::new(Vec::new());
        reach(Step::Fetched);
        assert!(set_hook(|step| SEEN.lock().unwrap().push(step)));
        assert!(!set_hook(|_| panic!("a second hook")));
        reach(Step::Settled);
        assert_eq!(*SEEN.lock().unwrap(), [Step::Settled]);
    }
}
