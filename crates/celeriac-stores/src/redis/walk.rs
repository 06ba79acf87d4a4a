//! Goes through what waits in a queue, wherever it is kept: Celery's lists, lanes, suspects, and what
//! waits for its time. Looks without touching; what comes or goes meanwhile may be missed or seen.

use super::Core;
use super::dead::texts;
use super::keys::SEPARATOR;
use super::packet::{Packet, row_of, split};
use celeriac_core::priority::STEPS;
use celeriac_core::{QueueName, StoreError};
use redis::Value as Answer;
use std::time::Duration;

/// How many entries are read at once.
const CHUNK: usize = 500;
/// The most lanes of a queue that are gone through.
const LANES_MAX: i64 = 10_000;

/// How long the queues that Celery has bound are believed.
const BOUND_FRESH: Duration = Duration::from_mins(1);

/// Where entries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A list that stock workers read too.
    Stock(String),
    /// A lane's list.
    Lane(String),
    /// The suspects of a queue.
    Suspects(String),
    /// What waits to be set aside.
    Lost(String),
    /// What waits for its time.
    Due(String),
}

impl Source {
    /// Its word in `lua/remove.lua`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Stock(_) => "stock",
            Self::Lane(_) | Self::Lost(_) => "lane",
            Self::Suspects(_) => "suspect",
            Self::Due(_) => "due",
        }
    }

    pub(super) fn key(&self) -> &str {
        match self {
            Self::Stock(key)
            | Self::Lane(key)
            | Self::Suspects(key)
            | Self::Lost(key)
            | Self::Due(key) => key,
        }
    }
}

/// A waiting message.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its name ([`row_of`]).
    pub(super) row: i64,
    pub(super) source: Source,
    /// The queue that it waits in.
    pub(super) queue: String,
    /// The list's or set's member, for its removal.
    pub(super) member: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Entry {
    pub(super) fn packet(&self) -> Option<Packet> {
        Packet::parse(&self.payload).ok()
    }
}

/// All places of a queue, what is lost included.
pub(super) async fn places(core: &Core, queue: &QueueName) -> Result<Vec<Source>, StoreError> {
    let mut places = sources(core, queue).await?;
    places.push(Source::Lost(core.keys.own(&format!("lost:{queue}"))));
    Ok(places)
}

/// The places of what is to run, in the order in which a worker would look into them.
pub(super) async fn sources(core: &Core, queue: &QueueName) -> Result<Vec<Source>, StoreError> {
    let mut lanes = redis::cmd("ZRANGE");
    lanes.arg(core.keys.own(&format!("lanes:{queue}"))).arg(0).arg(LANES_MAX - 1);
    let lanes = texts(core.link.call("list the lanes", &lanes).await?);
    let mut sources: Vec<Source> = core.keys.lists(queue).map(Source::Stock).into();
    for lane in lanes {
        for step in STEPS {
            sources.push(Source::Lane(core.keys.lane(queue.as_str(), &lane, step)));
        }
    }
    sources.push(Source::Suspects(core.keys.own(&format!("suspects:{queue}"))));
    sources.push(Source::Due(core.keys.own(&format!("due:{queue}"))));
    Ok(sources)
}

/// Up to [`CHUNK`] entries of a source from `offset` on, the next to run first.
pub(super) async fn read(
    core: &Core,
    source: &Source,
    offset: usize,
) -> Result<Vec<Entry>, StoreError> {
    let (first, last) = (offset as i64, (offset + CHUNK) as i64 - 1);
    let key = source.key();
    let command = match source {
        Source::Stock(_) | Source::Lane(_) | Source::Lost(_) => {
            let mut range = redis::cmd("LRANGE");
            // The head is the right end.
            range.arg(key).arg(-last - 1).arg(-first - 1);
            range
        }
        Source::Suspects(_) | Source::Due(_) => {
            let mut range = redis::cmd("ZRANGE");
            range.arg(key).arg(first).arg(last);
            range
        }
    };
    let mut members = members(core.link.call("look into a queue", &command).await?);
    let mut records = Vec::new();
    match source {
        Source::Stock(_) => {
            members.reverse();
            let queue = place_of(core, key).0;
            let of = |payload: Vec<u8>| (queue.to_owned(), payload.clone(), payload);
            records.extend(members.into_iter().map(of));
        }
        Source::Lane(_) | Source::Lost(_) => {
            members.reverse();
            records.extend(members.into_iter().filter_map(|member| parts(&member, &member)));
        }
        Source::Suspects(_) => {
            records.extend(members.into_iter().filter_map(|member| {
                let end = member.iter().position(|byte| *byte == b'\n')?;
                parts(&member, &member[end + 1..])
            }));
        }
        Source::Due(_) if members.is_empty() => {}
        Source::Due(_) => {
            let mut waiting = redis::cmd("HMGET");
            waiting.arg(core.keys.own("waiting")).arg(&members);
            let found = core.link.call("look at scheduled messages", &waiting).await?;
            let Answer::Array(found) = found else { return Ok(Vec::new()) };
            for (member, record) in members.iter().zip(found) {
                if let Answer::BulkString(record) = record {
                    records.extend(parts(member, &record));
                }
            }
        }
    }
    Ok(records
        .into_iter()
        .map(|(queue, member, payload)| Entry {
            row: row_of(&payload),
            source: source.clone(),
            queue,
            member,
            payload,
        })
        .collect())
}

/// Whether a chunk was the last of its source.
pub(super) fn is_last(chunk: &[Entry]) -> bool {
    chunk.is_empty()
}

/// The queue and the step of a list that stock workers read too.
pub(super) fn place_of<'a>(core: &Core, key: &'a str) -> (&'a str, &'a str) {
    let name = key.strip_prefix(&core.keys.prefix).unwrap_or(key);
    name.split_once(SEPARATOR).unwrap_or((name, "0"))
}

/// Queue, member and payload of a record.
fn parts(member: &[u8], record: &[u8]) -> Option<(String, Vec<u8>, Vec<u8>)> {
    let (head, payload) = split(record)?;
    Some((head.queue, member.to_vec(), payload.to_vec()))
}

fn members(answer: Answer) -> Vec<Vec<u8>> {
    let Answer::Array(list) = answer else { return Vec::new() };
    let bytes = |answer| match answer {
        Answer::BulkString(bytes) => Some(bytes),
        _ => None,
    };
    list.into_iter().filter_map(bytes).collect()
}

/// The queues that Celery's producers and workers have bound. They are looked for in the whole database, and
/// so not every time.
async fn bound(core: &Core) -> Result<Vec<QueueName>, StoreError> {
    let now = core.clock.boot();
    let known = super::lock(&core.bound).clone();
    if let Some((at, queues)) = known
        && now.saturating_sub(at) < BOUND_FRESH
    {
        return Ok(queues);
    }
    let bindings = super::exchanges::all(core).await?;
    let queues: Vec<QueueName> = bindings.into_iter().map(|binding| binding.queue).collect();
    *super::lock(&core.bound) = Some((now, queues.clone()));
    Ok(queues)
}

/// All queues that anything of ours knows of, or Celery has bound.
pub(super) async fn queues(core: &Core) -> Result<Vec<QueueName>, StoreError> {
    let mut all = redis::cmd("SMEMBERS");
    all.arg(core.keys.own("queues"));
    let names = texts(core.link.call("list the queues", &all).await?);
    let mut queues: Vec<QueueName> =
        names.iter().filter_map(|name| QueueName::parse(name).ok()).collect();
    queues.extend(bound(core).await?);
    for node in super::nodes::list(core).await? {
        if node.alive {
            queues.extend(node.info.queues);
        }
    }
    queues.sort();
    queues.dedup();
    Ok(queues)
}
