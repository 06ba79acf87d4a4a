//! Nothing that a message may carry makes the unrolling panic.

use super::*;
use proptest::prelude::*;

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9T:+-]{0,12}".prop_map(|text| Value::from(text.as_str())),
    ]
}

/// An object with the names that signatures use, and values of every kind below them.
fn signature_like() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(6, 60, 5, |inner| {
        let name = prop::sample::select(vec![
            "task",
            "args",
            "kwargs",
            "options",
            "subtask_type",
            "immutable",
            "tasks",
            "header",
            "body",
            "link",
            "link_error",
            "chain",
            "chord",
            "task_id",
            "group_id",
            "group_index",
            "eta",
            "countdown",
            "expires",
            "time_limit",
            "priority",
            "queue",
            "headers",
            "stamped_headers",
            "retries",
            "it",
            "n",
        ]);
        let kind = prop::sample::select(vec!["chain", "group", "chord", "xmap", "chunks", "task"]);
        let object = prop::collection::vec((name, inner.clone()), 0..6).prop_map(|pairs| {
            let mut map = Map::new();
            for (name, value) in pairs {
                map.insert(name, value);
            }
            Value::Object(map)
        });
        let composite = (kind, prop::collection::vec(inner.clone(), 0..4), inner.clone()).prop_map(
            |(kind, members, other)| {
                let mut signature = Signature::new("app.any");
                signature.insert("subtask_type", kind);
                signature.kwargs_mut().insert("tasks", members.clone());
                signature.kwargs_mut().insert("header", members);
                signature.kwargs_mut().insert("body", other.clone());
                signature.options_mut().insert("chain", Value::Array(vec![other]));
                Value::from(signature)
            },
        );
        prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Value::Array), object, composite]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn apply_and_what_follows_never_panic(value in signature_like(), other in signature_like()) {
        let mut bench = Bench::new();
        if let Ok(signature) = Signature::from_value(value.clone()) {
            let applied = bench.with(|sender| {
                apply(signature, std::slice::from_ref(&other), Lineage::default(), sender)
            });
            if let Ok(applied) = applied {
                for outgoing in &applied.plan.publish {
                    prop_assert!(Body::parse(&outgoing.message.body).is_ok());
                    prop_assert!(outgoing.message.headers.task().is_some());
                }
                let members = applied.plan.chords.iter().map(|chord| chord.size as usize);
                prop_assert!(members.sum::<usize>() <= applied.plan.publish.len() * 64);
            }
        }
        let mut embed = Embed::new();
        embed.insert("callbacks", other.clone());
        embed.insert("errbacks", value.clone());
        embed.insert("chain", Value::Array(vec![value.clone(), other]));
        embed.insert("chord", value.clone());
        let mut headers = Headers::new("app.any", "a");
        headers.set_group(Some("g"));
        let exception = ExceptionInfo::new("m", "E", vec![value.clone()]);
        bench.with(|sender| {
            let _plan = after_success(&headers, &embed, &value, sender);
            let plan =
                after_failure(&headers, &embed, &State::Failure, &exception, &recorder(), sender);
            let done = ChordDone { parts: plan.parts, layout: None };
            let _plan = after_chord(&done, &recorder(), sender);
        });
    }
}
