use super::Envelope;
use crate::json::Value;
use crate::message::Message;

fn parse(text: &str) -> Result<Envelope, String> {
    Envelope::parse(text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn the_body_follows_its_encoding() {
    for (encoding, body, expected) in [
        (r#""base64""#, "YWI=", "ab"),
        (r#""base64""#, "YW\\nI=\\n", "ab"),
        (r#""utf-8""#, "YWI=", "YWI="),
        ("null", "YWI=", "YWI="),
        (r#""rot13""#, "YWI=", "YWI="),
    ] {
        let text =
            format!(r#"{{"body": "{body}", "properties": {{"body_encoding": {encoding}}}}}"#);
        let envelope = parse(&text).expect(&text);
        assert_eq!(envelope.message.body, expected.as_bytes(), "{text}");
        let again = Envelope::parse(&envelope.to_bytes()).expect("own text");
        assert_eq!(again, envelope);
    }
}

#[test]
fn a_new_envelope_is_base64_and_binary_bodies_always_are() {
    let message = Message::new("app.add", "1", &b"[]"[..]);
    let text = String::from_utf8(Envelope::new(message).to_bytes()).expect("text");
    assert!(text.starts_with(r#"{"body": "W10=", "content-encoding": "utf-8", "#), "{text}");
    assert!(text.contains(r#""body_encoding": "base64""#), "{text}");

    let mut message = Message::new("app.add", "1", &b"\xff\x00"[..]);
    message.properties.set_body_encoding("utf-8");
    let envelope = Envelope::parse(&Envelope::new(message).to_bytes()).expect("own text");
    assert_eq!(envelope.message.properties.body_encoding(), Some("base64"));
    assert_eq!(envelope.message.body, &b"\xff\x00"[..]);
}

#[test]
fn unknown_keys_survive_and_missing_parts_are_empty() {
    let text = r#"{"body": "x", "trace": {"a": 1.50}}"#;
    let envelope = parse(text).expect("valid");
    assert_eq!(
        envelope.extra.get("trace").map(Value::to_string).as_deref(),
        Some(r#"{"a": 1.50}"#)
    );
    assert_eq!(envelope.message.content_type, "");
    assert!(!envelope.message.is_protocol_2());
    let printed = String::from_utf8(envelope.to_bytes()).expect("text");
    assert_eq!(
        printed,
        r#"{"body": "x", "content-encoding": null, "content-type": null, "headers": {}, "properties": {}, "trace": {"a": 1.50}}"#
    );
}

#[test]
fn a_wrong_shape_is_named() {
    for (text, message) in [
        ("[]", "envelope: expected an object, found an array of 0"),
        ("{}", "body: expected a string, found nothing"),
        (r#"{"body": 1}"#, "body: expected a string, found the integer 1"),
        (r#"{"body": "", "headers": 1}"#, "headers: expected an object, found the integer 1"),
        (
            r#"{"body": "", "content-type": []}"#,
            "content-type: expected a string, found an array of 0",
        ),
        (
            r#"{"body": "?", "properties": {"body_encoding": "base64"}}"#,
            "body: expected base64 text, found the string \"?\"",
        ),
        ("{", "not JSON at byte 1: a key in double quotes must stand here"),
    ] {
        assert_eq!(parse(text).expect_err(text), message);
    }
}
