use super::{args_repr, args_repr_within, kwargs_repr, kwargs_repr_within, value_repr};
use crate::json::{Map, Value};

#[test]
fn agrees_with_saferepr_of_celery() {
    let table = include_bytes!("../../testdata/5.7/saferepr.json");
    let table = Value::parse(table).expect("valid");
    let rows = table.as_array().expect("rows");
    assert!(rows.len() > 80);
    for row in rows {
        let max = row.get("max").and_then(Value::as_u64).expect("a bound") as usize;
        let text = match row.get("value").expect("a value") {
            Value::Array(args) => args_repr_within(args, max),
            Value::Object(kwargs) => kwargs_repr_within(kwargs, max),
            other => panic!("{other:?}"),
        };
        assert_eq!(Some(text.as_str()), row.get("text").and_then(Value::as_str), "{row}");
    }
}

#[test]
fn prints_the_common_cases() {
    assert_eq!(args_repr(&[]), "()");
    assert_eq!(args_repr(&[Value::from(1)]), "(1,)");
    assert_eq!(kwargs_repr(&Map::from([("it's", true)])), "{'it\\'s': True}");
    assert_eq!(value_repr(&Value::from("x")), "'x'");
    assert_eq!(value_repr(&Value::from(vec![Value::Null])), "[None]");
    let unknown = Map::from([("__type__", "money"), ("__value__", "1 EUR")]);
    assert_eq!(value_repr(&unknown.into()), "{'__type__': 'money', '__value__': '1 EUR'}");
}
