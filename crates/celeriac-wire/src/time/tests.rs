use jiff::Timestamp;

use super::{parse_iso, print_iso};
use crate::json::Value;

/// Texts that dateutil takes and this crate refuses: single digits and a week 53 that is not.
const STRICTER: [&str; 4] = ["2030-W53", "2030-01-01T12:3", "2030-W1", "2030-01-01T12:34:56+05:3"];

#[test]
fn agrees_with_dateutil() {
    let table = include_bytes!("../../testdata/5.7/isoparse.json");
    let table = Value::parse(table).expect("valid");
    let mut stricter = Vec::new();
    for row in table.as_array().expect("rows") {
        let row = row.as_array().expect("a pair");
        let text = row[0].as_str().expect("a text");
        let parsed = parse_iso(text).ok().map(print_iso);
        if parsed.is_none() && !row[1].is_null() {
            stricter.push(text);
        } else {
            assert_eq!(parsed.as_deref(), row[1].as_str(), "{text}");
        }
    }
    assert_eq!(stricter, STRICTER);
}

#[test]
fn prints_at_most_microseconds() {
    let print = |nanos| print_iso(Timestamp::from_nanosecond(nanos).expect("in range"));
    assert_eq!(print(0), "1970-01-01T00:00:00+00:00");
    assert_eq!(print(1_999), "1970-01-01T00:00:00.000001+00:00");
    assert_eq!(print(999), "1970-01-01T00:00:00+00:00");
    assert_eq!(print(-1_000), "1969-12-31T23:59:59.999999+00:00");
    assert_eq!(print(1_795_226_008_261_473_000), "2026-11-21T01:53:28.261473+00:00");
}

/// In UTC these are in year 0, which could not be read again.
#[test]
fn nothing_is_before_the_first_year_of_python() {
    for text in ["0001-01-01T00:00:00+00:01", "0001-01-01T23:58:59.999999+23:59"] {
        assert!(parse_iso(text).is_err(), "{text}");
    }
    for text in ["0001-01-01", "0001-01-01T23:59+23:59", "0001-01-01T00:00-23:59"] {
        let instant = parse_iso(text).expect(text);
        assert_eq!(parse_iso(&print_iso(instant)), Ok(instant), "{text}");
    }
}

#[test]
fn an_error_names_the_text() {
    let error = parse_iso("tomorrow").expect_err("not a time");
    assert_eq!(error.to_string(), "not an ISO 8601 time: \"tomorrow\"");
}
