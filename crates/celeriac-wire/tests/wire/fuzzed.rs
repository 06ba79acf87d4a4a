//! What each parser promises, whatever bytes it is given.
//!
//! The fuzz targets of `fuzz/` and the test beside this file run the same functions. Each takes
//! bytes as a stranger may send them and panics when a promise is broken: an answer comes, and
//! what was read is printed so that it is read as the same again.

use std::hint::black_box;

use celeriac_wire::codec::{self, Accept, Compression, Read, Serializer};
use celeriac_wire::repr::{args_repr_within, kwargs_repr_within};
use celeriac_wire::{
    Body, ControlReply, ControlRequest, Envelope, Event, ExceptionInfo, Headers, Message, Number,
    Properties, ReplyTo, ResultMeta, Signature, Special, State, Value, from_value, parse_iso,
    print_iso, to_value,
};

/// The name of a target, which its program and its folder of seeds have, and what it runs.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 14] = [
    ("body", body),
    ("compression", compression),
    ("control", control),
    ("envelope", envelope),
    ("event", event),
    ("headers", headers),
    ("json", json),
    ("message", message),
    ("msgpack", |bytes| of_type(Serializer::Msgpack, bytes)),
    ("properties", properties),
    ("result", result),
    ("signature", signature),
    ("time", time),
    ("yaml", |bytes| of_type(Serializer::Yaml, bytes)),
];

/// Most bytes that a compressed input may become.
const PLAIN_BYTES_MAX: usize = 1 << 20;
/// Longest text that is compressed again: the best level of brotli takes its time.
const AGAIN_BYTES_MAX: usize = 1024;
/// Nesting to which every serializer reads what it wrote; YAML's parser ends at 255 brackets.
const DEPTH_OF_ALL: usize = 200;

/// Takes what a reader returned, whether it is an error or not.
fn see<T>(read: T) {
    drop(black_box(read));
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::parse(bytes) else { return };
    let printed = envelope.to_bytes();
    let again = Envelope::parse(&printed).expect("its own text");
    assert_eq!(again, envelope);
    assert_eq!(again.to_bytes(), printed);
    see(envelope.message.check());
    check_headers(&envelope.message.headers);
    check_properties(&envelope.message.properties);
}

fn headers(bytes: &[u8]) {
    let Ok(headers) = Headers::parse(bytes) else { return };
    assert_eq!(Headers::parse(headers.to_json().as_bytes()).as_ref(), Ok(&headers));
    check_headers(&headers);
}

fn check_headers(headers: &Headers) {
    see((headers.check(), headers.custom().count(), headers.stamps(), headers.stamped_headers()));
    see((headers.retries(), headers.replaced_task_nesting(), headers.shown_name()));
    see((headers.group_index(), headers.is_redelivered(), headers.ignore_result()));
    // What was understood can be written, and says the same then.
    let mut copy = headers.clone();
    if let Ok(eta) = headers.eta() {
        assert_eq!(copy.set_eta(eta).eta(), Ok(eta));
    }
    if let Ok(expires) = headers.expires() {
        assert_eq!(copy.set_expires(expires).expires(), Ok(expires));
    }
    if let Ok(limits) = headers.time_limits() {
        let again = copy.set_time_limits(limits).time_limits().expect("its own limits");
        assert_eq!(again.hard.is_some(), limits.hard.is_some());
        assert_eq!(again.soft.is_some(), limits.soft.is_some());
    }
}

fn properties(bytes: &[u8]) {
    let Ok(properties) = Properties::parse(bytes) else { return };
    assert_eq!(Properties::parse(properties.to_json().as_bytes()).as_ref(), Ok(&properties));
    check_properties(&properties);
}

fn check_properties(properties: &Properties) {
    see((properties.correlation_id(), properties.reply_to(), properties.delivery_mode()));
    let mut copy = properties.clone();
    if let Some(priority) = properties.priority() {
        assert_eq!(copy.set_priority(priority).priority(), Some(priority));
    }
    if let Ok(expiration) = properties.expiration() {
        assert_eq!(copy.set_expiration(expiration).expiration(), Ok(expiration));
    }
    let info = properties.delivery_info();
    assert_eq!(copy.set_delivery_info(&info).delivery_info(), info);
}

fn body(bytes: &[u8]) {
    let Ok(body) = Body::parse(bytes) else { return };
    assert_eq!(Body::parse(&body.to_bytes()).as_ref(), Ok(&body));
    assert_eq!(Body::from_value(body.to_value()).as_ref(), Ok(&body));
    check_texts(&body);
    let lists = [body.embed.callbacks(), body.embed.errbacks(), body.embed.chain()];
    lists.into_iter().flatten().flatten().for_each(|signature| check_signature(&signature));
    if let Ok(Some(chord)) = body.embed.chord() {
        check_signature(&chord);
    }
}

/// The texts for people are cut, however large the arguments are.
fn check_texts(body: &Body) {
    for chars_max in [0, 1, 12, 100, 1024] {
        let args = args_repr_within(&body.args, chars_max);
        let kwargs = kwargs_repr_within(&body.kwargs, chars_max);
        for text in [args, kwargs] {
            // Escapes and hex digits double what is shown; then come dots and closing brackets.
            let chars = text.chars().count();
            assert!(chars <= 2 * chars_max + 64, "{chars} characters for {chars_max}: {text}");
        }
    }
}

fn signature(bytes: &[u8]) {
    let Ok(value) = Value::parse(bytes) else { return };
    let Ok(signature) = Signature::from_value(value) else { return };
    let printed = Value::from(signature.clone()).to_bytes();
    let again = Value::parse(&printed).map(Signature::from_value).expect("its own text");
    assert_eq!(again.as_ref(), Ok(&signature));
    check_signature(&signature);
    // What the canvas adds is found again in a signature of any shape that can be read.
    let (links, errors) = (signature.links(), signature.link_errors());
    let more = signature.with_link(Signature::new("a")).with_link_error(Signature::new("b"));
    for (before, after) in [(links, more.links()), (errors, more.link_errors())] {
        if let Ok(before) = before {
            assert_eq!(after.map(|links| links.len()), Ok(before.len() + 1));
        }
    }
    let with = more.with_option("task_id", "1").with_args(Vec::new()).immutable();
    assert_eq!(with.task_id(), Some("1"));
    assert!(with.args().is_empty() && with.is_immutable());
}

fn check_signature(signature: &Signature) {
    see((signature.kind(), signature.task(), signature.args(), signature.items()));
    see((signature.chunk_size(), signature.group_id(), signature.is_immutable()));
    let lists = [
        signature.tasks(),
        signature.chord_header(),
        signature.links(),
        signature.link_errors(),
        signature.chord_body().map(|one| one.into_iter().collect()),
        signature.inner_task().map(|one| one.into_iter().collect()),
    ];
    lists.into_iter().flatten().flatten().for_each(|inner| check_signature(&inner));
}

fn result(bytes: &[u8]) {
    if let Some(compressed) = ResultMeta::compressed(bytes) {
        let parts: [&[u8]; 4] =
            [b"\0celery-compressed\0", compressed.mime.as_bytes(), b"\0", compressed.bytes];
        assert_eq!(parts.concat(), bytes);
    }
    let Ok(meta) = ResultMeta::parse(bytes) else { return };
    assert_eq!(ResultMeta::parse(&meta.to_bytes()).as_ref(), Ok(&meta));
    assert_eq!(State::parse(meta.state().as_str()), meta.state());
    see((meta.children(), meta.retries(), meta.name(), meta.args(), meta.kwargs(), meta.worker()));
    if let Ok(Some(exception)) = meta.exception() {
        assert_eq!(ExceptionInfo::from_value(&exception.to_value()).as_ref(), Ok(&exception));
        see(exception.summary());
    }
    let mut copy = meta.clone();
    if let Ok(instant) = meta.date_done() {
        assert_eq!(copy.set_date_done(instant).date_done(), Ok(instant));
    }
    copy.set("worker", "w@h").set("stamp", 1);
    assert_eq!((copy.worker(), copy.get("stamp")), (Some("w@h"), Some(&Value::from(1))));
}

fn event(bytes: &[u8]) {
    let Ok(events) = Event::parse_many(bytes) else { return };
    assert_eq!(Event::parse_many(&Event::list_to_bytes(&events)).as_ref(), Ok(&events));
    for event in events {
        see((event.instant(), event.routing_key(), event.clock(), event.pid(), event.hostname()));
        assert_eq!(Event::parse_many(&event.to_bytes()), Ok(vec![event]));
    }
}

/// The bytes as an envelope, or else as the plain JSON body of a message without headers.
fn message_of(bytes: &[u8]) -> Message {
    Envelope::parse(bytes).map_or_else(
        |_| {
            let mut message = Message::new("", "", bytes.to_vec());
            message.headers = Headers::default();
            message
        },
        |envelope| envelope.message,
    )
}

fn control(bytes: &[u8]) {
    let message = message_of(bytes);
    if let Ok(request) = ControlRequest::from_message(&message) {
        let again = ControlRequest::from_message(&request.to_message()).expect("its own message");
        assert_eq!((again.body(), again.clock), (request.body(), request.clock));
        // NaN is NaN, and zero has no sign on the wire.
        assert!((again.expires + 0.0).total_cmp(&(request.expires + 0.0)).is_eq());
        see((request.arguments(), request.destination(), request.pattern(), request.ticket()));
        see(request.reply_to().map(|to| to.queue()));
    }
    if let Ok(reply) = ControlReply::from_message(&message) {
        let again = ControlReply::from_message(&reply.to_message(&ReplyTo::inbox("1")));
        assert_eq!(again, Ok(reply));
    }
}

fn json(bytes: &[u8]) {
    if let Some(number) = std::str::from_utf8(bytes).ok().and_then(Number::parse) {
        see((number.as_i64(), number.as_u64(), number.as_i128(), number.as_u128()));
        assert!(number.as_f64().is_some());
        assert_eq!(Value::parse(bytes), Ok(Value::from(number)));
    }
    let Ok(value) = Value::parse(bytes) else { return };
    let printed = value.to_string();
    assert!(printed.is_ascii());
    let again = Value::parse(printed.as_bytes()).expect("its own text");
    assert_eq!(again, value);
    assert_eq!(again.to_string(), printed);
    assert_eq!(to_value(&value).as_ref(), Ok(&value));
    assert_eq!(from_value::<Value>(value.clone()).as_ref(), Ok(&value));
    see(from_value::<(u8, Option<f64>, Vec<String>)>(value.clone()).map_err(|e| e.to_string()));
    check_special(&value);
}

/// Values of types that JSON does not have are read as what they are printed as.
fn check_special(value: &Value) {
    if let Some(Ok(special)) = Special::read(value) {
        assert_eq!(Special::read(&special.to_value()), Some(Ok(special)));
    }
    see((celeriac_wire::value_repr(value), value.describe()));
    match value {
        Value::Array(items) => items.iter().for_each(check_special),
        Value::Object(map) => map.values().for_each(check_special),
        _ => {}
    }
}

fn time(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(instant) = parse_iso(text) {
        assert_eq!(parse_iso(&print_iso(instant)), Ok(instant));
    }
    let owned = || text.to_owned();
    for special in [Special::DateTime(owned()), Special::Date(owned()), Special::Time(owned())] {
        see(celeriac_wire::value_repr(&special.to_value()));
    }
}

/// A message of protocol 2, 1 or both, with a body of any content type that is not compressed.
fn message(bytes: &[u8]) {
    let mut message = message_of(bytes);
    message.headers.set_compression(None);
    check_message(&message);
}

fn of_type(serializer: Serializer, bytes: &[u8]) {
    let mut message = Message::new("t", "1", bytes.to_vec());
    serializer.content_type().clone_into(&mut message.content_type);
    serializer.content_encoding().clone_into(&mut message.content_encoding);
    check_message(&message);
}

fn check_message(message: &Message) {
    let Ok(Read { body, upgraded }) = codec::read(message, Accept::default()) else { return };
    // Whatever a body came in, it is passed on as JSON.
    assert_eq!(Body::parse(&body.to_bytes()).as_ref(), Ok(&body));
    check_texts(&body);
    if let Some(upgraded) = upgraded {
        let again = codec::read(&upgraded, Accept::default());
        assert_eq!(again, Ok(Read { body: body.clone(), upgraded: None }));
    }
    let is_deep = depth(&body.to_value()) > DEPTH_OF_ALL;
    for serializer in Serializer::ALL {
        let mut copy = Message::new("t", "1", "");
        // Not every format can carry every value. What it carries may be spelled otherwise, once.
        if codec::write(&mut copy, &body, serializer, None).is_err() {
            continue;
        }
        let carried = match codec::read(&copy, Accept::default()) {
            Ok(read) => read.body,
            Err(_) if is_deep => continue,
            Err(error) => panic!("{serializer:?} does not read what it wrote: {error}"),
        };
        codec::write(&mut copy, &carried, serializer, None).expect("carried");
        assert_eq!(codec::read(&copy, Accept::default()).map(|read| read.body), Ok(carried));
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The first byte chooses the compression.
fn compression(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let compression = Compression::ALL[usize::from(*choice) % Compression::ALL.len()];
    let Ok(plain) = compression.decompress(bytes, PLAIN_BYTES_MAX) else { return };
    assert!(plain.len() <= PLAIN_BYTES_MAX);
    if plain.len() <= AGAIN_BYTES_MAX {
        let again = compression.compress(&plain).expect("compressed");
        assert_eq!(compression.decompress(&again, plain.len()), Ok(plain));
    }
}
