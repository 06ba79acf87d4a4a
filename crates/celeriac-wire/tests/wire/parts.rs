//! Headers, properties, bodies and signatures field by field.

use std::time::Duration;

use celeriac_wire::{
    Body, DeliveryInfo, Embed, Envelope, Headers, Map, Message, Properties, Signature,
    SignatureKind, TimeLimits, Value, parse_iso,
};

use crate::fixtures;

fn first_message(name: &str, queue: &str) -> Message {
    let fixture = fixtures::one(name);
    let items = fixture.get("queues").and_then(|queues| queues.get(queue)).expect(name);
    let text = items.as_array().and_then(<[Value]>::last).and_then(Value::as_str).expect(name);
    Envelope::parse(text.as_bytes()).expect(name).message
}

fn first_body(name: &str) -> Body {
    Body::parse(&first_message(name, "celery").body).expect(name)
}

fn headers(text: &str) -> Headers {
    Headers::parse(text.as_bytes()).expect("an object")
}

#[test]
fn setters_and_readers_agree() {
    let mut headers = Headers::new("app.add", "1");
    let limits =
        TimeLimits { hard: Some(Duration::from_secs(10)), soft: Some(Duration::from_millis(2500)) };
    let eta = parse_iso("2030-01-01T00:00:00.5Z").expect("a time");
    headers
        .set_eta(Some(eta))
        .set_expires(Some(eta))
        .set_time_limits(limits)
        .set_retries(3)
        .set_group(Some("g"))
        .set_group_index(Some(2))
        .set_parent_id(Some("0"))
        .set_shadow(Some("other"))
        .set_ignore_result(None)
        .set_stamps(Map::from([("who", "me")]))
        .set_compression(Some("application/x-gzip"));
    let headers = self::headers(&headers.to_json());
    assert_eq!(headers.eta(), Ok(Some(eta)));
    assert_eq!(headers.expires(), Ok(Some(eta)));
    assert_eq!(headers.get("timelimit").map(Value::to_string).as_deref(), Some("[10, 2.5]"));
    assert_eq!(headers.time_limits(), Ok(limits));
    assert_eq!(headers.retries(), 3);
    assert_eq!(headers.group(), Some("g"));
    assert_eq!(headers.group_index(), Some(2));
    assert_eq!(headers.parent_id(), Some("0"));
    assert_eq!(headers.root_id(), Some("1"));
    assert_eq!(headers.shadow(), Some("other"));
    assert_eq!(headers.ignore_result(), None);
    assert_eq!(headers.stamped_headers(), ["who"]);
    assert_eq!(headers.stamps().get("who"), Some(&Value::from("me")));
    assert_eq!(headers.compression(), Some("application/x-gzip"));
    assert_eq!(headers.check(), Ok(()));
    assert_eq!(headers.custom().count(), 0);
}

#[test]
fn missing_headers_are_defaults() {
    let headers = headers("{}");
    assert_eq!(headers.task(), None);
    assert_eq!(headers.retries(), 0);
    assert_eq!(headers.eta(), Ok(None));
    assert_eq!(headers.time_limits(), Ok(TimeLimits::default()));
    assert_eq!(headers.ignore_result(), None);
    assert!(headers.stamps().is_empty());
    assert!(!headers.is_redelivered());
}

#[test]
fn check_names_the_bad_header() {
    for (text, expected) in [
        ("{}", "headers.task: expected a string, found nothing"),
        (r#"{"task": 1}"#, "headers.task: expected a string, found the integer 1"),
        (r#"{"task": "t", "id": null}"#, "headers.id: expected a string, found null"),
        (
            r#"{"task": "t", "id": "1", "eta": "soon"}"#,
            "headers.eta: expected an ISO 8601 time, found the string \"soon\"",
        ),
        (
            r#"{"task": "t", "id": "1", "expires": 5}"#,
            "headers.expires: expected an ISO 8601 time, found the integer 5",
        ),
        (
            r#"{"task": "t", "id": "1", "timelimit": [1]}"#,
            "headers.timelimit: expected [hard, soft], found an array of 1",
        ),
        (
            r#"{"task": "t", "id": "1", "timelimit": [null, -1]}"#,
            "headers.timelimit[1]: expected seconds of 0 or more, found the integer -1",
        ),
        (
            r#"{"task": "t", "id": "1", "timelimit": [NaN, null]}"#,
            "headers.timelimit[0]: expected seconds of 0 or more, found the number NaN",
        ),
        (
            r#"{"task": "t", "id": "1", "retries": "2"}"#,
            "headers.retries: expected an integer of 0 or more, found the string \"2\"",
        ),
    ] {
        let mut message = Message::new("", "", Vec::new());
        message.headers = headers(text);
        assert_eq!(message.check().expect_err(text).to_string(), expected);
    }
}

#[test]
fn headers_have_a_bound() {
    let long = format!("{{\"x\": \"{}\"}}", "a".repeat(celeriac_wire::limits::HEADERS_BYTES_MAX));
    let error = Headers::parse(long.as_bytes()).expect_err("too long").to_string();
    assert_eq!(error, "headers of 1048585 exceeds the bound of 1048576");
}

#[test]
fn properties_read_what_brokers_write() {
    for (priority, expected) in [
        ("3", Some(3)),
        ("-1", Some(0)),
        ("300", Some(255)),
        ("3.9", Some(3)),
        ("\" 7 \"", Some(7)),
        ("\"x\"", None),
        ("null", None),
        ("NaN", None),
        ("Infinity", Some(255)),
    ] {
        let value = Value::parse(priority.as_bytes()).expect("valid");
        let properties = Properties::from_map(Map::from([("priority", value)]));
        assert_eq!(properties.priority(), expected, "{priority}");
    }
    assert_eq!(Properties::default().priority(), None);

    let mut properties = Properties::new("1");
    assert_eq!(properties.reply_to(), None);
    let info = DeliveryInfo { exchange: "e".to_owned(), routing_key: "k".to_owned() };
    properties.insert("delivery_info", Map::from([("redelivered", true)]));
    properties
        .set_delivery_info(&info)
        .set_expiration(Some(Duration::from_micros(1_500_900)))
        .set_priority(4)
        .set_reply_to("r");
    assert_eq!(properties.delivery_info(), info);
    assert_eq!(
        properties.get("delivery_info").map(Value::to_string).as_deref(),
        Some(r#"{"redelivered": true, "exchange": "e", "routing_key": "k"}"#)
    );
    assert_eq!(properties.get("expiration"), Some(&Value::from("1500")));
    assert_eq!(properties.expiration(), Ok(Some(Duration::from_millis(1500))));
    assert_eq!(properties.reply_to(), Some("r"));
    properties.insert("expiration", "soon");
    assert!(properties.expiration().is_err());
    properties.set_expiration(None);
    assert_eq!(properties.expiration(), Ok(None));
}

#[test]
fn captured_times_limits_and_custom_headers_are_read() {
    let options = first_message("task_options", "celery").headers;
    assert!(options.custom().count() > 0);
    assert!(options.time_limits().expect("limits").hard.is_some());
    assert!(options.time_limits().expect("limits").soft.is_some());
    let eta = first_message("task_eta", "celery").headers.eta().expect("a time");
    assert_eq!(eta, parse_iso("2030-01-01").ok());
    let naive = first_message("task_eta_naive", "celery").headers.eta().expect("a time");
    assert!(naive.is_some());
    let expires = first_message("task_expires_past", "celery");
    assert_eq!(expires.properties.expiration(), Ok(Some(Duration::ZERO)));
    let stamped = first_message("task_stamped", "celery").headers;
    assert!(stamped.stamped_headers().contains(&"header"));
    assert_eq!(stamped.stamps().get("header"), Some(&Value::from("value")));
}

#[test]
fn links_are_signatures() {
    let embed = first_body("task_link").embed;
    let [link] = <[Signature; 1]>::try_from(embed.callbacks().expect("links")).expect("one");
    assert_eq!(link.task(), Some("protoapp.cb"));
    assert_eq!(link.kind(), SignatureKind::Task);
    assert!(!link.is_immutable());
    let [errback] = <[Signature; 1]>::try_from(embed.errbacks().expect("links")).expect("one");
    assert_eq!(errback.task(), Some("protoapp.errcb"));
    assert_eq!(embed.chain(), Ok(Vec::new()));
    assert_eq!(embed.chord(), Ok(None));
}

#[test]
fn a_chain_is_reversed_in_the_embed() {
    let chain = first_body("canvas_chain").embed.chain().expect("a chain");
    let args: Vec<String> =
        chain.iter().map(|step| Value::from(step.args().to_vec()).to_string()).collect();
    assert_eq!(args, ["[3]", "[2]"]);
    assert!(chain.iter().all(|step| step.task_id().is_some()));
}

#[test]
fn chords_have_header_and_body() {
    let body = first_body("canvas_chord").embed.chord().expect("valid").expect("a chord body");
    assert_eq!(body.task(), Some("protoapp.xsum"));
    assert!(body.group_id().is_some());
    let chain = first_body("canvas_chain_group_chain").embed.chain().expect("a chain");
    let chord = chain.last().expect("a step");
    assert_eq!(chord.kind(), SignatureKind::Chord);
    assert_eq!(chord.chord_header().expect("valid").len(), 2);
    assert_eq!(
        chord.chord_body().expect("valid").as_ref().and_then(Signature::task),
        Some("protoapp.xsum")
    );
    let group = first_body("canvas_chain_chord").embed.chain().expect("a chain");
    let group = group.last().expect("a step");
    assert_eq!(group.kind(), SignatureKind::Group);
    assert_eq!(group.tasks().expect("valid").len(), 2);

    let member = || Signature::new("app.add");
    let grouped = Signature::group(vec![member(), member()]);
    let mut chord = Signature::chord(Vec::new(), member());
    chord.kwargs_mut().insert("header", grouped);
    assert_eq!(chord.chord_header().expect("valid").len(), 2);
}

#[test]
fn maps_carry_a_task_and_items() {
    let body = first_body("canvas_map");
    let map = Signature::new("celery.map").with_kwargs(body.kwargs);
    let inner = map.inner_task().expect("valid").expect("a task");
    assert_eq!(inner.task(), Some("protoapp.ident"));
    assert_eq!(map.items(), [Value::from(1), Value::from(2)]);
}

#[test]
fn built_signatures_look_like_python() {
    let signature = Signature::new("app.add")
        .with_args(vec![Value::from(1)])
        .with_kwargs(Map::from([("y", 2)]))
        .with_option("queue", "q")
        .with_link(Signature::new("app.cb").immutable())
        .with_link_error(Signature::new("app.errcb"));
    assert_eq!(
        Value::from(signature.clone()).to_string(),
        r#"{"task": "app.add", "args": [1], "kwargs": {"y": 2}, "options": {"queue": "q", "link": [{"task": "app.cb", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": true}], "link_error": [{"task": "app.errcb", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}]}, "subtask_type": null, "immutable": false}"#
    );
    assert_eq!(signature.links().expect("valid").len(), 1);
    assert_eq!(signature.link_errors().expect("valid").len(), 1);
    let chain = Signature::chain(vec![signature.clone(), signature]);
    assert_eq!(chain.kind(), SignatureKind::Chain);
    assert_eq!(chain.tasks().expect("valid").len(), 2);
}

#[test]
fn wrong_shapes_are_named() {
    for (text, expected) in [
        ("{}", "body: expected [args, kwargs, embed], found an object of 0 keys"),
        ("[1, 2]", "body: expected [args, kwargs, embed], found an array of 2"),
        ("[1, {}, {}]", "args: expected an array, found the integer 1"),
        ("[[], [], {}]", "kwargs: expected an object, found an array of 0"),
    ] {
        assert_eq!(Body::parse(text.as_bytes()).expect_err(text).to_string(), expected);
    }
    let embed = |text: &str| {
        Embed::from_map(
            Value::parse(text.as_bytes()).expect("valid").as_object().expect("map").clone(),
        )
    };
    assert_eq!(
        embed(r#"{"chain": [1]}"#).chain().expect_err("no signature").to_string(),
        "chain[0]: expected a signature, found the integer 1"
    );
    assert_eq!(
        embed(r#"{"chord": []}"#).chord().expect_err("no signature").to_string(),
        "chord: expected an object, found an array of 0"
    );
    let single = embed(r#"{"callbacks": {"task": "t"}}"#).callbacks().expect("one alone");
    assert_eq!(single.first().and_then(Signature::task), Some("t"));
    let group = Signature::group(Vec::new()).with_kwargs(Map::from([("tasks", 1)]));
    assert_eq!(
        group.tasks().expect_err("no list").to_string(),
        "kwargs.tasks: expected an array of signatures, found the integer 1"
    );
    assert_eq!(Body::parse(b"[null, null, null]"), Ok(Body::default()));
}
