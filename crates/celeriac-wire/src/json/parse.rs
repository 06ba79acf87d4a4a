//! The parser.

use super::{JsonError, Map, Number, Value};
use crate::limits::JSON_DEPTH_MAX;

/// Parses a whole text.
pub(super) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError::Syntax {
        offset: error.valid_up_to(),
        problem: "the text is not UTF-8",
    })?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    if text.starts_with('\u{feff}') {
        return Err(parser.error("the text starts with a byte order mark"));
    }
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.at == text.len() { Ok(value) } else { Err(parser.error("there is more text")) }
}

/// Returns the length of the number at the start, in JSON's grammar without Python's tokens.
///
/// Python 3.11 json/scanner.py `NUMBER_RE`.
pub(super) fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits_from = |at: usize| {
        bytes.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits_from(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') && digits_from(at + 1) > 0 {
        at += 1 + digits_from(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let digits = digits_from(at + 1 + sign);
        if digits > 0 {
            at += 1 + sign + digits;
        }
    }
    Some(at)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, problem: &'static str) -> JsonError {
        JsonError::Syntax { offset: self.at, problem }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn token(&mut self, token: &str, value: Value) -> Result<Value, JsonError> {
        if self.rest().starts_with(token.as_bytes()) {
            self.at += token.len();
            Ok(value)
        } else {
            Err(self.error("a value must stand here"))
        }
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Value::String(self.string()?))
            }
            Some(b'[') => self.nested(Self::array),
            Some(b'{') => self.nested(Self::object),
            Some(b'n') => self.token("null", Value::Null),
            Some(b't') => self.token("true", Value::Bool(true)),
            Some(b'f') => self.token("false", Value::Bool(false)),
            Some(_) => self.number(),
            None => Err(self.error("the text ends where a value must stand")),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value, JsonError>,
    ) -> Result<Value, JsonError> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(self.error("arrays and objects are nested too deep"));
        }
        self.at += 1;
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let rest = self.rest();
        let special = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|token| rest.starts_with(token.as_bytes()))
            .map(str::len);
        let length = special.or_else(|| number_length(rest));
        let text = length.and_then(|length| self.text.get(self.at..self.at + length));
        let Some(text) = text else {
            return Err(self.error("a value must stand here"));
        };
        self.at += text.len();
        Ok(Value::Number(Number::from_text(text)))
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            self.skip_space();
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or `]` must stand here"));
            }
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        let mut map = Map::new();
        self.skip_space();
        if self.eat(b'}') {
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            if !self.eat(b'"') {
                return Err(self.error("a key in double quotes must stand here"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.error("`:` must stand here"));
            }
            self.skip_space();
            let value = self.value()?;
            map.insert(key, value);
            self.skip_space();
            if self.eat(b'}') {
                return Ok(Value::Object(map));
            }
            if !self.eat(b',') {
                return Err(self.error("`,` or `}` must stand here"));
            }
        }
    }

    /// Reads a string after its opening quote.
    fn string(&mut self) -> Result<String, JsonError> {
        let mut text = String::new();
        loop {
            let plain = self
                .rest()
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
                .unwrap_or(self.rest().len());
            text.push_str(self.text.get(self.at..self.at + plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.error("a control character stands in a string")),
                None => return Err(self.error("the text ends in a string")),
            }
        }
    }

    /// Reads an escape from its backslash on.
    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let kind = self.rest().get(1).copied();
        self.at += 2;
        let wrong = |problem| JsonError::Syntax { offset: start, problem };
        match kind {
            Some(same @ (b'"' | b'\\' | b'/')) => Ok(char::from(same)),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'u') => {
                let first = self.hex4().ok_or_else(|| wrong("`\\u` needs four hex digits"))?;
                let code = match first {
                    0xd800..=0xdbff => self.low_surrogate().map(|low| {
                        0x1_0000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(low) - 0xdc00)
                    }),
                    _ => Some(u32::from(first)),
                };
                code.and_then(char::from_u32)
                    .ok_or_else(|| wrong("a lone surrogate stands for no character"))
            }
            _ => Err(wrong("the escape is unknown")),
        }
    }

    fn low_surrogate(&mut self) -> Option<u16> {
        if !self.rest().starts_with(b"\\u") {
            return None;
        }
        self.at += 2;
        self.hex4().filter(|code| (0xdc00..=0xdfff).contains(code))
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests;
