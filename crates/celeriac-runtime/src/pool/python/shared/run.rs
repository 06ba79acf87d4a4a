//! One task among others in a process: from the delivery to the outcome.

use super::Hall;
use super::host::Limit;
use crate::cancel::CancelReason;
use crate::handler::RunContext;
use crate::pool::output::Speaker;
use crate::pool::python::frame::FromChild;
use crate::pool::python::run::{take_result, unsent};
use celeriac_core::outcome::Outcome;
use celeriac_wire::ResultMeta;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A process that does not take a task within this time is replaced.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a delivery. Dropping the future gives the run up, which harms no other run.
pub(super) async fn run_in(hall: Arc<Hall>, context: RunContext) -> Outcome {
    let headers = &context.delivery.message.headers;
    let speaker = Speaker {
        task_id: headers.id().unwrap_or_default().to_owned(),
        task: headers.task().unwrap_or_default().to_owned(),
    };
    let returned = |reason: &str, begun| Outcome::Returned { reason: reason.to_owned(), begun };
    let Some(mut seat) = hall.seat(&speaker).await else {
        return returned("no process was ready to run it", false);
    };
    match seat.order(Arc::clone(&context.delivery)).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Other => {
            seat.leave();
            return unsent(&error);
        }
        // The process has ended, or is about to: its fate comes.
        Err(_closed) => {}
    }
    let begin_by = Instant::now() + START_PATIENCE;
    let (mut heard, mut told) = (false, false);
    let mut result: Option<ResultMeta> = None;
    loop {
        tokio::select! {
            biased;
            // Cancel safe: the seat keeps its frames, the rest are events and times.
            said = seat.next() => match said {
                Some(FromChild::Heard { .. }) => {
                    heard = true;
                    context.begun.store(true, Ordering::Release);
                }
                Some(FromChild::Store { meta, .. }) => take_result(&context, &mut result, meta).await,
                Some(FromChild::Done { done, .. }) => {
                    seat.leave();
                    return match done.into_traced(result.take()) {
                        Ok(traced) => Outcome::Traced(Box::new(traced)),
                        Err(error) => returned(&format!("its end cannot be understood: {error}"), true),
                    };
                }
                Some(FromChild::Ready) => {}
                None => {
                    let fate = seat.fate();
                    // What the process never took has not begun, and is not to blame.
                    return if context.begun.load(Ordering::Acquire) {
                        fate
                    } else {
                        returned("its process ended before it took it", false)
                    };
                }
            },
            reason = context.cancellation.cancelled(), if !told => {
                told = true;
                match reason {
                    CancelReason::SoftLimit => seat.limit(Limit::Soft),
                    // Given up: the seat is dropped.
                    _ => return Outcome::Cancelled,
                }
            }
            () = tokio::time::sleep_until(begin_by), if !heard => {
                heard = true;
                seat.end_deaf();
            }
        }
    }
}
