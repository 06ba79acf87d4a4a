//! What the values of a column are, decided from their spelling alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::date::{parse_date, parse_datetime};
use super::numbers::{parse_float, parse_integer};

/// Type of a column: the first of these that every value which is not null matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// No value at all, or nulls only.
    Empty,
    /// Digits with an optional sign that fit 64 bits. Leading zeros make it text: `007` is a code.
    Integer,
    /// A finite decimal number such as `-1.5`, `.5` or `6e23`, or an integer.
    Float,
    /// `true`, `false`, `yes` or `no` in any case.
    Boolean,
    /// A year-first date: `2024-02-29` or `2024/02/29`.
    Date,
    /// A date with a time: `2024-02-29T12:00:00.5+01:00`, `2024-02-29 12:00`.
    Datetime,
    /// Anything else.
    Text,
}

impl ColumnKind {
    /// Infers the kind from all values that are not null, trimmed, each with its count.
    pub(super) fn infer(values: &[(&str, usize)]) -> Self {
        if values.is_empty() {
            return Self::Empty;
        }
        [Self::Integer, Self::Float, Self::Boolean, Self::Date, Self::Datetime]
            .into_iter()
            .find(|kind| values.iter().all(|&(value, _)| kind.matches(value)))
            .unwrap_or(Self::Text)
    }

    fn matches(self, value: &str) -> bool {
        match self {
            Self::Empty => false,
            Self::Integer => parse_integer(value).is_some(),
            Self::Float => parse_float(value).is_some(),
            Self::Boolean => {
                ["true", "false", "yes", "no"].iter().any(|word| value.eq_ignore_ascii_case(word))
            }
            Self::Date => parse_date(value).is_some(),
            Self::Datetime => parse_datetime(value).is_some(),
            Self::Text => true,
        }
    }

    /// Returns whether the column has statistics of numbers.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Float)
    }

    /// Returns the name as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
