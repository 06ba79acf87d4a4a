//! Named maxima of what a store accepts and keeps.

use std::time::Duration;

/// What a store refuses, and how long it keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// The largest message, headers and properties included, in bytes (default 16 MiB).
    pub message_bytes_max: usize,
    /// The largest result document, in bytes (default 16 MiB).
    pub result_bytes_max: usize,
    /// The most messages in one queue, waiting, scheduled and leased together (default 10 million).
    pub queue_depth_max: u64,
    /// How long a result is kept after the task ended; `None` keeps it for ever (default one day,
    /// Celery's `result_expires`).
    pub result_expires: Option<Duration>,
    /// The most dead letters; past it workers spill to a local file (default 1 million).
    pub dead_letters_max: u64,
    /// The most bytes of dead letters together (default 4 GiB).
    pub dead_bytes_max: u64,
    /// How long a dead letter stays in the store; older ones are moved to the worker's spill file.
    /// `None` keeps them (default).
    pub dead_expires: Option<Duration>,
    /// The most events kept; the oldest go first (default 500 000).
    pub events_max: u64,
    /// How long a revocation is remembered (default 30 days).
    pub revoke_expires: Duration,
    /// The most occurrences kept of each entry of a schedule; the oldest go first (default 100).
    pub occurrences_max: u32,
    /// How long an occurrence is kept at most (default 30 days).
    pub occurrence_expires: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 << 20,
            result_bytes_max: 16 << 20,
            queue_depth_max: 10_000_000,
            result_expires: Some(Duration::from_hours(24)),
            dead_letters_max: 1_000_000,
            dead_bytes_max: 4 << 30,
            dead_expires: None,
            events_max: 500_000,
            revoke_expires: Duration::from_hours(720),
            occurrences_max: 100,
            occurrence_expires: Duration::from_hours(720),
        }
    }
}

/// The most entries of a message's history; the first and the latest are kept.
pub const HISTORY_MAX: usize = 32;
/// The longest text kept of an error in a history entry, in bytes.
pub const DETAIL_BYTES_MAX: usize = 4096;
/// The most that is kept of what a child wrote to stderr before it died, in bytes.
pub const STDERR_BYTES_MAX: usize = 64 << 10;
/// The longest task id, in bytes; longer ones are refused at the publisher.
pub const TASK_ID_BYTES_MAX: usize = 255;
/// The longest name of an entry of a schedule, in bytes.
pub const ENTRY_NAME_BYTES_MAX: usize = 200;
/// The deepest nesting of chords that one settlement may complete.
pub const CHORD_CASCADE_MAX: usize = 64;
