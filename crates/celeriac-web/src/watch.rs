//! Hears the events of the whole fleet: for metrics, and to know workers that are not ours.

use crate::metrics::Tally;
use crate::options::WebParts;
use celeriac_core::Clock;
use celeriac_core::monitor::Monitor;
use celeriac_core::store::Store;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How long a listener that failed waits before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// What was heard. Clones share it.
#[derive(Clone)]
pub(crate) struct Watch {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    heard: Arc<Mutex<Heard>>,
    listener: Arc<Mutex<Listener>>,
}

/// Ends its task with the server.
#[derive(Default)]
struct Listener(Option<AbortHandle>);

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Everything that events told.
pub(crate) struct Heard {
    pub(crate) monitor: Monitor,
    pub(crate) tally: Tally,
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(parts: &WebParts) -> Self {
        let heard = Heard { monitor: Monitor::new(0.0), tally: Tally::default() };
        Self {
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            heard: Arc::new(Mutex::new(heard)),
            listener: Arc::default(),
        }
    }

    /// Begins to listen, unless it does already.
    pub(crate) fn begin(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.0.is_none() {
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            let task = tokio::spawn(listen(store, clock, Arc::clone(&self.heard)));
            listener.0 = Some(task.abort_handle());
        }
    }

    /// What was heard so far.
    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens until it is dropped.
async fn listen(store: Arc<dyn Store>, clock: Arc<dyn Clock>, heard: Arc<Mutex<Heard>>) {
    let mut failed = false;
    loop {
        let error = match store.watch_events().await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(events) => {
                        failed = false;
                        let now = clock.wall();
                        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                        let Heard { monitor, tally } = &mut *heard;
                        for event in &events {
                            tally.event(event, monitor);
                            monitor.heard(event, now);
                        }
                    }
                    Err(error) => break error,
                }
            },
        };
        if !failed {
            tracing::warn!(%error, "events are not heard, listening anew");
        }
        failed = true;
        heard.lock().unwrap_or_else(PoisonError::into_inner).tally.interrupted();
        tokio::time::sleep(PAUSE).await;
    }
}
