//! How a message is kept: kombu's envelope, with what else we know of it in one key of its own.
//!
//! The envelope is what stock workers read and write back, so everything of ours survives them in the
//! top-level key `celeriac`, which kombu 5.3 to 5.7 neither reads nor drops (`virtual/base.py`).

use super::pack::Pack;
use celeriac_core::dead::Attempt;
use celeriac_core::lease::Suspicion;
use celeriac_core::store::Outgoing;
use celeriac_core::throttle::KEY_HEADER;
use celeriac_core::unique::{Unique, Until, may_be_dropped};
use celeriac_core::{Entropy, QueueName, StoreError, priority};
use celeriac_wire::codec::{self, Accept, Serializer};
use celeriac_wire::{DeliveryInfo, Envelope, Headers, Map, Message, Value, from_value, to_value};
use jiff::Timestamp;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The top-level key of the envelope that is ours.
const NOTES: &str = "celeriac";

/// What we know of a message beside the message.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Notes {
    /// Its place in its queue: the number of its first delivery. Only what went back has one.
    pub(super) rank: Option<i64>,
    /// When it was first enqueued, in microseconds since 1970.
    pub(super) enqueued: Option<i64>,
    /// What its owners' deaths say about it.
    pub(super) suspicion: Suspicion,
    /// Whether an owner lost it or gave it back after it had begun.
    pub(super) redelivered: bool,
    /// Whether an owner left it behind that had acknowledged it: it must not run again.
    pub(super) lost: bool,
    /// Its runs.
    pub(super) history: Vec<Attempt>,
    /// Properties that were only added for kombu's readers.
    added: Vec<String>,
}

/// A message with its notes, or bytes that are no message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packet {
    pub(super) message: Message,
    pub(super) notes: Notes,
}

impl Packet {
    /// A new message on its way out.
    pub(super) fn outgoing(outgoing: Outgoing, now: Timestamp) -> Self {
        let enqueued = Some(outgoing.enqueued_at.unwrap_or(now).as_microsecond());
        let notes = Notes { enqueued, history: outgoing.history, ..Notes::default() };
        Self { message: outgoing.message, notes }
    }

    /// Reads the payload of a list element or record.
    ///
    /// # Errors
    /// In words, why it is no message.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        let mut envelope = Envelope::parse(payload).map_err(|error| error.to_string())?;
        let notes = envelope.extra.remove(NOTES).as_ref().map(read_notes).unwrap_or_default();
        let mut message = envelope.message;
        if !notes.added.is_empty() {
            let mut properties = message.properties.into_map();
            for name in &notes.added {
                properties.remove(name);
            }
            message.properties = celeriac_wire::Properties::from_map(properties);
        }
        Ok(Self { message, notes })
    }

    /// The payload. kombu's readers require a delivery tag and a delivery info
    /// (`transport/redis.py` 5.7, `QoS.append`, `Channel._deliver`).
    pub(super) fn to_payload(&self, queue: &str, entropy: &dyn Entropy) -> Vec<u8> {
        let mut message = self.message.clone();
        let mut notes = self.notes.clone();
        notes.added.clear();
        let present = message.properties.as_map().clone();
        if !present.contains_key("body_encoding") {
            message.properties.set_body_encoding("base64");
            notes.added.push("body_encoding".to_owned());
        }
        if !present.contains_key("delivery_info") {
            let (exchange, routing_key) = (String::new(), queue.to_owned());
            message.properties.set_delivery_info(&DeliveryInfo { exchange, routing_key });
            notes.added.push("delivery_info".to_owned());
        }
        if !present.contains_key("delivery_tag") {
            let (high, low) = (entropy.next_u64(), entropy.next_u64());
            message.properties.set_delivery_tag(&uuid(high, low));
            notes.added.push("delivery_tag".to_owned());
        }
        let mut envelope = Envelope::new(message);
        envelope.extra.insert(NOTES, write_notes(&notes));
        envelope.to_bytes()
    }

    /// The record of a message that waits or is held under our keys.
    pub(super) fn record(&self, queue: &str, lane: &str, entropy: &dyn Entropy) -> Vec<u8> {
        let step = priority::step(self.message.properties.priority());
        let kind = match (self.notes.lost, self.notes.suspicion.is_suspect()) {
            (true, _) => 'l',
            (false, true) => 's',
            (false, false) => 'r',
        };
        let id = self.message.headers.id().filter(|id| !id.contains('\n')).unwrap_or_default();
        let mut record = format!("{queue}\n{step}\n{kind}\n{lane}\n\n{id}\n").into_bytes();
        record.extend(self.to_payload(queue, entropy));
        record
    }

    /// Reads what an older message has in its body (wire specification 1.5), to decide by before it is
    /// delivered. One in JSON becomes a message of protocol 2. Whether a worker accepts another body is
    /// for the worker to say, so it stays; so does what cannot be read.
    pub(super) fn upgrade(&mut self) -> Option<Headers> {
        if self.message.is_protocol_2() {
            return None;
        }
        let upgraded = codec::read(&self.message, Accept::default()).ok()?.upgraded?;
        let headers = upgraded.headers.clone();
        if self.message.content_type == Serializer::Json.content_type() {
            self.message = upgraded;
        }
        Some(headers)
    }

    /// The bytes of headers, properties and body, as limits count them.
    pub(super) fn size(message: &Message) -> usize {
        message.headers.to_json().len() + message.properties.to_json().len() + message.body.len()
    }
}

/// A version 4 UUID from random bits.
fn uuid(high: u64, low: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff,
    )
}

fn write_notes(notes: &Notes) -> Value {
    let mut map = Map::new();
    // The first, where the scripts look for it.
    if let Some(rank) = notes.rank {
        map.insert("rank", rank);
    }
    if let Some(enqueued) = notes.enqueued {
        map.insert("at", enqueued);
    }
    if notes.suspicion != Suspicion::default() {
        map.insert(
            "deaths",
            Value::from(vec![
                Value::from(i64::from(notes.suspicion.seen)),
                Value::from(i64::from(notes.suspicion.counted)),
            ]),
        );
    }
    if notes.redelivered {
        map.insert("redelivered", true);
    }
    if notes.lost {
        map.insert("lost", true);
    }
    if !notes.history.is_empty() {
        map.insert("history", to_value(&notes.history).unwrap_or(Value::Null));
    }
    if !notes.added.is_empty() {
        let names: Vec<Value> = notes.added.iter().map(|name| Value::from(name.as_str())).collect();
        map.insert("added", Value::from(names));
    }
    Value::Object(map)
}

/// What cannot be read of the notes is left out: a message must not be lost for them.
fn read_notes(value: &Value) -> Notes {
    let deaths = |index: usize| {
        let number = value.get("deaths").and_then(Value::as_array)?.get(index)?.as_u64()?;
        u32::try_from(number).ok()
    };
    let history = value.get("history").cloned().and_then(|history| from_value(history).ok());
    Notes {
        rank: value.get("rank").and_then(Value::as_i64),
        enqueued: value.get("at").and_then(Value::as_i64),
        suspicion: Suspicion {
            seen: deaths(0).unwrap_or_default(),
            counted: deaths(1).unwrap_or_default(),
        },
        redelivered: value.get("redelivered").and_then(Value::as_bool).unwrap_or_default(),
        lost: value.get("lost").and_then(Value::as_bool).unwrap_or_default(),
        history: history.unwrap_or_default(),
        added: value
            .get("added")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
    }
}

/// The fields before the payload of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) queue: String,
    pub(super) step: u8,
    pub(super) suspect: bool,
    pub(super) lane: String,
    pub(super) lock: String,
}

/// Splits a record; `None` for what no script of ours wrote.
pub(super) fn split(record: &[u8]) -> Option<(RecordHead, &[u8])> {
    let mut rest = record;
    let mut fields = [""; 6];
    for field in &mut fields {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        *field = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
    }
    let [queue, step, kind, lane, lock, _id] = fields;
    let head = RecordHead {
        queue: queue.to_owned(),
        step: step.parse().ok()?,
        suspect: kind == "s",
        lane: lane.to_owned(),
        lock: lock.to_owned(),
    };
    Some((head, rest))
}

/// The name of the lane of a task and a key.
pub(super) fn lane_name(task: &str, key: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(task), URL_SAFE_NO_PAD.encode(key))
}

/// The task and the key of a lane.
pub(super) fn lane_parts(lane: &str) -> Option<(String, String)> {
    let (task, key) = lane.split_once('.')?;
    let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    Some((text(task)?, text(key)?))
}

/// The key that limits are counted for; empty if there is none.
pub(super) fn key_of(headers: &Headers) -> &str {
    headers.get(KEY_HEADER).and_then(Value::as_str).unwrap_or_default()
}

/// A name for a waiting message that is the same whenever somebody looks: FNV-1a of its payload, which
/// holds a delivery tag of its own.
pub(super) fn row_of(payload: &[u8]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in payload {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 1).max(1) as i64
}

/// A queue name as a store gives it back.
pub(super) fn queue_of(name: &str) -> Result<QueueName, StoreError> {
    QueueName::parse(name)
}

/// The wish of a unique message as `commit.lua` reads it; `new`: it had no life before.
pub(super) fn wish(headers: &Headers, new: bool, who: u64) -> Option<Pack> {
    let unique = Unique::of(headers)?;
    let mut pack = Pack::default();
    let until = match unique.until {
        Until::Finished => "g",
        Until::Started => "s",
    };
    let window = unique.window.map_or(0, |window| window.as_micros() as i64);
    pack.array(7)
        .text(&URL_SAFE_NO_PAD.encode(&unique.key))
        .text(&format!("{who:016x}"))
        .text(until)
        .number(window)
        .text(headers.id().unwrap_or_default())
        .truth(new)
        .truth(new && may_be_dropped(headers));
    Some(pack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_core::testing::Seeded;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = Message::new("app.add", "a", "[[], {}, {}]");
        let outgoing = Outgoing::new(QueueName::celery(), message.clone());
        let packet = Packet::outgoing(outgoing, Timestamp::UNIX_EPOCH);
        let payload = packet.to_payload("celery", &Seeded::new(7));
        assert_eq!(Packet::parse(&payload).unwrap().message, message);
        let stock = Envelope::parse(&payload).unwrap().message.properties;
        assert!(stock.delivery_tag().is_some());
        assert_eq!(stock.delivery_info().routing_key, "celery");
        assert!(Packet::parse(b"{\"body\": 7}").is_err() && Packet::parse(b"\xff").is_err());
    }

    #[test]
    fn lanes_and_records_split_into_their_parts() {
        let lane = lane_name("app.add", "acme\n:7");
        assert_eq!(lane_parts(&lane), Some(("app.add".into(), "acme\n:7".into())));
        let message = Message::new("app.add", "a", "x");
        let packet = Packet { message, notes: Notes::default() };
        let record = packet.record("celery", &lane, &Seeded::new(7));
        let (head, payload) = split(&record).unwrap();
        assert_eq!((head.queue.as_str(), head.step, head.lane), ("celery", 0, lane));
        assert!(Packet::parse(payload).is_ok());
        assert_eq!(split(b"no record"), None);
    }
}
