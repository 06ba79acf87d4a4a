//! Sends events from a bounded buffer: work never waits for them, and what is dropped is counted.
//!
//! A worker's own events are always sent, those of its tasks while somebody wants them (Celery's
//! `-E`, `enable_events`, `disable_events`).

use super::control::process::load_average;
use super::heartbeat::Pulse;
use celeriac_core::conclude::Verdict;
use celeriac_core::event::{hours_west, task_sent};
use celeriac_core::outcome::TracedEvent;
use celeriac_core::seal::HIDDEN;
use celeriac_core::store::{Delivery, Outgoing, Store};
use celeriac_core::{Clock, Lamport};
use celeriac_wire::event::{TaskReceived, TaskRevoked, WorkerStatus};
use celeriac_wire::{Event, EventBase, Map, Value};
use jiff::tz::TimeZone;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// The period that Celery names in a heartbeat that was asked for (celery 5.7.0 worker/control.py
/// `heartbeat`).
const ASKED_FREQ: f64 = 5.0;

/// Where the worker drops its events.
#[derive(Clone, Debug)]
pub(super) struct Emitter {
    sender: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    task_events: AtomicBool,
    sent_events: bool,
    hide_values: bool,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    hostname: Arc<str>,
    lamport: Lamport,
    /// Events wait in the order of their clock, whichever thread they come from.
    order: Mutex<()>,
}

/// What an emitter is made from.
pub(super) struct EmitterOptions {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) zone: TimeZone,
    pub(super) hostname: Arc<str>,
    pub(super) task_events: bool,
    pub(super) sent_events: bool,
    /// Values are not shown.
    pub(super) hide_values: bool,
}

impl Emitter {
    /// Starts sending; the returned future ends when every clone of the emitter is gone.
    pub(super) fn new(
        store: Arc<dyn Store>,
        options: EmitterOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let EmitterOptions { clock, zone, hostname, task_events, sent_events, hide_values } =
            options;
        let shared = Arc::new(Shared {
            dropped: AtomicU64::new(0),
            task_events: AtomicBool::new(task_events),
            sent_events,
            hide_values,
            clock,
            zone,
            hostname,
            lamport: Lamport::default(),
            order: Mutex::default(),
        });
        (Self { sender, shared }, record(store, receiver))
    }

    /// How many events were dropped because the buffer was full.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// The node's logical clock, which its events, replies and requests share.
    pub(super) fn lamport(&self) -> &Lamport {
        &self.shared.lamport
    }

    /// Whether task events are sent.
    pub(super) fn task_events(&self) -> bool {
        self.shared.task_events.load(Ordering::Relaxed)
    }

    pub(super) fn set_task_events(&self, on: bool) {
        self.shared.task_events.store(on, Ordering::Relaxed);
    }

    /// Sends an event of a task.
    fn emit(&self, make: impl FnOnce(&EventBase) -> Event) {
        if self.task_events() {
            self.send(make);
        }
    }

    fn send(&self, make: impl FnOnce(&EventBase) -> Event) {
        let Ok(permit) = self.sender.try_reserve() else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let shared = &*self.shared;
        let _order = shared.order.lock().unwrap_or_else(PoisonError::into_inner);
        let timestamp = shared.clock.wall();
        permit.send(make(&EventBase {
            hostname: shared.hostname.to_string(),
            utcoffset: hours_west(&shared.zone, timestamp),
            pid: std::process::id(),
            clock: shared.lamport.forward(),
            timestamp,
        }));
    }

    /// The worker has started.
    pub(super) fn online(&self, beat: Beat) {
        self.send(|base| Event::worker_online(base, &beat.status()));
    }

    /// The worker lives.
    pub(super) fn heartbeat(&self, beat: Beat) {
        self.send(|base| Event::worker_heartbeat(base, &beat.status()));
    }

    /// The worker stops.
    pub(super) fn offline(&self, beat: Beat) {
        self.send(|base| Event::worker_offline(base, &beat.status()));
    }

    /// A heartbeat that somebody asked for: it says only who lives.
    pub(super) fn asked_heartbeat(&self) {
        self.send(|base| {
            let mut fields = Map::from([("freq", ASKED_FREQ)]);
            fields.extend(software());
            Event::new("worker-heartbeat", base, fields)
        });
    }

    /// What a settlement will send, if that is to be told.
    pub(super) fn to_be_sent(&self, outgoing: &[Outgoing]) -> Vec<Outgoing> {
        if self.shared.sent_events { outgoing.to_vec() } else { Vec::new() }
    }

    /// What a settlement has sent.
    pub(super) fn sent(&self, outgoing: &[Outgoing]) {
        for one in outgoing {
            self.send(|base| task_sent(base, one));
        }
    }

    pub(super) fn received(&self, delivery: &Delivery) {
        let headers = &delivery.message.headers;
        self.emit(|base| {
            Event::task_received(
                base,
                &TaskReceived {
                    uuid: headers.id().unwrap_or_default(),
                    name: headers.shown_name().unwrap_or_default(),
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

    /// Records how a task ended, in the words of Celery itself.
    pub(super) fn traced(&self, id: &str, events: &[TracedEvent]) {
        for event in events {
            self.emit(|base| {
                let mut fields = event.fields.clone();
                fields.insert("uuid", id);
                Event::new(&event.kind, base, fields)
            });
        }
    }

    /// Records how a task ended, in the event that Celery sends for it.
    pub(super) fn ended(&self, id: &str, verdict: &Verdict, runtime: Duration) {
        match verdict {
            Verdict::Succeeded(value) => self.emit(|base| {
                let text: String = if self.shared.hide_values {
                    HIDDEN.to_owned()
                } else {
                    value.repr().chars().take(RESULT_CHARS_MAX).collect()
                };
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
            Verdict::Snoozed { at } => self.emit(|base| Event::task_snoozed(base, id, *at)),
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

/// What a worker's own events tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// The time between two.
    pub(super) period: Duration,
    /// Tasks that run.
    pub(super) active: u64,
    /// Tasks that ended.
    pub(super) processed: u64,
}

impl Beat {
    fn status(self) -> WorkerStatus {
        let [(_, ident), (_, version), (_, system)] = software();
        WorkerStatus {
            freq: self.period.as_secs_f64(),
            active: self.active,
            processed: self.processed,
            loadavg: load_average(),
            sw_ident: ident.to_owned(),
            sw_ver: version.to_owned(),
            sw_sys: system.to_owned(),
        }
    }
}

/// What a worker is (celery 5.7.0 worker/state.py `SOFTWARE_INFO`).
fn software() -> [(&'static str, &'static str); 3] {
    let system = if cfg!(target_os = "macos") { "Darwin" } else { "Linux" };
    [("sw_ident", "celeriac"), ("sw_ver", env!("CARGO_PKG_VERSION")), ("sw_sys", system)]
}

/// Sends a worker's own events until it is dropped.
pub(super) async fn beat(emitter: Emitter, pulse: Arc<Pulse>, period: Duration) {
    emitter.online(pulse.beat(period));
    loop {
        tokio::time::sleep(period).await;
        emitter.heartbeat(pulse.beat(period));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_several_threads_wait_in_the_order_of_their_clock() {
        const THREADS: usize = 4;
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let shared = Shared {
            dropped: AtomicU64::new(0),
            task_events: AtomicBool::new(true),
            sent_events: false,
            hide_values: false,
            clock: Arc::new(crate::SystemClock),
            zone: TimeZone::UTC,
            hostname: Arc::from("w1@a"),
            lamport: Lamport::default(),
            order: Mutex::default(),
        };
        let emitter = Emitter { sender, shared: Arc::new(shared) };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..WAITING_MAX / THREADS).for_each(|_| emitter.started("an-id")));
            }
        });
        let clocks = std::iter::from_fn(|| receiver.try_recv().ok()?.clock());
        assert!(clocks.eq(1..=WAITING_MAX as u64), "none is out of place");
    }
}
