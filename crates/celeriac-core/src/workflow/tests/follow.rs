//! What follows success, failure, revocation, and a complete chord.

use super::*;

fn member(embed: &mut Embed) -> Headers {
    embed.set_chord(Some(xsum().with_option("task_id", "body")));
    let mut headers = Headers::new("app.member", "m");
    headers.set_root_id("root").set_group(Some("g")).set_group_index(Some(3));
    headers
}

fn plain() -> Headers {
    let mut headers = Headers::new("app.first", "first");
    headers.set_root_id("root");
    headers
}

fn exception() -> ExceptionInfo {
    ExceptionInfo::new("builtins", "ValueError", vec![Value::from("no rows")])
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.publish.iter().map(|one| one.message.headers.task().unwrap()).collect()
}

fn success(headers: &Headers, embed: &Embed) -> Result<Plan, FieldError> {
    Ok(followed(headers, embed)?.plan)
}

fn followed(headers: &Headers, embed: &Embed) -> Result<Followed, FieldError> {
    Bench::new().with(|sender| after_success(headers, embed, &Value::from(7), sender))
}

fn failure(headers: &Headers, embed: &Embed, state: &State) -> Plan {
    Bench::new()
        .with(|sender| after_failure(headers, embed, state, &exception(), &recorder(), sender))
}

#[test]
fn success_sends_callbacks_and_the_next_step_with_the_value() {
    let mut embed = Embed::new();
    embed
        .set_callbacks(vec![task("app.one", &[]), task("app.two", &[5]).immutable()])
        .set_errbacks(vec![task("app.err", &[])])
        .set_chain(vec![
            task("app.last", &[]).with_option("task_id", "last"),
            task("app.next", &[1]).with_option("task_id", "next"),
        ]);
    let plan = success(&plain(), &embed).unwrap();
    assert_eq!(names(&plan), ["app.one", "app.two", "app.next"]);
    let args: Vec<String> =
        plan.publish.iter().map(|one| Value::Array(body_of(one).args).to_string()).collect();
    assert_eq!(args, ["[7]", "[5]", "[7, 1]"]);
    for outgoing in &plan.publish {
        let headers = &outgoing.message.headers;
        assert_eq!((headers.root_id(), headers.parent_id()), (Some("root"), Some("first")));
    }
    let next = &plan.publish[2];
    assert_eq!(id_of(next), "next");
    let rest = body_of(next).embed.chain().unwrap();
    assert_eq!(rest.iter().map(Signature::task_id).collect::<Vec<_>>(), [Some("last")]);
    assert!(plan.results.is_empty() && plan.parts.is_empty() && plan.chords.is_empty());
}

#[test]
fn success_of_a_member_is_a_part() {
    let mut embed = Embed::new();
    let headers = member(&mut embed);
    let plan = success(&headers, &embed).unwrap();
    assert_eq!(plan.parts.len(), 1);
    let part = &plan.parts[0];
    assert_eq!((part.group.as_str(), part.index, part.task_id.as_str()), ("g", 3, "m"));
    assert_eq!((&part.state, &part.result), (&State::Success, &Value::from(7)));
    assert_eq!(part.body.task_id(), Some("body"));
    assert!(plan.publish.is_empty());
}

#[test]
fn a_broken_embed_is_an_error_after_success_and_none_after_failure() {
    for (name, field) in [("callbacks", "callbacks"), ("chain", "chain"), ("chord", "chord")] {
        let mut embed = Embed::new();
        embed.insert(name, 5);
        assert_eq!(success(&plain(), &embed).unwrap_err().field, field);
        assert!(failure(&plain(), &embed, &State::Failure).is_empty(), "{name}");
    }
    let mut embed = Embed::new();
    embed.set_errbacks(vec![Signature::default(), task("app.err", &[])]);
    let plan = failure(&plain(), &embed, &State::Failure);
    assert_eq!(names(&plan), ["app.err"], "one bad errback does not stop the other");
}

#[test]
fn failure_marks_the_rest_of_the_chain_and_calls_errbacks() {
    let chord = Signature::chord(vec![add(&[1])], xsum().with_option("task_id", "body"));
    let mut embed = Embed::new();
    embed
        .set_callbacks(vec![task("app.one", &[])])
        .set_errbacks(vec![task("app.err", &[9])])
        .set_chain(vec![
            chord.with_option("task_id", "chord"),
            task("app.next", &[]).with_option("task_id", "next"),
        ]);
    for (state, errbacks) in [(State::Failure, &["app.err"][..]), (State::Revoked, &[])] {
        let plan = failure(&plain(), &embed, &state);
        assert_eq!(names(&plan), errbacks, "{state:?}");
        let mut failed: Vec<_> =
            plan.results.iter().map(|record| record.meta.task_id().unwrap()).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["body", "chord", "next"], "nobody waits for ever");
        assert!(plan.results.iter().all(|record| record.meta.state() == state));
        let cause = plan.results[0].meta.exception().unwrap().unwrap();
        assert_eq!(cause, exception());
        if state == State::Failure {
            assert_eq!(body_of(&plan.publish[0]).args, [Value::from("first"), Value::from(9)]);
            assert_eq!(plan.publish[0].message.headers.parent_id(), Some("first"));
        }
    }
}

#[test]
fn failure_of_a_member_and_of_a_chain_in_a_header_is_a_part() {
    let mut embed = Embed::new();
    let headers = member(&mut embed);
    for state in [State::Failure, State::Revoked] {
        let plan = failure(&headers, &embed, &state);
        assert_eq!(plan.parts.len(), 1);
        assert_eq!((plan.parts[0].index, &plan.parts[0].state), (3, &state));
        assert_eq!(plan.parts[0].result, exception().to_value());
    }
    // The first step of a chain that is a member: its last step carries the part.
    let last = task("app.last", &[])
        .with_option("task_id", "last")
        .with_option("group_id", "g")
        .with_option("group_index", 2)
        .with_option("chord", Value::from(xsum()));
    let mut embed = Embed::new();
    embed.set_chain(vec![last]);
    let plan = failure(&plain(), &embed, &State::Failure);
    assert_eq!(plan.parts.len(), 1);
    let part = &plan.parts[0];
    assert_eq!((part.group.as_str(), part.index, part.task_id.as_str()), ("g", 2, "last"));
}

fn complete(states: &[State], body: &Signature) -> ChordDone {
    let parts = (0..).zip(states).map(|(index, state)| ChordPart {
        group: "g".to_owned(),
        index,
        task_id: format!("m{index}"),
        state: state.clone(),
        result: match state {
            State::Success => Value::from(index * 10),
            _ => exception().to_value(),
        },
        body: body.clone(),
    });
    ChordDone { parts: parts.collect(), layout: None }
}

fn after(done: &ChordDone) -> Plan {
    Bench::new().with(|sender| after_chord(done, &recorder(), sender))
}

#[test]
fn a_complete_chord_sends_its_body_with_the_results_in_order() {
    let body = xsum().with_option("task_id", "body");
    let plan = after(&complete(&[State::Success, State::Success, State::Success], &body));
    assert_eq!((plan.publish.len(), plan.results.len()), (1, 0));
    assert_eq!(id_of(&plan.publish[0]), "body");
    let args = Value::Array(body_of(&plan.publish[0]).args);
    assert_eq!(args.to_string(), "[[0, 10, 20]]");
    assert!(after(&ChordDone { parts: Vec::new(), layout: None }).is_empty());
}

#[test]
fn a_chord_with_a_failed_part_fails_its_body_and_what_hangs_on_it() {
    let outer = xsum().with_option("task_id", "outer");
    let body = xsum()
        .with_option("task_id", "body")
        .with_option("group_id", "og")
        .with_option("group_index", 1)
        .with_option("chord", Value::from(outer))
        .with_option(
            "chain",
            Value::from(vec![task("app.next", &[]).with_option("task_id", "next")]),
        )
        .with_link_error(task("app.err", &[]));
    for state in [State::Failure, State::Revoked] {
        let plan = after(&complete(&[State::Success, state], &body));
        assert_eq!(names(&plan), ["app.err"]);
        assert_eq!(body_of(&plan.publish[0]).args, [Value::from("body")]);
        let failed: Vec<_> =
            plan.results.iter().map(|record| record.meta.task_id().unwrap()).collect();
        assert_eq!(failed, ["body", "next"]);
        let cause = plan.results[0].meta.exception().unwrap().unwrap();
        let text = cause.summary();
        assert!(text.contains("ChordError") && text.contains("Dependency m1 raised"), "{text}");
        assert!(text.contains("no rows"), "{text}");
        assert_eq!(plan.parts.len(), 1, "the outer chord counts it");
        let part = &plan.parts[0];
        assert_eq!((part.group.as_str(), part.index, &part.state), ("og", 1, &State::Failure));
    }
}

#[test]
fn several_callbacks_are_one_group_and_so_are_errbacks() {
    let two = || vec![task("app.one", &[]), task("app.two", &[])];
    let mut embed = Embed::new();
    embed.set_callbacks(two()).set_errbacks(two());
    let followed = followed(&plain(), &embed).unwrap();
    let failed = failure(&plain(), &embed, &State::Failure);
    for plan in [&followed.plan, &failed] {
        let places: Vec<_> =
            plan.publish.iter().map(|one| one.message.headers.group_index()).collect();
        assert_eq!(places, [Some(0), Some(1)]);
        let group = |at: usize| plan.publish[at].message.headers.group();
        assert!(group(0).is_some() && group(0) == group(1));
    }
    assert_eq!(followed.children.len(), 1, "a group is one child");
}

#[test]
fn the_next_step_in_a_header_is_no_group() {
    let last = task("app.last", &[])
        .with_option("task_id", "last")
        .with_option("group_id", "g")
        .with_option("group_index", 2);
    let mut embed = Embed::new();
    embed.set_chain(vec![last]);
    let followed = followed(&plain(), &embed).unwrap();
    assert_eq!(followed.children, [crate::trail::child("last")]);
}

#[test]
fn the_body_belongs_to_the_workflow_of_the_member_that_ended() {
    for body in [xsum(), Signature::group(vec![xsum()]), Signature::chord(vec![xsum()], xsum())] {
        let mut embed = Embed::new();
        let headers = member(&mut embed);
        embed.set_chord(Some(body));
        let parts = success(&headers, &embed).unwrap().parts;
        let plan = after(&ChordDone { parts, layout: None });
        assert_eq!(plan.publish[0].message.headers.root_id(), Some("root"));
    }
}

#[test]
fn errbacks_of_a_body_that_never_ran_are_its_children() {
    let body = xsum()
        .with_option("task_id", "body")
        .with_option("root_id", "root")
        .with_link_error(task("app.err", &[]));
    let plan = after(&complete(&[State::Failure], &body));
    let errback = &plan.publish[0].message.headers;
    assert_eq!((errback.root_id(), errback.parent_id()), (Some("body"), Some("body")));
    let text = Value::parse(&plan.results[0].meta.to_bytes()).unwrap();
    let children = text.get("children").and_then(Value::as_array).unwrap().len();
    assert_eq!(children, 1);
}

#[test]
fn a_group_that_is_a_body_fails_with_what_has_failed() {
    let one = task("app.one", &[]).with_option("task_id", "one");
    let two = one.clone().with_option("task_id", "two").with_link_error(task("app.err", &[]));
    let plan =
        after(&complete(&[State::Success, State::Failure], &Signature::group(vec![one, two])));
    let failed: Vec<_> = plan.results.iter().map(|one| one.meta.task_id().unwrap()).collect();
    assert_eq!(failed, ["one", "two"]);
    for record in &plan.results {
        assert_eq!(record.meta.exception().unwrap().unwrap(), exception());
    }
    assert_eq!(names(&plan), ["app.err"]);
    assert_eq!(body_of(&plan.publish[0]).args, [Value::from("two")]);
}

/// The result tuple of a task.
fn leaf(id: &str) -> Value {
    crate::trail::child(id)
}

#[test]
fn results_nest_as_the_sender_has_saved_it() {
    let group = |members: Vec<Value>| {
        Value::from(vec![Value::from(vec![Value::from("g"), Value::Null]), Value::from(members)])
    };
    let inner = group(vec![leaf("m0"), leaf("m2")]);
    for (layout, results) in [
        (group(vec![inner.clone(), leaf("m1")]), "[[[0, 20], 10]]"),
        (group(vec![leaf("m1"), inner]), "[[10, [0, 20]]]"),
        // A member that was added later is not in it; one of it that is not there loses nothing.
        (group(vec![leaf("m0"), leaf("m1")]), "[[0, 10, 20]]"),
        (group(vec![leaf("m0"), leaf("m1"), leaf("m9")]), "[[0, 10, 20]]"),
        (Value::from("nonsense"), "[[0, 10, 20]]"),
    ] {
        let done = complete(&[State::Success, State::Success, State::Success], &xsum());
        let plan = after(&ChordDone { layout: Some(layout), ..done });
        assert_eq!(Value::Array(body_of(&plan.publish[0]).args).to_string(), results);
    }
}

#[test]
fn a_header_may_name_more_members_than_have_ended() {
    let group = |members: Vec<Value>| {
        Value::from(vec![Value::from(vec![Value::from("g"), Value::Null]), Value::from(members)])
    };
    let layout = group(vec![leaf("m0"), group(vec![leaf("m1"), leaf("m2")])]);
    for (ended, named) in [(1, Some(3)), (2, Some(3)), (3, None), (4, None)] {
        let done = complete(&vec![State::Success; ended], &xsum());
        assert_eq!(members_named(&done), None, "nothing is saved");
        let done = ChordDone { layout: Some(layout.clone()), ..done };
        assert_eq!(members_named(&done), named, "{ended}");
    }
    for nonsense in [Value::from("nonsense"), Value::Array(Vec::new()), group(vec![Value::Null])] {
        let done = ChordDone { layout: Some(nonsense), ..complete(&[State::Success], &xsum()) };
        assert_eq!(members_named(&done), None);
    }
}

#[test]
fn a_body_that_cannot_be_sent_fails() {
    let body = xsum().with_option("task_id", "body").with_option("eta", "soon");
    let plan = after(&complete(&[State::Success], &body));
    assert!(plan.publish.is_empty());
    assert_eq!(plan.results[0].meta.task_id(), Some("body"));
    let text = plan.results[0].meta.exception().unwrap().unwrap().summary();
    assert!(text.contains("options.eta"), "{text}");
}
