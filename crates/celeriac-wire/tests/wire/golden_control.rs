//! Requests and replies of real Celery's remote control, byte by byte, and rebuilt with our types.

use std::path::Path;

use celeriac_wire::control::{CONTROL_EXCHANGE, REPLY_EXCHANGE};
use celeriac_wire::{ControlReply, ControlRequest, Envelope, Map, ReplyTo, Value};

/// What one captured command put on the wire.
struct Capture {
    name: String,
    requests: Vec<String>,
    replies: Vec<String>,
}

/// The last argument of a MONITOR line.
fn payload(line: &str) -> String {
    let text = line.split_once("\" \"{").expect("an envelope").1;
    let text = format!("{{{}", text.strip_suffix('"').expect("a quote"));
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}

fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/5.7/control");
    let mut captures = Vec::new();
    for entry in std::fs::read_dir(folder).expect("testdata") {
        let path = entry.expect("entry").path();
        let value = Value::parse(&std::fs::read(&path).expect("fixture")).expect("JSON");
        let lines = value.get("monitor").and_then(Value::as_array).unwrap_or_default();
        let lines = || lines.iter().filter_map(Value::as_str);
        let requests = lines()
            .filter(|line| line.starts_with("\"PUBLISH\"") && line.contains(CONTROL_EXCHANGE));
        let replies =
            lines().filter(|line| line.starts_with("\"LPUSH\"") && line.contains(REPLY_EXCHANGE));
        captures.push(Capture {
            name: path.file_stem().expect("name").to_string_lossy().into_owned(),
            requests: requests.map(payload).collect(),
            replies: replies.map(payload).collect(),
        });
    }
    captures.sort_by(|one, two| one.name.cmp(&two.name));
    captures
}

#[test]
fn requests_are_written_as_celery_writes_them() {
    let mut count = 0;
    for Capture { name, requests, .. } in captures() {
        for raw in requests {
            let envelope = Envelope::parse(raw.as_bytes()).expect(&name);
            let read = ControlRequest::from_message(&envelope.message).expect(&name);
            let names: Vec<String> = read.destination().into_iter().map(str::to_owned).collect();
            let mut built =
                ControlRequest::new(read.method().expect(&name), read.arguments().clone())
                    .to(&names);
            if let Some((pattern, matcher)) = read.pattern() {
                built = built.matching(pattern, matcher);
            }
            if let (Some(ticket), Some(to)) = (read.ticket(), read.reply_to()) {
                built = built.asking(ticket, &to);
                assert_eq!(to.exchange, REPLY_EXCHANGE);
            }
            (built.clock, built.expires) = (read.clock, read.expires);
            let mut message = built.to_message();
            message.properties.set_body_encoding("base64");
            let tag = envelope.message.properties.delivery_tag().expect("a tag");
            message.properties.set_delivery_tag(tag);
            let printed = Envelope::new(message).to_bytes();
            assert_eq!(String::from_utf8(printed).expect("text"), raw, "{name}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn replies_are_written_as_celery_writes_them() {
    let mut count = 0;
    for Capture { name, replies, .. } in captures() {
        for raw in replies {
            let envelope = Envelope::parse(raw.as_bytes()).expect(&name);
            let read = ControlReply::from_message(&envelope.message).expect(&name);
            let (node, answer) = read.answers.iter().next().expect(&name);
            let mut built = ControlReply::new(read.ticket.as_deref(), node, answer.clone());
            built.clock = read.clock;
            let info = envelope.message.properties.delivery_info();
            let to = ReplyTo { exchange: info.exchange, routing_key: info.routing_key };
            assert_eq!(to, ReplyTo::inbox(&to.routing_key));
            let mut message = built.to_message(&to);
            message.properties.set_body_encoding("base64");
            let tag = envelope.message.properties.delivery_tag().expect("a tag");
            message.properties.set_delivery_tag(tag);
            let printed = Envelope::new(message).to_bytes();
            assert_eq!(String::from_utf8(printed).expect("text"), raw, "{name}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn odd_requests_are_read_or_refused() {
    let request = |body: &str, kind: &str| {
        let mut message = ControlRequest::new("ping", Map::new()).to_message();
        message.body = body.to_owned().into();
        kind.clone_into(&mut message.content_type);
        ControlRequest::from_message(&message)
    };
    let json = "application/json";
    for body in ["[]", "{}", "{\"method\": 5}", "nonsense", ""] {
        assert!(request(body, json).is_err(), "{body}");
    }
    assert!(request("{\"method\": \"ping\"}", "application/x-python-serialize").is_err());
    let text = "{\"method\": \"ping\", \"arguments\": 7, \"destination\": \"a@b\", \
                \"pattern\": \"t*\", \"reply_to\": {}, \"new\": 1}";
    let read = request(text, json).expect("a request");
    assert!(read.arguments().is_empty());
    assert_eq!(read.destination(), ["a@b"]);
    assert_eq!((read.pattern(), read.reply_to(), read.ticket()), (None, None, None));
    assert_eq!(read.body().get("new"), Some(&Value::from(1)));
    let both = ControlRequest::new("ping", Map::new()).matching("t*", "glob");
    assert_eq!(both.pattern(), Some(("t*", "glob")));
}
