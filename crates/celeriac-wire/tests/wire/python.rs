//! Our printer against Python's own.

use std::io::Write as _;
use std::process::Stdio;

use celeriac_wire::{Map, Value};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

const SCRIPT: &str = "import json, sys
for line in sys.stdin.buffer.read().decode('utf-8').split('\\n'):
    print(json.dumps(json.loads(line)))";

/// Values whose numbers are as Python itself would print them.
fn python_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i128>().prop_map(Value::from),
        prop::num::f64::ANY.prop_map(Value::from),
        (-1e20..1e20_f64).prop_map(Value::from),
        (-1e-3..1e-3_f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map>())),
        ]
    })
}

#[expect(clippy::disallowed_methods, reason = "a test that asks Python")]
fn ask_python(lines: &str) -> std::io::Result<String> {
    let mut python = std::process::Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = python.stdin.take().expect("piped");
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output()?;
    writer.join().expect("no panic")?;
    assert!(output.status.success());
    Ok(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn prints_as_json_dumps() {
    let mut runner = TestRunner::deterministic();
    let lines: Vec<String> = (0..300)
        .map(|_| python_value().new_tree(&mut runner).expect("a value").current().to_string())
        .collect();
    let printed = match ask_python(&lines.join("\n")) {
        Ok(printed) => printed,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "python3 is needed in CI: {error}");
            println!("skipped: python3 cannot be started: {error}");
            return;
        }
    };
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(printed.len(), lines.len());
    for (ours, python) in lines.iter().zip(printed) {
        assert_eq!(ours, python);
    }
}
