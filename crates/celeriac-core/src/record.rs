//! Makes result records: Celery's document and what lists need beside it.

use crate::store::ResultRecord;
use celeriac_wire::{ExceptionInfo, Headers, ResultMeta, State, Value};
use jiff::Timestamp;

/// What is known of the run that results are recorded for.
#[derive(Clone, Debug)]
pub struct Recorder<'a> {
    /// The node that ran the task.
    pub worker: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// When its message was enqueued.
    pub enqueued_at: Option<Timestamp>,
    /// When its run began.
    pub started_at: Option<Timestamp>,
    /// The time of writing.
    pub now: Timestamp,
}

impl Recorder<'_> {
    /// The result of the message with these headers.
    #[expect(clippy::needless_pass_by_value, reason = "a state is as small as its reference")]
    pub fn of(
        &self,
        headers: &Headers,
        state: State,
        result: Value,
        traceback: Option<&str>,
    ) -> ResultRecord {
        let id = headers.id().unwrap_or_default();
        let mut meta = ResultMeta::new(id, &state, result);
        meta.set_traceback(traceback);
        if state.is_ready() {
            meta.set_date_done(Some(self.now));
        }
        if let Some(group) = headers.group() {
            meta.set_group_id(group);
        }
        if let Some(parent) = headers.parent_id() {
            meta.set_parent_id(parent);
        }
        ResultRecord {
            meta,
            task: headers.task().map(str::to_owned),
            queue: Some(self.queue.to_owned()),
            worker: Some(self.worker.to_owned()),
            enqueued_at: self.enqueued_at,
            started_at: self.started_at,
            written_at: self.now,
            retries: headers.retries(),
        }
    }

    /// The result of a task that ends without having run.
    #[expect(clippy::needless_pass_by_value, reason = "a state is as small as its reference")]
    pub fn failed(
        &self,
        id: &str,
        task: Option<&str>,
        state: State,
        exception: &ExceptionInfo,
    ) -> ResultRecord {
        let mut meta = ResultMeta::of_exception(id, &state, exception);
        meta.set_date_done(Some(self.now));
        ResultRecord {
            meta,
            task: task.map(str::to_owned),
            queue: None,
            worker: Some(self.worker.to_owned()),
            enqueued_at: None,
            started_at: None,
            written_at: self.now,
            retries: 0,
        }
    }
}
