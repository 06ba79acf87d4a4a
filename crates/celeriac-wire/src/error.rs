//! Why a message, result or event was refused.

use thiserror::Error;

use crate::json::{JsonError, Value};

/// A field that is missing or has the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct FieldError {
    /// The field, with its path: `headers.eta`.
    pub field: String,
    /// What was wanted: `an ISO 8601 time`.
    pub expected: String,
    /// What was there: `the integer 5`, or `nothing`.
    pub found: String,
}

impl FieldError {
    /// Describes a value that is not what the field needs.
    pub fn new(field: impl Into<String>, expected: impl Into<String>, found: &Value) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.describe() }
    }

    /// Describes a field that is not there.
    pub fn missing(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into(), found: "nothing".to_owned() }
    }

    /// Prefixes the field with where it was found: `headers`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        let dot = if self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{prefix}{dot}{}", self.field);
        self
    }
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes are not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The JSON has not the right shape.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The input is larger than its bound in [`limits`](crate::limits).
    #[error("{what} of {size} exceeds the bound of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in the unit of the bound.
        size: usize,
        /// The bound.
        max: usize,
    },
}
