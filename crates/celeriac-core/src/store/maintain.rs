//! Care of a store's own files.

use crate::error::StoreError;
use async_trait::async_trait;
use std::fmt;
use std::path::Path;

/// What a backup wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The size of the copy.
    pub bytes: u64,
    /// Messages in it, in any state.
    pub messages: u64,
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, e.g. a table.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// Whether `check` mended it.
    pub mended: bool,
}

/// Backs up, checks and compacts. Calls may take minutes; `progress` hears parts done of all parts.
#[async_trait]
pub trait Maintain: fmt::Debug + Send + Sync {
    /// Copies the store into a new file while it is in use: a consistent moment of it, on disk when
    /// the call returns.
    ///
    /// # Errors
    /// `Invalid` where the file exists or the store has none; `Full` when there is no room.
    async fn backup(
        &self,
        target: &Path,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Backup, StoreError>;

    /// Looks for damage and for counters that are wrong; mends the counters with `mend`.
    async fn check(&self, mend: bool) -> Result<Vec<Finding>, StoreError>;

    /// Gives space back to the disk; returns the bytes before and after. Nothing else can write
    /// meanwhile.
    async fn compact(&self) -> Result<(u64, u64), StoreError>;
}
