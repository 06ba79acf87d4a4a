//! Events: published for everybody's receivers as Celery publishes them, and kept in a bounded stream
//! for our own history (wire specification 6.1, 6.4).

use super::bell::Subscription;
use super::dead::texts;
use super::mailbox::envelope;
use super::{Core, RedisStore};
use async_trait::async_trait;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{EventStream, Events, StampedEvent};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::message::{CONTENT_ENCODING_UTF8, CONTENT_TYPE_JSON};
use celeriac_wire::{DeliveryInfo, Envelope, Event, Headers, Map, Message, Properties, Value};
use redis::{Pipeline, Value as Answer};
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// The exchange of events (celery 5.7.0 setting `event_exchange`).
const EXCHANGE: &str = "celeryev";
/// The most task events in one message; Celery sends up to 24, and readers take any number.
const BATCH_MAX: usize = 200;
/// The most events of one task that are kept and listed.
const OF_TASK_MAX: usize = 1000;
/// How long a task's own list of events is kept, in seconds.
const OF_TASK_SECONDS: i64 = 86_400;

#[async_trait]
impl Events for RedisStore {
    async fn emit(&self, events: Vec<Event>) -> Result<(), StoreError> {
        emit(&self.core, events).await
    }

    async fn watch_events(&self) -> Result<Box<dyn EventStream>, StoreError> {
        let keys = &self.core.keys;
        // kombu's receivers use the same pattern (transport/redis.py 5.7, `_subscribe`).
        let pattern = format!("{}/*", escaped(&keys.channel(EXCHANGE)));
        let subscription = self.core.bell.subscribe(&pattern, true).await;
        Ok(Box::new(Watch { core: Arc::clone(&self.core), pattern, subscription }))
    }

    async fn events_since(
        &self,
        after: i64,
        count_max: usize,
    ) -> Result<Vec<StampedEvent>, StoreError> {
        since(&self.core, after, count_max).await
    }

    async fn events_of(&self, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
        of_task(&self.core, task_id).await
    }
}

/// A text in which nothing is special to a pattern of channels.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// One listener.
struct Watch {
    /// Keeps the store's ear alive.
    core: Arc<Core>,
    pattern: String,
    subscription: Subscription,
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStream for Watch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            match self.subscription.next(&self.core.bell).await {
                Ok(heard) if heard.channel == self.pattern => {
                    let events = Envelope::parse(&heard.payload)
                        .and_then(|envelope| Event::parse_many(&envelope.message.body));
                    match events {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => return Ok(events),
                        Err(error) => tracing::debug!(%error, "passed over events"),
                    }
                }
                Ok(_other) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events came faster than they were read");
                }
                Err(RecvError::Closed) => {
                    let text = "listen to events: the store is closed";
                    return Err(StoreError::new(ErrorKind::Unavailable, text));
                }
            }
        }
    }
}

/// Whether Celery sends it in a list with others: task events of workers. What producers send goes
/// alone (celery 5.7.0 events/dispatcher.py, `buffer_group`).
fn is_listed(event: &Event) -> bool {
    event.kind().is_some_and(|kind| kind.starts_with("task-") && kind != "task-sent")
}

/// The messages that tell of these events, with their routing keys, in order.
fn messages(events: &[Event]) -> Vec<(String, Message)> {
    let mut messages = Vec::new();
    let mut rest = events;
    while let Some(first) = rest.first() {
        let (count, key, body) = if is_listed(first) {
            let count = rest.iter().take(BATCH_MAX).take_while(|event| is_listed(event)).count();
            (count, "task.multi".to_owned(), Event::list_to_bytes(&rest[..count]))
        } else {
            (1, first.routing_key().unwrap_or_default(), first.to_bytes())
        };
        let mut properties = Properties::default();
        let info = DeliveryInfo { exchange: EXCHANGE.to_owned(), routing_key: key.clone() };
        properties.set_delivery_mode(1).set_delivery_info(&info).set_priority(0);
        let host = first.hostname().unwrap_or_default();
        let message = Message {
            headers: Headers::from_map(Map::from([("hostname", host)])),
            properties,
            content_type: CONTENT_TYPE_JSON.to_owned(),
            content_encoding: CONTENT_ENCODING_UTF8.to_owned(),
            body: body.into(),
        };
        messages.push((key, message));
        rest = &rest[count..];
    }
    messages
}

async fn emit(core: &Core, events: Vec<Event>) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    reach(Step::EventBegins);
    let stream = core.keys.own("events");
    let max = core.limits.events_max.max(1);
    let mut pipeline = Pipeline::new();
    for (key, message) in messages(&events) {
        let channel = format!("{}/{key}", core.keys.channel(EXCHANGE));
        pipeline.cmd("PUBLISH").arg(channel).arg(envelope(core, message));
    }
    for event in &events {
        // That a node lives is no history.
        if event.kind() == Some("worker-heartbeat") {
            continue;
        }
        let body = event.to_bytes();
        pipeline.cmd("XADD").arg(&stream).arg("MAXLEN").arg("~").arg(max).arg("*");
        pipeline.arg("e").arg(&body);
        if let Some(id) = event.uuid() {
            let list = core.keys.own(&format!("events:{id}"));
            pipeline.cmd("RPUSH").arg(&list).arg(&body);
            pipeline.cmd("LTRIM").arg(&list).arg(-(OF_TASK_MAX as i64)).arg(-1);
            pipeline.cmd("EXPIRE").arg(&list).arg(OF_TASK_SECONDS);
        }
    }
    core.link.pipeline("send events", &pipeline).await?;
    reach(Step::EventCommitted);
    Ok(())
}

/// A stream id as one number: milliseconds and sequence.
fn number_of(id: &str) -> Option<i64> {
    let (millis, sequence) = id.split_once('-')?;
    let (millis, sequence): (i64, i64) = (millis.parse().ok()?, sequence.parse().ok()?);
    Some((millis << 20) | sequence.min((1 << 20) - 1))
}

fn id_of(number: i64) -> String {
    format!("{}-{}", number >> 20, number & ((1 << 20) - 1))
}

async fn since(core: &Core, after: i64, count_max: usize) -> Result<Vec<StampedEvent>, StoreError> {
    let mut range = redis::cmd("XRANGE");
    range.arg(core.keys.own("events")).arg(format!("({}", id_of(after))).arg("+");
    range.arg("COUNT").arg(count_max);
    let Answer::Array(entries) = core.link.call("read events", &range).await? else {
        return Ok(Vec::new());
    };
    let mut events = Vec::new();
    for entry in entries {
        let Answer::Array(parts) = entry else { continue };
        let [Answer::BulkString(id), Answer::Array(fields)] = &parts[..] else { continue };
        let Some(number) = number_of(&String::from_utf8_lossy(id)) else { continue };
        if let Some(Answer::BulkString(body)) = fields.get(1) {
            events.extend(stamped(number, body));
        }
    }
    Ok(events)
}

async fn of_task(core: &Core, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
    let mut range = redis::cmd("LRANGE");
    range.arg(core.keys.own(&format!("events:{task_id}"))).arg(0).arg(-1);
    let bodies = texts(core.link.call("read a task's events", &range).await?);
    let stamp = |(index, body): (usize, &String)| stamped(index as i64 + 1, body.as_bytes());
    Ok(bodies.iter().enumerate().filter_map(stamp).collect())
}

fn stamped(number: i64, body: &[u8]) -> Option<StampedEvent> {
    match Value::parse(body).ok()? {
        Value::Object(map) => Some(StampedEvent { number, event: Event::from_map(map) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> Event {
        Event::from_map(Map::from([("type", kind), ("hostname", "w@h")]))
    }

    #[test]
    fn task_events_of_workers_go_in_lists_and_others_alone() {
        let kinds =
            ["worker-online", "task-received", "task-started", "task-sent", "task-failed", "x-y"];
        let events: Vec<Event> = kinds.into_iter().map(event).collect();
        let sent = messages(&events);
        let keys: Vec<&str> = sent.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["worker.online", "task.multi", "task.sent", "task.multi", "x.y"]);
        assert_eq!(sent[1].1.body[0], b'[');
        assert_eq!(Event::parse_many(&sent[1].1.body).unwrap().len(), 2);
        assert_eq!(sent[2].1.body[0], b'{');
        assert_eq!(sent[4].1.headers.get("hostname").and_then(Value::as_str), Some("w@h"));
        let many: Vec<Event> = (0..=BATCH_MAX).map(|_| event("task-started")).collect();
        assert_eq!(messages(&many).len(), 2);
    }

    #[test]
    fn patterns_are_literal_up_to_their_star() {
        assert_eq!(escaped("a*[b]/0.celeryev"), "a\\*\\[b\\]/0.celeryev");
    }
}
