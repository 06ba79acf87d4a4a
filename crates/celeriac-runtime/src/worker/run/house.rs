//! What a worker does beside its tasks.

use crate::worker::Worker;
use crate::worker::control::ControlOptions;
use crate::worker::control::service::{Service, Word};
use crate::worker::emitter::{Emitter, EmitterOptions, beat};
use crate::worker::heartbeat::Pulse;
use crate::worker::peers::Peers;
use crate::worker::spill::{self, Spill};
use celeriac_core::Clock;
use celeriac_core::store::{ChordFinisher, NodeInfo, Store};
use jiff::SignedDuration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What the node says of itself when it registers.
pub(super) fn node_info(worker: &Worker, processes: bool) -> NodeInfo {
    let options = &worker.options;
    NodeInfo {
        name: options.name.clone(),
        pid: std::process::id(),
        queues: options.queues.clone(),
        concurrency: options.concurrency as u32,
        pool: if processes { "process" } else { "async" }.to_owned(),
        times: options.lease_times,
        tasks: worker.registry.names(),
    }
}

/// How its events are written.
pub(super) fn emitter_options(worker: &Worker, node: &Arc<str>) -> EmitterOptions {
    let control = &worker.options.control;
    EmitterOptions {
        clock: Arc::clone(&worker.clock),
        zone: control.time_zone.clone(),
        hostname: Arc::clone(node),
        task_events: worker.options.task_events,
        sent_events: control.sent_events,
        hide_values: worker.registry.seals().hide(),
    }
}

/// Starts what a worker does beside its tasks until it begins to sign off.
pub(super) fn keep_house(
    worker: &Worker,
    node: &Arc<str>,
    control: &Arc<ControlOptions>,
    emitter: &Emitter,
    pulse: &Arc<Pulse>,
    words: mpsc::Sender<Word>,
    peers: Peers,
) -> JoinSet<()> {
    let mut house = JoinSet::new();
    house.spawn(worker.background.prepare(peers.serve()));
    if let Some(spill) = worker.spill.clone()
        && worker.store.limits().dead_expires.is_some()
    {
        let (store, clock) = (Arc::clone(&worker.store), Arc::clone(&worker.clock));
        let keeping = keep_young(store, clock, spill, Arc::clone(pulse));
        house.spawn(worker.background.prepare(keeping));
    }
    if let Some(period) = control.heartbeat {
        let beating = beat(emitter.clone(), Arc::clone(pulse), period);
        house.spawn(worker.background.prepare(beating));
    }
    if control.enabled {
        let service = Service {
            node: Arc::clone(node),
            store: Arc::clone(&worker.store),
            clock: Arc::clone(&worker.clock),
            entropy: Arc::clone(&worker.entropy),
            options: Arc::clone(control),
            emitter: emitter.clone(),
            pulse: Arc::clone(pulse),
            words,
            stop: worker.stop_handle(),
            samples: VecDeque::new(),
        };
        house.spawn(worker.background.prepare(service.serve()));
    }
    house
}

/// Has chords completed that wait in vain, if that is wanted.
pub(super) fn keep_chords(house: &mut JoinSet<()>, worker: &Worker, finisher: &ChordFinisher) {
    let Some(quiet) = worker.options.chord_expires else { return };
    let (store, clock) = (Arc::clone(&worker.store), Arc::clone(&worker.clock));
    let completing = complete_chords(store, clock, Arc::clone(finisher), quiet);
    house.spawn(worker.background.prepare(completing));
}

/// How often chords are looked for that wait in vain, at most.
const CHORDS_EVERY: Duration = Duration::from_mins(1);
/// The most such chords that are ended at once.
const CHORDS_MAX: usize = 100;

/// Ends chords that wait for members of whom nobody hears: purged ones, and those of stock workers that were
/// killed.
async fn complete_chords(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    finisher: ChordFinisher,
    quiet: Duration,
) {
    loop {
        tokio::time::sleep(CHORDS_EVERY.min(quiet / 4)).await;
        let before = clock.wall().checked_sub(SignedDuration::try_from(quiet).unwrap_or_default());
        let Ok(before) = before else { continue };
        let stalled = match store.stalled_chords(before, CHORDS_MAX).await {
            Ok(stalled) => stalled,
            Err(error) => {
                tracing::warn!(%error, "cannot look for chords that wait in vain");
                continue;
            }
        };
        for chord in stalled {
            let (group, missing) = (chord.group.clone(), chord.missing());
            match store.publish(chord.completed(quiet), Some(Arc::clone(&finisher))).await {
                Ok(_) => {
                    let seconds = quiet.as_secs();
                    tracing::error!(
                        group,
                        missing,
                        seconds,
                        "members of a chord are lost; it has ended"
                    );
                }
                Err(error) => {
                    tracing::warn!(group, %error, "cannot end a chord that waits in vain");
                }
            }
        }
    }
}

/// Moves dead letters out of the store when they have been there for long enough.
async fn keep_young(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    spill: Arc<dyn Spill>,
    pulse: Arc<Pulse>,
) {
    loop {
        let moved = match spill::move_aged(&*store, &spill, pulse.node(), clock.wall()).await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::warn!(%error, "cannot move aged dead letters to the spill file");
                0
            }
        };
        if moved > 0 {
            tracing::info!(moved, "aged dead letters are in the spill file");
        }
        tokio::time::sleep(spill::pause_of(moved, &*store)).await;
    }
}

pub(super) fn host_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(_, host)| host)
}
