//! What becomes of a message before it runs.

use crate::{delivery, registry};
use celeriac_core::store::Delivery;
use celeriac_runtime::TaskPolicy;
use celeriac_runtime::worker::decide::{Decision, Refusal, decide};
use celeriac_runtime::worker::orders::Orders;
use celeriac_wire::{TimeLimits, Value};
use jiff::Timestamp;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// The decision in a word: `run`, `revoked`, `expired`, or the reason of the dead letter.
fn word(change: impl FnOnce(&mut Delivery)) -> String {
    let mut delivery = delivery(1);
    change(&mut delivery);
    match decide(&mut delivery, &registry(TaskPolicy::default()), &Orders::default(), now()) {
        Decision::Run { .. } => "run".to_owned(),
        Decision::Unknown(_) => "unknown".to_owned(),
        Decision::Refuse(_, Refusal::Revoked) => "revoked".to_owned(),
        Decision::Refuse(_, Refusal::Expired) => "expired".to_owned(),
        Decision::Refuse(_, Refusal::Poison) => "poison".to_owned(),
        Decision::Refuse(_, Refusal::Lost) => "lost".to_owned(),
        Decision::Refuse(_, Refusal::Early) => "early".to_owned(),
        Decision::Refuse(_, Refusal::Dead(reason, failure)) => {
            assert!(failure.permanent, "no retry mends a message");
            reason.to_string()
        }
    }
}

#[test]
fn a_message_is_decoded_then_looked_at_in_celerys_order() {
    let past = now() - SECOND;
    assert_eq!(word(|_| ()), "run");
    assert_eq!(word(|one| one.revoked = true), "revoked");
    assert_eq!(
        word(|one| {
            one.message.headers.set_expires(Some(past));
        }),
        "expired"
    );
    assert_eq!(
        word(|one| {
            one.message.headers.set_expires(Some(now()));
        }),
        "run",
        "not yet"
    );
    assert_eq!(
        word(|one| {
            one.message.headers.set_task("t.other");
        }),
        "unknown"
    );
    assert_eq!(word(|one| one.message.body = "{".into()), "undecodable");
    assert_eq!(word(|one| one.message.headers = celeriac_wire::Headers::default()), "undecodable");
    let pickle =
        |one: &mut Delivery| one.message.content_type = "application/x-python-serialize".into();
    assert_eq!(word(pickle), "disallowed");
    assert_eq!(
        word(|one| {
            one.message.headers.set_compression(Some("application/x-snappy"));
        }),
        "disallowed"
    );
    assert_eq!(
        word(|one| {
            one.message.headers.set_compression(Some("application/x-gzip"));
        }),
        "undecodable",
        "it is not compressed"
    );
    // What was revoked is told so even if it is late or unknown; what cannot be read never is.
    assert_eq!(
        word(|one| {
            one.revoked = true;
            one.message.headers.set_expires(Some(past)).set_task("t.other");
        }),
        "revoked"
    );
    assert_eq!(
        word(|one| {
            one.revoked = true;
            one.message.body = "{".into();
        }),
        "undecodable"
    );
}

/// Older protocols have in their body what the store looks for in headers.
#[test]
fn protocol_1_is_looked_at_like_protocol_2() {
    let old = |fields: &str| {
        let body = format!(r#"{{"task": "t.ok", "id": "old", "args": []{fields}}}"#);
        let mut delivery = delivery(1);
        delivery.message.headers = celeriac_wire::Headers::default();
        delivery.message.body = body.into();
        let decision =
            decide(&mut delivery, &registry(TaskPolicy::default()), &Orders::default(), now());
        (delivery, decision)
    };
    let name = delivery(1).message.headers.task().unwrap().to_owned();
    let known = format!(r#", "task": "{name}", "retries": 2"#);
    let (delivery, decision) = old(&known);
    assert!(matches!(decision, Decision::Run { .. }), "{decision:?}");
    let headers = &delivery.message.headers;
    assert_eq!((headers.task(), headers.id()), (Some(name.as_str()), Some("old")));
    assert_eq!((headers.retries(), delivery.message.is_protocol_2()), (2, true));
    for (fields, expected) in [
        (r#", "eta": "2026-11-21T13:00:00", "utc": true"#, Refusal::Early),
        (r#", "expires": "2026-11-21T11:00:00+00:00""#, Refusal::Expired),
    ] {
        let (delivery, decision) = old(&format!("{known}{fields}"));
        assert!(matches!(&decision, Decision::Refuse(_, one) if *one == expected), "{decision:?}");
        assert_eq!(delivery.message.headers.id(), Some("old"));
    }
    let (_, decision) = old(r#", "task": 5"#);
    let Decision::Refuse(_, Refusal::Dead(reason, failure)) = decision else {
        panic!("{decision:?}")
    };
    assert!(failure.exception.summary().contains("task"), "{failure:?}");
    assert_eq!(reason.to_string(), "undecodable");
}

/// Running without the limit that the caller asked for would be worse than not running.
#[test]
fn a_limit_that_cannot_be_understood_is_a_dead_letter() {
    let bad = |text: &str| {
        word(|one| {
            one.message.headers.insert("timelimit", Value::parse(text.as_bytes()).unwrap());
        })
    };
    for text in [r#""10""#, r#"["soon", null]"#, "[null, -1]", "[1]", "[1, 2, 3]", "[NaN, null]"] {
        assert_eq!(bad(text), "limit-not-enforceable", "{text}");
    }
    for text in ["null", "[]", "[null, null]", "[10, 5]", "[0.5, null]"] {
        assert_eq!(bad(text), "run", "{text}");
    }
}

#[test]
fn limits_come_from_the_message_then_from_the_task() {
    let policy = TaskPolicy {
        soft_time_limit: Some(5 * SECOND),
        time_limit: Some(6 * SECOND),
        ..TaskPolicy::default()
    };
    let limits = |soft: Option<Duration>, hard: Option<Duration>| {
        let mut delivery = delivery(1);
        delivery.message.headers.set_time_limits(TimeLimits { soft, hard });
        match decide(&mut delivery, &registry(policy.clone()), &Orders::default(), now()) {
            Decision::Run { soft, hard, .. } => (soft, hard),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(limits(None, None), (Some(5 * SECOND), Some(6 * SECOND)));
    assert_eq!(limits(Some(SECOND), None), (Some(SECOND), Some(6 * SECOND)));
    assert_eq!(limits(None, Some(2 * SECOND)), (Some(5 * SECOND), Some(2 * SECOND)));
    assert_eq!(limits(Some(Duration::ZERO), Some(Duration::ZERO)), (None, None), "0 is none");
}
