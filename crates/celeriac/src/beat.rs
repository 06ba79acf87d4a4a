//! Builds and runs a beat of an application.

mod sources;

use crate::app::App;
use crate::client::Client;
use crate::{Result, TaskError};
use celeriac_core::beat::{Entry, SourceKind};
use celeriac_core::clock;
use celeriac_core::store::RedBeatKeys;
use celeriac_runtime::{Beat, BeatOptions, BeatParts, Dispatch, Prepared};
use celeriac_wire::Signature;
use std::sync::Arc;
use std::time::Duration;

pub use celeriac_runtime::{BeatStatus, BeatStop};

/// A beat that is not started yet. Any number of them may run; one leads.
#[derive(Clone, Debug)]
#[must_use = "a beat does nothing until it runs"]
pub struct BeatBuilder {
    app: App,
    name: Option<String>,
    options: BeatOptions,
    /// The entries of each source, which are made part of the schedule at the start.
    sources: Vec<sources::Given>,
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
        let mut sources = Vec::new();
        for (kind, given) in std::mem::take(&mut self.sources) {
            if kind == SourceKind::App && shares {
                sources.push((kind, Vec::new()));
                sources.push((SourceKind::RedBeat, given));
            } else {
                sources.push((kind, given));
            }
        }
        sources::take_over(&*store, sources, || client.now()).await?;
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

/// What a beat sends goes the way of every other call.
#[async_trait::async_trait]
impl Dispatch for Client {
    async fn prepare(&self, call: Signature) -> Result<Prepared, String> {
        Self::prepare(self, call).await.map_err(|error: TaskError| error.to_string())
    }
}
