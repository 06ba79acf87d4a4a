//! Beat: sends what is due.
//!
//! Any number of beats run; one leads, by a lease in the store with an epoch. The store keeps every
//! entry with its next time and is asked for what is due: nothing is held here that an edit or another
//! beat could outdate. An occurrence, its entry's next time and its message are one write, which the
//! store refuses to a former leader, for an entry that has changed, and for a time that has a line
//! already (`celeriac_core::beat` decides, `celeriac_core::store::Schedules` writes).

mod outcomes;
mod ping;
mod tick;

use celeriac_core::store::{Lead, Plan, Store};
use celeriac_core::{Clock, StoreError};
use celeriac_wire::Signature;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tick::Ticker;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a rest lasts at most, so that a clock that was set is noticed.
const REST_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two looks that only a change somewhere gives rise to.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a beat waits after the store refused an answer.
const AGAIN: Duration = Duration::from_secs(1);

/// A message that is ready to be written.
pub struct Prepared {
    /// What is written.
    pub plan: Plan,
    /// What is done once it is written: events and hooks. Dropped if it is not.
    pub afterwards: Option<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Turns calls into messages as the application's client does: routes, hooks, sealing.
#[async_trait::async_trait]
pub trait Dispatch: Send + Sync {
    /// Prepares a call.
    ///
    /// # Errors
    /// Why it cannot be sent, in one line.
    async fn prepare(&self, call: Signature) -> Result<Prepared, String>;
}

/// What a beat is made of.
pub struct BeatParts {
    /// Where entries are and messages go.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes messages.
    pub dispatch: Arc<dyn Dispatch>,
    /// Its name among beats, different for each run: its node name, a space, and anything.
    pub name: String,
}

impl fmt::Debug for BeatParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BeatParts")
            .field("store", &self.store)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a beat works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatOptions {
    /// How long a leader that is not heard of keeps the lead (default 6 s).
    pub lease: Duration,
    /// How often the lead is renewed, or asked for (default 2 s).
    pub renew_every: Duration,
    /// Answers `ping` of Celery's remote control, if it worked not longer ago than this; zero for any time
    /// (default: it does not answer).
    pub pings: Option<Duration>,
}

impl Default for BeatOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(6), renew_every: Duration::from_secs(2), pings: None }
    }
}

/// How a beat stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeatStatus {
    /// Whether it leads.
    pub leading: bool,
    /// Who leads, as far as it knows.
    pub leader: Option<Lead>,
    /// When it last did what it is there for: sent what was due, or learned that another one leads.
    pub worked_at: Option<Timestamp>,
    /// How many messages it has sent.
    pub sent: u64,
    /// By how much the latest message that it sent was late.
    pub lateness: Duration,
    /// How often it took the lead.
    pub terms: u64,
}

/// Stops a beat.
#[derive(Clone, Debug)]
pub struct BeatStop(Arc<watch::Sender<bool>>);

impl BeatStop {
    /// Asks it to give the lead back and end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Sends what is due, while it leads.
#[derive(Debug)]
pub struct Beat {
    parts: Arc<BeatParts>,
    options: BeatOptions,
    stop: BeatStop,
    stopped: watch::Receiver<bool>,
    status: watch::Sender<BeatStatus>,
}

impl Beat {
    /// A beat that does nothing yet.
    pub fn new(parts: BeatParts, options: BeatOptions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let status = watch::Sender::new(BeatStatus::default());
        let stop = BeatStop(Arc::new(stop));
        Self { parts: Arc::new(parts), options, stop, stopped, status }
    }

    /// What stops it.
    pub fn stop_handle(&self) -> BeatStop {
        self.stop.clone()
    }

    /// How it stands, as it changes.
    pub fn status(&self) -> watch::Receiver<BeatStatus> {
        self.status.subscribe()
    }

    /// Runs until it is stopped; a store that does not answer is waited for. Dropped, it sends nothing
    /// any more, and another beat leads when its lease has ended.
    pub async fn run(self) -> BeatStatus {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = self.lead() => {}
            () = outcomes::follow(&self.parts, self.status.subscribe()) => {}
            () = self.answer() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        let status = self.status.borrow().clone();
        if let Some(lead) = status.leader.as_ref().filter(|_| status.leading) {
            let resigned = self.parts.store.resign(&self.parts.name, lead.epoch);
            if let Err(error) = tokio::time::timeout(AGAIN, resigned).await.unwrap_or(Ok(())) {
                tracing::debug!(%error, "the lead ends with its lease");
            }
        }
        status
    }

    /// Answers pings, if it is to.
    async fn answer(&self) {
        match self.options.pings {
            Some(age_max) => ping::answer(&self.parts, age_max, self.status.subscribe()).await,
            None => std::future::pending().await,
        }
    }

    /// Asks for the lead, and sends what is due while it has it.
    async fn lead(&self) {
        let mut ticker = Ticker::new(Arc::clone(&self.parts));
        let mut renew_at = Instant::now();
        let mut looked_at = Instant::now();
        loop {
            if Instant::now() >= renew_at {
                renew_at = Instant::now() + self.options.renew_every;
                if let Err(error) = self.renew().await {
                    tracing::warn!(%error, "beat: the store does not say who leads");
                }
            }
            let seen = self.parts.store.changes();
            let epoch = self.epoch();
            let rest = match epoch {
                None => self.options.renew_every,
                Some(epoch) => self.tick(&mut ticker, epoch).await,
            };
            let until = (Instant::now() + rest).min(renew_at);
            let last = std::mem::replace(&mut looked_at, Instant::now());
            if epoch.is_some() {
                // Whatever happens elsewhere in a busy store is not looked at each time.
                tokio::time::sleep_until((last + LOOK_EVERY).min(until)).await;
                let left = until.saturating_duration_since(Instant::now());
                self.parts.store.wait_change(seen, left).await;
            } else {
                tokio::time::sleep_until(until).await;
            }
        }
    }

    fn epoch(&self) -> Option<u64> {
        let status = self.status.borrow();
        status.leader.as_ref().filter(|_| status.leading).map(|lead| lead.epoch)
    }

    /// Takes or renews the lead, or learns who has it.
    async fn renew(&self) -> Result<(), StoreError> {
        let lead = self.parts.store.lead(&self.parts.name, self.options.lease).await?;
        let ours = lead.holder == self.parts.name;
        self.status.send_modify(|status| {
            let same = status.leader.as_ref().map(|old| old.epoch) == Some(lead.epoch);
            if ours && !(status.leading && same) {
                status.terms += 1;
                tracing::info!(epoch = lead.epoch, "beat: this one leads");
            } else if !ours && (status.leading || !same) {
                tracing::info!(leader = %lead.holder, epoch = lead.epoch, "beat: another one leads");
            }
            status.leading = ours;
            status.leader = Some(lead);
            if !ours {
                status.worked_at = Some(self.parts.clock.wall());
            }
        });
        Ok(())
    }

    /// Sends what is due; returns how long there is nothing to do.
    async fn tick(&self, ticker: &mut Ticker, epoch: u64) -> Duration {
        match ticker.tick(epoch).await {
            Ok(tick) => {
                self.status.send_modify(|status| {
                    status.sent += tick.sent;
                    if tick.sent > 0 {
                        status.lateness = tick.lateness;
                    }
                    status.worked_at = Some(tick.at);
                    // Somebody else leads: to be asked for again.
                    status.leading &= !tick.fenced;
                });
                tick.rest.unwrap_or_default().min(REST_MAX)
            }
            Err(error) => {
                tracing::warn!(%error, "beat: what is due cannot be sent now, it is tried again");
                AGAIN
            }
        }
    }
}
