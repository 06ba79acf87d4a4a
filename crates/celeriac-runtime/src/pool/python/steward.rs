//! The steward: the Python process that stands for Celery's main process. It tells the app how tasks
//! ended that cannot tell it themselves: those over their hard limit, lost with their child, revoked.

use super::Python;
use super::frame::{self, FromChild, Order};
use super::job::Job;
use crate::pool::kind::{Born, Greeting, Kind as _};
use crate::pool::mortem::{End, PostMortem, Told};
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
/// It has told everybody by then; receivers of the app may do what they want.
const TELL_PATIENCE: Duration = Duration::from_secs(30);

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
        let mut seat = self.0.lock().await;
        // One that died meanwhile is replaced, and asked again: telling twice changes nothing.
        for last in [false, true] {
            let mut seated = match seat.take().filter(|seated| !seated.process.is_over()) {
                Some(seated) => seated,
                None => sit(python).await?,
            };
            match tokio::time::timeout(TELL_PATIENCE, seated.tell(mortem)).await {
                Ok(Ok(told)) => {
                    *seat = Some(seated);
                    return Ok(told);
                }
                Ok(Err(error)) if last => return Err(error),
                Ok(Err(error)) => tracing::warn!(%error, "the steward is replaced"),
                Err(_elapsed) => return Err(io::Error::other("the steward does not answer")),
            }
        }
        Err(io::Error::other("the steward does not live"))
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
    async fn tell(&mut self, mortem: &PostMortem) -> io::Result<Told> {
        self.tag += 1;
        let more = members(mortem);
        let meta = frame::mortem_meta(&mortem.delivery, &more);
        self.job.send(Order::PostMortem, self.tag, &meta, &mortem.delivery.message.body).await?;
        match self.job.next().await? {
            Some(FromChild::Done { tag, done }) if tag == self.tag => {
                let traced = done.into_traced(None).map_err(io::Error::other)?;
                Ok(match (traced.state, traced.disposition) {
                    (TracedState::Succeeded(_), _) => Told::Succeeded,
                    (_, Disposition::Requeue) => Told::Requeue,
                    _ => Told::Over,
                })
            }
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
        End::Terminated => "terminated",
        End::Revoked => "revoked",
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
        End::Lost(ChildDeath { signal: None, exit_code: Some(code), .. }) => {
            members.insert("code", i64::from(*code));
        }
        End::Lost(death) => {
            members.insert("signal", i64::from(death.signal.unwrap_or(9)));
        }
        // SIGTERM, which is what Celery's `revoke` sends unless it is told otherwise.
        End::Terminated => {
            members.insert("signal", 15_i64);
        }
        End::Revoked | End::Expired => {}
    }
    members
}
