//! Typed reading of single fields of raw maps.
//!
//! A missing field and `null` are the same to every reader here, as `headers.get(name)` is in
//! Celery; the raw map keeps them apart.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::{FieldError, ParseError};
use crate::json::{Map, Value};
use crate::time::{parse_iso, print_iso};

/// An empty map to lend out where a field is missing.
pub(crate) static EMPTY_MAP: Map = Map::new();

/// A null to lend out where a field is missing.
pub(crate) static NULL: Value = Value::Null;

/// Returns the field unless it is missing or null.
pub(crate) fn present<'a>(map: &'a Map, field: &str) -> Option<&'a Value> {
    map.get(field).filter(|value| !value.is_null())
}

/// Returns the text of a field, or nothing if it is anything else.
pub(crate) fn text<'a>(map: &'a Map, field: &str) -> Option<&'a str> {
    map.get(field).and_then(Value::as_str)
}

/// Returns the text of a field that must be there.
pub(crate) fn required_text<'a>(map: &'a Map, field: &str) -> Result<&'a str, FieldError> {
    match map.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(FieldError::new(field, "a string", other)),
        None => Err(FieldError::missing(field, "a string")),
    }
}

/// Returns the instant of an ISO 8601 field.
pub(crate) fn instant(map: &Map, field: &str) -> Result<Option<Timestamp>, FieldError> {
    let Some(value) = present(map, field) else {
        return Ok(None);
    };
    let parsed = value.as_str().and_then(|text| parse_iso(text).ok());
    match parsed {
        Some(instant) => Ok(Some(instant)),
        None => Err(FieldError::new(field, "an ISO 8601 time", value)),
    }
}

/// Prints an instant for a field.
pub(crate) fn instant_value(instant: Option<Timestamp>) -> Value {
    instant.map(print_iso).into()
}

/// Reads seconds: an integer or float of zero or more.
pub(crate) fn seconds(field: &str, value: &Value) -> Result<Option<Duration>, FieldError> {
    if value.is_null() {
        return Ok(None);
    }
    let duration = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match duration {
        Some(duration) => Ok(Some(duration)),
        None => Err(FieldError::new(field, "seconds of 0 or more", value)),
    }
}

/// Prints seconds as an integer when whole, else as a float.
pub(crate) fn seconds_value(duration: Option<Duration>) -> Value {
    match duration {
        None => Value::Null,
        Some(duration) if duration.subsec_nanos() == 0 => Value::from(duration.as_secs()),
        Some(duration) => Value::from(duration.as_secs_f64()),
    }
}

/// Returns the map of a field that is an object, missing or null.
pub(crate) fn object<'a>(map: &'a Map, field: &str) -> Result<Option<&'a Map>, FieldError> {
    match present(map, field) {
        None => Ok(None),
        Some(Value::Object(inner)) => Ok(Some(inner)),
        Some(other) => Err(FieldError::new(field, "an object", other)),
    }
}

/// Parses bytes that must be one object.
pub(crate) fn parse_object(bytes: &[u8], what: &'static str) -> Result<Map, ParseError> {
    match Value::parse(bytes)? {
        Value::Object(map) => Ok(map),
        other => Err(FieldError::new(what, "an object", &other).into()),
    }
}

/// Defines the raw-map constructors and accessors that every wrapper of a [`Map`] has.
macro_rules! raw_map {
    ($name:ident) => {
        impl $name {
            /// Wraps a raw map without looking at it.
            pub const fn from_map(map: $crate::json::Map) -> Self {
                Self(map)
            }

            /// Returns the raw map.
            pub const fn as_map(&self) -> &$crate::json::Map {
                &self.0
            }

            /// Returns the raw map for changing.
            pub const fn as_map_mut(&mut self) -> &mut $crate::json::Map {
                &mut self.0
            }

            /// Gives the raw map away.
            pub fn into_map(self) -> $crate::json::Map {
                self.0
            }

            /// Returns a field as it is.
            pub fn get(&self, field: &str) -> Option<&$crate::json::Value> {
                self.0.get(field)
            }

            /// Sets a field.
            pub fn insert(
                &mut self,
                field: impl Into<String>,
                value: impl Into<$crate::json::Value>,
            ) -> &mut Self {
                drop(self.0.insert(field, value));
                self
            }
        }

        impl From<$name> for $crate::json::Value {
            fn from(wrapper: $name) -> Self {
                Self::Object(wrapper.0)
            }
        }
    };
}
pub(crate) use raw_map;
