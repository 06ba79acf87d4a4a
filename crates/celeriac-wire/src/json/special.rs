//! Values JSON has no type for: kombu's `__type__` objects.
//!
//! kombu 5.7.0 utils/json.py: an object with exactly the keys `__type__` and `__value__`
//! (spec 1.6). They stay plain objects in a [`Value`]; this module reads and writes them on
//! request, so that markers nobody here knows are relayed unchanged.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{JsonError, Map, Value};

/// Standard base64 that, like Python's decoder, does not mind stray trailing bits.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";

/// A value of a type JSON does not have.
///
/// Texts are kept as they were written; nothing is checked beyond their JSON type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Special {
    /// `datetime.datetime`, ISO 8601 text; without an offset it is naive.
    DateTime(String),
    /// `datetime.date`, ISO 8601 text.
    Date(String),
    /// `datetime.time`, ISO 8601 text.
    Time(String),
    /// `decimal.Decimal`, its exact text.
    Decimal(String),
    /// `uuid.UUID`, its 32 hex digits without hyphens.
    Uuid(String),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// A marker registered by the application (`kombu.utils.json.register_type`).
    Other {
        /// The text of `__type__`.
        marker: String,
        /// The `__value__` as it is.
        value: Value,
    },
}

impl Special {
    /// Reads a value if it is a marker object; an error means a known marker with a bad value.
    pub fn read(value: &Value) -> Option<Result<Self, JsonError>> {
        let map = value.as_object().filter(|map| map.len() == 2)?;
        let marker = map.get(TYPE)?.as_str()?;
        let inner = map.get(VALUE)?;
        Some(Self::read_marked(marker, inner).map_err(|error| error.at(VALUE)))
    }

    fn read_marked(marker: &str, inner: &Value) -> Result<Self, JsonError> {
        let text = || match inner.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(JsonError::mismatch("a string", inner.describe())),
        };
        match marker {
            "datetime" => text().map(Self::DateTime),
            "date" => text().map(Self::Date),
            "time" => text().map(Self::Time),
            "decimal" => text().map(Self::Decimal),
            "bytes" => text().map(|text| Self::Bytes(text.into_bytes())),
            "base64" => match BASE64.decode(text()?) {
                Ok(bytes) => Ok(Self::Bytes(bytes)),
                Err(_) => Err(JsonError::mismatch("base64 text", inner.describe())),
            },
            "uuid" => read_uuid(inner).map(Self::Uuid),
            _ => Ok(Self::Other { marker: marker.to_owned(), value: inner.clone() }),
        }
    }

    /// Writes the marker object.
    ///
    /// Bytes that are UTF-8 get the marker `bytes`, others `base64`
    /// (kombu 5.7.0 utils/json.py `JSONEncoder`).
    pub fn to_value(&self) -> Value {
        let (marker, value) = match self {
            Self::DateTime(text) => ("datetime", Value::from(text.as_str())),
            Self::Date(text) => ("date", Value::from(text.as_str())),
            Self::Time(text) => ("time", Value::from(text.as_str())),
            Self::Decimal(text) => ("decimal", Value::from(text.as_str())),
            Self::Uuid(hex) => ("uuid", Map::from([("hex", hex.as_str())]).into()),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => ("bytes", Value::from(text)),
                Err(_) => ("base64", Value::from(BASE64.encode(bytes))),
            },
            Self::Other { marker, value } => (marker.as_str(), value.clone()),
        };
        Value::Object(Map::from([(TYPE, Value::from(marker)), (VALUE, value)]))
    }
}

impl Special {
    /// Describes the value for an error message: `a datetime`.
    pub fn describe(&self) -> String {
        match self {
            Self::DateTime(_) => "a datetime".to_owned(),
            Self::Date(_) => "a date".to_owned(),
            Self::Time(_) => "a time".to_owned(),
            Self::Decimal(_) => "a decimal".to_owned(),
            Self::Uuid(_) => "a UUID".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Other { marker, .. } => format!("a value of type {:?}", super::cut(marker)),
        }
    }
}

/// Reads the keyword arguments of `uuid.UUID`, of which kombu writes `hex` only.
fn read_uuid(inner: &Value) -> Result<String, JsonError> {
    let hex = inner.get("hex").and_then(Value::as_str).or_else(|| inner.as_str());
    let digits: String = hex.unwrap_or_default().chars().filter(|c| *c != '-').collect();
    if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(JsonError::mismatch("an object with the hex digits of a UUID", inner.describe()))
    }
}

#[cfg(test)]
mod tests {
    use super::Special;
    use crate::json::Value;

    fn read(text: &str) -> Option<Result<Special, String>> {
        let value = Value::parse(text.as_bytes()).expect("valid");
        Special::read(&value).map(|read| read.map_err(|error| error.to_string()))
    }

    #[test]
    fn reads_and_writes_every_marker_of_kombu() {
        let table = [
            (
                r#"{"__type__": "datetime", "__value__": "2026-01-02T03:04:05"}"#,
                Special::DateTime("2026-01-02T03:04:05".to_owned()),
            ),
            (
                r#"{"__type__": "date", "__value__": "2026-01-02"}"#,
                Special::Date("2026-01-02".to_owned()),
            ),
            (
                r#"{"__type__": "time", "__value__": "03:04:00"}"#,
                Special::Time("03:04:00".to_owned()),
            ),
            (
                r#"{"__type__": "decimal", "__value__": "1.50"}"#,
                Special::Decimal("1.50".to_owned()),
            ),
            (
                r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}}"#,
                Special::Uuid("00000000000000000000000000000001".to_owned()),
            ),
            (r#"{"__type__": "bytes", "__value__": "abc"}"#, Special::Bytes(b"abc".to_vec())),
            (r#"{"__type__": "base64", "__value__": "/wA="}"#, Special::Bytes(vec![255, 0])),
            (
                r#"{"__type__": "money", "__value__": [1, "EUR"]}"#,
                Special::Other {
                    marker: "money".to_owned(),
                    value: vec![Value::from(1), Value::from("EUR")].into(),
                },
            ),
        ];
        for (text, special) in table {
            assert_eq!(read(text), Some(Ok(special.clone())));
            assert_eq!(special.to_value().to_string(), text);
        }
    }

    #[test]
    fn only_exactly_two_keys_make_a_marker() {
        for text in [
            r#"{"__type__": "date"}"#,
            r#"{"__type__": "date", "__value__": "2026-01-02", "more": 1}"#,
            r#"{"__type__": 1, "__value__": 2}"#,
            "[]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_known_marker_with_a_bad_value_is_an_error() {
        for (text, message) in [
            (
                r#"{"__type__": "date", "__value__": 1}"#,
                "__value__: expected a string, found the integer 1",
            ),
            (
                r#"{"__type__": "base64", "__value__": "?"}"#,
                "__value__: expected base64 text, found the string \"?\"",
            ),
            (
                r#"{"__type__": "uuid", "__value__": {"hex": "1"}}"#,
                "__value__: expected an object with the hex digits of a UUID, \
                 found an object of 1 keys",
            ),
        ] {
            assert_eq!(read(text), Some(Err(message.to_owned())));
        }
    }
}
