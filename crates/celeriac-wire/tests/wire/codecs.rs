//! Bodies of every content type, compression and protocol.

use celeriac_wire::codec::{self, Accept, CodecError, Compression, Serializer};
use celeriac_wire::{Body, Envelope, Map, Message, Special, Value};
use proptest::prelude::*;

use crate::fixtures;

fn captured(name: &str) -> Message {
    let fixture = fixtures::Fixture { name: name.to_owned(), value: fixtures::one(name) };
    let raw = fixture.queued()[0].0.to_owned();
    Envelope::parse(raw.as_bytes()).expect(name).message
}

fn read(message: &Message) -> Result<codec::Read, CodecError> {
    codec::read(message, Accept::default())
}

fn ones() -> Vec<Value> {
    vec![Value::from(1), Value::from(1)]
}

#[test]
fn every_captured_body_is_read_except_pickle() {
    let mut count = 0;
    for fixture in fixtures::all() {
        for (raw, _) in fixture.queued() {
            let message = Envelope::parse(raw.as_bytes()).expect(&fixture.name).message;
            match read(&message) {
                Ok(read) => {
                    let old = fixture.name == "task_protocol1";
                    assert_eq!(read.upgraded.is_some(), old, "{}", fixture.name);
                    count += 1;
                }
                Err(error) => {
                    assert_eq!(
                        (fixture.name.as_str(), error),
                        ("task_serializer_pickle", CodecError::Pickle)
                    );
                }
            }
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn captured_compressions_and_serializers_hold_the_same_body() {
    let body = Body::new(ones(), Map::new());
    for name in ["brotli", "bzip2", "gzip", "lzma", "zlib", "zstd"] {
        let message = captured(&format!("task_compression_{name}"));
        assert_eq!(read(&message).expect(name).body, body, "{name}");
        let compression: Compression = name.parse().expect(name);
        assert_eq!(message.headers.compression(), Some(compression.header()));
        let plain = compression.decompress(&message.body, 1000).expect(name);
        let again = compression.compress(&plain).expect(name);
        assert_eq!(compression.decompress(&again, plain.len()), Ok(plain), "{name}");
    }
    for serializer in [Serializer::Msgpack, Serializer::Yaml] {
        let name = serializer.name();
        let message = captured(&format!("task_serializer_{name}"));
        assert_eq!(read(&message).expect(name).body, body, "{name}");
        assert_eq!(message.content_type, serializer.content_type());
        assert_eq!(message.content_encoding, serializer.content_encoding());
        let mut ours = Message::new("t", "i", "");
        codec::write(&mut ours, &body, serializer, None).expect(name);
        if serializer == Serializer::Msgpack {
            assert_eq!(ours.body, message.body);
        }
    }
}

#[test]
fn pickle_and_strangers_are_refused_by_their_type() {
    let refused = |change: fn(&mut Message)| {
        let mut message = captured("task_basic");
        change(&mut message);
        let error = read(&message).expect_err("refused");
        assert!(error.is_disallowed(), "{error:?}");
        error.to_string()
    };
    let text = read(&captured("task_serializer_pickle")).expect_err("pickle").to_string();
    assert!(text.contains("pickle") && text.contains("only a Python worker can read it"), "{text}");
    let text = refused(|message| message.content_type = "application/x-protobuf".to_owned());
    assert!(text.contains("application/x-protobuf"), "{text}");
    let text = refused(|message| {
        message.headers.set_compression(Some("application/x-snappy"));
    });
    assert!(text.contains("application/x-snappy"), "{text}");
    let text = refused(|message| message.content_encoding = "utf-16".to_owned());
    assert!(text.contains("utf-16"), "{text}");
    let json_only = Accept::only([Serializer::Json]);
    let error =
        codec::read(&captured("task_serializer_yaml"), json_only).expect_err("not accepted");
    assert_eq!(
        error.to_string(),
        "the body has content type application/x-yaml, accepted are json"
    );
    assert!("pickle".parse::<Serializer>().expect_err("pickle").contains("Python only"));
}

#[test]
fn raw_bytes_and_text_are_the_only_argument() {
    let mut message = captured("task_basic");
    message.body = vec![255, 0].into();
    for content_type in ["application/data", ""] {
        content_type.clone_into(&mut message.content_type);
        let read = codec::read(&message, Accept::only([])).expect("raw").body;
        assert_eq!(read.args, [Special::Bytes(vec![255, 0]).to_value()]);
    }
    "text/plain".clone_into(&mut message.content_type);
    assert!(matches!(read(&message), Err(CodecError::Broken { .. })));
    message.body = "é".into();
    assert_eq!(read(&message).expect("text").body.args, [Value::from("é")]);
}

#[test]
fn protocol_1_becomes_protocol_2() {
    let old = captured("task_protocol1");
    assert!(!old.is_protocol_2() && old.check().is_err());
    let read_once = read(&old).expect("protocol 1");
    let new = read_once.upgraded.expect("upgraded");
    new.check().expect("protocol 2");
    assert_eq!(read_once.body.args, ones());
    assert_eq!(read_once.body.embed.callbacks().expect("callbacks").len(), 1);
    let headers = &new.headers;
    assert_eq!(headers.task(), Some("protoapp.add"));
    let inner = Value::parse(&old.body).expect("JSON");
    assert_eq!(headers.id(), inner.get("id").and_then(Value::as_str));
    assert_eq!(headers.get("eta"), inner.get("eta"));
    assert!(headers.eta().expect("a time").is_some());
    assert_eq!((headers.argsrepr(), headers.kwargsrepr()), (Some("(1, 1)"), Some("{}")));
    // What was upgraded needs no upgrade, and holds the same.
    let again = read(&new).expect("protocol 2");
    assert_eq!((again.body, again.upgraded), (read_once.body, None));
}

fn of_object(body: &str, headers: &[(&str, Value)]) -> Message {
    let mut message = Message::new("x", "y", body.to_owned());
    let headers: Map = headers.iter().map(|(name, value)| (*name, value.clone())).collect();
    message.headers = celeriac_wire::Headers::from_map(headers);
    message
}

#[test]
fn older_protocols_follow_celery() {
    // The taskset of protocol 1 is the group; custom headers stay.
    let body = r#"{"task": "t", "id": "1", "args": [], "kwargs": {"a": 1}, "taskset": "g", "retries": 2, "timelimit": [3, null], "errbacks": [{"task": "e"}]}"#;
    let message = of_object(body, &[("mine", Value::from(7))]);
    let new = read(&message).expect("protocol 1").upgraded.expect("upgraded");
    assert_eq!(new.headers.group(), Some("g"));
    assert_eq!(new.headers.retries(), 2);
    assert_eq!(new.headers.get("mine"), Some(&Value::from(7)));
    assert!(new.headers.time_limits().expect("limits").hard.is_some());
    // In a hybrid the headers win.
    let headers = [("task", Value::from("new")), ("id", Value::from("2"))];
    let message = of_object(
        r#"{"task": "old", "args": [1], "eta": "2030-01-01T00:00:00", "utc": true}"#,
        &headers,
    );
    let new = read(&message).expect("hybrid").upgraded.expect("upgraded");
    assert_eq!((new.headers.task(), new.headers.id()), (Some("new"), Some("2")));
    assert!(new.headers.eta().expect("naive is UTC").is_some());
    for (body, said) in [
        ("{}", "task: expected the name of a task"),
        (r#"{"task": "t"}"#, "id: expected a task id"),
        (r#"{"task": "t", "id": "1", "kwargs": [1]}"#, "kwargs: expected an object"),
        (r#"{"task": "t", "id": "1", "args": {}}"#, "args: expected an array"),
        (
            r#"{"task": "t", "id": "1", "eta": "2030-01-01T00:00:00", "utc": false}"#,
            "the sender's own zone",
        ),
        ("[[], {}]", "body: expected [args, kwargs, embed]"),
        ("3", "body: expected [args, kwargs, embed]"),
    ] {
        let error = read(&of_object(body, &[])).expect_err(body);
        assert!(error.to_string().contains(said) && !error.is_disallowed(), "{body}: {error}");
    }
    // Without an offset, but with the zone named: an instant.
    let local = r#"{"task": "t", "id": "1", "eta": "2030-01-01T00:00:00+02:00", "utc": false}"#;
    assert!(read(&of_object(local, &[])).is_ok());
}

#[test]
fn bombs_are_refused_with_the_name_of_the_bound() {
    let zeros = vec![b' '; 3_000_000];
    for compression in Compression::ALL {
        let bomb = compression.compress(&zeros).expect("compressed");
        assert!(bomb.len() < 20_000, "{compression:?}: {}", bomb.len());
        assert_eq!(
            compression.decompress(&bomb, zeros.len()).as_ref(),
            Ok(&zeros),
            "{compression:?}"
        );
        let error = compression.decompress(&bomb, zeros.len() - 1).expect_err("too large");
        assert_eq!(error, CodecError::TooLarge { what: "bytes", max: zeros.len() - 1 });
        for end in [0, 1, bomb.len() / 2] {
            let cut = compression.decompress(&bomb[..end], zeros.len());
            assert!(cut.is_err(), "{compression:?} cut to {end}");
        }
    }
    // An .xz that asks for 4 GiB of dictionary.
    let mut xz = Compression::Lzma.compress(b"x").expect("compressed");
    xz[16] = 40;
    let crc = crc32(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.to_le_bytes());
    let error = Compression::Lzma.decompress(&xz, 1000).expect_err("memory").to_string();
    assert!(error.contains("mem"), "{error}");

    let laughs: String = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [*a{m}, *a{m}]\n", m = n - 1)
    });
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(2000));
    for (text, what) in [(laughs, "values"), (long, "bytes")] {
        let mut message = captured("task_serializer_yaml");
        message.body = text.into();
        let error = read(&message).expect_err("a bomb");
        assert!(matches!(error, CodecError::TooLarge { what: one, .. } if one == what), "{error}");
    }
    let mut message = captured("task_serializer_msgpack");
    // A list that promises 4 billion elements, and deep nesting.
    for bytes in [vec![0xdd, 0xff, 0xff, 0xff, 0xff], vec![0x91; 100_000]] {
        message.body = bytes.into();
        assert!(matches!(read(&message), Err(CodecError::Broken { .. })));
    }
    let mut message = captured("task_serializer_yaml");
    message.body = "[".repeat(100_000).into();
    assert!(read(&message).is_err());
}

/// Nesting up to the bound fits into the stack that any thread has, also without optimization.
#[test]
fn deep_values_fit_into_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        let deep = |levels| (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        for serializer in Serializer::ALL {
            let body = Body::new(vec![deep(250)], Map::new());
            let mut message = Message::new("t", "i", "");
            codec::write(&mut message, &body, serializer, None).expect("written");
            assert_eq!(read(&message).expect("read").body, body);
            let body = Body::new(vec![deep(300)], Map::new());
            codec::write(&mut message, &body, serializer, None).expect("written");
            assert!(read(&message).is_err());
        }
    });
    thread.expect("a thread").join().expect("no overflow");
}

/// What is read from any format can be passed on as JSON, which has the same bound.
#[test]
fn no_format_nests_deeper_than_json() {
    let msgpack = |lists: usize, innermost: &[u8]| {
        let mut message = captured("task_serializer_msgpack");
        let args = [&vec![0x91; lists][..], innermost].concat();
        message.body = [&[0x93][..], &args, &[0x80, 0x80]].concat().into();
        read(&message)
    };
    // The body itself is a level, and so are an empty list and bytes.
    for innermost in [&[0x90][..], &[0xc4, 1, 255], &[0x80]] {
        let body = msgpack(254, innermost).expect("256 levels").body;
        assert_eq!(Body::parse(&body.to_bytes()), Ok(body));
        let error = msgpack(255, innermost).expect_err("257 levels").to_string();
        assert!(error.contains("too deep"), "{error}");
    }

    let nested =
        |levels: usize, inner: &str| format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
    let mut message = captured("task_serializer_yaml");
    let mut yaml = |text: String| {
        message.body = text.into();
        read(&message).map(|read| read.body)
    };
    // Each alias is within the bound of the text, but not of the value that it makes.
    let aliased =
        |levels| format!("- [&a {}, {}]\n- {{}}\n- {{}}\n", nested(150, "1"), nested(levels, "*a"));
    let body = yaml(aliased(104)).expect("256 levels");
    assert_eq!(Body::parse(&body.to_bytes()), Ok(body));
    let error = yaml(aliased(105)).expect_err("257 levels").to_string();
    assert!(error.contains("too deep"), "{error}");
    // 300 aliases of aliases would need more stack than any thread has.
    let chain: String = (1..300).fold(format!("- &a0 {}\n", nested(200, "1")), |text, n| {
        format!("{text}- &a{n} {}\n", nested(200, &format!("*a{}", n - 1)))
    });
    let error = yaml(chain).expect_err("60,000 levels").to_string();
    assert!(error.contains("too deep"), "{error}");
    // Bytes are an object, and only lists in lines come so deep.
    let lines = |levels, innermost: &str| format!("{}{innermost}\n- {{}}\n", "- ".repeat(levels));
    assert!(yaml(lines(255, "1")).is_err_and(|error| !error.to_string().contains("too deep")));
    let error = yaml(lines(256, "!!binary /wA=")).expect_err("257 levels").to_string();
    assert!(error.contains("too deep"), "{error}");
}

/// An anchor keeps a copy, so that anchors around anchors multiply what is inside of them.
#[test]
fn nested_anchors_are_counted() {
    let anchors = (0..200).fold(String::new(), |text, n| format!("{text}&a{n} ["));
    let mut message = captured("task_serializer_yaml");
    message.body =
        format!("[{anchors}{}{}, {{}}, {{}}]", "x".repeat(400_000), "]".repeat(200)).into();
    let error = read(&message).expect_err("80 MB of copies");
    assert!(matches!(error, CodecError::TooLarge { what: "bytes", .. }), "{error}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

fn yaml(text: &str) -> Result<Value, String> {
    let mut message = captured("task_serializer_yaml");
    message.body = format!("- [{{v: {text}}}]\n- {{}}\n- {{}}\n").into();
    let mut body = read(&message).map_err(|error| error.to_string())?.body;
    Ok(body.args.remove(0).get("v").cloned().unwrap_or_default())
}

#[test]
fn yaml_scalars_are_those_of_pyyaml() {
    // Expectations written by PyYAML 6.0.3: json.dumps(yaml.safe_load(...), default=str).
    for (text, json) in [
        ("~", "null"),
        ("yes", "true"),
        ("Off", "false"),
        ("y", "\"y\""),
        ("0o17", "\"0o17\""),
        ("017", "15"),
        ("0x1F", "31"),
        ("-0b11", "-3"),
        ("1_000", "1000"),
        ("1:30", "90"),
        ("-1:30:00", "-5400"),
        ("1:30.5", "90.5"),
        ("09", "\"09\""),
        ("1e3", "\"1e3\""),
        ("1.0e+3", "1000.0"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("+1", "1"),
        (".inf", "Infinity"),
        ("-.INF", "-Infinity"),
        (".NaN", "NaN"),
        ("'1'", "\"1\""),
        ("!!str 1", "\"1\""),
        ("!!float 1", "1.0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("2026-01-02", r#"{"__type__": "date", "__value__": "2026-01-02"}"#),
        (
            "2026-1-2 03:04:05.5 +2",
            r#"{"__type__": "datetime", "__value__": "2026-01-02T03:04:05.500000+02:00"}"#,
        ),
        (
            "2026-01-02T03:04:05Z",
            r#"{"__type__": "datetime", "__value__": "2026-01-02T03:04:05+00:00"}"#,
        ),
        ("!!binary /wA=", r#"{"__type__": "base64", "__value__": "/wA="}"#),
        ("[&a {k: 1}, {<<: *a, l: 2}]", r#"[{"k": 1}, {"l": 2, "k": 1}]"#),
        ("{1: a, yes: b, ~: c}", r#"{"1": "a", "true": "b", "null": "c"}"#),
    ] {
        assert_eq!(yaml(text).expect(text).to_string(), json, "{text}");
    }
    for (text, said) in [
        ("!!python/tuple [1]", "python/tuple"),
        ("!!set {a}", "set"),
        ("!mine 1", "!mine"),
        ("2026-13-01", "the time"),
        ("{[1]: 2}", "key"),
        ("&a [*a]", "alias"),
    ] {
        let error = yaml(text).expect_err(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}

/// What every serializer can carry.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[-+.0-9:_eExbTZ ]{0,12}".prop_map(Value::from),
        any::<Vec<u8>>().prop_map(|bytes| Special::Bytes(bytes).to_value()),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map>())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        args in prop::collection::vec(value(), 0..4),
        key in any::<String>(),
        serializer in 0..3_usize,
        compression in 0..6_usize,
    ) {
        let kwargs = Map::from([(key.as_str(), Value::from(1))]);
        let body = Body::new(args, kwargs);
        let mut message = Message::new("t", "i", "");
        let compression = Compression::ALL.get(compression).copied();
        let written = codec::write(&mut message, &body, Serializer::ALL[serializer], compression);
        prop_assert!(written.is_ok(), "{written:?}");
        let read = codec::read(&message, Accept::default());
        prop_assert_eq!(read.map(|read| read.body), Ok(body));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in any::<Vec<u8>>(),
        content_type in 0..5_usize,
        compression in 0..6_usize,
    ) {
        let mut message = Message::new("t", "i", bytes.clone());
        message.content_type = [
            "application/json", "application/x-msgpack", "application/x-yaml", "application/data",
            "text/plain",
        ][content_type].to_owned();
        drop(read(&message));
        if let Some(compression) = Compression::ALL.get(compression) {
            drop(compression.decompress(&bytes, 10_000));
            // Damage in the middle of what was good.
            if let Ok(mut good) = compression.compress(&bytes) {
                if let Some(byte) = good.get_mut(bytes.len() / 2) {
                    *byte ^= 1 << (bytes.len() % 8);
                }
                drop(compression.decompress(&good, 10_000));
            }
        }
    }

    #[test]
    fn any_text_is_yaml_or_refused(text in "[-\\[\\]{}&*a!<:,'\"|>%@#?~ 0-9\n]{0,80}") {
        let mut message = Message::new("t", "i", text);
        "application/x-yaml".clone_into(&mut message.content_type);
        drop(read(&message));
    }
}
