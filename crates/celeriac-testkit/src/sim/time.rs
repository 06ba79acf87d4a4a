//! Clocks and the gate of a simulated node: its time of day jumps, and it can be frozen.

use celeriac_core::Clock;
use jiff::{SignedDuration, Timestamp};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long the simulated machine has been up when a simulation begins.
const UPTIME: Duration = Duration::from_hours(1);

/// The clock of one node: the runtime's paused time, and a time of day that can be moved.
#[derive(Debug)]
pub(crate) struct NodeClock {
    start: tokio::time::Instant,
    morning: Timestamp,
    offset_seconds: AtomicI64,
}

impl NodeClock {
    pub(crate) fn new(start: tokio::time::Instant) -> Self {
        let morning = "2026-11-21T08:00:00Z".parse().expect("an RFC 3339 instant");
        Self { start, morning, offset_seconds: AtomicI64::new(0) }
    }

    /// Shows this many seconds more than the truth from now on.
    pub(crate) fn jump(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn offset(&self) -> i64 {
        self.offset_seconds.load(Ordering::Relaxed)
    }
}

impl Clock for NodeClock {
    fn wall(&self) -> Timestamp {
        let elapsed = celeriac_core::clock::after(self.morning, self.start.elapsed());
        elapsed.saturating_add(SignedDuration::from_secs(self.offset())).unwrap_or(elapsed)
    }

    fn boot(&self) -> Duration {
        UPTIME + self.start.elapsed()
    }
}

#[derive(Debug, Default)]
struct Ice {
    frozen: bool,
    waiting: Vec<Waker>,
}

/// Stops everything that is polled through it, as SIGSTOP stops a process. Timers run out
/// meanwhile; nobody sees it before the thaw.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Ice>);

impl Gate {
    pub(crate) fn freeze(&self) {
        self.lock().frozen = true;
    }

    pub(crate) fn thaw(&self) {
        let waiting = {
            let mut ice = self.lock();
            ice.frozen = false;
            std::mem::take(&mut ice.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// The same future, which does not go on while the gate is frozen.
    pub(crate) fn hold<T>(
        self: &Arc<Self>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        Gated { gate: Arc::clone(self), future: Box::pin(future) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Gated<F> {
    gate: Arc<Gate>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut ice = self.gate.lock();
            if ice.frozen {
                if !ice.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    ice.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
        }
        self.future.as_mut().poll(context)
    }
}
