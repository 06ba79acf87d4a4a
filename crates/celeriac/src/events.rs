//! Events as they happen, and what a monitor knows from them: Celery's `celery.events`.

pub use celeriac_core::monitor::{Monitor, TaskState, WorkerState};
pub use celeriac_wire::Event;

use crate::app::App;
use crate::{Ask, Result};
use celeriac_core::event::hours_west;
use celeriac_core::store::EventStream;
use celeriac_core::{Clock, Lamport, StoreError};
use celeriac_wire::Map;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// Hears the events of all workers and clients of a store, stock ones included.
///
/// ```no_run
/// # use celeriac::prelude::*;
/// # async fn watch() -> celeriac::Result {
/// let app = App::from_env()?;
/// let mut events = celeriac::events::EventReceiver::of(&app).await?;
/// loop {
///     events.next().await?;
///     for worker in events.monitor().workers() {
///         println!("{} {:?}", worker.hostname, worker.fields.get("active"));
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct EventReceiver {
    stream: Box<dyn EventStream>,
    clock: Arc<dyn Clock>,
    lamport: Lamport,
    monitor: Monitor,
}

impl EventReceiver {
    /// Listens from now on. Workers are asked to show themselves, as by every monitor of Celery.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn of(app: &App) -> Result<Self> {
        let stream = app.store().await?.watch_events().await?;
        app.remote().await?.cast("heartbeat", Map::new(), &Ask::default()).await?;
        let clock = Arc::clone(app.clock());
        let own = hours_west(&TimeZone::system(), clock.wall());
        let monitor = Monitor::new(own);
        Ok(Self { stream, clock, lamport: Lamport::default(), monitor })
    }

    /// Waits for events, and takes note of them. Cancel safe.
    ///
    /// # Errors
    /// The store does not answer now; it can be asked again, and may have missed events.
    pub async fn next(&mut self) -> std::result::Result<Vec<Event>, StoreError> {
        let mut events = self.stream.next().await?;
        let now = self.clock.wall();
        for event in &mut events {
            // Clients know no logical time: what they send comes before what follows (wire 6.5).
            if event.kind() == Some("task-sent") {
                event.insert("clock", self.lamport.value().saturating_sub(1));
            } else {
                self.lamport.adjust(event.clock().unwrap_or(0));
            }
            self.monitor.heard(event, now);
        }
        Ok(events)
    }

    /// What is known from the events so far.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }
}
