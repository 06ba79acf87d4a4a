//! The event history: a bounded stream, beside what is published for Celery's receivers.

use super::bell::Subscription;
use super::dead::texts;
use super::pack::Pack;
use super::script::EVENTS;
use super::{Core, mailbox};
use async_trait::async_trait;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{EventStream, StampedEvent};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{DeliveryInfo, Envelope, Event, Headers, Map, Message, Properties, Value};
use redis::Value as Answer;
use std::fmt;
use std::sync::Arc;

/// The exchange of events (`event_exchange` of celery 5.7).
const EXCHANGE: &str = "celeryev";
/// The routing key of a list of task events (wire specification 6.4).
const TASKS: &str = "task.multi";

/// Keeps events and publishes them as Celery does: those of tasks as a list, those of workers each on
/// its own (wire specification 6.1, 6.4).
pub(super) async fn emit(core: &Core, events: Vec<Event>) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    reach(Step::EventBegins);
    let mut argument = Pack::default();
    argument.map(5);
    core.pack_head(&mut argument);
    argument.text("max").number(core.limits.events_max.clamp(1, 1 << 50) as i64);
    argument.text("events").array(events.len());
    for event in &events {
        let beats = event.kind() == Some("worker-heartbeat");
        let host = event.hostname().filter(|_| beats).unwrap_or_default();
        argument.array(3).bytes(&event.to_bytes()).text(event.uuid().unwrap_or_default());
        argument.text(host);
    }
    let letters = letters(&events);
    argument.text("letters").array(letters.len());
    for (key, host, body) in letters {
        let channel = mailbox::channel(core, &format!("{EXCHANGE}/{key}"));
        argument.array(2).text(&channel).bytes(&letter(core, &key, host, &body)?);
    }
    core.link.script("record events", &EVENTS, argument.into_bytes()).await?;
    reach(Step::EventCommitted);
    Ok(())
}

/// What is published: routing key, node and body. Events stay in the order of their clock, so that a list
/// ends where something else comes.
fn letters(events: &[Event]) -> Vec<(String, &str, Value)> {
    let document = |event: &Event| Value::Object(event.as_map().clone());
    let belong =
        |a: &Event, b: &Event| is_listed(a) && is_listed(b) && a.hostname() == b.hostname();
    let mut letters = Vec::new();
    for same in events.chunk_by(belong) {
        let Some(first) = same.first() else { continue };
        let (key, body) = if is_listed(first) {
            (TASKS.to_owned(), same.iter().map(document).collect())
        } else {
            (first.routing_key().unwrap_or_default(), document(first))
        };
        letters.push((key, first.hostname().unwrap_or_default(), body));
    }
    letters
}

fn letter(core: &Core, key: &str, host: &str, body: &Value) -> Result<Vec<u8>, StoreError> {
    let mut properties = Properties::default();
    let info = DeliveryInfo { exchange: EXCHANGE.to_owned(), routing_key: key.to_owned() };
    properties.set_delivery_mode(1).set_delivery_info(&info).set_priority(0);
    let message = Message {
        headers: Headers::from_map(Map::from([("hostname", Value::from(host))])),
        properties,
        content_type: "application/json".to_owned(),
        content_encoding: "utf-8".to_owned(),
        body: body.to_bytes().into(),
    };
    mailbox::envelope(core, "send events", message)
}

/// Whether Celery sends it in a list with others: task events of workers. What producers send goes
/// alone (celery 5.7.0 events/dispatcher.py, `buffer_group`).
fn is_listed(event: &Event) -> bool {
    event.kind().is_some_and(|kind| kind.starts_with("task-") && kind != "task-sent")
}

/// A text in which nothing is special to a pattern of channels: a key prefix may hold anything.
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

/// Events as Celery's channels carry them, those of stock workers too.
pub(super) async fn watch(core: &Arc<Core>) -> Box<dyn EventStream> {
    let pattern = format!("{}/*", escaped(&mailbox::channel(core, EXCHANGE)));
    let subscription = core.bell.subscribe(&pattern, true).await;
    Box::new(Watch { subscription, _core: Arc::clone(core) })
}

struct Watch {
    subscription: Subscription,
    /// Keeps the store's listening alive.
    _core: Arc<Core>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Watch").field(&self.subscription).finish()
    }
}

#[async_trait]
impl EventStream for Watch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            let Some(payload) = self.subscription.next().await else {
                return Err(StoreError::new(ErrorKind::Unavailable, "listen to events: ended"));
            };
            let read = Envelope::parse(&payload)
                .and_then(|envelope| Event::parse_many(&envelope.message.body));
            match read {
                Ok(events) if !events.is_empty() => return Ok(events),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "events cannot be read"),
            }
        }
    }
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

pub(super) async fn since(
    core: &Core,
    after: i64,
    count_max: usize,
) -> Result<Vec<StampedEvent>, StoreError> {
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

pub(super) async fn of_task(core: &Core, task_id: &str) -> Result<Vec<StampedEvent>, StoreError> {
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
    use celeriac_wire::EventBase;

    #[test]
    fn events_are_published_in_their_order() {
        let event = |(clock, (host, kind)): (usize, &(&str, &str))| {
            let base = EventBase {
                hostname: (*host).to_owned(),
                utcoffset: 0.0,
                pid: 1,
                clock: clock as u64,
                timestamp: jiff::Timestamp::UNIX_EPOCH,
            };
            Event::new(kind, &base, Map::new())
        };
        let events = [
            ("a", "worker-online"),
            ("a", "task-received"),
            ("a", "task-started"),
            ("a", "worker-heartbeat"),
            ("a", "task-succeeded"),
            ("b", "task-received"),
            ("c", "task-sent"),
        ];
        let events: Vec<Event> = events.iter().enumerate().map(event).collect();
        let shown = |(key, host, body): &(String, &str, Value)| {
            format!("{host} {key} {}", body.as_array().map_or(0, <[Value]>::len))
        };
        let expected = [
            "a worker.online 0",
            "a task.multi 2",
            "a worker.heartbeat 0",
            "a task.multi 1",
            "b task.multi 1",
            "c task.sent 0",
        ];
        assert_eq!(letters(&events).iter().map(shown).collect::<Vec<_>>(), expected);
    }
}
