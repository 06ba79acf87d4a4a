//! Bytes and values of the Celery protocol.
//!
//! This crate turns the bytes of Celery 5.3 to 5.7 into values and back: JSON as Python writes it,
//! messages of protocol 2, bodies, signatures, results, events, remote control and the Redis
//! envelope. The contract it follows was read in Celery's and kombu's sources and captured from
//! running systems; the captures are in `testdata/`.
//!
//! What it is not: it does no I/O, starts no thread, reads no clock and no randomness, and it never
//! panics on input. It does not unpickle, and it looks into bodies only when asked to ([`codec`]):
//! those that are meant for Python stay opaque bytes. It decides nothing: what to retry, where to
//! route and when to store belongs to the crates above.
//!
//! Raw maps with typed readers stand behind every type, so that a field nobody here knows survives
//! a round trip, and so does the difference between an absent field and a null.
//!
//! ```
//! use celeriac_wire::{Body, Envelope, Map, Message, Value};
//!
//! let body = Body::new(vec![Value::from(2), Value::from(3)], Map::new());
//! let mut message = Message::new("app.add", "7c9e6679", body.to_bytes());
//! message.headers.set_retries(1).set_arguments_text(&body.args, &body.kwargs);
//! message.check()?;
//!
//! let stored = Envelope::new(message).to_bytes();
//! let read = Envelope::parse(&stored)?.message;
//! assert_eq!(read.headers.task(), Some("app.add"));
//! assert_eq!(read.headers.argsrepr(), Some("(2, 3)"));
//! assert_eq!(Body::parse(&read.body)?.args, body.args);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod limits;

pub mod error;
mod field;
pub mod json;
pub mod time;

pub mod body;
pub mod message;
pub mod repr;
pub mod signature;

pub mod codec;
pub mod control;
pub mod envelope;
pub mod event;
pub mod result;

// The names the other crates use every day; the rest is reached through its module.
pub use self::body::{Body, Embed};
pub use self::control::{ControlReply, ControlRequest, ReplyTo};
pub use self::envelope::Envelope;
pub use self::error::{FieldError, ParseError};
pub use self::event::{Event, EventBase};
pub use self::json::{JsonError, Map, Number, Special, Value, from_value, to_value};
pub use self::message::{DeliveryInfo, Headers, Message, Properties, TimeLimits};
pub use self::repr::{args_repr, kwargs_repr, value_repr};
pub use self::result::{CompressedResult, ExceptionInfo, ResultMeta, State};
pub use self::signature::{Signature, SignatureKind};
pub use self::time::{parse_iso, print_iso};
