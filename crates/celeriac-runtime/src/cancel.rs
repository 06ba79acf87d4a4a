//! How a running task learns that it should stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use tokio_util::sync::CancellationToken;

/// Why a task should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum CancelReason {
    /// It was revoked with terminate, or cancelled by a command.
    Revoked = 1,
    /// Its soft time limit passed.
    SoftLimit = 2,
    /// The worker stops and its grace period is over.
    Shutdown = 3,
    /// The worker lost its lease: somebody else may be running the task by now.
    LeaseLost = 4,
}

impl CancelReason {
    /// The reason of a code, which is its discriminant.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Revoked, Self::SoftLimit, Self::Shutdown, Self::LeaseLost]
            .into_iter()
            .find(|reason| *reason as u8 == code)
    }
}

/// A signal from the worker to one running task; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancellation {
    token: CancellationToken,
    reason: Arc<AtomicU8>,
    signal: Arc<AtomicI32>,
}

impl Cancellation {
    /// Tells the task to stop. The first reason wins, except that a lost lease overrides all.
    pub fn cancel(&self, reason: CancelReason) {
        let first = self
            .reason
            .compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if !first && reason == CancelReason::LeaseLost {
            self.reason.store(reason as u8, Ordering::Release);
        }
        self.token.cancel();
    }

    /// Which signal its child is to get when it is revoked; operators may name one.
    pub(crate) fn set_signal(&self, signal: i32) {
        self.signal.store(signal, Ordering::Release);
    }

    /// The signal that an operator has named.
    pub(crate) fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }

    /// Why the task should stop, or `None` while it may run.
    pub fn reason(&self) -> Option<CancelReason> {
        CancelReason::from_code(self.reason.load(Ordering::Acquire))
    }

    /// Waits until the task should stop. Cancel safe.
    pub async fn cancelled(&self) -> CancelReason {
        self.token.cancelled().await;
        self.reason().unwrap_or(CancelReason::Revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands_unless_the_lease_is_lost() {
        let cancellation = Cancellation::default();
        assert_eq!(cancellation.reason(), None);
        cancellation.cancel(CancelReason::SoftLimit);
        cancellation.clone().cancel(CancelReason::Revoked);
        assert_eq!(cancellation.reason(), Some(CancelReason::SoftLimit));
        cancellation.cancel(CancelReason::LeaseLost);
        assert_eq!(cancellation.reason(), Some(CancelReason::LeaseLost));
    }
}
