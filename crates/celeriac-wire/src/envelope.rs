//! The envelope of a message on Redis: one JSON text (spec 2.2).
//!
//! Owns the five keys of kombu's virtual transport and the encoding of the body by the property
//! `body_encoding`. Other stores do not use it. Unknown keys survive in [`Envelope::extra`].

use base64::Engine as _;
use bytes::Bytes;

use crate::error::{FieldError, ParseError};
use crate::field;
use crate::json::special::BASE64;
use crate::json::{Map, Value};
use crate::message::{Headers, Message, Properties};

/// A message and what else its envelope holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    /// Keys this crate does not know.
    pub extra: Map,
}

impl Envelope {
    /// Wraps a message; without a `body_encoding` it gets `base64`, kombu's default.
    pub fn new(mut message: Message) -> Self {
        if field::present(message.properties.as_map(), "body_encoding").is_none() {
            message.properties.set_body_encoding("base64");
        }
        Self { message, extra: Map::new() }
    }

    /// Parses the text of one list element.
    ///
    /// kombu 5.7.0 transport/virtual/base.py `Message.__init__`, `Channel.decode_body`: the body
    /// is decoded if `body_encoding` is `base64`, and is as it is otherwise. Null or missing
    /// content type and encoding are empty here and null when printed again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut map = field::parse_object(bytes, "envelope")?;
        let headers = Headers::from_map(take_object(&mut map, "headers")?);
        let properties = Properties::from_map(take_object(&mut map, "properties")?);
        let content_type = take_text(&mut map, "content-type")?;
        let content_encoding = take_text(&mut map, "content-encoding")?;
        let body = match map.remove("body") {
            Some(Value::String(text)) => decode_body(text, properties.body_encoding())?,
            Some(other) => return Err(FieldError::new("body", "a string", &other).into()),
            None => return Err(FieldError::missing("body", "a string").into()),
        };
        let message = Message { headers, properties, content_type, content_encoding, body };
        Ok(Self { message, extra: map })
    }

    /// Prints the text of one list element, in kombu's key order.
    ///
    /// The body is written as `body_encoding` says; a body that is not UTF-8 is always written in
    /// base64, and the property then says so.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Message { headers, properties, content_type, content_encoding, body } = &self.message;
        let plain = match properties.body_encoding() {
            Some("base64") => None,
            _ => std::str::from_utf8(body).ok(),
        };
        let mut properties = properties.clone();
        let body = if let Some(text) = plain {
            text.to_owned()
        } else {
            properties.set_body_encoding("base64");
            BASE64.encode(body)
        };
        let mut map = Map::from([
            ("body", Value::from(body)),
            ("content-encoding", text_or_null(content_encoding)),
            ("content-type", text_or_null(content_type)),
            ("headers", Value::from(headers.clone())),
            ("properties", Value::from(properties)),
        ]);
        for (key, value) in self.extra.iter() {
            if !map.contains_key(key) {
                map.insert(key, value.clone());
            }
        }
        map.to_string().into_bytes()
    }
}

impl From<Message> for Envelope {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

fn decode_body(text: String, encoding: Option<&str>) -> Result<Bytes, FieldError> {
    if encoding != Some("base64") {
        return Ok(Bytes::from(text));
    }
    let decoded = BASE64.decode(&text).or_else(|_| {
        // Python's decoder skips what is not of the alphabet, such as line ends.
        let bytes: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64.decode(bytes)
    });
    match decoded {
        Ok(body) => Ok(Bytes::from(body)),
        Err(_) => Err(FieldError::new("body", "base64 text", &Value::String(text))),
    }
}

fn take_object(map: &mut Map, key: &str) -> Result<Map, FieldError> {
    match map.remove(key) {
        Some(Value::Object(inner)) => Ok(inner),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(other) => Err(FieldError::new(key, "an object", &other)),
    }
}

fn take_text(map: &mut Map, key: &str) -> Result<String, FieldError> {
    match map.remove(key) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(FieldError::new(key, "a string", &other)),
    }
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from(text) }
}

#[cfg(test)]
mod tests;
