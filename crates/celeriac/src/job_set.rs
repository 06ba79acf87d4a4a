//! Many jobs at once: their results in order, or each as it becomes ready.

use crate::job::{Job, JobError};
use celeriac_core::StoreError;
use celeriac_core::store::ResultRecord;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How often all that is not ready is looked at; the first of them is heard of at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The most results that are read at once.
const READ_MAX: usize = 1000;

/// Jobs whose results are wanted together (Celery's `ResultSet`): collect it from jobs.
///
/// Results are read in batches, by one reader: a set of ten thousand costs no more connections than one job.
///
/// ```
/// # use celeriac::prelude::*;
/// # use celeriac::JobSet;
/// # #[task] async fn square(x: i64) -> i64 { x * x }
/// # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
/// # async fn main() -> celeriac::Result {
/// # let app = App::at("memory://")?.tasks(tasks![square]);
/// let client = app.client().await?;
/// let mut jobs: JobSet<i64> = client.send_all((0..100).map(square::call)).await?.into_iter().collect();
/// # app.worker().stop_when_idle(1.millis()).run().await?;
/// let mut sum = 0;
/// while let Some(done) = jobs.next(10.secs()).await? {
///     sum += done.outcome?; // the first that is ready comes first; done.index says which it is
/// }
/// assert_eq!(sum, 328_350);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct JobSet<R> {
    jobs: Vec<Job<R>>,
    /// Those that `next` has not returned and that are not known to be ready.
    waiting: BTreeSet<usize>,
    ready: VecDeque<(usize, ResultRecord)>,
}

/// One job of a set that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<R> {
    /// Its place in the set.
    pub index: usize,
    /// Its task id.
    pub id: String,
    /// What [`Job::get`] gives.
    pub outcome: Result<R, JobError>,
}

impl<R> FromIterator<Job<R>> for JobSet<R> {
    fn from_iter<I: IntoIterator<Item = Job<R>>>(jobs: I) -> Self {
        let jobs: Vec<Job<R>> = jobs.into_iter().collect();
        Self { waiting: (0..jobs.len()).collect(), ready: VecDeque::new(), jobs }
    }
}

impl<R> JobSet<R> {
    /// The jobs, in the order in which they were collected.
    pub fn jobs(&self) -> &[Job<R>] {
        &self.jobs
    }

    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many [`JobSet::next`] will still return.
    pub fn left(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// Their stored result documents, in order; `None` where there is none.
    ///
    /// # Errors
    /// The store's error.
    pub async fn records(&self) -> Result<Vec<Option<ResultRecord>>, StoreError> {
        let all: Vec<usize> = (0..self.jobs.len()).collect();
        let mut records = Vec::with_capacity(all.len());
        for places in all.chunks(READ_MAX) {
            records.extend(self.read(places).await?);
        }
        Ok(records)
    }

    /// Cancels all that have not ended: those that wait never run, the others are told to stop.
    ///
    /// # Errors
    /// The store's error.
    pub async fn cancel(&self) -> Result<(), StoreError> {
        let Some(first) = self.jobs.first() else { return Ok(()) };
        let ids: Vec<String> = self.jobs.iter().map(|job| job.id().to_owned()).collect();
        for ids in ids.chunks(READ_MAX) {
            first.store().revoke(ids, true).await?;
        }
        Ok(())
    }

    async fn read(&self, places: &[usize]) -> Result<Vec<Option<ResultRecord>>, StoreError> {
        let Some(first) = self.jobs.first() else { return Ok(Vec::new()) };
        let ids: Vec<String> = places.iter().map(|at| self.jobs[*at].id().to_owned()).collect();
        first.store().results(&ids).await
    }

    /// Takes note of all that are ready now.
    async fn look(&mut self) -> Result<(), StoreError> {
        let waiting: Vec<usize> = self.waiting.iter().copied().collect();
        for places in waiting.chunks(READ_MAX) {
            for (at, record) in places.iter().zip(self.read(places).await?) {
                if let Some(record) = record.filter(|record| record.meta.state().is_ready()) {
                    self.waiting.remove(at);
                    self.ready.push_back((*at, record));
                }
            }
        }
        Ok(())
    }
}

impl<R: DeserializeOwned> JobSet<R> {
    /// The next job that is ready, each once; `None` when all were returned. Cancel safe.
    ///
    /// # Errors
    /// `Timeout` for the first of those that are not ready, or the store's error; it can be called again.
    pub async fn next(&mut self, timeout: Duration) -> Result<Option<Completed<R>>, JobError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((index, record)) = self.ready.pop_front() {
                let id = self.jobs[index].id().to_owned();
                let outcome = self.jobs[index].reader().outcome_of(&record, &id);
                return Ok(Some(Completed { index, id, outcome }));
            }
            let Some(first) = self.waiting.first().copied() else { return Ok(None) };
            self.look().await?;
            if !self.ready.is_empty() {
                continue;
            }
            let (job, left) =
                (&self.jobs[first], deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let state = job.state().await?.as_str().to_owned();
                return Err(JobError::Timeout { id: job.id().to_owned(), waited: timeout, state });
            }
            job.store().wait_result(job.id(), left.min(LOOK_EVERY)).await?;
        }
    }

    /// Waits for all results, in order; the timeout is for all of them together. Cancel safe.
    ///
    /// # Errors
    /// That of the first job that fails, at once.
    pub async fn get(self, timeout: Duration) -> Result<Vec<R>, JobError> {
        let deadline = Instant::now() + timeout;
        let mut values: Vec<Option<R>> = self.jobs.iter().map(|_| None).collect();
        let mut left: Self = self.jobs.into_iter().collect();
        while let Some(done) = left.next(deadline.saturating_duration_since(Instant::now())).await?
        {
            values[done.index] = Some(done.outcome?);
        }
        Ok(values.into_iter().flatten().collect())
    }
}
