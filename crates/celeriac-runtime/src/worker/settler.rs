//! Writes settlements in batches, and gives up only when the lease is lost.

use super::heartbeat::Pulse;
use super::spill::{self, Spill, SpilledLetter};
use celeriac_core::store::{Delivery, Fate, Settled, Settlement, Store};
use celeriac_core::{Clock, ErrorKind, StoreError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// The most settlements in one write.
const BATCH_MAX: usize = 256;
/// The first pause before a failed write is tried again; it doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before a failed write is tried again.
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
    /// What is settled, for a dead letter that the store has no room for.
    pub(super) delivery: Option<Arc<Delivery>>,
    pub(super) report: Box<dyn FnOnce(Written) + Send>,
}

/// Writes requests until the channel closes and everything is written or has no room.
pub(super) async fn serve(
    store: Arc<dyn Store>,
    requests: mpsc::Receiver<Request>,
    pulse: Arc<Pulse>,
    clock: Arc<dyn Clock>,
    spill: Option<Arc<dyn Spill>>,
) {
    let mut settler = Settler { store, pulse, clock, spill, parked: VecDeque::new() };
    settler.serve(requests).await;
}

/// Settlements that the store has no room for (dead letters at their bound, a full disk) are parked:
/// they must not hold up their neighbours. While any is parked, the worker fetches nothing.
struct Settler {
    store: Arc<dyn Store>,
    pulse: Arc<Pulse>,
    clock: Arc<dyn Clock>,
    spill: Option<Arc<dyn Spill>>,
    parked: VecDeque<Request>,
}

impl Settler {
    async fn serve(&mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let waiting = self.parked.len();
            let count = tokio::select! {
                biased;
                // Cancel safe: recv_many loses nothing when it is dropped.
                count = requests.recv_many(&mut batch, BATCH_MAX) => count,
                () = tokio::time::sleep(PAUSE_MAX), if waiting > 0 => {
                    self.retry_parked().await;
                    continue;
                }
            };
            if count == 0 {
                break;
            }
            self.write(std::mem::take(&mut batch)).await;
        }
        self.retry_parked().await;
        if !self.parked.is_empty() {
            let settlements = self.parked.len();
            tracing::error!(settlements, "no room for these outcomes; their tasks run again");
        }
    }

    /// Tries what is parked, until there is no room again.
    async fn retry_parked(&mut self) {
        for _ in 0..self.parked.len() {
            let before = self.parked.len();
            let Some(request) = self.parked.pop_front() else { break };
            self.write(vec![request]).await;
            if self.parked.len() == before {
                break;
            }
        }
        self.pulse.blocked.store(!self.parked.is_empty(), Ordering::Relaxed);
    }

    async fn write(&mut self, batch: Vec<Request>) {
        match self.store.settle(settlements_of(&batch)).await {
            Ok(settled) => {
                for (request, settled) in batch.into_iter().zip(settled) {
                    (request.report)(written(settled));
                }
            }
            Err(error) => self.failed(batch, error).await,
        }
    }

    async fn failed(&mut self, mut batch: Vec<Request>, error: StoreError) {
        let full = matches!(error.kind(), ErrorKind::Full | ErrorKind::DeadFull);
        if batch.len() > 1 && (full || !error.is_retryable()) {
            // One bad settlement spoils a batch: write them one by one.
            for request in batch {
                Box::pin(self.write(vec![request])).await;
            }
        } else if error.kind() == ErrorKind::DeadFull && self.spilled(&mut batch).await {
            Box::pin(self.write(batch)).await;
        } else if full {
            tracing::warn!(%error, "cannot settle, nothing new is fetched until there is room");
            self.parked.extend(batch);
            self.pulse.blocked.store(true, Ordering::Relaxed);
        } else if error.is_retryable() {
            self.persist(batch, &error).await;
        } else {
            for request in batch {
                (request.report)(Written::Refused(error_of(&error)));
            }
        }
    }

    /// Writes dead letters that the store has no room for beside it. What is on disk there leaves the
    /// store like a finished task; a worker that dies in between runs it again, and it is in both.
    async fn spilled(&mut self, batch: &mut [Request]) -> bool {
        let Some(spill) = &self.spill else { return false };
        let now = self.clock.wall();
        let letters: Option<Vec<SpilledLetter>> = batch
            .iter()
            .map(|request| {
                SpilledLetter::of(request.delivery.as_deref()?, &request.settlement.fate, now)
            })
            .collect();
        let Some(letters) = letters else { return false };
        let count = letters.len();
        match spill::write(spill, letters).await {
            Ok(()) => {
                tracing::warn!(
                    count,
                    "no room for dead letters in the store; they are in the file"
                );
                for request in batch {
                    request.settlement.fate = Fate::Done;
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot write dead letters to the spill file");
                false
            }
        }
    }

    /// Tries again until the store answers. Settling twice is harmless: the second finds the lease
    /// gone, which is reported as done when the first answer was lost.
    async fn persist(&mut self, batch: Vec<Request>, first: &StoreError) {
        tracing::warn!(error = %first, settlements = batch.len(), "cannot settle, trying again");
        let mut unknown = first.kind() == ErrorKind::Unknown;
        let mut pause = PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match self.store.settle(settlements_of(&batch)).await {
                Ok(settled) => {
                    for (request, settled) in batch.into_iter().zip(settled) {
                        let lost_answer = unknown && settled == Settled::Fenced;
                        let outcome = if lost_answer { Written::Done } else { written(settled) };
                        (request.report)(outcome);
                    }
                    return;
                }
                Err(error)
                    if error.is_retryable()
                        && !matches!(error.kind(), ErrorKind::Full | ErrorKind::DeadFull) =>
                {
                    unknown |= error.kind() == ErrorKind::Unknown;
                }
                Err(error) => return Box::pin(self.failed(batch, error)).await,
            }
        }
    }
}

fn settlements_of(batch: &[Request]) -> Vec<Settlement> {
    batch.iter().map(|request| request.settlement.clone()).collect()
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
