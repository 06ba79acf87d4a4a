//! A trace goes through tasks, their retries, what they send and what follows them.

use super::{Place, Site};
use crate::kit::PATIENCE;
use crate::running::start;
use celeriac::TraceContext;
use celeriac::prelude::*;
use celeriac_web::schema;
use celeriac_wire::Value;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What the message said, and where its run stands.
fn seen(context: &Context) -> (String, String) {
    let sent = TraceContext::of(context.headers()).unwrap();
    (sent.to_string(), context.trace().unwrap().span_id())
}

#[task(name = "trace.child")]
async fn child(context: Context) -> (String, String) {
    seen(&context)
}

#[task(name = "trace.parent", max_retries = 1, retry_delay = "1ms")]
async fn parent(context: Context) -> Result<Vec<(String, String)>> {
    if context.attempt() == 1 {
        return Err(std::io::Error::other("once more").into());
    }
    let theirs = context.client().send(child::call()).await?.get(PATIENCE).await?;
    Ok(vec![seen(&context), theirs])
}

#[task(name = "trace.last")]
async fn last(before: Vec<(String, String)>, context: Context) -> Vec<(String, String)> {
    [before, vec![seen(&context)]].concat()
}

#[tokio::test]
async fn children_and_successors_go_on_with_the_trace_in_spans_of_their_own() {
    for place in Place::every() {
        let app = place.app().tasks(tasks![parent, child, last]);
        let worker = start(&app).await;
        let context = TraceContext::parse(PARENT, Some("v=1")).unwrap();
        let first = parent::call().trace(&context);
        let job = worker.client.send(chain(first).then(last::partial())).await.unwrap();
        let seen = job.get(PATIENCE).await.unwrap();
        let [(parent_sent, parent_run), (child_sent, child_run), (last_sent, last_run)] = &seen[..]
        else {
            panic!("{seen:?}")
        };
        assert_eq!(parent_sent, PARENT, "the retry has it still");
        for (sent, what) in [(child_sent, "the child"), (last_sent, "the next step")] {
            assert_eq!(*sent, format!("00-{TRACE}-{parent_run}-01"), "{what}");
        }
        let mut spans = vec![parent_run, child_run, last_run];
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), 3);
        worker.stop().await;
    }
}

/// Whoever sends the body of a chord knows no other message: the members hand the trace on.
#[tokio::test]
async fn the_body_of_a_chord_goes_on_with_the_trace_of_its_first_member() {
    for place in Place::every() {
        let app = place.app().tasks(tasks![child, last]);
        let worker = start(&app).await;
        let context = TraceContext::parse(PARENT, None).unwrap();
        let members = [child::call().trace(&context), child::call().trace(&context)];
        let work = chord(group(members)).then(last::partial());
        let seen = worker.client.send(work).await.unwrap().get(PATIENCE).await.unwrap();
        assert_eq!(seen.len(), 3);
        assert_eq!((&*seen[0].0, &*seen[1].0), (PARENT, PARENT));
        assert_eq!(seen[2].0, format!("00-{TRACE}-{}-01", seen[0].1));
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_request_hands_its_trace_to_the_task() {
    let app = Place::memory().app();
    let site = Site::start(&app).await;
    for (given, expected) in [(PARENT, Some(PARENT)), ("00-odd", None)] {
        let more = format!("traceparent: {given}\r\ntracestate: v=1\r\n");
        let sent = site.post_with("/api/v1/tasks", r#"{"task": "t"}"#, &more).await;
        let sent: schema::SentTask = sent.read(201);
        let task: schema::Task =
            site.get(&format!("/api/v1/tasks/{}", sent.task_id)).await.read(200);
        let headers = task.headers.unwrap();
        assert_eq!(headers.get("traceparent").and_then(Value::as_str), expected);
        assert_eq!(headers.get("tracestate").is_some(), expected.is_some());
    }
}
