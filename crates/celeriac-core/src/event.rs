//! Events that more than one part of the system sends. Pure.

use crate::store::Outgoing;
use celeriac_wire::event::TaskSent;
use celeriac_wire::{Event, EventBase};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The event of a message that was sent, for monitors (celery 5.7.0 app/amqp.py
/// `send_task_message`, setting `task_send_sent_event`).
pub fn task_sent(base: &EventBase, outgoing: &Outgoing) -> Event {
    let headers = &outgoing.message.headers;
    let info = outgoing.message.properties.delivery_info();
    let queue = outgoing.queue.as_str();
    let key = if info.routing_key.is_empty() { queue } else { &info.routing_key };
    let sent = TaskSent {
        uuid: headers.id().unwrap_or_default(),
        root_id: headers.root_id(),
        parent_id: headers.parent_id(),
        name: headers.task().unwrap_or_default(),
        args: headers.argsrepr().unwrap_or_default(),
        kwargs: headers.kwargsrepr().unwrap_or_default(),
        retries: headers.retries(),
        eta: headers.get("eta").and_then(|eta| eta.as_str()),
        expires: headers.get("expires").and_then(|expires| expires.as_str()),
        queue,
        exchange: &info.exchange,
        routing_key: key,
    };
    Event::task_sent(base, &sent)
}

/// The offset that events tell: Python's `time.timezone / 3600`, or `altzone` in summer (celery
/// 5.7.0 utils/time.py `utcoffset`). West of Greenwich is positive.
pub fn hours_west(zone: &TimeZone, now: Timestamp) -> f64 {
    let seconds = zone.to_offset(now).seconds();
    // No negative zero: Python prints 0.0.
    if seconds == 0 { 0.0 } else { -f64::from(seconds) / 3600.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_hours_west() {
        let zone = |seconds| TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).unwrap());
        let now = Timestamp::UNIX_EPOCH;
        for (seconds, expected) in [(0, 0.0), (3600, -1.0), (19_800, -5.5), (-18_000, 5.0)] {
            assert_eq!(hours_west(&zone(seconds), now).to_string(), expected.to_string());
        }
    }
}
