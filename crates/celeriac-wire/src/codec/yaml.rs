//! YAML 1.1 as `PyYAML` reads and writes it safely (kombu 5.7.0 `serialization.py`:
//! `yaml.safe_load`, `yaml.safe_dump`).
//!
//! The parser gives events; this module builds values from them as `SafeConstructor` does: plain
//! scalars by [`scalar`], anchors and aliases, merge keys. Tags beyond those of `safe_load` are
//! refused. What is printed is YAML in flow style, which looks nearly like JSON.

mod scalar;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Budget, CodecError, key_text};
use crate::json::special::BASE64;
use crate::json::{Map, Number, Special, Value};
use crate::limits::JSON_DEPTH_MAX;

const WHAT: &str = "YAML";
/// Keys longer than this need an explicit `?`: `PyYAML` looks for their colon within 1024 characters.
const KEY_CHARS: usize = 128;

/// Parses one document.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, CodecError> {
    let text = std::str::from_utf8(bytes).map_err(|error| CodecError::broken(WHAT, error))?;
    // The scanner is others' code on hostile input: a bug in it must not end a worker.
    let built = catch_unwind(AssertUnwindSafe(|| Builder::default().build(text)));
    built.unwrap_or_else(|_panic| Err(CodecError::broken(WHAT, "its parser gave up")))
}

/// A collection that is being read.
enum Open {
    List { anchor: usize, items: Vec<Value> },
    Map { anchor: usize, map: Map, merged: Vec<Map>, key: Option<Key> },
}

enum Key {
    Text(String),
    /// The key `<<`: its value is merged.
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    document: Option<Value>,
    budget: Budget,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Value, CodecError> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|error| CodecError::broken(WHAT, error))?;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(problem("more than one document"));
                    }
                }
                Event::Alias(id) => {
                    // An anchor is known only when its value is complete: no value holds itself.
                    let value = self.anchors.get(&id);
                    let value = value.ok_or_else(|| problem("an alias inside of its own value"))?;
                    weigh(value, JSON_DEPTH_MAX - self.open.len(), &mut self.budget)?;
                    self.add(value.clone(), false)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.budget.take(text.len())?;
                    let plain = style == ScalarStyle::Plain;
                    let is_merge = plain && tag.is_none() && text == "<<";
                    let value = read_scalar(&text, plain, tag.as_deref())?;
                    // Bytes and times are objects here, and so a level of their own.
                    if matches!(value, Value::Object(_)) && self.open.len() >= JSON_DEPTH_MAX {
                        return Err(too_deep());
                    }
                    self.remember(anchor, &value)?;
                    self.add(value, is_merge)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    check_tag(tag.as_deref(), "seq")?;
                    self.begin(Open::List { anchor, items: Vec::new() })?;
                }
                Event::MappingStart(anchor, tag) => {
                    check_tag(tag.as_deref(), "map")?;
                    let (map, merged) = (Map::new(), Vec::new());
                    self.begin(Open::Map { anchor, map, merged, key: None })?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        // `safe_load` of nothing is None.
        Ok(self.document.unwrap_or_default())
    }

    fn begin(&mut self, open: Open) -> Result<(), CodecError> {
        self.budget.take(0)?;
        if self.open.len() >= JSON_DEPTH_MAX {
            return Err(too_deep());
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), CodecError> {
        let (anchor, value) = match self.open.pop() {
            Some(Open::List { anchor, items }) => (anchor, Value::Array(items)),
            Some(Open::Map { anchor, mut map, merged, .. }) => {
                for (key, value) in merged.into_iter().flatten() {
                    if !map.contains_key(&key) {
                        map.insert(key, value);
                    }
                }
                (anchor, Value::Object(map))
            }
            None => return Err(problem("an end without a beginning")),
        };
        self.remember(anchor, &value)?;
        self.add(value, false)
    }

    /// Keeps a copy of what has an anchor: nested anchors copy what is innermost many times.
    fn remember(&mut self, anchor: usize, value: &Value) -> Result<(), CodecError> {
        if anchor != 0 {
            weigh(value, JSON_DEPTH_MAX, &mut self.budget)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(())
    }

    fn add(&mut self, value: Value, is_merge: bool) -> Result<(), CodecError> {
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { map, merged, key, .. }) => match key.take() {
                None if is_merge => *key = Some(Key::Merge),
                None => {
                    let text = match Special::read(&value) {
                        Some(Ok(Special::Date(text) | Special::DateTime(text))) => Some(text),
                        _ => key_text(value),
                    };
                    *key = Some(Key::Text(text.ok_or_else(|| problem("a key that is no text"))?));
                }
                Some(Key::Text(key)) => drop(map.insert(key, value)),
                Some(Key::Merge) => merge(value, merged)?,
            },
        }
        Ok(())
    }
}

/// Takes the maps of a merge key; the first one wins.
fn merge(value: Value, merged: &mut Vec<Map>) -> Result<(), CodecError> {
    match value {
        Value::Object(map) => merged.push(map),
        Value::Array(maps) => {
            for map in maps {
                match map {
                    Value::Object(map) => merged.push(map),
                    _ => return Err(problem("a merge of something that is no mapping")),
                }
            }
        }
        _ => return Err(problem("a merge of something that is no mapping")),
    }
    Ok(())
}

/// Counts everything that an anchor or alias copies, and refuses what has more than so many levels:
/// aliases of aliases nest deeper than any text does.
fn weigh(value: &Value, levels: usize, budget: &mut Budget) -> Result<(), CodecError> {
    match value {
        Value::String(text) => budget.take(text.len()),
        Value::Number(number) => budget.take(number.as_str().len()),
        Value::Null | Value::Bool(_) => budget.take(0),
        Value::Array(items) => {
            budget.take(0)?;
            let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
            items.iter().try_for_each(|item| weigh(item, levels, budget))
        }
        Value::Object(map) => {
            budget.take(0)?;
            let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
            map.iter().try_for_each(|(key, value)| {
                budget.take(key.len())?;
                weigh(value, levels, budget)
            })
        }
    }
}

fn problem(problem: &str) -> CodecError {
    CodecError::broken(WHAT, problem)
}

fn too_deep() -> CodecError {
    problem("nesting that is too deep")
}

/// The suffix of a tag of the core schema; nothing for no tag.
fn core_tag(tag: Option<&Tag>) -> Result<Option<&str>, CodecError> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.handle == "tag:yaml.org,2002:" => Ok(Some(tag.suffix.as_str())),
        // The non-specific tag: a scalar is text, a collection itself.
        Some(tag) if tag.suffix == "!" || (tag.handle == "!" && tag.suffix.is_empty()) => {
            Ok(Some("!"))
        }
        Some(tag) => Err(CodecError::broken(WHAT, format!("the tag {}{}", tag.handle, tag.suffix))),
    }
}

fn check_tag(tag: Option<&Tag>, expected: &str) -> Result<(), CodecError> {
    match core_tag(tag)? {
        None | Some("!") => Ok(()),
        Some(name) if name == expected => Ok(()),
        Some(name) => Err(CodecError::broken(WHAT, format!("the tag !!{name} here"))),
    }
}

fn read_scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, CodecError> {
    let wrong = |name: &str| CodecError::broken(WHAT, format!("a !!{name} that is none"));
    let as_read = |name: &str, is: fn(&Value) -> bool| match scalar::read(text) {
        Ok(value) if is(&value) => Ok(value),
        Ok(_) => Err(wrong(name)),
        Err(problem) => Err(CodecError::broken(WHAT, problem)),
    };
    match core_tag(tag)? {
        None if plain => scalar::read(text).map_err(|problem| CodecError::broken(WHAT, problem)),
        None | Some("str" | "!") => Ok(Value::from(text)),
        Some("null") => Ok(Value::Null),
        Some("bool") => as_read("bool", |value| matches!(value, Value::Bool(_))),
        Some("int") => as_read("int", |value| value.as_number().is_some_and(Number::is_integer)),
        Some("float") => match scalar::read(text) {
            Ok(Value::Number(number)) if number.is_integer() => {
                Ok(Value::from(number.as_f64().unwrap_or(f64::NAN)))
            }
            Ok(value @ Value::Number(_)) => Ok(value),
            // `float()` reads what the resolver does not, as `1e3`.
            _ => text.parse::<f64>().map(Value::from).map_err(|_| wrong("float")),
        },
        Some("timestamp") => as_read("timestamp", |value| Special::read(value).is_some()),
        Some("binary") => {
            let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = BASE64.decode(digits).map_err(|_| wrong("binary"))?;
            Ok(Special::Bytes(bytes).to_value())
        }
        Some(name) => Err(CodecError::broken(WHAT, format!("the tag !!{name}"))),
    }
}

/// Prints a value in flow style, in one line.
pub(super) fn print(value: &Value) -> Result<Vec<u8>, CodecError> {
    let mut out = String::new();
    print_into(value, &mut out)?;
    out.push('\n');
    Ok(out.into_bytes())
}

/// Prints what YAML has a tag for; false for what is no special value, or an unknown one.
#[inline(never)]
fn print_special(value: &Value, out: &mut String) -> Result<bool, CodecError> {
    match Special::read(value) {
        Some(Ok(Special::Bytes(bytes))) => {
            out.push_str("!!binary \"");
            out.push_str(&BASE64.encode(bytes));
            out.push('"');
            Ok(true)
        }
        // Anything else in these two would be refused by the reader.
        Some(Ok(Special::DateTime(text) | Special::Date(text))) if scalar::is_timestamp(&text) => {
            out.push_str("!!timestamp '");
            out.push_str(&text);
            out.push('\'');
            Ok(true)
        }
        None | Some(Ok(Special::Other { .. }) | Err(_)) => Ok(false),
        Some(Ok(special)) => {
            Err(CodecError::NotCarried { format: "yaml", what: special.describe() })
        }
    }
}

fn print_into(value: &Value, out: &mut String) -> Result<(), CodecError> {
    if print_special(value, out)? {
        return Ok(());
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => print_number(number, out),
        Value::String(text) => print_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                print_into(item, out)?;
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (n, (key, value)) in map.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                if key.chars().count() > KEY_CHARS {
                    out.push_str("? ");
                }
                print_text(key, out);
                out.push_str(" : ");
                print_into(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Floats need a dot and a sign in the exponent, or YAML 1.1 takes them for text.
fn print_number(number: &Number, out: &mut String) {
    if number.is_integer() {
        // `-0` is an integer to Python, and `00` would be octal; both cannot be otherwise here.
        out.push_str(number.as_str());
        return;
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if float.is_nan() {
        return out.push_str(".nan");
    }
    if float.is_infinite() {
        return out.push_str(if float > 0.0 { ".inf" } else { "-.inf" });
    }
    let text = Number::from(float).as_str().to_owned();
    match text.split_once('e') {
        None => out.push_str(&text),
        Some((digits, exponent)) => {
            out.push_str(digits);
            if !digits.contains('.') {
                out.push_str(".0");
            }
            out.push('e');
            if !exponent.starts_with(['-', '+']) {
                out.push('+');
            }
            out.push_str(exponent);
        }
    }
}

/// A double-quoted scalar in ASCII: JSON's, but with eight digits beyond the basic plane.
fn print_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a String cannot fail.
                _ = if code <= 0xffff {
                    write!(out, "\\u{code:04x}")
                } else {
                    write!(out, "\\U{code:08x}")
                };
            }
        }
    }
    out.push('"');
}
