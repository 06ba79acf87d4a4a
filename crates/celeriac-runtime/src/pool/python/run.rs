//! One task in one Python child: from the delivery to the outcome.

use super::Python;
use super::frame::{self, FromChild, Order};
use super::job::Job;
use crate::cancel::CancelReason;
use crate::handler::RunContext;
use crate::pool::crew::Crew;
use crate::pool::kind::{Break, lost};
use crate::pool::output::Speaker;
use crate::pool::policy::Killed;
use crate::pool::process::Process;
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_wire::{ExceptionInfo, ResultMeta, State, Value};
use futures::future::BoxFuture;
use rustix::process::Signal;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A child that does not begin a task within this time is replaced.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A run that finds no child within this time goes back to its queue: those at work have got long
/// tasks, or there are none.
const CHILD_PATIENCE: Duration = Duration::from_millis(500);
/// How often a child is told again that its task is over its soft limit.
const SIGNAL_EVERY: Duration = Duration::from_secs(1);

/// Runs a delivery in a child. Dropping the future kills the child.
pub(in crate::pool) fn run(
    crew: Arc<Crew<Python>>,
    context: RunContext,
) -> BoxFuture<'static, Outcome> {
    Box::pin(run_in(crew, context))
}

async fn run_in(crew: Arc<Crew<Python>>, context: RunContext) -> Outcome {
    let headers = &context.delivery.message.headers;
    let speaker = Speaker {
        task_id: headers.id().unwrap_or_default().to_owned(),
        task: headers.task().unwrap_or_default().to_owned(),
    };
    let Some(mut held) = crew.take(&speaker, CHILD_PATIENCE).await else {
        return Outcome::Returned {
            reason: "no child was ready to run it".to_owned(),
            begun: false,
        };
    };
    let (tag, process) = (held.run, Arc::clone(&held.process));
    context.begun.store(true, Ordering::Release);
    let begins = Instant::now();
    let Some(job) = held.channel.as_mut() else { return Outcome::Interrupted };
    match converse(job, &process, &context, tag).await {
        Ok((outcome, leaves)) => {
            crew.kind.pace.note(begins.elapsed());
            if leaves {
                held.let_go();
            } else {
                held.give_back();
            }
            outcome
        }
        Err(Stop::Unsent(error)) => {
            held.give_back();
            unsent(&error)
        }
        Err(Stop::Terminated) => {
            drop(held);
            Outcome::Cancelled
        }
        Err(Stop::TimedOut) => {
            drop(held);
            // The worker knows the limit.
            let exception = ExceptionInfo::time_limit_exceeded(Duration::ZERO);
            Outcome::Failure(Failure::permanent(exception).because(DeadReason::TimedOut))
        }
        Err(Stop::Broken(why)) => lost(held, &speaker, why).await,
    }
}

/// Why a conversation ended without an outcome.
enum Stop {
    /// The message cannot be handed over.
    Unsent(io::Error),
    /// It was revoked while it ran, or the worker stops.
    Terminated,
    /// It ran over its hard limit, and unwound.
    TimedOut,
    /// The child is lost.
    Broken(Break),
}

impl From<Break> for Stop {
    fn from(broken: Break) -> Self {
        Self::Broken(broken)
    }
}

async fn converse(
    job: &mut Job,
    process: &Process,
    context: &RunContext,
    tag: u64,
) -> Result<(Outcome, bool), Stop> {
    let begin_by = Instant::now() + START_PATIENCE;
    let meta = frame::run_meta(&context.delivery);
    let sending = job.sender.send(Order::Run, tag, &meta, &context.delivery.message.body);
    match tokio::time::timeout_at(begin_by, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::Other => {
            return Err(Stop::Unsent(error));
        }
        Ok(Err(_closed)) => return Err(Break::Closed.into()),
        Err(_elapsed) => return Err(Break::Kill(Killed::Deaf).into()),
    }
    let (mut begun, mut told, mut leaving, mut over) = (false, false, false, false);
    let ends = context.hard_deadline;
    let mut again = tokio::time::interval(SIGNAL_EVERY);
    let mut result: Option<ResultMeta> = None;
    loop {
        tokio::select! {
            biased;
            // Cancel safe: the job keeps what it read, the rest are events and times.
            said = job.next() => match said {
                Ok(Some(FromChild::Store { tag: of, meta })) if of == tag => {
                    begun = true;
                    take_result(context, &mut result, meta).await;
                }
                Ok(Some(FromChild::Done { tag: of, done })) if of == tag => {
                    let leaves = done.leaves;
                    let traced = done.into_traced(result.take()).map_err(|error| Break::broken(&error))?;
                    return Ok((Outcome::Traced(Box::new(traced)), leaves));
                }
                Ok(None) | Err(_) if over => return Err(Stop::TimedOut),
                Ok(None) | Err(_) if leaving => return Err(Stop::Terminated),
                Ok(Some(other)) => return Err(Break::broken(&format!("{other:?}")).into()),
                Ok(None) => return Err(Break::Closed.into()),
                Err(error) => return Err(Break::broken(&error).into()),
            },
            reason = context.cancellation.cancelled(), if !told => {
                told = true;
                match reason {
                    CancelReason::SoftLimit => {
                        if let Err(error) = job.page.aim(tag) {
                            tracing::error!(%error, "a soft limit cannot be told");
                        }
                        process.signal(Signal::USR1);
                    }
                    // As Celery does: the task unwinds, and cleans up. The worker aborts it when it
                    // does not, which kills the child.
                    CancelReason::Revoked => match context.cancellation.signal() {
                        Some(signal) if signal == Signal::KILL.as_raw() => {
                            return Err(Stop::Terminated);
                        }
                        // That of the soft limit: the task ends as with the limit.
                        Some(signal) if signal == Signal::USR1.as_raw() => {
                            if let Err(error) = job.page.aim(tag) {
                                tracing::error!(%error, "a signal cannot be told");
                            }
                            process.signal(Signal::USR1);
                        }
                        signal => {
                            leaving = true;
                            let named = signal.and_then(Signal::from_named_raw);
                            process.signal(named.unwrap_or(Signal::TERM));
                        }
                    },
                    // Those of a cold shutdown are killed.
                    _ => return Err(Stop::Terminated),
                }
            }
            // The worker aborts what does not unwind, which kills the child.
            () = tokio::time::sleep_until(ends.unwrap_or(begin_by)), if ends.is_some() && !over => {
                (over, leaving) = (true, true);
                process.signal(Signal::TERM);
            }
            // Python can miss a signal that comes just before it waits; it heeds the first only.
            _ = again.tick(), if told && !leaving => process.signal(Signal::USR1),
            () = tokio::time::sleep_until(begin_by), if !begun && !leaving => {
                begun = job.page.read().is_ok_and(|status| status.running == tag || status.done >= tag);
                if !begun {
                    return Err(Break::Kill(Killed::Deaf).into());
                }
            }
        }
    }
}

/// What becomes of a message that cannot be handed to a child.
pub(super) fn unsent(why: &dyn fmt::Display) -> Outcome {
    let text = Value::from(format!("the message cannot be handed to a child: {why}"));
    let exception = ExceptionInfo::new("celeriac.exceptions", "TaskFailed", vec![text]);
    Outcome::Failure(Failure::permanent(exception))
}

/// Keeps the result of an end for its settlement; a state on the way, or of another task, is stored at
/// once.
pub(super) async fn take_result(
    context: &RunContext,
    result: &mut Option<ResultMeta>,
    meta: ResultMeta,
) {
    let state = meta.state();
    let own = meta.task_id() == context.delivery.message.headers.id();
    if own && (state.is_ready() || state == State::Retry) {
        *result = Some(meta);
        return;
    }
    match context.store_traced(meta).await {
        Ok(true) => {}
        Ok(false) => tracing::debug!("a state was not stored: the lease is lost"),
        Err(error) => tracing::warn!(%error, "a state of a running task cannot be stored"),
    }
}
