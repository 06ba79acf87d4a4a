//! What the loop answers to remote control, from memory, and what it changes.

use super::Loop;
use crate::worker::autoscale::Autoscaler;
use crate::worker::control::service::Word;
use crate::worker::control::{Deed, PoolView, ProcessView, Running, Snapshot};
use crate::worker::heartbeat::Shape;
use celeriac_wire::Value;
use std::sync::Arc;

impl Loop {
    /// Answers or obeys; `true` when more may be fetched than before.
    pub(super) fn heed(&mut self, word: Word) -> bool {
        match word {
            Word::Look(reply) => {
                // Nobody waits any more, if the request took too long.
                let _gone = reply.send(self.snapshot());
                false
            }
            Word::Do(deed, done) => {
                let more = self.change(deed);
                let _gone = done.send(());
                more
            }
        }
    }

    fn change(&mut self, deed: Deed) -> bool {
        match deed {
            Deed::Rate { task, rate } => {
                tracing::info!(task, ?rate, "rate limit changed by remote control");
                self.rates.set(&task, rate);
            }
            Deed::Limits { task, limits } => {
                tracing::info!(task, ?limits, "time limits changed by remote control");
                self.machine.orders_mut().set_limits(&task, limits);
            }
            Deed::RevokeStamps { header, stamps } => {
                self.machine.orders_mut().revoke_stamps(&header, &stamps);
            }
            Deed::Consume(binding) => {
                if !self.queues.contains(&binding.queue) {
                    tracing::info!(queue = %binding.queue, "consuming a queue by remote control");
                    self.queues.push(binding.queue.clone());
                    self.bindings.push(binding);
                }
            }
            Deed::Cancel(queue) => {
                tracing::info!(%queue, "consuming a queue no longer, by remote control");
                self.queues.retain(|name| *name != queue);
                self.bindings.retain(|binding| binding.queue != queue);
            }
            Deed::Revoke { ids, signal: Some(signal), .. } => {
                for task in self.in_flight.values() {
                    let id = task.delivery.message.headers.id().unwrap_or_default();
                    if ids.iter().any(|one| one == id) {
                        task.cancellation.set_signal(signal);
                    }
                }
                return false;
            }
            Deed::Resize(slots) => {
                tracing::info!(slots, "pool resized by remote control");
                self.resize(slots);
            }
            Deed::Autoscale { max, min } => {
                if let Some(scaler) = &mut self.scaler {
                    tracing::info!(max, min, "autoscale changed by remote control");
                    scaler.set(max, min);
                }
            }
            // The others are not the loop's.
            _ => return false,
        }
        self.tell_shape();
        true
    }

    /// Has so many slots from now on.
    fn resize(&mut self, slots: usize) {
        self.machine.resize(slots);
        if let Some(pool) = &self.pool {
            pool.resize(slots);
        }
    }

    fn tell_shape(&self) {
        let slots = u32::try_from(self.machine.slots()).unwrap_or(u32::MAX);
        self.heartbeat.pulse.set_shape(Shape { queues: self.bindings.clone(), slots });
    }

    /// Has the slots follow the load, where that is wanted; `true` when there are more than before.
    pub(super) fn scale(&mut self) -> bool {
        let (slots, busy) = (self.machine.slots(), self.machine.active());
        let now = self.worker().clock.boot();
        let Some(wanted) = self.scaler.as_mut().and_then(|one| one.reckon(slots, busy, now)) else {
            return false;
        };
        // Celery's words, worker/autoscale.py of 5.7.
        if wanted > slots {
            tracing::info!("Scaling up {} processes.", wanted - slots);
        } else {
            tracing::info!("Scaling down {} processes.", slots - wanted);
        }
        self.resize(wanted);
        self.tell_shape();
        wanted > slots
    }

    fn snapshot(&self) -> Snapshot {
        let worker = self.worker();
        let pool = self.pool_view();
        let by_task = self.pool.as_ref().map(|pool| pool.busy()).unwrap_or_default();
        let running = self.in_flight.values().map(|task| {
            let id = task.delivery.message.headers.id().unwrap_or_default();
            let pid = match &self.pool {
                None => Some(std::process::id()),
                Some(_) => by_task.get(id).copied(),
            };
            Running { delivery: Arc::clone(&task.delivery), started_at: task.ran.started_at, pid }
        });
        let lamport = self.shared.emitter.lamport();
        Snapshot {
            node: Arc::clone(&self.shared.node),
            pid: std::process::id(),
            clock: lamport.value(),
            uptime: worker.clock.boot().saturating_sub(self.began),
            options: Arc::clone(&self.control),
            registry: Arc::clone(&worker.registry),
            queues: self.bindings.clone(),
            router: Arc::clone(&worker.router),
            pool,
            running: running.collect(),
            totals: self.totals.clone(),
            rates: self.rates.all(),
            orders: self.machine.orders().clone(),
            autoscale: self.scaler.as_ref().map(Autoscaler::bounds),
            task_events: self.shared.emitter.task_events(),
            scheduled: Vec::new(),
            revoked: Vec::new(),
            rusage: Value::Null,
            memory: None,
            samples: Vec::new(),
        }
    }

    fn pool_view(&self) -> PoolView {
        let slots = self.machine.slots();
        if let Some(pool) = &self.pool {
            let (processes, tasks_max) = (pool.processes(), pool.tasks_max());
            return PoolView { kind: "process", slots, processes, tasks_max };
        }
        let (taken, busy) = (self.totals.values().sum(), self.machine.active() > 0);
        let own = ProcessView { pid: std::process::id(), taken, busy };
        PoolView { kind: "async", slots, processes: vec![own], tasks_max: None }
    }
}
