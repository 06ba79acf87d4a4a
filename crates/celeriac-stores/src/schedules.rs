//! What every store asks of an entry of a schedule before it writes it, and how long it keeps what was
//! fired.

use celeriac_core::limits::{ENTRY_NAME_BYTES_MAX, StoreLimits};
use celeriac_core::store::{EntryRecord, Fire};
use celeriac_core::{ErrorKind, StoreError};
use jiff::Timestamp;

/// The most occurrences that one answer goes on past what was asked for, to the end of those that were
/// fired at one time.
pub(crate) const SAME_TIME_MAX: usize = 10_000;
/// The most lines of an entry that one fire removes, when it has more than it may.
pub(crate) const TRIM_MAX: u32 = 64;

/// An entry's documents as they are kept.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) entry: String,
    pub(crate) state: String,
}

/// Refuses a name that is empty or too long; every other text is one, line feeds included.
fn check_name(name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::invalid("an entry has no name: give it one"));
    }
    if name.len() > ENTRY_NAME_BYTES_MAX {
        let text = format!(
            "an entry's name has {} bytes, at most {ENTRY_NAME_BYTES_MAX} are allowed",
            name.len()
        );
        return Err(StoreError::invalid(text).hint("give it a shorter name"));
    }
    Ok(())
}

fn check_size(name: &str, bytes: usize, limits: &StoreLimits) -> Result<(), StoreError> {
    let max = limits.message_bytes_max;
    if bytes > max {
        let text = format!("the entry {name:?} has {bytes} bytes, the limit is {max}");
        return Err(StoreError::new(ErrorKind::TooLarge, text)
            .hint("store large data elsewhere and send its address, or raise message_bytes_max"));
    }
    Ok(())
}

/// The documents of entries that may be written; an error is for all of them.
pub(crate) fn texts_of(
    records: &[EntryRecord],
    limits: &StoreLimits,
) -> Result<Vec<Texts>, StoreError> {
    let texts = |record: &EntryRecord| {
        check_name(&record.name)?;
        let texts = Texts { entry: record.entry.to_string(), state: record.state.to_string() };
        check_size(&record.name, texts.entry.len() + texts.state.len(), limits)?;
        Ok(texts)
    };
    records.iter().map(texts).collect()
}

/// The state of an entry that fires, which may be written.
pub(crate) fn state_of(fire: &Fire, limits: &StoreLimits) -> Result<String, StoreError> {
    check_name(&fire.name)?;
    let state = fire.state.to_string();
    check_size(&fire.name, state.len(), limits)?;
    Ok(state)
}

/// The most lines of an entry; the latest always stays.
pub(crate) fn lines_max(limits: &StoreLimits) -> u32 {
    limits.occurrences_max.max(1)
}

/// What was fired at this time or before is not kept any more.
pub(crate) fn too_old(now: Timestamp, limits: &StoreLimits) -> Timestamp {
    now.saturating_sub(limits.occurrence_expires).unwrap_or(Timestamp::MIN)
}
