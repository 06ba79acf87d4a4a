//! What stock workers left unacknowledged goes back by Celery's own rule, without its losses.
//!
//! kombu forgets a message whose exchange the restoring worker does not know (wire specification 2.14,
//! L3) or whose restoring fails (L4). Here it leaves `unacked` only in the script that puts it into its
//! queues, and stays where no queue can be found. It gets a new delivery tag, so that the late
//! acknowledgement of its first owner cannot take it from the second (D2).

use super::Core;
use super::dead::texts;
use super::exchanges::Tables;
use super::pack::Pack;
use super::script::RESTORE;
use celeriac_core::StoreError;
use celeriac_core::{QueueName, priority};

use celeriac_wire::{Envelope, Map, Value};
use redis::Value as Answer;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a node looks (kombu 5.7 looks every tenth time of as much, `unacked_restore_throttle`).
const EVERY: Duration = Duration::from_secs(10);
/// How many messages one look takes back in a step.
const TAGS_MAX: usize = 100;

/// Takes back what is overdue, at most once in [`EVERY`] of this process.
pub(super) async fn restore(core: &Core) -> Result<u64, StoreError> {
    let now = core.store_now().await?;
    let last = core.restored_at.load(Ordering::Relaxed);
    if now.saturating_sub(last) < EVERY.as_micros() as i64 && last <= now {
        return Ok(0);
    }
    core.restored_at.store(now, Ordering::Relaxed);
    let timeout = core.link.address().visibility_timeout;
    let overdue = (now as f64) / 1e6 - timeout.as_secs_f64();
    let mut restored = 0;
    let mut from = 0;
    loop {
        let mut tags = redis::cmd("ZRANGEBYSCORE");
        tags.arg(format!("{}unacked_index", core.keys.prefix)).arg("-inf").arg(overdue);
        tags.arg("LIMIT").arg(from).arg(TAGS_MAX);
        let tags = texts(core.link.call("look for unacknowledged messages", &tags).await?);
        if tags.is_empty() {
            return Ok(restored);
        }
        let gone = some(core, &tags).await?;
        restored += gone;
        // What stays is passed over.
        from += tags.len() - (gone as usize).min(tags.len());
    }
}

async fn some(core: &Core, tags: &[String]) -> Result<u64, StoreError> {
    let mut get = redis::cmd("HMGET");
    get.arg(format!("{}unacked", core.keys.prefix)).arg(tags);
    let Answer::Array(held) = core.link.call("read unacknowledged messages", &get).await? else {
        return Ok(0);
    };
    let mut tables = Tables::default();
    let mut units = Vec::new();
    for (tag, held) in tags.iter().zip(held) {
        let Answer::BulkString(held) = held else {
            // Only its time is left of it.
            let mut forget = redis::cmd("ZREM");
            forget.arg(format!("{}unacked_index", core.keys.prefix)).arg(tag);
            core.link.call("forget an unacknowledged message", &forget).await?;
            continue;
        };
        let Some((envelope, exchange, routing_key)) = parts(&held) else {
            tracing::warn!(tag, "what a stock worker left cannot be read; it stays in `unacked`");
            continue;
        };
        let queues = receivers(core, &mut tables, &exchange, &routing_key).await?;
        if queues.is_empty() {
            tracing::warn!(tag, exchange, routing_key, "no queue for what a stock worker left");
            continue;
        }
        units.push((tag, held, queues, envelope));
    }
    let mut argument = Pack::default();
    argument.map(3);
    core.pack_head(&mut argument);
    argument.text("tags").array(units.len());
    for (tag, held, queues, envelope) in &units {
        let step = priority::step(envelope.message.properties.priority());
        argument.array(2 + 2 * queues.len()).text(tag).bytes(held);
        for queue in queues {
            // Each copy is a message of its own.
            let mut copy = envelope.clone();
            copy.message
                .properties
                .set_delivery_tag(&celeriac_core::clock::task_id(&*core.clock, &*core.entropy));
            argument.text(&core.keys.list(queue.as_str(), step)).bytes(&copy.to_bytes());
        }
    }
    let answer = core.link.script("restore messages", &RESTORE, argument.into_bytes()).await?;
    let Answer::Int(restored) = answer else { return Ok(0) };
    if restored > 0 {
        tracing::warn!(restored, "stock workers left messages unacknowledged; they go back");
        core.bell.ring();
    }
    Ok(restored.unsigned_abs())
}

/// `[envelope, exchange, routing key]` (wire specification 2.1), marked as redelivered.
fn parts(held: &[u8]) -> Option<(Envelope, String, String)> {
    let value = Value::parse(held).ok()?;
    let [envelope, exchange, routing_key] = value.as_array()? else { return None };
    // Reads as it was written: numbers keep their text, unknown keys survive.
    let mut envelope = Envelope::parse(envelope.to_string().as_bytes()).ok()?;
    let mut headers = std::mem::take(&mut envelope.message.headers).into_map();
    headers.insert("redelivered", true);
    envelope.message.headers = celeriac_wire::Headers::from_map(headers);
    let mut properties = std::mem::take(&mut envelope.message.properties).into_map();
    match properties.get_mut("delivery_info") {
        Some(Value::Object(info)) => drop(info.insert("redelivered", true)),
        _ => drop(
            properties.insert("delivery_info", Map::from([("redelivered", Value::from(true))])),
        ),
    }
    envelope.message.properties = celeriac_wire::Properties::from_map(properties);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((envelope, text(exchange), text(routing_key)))
}

/// The queues of an exchange and a routing key, by the table that kombu keeps: an exact key, or the
/// pattern of a topic.
async fn receivers(
    core: &Core,
    tables: &mut Tables,
    exchange: &str,
    routing_key: &str,
) -> Result<Vec<QueueName>, StoreError> {
    if exchange.is_empty() {
        return Ok(QueueName::parse(routing_key).into_iter().collect());
    }
    tables.receivers(core, exchange, routing_key).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_left_is_read_without_loss() {
        let held =
            br#"[{"body": "e30=", "content-type": "application/json", "headers": {"n": 1.50},
            "properties": {"body_encoding": "base64", "delivery_tag": "t", "priority": 4,
            "delivery_info": {"exchange": "x", "routing_key": "k"}}, "odd": 7}, "x", "k"]"#;
        let (envelope, exchange, routing_key) = parts(held).unwrap();
        assert_eq!((exchange.as_str(), routing_key.as_str()), ("x", "k"));
        let text = String::from_utf8(envelope.to_bytes()).unwrap();
        for part in [r#""n": 1.50"#, r#""odd": 7"#, r#""redelivered": true"#] {
            assert!(text.contains(part), "{text}");
        }
        assert!(parts(b"[1, 2]").is_none() && parts(b"x").is_none());
    }
}
