//! Handles on tasks that were sent.

use crate::client::Shared;
use crate::context::{Progress, progress_of};
use crate::job_set::JobSet;
use celeriac_core::seal::Seals;
use celeriac_core::store::{ResultRecord, Store, TaskView};
use celeriac_core::{Clock, StoreError};
use celeriac_wire::{State, from_value};
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Why a job gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The task failed for good.
    #[error("task {id} failed: {exception}")]
    Failed {
        /// The task id.
        id: String,
        /// The exception in one line, as Python prints it.
        exception: String,
        /// Its traceback, if there is one.
        traceback: Option<String>,
    },
    /// The task was revoked, cancelled or came too late; the text says which.
    #[error("task {id} was revoked: {reason}")]
    Revoked {
        /// The task id.
        id: String,
        /// `revoked`, `terminated` or `expired`.
        reason: String,
    },
    /// It is not ready within the timeout; it may become ready later.
    #[error("task {id} is not ready after {waited:?}, its state is {state}")]
    Timeout {
        /// The task id.
        id: String,
        /// How long was waited.
        waited: Duration,
        /// Its state then.
        state: String,
    },
    /// Its value has another type than expected.
    #[error("the result of task {id} has another type: {text}")]
    Decode {
        /// The task id.
        id: String,
        /// Which part, what was expected and what was found.
        text: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A task that was sent; `R` is what it returns.
pub struct Job<R> {
    id: String,
    store: Arc<dyn Store>,
    duplicate: bool,
    reader: Reader,
    result: PhantomData<fn() -> R>,
}

/// Opens results that are sealed.
#[derive(Clone)]
pub(crate) struct Reader {
    seals: Arc<Seals>,
    clock: Arc<dyn Clock>,
}

impl Reader {
    pub(crate) fn of(shared: &Shared) -> Self {
        Self { seals: Arc::clone(&shared.seals), clock: Arc::clone(&shared.clock) }
    }

    /// What a stored final state means for who waits.
    pub(crate) fn outcome_of<R: DeserializeOwned>(
        &self,
        record: &ResultRecord,
        id: &str,
    ) -> Result<R, JobError> {
        let id = id.to_owned();
        let exception = || match record.meta.exception() {
            Ok(Some(exception)) => exception.summary(),
            _ => celeriac_wire::value_repr(record.meta.result()),
        };
        match record.meta.state() {
            State::Success => {
                let value = self.seals.open_value(record.meta.result().clone(), self.clock.wall());
                let value = value.map_err(|text| JobError::Decode { id: id.clone(), text })?;
                from_value(value).map_err(|error| JobError::Decode { id, text: error.to_string() })
            }
            State::Revoked => Err(JobError::Revoked { id, reason: exception() }),
            _ => Err(JobError::Failed {
                id,
                exception: exception(),
                traceback: record.meta.traceback().map(str::to_owned),
            }),
        }
    }
}

impl<R> Clone for Job<R> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            store: Arc::clone(&self.store),
            duplicate: self.duplicate,
            reader: self.reader.clone(),
            result: PhantomData,
        }
    }
}

impl<R> fmt::Debug for Job<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Job").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R> Job<R> {
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn new(
        id: String,
        store: Arc<dyn Store>,
        reader: Reader,
        result: PhantomData<fn() -> R>,
    ) -> Self {
        Self { id, store, duplicate: false, reader, result }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The job of the task that holds the key of a unique call.
    pub(crate) fn held_by(mut self, task_id: String) -> Self {
        self.id = task_id;
        self.duplicate = true;
        self
    }

    /// Whether the call was not sent because another holds its key; this is the other's job.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// The task id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its Celery state; PENDING also when nobody knows it (see [`Job::view`]).
    ///
    /// # Errors
    /// The store's error.
    pub async fn state(&self) -> Result<State, StoreError> {
        Ok(self.record().await?.map_or(State::Pending, |record| record.meta.state()))
    }

    /// Its progress, while it runs and reports any.
    ///
    /// # Errors
    /// The store's error.
    pub async fn progress(&self) -> Result<Option<Progress>, StoreError> {
        let record = self.record().await?;
        Ok(record.and_then(|record| progress_of(&record.meta.state(), record.meta.result())))
    }

    /// Everything that is true of it: queued where, running where, retried when.
    ///
    /// # Errors
    /// The store's error.
    pub async fn view(&self) -> Result<TaskView, StoreError> {
        self.store.task(&self.id).await
    }

    /// Its stored result document.
    ///
    /// # Errors
    /// The store's error.
    pub async fn record(&self) -> Result<Option<ResultRecord>, StoreError> {
        self.store.result(&self.id).await
    }

    /// Cancels it: a waiting task never runs, a running one is told to stop.
    ///
    /// # Errors
    /// The store's error.
    pub async fn cancel(&self) -> Result<(), StoreError> {
        self.store.revoke(std::slice::from_ref(&self.id), true).await
    }

    /// Deletes its result; `false` when there was none.
    ///
    /// # Errors
    /// The store's error.
    pub async fn forget(&self) -> Result<bool, StoreError> {
        self.store.forget(&self.id).await
    }
}

impl<R: DeserializeOwned> Job<R> {
    /// Waits for the result. Cancel safe; may be called again.
    ///
    /// # Errors
    /// [`JobError`]: failed, revoked, not ready in time, of another type, or the store's error.
    pub async fn get(&self, timeout: Duration) -> Result<R, JobError> {
        let record = self.store.wait_result(&self.id, timeout).await?;
        let Some(record) = record.filter(|record| record.meta.state().is_ready()) else {
            let state = self.state().await?.as_str().to_owned();
            return Err(JobError::Timeout { id: self.id.clone(), waited: timeout, state });
        };
        self.reader.outcome_of(&record, &self.id)
    }
}

/// A group that was sent.
#[derive(Debug)]
pub struct GroupJob<R> {
    id: String,
    jobs: Vec<Job<R>>,
}

impl<R> GroupJob<R> {
    pub(crate) fn new(id: String, jobs: Vec<Job<R>>) -> Self {
        Self { id, jobs }
    }

    /// The group id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its members, in order.
    pub fn jobs(&self) -> &[Job<R>] {
        &self.jobs
    }
}

impl<R: DeserializeOwned> GroupJob<R> {
    /// Waits for all results, in order; the timeout is for all of them together.
    ///
    /// # Errors
    /// That of the first member that fails, at once.
    pub async fn get(&self, timeout: Duration) -> Result<Vec<R>, JobError> {
        self.jobs.iter().cloned().collect::<JobSet<R>>().get(timeout).await
    }
}

impl<R> IntoIterator for GroupJob<R> {
    type Item = Job<R>;
    type IntoIter = std::vec::IntoIter<Job<R>>;
    fn into_iter(self) -> Self::IntoIter {
        self.jobs.into_iter()
    }
}
