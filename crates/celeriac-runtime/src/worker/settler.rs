//! Writes settlements in batches, and gives up only when the lease is lost.

use celeriac_core::store::{Settled, Settlement, Store};
use celeriac_core::{ErrorKind, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The most settlements in one write.
const BATCH_MAX: usize = 256;
/// The first pause before a failed write is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What came of a settlement.
#[derive(Debug)]
pub(super) enum Written {
    /// It stands.
    Done,
    /// The lease was lost; nothing was written.
    Fenced,
    /// The store refuses it for good.
    Refused(StoreError),
}

/// A settlement and where its outcome is reported.
pub(super) struct Request {
    pub(super) settlement: Settlement,
    pub(super) report: Box<dyn FnOnce(Written) + Send>,
}

/// Writes requests until the channel closes and everything is written.
pub(super) async fn serve(store: Arc<dyn Store>, mut requests: mpsc::Receiver<Request>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while requests.recv_many(&mut batch, BATCH_MAX).await > 0 {
        write(&*store, std::mem::take(&mut batch)).await;
    }
}

async fn write(store: &dyn Store, batch: Vec<Request>) {
    let settlements: Vec<Settlement> =
        batch.iter().map(|request| request.settlement.clone()).collect();
    match store.settle(settlements).await {
        Ok(settled) => {
            for (request, settled) in batch.into_iter().zip(settled) {
                (request.report)(written(settled));
            }
        }
        // One bad settlement spoils a batch, and at the bound of dead letters a failed task must not
        // hold up its neighbours: write them one by one.
        Err(error)
            if batch.len() > 1 && (!error.is_retryable() || error.kind() == ErrorKind::Full) =>
        {
            for request in batch {
                Box::pin(write(store, vec![request])).await;
            }
        }
        Err(error) if !error.is_retryable() => {
            for request in batch {
                (request.report)(Written::Refused(error_of(&error)));
            }
        }
        Err(error) => persist(store, batch, &error).await,
    }
}

fn error_of(error: &StoreError) -> StoreError {
    StoreError::new(error.kind(), error.to_string())
}

fn written(settled: Settled) -> Written {
    match settled {
        Settled::Done => Written::Done,
        Settled::Fenced => Written::Fenced,
    }
}

/// Tries again until the store answers. Settling twice is harmless: the second finds the lease gone,
/// which is reported as done when the first answer was lost.
async fn persist(store: &dyn Store, batch: Vec<Request>, first: &StoreError) {
    tracing::warn!(error = %first, settlements = batch.len(), "cannot settle, trying again");
    let mut unknown = first.kind() == ErrorKind::Unknown;
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let settlements: Vec<Settlement> =
            batch.iter().map(|request| request.settlement.clone()).collect();
        match store.settle(settlements).await {
            Ok(settled) => {
                for (request, settled) in batch.into_iter().zip(settled) {
                    let lost_answer = unknown && settled == Settled::Fenced;
                    (request.report)(if lost_answer { Written::Done } else { written(settled) });
                }
                return;
            }
            Err(error) if error.is_retryable() => unknown |= error.kind() == ErrorKind::Unknown,
            Err(_) => return Box::pin(write(store, batch)).await,
        }
    }
}
