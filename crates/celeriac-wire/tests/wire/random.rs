//! Random values and bytes.

use std::hint::black_box;

use celeriac_wire::{
    Body, ControlReply, ControlRequest, Envelope, Event, Headers, Map, Message, Number, ReplyTo,
    ResultMeta, Signature, Special, State, Value, from_value, parse_iso, print_iso, to_value,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixtures;

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<i128>().prop_map(Number::from),
        any::<f64>().prop_map(Number::from),
        prop::num::f64::ANY.prop_map(Number::from),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,10})?([eE][-+]?[0-9]{1,3})?"
            .prop_map(|text| Number::parse(&text).expect("a number")),
        prop_oneof![Just("NaN"), Just("Infinity"), Just("-Infinity"), Just("-0"), Just("1.50")]
            .prop_map(|text| Number::parse(text).expect("a number")),
    ]
}

/// Any value; small, but of every shape.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        vec(any::<u8>(), 0..8).prop_map(|bytes| Special::Bytes(bytes).to_value()),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            vec((any::<String>(), inner), 0..8)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn map() -> impl Strategy<Value = Map> {
    vec((any::<String>(), value()), 0..6).prop_map(|entries| entries.into_iter().collect())
}

/// Takes what a reader returned, whether it is an error or not.
fn see<T>(read: T) {
    drop(black_box(read));
}

/// Gives bytes to everything that reads bytes or what was read from them.
fn read_everything(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        let again = Envelope::parse(&envelope.to_bytes()).expect("own text");
        assert_eq!(again.message.body, envelope.message.body);
        see(envelope.message.check());
        see((envelope.message.properties.priority(), envelope.message.properties.expiration()));
        read_everything(&envelope.message.body);
    }
    if let Ok(body) = Body::parse(bytes) {
        let again = Body::parse(&body.to_bytes()).expect("own text");
        assert_eq!(again, body);
        let links = [body.embed.callbacks(), body.embed.errbacks(), body.embed.chain()];
        for signature in links.into_iter().flatten().flatten() {
            read_signature(&signature);
        }
        see(body.embed.chord());
        see((celeriac_wire::args_repr(&body.args), celeriac_wire::kwargs_repr(&body.kwargs)));
    }
    if let Ok(meta) = ResultMeta::parse(bytes) {
        see((meta.exception().map(|found| found.map(|found| found.summary())), meta.date_done()));
        read_signature(&Signature::from_map(meta.into_map()));
    }
    for event in Event::parse_many(bytes).unwrap_or_default() {
        see((event.instant(), event.routing_key()));
    }
    if let Ok(headers) = Headers::parse(bytes) {
        see((headers.check(), headers.custom().count()));
    }
    if let Ok(value) = Value::parse(bytes) {
        assert_eq!(Value::parse(&value.to_bytes()).as_ref(), Ok(&value));
        see((celeriac_wire::value_repr(&value), Special::read(&value).map(|read| read.is_ok())));
    }
    see(ResultMeta::compressed(bytes));
}

fn read_signature(signature: &Signature) {
    see((signature.tasks(), signature.chord_header(), signature.chord_body()));
    see((signature.links(), signature.link_errors(), signature.kind()));
}

proptest! {
    #[test]
    fn values_survive_text(value in value()) {
        let text = value.to_string();
        prop_assert!(text.is_ascii());
        let read = Value::parse(text.as_bytes()).expect("own text");
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn values_survive_serde(value in value()) {
        prop_assert_eq!(to_value(&value).expect("plain"), value.clone());
        let text = value.to_string();
        prop_assert_eq!(from_value::<Value>(value).expect("plain").to_string(), text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_everything(&bytes);
    }

    #[test]
    fn random_json_never_panics(value in value()) {
        read_everything(&value.to_bytes());
    }

    #[test]
    fn random_text_is_no_reason_to_panic(text in any::<String>(), digits in "[0-9TWZ:.,+-]{0,32}") {
        see((parse_iso(&text), parse_iso(&digits)));
        see((Number::parse(&text), Number::parse(&digits)));
    }

    #[test]
    fn unknown_headers_survive(custom in map()) {
        let mut headers = Headers::new("app.add", "1");
        let known = headers.clone();
        for (name, value) in custom.iter() {
            if known.get(name).is_none() {
                headers.insert(name, value.clone());
            }
        }
        let read = Headers::parse(headers.to_json().as_bytes()).expect("own text");
        prop_assert_eq!(read.to_json(), headers.to_json());
        prop_assert!(read.custom().all(|(name, value)| custom.get(name) == Some(value)));
        prop_assert_eq!(read.custom().count(), headers.as_map().len() - known.as_map().len());
    }

    #[test]
    fn bodies_survive(args in vec(value(), 0..5), kwargs in map(), more in map()) {
        let mut body = Body::new(args, kwargs);
        for (name, value) in more {
            body.embed.insert(name, value);
        }
        prop_assert_eq!(Body::parse(&body.to_bytes()), Ok(body));
    }

    #[test]
    fn envelopes_survive(
        more in [map(), map()],
        extra in map(),
        body in vec(any::<u8>(), 0..64),
        encoding in prop_oneof![Just(None), Just(Some("base64")), Just(Some("utf-8"))],
    ) {
        let mut message = Message::new("t", "i", body);
        message.headers.as_map_mut().extend(more[0].clone());
        message.properties.as_map_mut().extend(more[1].clone());
        if let Some(encoding) = encoding {
            message.properties.set_body_encoding(encoding);
        }
        let mut envelope = Envelope::new(message);
        envelope.extra = extra.into_iter().filter(|(key, _)| *key != "body").collect();
        let read = Envelope::parse(&envelope.to_bytes()).expect("own text");
        prop_assert_eq!(&read.message.body, &envelope.message.body);
        prop_assert_eq!(&read.message.headers, &envelope.message.headers);
        prop_assert_eq!(&read.extra, &envelope.extra);
        prop_assert_eq!(read.to_bytes(), envelope.to_bytes());
    }

    #[test]
    fn results_survive(fields in map(), state in "[A-Z]{1,9}", result in value()) {
        let mut meta = ResultMeta::new("i", &State::parse(&state), result.clone());
        for (name, value) in fields {
            meta.set(&name, value);
        }
        let read = ResultMeta::parse(&meta.to_bytes()).expect("own text");
        prop_assert_eq!(&read, &meta);
        prop_assert_eq!(read.state(), State::parse(&state));
        prop_assert_eq!(read.result(), &result);
    }

    #[test]
    fn events_survive(events in vec(map(), 0..4)) {
        let events: Vec<Event> = events.into_iter().map(Event::from_map).collect();
        prop_assert_eq!(Event::parse_many(&Event::list_to_bytes(&events)), Ok(events));
    }

    #[test]
    fn signatures_survive(args in vec(value(), 0..4), kwargs in map(), links in 0..4_usize) {
        let mut signature = Signature::new("t").with_args(args).with_kwargs(kwargs);
        for _ in 0..links {
            signature = signature.with_link(Signature::new("next").immutable());
        }
        let text = Value::from(signature.clone()).to_bytes();
        let read = Value::parse(&text).map(Signature::from_value).expect("own text");
        prop_assert_eq!(read.as_ref(), Ok(&signature));
        prop_assert_eq!(signature.links().map(|links| links.len()), Ok(links));
    }

    #[test]
    fn requests_and_replies_survive(
        arguments in map(),
        answer in value(),
        nodes in vec("[a-z]{1,5}@[a-z]{1,5}", 0..3),
        clock in any::<u64>(),
        expires in 0.0..1e12_f64,
    ) {
        let inbox = ReplyTo::inbox("inbox");
        let mut request = ControlRequest::new("ping", arguments).to(&nodes).asking("t", &inbox);
        (request.clock, request.expires) = (clock, expires);
        prop_assert_eq!(request.destination(), nodes.iter().collect::<Vec<_>>());
        prop_assert_eq!(ControlRequest::from_message(&request.to_message()), Ok(request));
        let mut reply = ControlReply::new(Some("t"), "w@h", answer);
        reply.clock = clock;
        prop_assert_eq!(ControlReply::from_message(&reply.to_message(&inbox)), Ok(reply));
    }

    #[test]
    fn times_survive(micros in -62_135_596_800_000_000..=253_402_207_200_000_000_i64) {
        let instant = jiff::Timestamp::from_microsecond(micros).expect("a year up to 9999");
        prop_assert_eq!(parse_iso(&print_iso(instant)), Ok(instant));
    }
}

#[test]
fn mutated_fixtures_never_panic() {
    let mut texts = Vec::new();
    for fixture in fixtures::all() {
        texts.extend(fixture.queued().into_iter().map(|(text, _)| text.to_owned()));
        texts.extend(fixture.results().into_iter().map(str::to_owned));
    }
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let which = any::<prop::sample::Index>();
    let cut = any::<prop::sample::Index>();
    let piece = prop_oneof![
        vec(any::<u8>(), 0..4),
        prop_oneof![
            Just("null"),
            Just("{}"),
            Just("[]"),
            Just("1e999"),
            Just("NaN"),
            Just("\\ud800"),
            Just("\""),
            Just("-1"),
            Just("[[[[")
        ]
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    runner
        .run(&(which, cut, 0..12_usize, piece), |(which, cut, drop, piece)| {
            let text = which.get(&texts).as_bytes();
            let start = cut.index(text.len());
            let end = (start + drop).min(text.len());
            let mutated = [&text[..start], &piece, &text[end..]].concat();
            read_everything(&mutated);
            Ok(())
        })
        .expect("no panic");
}
