//! Binds a message's arguments to a task's parameters, as Python binds a call.

use crate::error::TaskError;
use celeriac_wire::{Map, Value, from_value};
use serde::de::DeserializeOwned;

/// One parameter of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    name: &'static str,
    required: bool,
}

impl Param {
    /// A parameter that every call must give.
    pub const fn required(name: &'static str) -> Self {
        Self { name, required: true }
    }

    /// A parameter that a call may leave out.
    pub const fn optional(name: &'static str) -> Self {
        Self { name, required: false }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// The arguments of one call, in the order of the parameters.
#[derive(Debug)]
pub struct Arguments {
    params: &'static [Param],
    values: Vec<Option<Value>>,
}

impl Arguments {
    /// Binds positional and keyword arguments to parameters.
    ///
    /// # Errors
    /// A permanent failure in Python's words: too many, unknown, doubled or missing arguments.
    pub fn bind(
        task: &str,
        params: &'static [Param],
        args: Vec<Value>,
        kwargs: Map,
    ) -> Result<Self, TaskError> {
        let wrong = |text: String| TaskError::bad_arguments(format!("{task}() {text}"));
        if args.len() > params.len() {
            let (takes, given) = (count(params.len(), "positional argument"), args.len());
            let were = if given == 1 { "was" } else { "were" };
            return Err(wrong(format!("takes {takes} but {given} {were} given")));
        }
        let mut values: Vec<Option<Value>> = args.into_iter().map(Some).collect();
        values.resize(params.len(), None);
        for (name, value) in kwargs {
            let Some(at) = params.iter().position(|param| param.name == name) else {
                return Err(wrong(format!("got an unexpected keyword argument '{name}'")));
            };
            if values[at].replace(value).is_some() {
                return Err(wrong(format!("got multiple values for argument '{name}'")));
            }
        }
        let missing: Vec<&str> = params
            .iter()
            .zip(&values)
            .filter(|(param, value)| param.required && value.is_none())
            .map(|(param, _)| param.name)
            .collect();
        if !missing.is_empty() {
            let what = count(missing.len(), "required positional argument");
            return Err(wrong(format!("missing {what}: '{}'", missing.join("', '"))));
        }
        Ok(Self { params, values })
    }

    /// Takes a required argument.
    ///
    /// # Errors
    /// A permanent failure when it has another type; the text names it.
    pub fn required<T: DeserializeOwned>(&mut self, index: usize) -> Result<T, TaskError> {
        let value = self.take(index).unwrap_or(Value::Null);
        self.decode(index, value)
    }

    /// Takes an argument that may be missing or null.
    ///
    /// # Errors
    /// As [`Arguments::required`].
    pub fn optional<T: DeserializeOwned>(&mut self, index: usize) -> Result<Option<T>, TaskError> {
        match self.take(index) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.decode(index, value).map(Some),
        }
    }

    /// Takes an argument, or makes its default.
    ///
    /// # Errors
    /// As [`Arguments::required`].
    pub fn or_else<T: DeserializeOwned>(
        &mut self,
        index: usize,
        default: impl FnOnce() -> T,
    ) -> Result<T, TaskError> {
        match self.take(index) {
            None => Ok(default()),
            Some(value) => self.decode(index, value),
        }
    }

    fn take(&mut self, index: usize) -> Option<Value> {
        self.values.get_mut(index).and_then(Option::take)
    }

    fn decode<T: DeserializeOwned>(&self, index: usize, value: Value) -> Result<T, TaskError> {
        let name = self.params.get(index).map_or("?", |param| param.name);
        from_value(value)
            .map_err(|error| TaskError::bad_arguments(format!("argument '{name}': {error}")))
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    static PARAMS: [Param; 3] =
        [Param::required("x"), Param::required("y"), Param::optional("note")];

    fn bind(args: &str, kwargs: &str) -> Result<Arguments, String> {
        let parse = |text: &str| Value::parse(text.as_bytes()).unwrap();
        let args = parse(args).as_array().unwrap().to_vec();
        let kwargs = parse(kwargs).as_object().unwrap().clone();
        Arguments::bind("add", &PARAMS, args, kwargs).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_bind_as_in_python() {
        for (args, kwargs, error) in [
            ("[1]", "{}", "add() missing 1 required positional argument: 'y'"),
            ("[]", "{}", "add() missing 2 required positional arguments: 'x', 'y'"),
            ("[1, 2, 3, 4]", "{}", "add() takes 3 positional arguments but 4 were given"),
            ("[1]", r#"{"x": 2, "y": 3}"#, "add() got multiple values for argument 'x'"),
            ("[1, 2]", r#"{"z": 3}"#, "add() got an unexpected keyword argument 'z'"),
        ] {
            assert_eq!(bind(args, kwargs).unwrap_err(), error);
        }
        let mut bound = bind("[1]", r#"{"y": 18446744073709551617}"#).unwrap();
        assert_eq!(bound.required::<u8>(0).unwrap(), 1);
        assert_eq!(bound.required::<i128>(1).unwrap(), 18_446_744_073_709_551_617);
        assert_eq!(bound.or_else(2, || "none".to_owned()).unwrap(), "none");
    }

    #[test]
    fn a_wrong_type_names_the_argument() {
        let mut bound = bind(r#"["one", null]"#, "{}").unwrap();
        let error = bound.required::<i64>(0).unwrap_err().to_string();
        assert!(error.contains("argument 'x'") && error.contains("one"), "{error}");
        assert_eq!(bound.optional::<i64>(1).unwrap(), None);
    }
}
