//! Frames survive the way in pieces, and what breaks the rules is named.

use super::*;
use proptest::prelude::*;

/// What a child would send.
fn from_child(op: u8, tag: u64, meta: &[u8], body: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = datagrams(Order::Run, tag, meta, body).unwrap();
    for piece in &mut pieces {
        piece[0] = op;
    }
    pieces
}

fn read(pieces: &[Vec<u8>]) -> Result<Option<FromChild>, FrameError> {
    let mut assembler = Assembler::default();
    let mut last = Ok(None);
    for piece in pieces {
        assert!(piece.len() <= DATAGRAM_BYTES_MAX);
        last = assembler.take(piece);
    }
    last
}

#[test]
fn a_small_frame_is_one_datagram() {
    let pieces = datagrams(Order::Run, 7, b"{}", b"body").unwrap();
    assert_eq!(pieces, [b"R\x00\x07\0\0\0\0\0\0\0\x02\0\0\0{}body".to_vec()]);
    let quit = datagrams(Order::Quit, 0, b"", b"").unwrap();
    assert_eq!(quit, [b"X\x00\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()]);
}

proptest! {
    #[test]
    fn payloads_of_every_size_arrive(size in 0_usize..400_000, tag in any::<u64>()) {
        let value = Value::from("x".repeat(size));
        let meta = ResultMeta::new("id", &celeriac_wire::State::Success, value);
        let pieces = from_child(b'S', tag, br#"{"id": "id"}"#, &meta.to_bytes());
        prop_assert_eq!(pieces.len(), (meta.to_bytes().len() + 12).div_ceil(PIECE_BYTES_MAX));
        prop_assert_eq!(read(&pieces), Ok(Some(FromChild::Store { tag, meta })));
    }

    #[test]
    fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _frame_or_error = Assembler::default().take(&bytes);
    }
}

#[test]
fn the_end_of_a_run_is_read() {
    let done = |json: &str| match read(&from_child(b'D', 3, json.as_bytes(), b"")).unwrap() {
        Some(FromChild::Done { tag: 3, done }) => done.into_traced(None),
        other => panic!("{other:?}"),
    };
    let traced =
        done(r#"{"state": "success", "disposition": "ack", "runtime": 0.1, "result": "5"}"#);
    let traced = traced.unwrap();
    assert_eq!(traced.state, TracedState::Succeeded(Some("5".to_owned())));
    assert_eq!(traced.disposition, Disposition::Ack);
    let json = r#"{"state": "failure", "disposition": "reject", "traceback": "Traceback …",
        "exception": {"type": "NotRegistered", "module": "celery.exceptions", "message": ["t.x"]}}"#;
    let TracedState::Failed(failure) = done(json).unwrap().state else { panic!("it failed") };
    assert_eq!(failure.reason, DeadReason::UnknownTask);
    assert_eq!(failure.traceback.as_deref(), Some("Traceback …"));
    let json = r#"{"state": "rejected", "disposition": "reject",
        "events": [["task-failed", {"exception": "E()"}], ["task-rejected", {"requeue": false}]]}"#;
    let events = done(json).unwrap().events.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["task-failed", "task-rejected"]);
    assert_eq!(events[0].fields, Map::from([("exception", "E()")]));
    assert!(done(r#"{"state": "won", "disposition": "ack"}"#).is_err());
    assert!(done(r#"{"state": "success", "disposition": "keep"}"#).is_err());
}

#[test]
fn what_breaks_the_rules_is_named() {
    let said = |pieces: &[Vec<u8>]| read(pieces).unwrap_err().to_string();
    assert_eq!(said(&[b"S".to_vec()]), "1 bytes are no frame");
    assert!(said(&from_child(b'?', 1, b"", b"")).starts_with("a frame of the unknown kind 63"));
    assert!(said(&from_child(b'S', 1, b"{}", b"not JSON")).starts_with("a result is not JSON"));
    assert!(said(&from_child(b'D', 1, b"{}", b"")).contains("cannot be read"));
    let mut short = from_child(b'D', 1, b"{}", b"");
    short[0][10] = 9;
    assert!(said(&short).contains("longer than the frame"));
    let mut mixed = from_child(b'S', 1, b"{}", &vec![b' '; PIECE_BYTES_MAX]);
    mixed[1][2] = 2;
    assert!(said(&mixed).contains("another frame"));
}
