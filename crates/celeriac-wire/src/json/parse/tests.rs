use super::super::{JsonError, Value};
use crate::limits::JSON_DEPTH_MAX;

fn check(text: &str, printed: &str) {
    let value = Value::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(value.to_string(), printed, "{text}");
}

fn refused(text: &[u8], offset: usize) {
    match Value::parse(text) {
        Err(JsonError::Syntax { offset: at, .. }) => {
            assert_eq!(at, offset, "{}", String::from_utf8_lossy(text));
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn reads_what_python_reads() {
    check("[NaN,Infinity , -Infinity]", "[NaN, Infinity, -Infinity]");
    check(" \t\r\n{ \"a\" :1,\"b\":{} }\n", r#"{"a": 1, "b": {}}"#);
    check("\"\u{e9}\u{2603}\u{1f600}\u{7f}\"", "\"\\u00e9\\u2603\\ud83d\\ude00\u{7f}\"");
    check(r#""\ud83d\ude00\/\b\f\n\r\t\"\\\u0000""#, r#""\ud83d\ude00/\b\f\n\r\t\"\\\u0000""#);
    check("-0", "-0");
    check("1E5", "1E5");
    check("123456789012345678901234567890.50", "123456789012345678901234567890.50");
    check(r#"{"a": 1, "b": 2, "a": 3}"#, r#"{"a": 3, "b": 2}"#);
}

#[test]
fn refuses_what_python_refuses() {
    for (text, offset) in [
        ("", 0),
        ("\u{feff}1", 0),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("{\"a\" 1}", 5),
        ("{\"a\":1,}", 7),
        ("{a:1}", 1),
        ("01", 1),
        ("1.", 1),
        ("+1", 0),
        ("-", 0),
        ("nul", 0),
        ("'a'", 0),
        ("\"a", 2),
        ("\"\n\"", 1),
        ("\"\\x\"", 1),
        ("\"\\u12g4\"", 1),
        ("\"\\u+123\"", 1),
        ("\"\\u12", 1),
        ("[", 1),
        ("1 2", 2),
    ] {
        refused(text.as_bytes(), offset);
    }
    refused(b"[\"\xff\"]", 2);
}

#[test]
fn refuses_lone_surrogates_which_python_would_keep() {
    for text in [r#""\ud800""#, r#""\ud800x""#, r#""\ud800\u0041""#, r#""\udc00""#] {
        refused(text.as_bytes(), 1);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let deepest = nested(JSON_DEPTH_MAX);
    check(&deepest, &deepest);
    refused(nested(JSON_DEPTH_MAX + 1).as_bytes(), JSON_DEPTH_MAX);
    refused("{\"a\":".repeat(100_000).as_bytes(), 5 * JSON_DEPTH_MAX);
}

#[test]
fn an_object_of_very_many_keys_is_not_quadratic() {
    let keys: Vec<String> = (0..100_000).map(|n| format!("\"key{n}\": {n}")).collect();
    let text = format!("{{{}, \"key7\": 8}}", keys.join(", "));
    let value = Value::parse(text.as_bytes()).expect("valid");
    assert_eq!(value.get("key7"), Some(&Value::from(8)));
    assert_eq!(value.as_object().map(super::super::Map::len), Some(100_000));
}
