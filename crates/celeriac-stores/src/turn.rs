//! Which queue a fetch begins with.

use celeriac_core::QueueName;
use celeriac_core::store::Delivery;
use std::sync::{Mutex, PoisonError};

/// The queue that was served last. The next fetch begins behind it, as kombu's consumers do (kombu
/// 5.7 `utils/scheduling.py`, `round_robin_cycle`): queues that have messages alternate, however many
/// empty ones stand between them.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<Option<QueueName>>);

impl Turn {
    /// The queues in the order of the next fetch.
    pub(crate) fn order(&self, mut queues: Vec<QueueName>) -> Vec<QueueName> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = last.as_ref().and_then(|last| queues.iter().position(|queue| queue == last));
        if let Some(behind) = behind {
            queues.rotate_left(behind + 1);
        }
        queues
    }

    /// These were fetched.
    pub(crate) fn served(&self, deliveries: &[Delivery]) {
        if let Some(last) = deliveries.last() {
            let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *served = Some(last.queue.clone());
        }
    }
}
