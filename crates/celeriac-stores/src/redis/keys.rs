//! The names of our keys (`docs/reference/redis-keys.md` has each with its format and bound).
//!
//! Celery's own keys keep Celery's names (wire specification 2.1, 4.1); everything that only celeriac
//! reads begins with `celeriac:`.

use celeriac_core::QueueName;

/// What kombu puts between a queue's name and a priority step (`transport/redis.py`, `sep`).
pub(super) const SEPARATOR: &str = "\u{6}\u{16}";

/// The names of keys behind a prefix (kombu's `global_keyprefix`).
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// Before every key of the broker.
    pub(super) prefix: String,
    /// Before every key of the result backend; kombu gives it a prefix of its own.
    pub(super) results: String,
    /// The database's number, which is part of channel names.
    pub(super) database: i64,
    /// The database of results and chords, where that is another.
    pub(super) result_database: Option<i64>,
}

impl Keys {
    /// A key of ours.
    pub(super) fn own(&self, name: &str) -> String {
        format!("{}celeriac:{name}", self.prefix)
    }

    /// The list of a queue's ready messages of one step, which stock workers read too.
    pub(super) fn list(&self, queue: &str, step: u8) -> String {
        if step == 0 {
            format!("{}{queue}", self.prefix)
        } else {
            format!("{}{queue}{SEPARATOR}{step}", self.prefix)
        }
    }

    /// The lists of all steps of a queue.
    pub(super) fn lists(&self, queue: &QueueName) -> [String; 4] {
        celeriac_core::priority::STEPS.map(|step| self.list(queue.as_str(), step))
    }

    /// The list of a lane's messages of one step.
    pub(super) fn lane(&self, queue: &str, lane: &str, step: u8) -> String {
        self.own(&format!("lane:{queue}{SEPARATOR}{lane}{SEPARATOR}{step}"))
    }

    /// Where a task's result is, and the channel on which it is announced.
    pub(super) fn result(&self, task_id: &str) -> String {
        format!("{}celery-task-meta-{task_id}", self.results)
    }

    /// The first part of a chord's keys; `.j`, `.t`, `.s`, `.d` and `.c` follow.
    pub(super) fn chord(&self, group: &str) -> String {
        format!("{}celery-taskset-meta-{group}", self.results)
    }

    /// The channel on which processes tell each other that something changed.
    pub(super) fn bell(&self) -> String {
        self.own("bell")
    }
}
