//! Profiles the columns of a CSV file: the plain functions that the demo's tasks call.
//!
//! Owns reading ([`Table`]), statistics ([`ColumnProfile`]) and the HTML page ([`Report`]).
//! Does no I/O, reads no clock and knows nothing about queues: bytes in, values out.
//! Invariant: the result depends on the bytes alone. Two runs, on any machine and in any order of
//! columns, give equal profiles to the last bit.
//! Size invariant: a profile is small whatever the file holds (texts are cut to
//! [`VALUE_CHARS_MAX`], lists to [`EXAMPLES_MAX`]), so that it fits a task's result.
//! Tested beside each module, and against an independent computation in Python:
//! `tests/data/profile_reference.py`.

mod chart;
mod column;
mod date;
mod encoding;
mod html;
mod kind;
mod numbers;
mod report;
mod structure;
mod table;

pub use column::{
    ColumnProfile, EXAMPLES_MAX, NULL_TOKENS, PROGRESS_ROWS, Scalar, TextLengths, VALUE_CHARS_MAX,
    ValueCount,
};
pub use kind::ColumnKind;
pub use numbers::Outliers;
pub use report::Report;
pub use table::{Table, TableError, TableLimits};
