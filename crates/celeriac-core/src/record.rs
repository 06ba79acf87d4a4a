//! Makes result records: Celery's document and what lists need beside it.

use crate::store::ResultRecord;
use celeriac_wire::{Body, ExceptionInfo, Headers, ResultMeta, State, Value};
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
    /// What it has sent (Celery's `children`).
    pub children: Vec<Value>,
    /// What it was called with, where results say so (Celery's `result_extended`).
    pub arguments: Option<Body>,
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
        if !self.children.is_empty() {
            meta.set_children(Some(self.children.clone()));
        }
        if let Some(body) = &self.arguments {
            self.extend(&mut meta, headers, body);
        }
        self.traced(headers, meta)
    }

    /// The record of a result that Celery has made for the message with these headers.
    pub fn traced(&self, headers: &Headers, meta: ResultMeta) -> ResultRecord {
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

    /// Adds what extended results have (wire specification 4.2).
    fn extend(&self, meta: &mut ResultMeta, headers: &Headers, body: &Body) {
        meta.set("name", headers.task());
        meta.set("args", body.args.clone()).set("kwargs", body.kwargs.clone());
        meta.set("worker", self.worker).set("retries", u64::from(headers.retries()));
        meta.set("queue", self.queue);
        let (names, stamps) = (headers.stamped_headers(), headers.stamps());
        if !names.is_empty() && !stamps.is_empty() {
            for name in &names {
                if let Some(value) = stamps.get(name) {
                    meta.set(name, value.clone());
                }
            }
            meta.set("stamped_headers", names.into_iter().map(Value::from).collect::<Vec<_>>());
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

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_wire::Map;

    fn meta(recorder: &Recorder<'_>) -> String {
        let mut headers = Headers::new("proj.add", "an-id");
        headers.set_stamps(Map::from([("trace", Value::from("t-1"))]));
        let record = recorder.of(&headers, State::Success, Value::from(3), None);
        String::from_utf8(record.meta.to_bytes()).unwrap()
    }

    /// The order of the keys is Celery's (celery 5.7.0 backends/base.py `_get_result_meta`).
    #[test]
    fn extended_results_say_what_was_called() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let bare = Recorder {
            worker: "w1@a",
            queue: "side",
            enqueued_at: None,
            started_at: None,
            now,
            children: Vec::new(),
            arguments: None,
        };
        let start = r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": []"#;
        let done = r#""date_done": "2026-11-21T12:00:00+00:00""#;
        assert_eq!(meta(&bare), format!("{start}, {done}, \"task_id\": \"an-id\"}}"));
        let body = Body::new(vec![Value::from(1)], Map::from([("y", Value::from(2))]));
        let extended = Recorder { arguments: Some(body), ..bare };
        let more = r#""name": "proj.add", "args": [1], "kwargs": {"y": 2}, "worker": "w1@a", "retries": 0, "queue": "side", "stamped_headers": ["trace"], "trace": "t-1""#;
        assert_eq!(meta(&extended), format!("{start}, {done}, {more}, \"task_id\": \"an-id\"}}"));
    }
}
