//! Reads `testdata/5.7`.

use std::path::Path;

use celeriac_wire::Value;

/// One captured file.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) value: Value,
}

/// Files of tables, read by unit tests.
const TABLES: [&str; 2] = ["isoparse", "saferepr"];

/// Reads every captured file, in order of their names.
pub(crate) fn all() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/5.7");
    let mut fixtures = Vec::new();
    for entry in std::fs::read_dir(folder).expect("testdata") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        if TABLES.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read(&path).expect("fixture");
        let value = Value::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        fixtures.push(Fixture { name, value });
    }
    fixtures.sort_by(|one, two| one.name.cmp(&two.name));
    fixtures
}

/// Reads one captured file.
pub(crate) fn one(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/5.7/{name}.json"));
    Value::parse(&std::fs::read(path).expect(name)).expect(name)
}

impl Fixture {
    /// Returns the texts of messages in queues with what Python decoded from them.
    pub(crate) fn queued(&self) -> Vec<(&str, &Value)> {
        let Some(queues) = self.value.get("queues").and_then(Value::as_object) else {
            return Vec::new();
        };
        let decoded = self.value.get("decoded").and_then(Value::as_object).expect("decoded");
        let mut texts = Vec::new();
        for (queue, items) in queues.iter() {
            let items = items.as_array().expect("a list");
            let decoded = decoded.get(queue).and_then(Value::as_array).expect("the same queue");
            assert_eq!(items.len(), decoded.len());
            texts.extend(items.iter().map(|item| item.as_str().expect("text")).zip(decoded));
        }
        texts
    }

    /// Returns the texts of stored and published results.
    pub(crate) fn results(&self) -> Vec<&str> {
        let mut texts: Vec<&str> =
            self.value.get("raw").and_then(Value::as_str).into_iter().collect();
        for list in ["published", "pubsub"] {
            for item in self.value.get(list).and_then(Value::as_array).unwrap_or_default() {
                let channel = item.get("channel").and_then(Value::as_str).unwrap_or_default();
                if channel.starts_with("celery-task-meta-") {
                    texts.push(item.get("data").and_then(Value::as_str).expect("data"));
                }
            }
        }
        texts
    }

    /// Returns the envelopes of events, as texts.
    pub(crate) fn events(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for list in ["pubsub", "messages"] {
            for item in self.value.get(list).and_then(Value::as_array).unwrap_or_default() {
                let channel = item.get("channel").and_then(Value::as_str).unwrap_or_default();
                let text = item.get("data").or_else(|| item.get("raw")).and_then(Value::as_str);
                if channel.contains("celeryev") {
                    texts.extend(text.map(str::to_owned));
                }
            }
        }
        // These were decoded in the capture; the envelope is what is left without its additions.
        for item in self.value.get("events").and_then(Value::as_array).unwrap_or_default() {
            let mut map = item.as_object().expect("an event message").clone();
            drop((map.remove("channel"), map.remove("body_decoded")));
            texts.push(map.to_string());
        }
        texts
    }
}
