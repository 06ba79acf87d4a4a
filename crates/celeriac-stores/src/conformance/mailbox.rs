//! Remote control: who hears a request, and where replies go.

use super::fixture::{Fixture, Harness, PATIENCE};
use celeriac_core::ErrorKind;
use celeriac_core::store::{Inbox, Requests, ask};
use celeriac_wire::{ControlReply, ControlRequest, Map, ReplyTo, Value};
use std::time::Duration;

/// How long an asker waits for a reply that does not come.
const SHORT: Duration = Duration::from_millis(50);

fn request(method: &str) -> ControlRequest {
    let arguments = Map::from([("task_id", Value::from("é\u{6}\u{16}")), ("n", Value::from(1.50))]);
    let mut request = ControlRequest::new(method, arguments).to(&["celery@a".to_owned()]);
    (request.clock, request.expires) = (7, 1_795_226_282.53);
    request
}

fn reply(ticket: &str, node: &str) -> ControlReply {
    let mut reply = ControlReply::new(Some(ticket), node, Value::from("pong"));
    reply.clock = 9;
    reply
}

async fn heard(requests: &mut Box<dyn Requests>) -> ControlRequest {
    tokio::time::timeout(PATIENCE, requests.next()).await.expect("a request").unwrap()
}

async fn silent(requests: &mut Box<dyn Requests>) {
    let next = tokio::time::timeout(SHORT, requests.next()).await;
    assert!(next.is_err(), "{next:?}");
}

async fn came(inbox: &mut Box<dyn Inbox>) -> ControlReply {
    inbox.next(PATIENCE).await.unwrap().expect("a reply")
}

/// Every listener gets every request whole and in order; who it is for is not the store's business.
pub async fn a_request_reaches_every_node_that_listens(harness: &Harness) {
    let store = harness.store().store;
    let mut first = store.listen("celery@a").await.unwrap();
    let mut second = store.listen("celery@b").await.unwrap();
    let sent = [request("ping"), request("stats"), request("active")];
    for one in &sent {
        store.broadcast(one).await.unwrap();
    }
    for one in &sent {
        assert_eq!(&heard(&mut first).await, one);
        assert_eq!(&heard(&mut second).await, one);
    }
    silent(&mut first).await;
    first.close().await.unwrap();
    store.broadcast(&request("ping")).await.unwrap();
    assert_eq!(heard(&mut second).await, request("ping"));
}

/// At most once, and nothing is kept for later.
pub async fn who_listens_later_hears_nothing_of_before(harness: &Harness) {
    let store = harness.store().store;
    store.broadcast(&request("early")).await.unwrap();
    let mut requests = store.listen("celery@a").await.unwrap();
    silent(&mut requests).await;
    store.broadcast(&request("late")).await.unwrap();
    assert_eq!(heard(&mut requests).await.method(), Some("late"));
}

/// A wait that was dropped has lost nothing, and one that is under way is woken.
pub async fn a_listener_is_woken_while_it_waits(harness: &Harness) {
    let store = harness.store().store;
    let mut requests = store.listen("celery@a").await.unwrap();
    silent(&mut requests).await;
    let begun = tokio::time::Instant::now();
    let asking = request("ping");
    let (heard, sent) = tokio::join!(heard(&mut requests), store.broadcast(&asking));
    sent.unwrap();
    assert_eq!(heard.method(), Some("ping"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// An inbox gets its own replies in order, and no others.
pub async fn replies_come_to_the_inbox_that_asked(harness: &Harness) {
    let store = harness.store().store;
    let mut first = store.open_inbox("i1").await.unwrap();
    let mut second = store.open_inbox("i2").await.unwrap();
    assert_eq!(first.reply_to(), &ReplyTo::inbox("i1"));
    store.reply(first.reply_to(), &reply("t1", "celery@a")).await.unwrap();
    store.reply(second.reply_to(), &reply("t2", "celery@a")).await.unwrap();
    store.reply(first.reply_to(), &reply("t1", "celery@b")).await.unwrap();
    assert_eq!(came(&mut first).await, reply("t1", "celery@a"));
    assert_eq!(came(&mut first).await, reply("t1", "celery@b"));
    assert_eq!(came(&mut second).await, reply("t2", "celery@a"));
    assert_eq!(first.next(SHORT).await.unwrap(), None);
    let to = first.reply_to().clone();
    let late = reply("t1", "celery@c");
    let (next, sent) = tokio::join!(first.next(PATIENCE), store.reply(&to, &late));
    sent.unwrap();
    assert_eq!(next.unwrap(), Some(late));
    first.close().await.unwrap();
    second.close().await.unwrap();
}

/// Nobody waits for it: it is no error, and it is gone.
pub async fn a_reply_without_an_inbox_is_dropped(harness: &Harness) {
    let store = harness.store().store;
    let to = ReplyTo::inbox("i1");
    store.reply(&to, &reply("t", "celery@a")).await.unwrap();
    let mut inbox = store.open_inbox("i1").await.unwrap();
    assert_eq!(inbox.next(SHORT).await.unwrap(), None);
    inbox.close().await.unwrap();
    store.reply(&to, &reply("t", "celery@a")).await.unwrap();
    let mut inbox = store.open_inbox("i1").await.unwrap();
    assert_eq!(inbox.next(SHORT).await.unwrap(), None);
    inbox.close().await.unwrap();
}

/// Answers the next request, once for each of these nodes.
async fn answer(fixture: &Fixture, requests: &mut Box<dyn Requests>, nodes: &[&str]) {
    let request = heard(requests).await;
    let to = request.reply_to().expect("somebody asks");
    for node in nodes {
        fixture.store.reply(&to, &reply(request.ticket().unwrap(), node)).await.unwrap();
    }
}

fn nodes(replies: &[ControlReply]) -> Vec<&str> {
    replies.iter().flat_map(|reply| reply.answers.keys()).collect()
}

/// All answers are collected, and the end is when none came for the timeout.
pub async fn asking_collects_until_nobody_answers_any_more(harness: &Harness) {
    let fixture = harness.store();
    let mut requests = fixture.store.listen("celery@a").await.unwrap();
    let long = Duration::from_millis(500);
    let asking = ask(&*fixture.store, "q1", request("ping"), long, None);
    let (replies, ()) = tokio::join!(asking, answer(&fixture, &mut requests, &["a", "b", "c"]));
    assert_eq!(nodes(&replies.unwrap()), ["a", "b", "c"]);
    let nobody = ask(&*fixture.store, "q2", request("ping"), SHORT, None).await.unwrap();
    assert!(nobody.is_empty());
}

/// Who knows how many will answer does not wait for more.
pub async fn asking_ends_at_its_limit(harness: &Harness) {
    let fixture = harness.store();
    let mut requests = fixture.store.listen("celery@a").await.unwrap();
    let asking = ask(&*fixture.store, "q1", request("ping"), PATIENCE, Some(2));
    let (replies, ()) = tokio::join!(asking, answer(&fixture, &mut requests, &["a", "b"]));
    assert_eq!(nodes(&replies.unwrap()), ["a", "b"]);
}

/// Only the ticket makes a reply an answer.
pub async fn answers_to_other_questions_are_passed_over(harness: &Harness) {
    let fixture = harness.store();
    let mut requests = fixture.store.listen("celery@a").await.unwrap();
    let asking = ask(&*fixture.store, "q1", request("ping"), PATIENCE, Some(1));
    let answering = async {
        let request = heard(&mut requests).await;
        let to = request.reply_to().unwrap();
        fixture.store.reply(&to, &reply("another", "a")).await.unwrap();
        fixture.store.reply(&to, &reply(request.ticket().unwrap(), "b")).await.unwrap();
    };
    let (replies, ()) = tokio::join!(asking, answering);
    assert_eq!(nodes(&replies.unwrap()), ["b"]);
}

/// One request must not fill every node's memory.
pub async fn what_is_too_large_is_refused(harness: &Harness) {
    let store = harness.store().store;
    let text = "x".repeat(20 << 20);
    let large = ControlRequest::new("ping", Map::from([("text", text.as_str())]));
    assert_eq!(store.broadcast(&large).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let inbox = store.open_inbox("i1").await.unwrap();
    let large = ControlReply::new(None, "celery@a", Value::from(text));
    let refused = store.reply(inbox.reply_to(), &large).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    inbox.close().await.unwrap();
}
