//! Events of workers, tasks and producers (spec 6).
//!
//! Owns the fields of each type. Sending, batching and clocks belong to the runtime. Unknown types
//! and fields survive.

mod kinds;

use jiff::Timestamp;

pub use self::kinds::{TaskReceived, TaskRevoked, TaskSent, WorkerStatus};
use crate::error::{FieldError, ParseError};
use crate::field::{self, raw_map};
use crate::json::{Map, Value};
use crate::limits::EVENTS_PER_MESSAGE_MAX;

/// The fields every event of one sender has (spec 6.2).
#[derive(Clone, Debug, PartialEq)]
pub struct EventBase {
    /// The node name: `celery@host`.
    pub hostname: String,
    /// Hours west of UTC: Python's `time.timezone / 3600`.
    pub utcoffset: f64,
    /// The process id of the worker's parent process.
    pub pid: u32,
    /// The Lamport clock (spec 6.5).
    pub clock: u64,
    /// The sender's wall clock.
    pub timestamp: Timestamp,
}

/// One event: a raw ordered map with typed readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event(Map);

raw_map!(Event);

impl Event {
    /// Creates an event of any type; `fields` stand where Celery puts them, before the timestamp.
    ///
    /// celery 5.7.0 events/dispatcher.py `EventDispatcher.publish`, events/event.py `Event`.
    pub fn new(kind: &str, base: &EventBase, fields: Map) -> Self {
        let mut map = Map::from([
            ("hostname", Value::from(base.hostname.as_str())),
            ("utcoffset", Value::from(base.utcoffset)),
            ("pid", Value::from(base.pid)),
            ("clock", Value::from(base.clock)),
        ]);
        map.extend(fields);
        // Python 3.11 pytime.c `_PyTime_AsSecondsDouble`: nanoseconds divided as floats.
        map.insert("timestamp", base.timestamp.as_nanosecond() as f64 / 1e9);
        map.insert("type", kind);
        Self(map)
    }

    /// Parses a body that is one event or a list of events (spec 0, rule 9).
    pub fn parse_many(bytes: &[u8]) -> Result<Vec<Self>, ParseError> {
        let items = match Value::parse(bytes)? {
            Value::Array(items) => items,
            single => vec![single],
        };
        if items.len() > EVENTS_PER_MESSAGE_MAX {
            let (size, max) = (items.len(), EVENTS_PER_MESSAGE_MAX);
            return Err(ParseError::TooLarge { what: "a list of events", size, max });
        }
        let read = |(n, item)| match item {
            Value::Object(map) => Ok(Self(map)),
            other => Err(FieldError::new(format!("event[{n}]"), "an object", &other).into()),
        };
        items.into_iter().enumerate().map(read).collect()
    }

    /// Prints one event as a JSON object: how worker events and `task-sent` are sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Prints a list of events: how task events of a worker are sent, even one alone.
    pub fn list_to_bytes(events: &[Self]) -> Vec<u8> {
        let list: Value = events.iter().cloned().collect();
        list.to_bytes()
    }

    /// Returns the type: `task-started`.
    pub fn kind(&self) -> Option<&str> {
        field::text(&self.0, "type")
    }

    /// Returns the routing key: the type with dots (spec 6.1).
    pub fn routing_key(&self) -> Option<String> {
        self.kind().map(|kind| kind.replace('-', "."))
    }

    /// Returns the sender's wall clock in seconds.
    pub fn timestamp(&self) -> Option<f64> {
        self.0.get("timestamp").and_then(Value::as_f64)
    }

    /// Returns the sender's wall clock as an instant, if it is one.
    pub fn instant(&self) -> Option<Timestamp> {
        let micros = self.timestamp().filter(|seconds| seconds.is_finite())? * 1e6;
        // A cast of a float out of range saturates, and from_microsecond refuses that.
        Timestamp::from_microsecond(micros.round() as i64).ok()
    }

    /// Returns the node name of the sender.
    pub fn hostname(&self) -> Option<&str> {
        field::text(&self.0, "hostname")
    }

    /// Returns the task id.
    pub fn uuid(&self) -> Option<&str> {
        field::text(&self.0, "uuid")
    }

    /// Returns the Lamport clock.
    pub fn clock(&self) -> Option<u64> {
        self.0.get("clock").and_then(Value::as_u64)
    }

    /// Returns the process id of the sender.
    pub fn pid(&self) -> Option<u64> {
        self.0.get("pid").and_then(Value::as_u64)
    }
}
