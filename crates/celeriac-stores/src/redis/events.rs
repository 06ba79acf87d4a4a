//! The event history: a bounded stream, beside what is published for Celery's receivers.

use super::Core;
use super::dead::texts;
use celeriac_core::StoreError;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::StampedEvent;
use celeriac_wire::{Event, Value};
use redis::{Pipeline, Value as Answer};

/// The most events of one task that are kept and listed.
const OF_TASK_MAX: usize = 1000;
/// How long a task's own list of events is kept, in seconds.
const OF_TASK_SECONDS: i64 = 86_400;

pub(super) async fn emit(core: &Core, events: Vec<Event>) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    reach(Step::EventBegins);
    let stream = core.keys.own("events");
    let max = core.limits.events_max.max(1);
    let mut pipeline = Pipeline::new();
    for event in &events {
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
    core.link.pipeline("record events", &pipeline).await?;
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
