//! The writer with its budget of characters.

use std::fmt::Write as _;

use crate::json::{Map, Special, Value};
use crate::limits::REPR_LEVELS_MAX;
use crate::time::{DateParts, Parts, TimeParts};

/// Writes tokens until the budget is used up, then only closes what is open.
pub(super) struct Writer {
    text: String,
    /// Characters left; at or below zero the next opening or plain token is cut.
    left: isize,
    level: usize,
    is_cut: bool,
}

impl Writer {
    pub(super) fn new(chars_max: usize) -> Self {
        let left = isize::try_from(chars_max).unwrap_or(isize::MAX);
        Self { text: String::new(), left, level: 0, is_cut: false }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Writes a token as it is and returns whether there was room.
    fn token(&mut self, token: &str) -> bool {
        if self.is_cut {
            return false;
        }
        if self.left <= 0 {
            self.text.push_str(", ...");
            self.is_cut = true;
            return false;
        }
        self.left -= token.chars().count() as isize;
        self.text.push_str(token);
        true
    }

    /// Writes what belongs to one value, cut to the budget.
    fn plain(&mut self, text: &str) {
        let text = self.truncate(text);
        self.token(&text);
    }

    /// celery 5.7.0 utils/text.py `truncate`: cuts at the last space before the end.
    fn truncate(&self, text: &str) -> String {
        let max = usize::try_from(self.left).unwrap_or(0);
        match text.char_indices().nth(max) {
            None if max == 0 || text.chars().count() < max => text.to_owned(),
            None => cut_at_space(text),
            Some((end, _)) => cut_at_space(text.get(..end).unwrap_or_default()),
        }
    }

    fn string(&mut self, text: &str) {
        let text = self.truncate(text).replace('\'', "\\'");
        self.token(&format!("'{text}'"));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let max = usize::try_from(self.left).unwrap_or(0);
        let shown = bytes.get(..max).unwrap_or(bytes);
        let dots = if shown.len() < bytes.len() { "..." } else { "" };
        let token = if let Ok(text) = std::str::from_utf8(shown) {
            format!("b'{text}{dots}'")
        } else {
            let hex = shown.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a String cannot fail.
                _ = write!(hex, "{byte:02x}");
                hex
            });
            format!("b'{hex}{dots}'")
        };
        self.token(&token);
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.plain("None"),
            Value::Bool(true) => self.plain("True"),
            Value::Bool(false) => self.plain("False"),
            Value::Number(number) => self.plain(match number.as_str() {
                "NaN" => "nan",
                "Infinity" => "inf",
                "-Infinity" => "-inf",
                text => text,
            }),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.sequence(items, "[", "]"),
            Value::Object(map) => match Special::read(value) {
                Some(Ok(Special::Bytes(bytes))) => self.bytes(&bytes),
                Some(Ok(special)) => match special_repr(&special) {
                    Some(text) => self.plain(&text),
                    None => self.dict(map),
                },
                _ => self.dict(map),
            },
        }
    }

    pub(super) fn tuple(&mut self, items: &[Value]) {
        self.sequence(items, "(", if items.len() == 1 { ",)" } else { ")" });
    }

    fn sequence(&mut self, items: &[Value], open: &str, close: &str) {
        self.container(open, close, |writer| {
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    writer.token(", ");
                }
                writer.value(item);
                if writer.is_cut {
                    return;
                }
            }
        });
    }

    pub(super) fn dict(&mut self, map: &Map) {
        self.container("{", "}", |writer| {
            for (n, (key, value)) in map.iter().enumerate() {
                if n > 0 {
                    writer.token(", ");
                }
                writer.string(key);
                writer.token(": ");
                writer.value(value);
                if writer.is_cut {
                    return;
                }
            }
        });
    }

    fn container(&mut self, open: &str, close: &str, inside: impl FnOnce(&mut Self)) {
        if self.level >= REPR_LEVELS_MAX {
            self.token(&format!("{open}...{close}"));
            return;
        }
        if !self.token(open) {
            return;
        }
        self.level += 1;
        inside(self);
        self.level -= 1;
        // Closing is written even without room; it counts while nothing is cut.
        self.text.push_str(close);
        if self.left > 0 {
            self.left -= close.len() as isize;
        }
    }
}

fn cut_at_space(text: &str) -> String {
    let kept = text.rsplit_once(' ').map_or(text, |(kept, _)| kept);
    format!("{kept}...")
}

/// Python's `repr` of the types kombu decodes; nothing if the text is not one.
fn special_repr(special: &Special) -> Option<String> {
    match special {
        Special::Decimal(text) => Some(format!("Decimal('{text}')")),
        Special::Uuid(hex) => {
            let part = |range: std::ops::Range<usize>| hex.get(range);
            Some(format!(
                "UUID('{}-{}-{}-{}-{}')",
                part(0..8)?,
                part(8..12)?,
                part(12..16)?,
                part(16..20)?,
                part(20..32)?
            ))
        }
        Special::DateTime(text) => Parts::parse(text).map(|parts| {
            let DateParts { year, month, day } = parts.date;
            format!("datetime.datetime({year}, {month}, {day}, {}", clock_repr(parts.time))
        }),
        Special::Date(text) => DateParts::parse(text)
            .map(|DateParts { year, month, day }| format!("datetime.date({year}, {month}, {day})")),
        Special::Time(text) => {
            TimeParts::parse(text).map(|time| format!("datetime.time({}", clock_repr(time)))
        }
        Special::Bytes(_) | Special::Other { .. } => None,
    }
}

/// Python 3.11 Lib/datetime.py `__repr__`: seconds and microseconds only if needed.
fn clock_repr(time: TimeParts) -> String {
    let TimeParts { hour, minute, second, micros, offset } = time;
    let clock = match (second, micros) {
        (0, 0) => format!("{hour}, {minute}"),
        (_, 0) => format!("{hour}, {minute}, {second}"),
        _ => format!("{hour}, {minute}, {second}, {micros}"),
    };
    let zone = match offset {
        None => String::new(),
        Some(0) => ", tzinfo=datetime.timezone.utc".to_owned(),
        Some(offset) => {
            let days = if offset < 0 { "days=-1, " } else { "" };
            let seconds = offset.rem_euclid(86_400);
            format!(", tzinfo=datetime.timezone(datetime.timedelta({days}seconds={seconds}))")
        }
    };
    format!("{clock}{zone})")
}

/// Prints the arguments of an exception as Python's `BaseException.__repr__` does.
pub(crate) fn exception_arguments(arguments: &[Value]) -> String {
    let mut writer = Writer::new(crate::limits::REPR_CHARS_MAX);
    match arguments {
        [single] => {
            writer.token("(");
            writer.value(single);
            writer.text.push(')');
        }
        _ => writer.tuple(arguments),
    }
    writer.finish()
}
