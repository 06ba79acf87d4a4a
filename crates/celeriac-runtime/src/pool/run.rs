//! One task in one child: from the delivery to the outcome.

use super::channel::Channel;
use super::crew::{Crew, Held};
use super::frame::{self, FromChild, ToChild};
use super::output::{DRAIN, Speaker};
use super::policy::Killed;
use crate::handler::RunContext;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_wire::{ExceptionInfo, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A child that does not begin a task within this time is replaced.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// A killed process is gone by then, or the kernel is in trouble.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a delivery in a child. Dropping the future kills the child.
pub(super) async fn run(crew: Arc<Crew>, context: RunContext) -> Outcome {
    let headers = &context.delivery.message.headers;
    let speaker = Speaker {
        task_id: headers.id().unwrap_or_default().to_owned(),
        task: headers.task().unwrap_or_default().to_owned(),
    };
    let Some(mut held) = crew.take(&speaker).await else {
        return Outcome::Returned { reason: "no child was ready to run it".to_owned() };
    };
    let bytes = match delivery(&context, held.run, crew.options.frame_bytes_max) {
        Ok(bytes) => bytes,
        Err(failure) => {
            held.give_back();
            return Outcome::Failure(failure);
        }
    };
    let number = held.run;
    let Some(channel) = held.channel.as_mut() else { return Outcome::Interrupted };
    match converse(channel, &context, number, &bytes).await {
        Ok(outcome) => {
            held.give_back();
            outcome
        }
        Err(why) => lost(held, &speaker, why).await,
    }
}

/// The frame of a delivery.
fn delivery(context: &RunContext, run: u64, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let now = Instant::now();
    let left = |deadline: Option<Instant>| deadline.map(|at| at.saturating_duration_since(now));
    let limits = [left(context.soft_deadline), left(context.hard_deadline)];
    let run = frame::Run::new(run, &context.delivery, context.started_at, limits);
    let frame = ToChild::Run(Box::new(run));
    frame::encode(&frame, &context.delivery.message.body, bytes_max).map_err(|error| {
        let text = format!("the message cannot be handed to a child: {error}");
        let exception =
            ExceptionInfo::new("celeriac.exceptions", "TaskFailed", vec![Value::from(text)]);
        Failure::permanent(exception)
    })
}

/// Why a conversation broke off.
enum Break {
    /// The child closed its end: it is dead or about to be.
    Closed,
    /// It must be killed for this.
    Kill(Killed),
}

impl Break {
    fn broken(what: &dyn std::fmt::Display) -> Self {
        Self::Kill(Killed::Broken(format!("it cannot be understood: {what}")))
    }
}

async fn converse(
    channel: &mut Channel,
    context: &RunContext,
    number: u64,
    bytes: &[u8],
) -> Result<Outcome, Break> {
    let begin_by = Instant::now() + START_PATIENCE;
    match tokio::time::timeout_at(begin_by, channel.send_bytes(bytes)).await {
        Ok(Ok(())) => {}
        Ok(Err(_closed)) => return Err(Break::Closed),
        Err(_elapsed) => return Err(Break::Kill(Killed::Deaf)),
    }
    let (mut begun, mut told) = (false, false);
    loop {
        tokio::select! {
            biased;
            // Cancel safe: the channel keeps what it read, the rest are events and times.
            said = channel.next() => match said {
                Ok(Some(FromChild::Started { run })) if run == number => begun = true,
                Ok(Some(FromChild::Done { run, outcome, children })) if run == number => {
                    context.trail.add(children);
                    return Ok(outcome.into());
                }
                Ok(Some(other)) => return Err(Break::broken(&format!("{other:?}"))),
                Ok(None) => return Err(Break::Closed),
                Err(error) => return Err(Break::broken(&error)),
            },
            reason = context.cancellation.cancelled(), if !told => {
                told = true;
                let cancel = ToChild::Cancel { run: number, reason: reason as u8 };
                // A child that takes no frames any more is dealt with by its limits.
                let sending = channel.send(&cancel, &[]);
                let _late = tokio::time::timeout(START_PATIENCE, sending).await;
            }
            () = tokio::time::sleep_until(begin_by), if !begun => {
                return Err(Break::Kill(Killed::Deaf));
            }
        }
    }
}

/// The child is lost: how it ended says what that means.
async fn lost(held: Held, speaker: &Speaker, why: Break) -> Outcome {
    let process = &held.process;
    match why {
        Break::Kill(killed) => process.kill(killed),
        Break::Closed => {
            if tokio::time::timeout(DRAIN, process.exited()).await.is_err() {
                let what = "it closed its connection to the worker while the task ran";
                process.kill(Killed::Broken(what.to_owned()));
            }
        }
    }
    let Ok(exit) = tokio::time::timeout(DEATH_PATIENCE, process.exited()).await else {
        return Outcome::Returned { reason: "its child does not die".to_owned() };
    };
    let (task_id, task) = (&speaker.task_id, &speaker.task);
    let (child, reason) = (process.pid(), exit.reason());
    tracing::warn!(task_id, task, child, reason, "a child was lost while it ran a task");
    exit.outcome(held.output.last_words().await)
}
