//! The printer.

use std::fmt;

use super::{Map, Value};

impl fmt::Display for Value {
    /// Prints as `json.dumps` with its defaults (Python 3.11 json/encoder.py): separators `", "`
    /// and `": "`, everything beyond ASCII as `\uXXXX`, floats as `repr`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Number(number) => f.write_str(number.as_str()),
            Self::String(text) => print_string(text, f),
            Self::Array(items) => print_array(items, f),
            Self::Object(map) => map.fmt(f),
        }
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, (key, value)) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            print_string(key, f)?;
            f.write_str(": ")?;
            value.fmt(f)?;
        }
        f.write_str("}")
    }
}

/// Prints an array without building a [`Value`].
pub(crate) fn print_array(items: &[Value], f: &mut impl fmt::Write) -> fmt::Result {
    f.write_str("[")?;
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
    }
    f.write_str("]")
}

fn print_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        let (plain, tail) = rest.split_at(at);
        f.write_str(plain)?;
        let mut chars = tail.chars();
        if let Some(special) = chars.next() {
            print_escape(special, f)?;
        }
        rest = chars.as_str();
    }
    f.write_str(rest)?;
    f.write_str("\"")
}

fn needs_escape(c: char) -> bool {
    // 0x7f is ASCII and goes through as it is, as in Python's ESCAPE_ASCII.
    !matches!(c, ' '..='\u{7f}') || c == '"' || c == '\\'
}

fn print_escape(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\u{8}' => f.write_str("\\b"),
        '\u{c}' => f.write_str("\\f"),
        _ => {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(f, "\\u{unit:04x}")?;
            }
            Ok(())
        }
    }
}
