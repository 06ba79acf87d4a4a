//! The steward: the Python process that stands for Celery's main process. It tells the app how tasks
//! ended that cannot tell it themselves: those over their hard limit, lost with their child, revoked.

use super::Python;
use super::frame::{self, Done, FromChild, Order};
use super::job::Job;
use crate::pool::kind::{Born, Greeting, Kind as _};
use crate::pool::mortem::{End, News, PostMortem, Told, ToldFate};
use crate::pool::policy::Killed;
use crate::pool::process::Process;
use celeriac_core::outcome::{ChildDeath, Disposition, TracedState};
use celeriac_wire::{Map, Value};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The place that the steward has among the children; theirs are counted from 0.
const PLACE: usize = 1 << 20;
/// It is ready by then: it is forked from an app that is loaded.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// A steward is replaced so often before its worker gives up on telling something, …
const TRIES: u32 = 6;
/// … with this pause after the first, which doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// It has told everybody by then; receivers of the app may do what they want.
const TELL_PATIENCE: Duration = Duration::from_secs(30);

/// It has ended by then, after it was told to.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// The steward's seat; it is taken when there is something to tell.
#[derive(Debug, Default)]
pub(super) struct Steward(Mutex<Option<Seated>>);

#[derive(Debug)]
struct Seated {
    job: Job,
    process: Arc<Process>,
    tag: u64,
    reading: JoinHandle<()>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.process.kill(Killed::Aborted);
        self.reading.abort();
    }
}

impl Steward {
    /// Gives up the seat: the next is forked from the app as it is then.
    pub(super) async fn leave(&self) {
        drop(self.0.lock().await.take());
    }

    /// Has the app told; an error means that nobody was, or that nobody knows.
    pub(super) async fn tell(&self, python: &Python, mortem: &PostMortem) -> io::Result<Told> {
        let meta = frame::mortem_meta(&mortem.delivery, &members(mortem));
        let body = &mortem.delivery.message.body;
        let done = self.ask(python, Order::PostMortem, &meta, body).await?;
        let traced = done.into_traced(None).map_err(io::Error::other)?;
        let fate = match (traced.state, traced.disposition) {
            (TracedState::Succeeded(_), _) => ToldFate::Succeeded,
            (_, Disposition::Requeue) => ToldFate::Requeue,
            _ => ToldFate::Over,
        };
        Ok(Told { fate, events: traced.events, look_again: traced.look_again })
    }

    /// Has the receivers of a signal called. What they do wrong is in the log, and harms nobody.
    pub(super) async fn announce(&self, python: &Python, news: News) {
        let meta = Value::Object(signal_of(news)).to_bytes();
        if let Err(error) = self.ask(python, Order::Tell, &meta, &[]).await {
            let signal = name_of(news);
            tracing::warn!(%error, "receivers of {signal} were not called");
        }
    }

    /// Lets the one that sits end by itself, with what its receivers have left to write.
    pub(super) async fn dismiss(&self) {
        let Some(mut seated) = self.0.lock().await.take() else { return };
        let leaving = async {
            if seated.job.sender.send(Order::Quit, 0, &[], &[]).await.is_ok() {
                seated.process.exited().await;
            }
            // What it printed is read to the end.
            let _read = (&mut seated.reading).await;
        };
        if tokio::time::timeout(LEAVE_PATIENCE, leaving).await.is_err() {
            tracing::warn!("the steward does not end by itself and is killed");
        }
    }

    async fn ask(
        &self,
        python: &Python,
        order: Order,
        meta: &[u8],
        body: &[u8],
    ) -> io::Result<Done> {
        let mut seat = self.0.lock().await;
        let mut pause = RETRY_PAUSE;
        let mut last = None;
        for _ in 0..TRIES {
            if let Some(error) = last.take() {
                tracing::warn!(%error, "the steward is replaced");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            // One that died meanwhile is replaced, and asked again. What it had told already is told twice:
            // an errback may be called again.
            let seated = match seat.take().filter(|seated| !seated.process.is_over()) {
                Some(seated) => Ok(seated),
                None => sit(python).await,
            };
            last = Some(match seated {
                Err(error) => error,
                Ok(mut seated) => {
                    let asked = seated.ask(order, meta, body);
                    match tokio::time::timeout(TELL_PATIENCE, asked).await {
                        Ok(Ok(done)) => {
                            *seat = Some(seated);
                            return Ok(done);
                        }
                        Ok(Err(error)) => error,
                        Err(_elapsed) => {
                            return Err(io::Error::other("the steward does not answer"));
                        }
                    }
                }
            });
        }
        Err(last.unwrap_or_else(|| io::Error::other("the steward does not live")))
    }
}

async fn sit(python: &Python) -> io::Result<Seated> {
    let Born { process, output, channel: job } = python.bear("steward", PLACE, false).await?;
    let reading = tokio::spawn(async move { output.pump().await });
    let mut seated = Seated { job, process, tag: 0, reading };
    let why = match tokio::time::timeout(START_PATIENCE, python.greet(&mut seated.job)).await {
        Ok(Greeting::Ready) => return Ok(seated),
        Ok(Greeting::Refused(text)) => text,
        Ok(Greeting::Ended) => "it ended before it was ready".to_owned(),
        Err(_elapsed) => format!("it was not ready within {} s", START_PATIENCE.as_secs()),
    };
    Err(io::Error::other(format!("the steward does not start: {why}")))
}

impl Seated {
    async fn ask(&mut self, order: Order, meta: &[u8], body: &[u8]) -> io::Result<Done> {
        self.tag += 1;
        self.job.sender.send(order, self.tag, meta, body).await?;
        match self.job.next().await? {
            Some(FromChild::Done { tag, done }) if tag == self.tag => Ok(*done),
            Some(other) => Err(io::Error::other(format!("the steward said {other:?}"))),
            None => Err(io::Error::other("the steward has ended")),
        }
    }
}

/// What a post-mortem says beside the message.
fn members(mortem: &PostMortem) -> Map {
    let kind = match &mortem.end {
        End::TimedOut(_) => "timeout",
        End::Lost(_) => "lost",
        End::Poison(_) => "poison",
        End::Part => "part",
        End::Terminated(_) => "terminated",
        End::Revoked(_) => "revoked",
        End::Expired => "expired",
    };
    let started =
        mortem.started_at.map_or(Value::Null, |at| Value::from(at.as_duration().as_secs_f64()));
    let mut members =
        Map::from([("kind", Value::from(kind)), ("started", started), ("pid", Value::Null)]);
    match &mortem.end {
        End::TimedOut(limit) => {
            members.insert("limit", limit.as_secs_f64());
        }
        End::Lost(ChildDeath { signal: None, exit_code: Some(code), .. })
        | End::Poison(ChildDeath { signal: None, exit_code: Some(code), .. }) => {
            members.insert("code", i64::from(*code));
        }
        End::Lost(death) | End::Poison(death) => {
            members.insert("signal", i64::from(death.signal.unwrap_or(9)));
        }
        End::Terminated(signal) => {
            members.insert("signal", i64::from(*signal));
        }
        End::Revoked(stamps) if !stamps.is_empty() => {
            members.insert("stamps", Value::Object(stamps.clone()));
        }
        End::Revoked(_) | End::Expired | End::Part => {}
    }
    members
}

/// Celery's name of a signal.
pub(super) fn name_of(news: News) -> &'static str {
    match news {
        News::Ready => "worker_ready",
        News::Heartbeat => "heartbeat_sent",
        News::Stopping { .. } => "worker_shutting_down",
        News::Stopped => "worker_shutdown",
    }
}

/// What the steward is told of a signal (celery 5.7.0 apps/worker.py: a warm shutdown ends with 0,
/// a cold one with 1).
fn signal_of(news: News) -> Map {
    let mut members = Map::from([("signal", name_of(news))]);
    if let News::Stopping { signal, cold } = news {
        members.insert("sig", signal);
        members.insert("how", if cold { "Cold" } else { "Warm" });
        members.insert("exitcode", i64::from(cold));
    }
    members
}
