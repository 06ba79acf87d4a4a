//! The headers of protocol 2.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::{FieldError, ParseError};
use crate::field::{self, EMPTY_MAP, raw_map};
use crate::json::{Map, Value};
use crate::limits::HEADERS_BYTES_MAX;

/// Names of the headers of protocol 2, in Celery's order; all others are custom.
///
/// The first nineteen are always written (celery 5.7.0 app/amqp.py `as_task_v2`); `compression`
/// comes from kombu's producer and `redelivered` from a restore on Redis (spec 2.2).
pub const PROTOCOL_HEADERS: [&str; 21] = [
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "redelivered",
];

/// The hard and soft time limit of one call.
///
/// On the wire they are `[hard, soft]` seconds, in this order (spec 0, rule 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// The task is killed after this time.
    pub hard: Option<Duration>,
    /// The task gets an exception after this time.
    pub soft: Option<Duration>,
}

/// The headers of a message: a raw ordered map with typed readers.
///
/// A missing header reads as its default. Readers that return `Option` alone also take a wrong
/// type as missing; [`check`](Self::check) finds those.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Map);

raw_map!(Headers);

impl Headers {
    /// Creates all nineteen headers of protocol 2 in Celery's order with defaults (spec 1.1).
    ///
    /// `lang` is `"rust"`: Python workers do not read it. `root_id` is the id itself; `origin` is
    /// empty until the sender sets it; the argument texts are those of no arguments.
    pub fn new(task: &str, id: &str) -> Self {
        let mut map = Map::with_capacity(PROTOCOL_HEADERS.len());
        for name in PROTOCOL_HEADERS.into_iter().take(19) {
            let value = match name {
                "lang" => Value::from("rust"),
                "task" => Value::from(task),
                "id" | "root_id" => Value::from(id),
                "retries" | "replaced_task_nesting" => Value::from(0),
                "timelimit" => Value::Array(vec![Value::Null, Value::Null]),
                "argsrepr" => Value::from("()"),
                "kwargsrepr" => Value::from("{}"),
                "origin" => Value::from(""),
                "ignore_result" => Value::from(false),
                "stamps" => Value::from(Map::new()),
                _ => Value::Null,
            };
            map.insert(name, value);
        }
        Self(map)
    }

    /// Parses a JSON object of at most [`HEADERS_BYTES_MAX`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > HEADERS_BYTES_MAX {
            let size = bytes.len();
            return Err(ParseError::TooLarge { what: "headers", size, max: HEADERS_BYTES_MAX });
        }
        field::parse_object(bytes, "headers").map(Self)
    }

    /// Prints the headers as a JSON object.
    pub fn to_json(&self) -> String {
        self.0.to_string()
    }

    /// Returns the task name.
    pub fn task(&self) -> Option<&str> {
        field::text(&self.0, "task")
    }

    /// Returns the task id; any text is one.
    pub fn id(&self) -> Option<&str> {
        field::text(&self.0, "id")
    }

    /// Returns the language of the sender.
    pub fn lang(&self) -> Option<&str> {
        field::text(&self.0, "lang")
    }

    /// Returns the name to show instead of the task's.
    pub fn shadow(&self) -> Option<&str> {
        field::text(&self.0, "shadow")
    }

    /// Returns how often the task was retried; 0 if missing or not a count.
    pub fn retries(&self) -> u32 {
        self.count("retries")
    }

    /// Returns how often the task was replaced; 0 if missing or not a count.
    pub fn replaced_task_nesting(&self) -> u32 {
        self.count("replaced_task_nesting")
    }

    fn count(&self, name: &str) -> u32 {
        let number = self.0.get(name).and_then(Value::as_u64).unwrap_or(0);
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Returns the instant before which the task must not run.
    pub fn eta(&self) -> Result<Option<Timestamp>, FieldError> {
        field::instant(&self.0, "eta")
    }

    /// Returns the instant after which the task must not run.
    pub fn expires(&self) -> Result<Option<Timestamp>, FieldError> {
        field::instant(&self.0, "expires")
    }

    /// Returns the time limits of this call; absent ones are the task's own.
    ///
    /// celery 5.7.0 worker/request.py `Request.__init__` unpacks exactly two, if any.
    pub fn time_limits(&self) -> Result<TimeLimits, FieldError> {
        let Some(value) = field::present(&self.0, "timelimit") else {
            return Ok(TimeLimits::default());
        };
        match value.as_array() {
            Some([hard, soft]) => Ok(TimeLimits {
                hard: field::seconds("timelimit[0]", hard)?,
                soft: field::seconds("timelimit[1]", soft)?,
            }),
            Some([]) => Ok(TimeLimits::default()),
            _ => Err(FieldError::new("timelimit", "[hard, soft]", value)),
        }
    }

    /// Returns the group id.
    pub fn group(&self) -> Option<&str> {
        field::text(&self.0, "group")
    }

    /// Returns the position in the group.
    pub fn group_index(&self) -> Option<i64> {
        self.0.get("group_index").and_then(Value::as_i64)
    }

    /// Returns the id of the first task of the workflow.
    pub fn root_id(&self) -> Option<&str> {
        field::text(&self.0, "root_id")
    }

    /// Returns the id of the task that sent this one.
    pub fn parent_id(&self) -> Option<&str> {
        field::text(&self.0, "parent_id")
    }

    /// Returns the name that logs and events show: a sender may give another than the task's.
    pub fn shown_name(&self) -> Option<&str> {
        field::text(&self.0, "shadow").filter(|name| !name.is_empty()).or_else(|| self.task())
    }

    /// Returns the text of the positional arguments for logs and events.
    pub fn argsrepr(&self) -> Option<&str> {
        field::text(&self.0, "argsrepr")
    }

    /// Returns the text of the keyword arguments for logs and events.
    pub fn kwargsrepr(&self) -> Option<&str> {
        field::text(&self.0, "kwargsrepr")
    }

    /// Returns the node that sent the message.
    pub fn origin(&self) -> Option<&str> {
        field::text(&self.0, "origin")
    }

    /// Returns whether the result is not to be stored; nothing means the task's own default.
    pub fn ignore_result(&self) -> Option<bool> {
        self.0.get("ignore_result").and_then(Value::as_bool)
    }

    /// Returns the values of the stamps.
    pub fn stamps(&self) -> &Map {
        self.0.get("stamps").and_then(Value::as_object).unwrap_or(&EMPTY_MAP)
    }

    /// Returns the names of the stamps.
    pub fn stamped_headers(&self) -> Vec<&str> {
        let names = self.0.get("stamped_headers").and_then(Value::as_array).unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect()
    }

    /// Returns the MIME name of the body's compression (spec 1.8).
    pub fn compression(&self) -> Option<&str> {
        field::text(&self.0, "compression")
    }

    /// Returns whether a Redis restore marked the message as delivered before (spec 2.2).
    pub fn is_redelivered(&self) -> bool {
        self.0.get("redelivered").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Iterates over the headers that are not of the protocol: those given with `headers={}`.
    pub fn custom(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter(|(name, _)| !PROTOCOL_HEADERS.contains(name))
    }

    /// Sets the task name.
    pub fn set_task(&mut self, task: &str) -> &mut Self {
        self.insert("task", task)
    }

    /// Sets the task id.
    pub fn set_id(&mut self, id: &str) -> &mut Self {
        self.insert("id", id)
    }

    /// Sets the name to show instead of the task's.
    pub fn set_shadow(&mut self, shadow: Option<&str>) -> &mut Self {
        self.insert("shadow", shadow)
    }

    /// Sets how often the task was retried.
    pub fn set_retries(&mut self, retries: u32) -> &mut Self {
        self.insert("retries", retries)
    }

    /// Sets how often the task was replaced.
    pub fn set_replaced_task_nesting(&mut self, nesting: u32) -> &mut Self {
        self.insert("replaced_task_nesting", nesting)
    }

    /// Sets the instant before which the task must not run.
    pub fn set_eta(&mut self, eta: Option<Timestamp>) -> &mut Self {
        self.insert("eta", field::instant_value(eta))
    }

    /// Sets the instant after which the task must not run.
    pub fn set_expires(&mut self, expires: Option<Timestamp>) -> &mut Self {
        self.insert("expires", field::instant_value(expires))
    }

    /// Sets the time limits of this call.
    pub fn set_time_limits(&mut self, limits: TimeLimits) -> &mut Self {
        let pair = vec![field::seconds_value(limits.hard), field::seconds_value(limits.soft)];
        self.insert("timelimit", Value::Array(pair))
    }

    /// Sets the group id.
    pub fn set_group(&mut self, group: Option<&str>) -> &mut Self {
        self.insert("group", group)
    }

    /// Sets the position in the group.
    pub fn set_group_index(&mut self, index: Option<i64>) -> &mut Self {
        self.insert("group_index", index)
    }

    /// Sets the id of the first task of the workflow.
    pub fn set_root_id(&mut self, id: &str) -> &mut Self {
        self.insert("root_id", id)
    }

    /// Sets the id of the task that sends this one.
    pub fn set_parent_id(&mut self, id: Option<&str>) -> &mut Self {
        self.insert("parent_id", id)
    }

    /// Sets both argument texts from the arguments (spec 1.9).
    pub fn set_arguments_text(&mut self, args: &[Value], kwargs: &Map) -> &mut Self {
        self.insert("argsrepr", crate::repr::args_repr(args))
            .insert("kwargsrepr", crate::repr::kwargs_repr(kwargs))
    }

    /// Sets the text of the positional arguments.
    pub fn set_argsrepr(&mut self, text: &str) -> &mut Self {
        self.insert("argsrepr", text)
    }

    /// Sets the text of the keyword arguments.
    pub fn set_kwargsrepr(&mut self, text: &str) -> &mut Self {
        self.insert("kwargsrepr", text)
    }

    /// Sets the node that sends the message, as `gen<pid>@<host>`.
    pub fn set_origin(&mut self, origin: &str) -> &mut Self {
        self.insert("origin", origin)
    }

    /// Sets whether the result is not to be stored; nothing means the task's own default.
    pub fn set_ignore_result(&mut self, ignore: Option<bool>) -> &mut Self {
        self.insert("ignore_result", ignore)
    }

    /// Sets the stamps and their names (spec 5.8).
    pub fn set_stamps(&mut self, stamps: Map) -> &mut Self {
        let names: Value = stamps.keys().collect();
        self.insert("stamped_headers", names).insert("stamps", stamps)
    }

    /// Sets or removes the MIME name of the body's compression.
    pub fn set_compression(&mut self, mime: Option<&str>) -> &mut Self {
        if let Some(mime) = mime {
            return self.insert("compression", mime);
        }
        drop(self.0.remove("compression"));
        self
    }

    /// Checks that names are text and that times, limits and counts parse.
    pub fn check(&self) -> Result<(), FieldError> {
        field::required_text(&self.0, "task")?;
        field::required_text(&self.0, "id")?;
        self.eta()?;
        self.expires()?;
        self.time_limits()?;
        match field::present(&self.0, "retries") {
            Some(value) if value.as_u64().is_none() => {
                Err(FieldError::new("retries", "an integer of 0 or more", value))
            }
            _ => Ok(()),
        }
    }
}
