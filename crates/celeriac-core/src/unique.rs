//! Unique tasks: one message for a key at a time. Pure.
//!
//! The lock is held by the message itself, so it ends with it, however it ends; no time has to be
//! guessed. Members of groups and chords are never dropped: their workflow would wait for ever.

use celeriac_wire::{Headers, Map, Value};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The header that asks for uniqueness: an object with `key`, `until` and `window` (seconds).
pub const UNIQUE_HEADER: &str = "celeriac_unique";
/// The longest key, in bytes.
pub const UNIQUE_KEY_BYTES_MAX: usize = 255;

/// How long a unique message keeps others of its key out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Until a worker takes it: a change after that needs another run. A message that goes back does
    /// not take the key again.
    Started,
    /// Until it left the queue: done, failed, revoked, purged.
    #[default]
    Finished,
}

impl Until {
    /// Its word in options and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "started" => Ok(Self::Started),
            "finished" => Ok(Self::Finished),
            _ => Err(format!("{text:?}: a task is unique until `started` or `finished`")),
        }
    }
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Messages with the same key exclude each other.
    pub key: String,
    /// How long the message itself holds the key.
    pub until: Until,
    /// How long after it was sent the key stays taken, even if the task has ended.
    pub window: Option<Duration>,
}

impl Unique {
    /// Unique until finished.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), until: Until::default(), window: None }
    }

    /// Reads the wish of a message; `None` when it has none, or one that cannot be understood.
    pub fn of(headers: &Headers) -> Option<Self> {
        let wish = headers.get(UNIQUE_HEADER)?;
        let key = wish.get("key")?.as_str()?.to_owned();
        let until = wish.get("until").and_then(Value::as_str).unwrap_or("finished").parse().ok()?;
        let window = wish.get("window").and_then(Value::as_f64);
        let window = window.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let usable = !key.is_empty() && key.len() <= UNIQUE_KEY_BYTES_MAX;
        usable.then_some(Self { key, until, window })
    }

    /// The header's value.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("key", self.key.as_str());
        map.insert("until", self.until.as_str());
        if let Some(window) = self.window {
            map.insert("window", window.as_secs_f64());
        }
        Value::Object(map)
    }
}

/// Whether a message may be dropped as a duplicate: not when a workflow waits for it.
pub fn may_be_dropped(headers: &Headers) -> bool {
    headers.group().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_round_trips_through_a_header() {
        let mut headers = Headers::default();
        assert_eq!(Unique::of(&headers), None);
        for unique in [
            Unique::new("report 7"),
            Unique {
                key: "k".into(),
                until: Until::Started,
                window: Some(Duration::from_millis(1500)),
            },
        ] {
            headers.insert(UNIQUE_HEADER, unique.to_value());
            assert_eq!(Unique::of(&headers), Some(unique));
        }
        for wrong in
            [Value::from("k"), Unique::new("").to_value(), Unique::new("x".repeat(256)).to_value()]
        {
            headers.insert(UNIQUE_HEADER, wrong);
            assert_eq!(Unique::of(&headers), None);
        }
    }

    #[test]
    fn members_of_groups_are_never_dropped() {
        let mut headers = Headers::default();
        assert!(may_be_dropped(&headers));
        headers.set_group(Some("g"));
        assert!(!may_be_dropped(&headers));
    }
}
