//! Makes what the sources of a beat give part of the schedule, when it starts.

use celeriac_core::StoreError;
use celeriac_core::beat::{Change, Entry, Reason, SourceKind, reconcile};
use celeriac_core::operate::entries::{self, Kept};
use celeriac_core::store::{EntryRecord, Store};
use celeriac_wire::Value;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many entries are read at a time.
const PAGE: usize = 1000;

/// What a source gives.
pub(super) type Given = (SourceKind, Vec<Entry>);

/// Makes the entries of sources part of the schedule, one source after the other, and says what is left as it
/// is. The store is looked through once for all of them.
///
/// # Errors
/// The store's.
pub(super) async fn take_over(
    store: &dyn Store,
    sources: Vec<Given>,
    now: impl Fn() -> Timestamp,
) -> Result<(), StoreError> {
    if sources.is_empty() {
        return Ok(());
    }
    let mut stored = Stored::read(store, &sources).await?;
    for (kind, given) in sources {
        stored.take_over(store, kind, given, now()).await?.say(kind);
    }
    Ok(())
}

/// What a source is compared with: its own entries, and those that have a name that it gives.
#[derive(Debug)]
struct Part {
    kind: SourceKind,
    names: BTreeSet<String>,
}

impl Part {
    fn of((kind, given): &Given) -> Self {
        Self { kind: *kind, names: given.iter().map(|entry| entry.name.clone()).collect() }
    }

    /// Whether an entry belongs to it, by what the store says of where it comes from.
    fn has(&self, name: &str, source: Option<&str>, has_original: bool) -> bool {
        // Among RedBeat's own are others than the application's.
        let is_static = self.kind != SourceKind::RedBeat || has_original;
        (source == Some(self.kind.as_str()) && is_static) || self.names.contains(name)
    }

    fn has_record(&self, record: &EntryRecord) -> bool {
        let source = record.entry.get("source").and_then(Value::as_str);
        self.has(&record.name, source, record.entry.get("original").is_some())
    }

    fn has_entry(&self, entry: &Entry) -> bool {
        let source = &entry.source;
        self.has(&entry.name, Some(source.kind.as_str()), source.original.is_some())
    }
}

/// The stored entries that matter to the sources which are still to be taken over: of a million others
/// nothing is kept.
#[derive(Debug)]
struct Stored {
    /// Of the sources in their order.
    parts: VecDeque<Part>,
    entries: BTreeMap<String, Entry>,
}

/// What became of the entries of a source.
#[derive(Debug)]
struct Taken {
    /// How many are new, changed or removed.
    count: usize,
    /// What was left as it is.
    left: Vec<(String, Reason)>,
}

impl Stored {
    async fn read(store: &dyn Store, sources: &[Given]) -> Result<Self, StoreError> {
        let parts = sources.iter().map(Part::of).collect();
        let mut stored = Self { parts, entries: BTreeMap::new() };
        let mut after = String::new();
        loop {
            let page = store.entries(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(stored) };
            after.clone_from(&last.name);
            for record in &page {
                if stored.parts.iter().any(|part| part.has_record(record)) {
                    stored.keep(record);
                }
            }
        }
    }

    fn keep(&mut self, record: &EntryRecord) {
        match Kept::read(record) {
            Ok(kept) => drop(self.entries.insert(kept.entry.name.clone(), kept.entry)),
            Err(error) => tracing::warn!(%error, "schedule: an entry is left as it is"),
        }
    }

    /// Takes over the next source.
    async fn take_over(
        &mut self,
        store: &dyn Store,
        kind: SourceKind,
        given: Vec<Entry>,
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        let part = self.parts.pop_front();
        let own =
            self.entries.values().filter(|entry| part.iter().any(|part| part.has_entry(entry)));
        let own: Vec<Entry> = own.cloned().collect();
        let changes = reconcile(&own, given, kind);
        let written: Vec<String> = changes.iter().filter_map(written_name).collect();
        let left = entries::apply_changes(store, changes, now).await?;
        let count = written.len();
        for name in written {
            let matters = |part: &Part| part.kind == kind || part.names.contains(&name);
            if self.parts.iter().any(matters) {
                self.entries.remove(&name);
                if let Some(record) = store.entry(&name).await? {
                    self.keep(&record);
                }
            }
        }
        Ok(Taken { count, left })
    }
}

/// The name of an entry that a change writes.
fn written_name(change: &Change) -> Option<String> {
    match change {
        Change::Add(entry) | Change::Replace(entry) => Some(entry.name.clone()),
        Change::Remove(name) => Some(name.clone()),
        Change::Keep(..) => None,
    }
}

impl Taken {
    /// Tells the log.
    fn say(&self, kind: SourceKind) {
        let source = kind.as_str();
        for (name, reason) in &self.left {
            match reason {
                Reason::Edited => tracing::warn!(
                    "schedule: {name:?} was changed here, and differs from what {source} says now; \
                     `celeriac schedule reset {name}` takes that"
                ),
                Reason::EditedAndGone => tracing::warn!(
                    "schedule: {name:?} was changed here, and {source} has it no more; \
                     `celeriac schedule remove {name}` removes it"
                ),
                Reason::Taken(other) => tracing::warn!(
                    "schedule: {name:?} of {source} is not taken over: an entry of {} has its name",
                    other.as_str()
                ),
            }
        }
        if self.count > 0 {
            tracing::info!("schedule: {} entries of {source} are new or changed", self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use celeriac_core::schedule::{Interval, Schedule, Zone};
    use std::sync::Arc;
    use std::time::Duration;

    fn at(minute: i8) -> Timestamp {
        let midnight: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        midnight + jiff::SignedDuration::from_mins(minute.into())
    }

    fn entry(name: &str, seconds: u64) -> Entry {
        let every = Interval::new(Duration::from_secs(seconds), false).unwrap();
        Entry::new(name, "t.add", Schedule::Interval(every), Zone::utc()).unwrap()
    }

    async fn store() -> Arc<dyn Store> {
        let app = App::at("memory://").unwrap();
        Arc::clone(app.client().await.unwrap().store())
    }

    /// Takes sources over as a start does; returns what was left as it is.
    async fn start(store: &dyn Store, sources: Vec<Given>) -> Vec<(String, Reason)> {
        let mut stored = Stored::read(store, &sources).await.unwrap();
        let mut left = Vec::new();
        for (kind, given) in sources {
            left.extend(stored.take_over(store, kind, given, at(1)).await.unwrap().left);
        }
        left
    }

    /// Names with their sources and seconds.
    async fn schedule(store: &dyn Store) -> Vec<String> {
        let all = entries::all_entries(store).await.unwrap();
        let line = |kept: Kept| {
            let (entry, kind) = (&kept.entry, kept.entry.source.kind.as_str());
            let every = entry.schedule.to_value().get("every").and_then(Value::as_f64);
            format!("{} {kind} {}", entry.name, every.unwrap())
        };
        all.into_iter().map(|one| line(one.unwrap())).collect()
    }

    #[tokio::test]
    async fn of_two_sources_with_one_name_the_first_has_it() {
        let store = store().await;
        let both = || {
            vec![
                (SourceKind::Config, vec![entry("a", 10), entry("b", 10)]),
                (SourceKind::App, vec![entry("b", 20), entry("c", 20)]),
                (SourceKind::Program, vec![entry("c", 30), entry("d", 30)]),
            ]
        };
        let taken = [
            ("b".to_owned(), Reason::Taken(SourceKind::Config)),
            ("c".to_owned(), Reason::Taken(SourceKind::App)),
        ];
        let all = ["a config 10", "b config 10", "c app 20", "d program 30"];
        for _ in 0..2 {
            assert_eq!(start(&*store, both()).await, taken);
            assert_eq!(schedule(&*store).await, all);
        }
    }

    #[tokio::test]
    async fn a_name_that_a_source_gives_up_is_taken_by_a_later_one() {
        let store = store().await;
        let first = vec![(SourceKind::App, vec![entry("a", 10), entry("b", 10)])];
        assert!(start(&*store, first).await.is_empty());
        // As where RedBeat's keys are shared, which get what was the application's.
        let second = || {
            vec![
                (SourceKind::App, Vec::new()),
                (SourceKind::RedBeat, vec![entry("a", 10)]),
                (SourceKind::Program, vec![entry("a", 30), entry("b", 30)]),
            ]
        };
        let taken = [("a".to_owned(), Reason::Taken(SourceKind::RedBeat))];
        for _ in 0..2 {
            assert_eq!(start(&*store, second()).await, taken);
            assert_eq!(schedule(&*store).await, ["a redbeat 10", "b program 30"]);
        }
    }

    #[tokio::test]
    async fn entries_of_others_and_changed_ones_are_left_to_the_end() {
        let store = store().await;
        entries::add_entry(&*store, entry("by hand", 5), None, at(0)).await.unwrap();
        let first = vec![(SourceKind::Config, vec![entry("a", 10)])];
        assert!(start(&*store, first).await.is_empty());
        let change = |kept: &mut Kept| {
            kept.entry.description = "of ours".to_owned();
            Ok(())
        };
        entries::change_entry(&*store, "a", at(0), change).await.unwrap();
        let second = vec![
            (SourceKind::Config, Vec::new()),
            (SourceKind::App, vec![entry("a", 20), entry("by hand", 20)]),
        ];
        let left = [
            ("a".to_owned(), Reason::EditedAndGone),
            ("a".to_owned(), Reason::Taken(SourceKind::Config)),
            ("by hand".to_owned(), Reason::Taken(SourceKind::Store)),
        ];
        assert_eq!(start(&*store, second).await, left);
        assert_eq!(schedule(&*store).await, ["a config 10", "by hand store 5"]);
    }
}
