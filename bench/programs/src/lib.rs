//! What the programs share.

use std::io::Write as _;
use std::time::SystemTime;

/// The time of day in seconds, as the Python peers take it.
pub fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Appends the time since `sent_at`, in microseconds, to the file in `STAMPS`.
pub fn stamp_into_file(sent_at: f64) {
    let micros = (now() - sent_at) * 1e6;
    let path = std::env::var("STAMPS").expect("STAMPS names a file");
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("it");
    writeln!(file, "{micros:.0}").expect("the disk has room");
}
