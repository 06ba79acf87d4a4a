//! One task in one child: from the delivery to the outcome.

use super::Native;
use super::channel::Channel;
use super::frame::{self, FromChild, ToChild};
use crate::handler::RunContext;
use crate::pool::crew::{Crew, TAKE_PATIENCE};
use crate::pool::kind::{Break, lost};
use crate::pool::output::Speaker;
use crate::pool::policy::Killed;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_wire::{ExceptionInfo, Value};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A child that does not begin a task within this time is replaced.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a delivery in a child. Dropping the future kills the child.
pub(in crate::pool) fn run(
    crew: Arc<Crew<Native>>,
    context: RunContext,
) -> BoxFuture<'static, Outcome> {
    Box::pin(run_in(crew, context))
}

async fn run_in(crew: Arc<Crew<Native>>, context: RunContext) -> Outcome {
    let headers = &context.delivery.message.headers;
    let speaker = Speaker {
        task_id: headers.id().unwrap_or_default().to_owned(),
        task: headers.task().unwrap_or_default().to_owned(),
    };
    let Some(mut held) = crew.take(&speaker, TAKE_PATIENCE).await else {
        return Outcome::Returned {
            reason: "no child was ready to run it".to_owned(),
            begun: false,
        };
    };
    let bytes = match delivery(&context, held.run, crew.kind.options.frame_bytes_max) {
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
