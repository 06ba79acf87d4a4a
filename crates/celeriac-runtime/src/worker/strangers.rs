//! Task names that this worker does not know. Their messages are for others. Pure.
//!
//! A name that only workers of ours may know is *parked*: fetches leave its messages in the store, in a
//! lane of their own where nothing stands behind them, and a worker of ours that knows it takes them
//! from there. A name that a stock worker of the queue knows is *passed on*: its messages go to the tail
//! of their queue, where that worker finds them.

use celeriac_core::QueueName;
use celeriac_core::store::TaskCap;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a worker does with a message whose task it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTasks {
    /// It waits for a worker that knows the task.
    #[default]
    Park,
    /// It fails and becomes a dead letter at once, as Celery discards it.
    DeadLetter,
}

/// The most names that wait; messages of any further name become dead letters.
pub(super) const STRANGERS_MAX: usize = 256;
/// After so many messages were passed on in a row the worker pauses.
const PASSED_MAX: usize = 512;
/// The first pause of a worker that meets only messages for others, doubled up to …
const PAUSE: Duration = Duration::from_millis(20);
/// … this: messages that it knows wait behind them for so long at most.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What to do with one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Back to its place; the next fetch leaves it there. `first`: nobody was told yet.
    Park { first: bool },
    /// To the tail of its queue.
    PassOn,
    /// Too many names wait already.
    TooMany,
}

/// One name.
#[derive(Debug, Default)]
struct Stranger {
    passed_on: bool,
    queues: BTreeSet<QueueName>,
}

/// The names that were met.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    names: BTreeMap<String, Stranger>,
    /// What was passed on since anything else came, and since the last pause.
    passed: BTreeSet<String>,
    /// A whole round of the queue was for others.
    round: bool,
    pauses: u32,
}

impl Strangers {
    /// Decides about a message of a task that is not known here.
    pub(super) fn meet(&mut self, task: &str, queue: &QueueName, id: &str) -> Meeting {
        if !self.names.contains_key(task) && self.names.len() >= STRANGERS_MAX {
            return Meeting::TooMany;
        }
        let first = !self.names.contains_key(task);
        let stranger = self.names.entry(task.to_owned()).or_default();
        stranger.queues.insert(queue.clone());
        if !stranger.passed_on {
            return Meeting::Park { first };
        }
        self.round |= !self.passed.insert(id.to_owned()) || self.passed.len() >= PASSED_MAX;
        Meeting::PassOn
    }

    /// Something came that this worker knows.
    pub(super) fn met_its_own(&mut self) {
        self.passed.clear();
        (self.round, self.pauses) = (false, 0);
    }

    /// How long to leave the queue to those that know what is in it, if all of it is for them.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.round) {
            return None;
        }
        self.passed.clear();
        let pause = PAUSE * 2u32.saturating_pow(self.pauses.min(8));
        self.pauses += 1;
        Some(pause.min(PAUSE_MAX))
    }

    /// What a fetch leaves where it is.
    pub(super) fn caps(&self) -> impl Iterator<Item = TaskCap> + '_ {
        let parked = self.names.iter().filter(|(_, stranger)| !stranger.passed_on);
        parked.map(|(task, _)| TaskCap { task: task.clone(), count_max: 0 })
    }

    /// The names and the queues in which they were met.
    pub(super) fn wanted(&self) -> BTreeMap<String, BTreeSet<QueueName>> {
        let wanted = |(task, one): (&String, &Stranger)| (task.clone(), one.queues.clone());
        self.names.iter().map(wanted).collect()
    }

    /// These tasks are known here now.
    pub(super) fn forget(&mut self, known: &[String]) {
        for name in known {
            self.names.remove(name);
        }
    }

    /// Takes over which of the names stock workers know; returns the names that changed, and whether
    /// they are passed on now.
    pub(super) fn learn(&mut self, known: &BTreeSet<String>) -> Vec<(String, bool)> {
        let mut changed = Vec::new();
        for (task, stranger) in &mut self.names {
            let passed_on = known.contains(task);
            if std::mem::replace(&mut stranger.passed_on, passed_on) != passed_on {
                changed.push((task.clone(), passed_on));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(strangers: &Strangers) -> Vec<String> {
        strangers.caps().map(|cap| format!("{} {}", cap.task, cap.count_max)).collect()
    }

    #[test]
    fn a_name_is_parked_until_a_stock_worker_knows_it() {
        let (mut strangers, queue) = (Strangers::default(), QueueName::celery());
        assert_eq!(strangers.meet("a", &queue, "1"), Meeting::Park { first: true });
        assert_eq!(strangers.meet("a", &queue, "1"), Meeting::Park { first: false });
        assert_eq!(caps(&strangers), ["a 0"]);
        let known = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(strangers.learn(&known), [("a".to_owned(), true)]);
        assert!(strangers.learn(&known).is_empty(), "nothing new");
        assert!(caps(&strangers).is_empty());
        assert_eq!(strangers.meet("a", &queue, "1"), Meeting::PassOn);
        assert_eq!(strangers.learn(&BTreeSet::new()), [("a".to_owned(), false)]);
        assert_eq!(caps(&strangers), ["a 0"]);
    }

    #[test]
    fn a_worker_pauses_when_all_of_a_round_is_for_others() {
        let (mut strangers, queue) = (Strangers::default(), QueueName::celery());
        strangers.meet("a", &queue, "1");
        strangers.learn(&BTreeSet::from(["a".to_owned()]));
        strangers.meet("a", &queue, "1");
        assert_eq!(strangers.pause(), None, "the next may be its own");
        strangers.meet("a", &queue, "2");
        strangers.meet("a", &queue, "1");
        assert_eq!(strangers.pause(), Some(PAUSE));
        assert_eq!(strangers.pause(), None, "once a round");
        let mut longest = PAUSE;
        for _ in 0..20 {
            strangers.meet("a", &queue, "1");
            strangers.meet("a", &queue, "1");
            longest = strangers.pause().unwrap();
        }
        assert_eq!(longest, PAUSE_MAX);
        strangers.met_its_own();
        for number in 0..PASSED_MAX {
            assert_eq!(strangers.pause(), None);
            strangers.meet("a", &queue, &number.to_string());
        }
        assert_eq!(strangers.pause(), Some(PAUSE), "a queue without an end");
    }

    #[test]
    fn names_are_bounded() {
        let (mut strangers, queue) = (Strangers::default(), QueueName::celery());
        for number in 0..STRANGERS_MAX {
            let met = strangers.meet(&number.to_string(), &queue, "1");
            assert_eq!(met, Meeting::Park { first: true });
        }
        assert_eq!(strangers.meet("one more", &queue, "1"), Meeting::TooMany);
        assert_eq!(strangers.meet("0", &queue, "2"), Meeting::Park { first: false });
    }
}
