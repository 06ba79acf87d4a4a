//! How a worker looks for messages.

use super::{LOOK_AGAIN, Loop, SIDE_CALL};
use celeriac_core::store::{Delivery, Store};
use celeriac_core::{StoreError, clock};
use futures::future::BoxFuture;

pub(super) type Fetched = Result<Vec<Delivery>, StoreError>;

/// How the worker looks for messages while it has free slots.
pub(super) enum Look {
    /// At once.
    Now,
    /// The store is asked; `seen` is its count of changes before, `losses` how often the leases
    /// had been lost.
    Fetching { seen: u64, losses: u64, answer: BoxFuture<'static, Fetched> },
    /// There was nothing: when something changes, or at this time.
    Waiting { seen: u64, until: tokio::time::Instant },
    /// The store failed, or all that came was for others: at this time.
    Paused { until: tokio::time::Instant },
}

impl Look {
    /// More may be fetched than when nothing was found.
    pub(super) fn anew(self) -> Self {
        if matches!(self, Self::Waiting { .. }) { Self::Now } else { self }
    }

    /// The answer of a fetch, or `None` when a wait is over; never, while nothing is looked for.
    pub(super) async fn next(&mut self, store: &dyn Store) -> Option<(u64, u64, Fetched)> {
        match self {
            Self::Fetching { seen, losses, answer } => Some((*seen, *losses, answer.await)),
            Self::Waiting { seen, until } => {
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                store.wait_change(*seen, left).await;
                None
            }
            Self::Paused { until } => {
                tokio::time::sleep_until(*until).await;
                None
            }
            Self::Now => std::future::pending().await,
        }
    }
}

impl Loop {
    /// The answer of a call that can as well be made later; `None` when it takes too long, or when
    /// the leases are lost meanwhile: to stop what runs comes first.
    pub(super) async fn side_call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut losses = self.heartbeat.losses.clone();
        tokio::select! {
            biased;
            // Store calls are safe to cancel.
            Ok(_) = losses.wait_for(|count| *count != self.losses_handled) => None,
            answer = tokio::time::timeout(SIDE_CALL, call) => answer.ok(),
        }
    }

    /// When the machine has something to do even if nothing happens.
    pub(super) fn next_tick(&self) -> tokio::time::Instant {
        let boot = self.worker().clock.boot();
        let wait = self.machine.next_tick().map_or(LOOK_AGAIN, |at| at.saturating_sub(boot));
        tokio::time::Instant::now() + wait
    }

    /// When to look again although nothing rang: at the next scheduled message.
    pub(super) async fn look_again(&self) -> tokio::time::Instant {
        let worker = self.worker();
        let boot = worker.clock.boot();
        let own = self.rates.next(boot).map_or(LOOK_AGAIN, |at| at.saturating_sub(boot));
        let latest = tokio::time::Instant::now() + own.min(LOOK_AGAIN);
        let due = worker.store.next_due(&self.queues);
        let Some(due) = self.side_call(due).await else { return latest };
        match due {
            Ok(Some(due)) => {
                latest.min(tokio::time::Instant::now() + clock::between(worker.clock.wall(), due))
            }
            Ok(None) => latest,
            Err(error) => {
                tracing::warn!(%error, "cannot look for scheduled messages");
                latest
            }
        }
    }
}
