//! The frames between a worker and a Python child: heads, pieces, and what is in them. Pure.
//!
//! The rules are in `docs/reference/python-children.md`; the other end is `python/celeriac_child/frames.py`.

use bytes::{Bytes, BytesMut};
use celeriac_core::dead::DeadReason;
use celeriac_core::outcome::{Disposition, Failure, Traced, TracedEvent, TracedState};
use celeriac_core::store::Delivery;
use celeriac_wire::{ExceptionInfo, Map, ResultMeta, Value, from_value};
use serde::Deserialize;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Op, flags, tag and the length of the meta, little endian.
pub(super) const HEAD_BYTES: usize = 14;
/// What one datagram carries of a payload, in bytes. The kernel refuses datagrams that are larger than
/// the socket's send buffer, 208 KiB by default.
const PIECE_BYTES_MAX: usize = 128 << 10;
/// The largest datagram.
pub(super) const DATAGRAM_BYTES_MAX: usize = HEAD_BYTES + PIECE_BYTES_MAX;
/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 512 << 20;
/// What the meta of a message takes that stock Celery has sent, and a little more.
const META_BYTES_USUAL: usize = 2 << 10;
/// The flag of every piece but the last.
const MORE: u8 = 1;

/// What breaks the rules of the frames.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameError(String);

impl FrameError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for FrameError {}

/// What is told a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Run this message.
    Run,
    /// Tell the app how this message ended.
    PostMortem,
    /// Tell a run among several that it is over a limit.
    Limit,
    /// Send a signal of Celery's main process.
    Tell,
    /// End.
    Quit,
}

impl Order {
    fn letter(self) -> u8 {
        match self {
            Self::Run => b'R',
            Self::PostMortem => b'P',
            Self::Limit => b'L',
            Self::Tell => b'Y',
            Self::Quit => b'X',
        }
    }
}

/// Cuts a frame into datagrams.
pub(super) fn datagrams(
    order: Order,
    tag: u64,
    meta: &[u8],
    body: &[u8],
) -> Result<Vec<Vec<u8>>, FrameError> {
    let total = meta.len() + body.len();
    if total > PAYLOAD_BYTES_MAX {
        return Err(FrameError::new(format!("{total} bytes, at most {PAYLOAD_BYTES_MAX}")));
    }
    // It is bounded by the line above.
    let meta_bytes = u32::try_from(meta.len()).unwrap_or(u32::MAX);
    let mut pieces = Vec::with_capacity(total / PIECE_BYTES_MAX + 1);
    let mut at = 0;
    loop {
        let end = total.min(at + PIECE_BYTES_MAX);
        let mut piece = Vec::with_capacity(HEAD_BYTES + end - at);
        piece.push(order.letter());
        piece.push(if end < total { MORE } else { 0 });
        piece.extend_from_slice(&tag.to_le_bytes());
        piece.extend_from_slice(&meta_bytes.to_le_bytes());
        if at < meta.len() {
            piece.extend_from_slice(&meta[at..end.min(meta.len())]);
        }
        if end > meta.len() {
            piece.extend_from_slice(&body[at.max(meta.len()) - meta.len()..end - meta.len()]);
        }
        pieces.push(piece);
        at = end;
        if at == total {
            return Ok(pieces);
        }
    }
}

/// A head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    op: u8,
    tag: u64,
    meta_bytes: usize,
}

/// Puts the pieces of a frame together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    open: Option<(Head, BytesMut)>,
}

impl Assembler {
    /// Takes a datagram; a frame when it is complete.
    pub(super) fn take(&mut self, datagram: &[u8]) -> Result<Option<FromChild>, FrameError> {
        let (head, payload) = datagram
            .split_at_checked(HEAD_BYTES)
            .ok_or_else(|| FrameError::new(format!("{} bytes are no frame", datagram.len())))?;
        let more = head[1] & MORE != 0;
        let number = |from: usize, to: usize| {
            head[from..to].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let meta_bytes = usize::try_from(number(10, HEAD_BYTES)).unwrap_or(usize::MAX);
        let head = Head { op: head[0], tag: number(2, 10), meta_bytes };
        let payload = match self.open.take() {
            None if !more => Bytes::copy_from_slice(payload),
            begun => {
                let (first, mut bytes) = begun.unwrap_or_else(|| (head, BytesMut::new()));
                if first != head {
                    return Err(FrameError::new("a piece of another frame came in between"));
                }
                if bytes.len() + payload.len() > PAYLOAD_BYTES_MAX {
                    let text = format!("a frame of more than {PAYLOAD_BYTES_MAX} bytes");
                    return Err(FrameError::new(text));
                }
                bytes.extend_from_slice(payload);
                if more {
                    self.open = Some((head, bytes));
                    return Ok(None);
                }
                bytes.freeze()
            }
        };
        FromChild::read(head, &payload).map(Some)
    }
}

/// What a child tells its worker.
#[derive(Debug, PartialEq)]
pub(super) enum FromChild {
    /// It can run tasks.
    Ready,
    /// An order about this run, one among several, has come to whoever carries it out.
    Heard { tag: u64 },
    /// The result document of a run, as the app's backend has encoded it.
    Store { tag: u64, meta: ResultMeta },
    /// A run has ended.
    Done { tag: u64, done: Box<Done> },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Done {
    state: String,
    disposition: String,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    exception: Option<Raised>,
    #[serde(default)]
    traceback: Option<String>,
    #[serde(default)]
    events: Option<Vec<(String, Map)>>,
    /// The child ends after this.
    #[serde(default)]
    pub(super) leaves: bool,
    /// Seconds after which the chord of the task is to be looked at.
    #[serde(default)]
    look_again: Option<f64>,
}

/// An exception as a child describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Raised {
    #[serde(rename = "type")]
    name: String,
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    repr: Option<String>,
    /// Modules and names of what its class is derived from.
    #[serde(default)]
    bases: Vec<(String, String)>,
}

impl FromChild {
    fn read(head: Head, payload: &[u8]) -> Result<Self, FrameError> {
        if head.meta_bytes > payload.len() {
            return Err(FrameError::new("the meta of a frame is longer than the frame"));
        }
        let (meta, body) = payload.split_at(head.meta_bytes);
        match head.op {
            b'H' => Ok(Self::Ready),
            b'A' => Ok(Self::Heard { tag: head.tag }),
            b'S' => {
                let meta = ResultMeta::parse(body)
                    .map_err(|error| FrameError::new(format!("a result is not JSON: {error}")))?;
                Ok(Self::Store { tag: head.tag, meta })
            }
            b'D' => {
                let done = Value::parse(meta).and_then(from_value).map_err(|error| {
                    FrameError::new(format!("the end of a run cannot be read: {error}"))
                })?;
                Ok(Self::Done { tag: head.tag, done: Box::new(done) })
            }
            op => Err(FrameError::new(format!("a frame of the unknown kind {op}"))),
        }
    }
}

impl Done {
    /// The run as the worker concludes it.
    pub(super) fn into_traced(mut self, result: Option<ResultMeta>) -> Result<Traced, FrameError> {
        let bases = self.exception.as_mut().map(|raised| std::mem::take(&mut raised.bases));
        let disposition = match self.disposition.as_str() {
            "ack" => Disposition::Ack,
            "reject" => Disposition::Reject,
            "requeue" => Disposition::Requeue,
            other => return Err(FrameError::new(format!("the disposition {other:?}"))),
        };
        let state = match self.state.as_str() {
            "success" => TracedState::Succeeded(self.result),
            "failure" => TracedState::Failed(failure(self.exception, self.traceback)),
            "retry" => TracedState::Retried(failure(self.exception, self.traceback)),
            "ignored" => TracedState::Ignored,
            "rejected" => {
                let reason = self.exception.and_then(|raised| raised.repr).unwrap_or_default();
                TracedState::Rejected { reason }
            }
            "revoked" => TracedState::Revoked { terminated: false, expired: false },
            other => return Err(FrameError::new(format!("the state {other:?}"))),
        };
        let event = |(kind, fields)| TracedEvent { kind, fields };
        let events = self.events.map(|events| events.into_iter().map(event).collect());
        let look_again = match self.look_again.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(pause)) => Some(pause),
            Some(Err(error)) => {
                return Err(FrameError::new(format!("a time to look again: {error}")));
            }
        };
        let bases = bases.unwrap_or_default();
        Ok(Traced { state, disposition, result, events, bases, look_again })
    }
}

fn failure(raised: Option<Raised>, traceback: Option<String>) -> Failure {
    let raised = raised.unwrap_or_else(|| Raised {
        name: "Exception".to_owned(),
        module: None,
        message: Value::Null,
        repr: None,
        bases: Vec::new(),
    });
    let module = raised.module.unwrap_or_else(|| "builtins".to_owned());
    let reason = match (module.as_str(), raised.name.as_str()) {
        ("celery.exceptions", "NotRegistered") => DeadReason::UnknownTask,
        ("kombu.exceptions", "ContentDisallowed") => DeadReason::Disallowed,
        ("kombu.exceptions", "DecodeError") => DeadReason::Undecodable,
        _ => DeadReason::Failed,
    };
    let arguments = match raised.message {
        Value::Array(arguments) => arguments,
        Value::Null => Vec::new(),
        other => vec![other],
    };
    let exception = ExceptionInfo::new(&module, &raised.name, arguments);
    Failure { traceback, ..Failure::permanent(exception).because(reason) }
}

/// The meta of an order to run a delivery. `delivery_info` has the four members of a task's request
/// (celery 5.7.0 `worker/request.py` `Request.__init__`).
pub(super) fn run_meta(delivery: &Delivery) -> Vec<u8> {
    let mut text = String::with_capacity(META_BYTES_USUAL);
    describe(delivery, &mut text);
    text.push('}');
    text.into_bytes()
}

/// The meta of a post-mortem: the same, and how it ended.
pub(super) fn mortem_meta(delivery: &Delivery, end: &Map) -> Vec<u8> {
    let mut text = String::with_capacity(META_BYTES_USUAL);
    describe(delivery, &mut text);
    for (name, value) in end.iter() {
        // Writing to a String cannot fail.
        let _infallible = write!(text, ",{}:{value}", Value::from(name));
    }
    text.push('}');
    text.into_bytes()
}

/// Writes an object without its end. Headers are written from where they are: a copy of them would be
/// most of what a short task costs here.
fn describe(delivery: &Delivery, text: &mut String) {
    let message = &delivery.message;
    let info = message.properties.delivery_info();
    let priority = message.properties.as_map().get("priority").cloned();
    let routing_key = if info.routing_key.is_empty() {
        delivery.queue.as_str()
    } else {
        info.routing_key.as_str()
    };
    let info = Map::from([
        ("exchange", Value::from(info.exchange.as_str())),
        ("routing_key", Value::from(routing_key)),
        ("priority", priority.unwrap_or(Value::Null)),
        ("redelivered", Value::from(delivery.redelivered)),
    ]);
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "{{\"headers\":{},\"properties\":{},\"delivery_info\":{info},\"content_type\":{},\
         \"content_encoding\":{}",
        message.headers.as_map(),
        message.properties.as_map(),
        Value::from(message.content_type.as_str()),
        Value::from(message.content_encoding.as_str()),
    );
}

#[cfg(test)]
mod tests;
