//! Protocol 1 and the hybrid of both protocols, brought into protocol 2 (spec 1.5).
//!
//! celery 5.7.0 `worker/strategy.py` `proto1_to_proto2` and `hybrid_to_proto2`.

use super::CodecError;
use crate::body::{Body, Embed};
use crate::error::FieldError;
use crate::json::{Map, Value};
use crate::message::{CONTENT_ENCODING_UTF8, CONTENT_TYPE_JSON, Headers, Message};

/// What protocol 2 has in its headers and older messages have in their body.
const MOVED: [&str; 15] = [
    "lang",
    "task",
    "id",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "meth",
    "shadow",
    "eta",
    "expires",
    "retries",
    "timelimit",
    "argsrepr",
    "kwargsrepr",
];

/// Makes a message of protocol 2 with a JSON body from the object that an older one has as body.
pub(super) fn upgrade(message: &Message, mut old: Map) -> Result<(Body, Message), CodecError> {
    let hybrid = message.is_protocol_2();
    let args = match old.remove("args") {
        Some(Value::Array(args)) => args,
        None | Some(Value::Null) => Vec::new(),
        Some(other) => return Err(FieldError::new("args", "an array", &other).into()),
    };
    let kwargs = match old.remove("kwargs") {
        Some(Value::Object(kwargs)) => kwargs,
        None | Some(Value::Null) => Map::new(),
        Some(other) => return Err(FieldError::new("kwargs", "an object", &other).into()),
    };
    let mut embed = Embed::new();
    for name in ["callbacks", "errbacks", "chord"] {
        embed.insert(name, old.remove(name).unwrap_or_default());
    }
    let body = Body { args, kwargs, embed };

    if let Some(taskset) = old.remove("taskset")
        && !hybrid
    {
        // Celery lets a taskset win even if it is null, and then forgets the group. Ours is kept.
        if !taskset.is_null() {
            old.insert("group", taskset);
        }
    }
    let text = |name: &str| old.get(name).and_then(Value::as_str);
    let own = |name: &str| message.headers.get(name).and_then(Value::as_str);
    let task = own("task").or_else(|| text("task"));
    let task = task.ok_or_else(|| FieldError::missing("task", "the name of a task"))?.to_owned();
    let id = own("id").or_else(|| text("id"));
    let id = id.ok_or_else(|| FieldError::missing("id", "a task id"))?.to_owned();
    let mut headers = Headers::new(&task, &id);
    headers.set_arguments_text(&body.args, &body.kwargs);
    headers.insert("lang", "py");
    for name in MOVED {
        if let Some(value) = old.remove(name).filter(|value| !value.is_null()) {
            headers.insert(name, value);
        }
    }
    for (name, value) in message.headers.as_map().iter() {
        // The body is plain from now on.
        if name != "compression" {
            headers.insert(name, value.clone());
        }
    }
    // A time without an offset is UTC here. Producers with `utc` off mean their own zone, which
    // nobody can know; Celery takes the reader's.
    let local = old.get("utc").and_then(Value::as_bool) == Some(false);
    for name in ["eta", "expires"] {
        let naive = headers.get(name).and_then(Value::as_str).is_some_and(is_naive);
        if local && naive {
            return Err(FieldError::new(
                name,
                "a time with an offset: the sender's own zone (utc off) is not known here",
                headers.get(name).unwrap_or(&Value::Null),
            )
            .into());
        }
    }
    let mut properties = message.properties.clone();
    if properties.correlation_id().is_none() {
        properties.set_correlation_id(&id);
    }
    let upgraded = Message {
        headers,
        properties,
        content_type: CONTENT_TYPE_JSON.to_owned(),
        content_encoding: CONTENT_ENCODING_UTF8.to_owned(),
        body: body.to_bytes().into(),
    };
    Ok((body, upgraded))
}

/// Whether a time has no offset: nothing but digits, dots and colons after its date.
fn is_naive(text: &str) -> bool {
    let time = text.get(10..).unwrap_or_default();
    !time.ends_with(['Z', 'z']) && !time.contains(['+', '-'])
}
