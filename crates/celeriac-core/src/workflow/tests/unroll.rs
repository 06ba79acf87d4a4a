//! Signatures become the messages that Celery makes of them.

use super::*;

/// Options that say who somebody is, not what is to be done.
const IDENTITY: [&str; 6] =
    ["task_id", "reply_to", "root_id", "parent_id", "group_id", "group_index"];

/// A body without identities.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(shape).collect()),
        Value::Object(map) => {
            let mut kept = Map::new();
            for (name, value) in map.iter() {
                let mut value = shape(value);
                if let ("options", Some(options)) = (name, value.as_object_mut()) {
                    options.retain(|name, _| !IDENTITY.contains(&name));
                }
                kept.insert(name, value);
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// Compares what we send with what Celery sent: task, arguments, embed, place in the group.
fn assert_like_celery(name: &str, ours: &Plan) {
    let theirs = captured(name);
    let mut ours: Vec<&Message> = ours.publish.iter().map(|one| &one.message).collect();
    ours.sort_by_key(|message| message.headers.group_index());
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (ours, theirs) in ours.into_iter().zip(&theirs) {
        let parsed = |message: &Message| shape(&Value::parse(&message.body).unwrap());
        assert_eq!(parsed(ours).to_string(), parsed(theirs).to_string(), "{name}");
        let (ours, theirs) = (&ours.headers, &theirs.headers);
        assert_eq!(ours.task(), theirs.task(), "{name}");
        assert_eq!(ours.group_index(), theirs.group_index(), "{name}");
        assert_eq!(ours.group().is_some(), theirs.group().is_some(), "{name}");
        assert_eq!(ours.argsrepr(), theirs.argsrepr(), "{name}");
        assert_eq!(ours.kwargsrepr(), theirs.kwargsrepr(), "{name}");
        assert_eq!(ours.root_id(), ours.id(), "{name}");
        assert_eq!(ours.parent_id(), None, "{name}");
        let names = |headers: &Headers| {
            let mut names: Vec<String> = headers.as_map().keys().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names(ours), names(theirs), "{name}: the same headers");
    }
}

#[test]
fn every_canvas_is_what_celery_sends() {
    let chain = |tasks| Signature::chain(tasks);
    let pair = || vec![add(&[1, 1]), add(&[2, 2])];
    let inner = || Signature::group(vec![add(&[2]), add(&[3])]);
    for (name, signature) in [
        ("canvas_chain", chain(vec![add(&[1, 1]), add(&[2]), add(&[3])])),
        (
            "canvas_chain_link_error",
            chain(vec![add(&[1, 1]), add(&[2])]).with_link_error(Signature::new("protoapp.errcb")),
        ),
        ("canvas_chain_chord", chain(vec![add(&[1, 1]), inner()])),
        ("canvas_chord", Signature::chord(pair(), xsum())),
        ("canvas_group", Signature::group(pair())),
        ("canvas_map", composite("celery.map", "xmap", "protoapp.ident", "[1, 2]")),
        (
            "canvas_starmap",
            composite("celery.starmap", "xstarmap", "protoapp.add", "[[1, 1], [2, 2]]"),
        ),
    ] {
        let applied = Bench::new().apply(signature);
        if name == "canvas_starmap" || name == "canvas_map" {
            // Python's repr of the items depends on tuples, which JSON does not have.
            assert_eq!(applied.plan.publish.len(), 1);
            let theirs = &captured(name)[0];
            let ours = &applied.plan.publish[0].message;
            assert_eq!(ours.headers.task(), theirs.headers.task());
            let parsed = |message: &Message| shape(&Value::parse(&message.body).unwrap());
            assert_eq!(parsed(ours), parsed(theirs), "{name}");
        } else {
            assert_like_celery(name, &applied.plan);
        }
    }
}

fn composite(name: &str, subtask_type: &str, inner: &str, items: &str) -> Signature {
    let mut signature = Signature::new(name);
    signature.insert("subtask_type", subtask_type);
    signature.kwargs_mut().insert("task", Signature::new(inner));
    signature.kwargs_mut().insert("it", Value::parse(items.as_bytes()).unwrap());
    signature
}

#[test]
fn a_nested_chord_header_is_flattened() {
    // Celery numbers the members of a nested group backwards (5.4, `extendleft`); we keep their
    // order, so results come in the order in which they were written.
    let header = vec![
        Signature::chain(vec![add(&[1, 1]), add(&[1])]),
        Signature::group(vec![add(&[2, 2]), add(&[3, 3])]),
    ];
    let applied = Bench::new().apply(Signature::chord(header, xsum()));
    assert_eq!(applied.plan.chords[0].size, 3);
    let theirs = captured("canvas_chord_nested");
    assert_eq!(applied.plan.publish.len(), theirs.len());
    let first = &applied.plan.publish[0];
    assert_eq!(first.message.headers.group(), None, "the first of a chain is no member");
    let parsed = |message: &Message| shape(&Value::parse(&message.body).unwrap());
    assert_eq!(parsed(&first.message), parsed(&theirs[0]));
    let last = &body_of(first).embed.chain().unwrap()[0];
    assert_eq!(last.option("group_index").as_i64(), Some(0), "its last step is");
    assert_eq!(last.group_id(), Some(applied.plan.chords[0].group.as_str()));
    let indices: Vec<_> =
        applied.plan.publish[1..].iter().map(|one| one.message.headers.group_index()).collect();
    assert_eq!(indices, [Some(1), Some(2)]);
}

#[test]
fn a_group_in_a_chain_becomes_a_chord() {
    // Celery freezes group and body when it sends; the shapes differ only in such ids, and in the
    // header, which it wraps into a group signature.
    let group = Signature::group(vec![add(&[2]), add(&[3])]);
    let chain = Signature::chain(vec![add(&[1, 1]), group, xsum()]);
    let applied = Bench::new().apply(chain);
    assert_eq!((applied.plan.publish.len(), applied.plan.chords.len()), (1, 0));
    let ours = body_of(&applied.plan.publish[0]).embed.chain().unwrap();
    let theirs = Body::parse(&captured("canvas_chain_group_chain")[0].body).unwrap();
    let theirs = theirs.embed.chain().unwrap();
    for chain in [&ours, &theirs] {
        assert_eq!(chain.len(), 1);
        assert_eq!(chain[0].kind(), SignatureKind::Chord);
        let header = chain[0].chord_header().unwrap();
        let args: Vec<_> = header.iter().map(|one| one.args()[0].as_i64().unwrap()).collect();
        assert_eq!(args, [2, 3]);
        assert_eq!(chain[0].chord_body().unwrap().unwrap().task(), Some("protoapp.xsum"));
    }
    assert_eq!(applied.task_id.as_deref(), ours[0].task_id());
}

/// Celery's client waits for the id that it fixed in the body, whatever the chord's own id is.
#[test]
fn a_chord_from_celery_keeps_the_id_of_its_body() {
    let message = &captured("canvas_chain_group_chain")[0];
    let step = Body::parse(&message.body).unwrap().embed.chain().unwrap().remove(0);
    let fixed = step.chord_body().unwrap().unwrap().task_id().unwrap().to_owned();
    let members: Vec<String> = step
        .chord_header()
        .unwrap()
        .iter()
        .map(|member| member.task_id().unwrap().to_owned())
        .collect();
    let applied = Bench::new()
        .with(|sender| apply(step, &[Value::from(2)], Lineage::default(), sender))
        .unwrap();
    assert_eq!(applied.task_id.as_deref(), Some(fixed.as_str()));
    let sent: Vec<_> = applied.plan.publish.iter().map(id_of).collect();
    assert_eq!(sent, members);
    for outgoing in &applied.plan.publish {
        let body = body_of(outgoing).embed.chord().unwrap().unwrap();
        assert_eq!(body.task_id(), Some(fixed.as_str()));
    }
}

#[test]
fn the_id_of_the_whole_is_the_id_that_ends_last() {
    let fixed = |id: &str| xsum().with_option("task_id", id);
    let group = || Signature::group(vec![add(&[2]), add(&[3])]);
    for (what, signature, expected) in [
        ("task", add(&[1]), Some("id1")),
        ("fixed task", fixed("mine"), Some("mine")),
        ("chain", Signature::chain(vec![add(&[1]), fixed("end")]), Some("end")),
        (
            "chain with an id",
            Signature::chain(vec![add(&[1]), add(&[2])]).with_option("task_id", "whole"),
            Some("whole"),
        ),
        (
            "chain with an id around a fixed one",
            Signature::chain(vec![add(&[1]), fixed("end")]).with_option("task_id", "whole"),
            Some("end"),
        ),
        (
            "chord whose body is a chain with an id around a fixed one",
            Signature::chord(
                vec![add(&[1])],
                Signature::chain(vec![xsum(), fixed("end")]).with_option("task_id", "whole"),
            ),
            Some("end"),
        ),
        ("group", group(), None),
        ("chain that ends in a group", Signature::chain(vec![add(&[1]), group()]), None),
        ("chord", Signature::chord(vec![add(&[1])], fixed("body")), Some("body")),
        (
            "chord with an id",
            Signature::chord(vec![add(&[1])], xsum()).with_option("task_id", "whole"),
            Some("whole"),
        ),
        (
            "chord whose body is a chain",
            Signature::chord(vec![add(&[1])], Signature::chain(vec![xsum(), fixed("end")])),
            Some("end"),
        ),
        (
            "chain that ends in a chord",
            Signature::chain(vec![add(&[1]), Signature::chord(vec![add(&[2])], fixed("body"))]),
            Some("body"),
        ),
        ("chord without header", Signature::chord(Vec::new(), fixed("body")), Some("body")),
    ] {
        let applied = Bench::new().apply(signature);
        assert_eq!(applied.task_id.as_deref(), expected, "{what}");
        let Some(expected) = expected else { continue };
        assert!(ends(&applied.plan.publish[0]).iter().any(|id| id == expected), "{what}");
    }
}

/// The ids of everything that a message leads to when all goes well.
fn ends(outgoing: &Outgoing) -> Vec<String> {
    let embed = body_of(outgoing).embed;
    let mut ids = vec![id_of(outgoing).to_owned()];
    let mut steps = embed.chain().unwrap();
    steps.extend(embed.chord().unwrap());
    while let Some(step) = steps.pop() {
        if step.kind() == SignatureKind::Task {
            ids.extend(step.task_id().map(str::to_owned));
        }
        let rest = step.option("chain").as_array().unwrap_or_default();
        steps.extend(rest.iter().cloned().map(|one| Signature::from_value(one).unwrap()));
        match step.kind() {
            SignatureKind::Chord => steps.extend(step.chord_body().unwrap()),
            SignatureKind::Chain => steps.extend(step.tasks().unwrap()),
            _ => {}
        }
    }
    ids
}

#[test]
fn a_chain_carries_its_rest_backwards_with_fixed_ids() {
    let tasks = vec![add(&[1, 1]), add(&[2]), add(&[3]), add(&[4])];
    let nested = vec![
        tasks[0].clone(),
        Signature::chain(vec![tasks[1].clone(), Signature::chain(vec![tasks[2].clone()])]),
        tasks[3].clone(),
    ];
    for chain in [tasks, nested] {
        let applied = Bench::new().apply(Signature::chain(chain));
        let rest = body_of(&applied.plan.publish[0]).embed.chain().unwrap();
        let args: Vec<_> = rest.iter().map(|step| step.args()[0].as_i64().unwrap()).collect();
        assert_eq!(args, [4, 3, 2]);
        assert!(rest.iter().all(|step| step.task_id().is_some()));
        assert_eq!(applied.task_id.as_deref(), rest[0].task_id());
    }
}

#[test]
fn a_chord_in_a_chain_goes_on_with_the_chain() {
    let chord = Signature::chord(vec![add(&[2]), add(&[3])], xsum());
    let chain = Signature::chain(vec![chord, add(&[9])]).with_link_error(task("app.err", &[]));
    let applied = Bench::new().apply(chain);
    assert_eq!((applied.plan.publish.len(), applied.plan.chords[0].size), (2, 2));
    let body = body_of(&applied.plan.publish[0]).embed.chord().unwrap().unwrap();
    assert_eq!(body.task(), Some("protoapp.xsum"));
    assert_eq!(body.link_errors().unwrap().len(), 1);
    let rest = body.option("chain").as_array().unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].get("args").unwrap().to_string(), "[9]");
    let last = rest[0].get("options").unwrap().get("task_id").unwrap().as_str();
    assert_eq!(applied.task_id.as_deref(), last);
}

#[test]
fn a_chord_in_a_chords_header_counts_through_its_body() {
    let inner = Signature::chord(vec![add(&[1]), add(&[2])], xsum());
    let applied =
        Bench::new().apply(Signature::chord(vec![inner, add(&[3])], task("app.report", &[])));
    assert_eq!(applied.plan.publish.len(), 3);
    let sizes: Vec<_> = applied.plan.chords.iter().map(|chord| chord.size).collect();
    assert_eq!(sizes, [2, 2]);
    let (inner, outer) = (&applied.plan.chords[0].group, &applied.plan.chords[1].group);
    let headers = |n: usize| &applied.plan.publish[n].message.headers;
    assert_eq!((headers(0).group(), headers(2).group()), (Some(&**inner), Some(&**outer)));
    assert_eq!(headers(2).group_index(), Some(1));
    let body = body_of(&applied.plan.publish[0]).embed.chord().unwrap().unwrap();
    assert_eq!((body.task(), body.group_id()), (Some("protoapp.xsum"), Some(&**outer)));
    assert_eq!(body.option("group_index").as_i64(), Some(0));
    assert_eq!(body.option("chord").get("task").unwrap().as_str(), Some("app.report"));
}

#[test]
fn options_become_headers_properties_and_queue() {
    // covers: S3-17
    let signature = Signature::new("app.other")
        .with_option("queue", "normal")
        .with_option("priority", 5)
        .with_option("countdown", 90)
        .with_option("expires", 120)
        .with_option("time_limit", 30)
        .with_option("soft_time_limit", 20)
        .with_option("shadow", "other name")
        .with_option("reply_to", "r")
        .with_option("headers", Map::from([("x-tenant", 7)]))
        .with_option("stamped_headers", Value::from(vec![Value::from("run")]))
        .with_option("run", "42")
        .with_link(task("app.done", &[]))
        .with_link_error(task("app.err", &[]));
    let applied = Bench::new()
        .with(|sender| {
            let lineage =
                Lineage { root_id: Some("root"), parent_id: Some("parent"), ..Lineage::default() };
            apply(signature, &[Value::from(1)], lineage, sender)
        })
        .unwrap();
    let outgoing = &applied.plan.publish[0];
    assert_eq!(outgoing.queue.as_str(), "normal");
    let (headers, properties) = (&outgoing.message.headers, &outgoing.message.properties);
    assert_eq!(properties.priority(), Some(5));
    assert_eq!(properties.reply_to(), Some("r"));
    assert_eq!(properties.expiration().unwrap(), Some(Duration::from_mins(2)));
    assert_eq!(headers.eta().unwrap(), Some(clock::after(now(), Duration::from_secs(90))));
    assert_eq!(headers.expires().unwrap(), Some(clock::after(now(), Duration::from_mins(2))));
    let limits = headers.time_limits().unwrap();
    assert_eq!(limits.hard, Some(Duration::from_secs(30)));
    assert_eq!(limits.soft, Some(Duration::from_secs(20)));
    assert_eq!((headers.root_id(), headers.parent_id()), (Some("root"), Some("parent")));
    assert_eq!((headers.shadow(), headers.origin()), (Some("other name"), Some("gen1@vm")));
    assert_eq!(headers.get("x-tenant").and_then(Value::as_i64), Some(7));
    assert_eq!(headers.stamped_headers(), ["run"]);
    let body = body_of(outgoing);
    assert_eq!(body.args, [Value::from(1)]);
    assert_eq!(body.embed.callbacks().unwrap()[0].task(), Some("app.done"));
    assert_eq!(body.embed.errbacks().unwrap()[0].task(), Some("app.err"));
}

#[test]
fn arguments_of_before_come_first_unless_immutable() {
    for (signature, expected) in [
        (add(&[2]), "[1, 2]"),
        (add(&[2]).immutable(), "[2]"),
        (Signature::chain(vec![add(&[2]), add(&[3])]), "[1, 2]"),
        (Signature::group(vec![add(&[2])]), "[1, 2]"),
        (Signature::chord(vec![add(&[2])], xsum()), "[1, 2]"),
    ] {
        let applied = Bench::new()
            .with(|sender| apply(signature, &[Value::from(1)], Lineage::default(), sender))
            .unwrap();
        let args = Value::Array(body_of(&applied.plan.publish[0]).args);
        assert_eq!(args.to_string(), expected);
    }
}

#[test]
fn queues_are_chosen_by_option_then_route_then_default() {
    for (signature, queue) in [
        (task("app.report", &[]), "reports"),
        (task("app.report", &[]).with_option("queue", "mine"), "mine"),
        // Celery 5.7 send_task_message: a key alone does not leave the default exchange.
        (task("app.report", &[]).with_option("routing_key", "key"), "reports"),
        (
            task("app.other", &[]).with_option("exchange", "").with_option("routing_key", "key"),
            "key",
        ),
        (task("app.other", &[]), "celery"),
    ] {
        assert_eq!(Bench::new().apply(signature).plan.publish[0].queue.as_str(), queue);
    }
}

#[test]
fn a_malformed_signature_is_refused_by_the_name_of_its_field() {
    let sig = |json: &str| Signature::from_value(Value::parse(json.as_bytes()).unwrap()).unwrap();
    let mut deep = add(&[1]);
    for _ in 0..70 {
        deep = Signature::group(vec![Signature::chain(vec![deep]).with_option("x", 1)]);
    }
    for (signature, field) in [
        (sig("{}"), "task"),
        (sig(r#"{"task": 5}"#), "task"),
        (sig(r#"{"subtask_type": "chain", "kwargs": {"tasks": 5}}"#), "kwargs.tasks"),
        (sig(r#"{"subtask_type": "chain", "kwargs": {"tasks": []}}"#), "kwargs.tasks"),
        (sig(r#"{"subtask_type": "group", "kwargs": {"tasks": [null]}}"#), "kwargs.tasks[0]"),
        (sig(r#"{"subtask_type": "chord", "kwargs": {"header": []}}"#), "kwargs.body"),
        (sig(r#"{"subtask_type": "chord", "kwargs": {"body": 5}}"#), "kwargs.body"),
        (sig(r#"{"subtask_type": "chunks", "kwargs": {}}"#), "subtask_type"),
        (sig(r#"{"task": "t", "options": {"queue": "celeriac:x"}}"#), "options.queue"),
        (sig(r#"{"task": "t", "options": {"eta": "soon"}}"#), "options.eta"),
        (sig(r#"{"task": "t", "options": {"eta": {}}}"#), "options.eta"),
        (sig(r#"{"task": "t", "options": {"time_limit": "x"}}"#), "options.time_limit"),
        (sig(r#"{"task": "t", "options": {"soft_time_limit": -1}}"#), "options.soft_time_limit"),
        (sig(r#"{"task": "t", "options": {"link": 5}}"#), "options.link"),
        (deep, "tasks"),
    ] {
        let text = Value::Object(signature.clone().into_map()).to_string();
        let refused = Bench::new().with(|sender| apply(signature, &[], Lineage::default(), sender));
        let error = refused.expect_err(&text);
        assert_eq!(error.field, field, "{error}: {}", &text[..text.len().min(200)]);
    }
}

/// Celery before 5.7 leaves a chain as the body, with `task_id: null`; its workers, and those of 5.7, fail
/// such a body without its steps, and who waits for the last one waits for ever.
#[test]
fn a_chain_that_is_a_body_becomes_its_first_step_and_the_chain_of_that() {
    let steps =
        || vec![xsum().with_option("task_id", "one"), add(&[1]).with_option("task_id", "two")];
    let bare = Signature::chain(steps()).with_option("task_id", Value::Null);
    let asked = Signature::chain(steps())
        .with_link_error(task("app.err", &[]))
        .with_option("queue", "side");
    for (body, errbacks, queue) in [(bare, 0, Value::Null), (asked, 1, Value::from("side"))] {
        let chord = Signature::chord(vec![add(&[1, 1])], body);
        let applied = Bench::new().apply(chord.with_option("chain", vec![Value::from(xsum())]));
        let body = body_of(&applied.plan.publish[0]).embed.chord().unwrap().unwrap();
        assert_eq!((body.task(), body.task_id()), (Some("protoapp.xsum"), Some("one")));
        assert_eq!((body.link_errors().unwrap().len(), body.option("queue")), (errbacks, &queue));
        let chain = body.option("chain").as_array().unwrap();
        let rest: Vec<_> =
            chain.iter().map(|step| Signature::from_value(step.clone()).unwrap()).collect();
        assert_eq!(rest.len(), 2, "the rest of the outer chain comes last, so it is first");
        assert_eq!((rest[0].task(), rest[1].task_id()), (Some("protoapp.xsum"), Some("two")));
        assert_eq!(rest[1].link_errors().unwrap().len(), errbacks);
    }
}

/// A part for each of the group's members would complete the chord too early, or never.
#[test]
fn a_member_that_ends_in_a_group_is_one_part() {
    let end = || Signature::group(vec![add(&[10]), add(&[20])]);
    let chain = Signature::chain(vec![add(&[1, 1]), end()]);
    let inner = Signature::chord(vec![add(&[1, 1]), add(&[2, 2])], end());
    for member in [chain, inner] {
        let applied = Bench::new().apply(Signature::chord(vec![member, add(&[3, 3])], xsum()));
        let size = applied.plan.chords.last().unwrap().size;
        assert_eq!(size, 2);
        let text: String =
            applied.plan.publish.iter().map(|one| body_of(one).to_value().to_string()).collect();
        assert!(text.contains(ACCUMULATE), "{text}");
    }
}

/// Celery counts each member of the group that ends a chain in a header, and has written so.
#[test]
fn the_group_that_ends_a_chain_joins_the_chord_of_that_chain() {
    let end = Signature::group(vec![add(&[1, 1]), add(&[2, 2])])
        .with_option("task_id", "own")
        .with_option("group_id", "outer")
        .with_option("chord", Value::from(xsum()));
    let applied = Bench::new().apply(end);
    for one in &applied.plan.publish {
        assert_eq!(one.message.headers.group(), Some("outer"));
        assert!(body_of(one).embed.chord().unwrap().is_some());
    }
    assert!(applied.plan.chords.is_empty(), "its sender has said how many parts there are");
}
