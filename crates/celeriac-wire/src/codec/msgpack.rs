//! `MessagePack` as Python's `msgpack` writes and reads it (kombu 5.7.0 `serialization.py`:
//! `packb(use_bin_type=True)`, `unpackb(raw=False)`).
//!
//! Bytes are [`Special::Bytes`] on our side. Extension types are refused, as by kombu's producers.

use super::{Budget, CodecError, key_text};
use crate::json::{Map, Number, Special, Value};
use crate::limits::JSON_DEPTH_MAX;

const WHAT: &str = "MessagePack";

/// Parses one value; bytes after it are an error, as in Python.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, CodecError> {
    let mut parser = Parser { bytes, at: 0, budget: Budget::default() };
    let value = parser.value(0)?;
    if parser.at < bytes.len() {
        return Err(parser.problem("bytes after the value"));
    }
    Ok(value)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> Parser<'a> {
    fn problem(&self, problem: &str) -> CodecError {
        CodecError::broken(WHAT, format!("{problem} at byte {}", self.at))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.problem("the bytes end too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, width: usize) -> Result<usize, CodecError> {
        Ok(self.take(width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    /// The frames of this and of the two collections are what nesting costs, so they are small.
    fn value(&mut self, depth: usize) -> Result<Value, CodecError> {
        self.budget.take(0)?;
        let [marker] = self.array()?;
        // A collection is a level of its own, and so are bytes, which are an object here.
        let is_level = matches!(marker, 0x80..=0x9f | 0xc4..=0xc6 | 0xdc..=0xdf);
        if is_level && depth >= JSON_DEPTH_MAX {
            return Err(self.problem("nesting that is too deep"));
        }
        let small = usize::from(marker & 0x0f);
        match marker {
            0x80..=0x8f => self.map(small, depth),
            0x90..=0x9f => self.list(small, depth),
            0xdc | 0xdd => {
                let length = self.length(2 << (marker - 0xdc))?;
                self.list(length, depth)
            }
            0xde | 0xdf => {
                let length = self.length(2 << (marker - 0xde))?;
                self.map(length, depth)
            }
            other => self.scalar(other),
        }
    }

    #[inline(never)]
    fn scalar(&mut self, marker: u8) -> Result<Value, CodecError> {
        Ok(match marker {
            0x00..=0x7f => Value::from(marker),
            0xe0..=0xff => Value::from(marker.cast_signed()),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xc0 => Value::Null,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                self.budget.take(length)?;
                Special::Bytes(self.take(length)?.to_vec()).to_value()
            }
            0xca => Value::from(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Value::from(f64::from_be_bytes(self.array()?)),
            0xcc => Value::from(u8::from_be_bytes(self.array()?)),
            0xcd => Value::from(u16::from_be_bytes(self.array()?)),
            0xce => Value::from(u32::from_be_bytes(self.array()?)),
            0xcf => Value::from(u64::from_be_bytes(self.array()?)),
            0xd0 => Value::from(i8::from_be_bytes(self.array()?)),
            0xd1 => Value::from(i16::from_be_bytes(self.array()?)),
            0xd2 => Value::from(i32::from_be_bytes(self.array()?)),
            0xd3 => Value::from(i64::from_be_bytes(self.array()?)),
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                self.text(length)?
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err(self.problem("an extension type")),
            _ => return Err(self.problem("a marker that is not used")),
        })
    }

    fn text(&mut self, length: usize) -> Result<Value, CodecError> {
        self.budget.take(length)?;
        match std::str::from_utf8(self.take(length)?) {
            Ok(text) => Ok(Value::from(text)),
            Err(_) => Err(self.problem("text that is not UTF-8 ends")),
        }
    }

    fn list(&mut self, length: usize, depth: usize) -> Result<Value, CodecError> {
        // Each element takes a byte at least: a larger promise is broken.
        let mut items = Vec::with_capacity(length.min(self.bytes.len() - self.at).min(1024));
        for _ in 0..length {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value, CodecError> {
        let mut map = Map::new();
        for _ in 0..length {
            let key = self.value(depth + 1)?;
            let key = self.key(key)?;
            let value = self.value(depth + 1)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    #[inline(never)]
    fn key(&self, key: Value) -> Result<String, CodecError> {
        let text = match Special::read(&key) {
            // Python 2 packed text as bytes.
            Some(Ok(Special::Bytes(bytes))) => String::from_utf8(bytes).ok(),
            _ => key_text(key),
        };
        text.ok_or_else(|| self.problem("a key that is no text ends"))
    }
}

/// Prints a value with the shortest markers, as Python does.
pub(super) fn print(value: &Value) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    print_into(value, &mut out)?;
    Ok(out)
}

fn print_into(value: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if print_special(value, out)? {
        return Ok(());
    }
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(flag) => out.push(0xc2 + u8::from(*flag)),
        Value::Number(number) => print_number(number, out)?,
        Value::String(text) => print_text(text, out)?,
        Value::Array(items) => {
            head(items.len(), [Some(0x90), None, Some(0xdc), Some(0xdd)], 15, out)?;
            for item in items {
                print_into(item, out)?;
            }
        }
        Value::Object(map) => {
            head(map.len(), [Some(0x80), None, Some(0xde), Some(0xdf)], 15, out)?;
            for (key, value) in map.iter() {
                print_text(key, out)?;
                print_into(value, out)?;
            }
        }
    }
    Ok(())
}

/// Prints bytes; false for what is no special value, or one that nobody here knows.
#[inline(never)]
fn print_special(value: &Value, out: &mut Vec<u8>) -> Result<bool, CodecError> {
    match Special::read(value) {
        Some(Ok(Special::Bytes(bytes))) => {
            head(bytes.len(), [None, Some(0xc4), Some(0xc5), Some(0xc6)], 0, out)?;
            out.extend_from_slice(&bytes);
            Ok(true)
        }
        None | Some(Ok(Special::Other { .. }) | Err(_)) => Ok(false),
        Some(Ok(other)) => Err(not_carried(other.describe())),
    }
}

fn print_text(text: &str, out: &mut Vec<u8>) -> Result<(), CodecError> {
    head(text.len(), [Some(0xa0), Some(0xd9), Some(0xda), Some(0xdb)], 31, out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Writes a marker with a length: in the marker up to `fix_max`, else in 1, 2 or 4 bytes.
fn head(
    length: usize,
    [fix, one, two, four]: [Option<u8>; 4],
    fix_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match (fix, one, two, four) {
        (Some(fix), ..) if length <= fix_max => out.push(fix | length as u8),
        (_, Some(one), ..) if length <= 0xff => out.extend([one, length as u8]),
        (_, _, Some(two), _) if length <= 0xffff => {
            out.push(two);
            out.extend((length as u16).to_be_bytes());
        }
        (.., Some(four)) if u32::try_from(length).is_ok() => {
            out.push(four);
            out.extend((length as u32).to_be_bytes());
        }
        _ => return Err(not_carried(format!("a value of length {length}"))),
    }
    Ok(())
}

fn print_number(number: &Number, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if !number.is_integer() {
        let float = number.as_f64().unwrap_or(f64::NAN);
        out.push(0xcb);
        out.extend(float.to_be_bytes());
        return Ok(());
    }
    match (number.as_u64(), number.as_i64()) {
        (Some(n @ 0..=0x7f), _) => out.push(n as u8),
        (Some(n @ 0..=0xff), _) => out.extend([0xcc, n as u8]),
        (Some(n @ 0..=0xffff), _) => {
            out.push(0xcd);
            out.extend((n as u16).to_be_bytes());
        }
        (Some(n @ 0..=0xffff_ffff), _) => {
            out.push(0xce);
            out.extend((n as u32).to_be_bytes());
        }
        (Some(n), _) => {
            out.push(0xcf);
            out.extend(n.to_be_bytes());
        }
        (None, Some(n @ -32..)) => out.push((n as i8).cast_unsigned()),
        (None, Some(n @ -0x80..)) => out.extend([0xd0, (n as i8).cast_unsigned()]),
        (None, Some(n @ -0x8000..)) => {
            out.push(0xd1);
            out.extend((n as i16).to_be_bytes());
        }
        (None, Some(n @ -0x8000_0000..)) => {
            out.push(0xd2);
            out.extend((n as i32).to_be_bytes());
        }
        (None, Some(n)) => {
            out.push(0xd3);
            out.extend(n.to_be_bytes());
        }
        (None, None) => {
            return Err(not_carried(format!("the integer {}", crate::json::cut(number.as_str()))));
        }
    }
    Ok(())
}

fn not_carried(what: String) -> CodecError {
    CodecError::NotCarried { format: "msgpack", what }
}
