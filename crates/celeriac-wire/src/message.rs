//! A task message: headers, properties, content type and an opaque body.
//!
//! Owns the names and types of protocol 2 (spec 1.1, 1.3). It never looks into the body: that may
//! be pickle or compressed, and belongs to the task. Invariant: a field this crate does not know,
//! and whether a field was absent or `null`, survive a round trip. Tested in `tests/wire/`.

mod headers;
mod properties;

use bytes::Bytes;

pub use self::headers::{Headers, PROTOCOL_HEADERS, TimeLimits};
pub use self::properties::{DeliveryInfo, Properties};
use crate::error::FieldError;

/// Content type of JSON bodies (spec 1.7).
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// Content encoding of text bodies (spec 1.7).
pub const CONTENT_ENCODING_UTF8: &str = "utf-8";

/// Content encoding of binary bodies (spec 1.7).
pub const CONTENT_ENCODING_BINARY: &str = "binary";

/// One task message, as every store carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The metadata of the task.
    pub headers: Headers,
    /// The AMQP properties.
    pub properties: Properties,
    /// The MIME type of the body before compression.
    pub content_type: String,
    /// `utf-8` or `binary`.
    pub content_encoding: String,
    /// The serialized, and perhaps compressed, body.
    pub body: Bytes,
}

impl Message {
    /// Creates a JSON message of protocol 2 with default headers and properties.
    pub fn new(task: &str, id: &str, body: impl Into<Bytes>) -> Self {
        Self {
            headers: Headers::new(task, id),
            properties: Properties::new(id),
            content_type: CONTENT_TYPE_JSON.to_owned(),
            content_encoding: CONTENT_ENCODING_UTF8.to_owned(),
            body: body.into(),
        }
    }

    /// Returns whether the message is of protocol 2: whether it has a header `task`.
    ///
    /// celery 5.7.0 worker/consumer/consumer.py `on_task_received`: a missing header means
    /// protocol 1 (spec 1.5).
    pub fn is_protocol_2(&self) -> bool {
        self.headers.as_map().contains_key("task")
    }

    /// Returns whether the body can be read as JSON right away: JSON and not compressed.
    pub fn is_plain_json(&self) -> bool {
        self.content_type == CONTENT_TYPE_JSON && self.headers.compression().is_none()
    }

    /// Checks what a worker needs: names are text, times and limits parse.
    ///
    /// Celery rejects such a message without requeue (`InvalidTaskError`, spec 1.1, 5.9).
    pub fn check(&self) -> Result<(), FieldError> {
        self.headers.check().map_err(|error| error.within("headers"))
    }
}
