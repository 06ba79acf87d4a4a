//! Remote control: a node hears requests, answers in Celery's shapes, and acts on them.
//!
//! [`answer`] decides, purely, from a [`Snapshot`]; `service` listens, asks the worker's loop for the
//! snapshot, does what the answer asks for, and replies. Nothing here ever holds up work: the loop
//! answers a question from memory, everything that waits is done outside of it. Shapes are compared
//! with captures of real workers in `tests/worker/control.rs`.

mod answer;
mod command;
mod inspect;
pub(super) mod process;
mod python;
pub(super) mod service;
mod snapshot;
mod stats;

pub use answer::answer;
pub use snapshot::{Answer, Deed, Needs, PoolView, ProcessView, Running, Scheduled, Snapshot};

use super::orders::Limits;
use celeriac_wire::Map;
use jiff::tz::TimeZone;
use std::time::Duration;

/// How a worker shows itself to others, and what it tells of itself.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// Whether it listens to remote control (Celery's `worker_enable_remote_control`).
    pub enabled: bool,
    /// Whether it says hello to others at start, where stock workers may be among them.
    pub mingle: bool,
    /// How often it sends a heartbeat event; `None` sends no worker events at all.
    pub heartbeat: Option<Duration>,
    /// The answer to `conf`: settings that somebody has set, secrets masked.
    pub conf: Map,
    /// The other settings, for `conf` with defaults.
    pub conf_defaults: Map,
    /// The answer to `report`.
    pub report: String,
    /// The broker as `stats` shows it.
    pub broker: Map,
    /// The local time zone, which events tell as hours west of UTC.
    pub time_zone: TimeZone,
    /// Limits of tasks that have none of their own.
    pub limits: Limits,
    /// Whether what tasks send is told in events (Celery's `task_send_sent_event`).
    pub sent_events: bool,
}

impl Default for ControlOptions {
    /// Celery's defaults: everything on, heartbeats every two seconds.
    fn default() -> Self {
        Self {
            enabled: true,
            mingle: true,
            heartbeat: Some(Duration::from_secs(2)),
            conf: Map::new(),
            conf_defaults: Map::new(),
            report: String::new(),
            broker: Map::new(),
            time_zone: TimeZone::UTC,
            limits: Limits::default(),
            sent_events: false,
        }
    }
}
