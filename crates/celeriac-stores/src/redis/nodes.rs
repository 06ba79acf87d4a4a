//! Nodes: registration, heartbeats, and what a node that died or left has held.

use super::commit::{self, Deed, Unit};
use super::dead::texts;
use super::pack::Pack;
use super::packet::{Packet, queue_of, split};
use super::script::NODES;
use super::{Core, micros_to_time};
use celeriac_core::dead::{Attempt, remember, worker_lost};
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::{Lease, LeaseTimes, Recovery};
use celeriac_core::store::{Heartbeat, NodeId, NodeInfo, NodeView, Place, Plan, Sweep};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::{Map, Value};
use redis::{Pipeline, Value as Answer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How long a dead node is still listed.
const REMEMBERED: Duration = Duration::from_hours(24);
/// A living server answers a question within this part of a lease.
const ANSWER_SHARE: u32 = 64;
/// How many messages go back in one step.
const RETURN_MAX: usize = 200;
/// The most nodes that are listed.
const NODES_MAX: usize = 10_000;

fn argument(core: &Core, op: &str, fields: usize) -> Pack {
    let mut argument = Pack::default();
    argument.map(3 + fields);
    core.pack_head(&mut argument);
    argument.text("op").text(op);
    argument
}

pub(super) async fn register(core: &Core, info: &NodeInfo) -> Result<NodeId, StoreError> {
    reach(Step::RegisterBegins);
    let names =
        |names: Vec<&str>| Value::from(names.into_iter().map(Value::from).collect::<Vec<_>>());
    let mut map = Map::new();
    map.insert("name", info.name.as_str());
    map.insert("pid", u64::from(info.pid));
    map.insert("queues", names(info.queues.iter().map(celeriac_core::QueueName::as_str).collect()));
    map.insert("concurrency", u64::from(info.concurrency));
    map.insert("pool", info.pool.as_str());
    map.insert("heartbeat_us", info.times.heartbeat.as_micros() as i64);
    map.insert("expiry_us", info.times.expiry.as_micros() as i64);
    map.insert("tasks", names(info.tasks.iter().map(String::as_str).collect()));
    let mut argument = argument(core, "register", 2);
    argument.text("info").text(&Value::Object(map).to_string());
    argument.text("expiry").number(info.times.expiry.as_micros() as i64);
    let answer = core.link.script("register a worker", &NODES, argument.into_bytes()).await?;
    let Answer::BulkString(number) = answer else {
        return Err(StoreError::new(ErrorKind::Internal, "register a worker: no number"));
    };
    let number = String::from_utf8_lossy(&number).parse().unwrap_or(0);
    core.expiry_of(NodeId(number), info.times.expiry);
    for warning in core.link.take_warnings() {
        tracing::warn!("{warning}");
    }
    reach(Step::RegisterCommitted);
    Ok(NodeId(number))
}

pub(super) async fn heartbeat(
    core: &Core,
    node: NodeId,
    heartbeat: Heartbeat,
) -> Result<bool, StoreError> {
    reach(Step::HeartbeatBegins);
    let expiry = if let Some(expiry) = core.known_expiry(node) {
        expiry
    } else {
        let Some(view) = list(core).await?.into_iter().find(|view| view.id == node) else {
            return Ok(false);
        };
        core.expiry_of(node, view.info.times.expiry);
        view.info.times.expiry
    };
    let mut argument = argument(core, "beat", 3);
    argument.text("node").text(&node.0.to_string());
    argument.text("expiry").number(expiry.as_micros() as i64);
    argument.text("said").text(&format!("{} {}", heartbeat.active, heartbeat.processed));
    let answer = core.link.script("renew a worker's leases", &NODES, argument.into_bytes()).await?;
    reach(Step::HeartbeatCommitted);
    match answer {
        Answer::Int(now) if now > 0 => {
            core.server_said(micros_to_time(now));
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Notes what a node consumes now. Only the node itself changes what it said.
pub(super) async fn revise(
    core: &Core,
    node: NodeId,
    queues: &[QueueName],
    concurrency: u32,
) -> Result<bool, StoreError> {
    let hash = core.keys.own(&format!("node:{}", node.0));
    let mut read = Pipeline::new();
    read.cmd("HGET").arg(&hash).arg("info");
    read.cmd("ZSCORE").arg(core.keys.own("nodes")).arg(node.0);
    let answers = core.link.pipeline("read a worker", &read).await?;
    let [Answer::BulkString(info), score] = &answers[..] else { return Ok(false) };
    let Ok(Value::Object(mut info)) = Value::parse(info) else { return Ok(false) };
    if *score == Answer::Nil {
        return Ok(false);
    }
    info.insert("queues", queues.iter().map(QueueName::as_str).collect::<Value>());
    info.insert("concurrency", u64::from(concurrency));
    let mut write = redis::cmd("HSET");
    write.arg(&hash).arg("info").arg(Value::Object(info).to_string());
    core.link.call("note what a worker consumes", &write).await.map(|_| true)
}

/// Whether nobody has declared a node dead.
///
/// Where Redis does not answer, its machine is asked for a connection: one that refuses or accepts
/// says that Redis is down or stopped, for everybody, so nobody takes leases away (decision 0010).
pub(super) async fn stands(core: &Core, node: NodeId) -> Result<bool, StoreError> {
    let mut score = redis::cmd("ZSCORE");
    score.arg(core.keys.own("nodes")).arg(node.0);
    let expiry = core.known_expiry(node).unwrap_or(LeaseTimes::default().expiry);
    let asked = core.link.call("look for a worker's leases", &score);
    match tokio::time::timeout(expiry / ANSWER_SHARE, asked).await {
        Ok(Ok(answer)) => Ok(answer != Answer::Nil),
        Ok(Err(_)) | Err(_) if core.link.address().machine_answers().await.is_some() => Ok(true),
        Ok(Err(_)) | Err(_) => {
            let text = format!("nothing answers at {}", core.link.address());
            Err(StoreError::new(ErrorKind::Unavailable, text))
        }
    }
}

pub(super) async fn deregister(core: &Core, node: NodeId) -> Result<u64, StoreError> {
    reach(Step::DeregisterBegins);
    let mut argument = argument(core, "leave", 1);
    argument.text("node").text(&node.0.to_string());
    core.link.script("sign a worker off", &NODES, argument.into_bytes()).await?;
    let returned = recover_one(core, &node.0.to_string(), "left").await?.requeued;
    reach(Step::DeregisterCommitted);
    core.bell.ring();
    Ok(returned)
}

/// Finds dead nodes and returns what they held, and what others left half returned.
pub(super) async fn sweep(core: &Core) -> Result<Sweep, StoreError> {
    reach(Step::SweepBegins);
    let mut argument = argument(core, "sweep", 2);
    argument.text("remembered").number(REMEMBERED.as_micros() as i64);
    let valid = core.now().as_microsecond() + core.shortest_expiry().as_micros() as i64 / 4;
    argument.text("valid").number(valid);
    let answer = core.link.script("look for dead workers", &NODES, argument.into_bytes()).await?;
    let mut swept = Sweep::default();
    let dead = texts(answer);
    if !dead.is_empty() {
        let names: BTreeMap<NodeId, String> =
            list(core).await?.into_iter().map(|view| (view.id, view.info.name)).collect();
        for node in &dead {
            let id = NodeId(node.parse().unwrap_or(0));
            swept
                .dead_nodes
                .push(names.get(&id).cloned().unwrap_or_else(|| format!("node {node}")));
        }
    }
    let mut orphans = redis::cmd("HGETALL");
    orphans.arg(core.keys.own("orphans"));
    let pairs = texts(core.link.call("look for orphans", &orphans).await?);
    for pair in pairs.chunks(2) {
        let [node, how] = pair else { continue };
        let recovered = recover_one(core, node, how).await?;
        swept.requeued += recovered.requeued;
        swept.poisoned += recovered.poisoned;
        swept.lost += recovered.lost;
    }
    if swept.requeued > 0 {
        reach(Step::SweepCommitted);
        core.bell.ring();
    }
    super::restore::restore(core).await?;
    super::unique::forget_windows(core).await?;
    Ok(swept)
}

async fn name_of(core: &Core, node: &str) -> Result<String, StoreError> {
    let mut named = redis::cmd("HGET");
    named.arg(core.keys.own(&format!("node:{node}"))).arg("info");
    let name = match core.link.call("read a worker", &named).await? {
        Answer::BulkString(info) => Value::parse(&info).ok(),
        _ => None,
    };
    let name = name.and_then(|info| info.get("name")?.as_str().map(str::to_owned));
    Ok(name.unwrap_or_else(|| format!("node {node}")))
}

/// Returns what a node held; whoever does a part of it, each message goes once.
async fn recover_one(core: &Core, node: &str, how: &str) -> Result<Sweep, StoreError> {
    let mut swept = Sweep::default();
    let name = name_of(core, node).await?;
    let hash = format!("orphans:{node}");
    let mut rows = rows_of(core, &hash).await?;
    // The one that was taken last goes to the head first.
    rows.sort_unstable_by(|a, b| b.cmp(a));
    for some in rows.chunks(RETURN_MAX) {
        let (records, started) = read_held(core, &hash, node, some).await?;
        let mut units = Vec::new();
        for ((row, record), started) in some.iter().zip(records).zip(started) {
            let Answer::BulkString(record) = record else { continue };
            let begun = begun(&started);
            let record = match how {
                "died" => bereaved(core, &name, *row, &record, begun, &mut swept),
                _ => redelivered(core, &name, *row, &record, begun),
            };
            units.push(unit(&hash, *row, Deed::Back { place: Place::Head, record }));
        }
        reach(Step::SweepWritten);
        let written = commit::write(core, units, commit::Limits::SizeOnly).await?;
        swept.requeued +=
            written.iter().filter(|one| **one != commit::Written::Fenced).count() as u64;
    }
    let mut end = Pipeline::new();
    end.cmd("HDEL").arg(core.keys.own("orphans")).arg(node);
    end.cmd("DEL").arg(core.keys.own(&format!("started:{node}")));
    core.link.pipeline("forget a worker", &end).await?;
    Ok(swept)
}

fn list_of(answer: Option<Answer>) -> Vec<Answer> {
    match answer {
        Some(Answer::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The records of some rows of a node, and what is noted of their runs.
async fn read_held(
    core: &Core,
    hash: &str,
    node: impl fmt::Display,
    rows: &[i64],
) -> Result<(Vec<Answer>, Vec<Answer>), StoreError> {
    let mut read = Pipeline::new();
    read.cmd("HMGET").arg(core.keys.own(hash)).arg(rows);
    read.cmd("HMGET").arg(core.keys.own(&format!("started:{node}"))).arg(rows);
    let mut answers = core.link.pipeline("read what is held", &read).await?.into_iter();
    Ok((list_of(answers.next()), list_of(answers.next())))
}

fn unit(hash: &str, row: i64, deed: Deed) -> Unit {
    Unit { held: Some((hash.to_owned(), row)), deed, plan: Plan::default(), finisher: None }
}

async fn rows_of(core: &Core, hash: &str) -> Result<Vec<i64>, StoreError> {
    let mut keys = redis::cmd("HKEYS");
    keys.arg(core.keys.own(hash));
    let rows = texts(core.link.call("list what is held", &keys).await?);
    Ok(rows.iter().filter_map(|row| row.parse().ok()).collect())
}

/// What a node notes of a held message that runs (`lua/mark.lua`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Begun {
    at: Option<i64>,
    acknowledged: bool,
}

fn begun(answer: &Answer) -> Begun {
    let Answer::BulkString(text) = answer else { return Begun::default() };
    let text = String::from_utf8_lossy(text);
    let (time, acknowledged) = match text.strip_suffix('a') {
        Some(time) => (time, true),
        None => (&*text, false),
    };
    Begun { at: time.parse().ok(), acknowledged }
}

/// A record after the death of the worker that held it.
fn bereaved(
    core: &Core,
    node: &str,
    row: i64,
    record: &[u8],
    begun: Begun,
    swept: &mut Sweep,
) -> Vec<u8> {
    commit::rewritten(core, Some(record), |packet| {
        commit::keep_place(packet, Place::Head, row);
        packet.notes.lost |= begun.acknowledged;
        let lost = packet.notes.lost;
        let verdict = packet.notes.suspicion.after_worker_death();
        swept.lost += u64::from(lost);
        swept.poisoned += u64::from(!lost && matches!(verdict, Recovery::Poison(_)));
        let (Recovery::Requeue(suspicion)
        | Recovery::Isolate(suspicion)
        | Recovery::Poison(suspicion)) = verdict;
        packet.notes.suspicion = suspicion;
        packet.notes.redelivered = true;
        note_loss(core, packet, node, begun);
    })
}

/// Notes the run that a worker did not end.
fn note_loss(core: &Core, packet: &mut Packet, node: &str, begun: Begun) {
    let attempt = Attempt {
        retries: packet.message.headers.retries(),
        worker: node.to_owned(),
        started_at: begun.at.map(micros_to_time),
        ended_at: core.now(),
        outcome: "worker-lost".to_owned(),
        detail: worker_lost(packet.notes.lost).to_owned(),
    };
    remember(&mut packet.notes.history, attempt);
}

/// A record that was handed back: it may have begun.
fn redelivered(core: &Core, node: &str, row: i64, record: &[u8], begun: Begun) -> Vec<u8> {
    commit::rewritten(core, Some(record), |packet| {
        commit::keep_place(packet, Place::Head, row);
        if begun.acknowledged && !packet.notes.lost {
            packet.notes.lost = true;
            note_loss(core, packet, node, begun);
        }
        packet.notes.redelivered = true;
    })
}

/// Gives back what a node holds and does not know of.
pub(super) async fn return_strays(
    core: &Core,
    node: NodeId,
    known: &[Lease],
) -> Result<u64, StoreError> {
    let known: BTreeSet<i64> = known
        .iter()
        .filter(|lease| commit::node_of(**lease) == node.0)
        .map(|lease| lease.row)
        .collect();
    let hash = format!("held:{}", node.0);
    let mut strays = rows_of(core, &hash).await?;
    strays.retain(|row| !known.contains(row));
    strays.sort_unstable_by(|a, b| b.cmp(a));
    if strays.is_empty() {
        return Ok(0);
    }
    let name = name_of(core, &node.0.to_string()).await?;
    let mut returned = 0;
    for some in strays.chunks(RETURN_MAX) {
        let (records, started) = read_held(core, &hash, node.0, some).await?;
        let mut units = Vec::new();
        for ((row, record), started) in some.iter().zip(records).zip(started) {
            if let Answer::BulkString(record) = record {
                let record = redelivered(core, &name, *row, &record, begun(&started));
                units.push(unit(&hash, *row, Deed::Back { place: Place::Head, record }));
            }
        }
        let written = commit::write(core, units, commit::Limits::SizeOnly).await?;
        returned += written.iter().filter(|one| **one != commit::Written::Fenced).count() as u64;
    }
    if returned > 0 {
        core.bell.ring();
    }
    Ok(returned)
}

/// All nodes that are alive or were within the last day.
pub(super) async fn list(core: &Core) -> Result<Vec<NodeView>, StoreError> {
    let mut ids = Pipeline::new();
    for set in ["nodes", "gone"] {
        ids.cmd("ZRANGE")
            .arg(core.keys.own(set))
            .arg(0)
            .arg(NODES_MAX as i64 - 1)
            .arg("WITHSCORES");
    }
    let mut answers = core.link.pipeline("list the workers", &ids).await?.into_iter();
    let alive = texts(answers.next().unwrap_or_default());
    let gone = texts(answers.next().unwrap_or_default());
    let now = core.store_now().await?;
    let mut known: BTreeMap<i64, bool> = BTreeMap::new();
    for (pairs, here) in [(&gone, false), (&alive, true)] {
        for pair in pairs.chunks(2) {
            if let [id, at] = pair
                && let Ok(id) = id.parse()
            {
                let until = at.parse::<f64>().unwrap_or(0.0) as i64;
                known.insert(id, here && until > now);
            }
        }
    }
    let mut read = Pipeline::new();
    for id in known.keys() {
        read.cmd("HMGET").arg(core.keys.own(&format!("node:{id}")));
        read.arg("info").arg("said").arg("seen").arg("began");
    }
    let answers = core.link.pipeline("read the workers", &read).await?;
    let mut nodes = Vec::new();
    for ((id, alive), answer) in known.into_iter().zip(answers) {
        nodes.extend(view(id, alive, &texts(answer)));
    }
    Ok(nodes)
}

/// `None` for a node whose description is gone or cannot be read.
fn view(id: i64, alive: bool, parts: &[String]) -> Option<NodeView> {
    let [info, said, seen, began] = parts else { return None };
    let info = Value::parse(info.as_bytes()).ok()?;
    let number = |name: &str| info.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let names = |name: &str| -> Vec<String> {
        let list = info.get(name).and_then(Value::as_array).unwrap_or_default();
        list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let (active, processed) = said.split_once(' ').unwrap_or(("0", "0"));
    Some(NodeView {
        id: NodeId(id),
        info: NodeInfo {
            name: text("name"),
            pid: number("pid") as u32,
            queues: names("queues").iter().filter_map(|name| queue_of(name).ok()).collect(),
            concurrency: number("concurrency") as u32,
            pool: text("pool"),
            times: LeaseTimes {
                heartbeat: Duration::from_micros(number("heartbeat_us")),
                expiry: Duration::from_micros(number("expiry_us")),
            },
            tasks: names("tasks"),
        },
        heartbeat: Heartbeat {
            active: active.parse().unwrap_or(0),
            processed: processed.parse().unwrap_or(0),
        },
        started_at: micros_to_time(began.parse().unwrap_or(0)),
        seen_at: micros_to_time(seen.parse().unwrap_or(0)),
        alive,
    })
}

/// A held message as views show it.
pub(super) struct HeldRecord {
    pub(super) node: i64,
    pub(super) queue: String,
    pub(super) packet: Packet,
    pub(super) started: Option<i64>,
}

/// Everything that living nodes hold, at most `count_max`.
pub(super) async fn held(core: &Core, count_max: usize) -> Result<Vec<HeldRecord>, StoreError> {
    let mut nodes = redis::cmd("ZRANGE");
    nodes.arg(core.keys.own("nodes")).arg(0).arg(NODES_MAX as i64 - 1);
    let mut found = Vec::new();
    for node in texts(core.link.call("list the workers", &nodes).await?) {
        let hash = format!("held:{node}");
        let mut rows = rows_of(core, &hash).await?;
        rows.sort_unstable();
        for some in rows.chunks(RETURN_MAX) {
            if found.len() >= count_max {
                return Ok(found);
            }
            let (records, started) = read_held(core, &hash, &node, some).await?;
            for (record, started) in records.iter().zip(started) {
                let Answer::BulkString(record) = record else { continue };
                let Some((head, payload)) = split(record) else { continue };
                let Ok(packet) = Packet::parse(payload) else { continue };
                let started = begun(&started).at;
                let node = node.parse().unwrap_or(0);
                found.push(HeldRecord { node, queue: head.queue, packet, started });
            }
        }
    }
    Ok(found)
}
