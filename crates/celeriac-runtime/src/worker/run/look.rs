//! How a worker looks for messages.

use celeriac_core::StoreError;
use celeriac_core::store::{Delivery, Store};
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
