//! Instants as Celery writes and reads them.
//!
//! Celery prints `datetime.isoformat()` and parses with dateutil's `isoparse` (spec 1.1). A time
//! without an offset is UTC. Precision is one microsecond, Python's.

mod parts;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use thiserror::Error;

pub(crate) use self::parts::{DateParts, Parts, TimeParts};

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not an ISO 8601 time: {text:?}")]
pub struct TimeError {
    /// The text, cut to a few characters.
    pub text: String,
}

/// Parses an instant as dateutil 2.9 `isoparse` does; without an offset it is UTC.
///
/// Accepts `Z` and offsets, years and months alone, week dates (`2026-W47-6`), the basic forms
/// without separators, any character between date and time, hour 24, and a fraction after `.` or
/// `,` of which digits beyond the sixth are dropped.
pub fn parse_iso(text: &str) -> Result<Timestamp, TimeError> {
    Parts::parse(text)
        .and_then(Parts::timestamp)
        .ok_or_else(|| TimeError { text: crate::json::cut(text) })
}

/// Prints an instant as Python's `datetime.isoformat()` in UTC, with at most six digits.
///
/// Digits below a microsecond are cut; a fraction of zero is left out:
/// `2030-01-01T00:00:00+00:00`.
pub fn print_iso(instant: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(instant);
    let micros = civil.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}+00:00",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
    )
}

#[cfg(test)]
mod tests;
