//! Messages and results of real Celery, byte by byte.

use std::fmt::Write as _;

use celeriac_wire::{Body, Envelope, Headers, ResultMeta, State, Value};

use crate::fixtures::{self, Fixture};

/// Captured files without a message or result, and why they are here.
const SKIPPED: [(&str, &str); 1] =
    [("events_by_type", "decoded events only; read by golden_events")];

/// Messages whose body is not plain JSON of protocol 2, and why.
const OPAQUE: [(&str, &str); 10] = [
    ("task_compression_brotli", "compressed"),
    ("task_compression_bzip2", "compressed"),
    ("task_compression_gzip", "compressed"),
    ("task_compression_lzma", "compressed"),
    ("task_compression_zlib", "compressed"),
    ("task_compression_zstd", "compressed"),
    ("task_protocol1", "protocol 1"),
    ("task_serializer_msgpack", "application/x-msgpack"),
    ("task_serializer_pickle", "application/x-python-serialize"),
    ("task_serializer_yaml", "application/x-yaml"),
];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn every_file_is_read_or_skipped_with_a_reason() {
    let unread: Vec<String> = fixtures::all()
        .into_iter()
        .filter(|fixture| {
            fixture.queued().is_empty()
                && fixture.results().is_empty()
                && fixture.events().is_empty()
        })
        .map(|fixture| fixture.name)
        .collect();
    assert_eq!(unread, SKIPPED.map(|(name, _)| name));
}

#[test]
fn envelopes_are_printed_as_they_came() {
    let mut count = 0;
    for fixture in fixtures::all() {
        let texts = fixture.queued().into_iter().map(|(text, _)| text.to_owned());
        for raw in texts.chain(fixture.events()) {
            let envelope = Envelope::parse(raw.as_bytes()).expect(&fixture.name);
            let printed = envelope.to_bytes();
            assert_eq!(text(&printed), raw, "{}", fixture.name);
            assert_eq!(Envelope::parse(&printed).as_ref(), Ok(&envelope), "{}", fixture.name);
            assert!(envelope.extra.is_empty());
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

#[test]
fn bodies_are_printed_as_they_came_or_stay_opaque() {
    let mut opaque = Vec::new();
    for fixture in fixtures::all() {
        for (raw, decoded) in fixture.queued() {
            let message = Envelope::parse(raw.as_bytes()).expect(&fixture.name).message;
            if !message.is_plain_json() || !message.is_protocol_2() {
                opaque.push(fixture.name.clone());
                if let Some(hex) = decoded.get("body_decoded_hex") {
                    let ours = message.body.iter().fold(String::new(), |mut hex, byte| {
                        write!(hex, "{byte:02x}").expect("memory");
                        hex
                    });
                    assert_eq!(Some(ours.as_str()), hex.as_str(), "{}", fixture.name);
                }
                continue;
            }
            message.check().expect(&fixture.name);
            let body = Body::parse(&message.body).expect(&fixture.name);
            assert_eq!(text(&body.to_bytes()), text(&message.body), "{}", fixture.name);
            // With body_encoding utf-8 the body stands in the envelope as it is.
            let expected = match decoded.get("body_decoded") {
                Some(body) => body.to_string(),
                None => decoded.get("body").and_then(Value::as_str).expect("text").to_owned(),
            };
            assert_eq!(text(&body.to_bytes()), expected, "{}", fixture.name);
        }
    }
    assert_eq!(opaque, OPAQUE.map(|(name, _)| name));
}

#[test]
fn headers_and_properties_read_what_python_decoded() {
    for fixture in fixtures::all() {
        for (raw, decoded) in fixture.queued() {
            let message = Envelope::parse(raw.as_bytes()).expect(&fixture.name).message;
            let field = |part: &str, name: &str| {
                decoded.get(part).and_then(|part| part.get(name)).cloned().unwrap_or_default()
            };
            let header = |name| field("headers", name);
            let headers = &message.headers;
            assert_eq!(Some(&Value::Object(headers.as_map().clone())), decoded.get("headers"));
            for (read, name) in [
                (headers.task(), "task"),
                (headers.id(), "id"),
                (headers.shadow(), "shadow"),
                (headers.group(), "group"),
                (headers.root_id(), "root_id"),
                (headers.parent_id(), "parent_id"),
                (headers.argsrepr(), "argsrepr"),
                (headers.kwargsrepr(), "kwargsrepr"),
                (headers.origin(), "origin"),
                (headers.compression(), "compression"),
            ] {
                assert_eq!(read, header(name).as_str(), "{}: {name}", fixture.name);
            }
            assert_eq!(Some(u64::from(headers.retries())), header("retries").as_u64().or(Some(0)));
            assert_eq!(headers.group_index(), header("group_index").as_i64());
            assert_eq!(headers.ignore_result(), header("ignore_result").as_bool());
            assert_eq!(headers.eta().expect("a time").is_some(), !header("eta").is_null());
            assert_eq!(headers.expires().expect("a time").is_some(), !header("expires").is_null());
            let properties = &message.properties;
            let id = field("properties", "correlation_id");
            assert_eq!(properties.correlation_id(), id.as_str());
            assert_eq!(properties.delivery_mode(), Some(2));
            let priority = field("properties", "priority");
            assert_eq!(properties.priority().map(u64::from), priority.as_u64());
            assert!(properties.delivery_tag().is_some());
            let info = field("properties", "delivery_info");
            let read = properties.delivery_info();
            assert_eq!(Some(read.exchange.as_str()), info.get("exchange").and_then(Value::as_str));
            assert_eq!(
                Some(read.routing_key.as_str()),
                info.get("routing_key").and_then(Value::as_str)
            );
        }
    }
}

#[test]
fn new_headers_have_the_names_and_order_of_celery() {
    let fixture = fixtures::one("task_basic");
    let raw = fixture.get("queues").and_then(|queues| queues.get("celery")).expect("queue");
    let raw = raw.as_array().and_then(<[Value]>::first).and_then(Value::as_str).expect("text");
    let theirs = Envelope::parse(raw.as_bytes()).expect("valid").message;
    let mut ours = Headers::new("protoapp.add", theirs.headers.id().expect("id"));
    let body = Body::parse(&theirs.body).expect("valid");
    ours.set_arguments_text(&body.args, &body.kwargs)
        .set_origin(theirs.headers.origin().expect("origin"))
        .insert("lang", "py");
    assert_eq!(ours.to_json(), theirs.headers.to_json());
    assert_eq!(Body::new(body.args, body.kwargs).to_bytes(), theirs.body);
}

fn check_result(fixture: &Fixture, raw: &str) {
    let meta = ResultMeta::parse(raw.as_bytes()).expect(&fixture.name);
    assert_eq!(text(&meta.to_bytes()), raw, "{}", fixture.name);
    let Some(status) = meta.get("status") else {
        // A saved GroupResult has only `result` (spec 4.7).
        assert_eq!(fixture.name, "group_result");
        return;
    };
    let state = meta.state();
    assert_eq!(Some(state.as_str()), status.as_str());
    let exception = meta.exception().expect(&fixture.name);
    assert_eq!(exception.is_some(), state.is_exception(), "{}", fixture.name);
    if let Some(exception) = exception {
        assert_eq!(exception.to_value().to_string(), meta.result().to_string());
    }
    let date_done = meta.date_done().expect(&fixture.name);
    assert_eq!(date_done.is_some(), state.is_ready(), "{}", fixture.name);
    assert_eq!(meta.as_map().keys().next_back(), Some("task_id"));
    rebuild(fixture, raw, &meta, &state);
}

/// Builds the same result with the constructors and setters, in an odd order.
fn rebuild(fixture: &Fixture, raw: &str, meta: &ResultMeta, state: &State) {
    let mut built = ResultMeta::new(meta.task_id().expect("id"), state, meta.result().clone());
    for (name, value) in meta.as_map().iter().rev() {
        // Stamps are not known by name, so they keep the order in which they are set.
        if name != "status" && name != "result" {
            built.set(name, value.clone());
        }
    }
    assert_eq!(text(&built.to_bytes()), raw, "{}", fixture.name);
}

#[test]
fn results_are_printed_as_they_were_stored() {
    let mut count = 0;
    for fixture in fixtures::all() {
        for raw in fixture.results() {
            check_result(&fixture, raw);
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn extended_results_read_what_was_stored() {
    let fixture = fixtures::one("result_extended");
    let raw = fixture.get("raw").and_then(Value::as_str).expect("raw");
    let meta = ResultMeta::parse(raw.as_bytes()).expect("valid");
    assert_eq!(meta.name(), Some("protoapp.add"));
    assert_eq!(meta.args().map(Value::to_string).as_deref(), Some("[2, 3]"));
    assert_eq!(meta.kwargs().map(Value::to_string).as_deref(), Some("{}"));
    assert_eq!(meta.worker(), Some("w1@vm"));
    assert_eq!(meta.retries(), Some(0));
    assert_eq!(meta.queue(), Some("celery"));
    assert_eq!(meta.children(), Some(&[][..]));
    assert_eq!(meta.state(), State::Success);
    assert_eq!(meta.result(), &Value::from(5));
    assert_eq!(meta.traceback(), None);
}

#[test]
fn exceptions_print_as_python_logged_them() {
    for (name, summary) in [
        ("result_failure", "ValueError('bad', 42)"),
        ("result_expired", "TaskRevokedError('expired')"),
        ("result_unregistered", "NotRegistered('nope.nothing')"),
        ("result_hard_time_limit", "TimeLimitExceeded(2)"),
        ("result_soft_time_limit", "SoftTimeLimitExceeded()"),
    ] {
        let fixture = fixtures::one(name);
        let raw = fixture.get("raw").and_then(Value::as_str).expect("raw");
        let exception = ResultMeta::parse(raw.as_bytes()).expect(name).exception().expect(name);
        assert_eq!(exception.expect(name).summary(), summary);
    }
}
