//! Signatures: tasks that are described, but not yet sent.
//!
//! Owns the object of spec 5.1 and the places of its members. It does not unroll or send
//! anything. Unknown fields and options survive.

use crate::body::signatures;
use crate::error::FieldError;
use crate::field::{self, EMPTY_MAP, NULL, raw_map};
use crate::json::{Map, Value};

/// What a signature stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureKind {
    /// One task.
    Task,
    /// Tasks one after another.
    Chain,
    /// Tasks side by side.
    Group,
    /// A group whose results go to a body.
    Chord,
    /// One task over many arguments, in one message.
    Map,
    /// The same with argument lists.
    Starmap,
    /// A group of starmaps.
    Chunks,
}

/// One signature: a raw ordered map with typed readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature(Map);

raw_map!(Signature);

impl Signature {
    /// Creates the signature of a plain task without arguments.
    pub fn new(task: &str) -> Self {
        Self(Map::from([
            ("task", Value::from(task)),
            ("args", Value::Array(Vec::new())),
            ("kwargs", Value::from(Map::new())),
            ("options", Value::from(Map::new())),
            ("subtask_type", Value::Null),
            ("immutable", Value::from(false)),
        ]))
    }

    /// Creates a chain; the tasks are in forward order.
    pub fn chain(tasks: Vec<Self>) -> Self {
        Self::composite("celery.chain", "chain", Map::from([("tasks", tasks)]))
    }

    /// Creates a group.
    pub fn group(tasks: Vec<Self>) -> Self {
        Self::composite("celery.group", "group", Map::from([("tasks", tasks)]))
    }

    /// Creates a chord of header members and a body.
    pub fn chord(header: Vec<Self>, body: Self) -> Self {
        let kwargs = Map::from([
            ("kwargs", Value::from(Map::new())),
            ("header", Value::from(header)),
            ("body", Value::from(body)),
        ]);
        Self::composite("celery.chord", "chord", kwargs)
    }

    fn composite(task: &str, subtask_type: &str, kwargs: Map) -> Self {
        let mut signature = Self::new(task);
        signature.insert("kwargs", kwargs).insert("subtask_type", subtask_type);
        signature
    }

    /// Reads a signature from a value that must be an object.
    pub fn from_value(value: Value) -> Result<Self, FieldError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(FieldError::new("signature", "an object", &other)),
        }
    }

    /// Returns the task name.
    pub fn task(&self) -> Option<&str> {
        field::text(&self.0, "task")
    }

    /// Returns the stored positional arguments.
    pub fn args(&self) -> &[Value] {
        self.0.get("args").and_then(Value::as_array).unwrap_or_default()
    }

    /// Returns the stored keyword arguments.
    pub fn kwargs(&self) -> &Map {
        self.0.get("kwargs").and_then(Value::as_object).unwrap_or(&EMPTY_MAP)
    }

    /// Returns the options; for their names see spec 5.1.
    pub fn options(&self) -> &Map {
        self.0.get("options").and_then(Value::as_object).unwrap_or(&EMPTY_MAP)
    }

    /// Returns the options for changing, creating them if they are missing.
    pub fn options_mut(&mut self) -> &mut Map {
        self.map_mut("options")
    }

    /// Returns the keyword arguments for changing, creating them if they are missing.
    pub fn kwargs_mut(&mut self) -> &mut Map {
        self.map_mut("kwargs")
    }

    fn map_mut(&mut self, name: &str) -> &mut Map {
        let value = self.0.get_or_insert_null(name);
        if !matches!(value, Value::Object(_)) {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(map) => map,
            _ => unreachable!("the value was made an object above"),
        }
    }

    /// Returns the text of `subtask_type`.
    pub fn subtask_type(&self) -> Option<&str> {
        field::text(&self.0, "subtask_type")
    }

    /// Returns whether results of earlier tasks are not added to the arguments.
    pub fn is_immutable(&self) -> bool {
        self.0.get("immutable").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Returns what the signature stands for; an unknown `subtask_type` is a plain task.
    ///
    /// celery 5.7.0 canvas.py `Signature.from_dict` decides by `subtask_type` alone.
    pub fn kind(&self) -> SignatureKind {
        match self.subtask_type() {
            Some("chain") => SignatureKind::Chain,
            Some("group") => SignatureKind::Group,
            Some("chord") => SignatureKind::Chord,
            Some("xmap") => SignatureKind::Map,
            Some("xstarmap") => SignatureKind::Starmap,
            Some("chunks") => SignatureKind::Chunks,
            _ => SignatureKind::Task,
        }
    }

    /// Returns the members of a chain (forward order) or group.
    pub fn tasks(&self) -> Result<Vec<Self>, FieldError> {
        signatures(self.kwargs(), "tasks").map_err(|error| error.within("kwargs"))
    }

    /// Returns the header members of a chord, whether it holds a list or a group signature.
    pub fn chord_header(&self) -> Result<Vec<Self>, FieldError> {
        if let Some(Value::Object(map)) = self.kwargs().get("header") {
            let group = Self(map.clone());
            if group.kind() == SignatureKind::Group {
                return group.tasks().map_err(|error| error.within("kwargs.header"));
            }
        }
        signatures(self.kwargs(), "header").map_err(|error| error.within("kwargs"))
    }

    /// Returns the body of a chord.
    pub fn chord_body(&self) -> Result<Option<Self>, FieldError> {
        self.inner("body")
    }

    /// Returns the task that a map, starmap or chunks signature applies.
    pub fn inner_task(&self) -> Result<Option<Self>, FieldError> {
        self.inner("task")
    }

    fn inner(&self, name: &str) -> Result<Option<Self>, FieldError> {
        let map = field::object(self.kwargs(), name).map_err(|error| error.within("kwargs"))?;
        Ok(map.map(|map| Self(map.clone())))
    }

    /// Returns the items of a map, starmap or chunks signature.
    pub fn items(&self) -> &[Value] {
        self.kwargs().get("it").and_then(Value::as_array).unwrap_or_default()
    }

    /// Returns the number of items in one chunk.
    pub fn chunk_size(&self) -> Option<u64> {
        self.kwargs().get("n").and_then(Value::as_u64)
    }

    /// Returns an option, or null if it is missing.
    pub fn option(&self, name: &str) -> &Value {
        self.options().get(name).unwrap_or(&NULL)
    }

    /// Returns the task id if it is fixed already.
    pub fn task_id(&self) -> Option<&str> {
        self.option("task_id").as_str()
    }

    /// Returns the group id.
    pub fn group_id(&self) -> Option<&str> {
        self.option("group_id").as_str()
    }

    /// Returns the signatures to call with the result.
    pub fn links(&self) -> Result<Vec<Self>, FieldError> {
        signatures(self.options(), "link").map_err(|error| error.within("options"))
    }

    /// Returns the signatures to call after a failure.
    pub fn link_errors(&self) -> Result<Vec<Self>, FieldError> {
        signatures(self.options(), "link_error").map_err(|error| error.within("options"))
    }

    /// Sets the positional arguments.
    #[must_use]
    pub fn with_args(mut self, args: Vec<Value>) -> Self {
        self.insert("args", Value::Array(args));
        self
    }

    /// Sets the keyword arguments.
    #[must_use]
    pub fn with_kwargs(mut self, kwargs: Map) -> Self {
        self.insert("kwargs", kwargs);
        self
    }

    /// Sets one option.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options_mut().insert(name, value);
        self
    }

    /// Makes the signature ignore results of earlier tasks (`.si()`).
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.insert("immutable", true);
        self
    }

    /// Adds a signature to call with the result.
    #[must_use]
    pub fn with_link(self, callback: Self) -> Self {
        self.with_pushed("link", callback)
    }

    /// Adds a signature to call after a failure.
    #[must_use]
    pub fn with_link_error(self, errback: Self) -> Self {
        self.with_pushed("link_error", errback)
    }

    fn with_pushed(mut self, name: &str, signature: Self) -> Self {
        let value = self.options_mut().get_or_insert_null(name);
        match value {
            Value::Array(items) => items.push(signature.into()),
            Value::Null => *value = vec![signature].into(),
            _ => *value = Value::Array(vec![std::mem::take(value), signature.into()]),
        }
        self
    }
}
