//! The frames between a worker and its children, and the outcome as a document. Pure.
//!
//! A frame is `u32` (big endian) length, JSON, `u32` length, raw bytes: the bytes are a message's
//! body or nothing. Both lengths are bounded, so that neither side can be made to hold more.

use bytes::{Buf as _, Bytes, BytesMut};
use celeriac_core::dead::{Attempt, DeadReason};
use celeriac_core::lease::{Lease, Suspicion};
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::store::Delivery;
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::{
    ExceptionInfo, Headers, Map, Message, Properties, Value, from_value, to_value,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The version of these frames; worker and child compare it.
pub(super) const PROTOCOL: u32 = 2;
/// The version of this crate, compared as well: both ends are the same program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a hello may be long: it comes before the real bound is known.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 20;
const LENGTH: usize = 4;

/// A frame that cannot be written or read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameError(String);

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FrameError {}

/// What a worker tells its child.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// First: who is there, and what the child is for.
    Hello(Hello),
    /// Run this; the body follows as raw bytes.
    Run(Box<Run>),
    /// Tell the run of this number to stop, for the reason of this code.
    Cancel { run: u64, reason: u8 },
    /// End: there is nothing to do any more.
    Quit,
}

/// What a child tells its worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// It can run tasks.
    Ready { protocol: u32, version: String },
    /// It cannot, and ends.
    Failed { text: String },
    /// The run of this number begins.
    Started { run: u64 },
    /// It ended, and has sent these.
    Done { run: u64, outcome: Ended, children: Vec<Value> },
}

/// The worker's side of the handshake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) broker_url: String,
    pub(super) node: String,
    pub(super) tasks: Vec<String>,
    pub(super) oom_score_adj: i32,
    pub(super) frame_bytes_max: usize,
}

/// A delivery on its way into a child.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) number: u64,
    row: i64,
    token: i64,
    queue: String,
    headers: Map,
    properties: Map,
    content_type: String,
    content_encoding: String,
    enqueued_at: Timestamp,
    redelivered: bool,
    deaths_seen: u32,
    deaths_counted: u32,
    history: Vec<Attempt>,
    pub(super) started_at: Timestamp,
    /// Until its soft limit.
    pub(super) soft: Option<Duration>,
    /// Until its hard limit.
    pub(super) hard: Option<Duration>,
}

impl Run {
    pub(super) fn new(
        number: u64,
        delivery: &Delivery,
        started_at: Timestamp,
        [soft, hard]: [Option<Duration>; 2],
    ) -> Self {
        let message = &delivery.message;
        Self {
            number,
            row: delivery.lease.row,
            token: delivery.lease.token,
            queue: delivery.queue.to_string(),
            headers: message.headers.as_map().clone(),
            properties: message.properties.as_map().clone(),
            content_type: message.content_type.clone(),
            content_encoding: message.content_encoding.clone(),
            enqueued_at: delivery.enqueued_at,
            redelivered: delivery.redelivered,
            deaths_seen: delivery.suspicion.seen,
            deaths_counted: delivery.suspicion.counted,
            history: delivery.history.clone(),
            started_at,
            soft,
            hard,
        }
    }

    /// The delivery as the child sees it.
    pub(super) fn into_delivery(self, body: Bytes) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            lease: Lease { row: self.row, token: self.token },
            queue: QueueName::parse(&self.queue)?,
            message: Message {
                headers: Headers::from_map(self.headers),
                properties: Properties::from_map(self.properties),
                content_type: self.content_type,
                content_encoding: self.content_encoding,
                body,
            },
            enqueued_at: self.enqueued_at,
            redelivered: self.redelivered,
            suspicion: Suspicion { seen: self.deaths_seen, counted: self.deaths_counted },
            history: self.history,
            revoked: false,
            acknowledged: false,
        })
    }
}

/// An outcome as a child reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Ended {
    Success(Value),
    Failure(Failed),
    Retry { delay: Option<Duration>, failure: Failed },
    Snooze { delay: Duration },
    Reject { requeue: bool, reason: String },
    Ignore,
    Cancelled,
    Interrupted,
    Returned { reason: String },
}

/// A failure as a child reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    exc_module: String,
    exc_type: String,
    exc_message: Vec<Value>,
    traceback: Option<String>,
    permanent: bool,
    reason: String,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            exc_module: failure.exception.exc_module,
            exc_type: failure.exception.exc_type,
            exc_message: failure.exception.exc_message,
            traceback: failure.traceback,
            permanent: failure.permanent,
            reason: failure.reason.as_str().to_owned(),
        }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let exception = ExceptionInfo {
            exc_module: failed.exc_module,
            exc_type: failed.exc_type,
            exc_message: failed.exc_message,
        };
        Self {
            exception,
            traceback: failed.traceback,
            permanent: failed.permanent,
            reason: failed.reason.parse().unwrap_or(DeadReason::Failed),
        }
    }
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success(value) => Self::Success(value),
            Outcome::Failure(failure) => Self::Failure(failure.into()),
            Outcome::Retry { delay, failure } => Self::Retry { delay, failure: failure.into() },
            Outcome::Snooze { delay } => Self::Snooze { delay },
            Outcome::Reject { requeue, reason } => Self::Reject { requeue, reason },
            Outcome::Ignore => Self::Ignore,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Returned { reason, .. } => Self::Returned { reason },
            // Only a worker says of a child that it was lost.
            _ => Self::Returned { reason: "its child has no word for its outcome".to_owned() },
        }
    }
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Success(value) => Self::Success(value),
            Ended::Failure(failed) => Self::Failure(failed.into()),
            Ended::Retry { delay, failure } => Self::Retry { delay, failure: failure.into() },
            Ended::Snooze { delay } => Self::Snooze { delay },
            Ended::Reject { requeue, reason } => Self::Reject { requeue, reason },
            Ended::Ignore => Self::Ignore,
            Ended::Cancelled => Self::Cancelled,
            Ended::Interrupted => Self::Interrupted,
            Ended::Returned { reason } => Self::Returned { reason, begun: true },
        }
    }
}

/// Writes a frame.
pub(super) fn encode<T: Serialize>(
    document: &T,
    raw: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, FrameError> {
    let json = to_value(document)
        .map_err(|error| FrameError(format!("a frame cannot be encoded: {error}")))?
        .to_bytes();
    let length = |part: &[u8]| {
        u32::try_from(part.len())
            .ok()
            .filter(|_| part.len() <= bytes_max)
            .ok_or_else(|| FrameError(format!("{} bytes, at most {bytes_max}", part.len())))
    };
    let mut frame = Vec::with_capacity(json.len() + raw.len() + 2 * LENGTH);
    frame.extend_from_slice(&length(&json)?.to_be_bytes());
    frame.extend_from_slice(&json);
    frame.extend_from_slice(&length(raw)?.to_be_bytes());
    frame.extend_from_slice(raw);
    Ok(frame)
}

/// Takes the first frame from what was read so far; `None` while it is not complete.
pub(super) fn decode<T: DeserializeOwned>(
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<(T, Bytes)>, FrameError> {
    let Some(json) = length_at(buffer, 0, bytes_max)? else { return Ok(None) };
    let Some(raw) = length_at(buffer, LENGTH + json, bytes_max)? else { return Ok(None) };
    if buffer.len() < 2 * LENGTH + json + raw {
        return Ok(None);
    }
    buffer.advance(LENGTH);
    let json = buffer.split_to(json).freeze();
    buffer.advance(LENGTH);
    let raw = buffer.split_to(raw).freeze();
    let document = Value::parse(&json)
        .and_then(from_value)
        .map_err(|error| FrameError(format!("a frame cannot be read: {error}")))?;
    Ok(Some((document, raw)))
}

fn length_at(buffer: &[u8], at: usize, bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(bytes) = buffer.get(at..).and_then(<[u8]>::first_chunk::<LENGTH>) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*bytes) as usize;
    if length > bytes_max {
        return Err(FrameError(format!("a frame of {length} bytes, at most {bytes_max}")));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests;
