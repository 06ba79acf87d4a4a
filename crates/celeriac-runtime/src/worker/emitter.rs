//! Records events from a bounded buffer: work never waits for them, and what is dropped is counted.

use celeriac_core::Clock;
use celeriac_core::conclude::Verdict;
use celeriac_core::store::{Delivery, Store};
use celeriac_wire::event::{TaskReceived, TaskRevoked};
use celeriac_wire::{Event, EventBase, Value, value_repr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// The most events that wait to be recorded.
const WAITING_MAX: usize = 10_000;
/// The most events in one write.
const BATCH_MAX: usize = 1000;
/// Events are collected for so long before they are written.
const COLLECT: Duration = Duration::from_millis(50);
/// The longest text of a result in an event (Celery 5.7: `saferepr`, 1024 characters).
const RESULT_CHARS_MAX: usize = 1024;

/// Where the worker drops its events.
#[derive(Clone, Debug)]
pub(super) struct Emitter {
    sender: Option<mpsc::Sender<Event>>,
    dropped: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    hostname: Arc<str>,
    lamport: Arc<AtomicU64>,
}

impl Emitter {
    /// Starts recording; the returned future ends when every clone of the emitter is gone.
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        hostname: Arc<str>,
        enabled: bool,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let emitter = Self {
            sender: enabled.then_some(sender),
            dropped: Arc::default(),
            clock,
            hostname,
            lamport: Arc::default(),
        };
        (emitter, record(store, receiver))
    }

    /// How many events were dropped because the buffer was full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn emit(&self, make: impl FnOnce(&EventBase) -> Event) {
        let Some(sender) = &self.sender else { return };
        let Ok(permit) = sender.try_reserve() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        permit.send(make(&EventBase {
            hostname: self.hostname.to_string(),
            utcoffset: 0.0,
            pid: std::process::id(),
            clock: self.lamport.fetch_add(1, Ordering::Relaxed) + 1,
            timestamp: self.clock.wall(),
        }));
    }

    pub(super) fn received(&self, delivery: &Delivery) {
        let headers = &delivery.message.headers;
        self.emit(|base| {
            Event::task_received(
                base,
                &TaskReceived {
                    uuid: headers.id().unwrap_or_default(),
                    name: headers.task().unwrap_or_default(),
                    args: headers.argsrepr().unwrap_or_default(),
                    kwargs: headers.kwargsrepr().unwrap_or_default(),
                    root_id: headers.root_id(),
                    parent_id: headers.parent_id(),
                    retries: headers.retries(),
                    eta: headers.get("eta").and_then(|eta| eta.as_str()),
                    expires: headers.get("expires").and_then(|expires| expires.as_str()),
                },
            )
        });
    }

    pub(super) fn started(&self, id: &str) {
        self.emit(|base| Event::task_started(base, id));
    }

    /// Records how a task ended, in the event that Celery sends for it.
    pub(super) fn ended(&self, id: &str, verdict: &Verdict, runtime: Duration) {
        match verdict {
            Verdict::Succeeded(value) => self.emit(|base| {
                let text: String = value_repr(value).chars().take(RESULT_CHARS_MAX).collect();
                Event::task_succeeded(base, id, &text, runtime.as_secs_f64())
            }),
            Verdict::Failed(failure) => self.emit(|base| {
                Event::task_failed(
                    base,
                    id,
                    &failure.exception.summary(),
                    failure.traceback.as_deref(),
                )
            }),
            Verdict::Retried { failure, .. } => self.emit(|base| {
                let traceback = failure.traceback.as_deref().unwrap_or_default();
                Event::task_retried(base, id, &failure.exception.summary(), traceback)
            }),
            Verdict::Revoked { terminated, expired } => self.emit(|base| {
                let (terminated, expired) = (*terminated, *expired);
                Event::task_revoked(
                    base,
                    id,
                    &TaskRevoked { terminated, signum: Value::Null, expired },
                )
            }),
            Verdict::Rejected { requeue } => {
                self.emit(|base| Event::task_rejected(base, id, *requeue));
            }
            Verdict::Returned | Verdict::ChildLost(_) => {
                self.emit(|base| Event::task_cancelled(base, id));
            }
            _ => {}
        }
    }
}

async fn record(store: Arc<dyn Store>, mut receiver: mpsc::Receiver<Event>) {
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Half-full batches wait a moment: one write for many events.
        let collect = tokio::time::sleep(COLLECT);
        tokio::pin!(collect);
        while batch.len() < BATCH_MAX {
            let left = BATCH_MAX - batch.len();
            tokio::select! {
                biased;
                // Cancel safe: recv_many loses nothing when it is dropped.
                count = receiver.recv_many(&mut batch, left) => if count == 0 { break },
                () = &mut collect => break,
            }
        }
        if let Err(error) = store.emit(std::mem::take(&mut batch)).await {
            tracing::warn!(%error, "cannot record events");
        }
    }
}
