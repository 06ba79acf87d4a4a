//! Bodies of every content type that a native task can read, and that a producer can write.
//!
//! Owns the way from a message's bytes to a [`Body`] and back: compression (spec 1.8), then the
//! serializer (spec 1.7), then the shape of protocol 2, protocol 1 or the hybrid of both (spec 1.5).
//! Pickle is never read: it can run any code, and only Python understands it. Everything here is
//! total: whatever the bytes are, the answer is a body or a [`CodecError`], and memory is bounded by
//! [`DECOMPRESSED_BYTES_MAX`] and [`VALUES_MAX`]. Tested in `tests/wire/codecs.rs`.

mod compression;
mod legacy;
mod msgpack;
#[cfg(feature = "yaml")]
mod yaml;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use self::compression::Compression;
use crate::body::{Body, Embed};
use crate::error::{FieldError, ParseError};
use crate::json::{Map, Special, Value};
use crate::limits::{DECOMPRESSED_BYTES_MAX, VALUES_MAX};
use crate::message::{CONTENT_ENCODING_BINARY, CONTENT_ENCODING_UTF8, CONTENT_TYPE_JSON, Message};

/// Content type of `MessagePack` bodies (spec 1.7).
pub const CONTENT_TYPE_MSGPACK: &str = "application/x-msgpack";
/// Content type of YAML bodies (spec 1.7).
pub const CONTENT_TYPE_YAML: &str = "application/x-yaml";
/// Content type of pickled bodies (spec 1.7).
pub const CONTENT_TYPE_PICKLE: &str = "application/x-python-serialize";
/// Content type of raw bytes (spec 1.7).
pub const CONTENT_TYPE_DATA: &str = "application/data";
/// Content type of raw text (spec 1.7).
pub const CONTENT_TYPE_TEXT: &str = "text/plain";

/// Why a body cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// It is pickled.
    #[error(
        "the body is a pickle ({CONTENT_TYPE_PICKLE}): only a Python worker can read it, a native \
         task cannot"
    )]
    Pickle,
    /// Its content type is known, but not accepted here.
    #[error("the body has content type {content_type}, accepted are {accepted}")]
    NotAccepted {
        /// What it has.
        content_type: &'static str,
        /// What is accepted.
        accepted: String,
    },
    /// Nobody here knows its content type.
    #[error("the body has content type {0:?}, which this worker does not read")]
    UnknownType(String),
    /// Its text is not UTF-8 by its content encoding.
    #[error("the body has content encoding {0:?}, this worker reads utf-8")]
    UnknownEncoding(String),
    /// Nobody here knows its compression.
    #[error("the body is compressed with {0:?}, which this worker does not read")]
    UnknownCompression(String),
    /// The program was built without what it takes.
    #[error("this program was built without {what}: build it with the feature `{feature}`")]
    NotBuilt {
        /// What it takes.
        what: &'static str,
        /// What brings it.
        feature: &'static str,
    },
    /// It is larger, decompressed or as values, than its bound in [`limits`](crate::limits).
    #[error("the body has more than {max} {what}")]
    TooLarge {
        /// The unit of the bound.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The bytes are not what they are said to be.
    #[error("the body is no {what}: {problem}")]
    Broken {
        /// What they are said to be.
        what: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// The bytes can be read, but are no task body.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The format has no place for a value.
    #[error("{format} cannot carry {what}; use the serializer json")]
    NotCarried {
        /// The name of the serializer.
        format: &'static str,
        /// What it has no place for.
        what: String,
    },
}

impl CodecError {
    /// Returns whether the body was refused by its type alone, without a look at its bytes.
    ///
    /// Celery raises `ContentDisallowed` for these and `DecodeError` for the others (spec 5.9).
    pub fn is_disallowed(&self) -> bool {
        matches!(
            self,
            Self::Pickle
                | Self::NotAccepted { .. }
                | Self::UnknownType(_)
                | Self::UnknownEncoding(_)
                | Self::UnknownCompression(_)
                | Self::NotBuilt { .. }
        )
    }

    fn broken(what: &'static str, problem: impl fmt::Display) -> Self {
        Self::Broken { what, problem: problem.to_string() }
    }
}

impl From<FieldError> for CodecError {
    fn from(error: FieldError) -> Self {
        Self::Parse(error.into())
    }
}

/// A serializer of task bodies, as Celery's setting `task_serializer` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serializer {
    /// JSON in Python's dialect.
    #[default]
    Json,
    /// `MessagePack`, as `msgpack.packb(use_bin_type=True)`.
    Msgpack,
    /// YAML 1.1, as `yaml.safe_load` reads it.
    Yaml,
}

impl Serializer {
    /// All serializers.
    pub const ALL: [Self; 3] = [Self::Json, Self::Msgpack, Self::Yaml];

    /// Returns the name in settings and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Msgpack => "msgpack",
            Self::Yaml => "yaml",
        }
    }

    /// Returns the MIME type of its bodies.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => CONTENT_TYPE_JSON,
            Self::Msgpack => CONTENT_TYPE_MSGPACK,
            Self::Yaml => CONTENT_TYPE_YAML,
        }
    }

    /// Returns the content encoding of its bodies.
    pub fn content_encoding(self) -> &'static str {
        match self {
            Self::Json | Self::Yaml => CONTENT_ENCODING_UTF8,
            Self::Msgpack => CONTENT_ENCODING_BINARY,
        }
    }

    fn print(self, value: &Value) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Json => Ok(value.to_bytes()),
            Self::Msgpack => msgpack::print(value),
            #[cfg(feature = "yaml")]
            Self::Yaml => yaml::print(value),
            #[cfg(not(feature = "yaml"))]
            Self::Yaml => Err(CodecError::NotBuilt { what: "YAML", feature: "yaml" }),
        }
    }

    fn parse(self, bytes: &[u8]) -> Result<Value, CodecError> {
        match self {
            Self::Json => Ok(Value::parse(bytes).map_err(ParseError::from)?),
            Self::Msgpack => msgpack::parse(bytes),
            #[cfg(feature = "yaml")]
            Self::Yaml => yaml::parse(bytes),
            #[cfg(not(feature = "yaml"))]
            Self::Yaml => Err(CodecError::NotBuilt { what: "YAML", feature: "yaml" }),
        }
    }
}

impl FromStr for Serializer {
    type Err = String;

    /// Reads a name or a MIME type, as kombu's registry does.
    fn from_str(text: &str) -> Result<Self, String> {
        let found =
            Self::ALL.into_iter().find(|one| one.name() == text || one.content_type() == text);
        found.ok_or_else(|| match text {
            "pickle" | CONTENT_TYPE_PICKLE => {
                "pickle is written and read by Python only; use json, msgpack or yaml".to_owned()
            }
            _ => format!("{text:?} is no serializer; use json, msgpack or yaml"),
        })
    }
}

/// The serializers whose bodies are read (Celery's `accept_content`).
///
/// Raw bytes and raw text are always read: nothing in them is interpreted (spec 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept([bool; 3]);

impl Default for Accept {
    /// Accepts everything that can be read: none of these formats can run code.
    fn default() -> Self {
        Self([true; 3])
    }
}

impl Accept {
    /// Accepts these only.
    pub fn only(serializers: impl IntoIterator<Item = Serializer>) -> Self {
        let mut accepted = [false; 3];
        for serializer in serializers {
            accepted[serializer as usize] = true;
        }
        Self(accepted)
    }

    /// Returns whether bodies of this serializer are read.
    pub fn has(self, serializer: Serializer) -> bool {
        self.0[serializer as usize]
    }

    fn names(self) -> String {
        let names = Serializer::ALL.into_iter().filter(|one| self.has(*one)).map(Serializer::name);
        names.collect::<Vec<_>>().join(", ")
    }
}

/// What a message holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Its body.
    pub body: Body,
    /// The message in protocol 2 with a JSON body, if it came as protocol 1 or as a hybrid.
    pub upgraded: Option<Message>,
}

/// Reads the body of a message: decompresses, decodes, and brings older protocols into protocol 2.
///
/// kombu 5.7.0 `message.py` `decompress` and `_decode`, celery 5.7.0 `worker/strategy.py`. A body of
/// raw bytes or raw text becomes the only positional argument: Celery's workers cannot do anything
/// with it, other producers may.
pub fn read(message: &Message, accept: Accept) -> Result<Read, CodecError> {
    let value = match content(message, accept)? {
        Content::Value(value) => value,
        Content::Raw(value) => {
            let body = Body { args: vec![value], kwargs: Map::new(), embed: Embed::new() };
            return Ok(Read { body, upgraded: None });
        }
    };
    match value {
        Value::Object(map) if !message.is_protocol_2() || map.contains_key("args") => {
            let (body, upgraded) = legacy::upgrade(message, map)?;
            Ok(Read { body, upgraded: Some(upgraded) })
        }
        value => Ok(Read { body: Body::from_value(value)?, upgraded: None }),
    }
}

/// Writes a body into a message, with its content type, encoding and compression.
///
/// # Errors
/// [`CodecError::NotCarried`] or [`CodecError::NotBuilt`]; the message stays as it was.
pub fn write(
    message: &mut Message,
    body: &Body,
    serializer: Serializer,
    compression: Option<Compression>,
) -> Result<(), CodecError> {
    let plain = match serializer {
        Serializer::Json => body.to_bytes(),
        other => other.print(&body.to_value())?,
    };
    let bytes = match compression {
        Some(compression) => compression.compress(&plain)?,
        None => plain,
    };
    message.headers.set_compression(compression.map(Compression::header));
    serializer.content_type().clone_into(&mut message.content_type);
    serializer.content_encoding().clone_into(&mut message.content_encoding);
    message.body = bytes.into();
    Ok(())
}

enum Content {
    Value(Value),
    /// The body is not structured.
    Raw(Value),
}

fn content(message: &Message, accept: Accept) -> Result<Content, CodecError> {
    // kombu takes a message without a content type for raw bytes (serialization.py `loads`).
    let content_type = match message.content_type.as_str() {
        "" => CONTENT_TYPE_DATA,
        text => text.split(';').next().unwrap_or_default().trim(),
    };
    let serializer = Serializer::ALL.into_iter().find(|one| one.content_type() == content_type);
    match (serializer, content_type) {
        (Some(serializer), _) if !accept.has(serializer) => {
            return Err(CodecError::NotAccepted {
                content_type: serializer.content_type(),
                accepted: accept.names(),
            });
        }
        (Some(_), _) | (None, CONTENT_TYPE_DATA | CONTENT_TYPE_TEXT) => {}
        (None, CONTENT_TYPE_PICKLE) => return Err(CodecError::Pickle),
        (None, other) => return Err(CodecError::UnknownType(other.to_owned())),
    }
    let is_text = serializer != Some(Serializer::Msgpack) && content_type != CONTENT_TYPE_DATA;
    let encoding = message.content_encoding.to_ascii_lowercase();
    if is_text
        && !matches!(encoding.as_str(), "" | "utf-8" | "utf8" | "us-ascii" | "ascii" | "binary")
    {
        return Err(CodecError::UnknownEncoding(message.content_encoding.clone()));
    }
    let plain = match message.headers.compression() {
        None => None,
        Some(name) => {
            let compression = Compression::of_header(name)
                .ok_or_else(|| CodecError::UnknownCompression(name.to_owned()))?;
            Some(compression.decompress(&message.body, DECOMPRESSED_BYTES_MAX)?)
        }
    };
    let bytes = plain.as_deref().unwrap_or(&message.body);
    match serializer {
        Some(serializer) => serializer.parse(bytes).map(Content::Value),
        None if content_type == CONTENT_TYPE_TEXT => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Content::Raw(Value::from(text))),
            Err(error) => Err(CodecError::broken("UTF-8 text", error)),
        },
        None => Ok(Content::Raw(Special::Bytes(bytes.to_vec()).to_value())),
    }
}

/// Counts values, so that a short text cannot make a huge tree.
#[derive(Debug, Default)]
struct Budget {
    values: usize,
    bytes: usize,
}

impl Budget {
    /// Takes room for one value with a text of so many bytes.
    fn take(&mut self, bytes: usize) -> Result<(), CodecError> {
        self.values += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > VALUES_MAX {
            return Err(CodecError::TooLarge { what: "values", max: VALUES_MAX });
        }
        if self.bytes > DECOMPRESSED_BYTES_MAX {
            return Err(CodecError::TooLarge { what: "bytes", max: DECOMPRESSED_BYTES_MAX });
        }
        Ok(())
    }
}

/// The text of a key, as `json.dumps` writes keys that are no text; nothing for what is no key.
fn key_text(key: Value) -> Option<String> {
    match key {
        Value::String(text) => Some(text),
        Value::Null => Some("null".to_owned()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.as_str().to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
