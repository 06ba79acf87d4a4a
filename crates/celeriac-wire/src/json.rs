//! Python's JSON dialect: values, exact numbers, parser, printer and serde.
//!
//! Owns the reading and writing of what `json.loads` and `json.dumps` of Python 3.11 read and
//! write (spec 1.6): bare `NaN` and `Infinity`, integers of any size, escaped non-ASCII text,
//! separators `", "` and `": "`. It does not interpret `__type__` objects by itself; see
//! [`special`]. Invariant: `parse(print(v)) == v`, and a number keeps its source text. Tested in
//! `tests/wire/` against fixtures, random values and Python itself.

mod de;
mod error;
mod float;
mod map;
mod number;
mod parse;
mod print;
mod ser;
pub mod special;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::de::Deserializer;
pub use self::error::JsonError;
pub(crate) use self::error::cut;
pub use self::map::Map;
pub use self::number::Number;
pub(crate) use self::print::print_array;
pub use self::ser::Serializer;
pub use self::special::Special;

/// One JSON value.
///
/// Equality of numbers is equality of their text (`1.0 != 1.00`, `NaN == NaN`); equality of
/// objects ignores key order, like Python's `dict`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`, Python's `None`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number with its exact text, or `NaN`, `Infinity`, `-Infinity`.
    Number(Number),
    /// Text.
    String(String),
    /// An array; Python's `list` and `tuple` both become one.
    Array(Vec<Self>),
    /// An object with its keys in the order they were written.
    Object(Map),
}

impl Value {
    /// Parses one JSON text in UTF-8.
    ///
    /// As Python: a byte order mark is refused, control characters inside strings are refused,
    /// the last of duplicate keys wins. Unlike Python a lone surrogate escape (`"\ud800"`) is an
    /// error, because Rust text cannot hold it and replacing it would lose data silently.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        parse::parse(text)
    }

    /// Prints the value as UTF-8 (in fact ASCII) bytes in the style of `json.dumps`.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Returns the text if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the elements if this is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the map if this is an object.
    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// Returns the map for changing if this is an object.
    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    /// Returns the elements for changing if this is an array.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Self>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the flag if this is a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Returns the number if this is one.
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Returns the integer if this is one that fits; `1.0` is not an integer.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// Returns the integer if this is one that fits; `1.0` is not an integer.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// Returns the nearest float if this is a number.
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number().and_then(Number::as_f64)
    }

    /// Returns whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns the value of a key if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object().and_then(|map| map.get(key))
    }

    /// Describes the value for an error message: `the string "x"`, `an array of 3`.
    ///
    /// Long strings and numbers are cut to [`FOUND_CHARS_MAX`](crate::limits::FOUND_CHARS_MAX).
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(flag) => format!("the bool {flag}"),
            Self::Number(number) if number.is_integer() => {
                format!("the integer {}", cut(number.as_str()))
            }
            Self::Number(number) => format!("the number {}", cut(number.as_str())),
            Self::String(text) => format!("the string {:?}", cut(text)),
            Self::Array(items) => format!("an array of {}", items.len()),
            Self::Object(map) => format!("an object of {} keys", map.len()),
        }
    }
}

/// Serializes any value into the dialect.
///
/// Bytes (`serialize_bytes`) become the marker object of kombu 5.3+ (spec 1.6); map keys that are
/// numbers or bools become text as `json.dumps` does; nesting is bounded by
/// [`JSON_DEPTH_MAX`](crate::limits::JSON_DEPTH_MAX).
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, JsonError> {
    value.serialize(Serializer::new())
}

/// Builds a type from a value; the error names the path, what was expected and what was found.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    T::deserialize(Deserializer::new(value))
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Object(map)
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(item: Option<T>) -> Self {
        item.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

macro_rules! from_number {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Self::Number(Number::from(number))
            }
        }
    )*};
}
from_number!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, usize, f32, f64);
