//! Results: states, stored metas and exceptions.
//!
//! Owns the text stored under `celery-task-meta-<id>` (spec 4.2). The rules of writing (never over
//! a `SUCCESS`, spec 0, rule 7) belong to the stores. Unknown fields survive. Tested in
//! `tests/wire/` against the stored bytes of Celery 5.7.0.

mod exception;
mod state;

use jiff::Timestamp;

pub use self::exception::ExceptionInfo;
pub use self::state::State;
use crate::error::{FieldError, ParseError};
use crate::field::{self, NULL, raw_map};
use crate::json::{Map, Value};

/// First bytes of a compressed result (celery 5.7.0 backends/base.py, spec 4.2).
const COMPRESSED_PREFIX: &[u8] = b"\x00celery-compressed\x00";

/// Keys in the order Celery writes them; unknown ones (stamps) go before the last.
///
/// celery 5.7.0 backends/base.py `_get_result_meta`, then `task_id` in the key-value backends.
const KEY_ORDER: [&str; 15] = [
    "status",
    "result",
    "traceback",
    "children",
    "date_done",
    "group_id",
    "parent_id",
    "name",
    "args",
    "kwargs",
    "worker",
    "retries",
    "queue",
    "stamped_headers",
    "task_id",
];

/// A result whose bytes are compressed (setting `result_compression` of celery 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedResult<'a> {
    /// MIME name of the compression (spec 1.8).
    pub mime: &'a str,
    /// The compressed bytes.
    pub bytes: &'a [u8],
}

/// A stored result: a raw ordered map with typed readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultMeta(Map);

raw_map!(ResultMeta);

impl ResultMeta {
    /// Creates the six fields Celery always writes; `children` is empty, `date_done` null.
    pub fn new(task_id: &str, state: &State, result: impl Into<Value>) -> Self {
        Self(Map::from([
            ("status", Value::from(state.as_str())),
            ("result", result.into()),
            ("traceback", Value::Null),
            ("children", Value::Array(Vec::new())),
            ("date_done", Value::Null),
            ("task_id", Value::from(task_id)),
        ]))
    }

    /// Creates the result of a failed, retried or revoked task.
    pub fn of_exception(task_id: &str, state: &State, exception: &ExceptionInfo) -> Self {
        Self::new(task_id, state, exception.to_value())
    }

    /// Parses a stored text; for a compressed one see [`compressed`](Self::compressed).
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        field::parse_object(bytes, "result meta").map(Self)
    }

    /// Splits a compressed result into the name of its compression and its bytes.
    pub fn compressed(stored: &[u8]) -> Option<CompressedResult<'_>> {
        let rest = stored.strip_prefix(COMPRESSED_PREFIX)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let mime = std::str::from_utf8(rest.get(..end)?).ok()?;
        Some(CompressedResult { mime, bytes: rest.get(end + 1..)? })
    }

    /// Prints the text to store and to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Returns the state; a missing one is `PENDING`, as in `AsyncResult`.
    pub fn state(&self) -> State {
        field::text(&self.0, "status").map_or(State::Pending, State::parse)
    }

    /// Returns the return value, the exception as a value, or the meta of a custom state.
    pub fn result(&self) -> &Value {
        self.0.get("result").unwrap_or(&NULL)
    }

    /// Returns the exception if the state has one.
    pub fn exception(&self) -> Result<Option<ExceptionInfo>, FieldError> {
        if !self.state().is_exception() {
            return Ok(None);
        }
        ExceptionInfo::from_value(self.result()).map(Some).map_err(|error| error.within("result"))
    }

    /// Returns Python's traceback text.
    pub fn traceback(&self) -> Option<&str> {
        field::text(&self.0, "traceback")
    }

    /// Returns the result tuples of tasks this one sent (spec 4.2).
    pub fn children(&self) -> Option<&[Value]> {
        self.0.get("children").and_then(Value::as_array)
    }

    /// Returns when the task ended; null unless it succeeded, failed or was revoked.
    pub fn date_done(&self) -> Result<Option<Timestamp>, FieldError> {
        field::instant(&self.0, "date_done")
    }

    /// Returns the task id.
    pub fn task_id(&self) -> Option<&str> {
        field::text(&self.0, "task_id")
    }

    /// Returns the group id.
    pub fn group_id(&self) -> Option<&str> {
        field::text(&self.0, "group_id")
    }

    /// Returns the id of the task that sent this one.
    pub fn parent_id(&self) -> Option<&str> {
        field::text(&self.0, "parent_id")
    }

    /// Returns the task name (extended results only, like the next five).
    pub fn name(&self) -> Option<&str> {
        field::text(&self.0, "name")
    }

    /// Returns the positional arguments.
    pub fn args(&self) -> Option<&Value> {
        field::present(&self.0, "args")
    }

    /// Returns the keyword arguments.
    pub fn kwargs(&self) -> Option<&Value> {
        field::present(&self.0, "kwargs")
    }

    /// Returns the node name of the worker.
    pub fn worker(&self) -> Option<&str> {
        field::text(&self.0, "worker")
    }

    /// Returns how often the task was retried.
    pub fn retries(&self) -> Option<u64> {
        self.0.get("retries").and_then(Value::as_u64)
    }

    /// Returns the routing key the message came with.
    pub fn queue(&self) -> Option<&str> {
        field::text(&self.0, "queue")
    }

    /// Sets a field at the place Celery gives it: `task_id` stays last.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        let rank = |name: &str| {
            // Doubled, so that unknown keys have a place between the last two.
            let unknown = 2 * KEY_ORDER.len() - 3;
            KEY_ORDER.iter().position(|key| *key == name).map_or(unknown, |at| 2 * at)
        };
        let place = self.0.keys().position(|key| rank(key) > rank(name));
        drop(self.0.insert_at(place.unwrap_or(self.0.len()), name, value));
        self
    }

    /// Sets Python's traceback text.
    pub fn set_traceback(&mut self, traceback: Option<&str>) -> &mut Self {
        self.set("traceback", traceback)
    }

    /// Sets the result tuples of tasks this one sent; nothing is written as null.
    pub fn set_children(&mut self, children: Option<Vec<Value>>) -> &mut Self {
        self.set("children", children)
    }

    /// Sets when the task ended.
    pub fn set_date_done(&mut self, instant: Option<Timestamp>) -> &mut Self {
        self.set("date_done", field::instant_value(instant))
    }

    /// Sets the group id.
    pub fn set_group_id(&mut self, id: &str) -> &mut Self {
        self.set("group_id", id)
    }

    /// Sets the id of the task that sent this one.
    pub fn set_parent_id(&mut self, id: &str) -> &mut Self {
        self.set("parent_id", id)
    }
}
