//! Python's words in replies: exceptions as `repr` prints them, texts in quotes, sizes for people.

use celeriac_core::control::Command;
use celeriac_wire::{Map, Value};
use std::fmt::Write as _;

/// `repr` of a text: in single quotes unless only those are inside.
pub(super) fn quoted(text: &str) -> String {
    let double = text.contains('\'') && !text.contains('"');
    let mut out = String::from(if double { '"' } else { '\'' });
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\'' if !double => out.push_str("\\'"),
            letter if letter.is_control() => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\x{:02x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push(if double { '"' } else { '\'' });
    out
}

/// What a node answers when its handler raised: `{"error": "KeyError('nosuch')"}` (kombu 5.7.0
/// pidbox.py `Node.dispatch`).
pub(super) fn raised(exception: &str, text: &str) -> Value {
    error(&format!("{exception}({})", quoted(text)))
}

/// The refusal of a handler.
pub(super) fn error(text: &str) -> Value {
    Value::Object(Map::from([("error", text)]))
}

/// The consent of a handler.
pub(super) fn ok(text: &str) -> Value {
    Value::Object(Map::from([("ok", text)]))
}

/// What Python says of a call with these keywords, if it would not make it.
pub(super) fn mismatch(command: &Command, arguments: &Map) -> Option<Value> {
    let name = command.name;
    let known = command.strict.unwrap_or_default();
    let odd = arguments.keys().find(|key| command.strict.is_some() && !known.contains(key));
    if let Some(odd) = odd {
        let text = format!("{name}() got an unexpected keyword argument {}", quoted(odd));
        return Some(raised("TypeError", &text));
    }
    let missing: Vec<String> = command
        .required
        .iter()
        .filter(|required| !arguments.contains_key(required))
        .map(|required| quoted(required))
        .collect();
    let (last, rest) = missing.split_last()?;
    let text = if rest.is_empty() {
        format!("{name}() missing 1 required positional argument: {last}")
    } else {
        let (count, rest) = (missing.len(), rest.join(", "));
        format!("{name}() missing {count} required positional arguments: {rest} and {last}")
    };
    Some(raised("TypeError", &text))
}

/// A size as `celery.utils.debug.humanbytes` of 5.7 prints it: `59.487MB`, five digits.
pub(super) fn human_bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    let Some((size, unit)) = unit else { return format!("{bytes}b") };
    if bytes.is_multiple_of(size) {
        return format!("{}{unit}", bytes / size);
    }
    let value = bytes as f64 / size as f64;
    let before = format!("{value:.0}").len();
    let text = format!("{value:.*}", 5usize.saturating_sub(before).max(1));
    let text = text.trim_end_matches('0');
    let end = if text.ends_with('.') { "0" } else { "" };
    format!("{text}{end}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_python_quotes_them() {
        for (text, expected) in [
            ("nosuch", "'nosuch'"),
            ("Can't", "\"Can't\""),
            ("a\"b'c", "'a\"b\\'c'"),
            ("a\\b\n\u{1}", "'a\\\\b\\n\\x01'"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn wrong_arguments_are_told_as_python_tells_them() {
        let tell = |name: &str, keys: &[&str]| {
            let command = Command::find(name).unwrap();
            let arguments: Map = keys.iter().map(|key| (*key, 1)).collect();
            mismatch(command, &arguments).map(|value| value.to_string())
        };
        assert_eq!(tell("ping", &["anything"]), None);
        assert_eq!(tell("revoke", &["task_id", "terminate"]), None);
        let error = |text: &str| Some(error(&format!("TypeError({text})")).to_string());
        assert_eq!(
            tell("enable_events", &["x"]),
            error("\"enable_events() got an unexpected keyword argument 'x'\"")
        );
        assert_eq!(
            tell("revoke", &[]),
            error("\"revoke() missing 1 required positional argument: 'task_id'\"")
        );
        assert_eq!(
            tell("terminate", &[]),
            error(
                "\"terminate() missing 2 required positional arguments: 'signal' and 'task_id'\""
            )
        );
    }

    #[test]
    fn sizes_have_five_digits() {
        for (bytes, expected) in [
            (0, "0b"),
            (1023, "1023b"),
            (1 << 20, "1MB"),
            (62_377_000, "59.487MB"),
            (1_500_000_000, "1.397GB"),
            (1_288_490_189, "1.2GB"),
            (1023 * 1024 * 1024 + 512 * 1024, "1023.5MB"),
        ] {
            assert_eq!(human_bytes(bytes), expected);
        }
    }
}
