//! What happens to the worker, for the app's receivers of signals of Celery's main process.

use super::Loop;
use crate::pool::News;
use crate::worker::{Asked, Notice};
use celeriac_core::conclude::is_expired;
use celeriac_core::store::Delivery;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// News on their way. A receiver that is slow misses heartbeats.
const UNDER_WAY_MAX: usize = 4;

/// Who tells the app.
pub(super) struct Herald {
    under_way: JoinSet<()>,
    beats: Option<Interval>,
    /// Nobody listens to heartbeats.
    deaf: bool,
    last: Option<&'static str>,
    /// Observers know that the worker stops.
    stopping: bool,
}

impl Herald {
    /// `period`: the time between two heartbeats, where there are any.
    pub(super) fn new(period: Option<Duration>) -> Self {
        let beats = period.filter(|period| !period.is_zero()).map(|period| {
            let mut beats = interval(period);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        });
        Self { under_way: JoinSet::new(), beats, deaf: false, last: None, stopping: false }
    }

    /// Waits until a heartbeat is to be told. Cancel safe.
    pub(super) async fn beat(&mut self) {
        match &mut self.beats {
            Some(beats) if !self.deaf => {
                beats.tick().await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Everything else is told by now; the last word follows.
    pub(super) async fn finish(mut self, last: Option<BoxFuture<'static, ()>>) {
        while self.under_way.join_next().await.is_some() {}
        if let Some(last) = last {
            last.await;
        }
    }
}

impl Loop {
    /// Has the app told, if it listens; the worker does not wait for it.
    pub(super) fn announce(&mut self, news: News) {
        let herald = &mut self.herald;
        while herald.under_way.try_join_next().is_some() {}
        let beats = news == News::Heartbeat;
        if beats && herald.under_way.len() >= UNDER_WAY_MAX {
            return;
        }
        match self.pool.as_ref().and_then(|pool| pool.announce(news)) {
            Some(telling) => drop(herald.under_way.spawn(telling)),
            None => herald.deaf |= beats,
        }
    }

    /// What has expired when it comes is only revoked; what waited for its time was received before
    /// (celery 5.7.0 worker/strategy.py).
    pub(super) fn comes_too_late(&self, delivery: &Delivery) -> bool {
        let headers = &delivery.message.headers;
        let waited = headers.eta().ok().flatten().is_some();
        !waited && is_expired(headers.expires().ok().flatten(), self.worker().clock.wall())
    }

    /// A stop is told when a signal asked for it, as in Celery.
    pub(super) fn heard_stop(&mut self, asked: Asked) {
        if asked.stop != crate::worker::Stop::No && !self.herald.stopping {
            self.herald.stopping = true;
            self.worker().tell(|| Notice::Stopping);
        }
        let Some(signal) = asked.signal else { return };
        let cold = asked.stop == crate::worker::Stop::Now;
        let what = if cold { "cold" } else { "warm" };
        if self.herald.last != Some(what) {
            self.herald.last = Some(what);
            self.announce(News::Stopping { signal, cold });
        }
    }
}
