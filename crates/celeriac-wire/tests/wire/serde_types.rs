//! Rust types through serde: round trips, bytes and error texts.

use std::collections::BTreeMap;

use celeriac_wire::{Map, Number, Value, from_value, to_value};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i32, u8),
    Box { width: i128, height: Option<u128> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: i8,
    large: i128,
    float: f64,
    single: f32,
    letter: char,
    text: String,
    none: Option<u32>,
    unit: (),
    pair: (i64, String),
    shapes: Vec<Shape>,
    wrapped: Wrapped,
    by_number: BTreeMap<i32, Shape>,
    by_flag: BTreeMap<bool, u8>,
    raw: Value,
    #[serde(default)]
    missing: u8,
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Point),
        any::<f64>().prop_map(Shape::Circle),
        any::<(i32, u8)>().prop_map(|(from, to)| Shape::Line(from, to)),
        any::<(i128, Option<u128>)>().prop_map(|(width, height)| Shape::Box { width, height }),
    ]
}

prop_compose! {
    fn everything()(
        (flag, small, large, float, single, letter) in any::<(bool, i8, i128, f64, f32, char)>(),
        (text, none, pair) in any::<(String, Option<u32>, (i64, String))>(),
        shapes in prop::collection::vec(shape(), 0..4),
        wrapped in any::<u64>().prop_map(Wrapped),
        by_number in prop::collection::btree_map(any::<i32>(), shape(), 0..3),
        by_flag in any::<BTreeMap<bool, u8>>(),
        raw in crate::random::value(),
    ) -> Everything {
        Everything {
            flag, small, large, float, single, letter, text, none, unit: (), pair, shapes, wrapped,
            by_number, by_flag, raw, missing: 0,
        }
    }
}

proptest! {
    #[test]
    fn structs_survive(before in everything()) {
        let value = to_value(&before).expect("a value");
        let read = Value::parse(&value.to_bytes()).expect("own text");
        prop_assert_eq!(&read, &value);
        let after: Everything = from_value(read).expect("the same type");
        prop_assert_eq!(after, before);
    }
}

#[test]
fn floats_that_json_has_not_survive() {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let value = to_value(&float).expect("a value");
        let read: f64 = from_value(Value::parse(&value.to_bytes()).expect("text")).expect("float");
        assert_eq!(read.to_bits(), float.to_bits());
    }
    assert_eq!(from_value::<f64>(Value::from(3)), Ok(3.0));
    assert_eq!(from_value::<f32>(Value::from(0.1)), Ok(0.1));
}

#[test]
fn enums_look_like_serde_json() {
    let print = |shape: &Shape| to_value(shape).expect("a value").to_string();
    assert_eq!(print(&Shape::Point), r#""Point""#);
    assert_eq!(print(&Shape::Circle(1.0)), r#"{"Circle": 1.0}"#);
    assert_eq!(print(&Shape::Line(-1, 2)), r#"{"Line": [-1, 2]}"#);
    let shape = Shape::Box { width: i128::MAX, height: None };
    assert_eq!(
        print(&shape),
        r#"{"Box": {"width": 170141183460469231731687303715884105727, "height": null}}"#
    );
}

struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl serde::de::Visitor<'_> for BytesVisitor {
            type Value = Blob;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

#[test]
fn bytes_are_marker_objects() {
    for (bytes, text) in [
        (&b"abc"[..], r#"{"__type__": "bytes", "__value__": "abc"}"#),
        (&b"\xff\x00"[..], r#"{"__type__": "base64", "__value__": "/wA="}"#),
    ] {
        let value = to_value(&Blob(bytes.to_vec())).expect("a value");
        assert_eq!(value.to_string(), text);
        assert_eq!(from_value::<Blob>(value).expect("bytes").0, bytes);
    }
    assert_eq!(from_value::<Blob>(Value::from("abc")).expect("text").0, b"abc");
    let error = from_value::<Blob>(Value::from(1)).err().expect("no bytes");
    assert_eq!(error.to_string(), "expected bytes, found the integer 1");
}

#[track_caller]
fn refused<T: DeserializeOwned>(text: &str, message: &str) {
    let value = Value::parse(text.as_bytes()).expect("valid");
    match from_value::<T>(value) {
        Err(error) => assert_eq!(error.to_string(), message),
        Ok(_) => panic!("{text} was accepted"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the errors matter")]
struct Order {
    id: u32,
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only the errors matter")]
struct Line {
    price: f64,
    count: Option<i64>,
}

#[test]
fn errors_name_path_expected_and_found() {
    refused::<i64>(r#""x""#, "expected an integer, found the string \"x\"");
    refused::<i64>("1.5", "expected an integer, found the number 1.5");
    refused::<i64>("1.0", "expected an integer, found the number 1.0");
    refused::<u8>("300", "expected an integer from 0 to 255, found the integer 300");
    refused::<u32>("-1", "expected an integer of 0 or more, found the integer -1");
    refused::<f64>("null", "expected a number, found null");
    refused::<bool>("0", "expected a bool, found the integer 0");
    refused::<String>("[]", "expected a string, found an array");
    refused::<Vec<u8>>("{}", "expected an array, found an object of 0 keys");
    refused::<(i64, i64)>("[1]", "expected a tuple of size 2, found 1 elements");
    refused::<(i64, i64)>("[1, 2, 3]", "expected an array of 2 elements, found an array of 3");
    refused::<(i64, String)>("[1, 2]", "[1]: expected a string, found the integer 2");
    refused::<Shape>("1", "expected a name or an object with one name as key, found the integer 1");
    refused::<Shape>(
        r#""Star""#,
        "unknown variant `Star`, expected one of `Point`, `Circle`, `Line`, `Box`",
    );
    refused::<Shape>(
        r#"{"Line": [1, 2.5]}"#,
        "Line[1]: expected an integer from 0 to 255, found the number 2.5",
    );
    refused::<Order>("5", "expected an object (Order), found the integer 5");
    refused::<Order>(r#"{"lines": []}"#, "missing field `id`");
    refused::<Order>(
        r#"{"id": 1, "lines": [{"price": 1, "count": null}, {"price": 1, "count": "x"}]}"#,
        "lines[1].count: expected an integer, found the string \"x\"",
    );
    refused::<Order>(r#"{"id": 1, "more": 1}"#, "unknown field `more`, expected `id` or `lines`");
    refused::<BTreeMap<i32, i32>>(r#"{"a": 1}"#, "expected an integer, found the string \"a\"");
    let big = "9".repeat(100);
    refused::<i64>(
        &big,
        &format!(
            "expected an integer of at most 128 bits, found the integer {}...",
            "9".repeat(60)
        ),
    );
    let error = from_value::<i64>(Value::from("x")).expect_err("text").at("args[1]");
    assert_eq!(error.to_string(), "args[1]: expected an integer, found the string \"x\"");
}

#[test]
fn maps_and_numbers_are_types_too() {
    let map = Map::from([("a", 1), ("b", 2)]);
    assert_eq!(from_value::<Map>(map.clone().into()), Ok(map.clone()));
    assert_eq!(to_value(&map), Ok(map.into()));
    let number = Number::parse("1.50").expect("a number");
    assert_eq!(from_value::<Number>(number.clone().into()), Ok(number.clone()));
    assert_eq!(to_value(&number), Ok(number.into()));
    refused::<Map>("1", "expected an object, found the integer 1");
}

#[test]
fn odd_map_keys_become_text_as_in_python() {
    let by_number: BTreeMap<i64, Option<u8>> = [(-1, None)].into();
    assert_eq!(to_value(&by_number).expect("a value").to_string(), r#"{"-1": null}"#);
    let by_option: BTreeMap<Option<bool>, u8> = [(None, 1), (Some(true), 2)].into();
    let value = to_value(&by_option).expect("a value");
    assert_eq!(value.to_string(), r#"{"null": 1, "true": 2}"#);
    assert_eq!(from_value::<BTreeMap<Option<bool>, u8>>(value), Ok(by_option));
    let by_pair: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    assert!(to_value(&by_pair).is_err());
}

#[test]
fn the_deepest_value_needs_little_stack() {
    let deepest = |open: &str, close: &str| {
        let depth = celeriac_wire::limits::JSON_DEPTH_MAX;
        format!("{}0{}", open.repeat(depth), close.repeat(depth))
    };
    let texts = [deepest("[", "]"), deepest("{\"a\": ", "}")];
    let work = move || {
        for text in texts {
            let value = Value::parse(text.as_bytes()).expect("at the bound");
            assert_eq!(value.to_string(), text);
            assert_eq!(value.clone(), value);
            assert_eq!(to_value(&value), Ok(value.clone()));
            assert_eq!(from_value::<Value>(value.clone()), Ok(value.clone()));
            assert!(celeriac_wire::value_repr(&value).contains("..."));
        }
    };
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(work);
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn deep_types_are_refused_not_overflowed() {
    #[derive(Serialize)]
    struct Node(Option<Box<[Self]>>);
    let mut node = Node(None);
    for _ in 0..300 {
        node = Node(Some(Box::new([node])));
    }
    let error = to_value(&node).expect_err("too deep").to_string();
    assert!(error.ends_with("arrays and objects are nested too deep"), "{error}");
}
