//! `10.secs()`: durations as they are said.

use std::time::Duration;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
}

/// Makes durations from whole numbers.
pub trait DurationExt: sealed::Sealed {
    /// Milliseconds.
    fn millis(self) -> Duration;
    /// Seconds.
    fn secs(self) -> Duration;
    /// Minutes.
    fn mins(self) -> Duration;
    /// Hours.
    fn hours(self) -> Duration;
}

impl DurationExt for u64 {
    fn millis(self) -> Duration {
        Duration::from_millis(self)
    }
    fn secs(self) -> Duration {
        Duration::from_secs(self)
    }
    fn mins(self) -> Duration {
        Duration::from_secs(self.saturating_mul(60))
    }
    fn hours(self) -> Duration {
        Duration::from_secs(self.saturating_mul(3600))
    }
}
