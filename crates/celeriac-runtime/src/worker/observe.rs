//! What a worker tells those who listen inside its own process.

use celeriac_core::conclude::Verdict;
use celeriac_core::store::Delivery;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened in a worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// It takes tasks from now on.
    Ready,
    /// It takes no more.
    Stopping,
    /// Everything it started has ended and is written.
    Stopped,
    /// A task is handed to its slot.
    Received(Arc<Delivery>),
    /// The end of a delivery is written.
    Ended {
        /// What was delivered.
        delivery: Arc<Delivery>,
        /// How it ended.
        verdict: Verdict,
        /// When it ended.
        at: Timestamp,
        /// How long it ran; nothing for what was never begun.
        runtime: Duration,
        /// The worker's node name.
        worker: Arc<str>,
    },
}

/// Listens to a worker. What is told stands in the store already.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Takes a notice. Called from the worker's loop: it must not block.
    fn notice(&self, notice: Notice);

    /// Whether it is behind: then the worker fetches nothing new, so that no notice has to be dropped.
    fn is_behind(&self) -> bool {
        false
    }

    /// Waits until everything that was told has been dealt with, for a bounded time.
    fn finish(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
