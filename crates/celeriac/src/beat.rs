//! Builds and runs a beat of an application.

use crate::app::App;
use crate::client::Client;
use crate::{Result, TaskError};
use celeriac_core::beat::{Change, Entry, Reason, SourceKind, reconcile};
use celeriac_core::operate::entries::{self, Kept};
use celeriac_core::store::{RedBeatKeys, Store};
use celeriac_core::{StoreError, clock};
use celeriac_runtime::{Beat, BeatOptions, BeatParts, Dispatch, Prepared};
use celeriac_wire::{Signature, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use celeriac_runtime::{BeatStatus, BeatStop};

/// How many entries are read at a time.
const PAGE: usize = 1000;

/// A beat that is not started yet. Any number of them may run; one leads.
#[derive(Clone, Debug)]
#[must_use = "a beat does nothing until it runs"]
pub struct BeatBuilder {
    app: App,
    name: Option<String>,
    options: BeatOptions,
    /// The entries of each source, which are made part of the schedule at the start.
    sources: Vec<(SourceKind, Vec<Entry>)>,
    redbeat: Option<RedBeatKeys>,
}

impl BeatBuilder {
    pub(crate) fn new(app: App) -> Self {
        Self {
            app,
            name: None,
            options: BeatOptions::default(),
            sources: Vec::new(),
            redbeat: None,
        }
    }

    /// Its node name, `celerybeat@host` by default.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// How long a leader that is not heard of keeps the lead; 6 seconds by default, renewed three times as
    /// often. A shorter one fails over sooner, and suffers less delay of the store.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self.options.renew_every = lease / 3;
        self
    }

    /// Answers `ping` of Celery's remote control, so that `celery inspect ping -d celerybeat@host` tells
    /// whether it works; not if it has not worked for so long, zero for any time (celery 5.7,
    /// `beat_enable_remote_control`, `beat_remote_control_max_tick_age`). By default it does not answer.
    pub fn answer_pings(mut self, age_max: Duration) -> Self {
        self.options.pings = Some(age_max);
        self
    }

    /// Entries that a source gives.
    #[cfg(feature = "cli")]
    pub(crate) fn source(mut self, kind: SourceKind, entries: Vec<Entry>) -> Self {
        self.sources.push((kind, entries));
        self
    }

    /// Shares the entries in RedBeat's keys with it; the application's own ones are kept there too, as
    /// RedBeat keeps them.
    #[cfg(feature = "cli")]
    pub(crate) fn redbeat(mut self, keys: RedBeatKeys) -> Self {
        self.redbeat = Some(keys);
        self
    }

    /// Opens the store and makes the application's entries part of the schedule.
    ///
    /// # Errors
    /// The store cannot be opened, or an entry makes no sense.
    pub async fn build(mut self) -> Result<Beat> {
        let client = self.app.client().await?;
        let store = Arc::clone(client.store());
        let own = self.app.entries().iter().cloned().map(crate::schedule::Entry::into_entry);
        let own: Vec<Entry> = own.collect::<Result<_>>()?;
        if !own.is_empty() {
            self.sources.push((SourceKind::Program, own));
        }
        let shares = self.redbeat.is_some();
        if let Some(keys) = self.redbeat.take() {
            store.share_redbeat(keys).await?;
        } else if let Some(view) = store.redbeat().await? {
            tracing::info!(
                prefix = view.prefix,
                "schedule: RedBeat's keys are shared; `celeriac schedule redbeat leave` ends that"
            );
        }
        for (kind, given) in std::mem::take(&mut self.sources) {
            if kind == SourceKind::App && shares {
                take_over(&*store, kind, Vec::new(), client.now()).await?;
                take_over(&*store, SourceKind::RedBeat, given, client.now()).await?;
            } else {
                take_over(&*store, kind, given, client.now()).await?;
            }
        }
        let id = clock::task_id(&**self.app.clock(), &**self.app.entropy());
        let name = self.name.unwrap_or_else(|| format!("celerybeat@{}", self.app.host()));
        let parts = BeatParts {
            store,
            clock: Arc::clone(self.app.clock()),
            dispatch: Arc::new(client),
            name: format!("{name} {id}"),
        };
        Ok(Beat::new(parts, self.options))
    }

    /// Runs until [`BeatStop::stop`]; see [`BeatBuilder::build`] for a handle.
    ///
    /// # Errors
    /// As [`BeatBuilder::build`].
    pub async fn run(self) -> Result<BeatStatus> {
        Ok(self.build().await?.run().await)
    }
}

/// Makes the entries of a source part of the schedule, and says what is left as it is.
pub(crate) async fn take_over(
    store: &dyn Store,
    kind: SourceKind,
    given: Vec<Entry>,
    now: jiff::Timestamp,
) -> Result<(), StoreError> {
    let stored = entries_of(store, kind, &given).await?;
    let changes = reconcile(&stored, given, kind);
    let count = changes.iter().filter(|change| !matches!(change, Change::Keep(..))).count();
    for (name, reason) in entries::apply_changes(store, changes, now).await? {
        let source = kind.as_str();
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
    if count > 0 {
        tracing::info!("schedule: {count} entries of {} are new or changed", kind.as_str());
    }
    Ok(())
}

/// The stored entries of a source, and those that have the name of one that it gives: of a million others
/// nothing is kept.
async fn entries_of(
    store: &dyn Store,
    kind: SourceKind,
    given: &[Entry],
) -> Result<Vec<Entry>, StoreError> {
    let names: BTreeSet<&str> = given.iter().map(|entry| entry.name.as_str()).collect();
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.entries(&after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after.clone_from(&last.name);
        for record in &page {
            let source = record.entry.get("source").and_then(Value::as_str);
            // Among RedBeat's own are others than the application's.
            let is_static = kind != SourceKind::RedBeat || record.entry.get("original").is_some();
            let is_given = source == Some(kind.as_str()) && is_static;
            if !is_given && !names.contains(record.name.as_str()) {
                continue;
            }
            match Kept::read(record) {
                Ok(kept) => found.push(kept.entry),
                Err(error) => tracing::warn!(%error, "schedule: an entry is left as it is"),
            }
        }
    }
}

/// What a beat sends goes the way of every other call.
#[async_trait::async_trait]
impl Dispatch for Client {
    async fn prepare(&self, call: Signature) -> Result<Prepared, String> {
        Self::prepare(self, call).await.map_err(|error: TaskError| error.to_string())
    }
}
