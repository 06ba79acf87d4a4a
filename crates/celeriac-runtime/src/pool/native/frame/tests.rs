//! Frames survive the way, in pieces and in bulk, and stay within their bounds.

use super::*;
use celeriac_wire::Body;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

fn there_and_back(outcome: Outcome) -> Outcome {
    let frame = FromChild::Done { run: 7, outcome: outcome.into(), children: vec![Value::Null] };
    let bytes = encode(&frame, &[], MAX).unwrap();
    let mut buffer = BytesMut::from(bytes.as_slice());
    let (read, raw) = decode::<FromChild>(&mut buffer, MAX).unwrap().unwrap();
    assert!(raw.is_empty() && buffer.is_empty());
    let FromChild::Done { run: 7, outcome, children } = read else { panic!("{read:?}") };
    assert_eq!(children, [Value::Null]);
    outcome.into()
}

fn failure(permanent: bool, reason: DeadReason) -> Failure {
    let arguments = vec![Value::from("é\u{1}\n"), Value::Null, Value::from(1.5)];
    Failure {
        exception: ExceptionInfo::new("app.errors", "Custom.Inner", arguments),
        traceback: permanent.then(|| "line 1\nline 2".to_owned()),
        permanent,
        reason,
    }
}

#[test]
fn every_outcome_survives_the_way() {
    let number = Value::parse(b"123456789012345678901234567890").unwrap();
    let mut outcomes = vec![
        Outcome::Success(Value::Null),
        Outcome::Success(number),
        Outcome::Success(Value::parse(br#"{"b": [1, 2.0, -0.0, "x"], "a": {}}"#).unwrap()),
        Outcome::Success(Value::parse(b"[NaN, Infinity]").unwrap()),
        Outcome::Retry { delay: None, failure: failure(false, DeadReason::Failed) },
        Outcome::Retry {
            delay: Some(Duration::new(3, 7)),
            failure: failure(true, DeadReason::TimedOut),
        },
        Outcome::Reject { requeue: true, reason: "later".to_owned() },
        Outcome::Reject { requeue: false, reason: String::new() },
        Outcome::Snooze { delay: Duration::from_millis(1500) },
        Outcome::Ignore,
        Outcome::Cancelled,
        Outcome::Interrupted,
        Outcome::Returned { reason: "not now".to_owned(), begun: true },
    ];
    for reason in DeadReason::ALL {
        outcomes.extend([false, true].map(|fate| Outcome::Failure(failure(fate, reason))));
    }
    for outcome in outcomes {
        // NaN is not equal to itself; its text is.
        let text = format!("{outcome:?}");
        assert_eq!(format!("{:?}", there_and_back(outcome)), text);
    }
}

#[test]
fn a_delivery_arrives_as_it_was() {
    let mut message = Message::new("t.add", "id", Body::default().to_bytes());
    message.headers.insert("x-unknown", Value::parse(b"{\"deep\": [null]}").unwrap());
    message.properties.set_priority(3);
    message.content_encoding = "x-odd".to_owned();
    let now: Timestamp = "2026-11-21T12:00:00.123456789Z".parse().unwrap();
    let delivery = Delivery {
        lease: Lease { row: 1, token: i64::MIN },
        queue: QueueName::parse("reports").unwrap(),
        message,
        enqueued_at: now,
        redelivered: true,
        suspicion: Suspicion { seen: 2, counted: 1 },
        history: vec![Attempt {
            retries: 1,
            worker: "celery@a".to_owned(),
            started_at: None,
            ended_at: now,
            outcome: "child-lost".to_owned(),
            detail: "é".to_owned(),
        }],
        revoked: false,
        acknowledged: false,
    };
    let limits = [Some(Duration::from_millis(1)), None];
    let run = Run::new(9, &delivery, now, limits);
    let frame = ToChild::Run(Box::new(run));
    let bytes = encode(&frame, &delivery.message.body, MAX).unwrap();
    // A byte at a time: nothing is read before it is whole.
    let mut buffer = BytesMut::new();
    let (last, first) = bytes.split_last().unwrap();
    for byte in first {
        buffer.extend_from_slice(&[*byte]);
        assert_eq!(decode::<ToChild>(&mut buffer, MAX).unwrap(), None);
    }
    buffer.extend_from_slice(&[*last]);
    let (read, body) = decode::<ToChild>(&mut buffer, MAX).unwrap().unwrap();
    let ToChild::Run(run) = read else { panic!("{read:?}") };
    assert_eq!((run.number, run.soft, run.hard), (9, limits[0], limits[1]));
    assert_eq!(run.into_delivery(body).unwrap(), delivery);
}

#[test]
fn frames_beyond_their_bound_are_refused_on_both_sides() {
    let text = encode(&ToChild::Quit, &[0; 100], 99).unwrap_err().to_string();
    assert!(text.contains("100 bytes"), "{text}");
    let bytes = encode(&ToChild::Quit, &[0; 100], 100).unwrap();
    assert!(decode::<ToChild>(&mut BytesMut::from(bytes.as_slice()), 99).is_err());
    let huge = u32::MAX.to_be_bytes();
    assert!(decode::<ToChild>(&mut BytesMut::from(&huge[..]), MAX).is_err());
}

proptest! {
    #[test]
    fn many_frames_in_one_read_come_out_in_order(
        texts in proptest::collection::vec(".{0,40}", 1..8),
        raw in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut buffer = BytesMut::new();
        for text in &texts {
            let frame = FromChild::Failed { text: text.clone() };
            buffer.extend_from_slice(&encode(&frame, &raw, MAX).unwrap());
        }
        for text in &texts {
            let (read, bytes) = decode::<FromChild>(&mut buffer, MAX).unwrap().unwrap();
            prop_assert_eq!(read, FromChild::Failed { text: text.clone() });
            prop_assert_eq!(&bytes[..], &raw[..]);
        }
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(bytes.as_slice());
        while let Ok(Some(_)) = decode::<FromChild>(&mut buffer, 150) {}
    }
}
