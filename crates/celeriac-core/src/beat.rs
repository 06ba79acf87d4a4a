//! What a beat decides: what an entry is, what is to be fired now, and how entries of different sources
//! become one schedule.
//!
//! Pure: the time and how tasks ended are arguments. `crate::schedule` says when an entry is due; a
//! store keeps entries and occurrences ([`crate::store::Schedules`]); the runtime's beat does what is
//! decided here.

mod entry;
mod look;
mod reconcile;
pub mod redbeat;
mod state;

pub use entry::{
    ENTRY_NAME_BYTES_MAX, Entry, EntryError, Misfire, Overlap, Owner, Source, SourceKind,
};
pub use look::{FIRES_MAX, Look, Step, look, occurrence_id};
pub use reconcile::{Change, Reason, reconcile};
pub use state::EntryState;

#[cfg(test)]
mod tests;
