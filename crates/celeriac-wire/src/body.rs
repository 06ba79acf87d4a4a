//! The JSON body of a task: arguments and what to do afterwards.
//!
//! Owns the array `[args, kwargs, embed]` (spec 1.2). Bodies of other content types stay opaque
//! bytes in [`Message`](crate::message::Message).

use crate::error::{FieldError, ParseError};
use crate::field::{self, raw_map};
use crate::json::{Map, Value};
use crate::signature::Signature;

/// The decoded body of a protocol 2 message in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map,
    /// Links, chain and chord.
    pub embed: Embed,
}

impl Body {
    /// Creates a body with an embed of four nulls, as Celery writes for a plain call.
    pub fn new(args: Vec<Value>, kwargs: Map) -> Self {
        Self { args, kwargs, embed: Embed::new() }
    }

    /// Parses the array of exactly three.
    ///
    /// celery 5.7.0 worker/request.py unpacks `args, kwargs, embed`; null `args`, `kwargs` or
    /// `embed` count as empty.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Ok(Self::from_value(Value::parse(bytes)?)?)
    }

    /// Reads the array of exactly three.
    pub fn from_value(value: Value) -> Result<Self, FieldError> {
        const EXPECTED: &str = "[args, kwargs, embed]";
        let found = value.describe();
        let wrong =
            move || FieldError { field: "body".to_owned(), expected: EXPECTED.to_owned(), found };
        let Value::Array(parts) = value else {
            return Err(wrong());
        };
        let Ok([args, kwargs, embed]) = <[Value; 3]>::try_from(parts) else {
            return Err(wrong());
        };
        let args = match args {
            Value::Array(args) => args,
            Value::Null => Vec::new(),
            other => return Err(FieldError::new("args", "an array", &other)),
        };
        Ok(Self {
            args,
            kwargs: object_or_null("kwargs", kwargs)?,
            embed: Embed(object_or_null("embed", embed)?),
        })
    }

    /// Returns the array of exactly three, for other serializers than JSON.
    pub fn to_value(&self) -> Value {
        let (kwargs, embed) = (self.kwargs.clone(), self.embed.0.clone());
        Value::Array(vec![self.args.clone().into(), kwargs.into(), embed.into()])
    }

    /// Prints the array of three as Celery does.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::from("[");
        // Writing to a String cannot fail.
        _ = crate::json::print_array(&self.args, &mut text);
        text.push_str(", ");
        text.push_str(&self.kwargs.to_string());
        text.push_str(", ");
        text.push_str(&self.embed.0.to_string());
        text.push(']');
        text.into_bytes()
    }
}

fn object_or_null(name: &str, value: Value) -> Result<Map, FieldError> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(FieldError::new(name, "an object", &other)),
    }
}

/// What to do after the task: a raw ordered map with typed readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embed(Map);

raw_map!(Embed);

impl Embed {
    /// Creates the four keys Celery writes, all null.
    pub fn new() -> Self {
        let keys = ["callbacks", "errbacks", "chain", "chord"];
        Self(keys.into_iter().map(|key| (key, Value::Null)).collect())
    }

    /// Returns the signatures to call with the result (`link`).
    pub fn callbacks(&self) -> Result<Vec<Signature>, FieldError> {
        signatures(&self.0, "callbacks")
    }

    /// Returns the signatures to call after a failure (`link_error`).
    pub fn errbacks(&self) -> Result<Vec<Signature>, FieldError> {
        signatures(&self.0, "errbacks")
    }

    /// Returns the rest of the chain in reverse: the next task is the **last** (spec 0, rule 3).
    pub fn chain(&self) -> Result<Vec<Signature>, FieldError> {
        signatures(&self.0, "chain")
    }

    /// Returns the body of the chord this task is a header member of.
    pub fn chord(&self) -> Result<Option<Signature>, FieldError> {
        match field::object(&self.0, "chord")? {
            Some(map) => Ok(Some(Signature::from_map(map.clone()))),
            None => Ok(None),
        }
    }

    /// Sets the signatures to call with the result; none are written as null.
    pub fn set_callbacks(&mut self, callbacks: Vec<Signature>) -> &mut Self {
        self.insert("callbacks", list_or_null(callbacks))
    }

    /// Sets the signatures to call after a failure; none are written as null.
    pub fn set_errbacks(&mut self, errbacks: Vec<Signature>) -> &mut Self {
        self.insert("errbacks", list_or_null(errbacks))
    }

    /// Sets the rest of the chain, in reverse; none is written as null.
    pub fn set_chain(&mut self, reversed: Vec<Signature>) -> &mut Self {
        self.insert("chain", list_or_null(reversed))
    }

    /// Sets the body of the chord.
    pub fn set_chord(&mut self, chord: Option<Signature>) -> &mut Self {
        self.insert("chord", chord)
    }
}

fn list_or_null(signatures: Vec<Signature>) -> Value {
    if signatures.is_empty() { Value::Null } else { signatures.into() }
}

/// Reads a list of signatures; one alone counts as a list.
///
/// celery 5.7.0 canvas.py wraps `link` and `link_error` with `maybe_list`.
pub(crate) fn signatures(map: &Map, name: &str) -> Result<Vec<Signature>, FieldError> {
    let items = match field::present(map, name) {
        None => return Ok(Vec::new()),
        Some(Value::Object(single)) => return Ok(vec![Signature::from_map(single.clone())]),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(FieldError::new(name, "an array of signatures", other)),
    };
    let read = |(n, item): (usize, &Value)| match item {
        Value::Object(map) => Ok(Signature::from_map(map.clone())),
        other => Err(FieldError::new(format!("{name}[{n}]"), "a signature", other)),
    };
    items.iter().enumerate().map(read).collect()
}
