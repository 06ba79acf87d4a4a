//! Argument and result texts for people.
//!
//! Mirrors celery 5.7.0 utils/saferepr.py `saferepr` (spec 1.9) on values: text is always in
//! single quotes, deep containers are `[...]`, long text is cut and closed. Nothing may parse
//! these texts. Compared with real Celery in this module's tests.

mod writer;

use self::writer::Writer;
use crate::json::{Map, Value};
use crate::limits::REPR_CHARS_MAX;

pub(crate) use self::writer::exception_arguments;

/// Prints positional arguments as a Python tuple: the header `argsrepr`.
pub fn args_repr(args: &[Value]) -> String {
    args_repr_within(args, REPR_CHARS_MAX)
}

/// Prints positional arguments as a Python tuple, cut after about `chars_max` characters.
pub fn args_repr_within(args: &[Value], chars_max: usize) -> String {
    let mut writer = Writer::new(chars_max);
    writer.tuple(args);
    writer.finish()
}

/// Prints keyword arguments as a Python dict: the header `kwargsrepr`.
pub fn kwargs_repr(kwargs: &Map) -> String {
    kwargs_repr_within(kwargs, REPR_CHARS_MAX)
}

/// Prints keyword arguments as a Python dict, cut after about `chars_max` characters.
pub fn kwargs_repr_within(kwargs: &Map, chars_max: usize) -> String {
    let mut writer = Writer::new(chars_max);
    writer.dict(kwargs);
    writer.finish()
}

/// Prints any value as Python would: the `result` of a `task-succeeded` event.
pub fn value_repr(value: &Value) -> String {
    let mut writer = Writer::new(REPR_CHARS_MAX);
    writer.value(value);
    writer.finish()
}

#[cfg(test)]
mod tests;
