//! How entries that an application or a file gives become part of the schedule in a store.

use super::{Entry, SourceKind};
use celeriac_wire::Value;
use std::collections::BTreeMap;

/// What is to be done with an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Add(Box<Entry>),
    /// Its source has changed it; whether it is paused and who owns it stays.
    Replace(Box<Entry>),
    /// Its source has it no more.
    Remove(String),
    /// It is left as it is, although its source says something else.
    Keep(String, Reason),
}

/// Why an entry is not what its source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was changed here since.
    Edited,
    /// It was changed here since, and its source has it no more.
    EditedAndGone,
    /// An entry of another source has its name.
    Taken(SourceKind),
}

/// Compares what a source gives with what is stored. Entries of other sources are not touched, and
/// what was changed in the store is never overwritten.
pub fn reconcile(stored: &[Entry], given: Vec<Entry>, kind: SourceKind) -> Vec<Change> {
    let known: BTreeMap<&str, &Entry> =
        stored.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut changes = Vec::new();
    let mut names = Vec::with_capacity(given.len());
    for mut entry in given {
        entry.source.kind = kind;
        entry.source.original = Some(Box::new(Value::Object(entry.definition())));
        names.push(entry.name.clone());
        match known.get(entry.name.as_str()) {
            None => changes.push(Change::Add(Box::new(entry))),
            Some(old) if old.source.kind != kind => {
                changes.push(Change::Keep(entry.name, Reason::Taken(old.source.kind)));
            }
            Some(old) if old.source.original == entry.source.original => {}
            Some(old) if is_edited(old) => {
                changes.push(Change::Keep(entry.name, Reason::Edited));
            }
            Some(old) => {
                entry.enabled = old.enabled;
                entry.owner = old.owner.clone();
                changes.push(Change::Replace(Box::new(entry)));
            }
        }
    }
    names.sort_unstable();
    for old in stored.iter().filter(|old| old.source.kind == kind) {
        if names.binary_search(&old.name).is_err() {
            changes.push(if is_edited(old) {
                Change::Keep(old.name.clone(), Reason::EditedAndGone)
            } else {
                Change::Remove(old.name.clone())
            });
        }
    }
    changes
}

/// Whether an entry was changed after it was taken over from its source.
fn is_edited(entry: &Entry) -> bool {
    let now = Value::Object(entry.definition());
    entry.source.original.as_deref().is_some_and(|original| *original != now)
}
