//! `/metrics`: what Prometheus scrapes. Queues and nodes come from the store at the moment of the scrape,
//! tasks from events. Labels are bounded: names of tasks and queues beyond a number are `other`, and
//! workers are none.

mod names;
mod tally;

pub(crate) use names::reference;
pub(crate) use tally::Tally;

use crate::problem::Problem;
use crate::server::Shared;
use crate::watch::Watch;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use celeriac_core::StoreError;
use celeriac_core::clock::between;
use celeriac_core::store::{Lead, NodeView, QueueView, Store};
use names::{Name, OTHER, QUEUES_MAX, describe};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Labels with their values.
pub(crate) type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Gauge>;

/// The store is asked at most so often, however many scrape.
const FRESH: Duration = Duration::from_secs(1);
/// What a scrape answers with: `OpenMetrics` text, which Prometheus has read since 2.5.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry and what is written into it at each scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    gauges: Gauges,
    watch: Watch,
    /// When the store was asked last; one scrape at a time writes the gauges.
    scraped: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Gauges {
    store_up: Gauge,
    queue_length: Count,
    ready: Count,
    scheduled: Count,
    leased: Count,
    dead: Count,
    oldest: Family<Labels, Gauge<f64, AtomicU64>>,
    consumers: Count,
    paused: Count,
    workers: Count,
    slots: Gauge,
    active: Gauge,
    leader: Gauge,
    entries: Gauge,
    overdue: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new(watch: Watch) -> Self {
        let mut registry = Registry::default();
        let gauges = Gauges::default();
        let mut add = |name: Name, gauge: &Count| describe(&mut registry, name, gauge.clone());
        add(Name::QueueLength, &gauges.queue_length);
        add(Name::QueueReady, &gauges.ready);
        add(Name::QueueScheduled, &gauges.scheduled);
        add(Name::QueueLeased, &gauges.leased);
        add(Name::DeadLetters, &gauges.dead);
        add(Name::QueueConsumers, &gauges.consumers);
        add(Name::QueuePaused, &gauges.paused);
        add(Name::Workers, &gauges.workers);
        describe(&mut registry, Name::QueueOldest, gauges.oldest.clone());
        describe(&mut registry, Name::StoreUp, gauges.store_up.clone());
        describe(&mut registry, Name::WorkerSlots, gauges.slots.clone());
        describe(&mut registry, Name::WorkerActive, gauges.active.clone());
        describe(&mut registry, Name::BeatLeader, gauges.leader.clone());
        describe(&mut registry, Name::ScheduleEntries, gauges.entries.clone());
        describe(&mut registry, Name::ScheduleNext, gauges.overdue.clone());
        watch.heard().tally.register(&mut registry);
        Self { registry, gauges, watch, scraped: Mutex::default() }
    }

    /// Asks the store, unless that was just done. A store that does not answer is a metric, no error.
    async fn refresh(&self, shared: &Shared) {
        let mut scraped = self.scraped.lock().await;
        if scraped.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let store = &shared.parts.store;
        let (queues, nodes) = (store.queues().await, store.nodes().await);
        let gauges = &self.gauges;
        let (schedule, now) = (Schedule::of(&**store).await, shared.parts.clock.wall());
        gauges.store_up.set(i64::from(queues.is_ok() && nodes.is_ok() && schedule.is_ok()));
        gauges.clear();
        if let Ok(queues) = queues {
            gauges.queues(queues, now);
        }
        if let Ok(schedule) = schedule {
            gauges.schedule(&schedule, now);
        }
        if let Ok(nodes) = nodes {
            gauges.nodes(&nodes);
        }
        *scraped = Some(Instant::now());
    }
}

/// What a scrape says of the schedule.
struct Schedule {
    leader: Option<Lead>,
    count: u64,
    next: Option<jiff::Timestamp>,
}

impl Schedule {
    async fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let (leader, count) = (store.leader().await?, store.entry_count().await?);
        Ok(Self { leader, count, next: store.next_wake().await? })
    }
}

impl Gauges {
    /// Numbers that are not known are left out: an old number would be a lie.
    fn clear(&self) {
        let counts = [
            &self.queue_length,
            &self.ready,
            &self.scheduled,
            &self.leased,
            &self.dead,
            &self.consumers,
            &self.paused,
            &self.workers,
        ];
        counts.into_iter().for_each(Family::clear);
        self.oldest.clear();
    }

    fn queues(&self, mut queues: Vec<QueueView>, now: jiff::Timestamp) {
        // The fullest keep their names.
        queues.sort_by_key(|queue| {
            (std::cmp::Reverse(queue.ready + queue.leased), queue.name.clone())
        });
        for (index, queue) in queues.iter().enumerate() {
            let name = if index < QUEUES_MAX { queue.name.as_str() } else { OTHER };
            let labels: Labels = vec![("queue", name.to_owned())];
            let add = |family: &Count, count: u64| {
                family.get_or_create(&labels).inc_by(count as i64);
            };
            add(&self.queue_length, queue.ready);
            add(&self.ready, queue.ready);
            add(&self.scheduled, queue.scheduled);
            add(&self.leased, queue.leased);
            add(&self.dead, queue.dead);
            add(&self.consumers, queue.consumers.len() as u64);
            add(&self.paused, u64::from(queue.paused));
            let age = queue.oldest.map_or(0.0, |at| between(at, now).as_secs_f64());
            let oldest = self.oldest.get_or_create(&labels);
            oldest.set(oldest.get().max(age));
        }
    }

    fn schedule(&self, schedule: &Schedule, now: jiff::Timestamp) {
        self.leader.set(schedule.leader.as_ref().map_or(0, |lead| lead.epoch as i64));
        self.entries.set(schedule.count as i64);
        let overdue = schedule.next.map_or(0.0, |next| between(next, now).as_secs_f64());
        self.overdue.set(overdue);
    }

    fn nodes(&self, nodes: &[NodeView]) {
        let alive = nodes.iter().filter(|node| node.alive);
        let sum =
            |count: fn(&NodeView) -> u32| alive.clone().map(|node| i64::from(count(node))).sum();
        self.slots.set(sum(|node| node.info.concurrency));
        self.active.set(sum(|node| node.heartbeat.active));
        for (state, alive) in [("alive", true), ("gone", false)] {
            let count = nodes.iter().filter(|node| node.alive == alive).count();
            self.workers.get_or_create(&vec![("state", state.to_owned())]).set(count as i64);
        }
    }
}

/// Metrics for Prometheus
///
/// `OpenMetrics` text; the names are on the page of the metrics.
#[utoipa::path(
    get, path = "/metrics", tag = "observe", security(("token" = ["viewer"])),
    responses((status = 200, description = "OpenMetrics text", body = String,
        content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let metrics = &shared.metrics;
    metrics.watch.begin();
    metrics.refresh(&shared).await;
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| {
        let text = format!("the metrics cannot be written: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
