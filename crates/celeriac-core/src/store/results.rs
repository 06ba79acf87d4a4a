//! The result backend role.

use crate::error::StoreError;
use crate::lease::Lease;
use async_trait::async_trait;
use celeriac_wire::ResultMeta;
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// A result document and what the store keeps beside it for lists and pages.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRecord {
    /// Celery's document (wire specification 4.2).
    pub meta: ResultMeta,
    /// The task's name, if known.
    pub task: Option<String>,
    /// The queue it came from.
    pub queue: Option<String>,
    /// The node that ran it.
    pub worker: Option<String>,
    /// When its message was enqueued.
    pub enqueued_at: Option<Timestamp>,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it was written.
    pub written_at: Timestamp,
    /// How often it was retried.
    pub retries: u32,
}

/// Keeps outcomes.
#[async_trait]
pub trait Results: fmt::Debug + Send + Sync {
    /// Stores an intermediate state (STARTED, a custom state, progress) on behalf of the lease's
    /// owner; `false` when the lease is no longer ours or a final state stands. Not durable.
    async fn store_state(&self, lease: Lease, record: ResultRecord) -> Result<bool, StoreError>;

    /// The stored result of a task.
    async fn result(&self, task_id: &str) -> Result<Option<ResultRecord>, StoreError>;

    /// The stored results of several tasks, in their order.
    async fn results(&self, task_ids: &[String]) -> Result<Vec<Option<ResultRecord>>, StoreError>;

    /// Waits until the task is ready, at most for `timeout`; returns what is stored then.
    async fn wait_result(
        &self,
        task_id: &str,
        timeout: Duration,
    ) -> Result<Option<ResultRecord>, StoreError>;

    /// Deletes a result; `false` when there was none.
    async fn forget(&self, task_id: &str) -> Result<bool, StoreError>;

    /// Deletes up to `count_max` results that ended before their expiry; returns how many.
    async fn expire_results(&self, count_max: usize) -> Result<usize, StoreError>;
}
