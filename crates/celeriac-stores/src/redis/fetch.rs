//! Takes messages: fetch and lease in one script, then each is sorted by what only this side can read
//! of it. What is to wait (for its time, behind a limit) goes back under our keys at once.

use super::commit::{self, Deed, Unit, Written, lease_of};
use super::limits::{self, Choice};
use super::pack::Pack;
use super::packet::{Packet, RecordHead, key_of, lane_name, split};
use super::script::FETCH;
use super::{Core, micros_to_time};
use crate::rules::Rules;
use crate::turn::Turn;
use celeriac_core::dead::DeadReason;
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::store::{Delivery, FetchRequest, Place, Plan, TaskCap};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::Headers;
use jiff::Timestamp;
use redis::Value as Answer;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many messages a fetch looks at once it has met some that have to be sorted away.
const SORT_MAX: usize = 512;
/// How often one fetch asks again because it sorted messages away.
const ROUNDS_MAX: usize = 8;
/// How often one fetch begins again because the state of the limits changed under it.
const RACES_MAX: usize = 16;
/// The name of the lane of unique messages that nothing limits.
pub(super) const PLAIN_LANE: &str = ".";

/// A message that was taken, as the script gave it.
struct Taken {
    row: i64,
    head: RecordHead,
    packet: Packet,
    revoked: bool,
}

/// What to do with one.
enum Sorted {
    Deliver(Box<Taken>),
    Away(Deed),
}

/// Leases up to `count_max` messages for a node.
pub(super) async fn fetch(
    core: &Core,
    request: &FetchRequest,
    turn: &Turn,
) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = Vec::new();
    if request.queues.is_empty() || request.count_max == 0 {
        return Ok(deliveries);
    }
    reach(Step::FetchBegins);
    let mut rules = core.rules().await?;
    // The script, which would tell that the rules have changed, is not asked about paused queues.
    if request.queues.iter().any(|queue| rules.1.stops_queue(queue.as_str())) {
        rules = core.reload_rules().await?;
    }
    let (mut limited, mut sorted_away, mut suspected) = (core.limited(), false, false);
    let mut races = 0;
    let mut caps = request.caps.clone();
    for round in 0.. {
        let queues = turn.order(open_queues(&rules.1, &request.queues));
        let left = request.count_max - deliveries.len();
        if left == 0 {
            break;
        }
        if round == ROUNDS_MAX {
            core.bell.ring();
            break;
        }
        let choice = if limited {
            Some(limits::choose(core, &rules.1, &queues, &caps, left).await?)
        } else {
            None
        };
        let count = if sorted_away { left.max(SORT_MAX) } else { left };
        let suspects = request.suspects && !suspected;
        let taken = ask(core, request, &queues, count, suspects, choice.as_ref()).await?;
        let Some(taken) = taken else {
            races += 1;
            if races > RACES_MAX {
                core.bell.ring();
                break;
            }
            continue;
        };
        if taken.version != rules.0 {
            rules = core.reload_rules().await?;
        }
        let revoked =
            if taken.revoked { revoked_of(core, &taken.records).await? } else { BTreeSet::new() };
        let (met_lanes, now) = (taken.lanes, taken.now);
        core.server_said(now);
        let any = !taken.records.is_empty();
        let mut sort = Sort {
            core,
            request,
            rules: &rules.1,
            revoked: &revoked,
            left,
            now,
            units: Vec::new(),
        };
        for taken in sort.all(&taken) {
            suspected |= taken.head.suspect;
            let task = taken.packet.message.headers.task();
            let runs = !taken.packet.notes.lost;
            if let Some(cap) = caps.iter_mut().find(|cap| runs && Some(cap.task.as_str()) == task) {
                cap.count_max = cap.count_max.saturating_sub(1);
            }
            deliveries.push(delivery(core, request, taken));
        }
        let units = sort.units;
        sorted_away = !units.is_empty();
        put_away(core, units).await?;
        // Lanes were met that this round did not look into.
        let unseen = met_lanes && !limited;
        limited = met_lanes || !rules.1.is_empty();
        core.set_limited(met_lanes);
        let more = any && limited && deliveries.len() < request.count_max;
        if !(sorted_away || unseen || more) {
            break;
        }
    }
    if !deliveries.is_empty() {
        reach(Step::FetchCommitted);
    }
    Ok(deliveries)
}

/// The queues that nothing pauses, each once.
fn open_queues(rules: &Rules, queues: &[QueueName]) -> Vec<QueueName> {
    let mut seen = BTreeSet::new();
    queues
        .iter()
        .filter(|queue| !rules.stops_queue(queue.as_str()) && seen.insert((*queue).clone()))
        .cloned()
        .collect()
}

/// What one call of the script took.
struct Reply {
    version: i64,
    lanes: bool,
    revoked: bool,
    first_row: i64,
    /// The time by which the script found messages due.
    now: Timestamp,
    records: Vec<Vec<u8>>,
}

/// Calls the script; `None` when the state of the limits has changed since it was read.
async fn ask(
    core: &Core,
    request: &FetchRequest,
    queues: &[QueueName],
    count: usize,
    suspects: bool,
    choice: Option<&Choice>,
) -> Result<Option<Reply>, StoreError> {
    let mut argument = Pack::default();
    argument.map(11);
    core.pack_head(&mut argument);
    argument.text("node").text(&request.node.0.to_string());
    argument.text("n").number(count.min(4096) as i64);
    argument.text("qs").array(queues.len());
    for queue in queues {
        argument.text(queue.as_str());
    }
    let all: BTreeSet<&QueueName> = request.queues.iter().collect();
    argument.text("lq").array(all.len());
    for queue in all {
        argument.text(queue.as_str());
    }
    argument.text("sus").truth(suspects);
    match choice {
        Some(choice) => choice.pack(&mut argument),
        None => Choice::pack_none(&mut argument),
    }
    match core.link.script("fetch", &FETCH, argument.into_bytes()).await? {
        Answer::Int(-1) => {
            let what = format!("fetch for node {}, which is not alive", request.node.0);
            Err(StoreError::new(ErrorKind::Conflict, what).hint("the worker has to register anew"))
        }
        Answer::Int(_) => Ok(None),
        Answer::Array(list) => Ok(Some(reply(list))),
        _ => Err(StoreError::new(ErrorKind::Internal, "fetch: a script gave no list")),
    }
}

fn reply(list: Vec<Answer>) -> Reply {
    let mut list = list.into_iter();
    let mut number = || match list.next() {
        Some(Answer::Int(number)) => number,
        Some(Answer::BulkString(text)) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
        _ => 0,
    };
    let (version, lanes, first_row, revoked) = (number(), number(), number(), number());
    let now = micros_to_time(number());
    let record = |answer| match answer {
        Answer::BulkString(record) => record,
        _ => Vec::new(),
    };
    let (lanes, revoked) = (lanes != 0, revoked != 0);
    Reply { version, lanes, revoked, first_row, now, records: list.map(record).collect() }
}

/// Sorts what was taken into what is delivered and what waits on.
struct Sort<'a> {
    core: &'a Core,
    request: &'a FetchRequest,
    rules: &'a Rules,
    revoked: &'a BTreeSet<String>,
    left: usize,
    now: Timestamp,
    units: Vec<Unit>,
}

impl Sort<'_> {
    fn all(&mut self, reply: &Reply) -> Vec<Taken> {
        let held = format!("held:{}", self.request.node.0);
        let mut deliveries = Vec::new();
        let mut surplus = Vec::new();
        for (index, record) in reply.records.iter().enumerate() {
            let row = reply.first_row + index as i64;
            let deed = match self.one(row, record) {
                Sorted::Deliver(taken) if deliveries.len() < self.left => {
                    deliveries.push(*taken);
                    continue;
                }
                Sorted::Deliver(_) => {
                    surplus.push(row);
                    continue;
                }
                Sorted::Away(deed) => deed,
            };
            self.units.push(unit(&held, row, deed));
        }
        // The last one first, so that the first stands at the head.
        for row in surplus.into_iter().rev() {
            let deed = Deed::Back { place: Place::Head, record: Vec::new() };
            self.units.push(unit(&held, row, deed));
        }
        deliveries
    }

    fn one(&self, row: i64, record: &[u8]) -> Sorted {
        let Some((head, payload)) = split(record) else {
            let why = "what is stored under our own keys is damaged";
            let deed = commit::bury(self.core, "celery", record, DeadReason::Undecodable, why);
            return Sorted::Away(deed);
        };
        let mut packet = match Packet::parse(payload) {
            Ok(packet) => packet,
            Err(why) => {
                tracing::error!(queue = head.queue, why, "no message; it is a dead letter now");
                let reason = DeadReason::Undecodable;
                return Sorted::Away(commit::bury(self.core, &head.queue, payload, reason, &why));
            }
        };
        let now = self.now;
        if packet.notes.enqueued.is_none() {
            packet.notes.enqueued = Some(now.as_microsecond());
        }
        let old = packet.upgrade();
        let headers = old.as_ref().unwrap_or(&packet.message.headers);
        let id = headers.id().unwrap_or_default();
        let revoked = self.revoked.contains(id);
        // It does not run: neither its time nor a lane holds it.
        if packet.notes.lost {
            return Sorted::Deliver(Box::new(Taken { row, head, packet, revoked }));
        }
        let eta = headers.eta().ok().flatten().filter(|eta| *eta > now && !revoked);
        if let Some(eta) = eta {
            let record = packet.record(&head.queue, &head.lane, &*self.core.entropy);
            return Sorted::Away(Deed::Later { due: eta.as_microsecond(), record });
        }
        let unsorted = head.lane.is_empty() || head.lane == PLAIN_LANE;
        if unsorted && restricted(self.rules, &self.request.caps, &head.queue, headers) {
            let lane = lane_name(headers.task().unwrap_or_default(), key_of(headers));
            let record = packet.record(&head.queue, &lane, &*self.core.entropy);
            return Sorted::Away(Deed::Lane { record });
        }
        Sorted::Deliver(Box::new(Taken { row, head, packet, revoked }))
    }
}

fn unit(held: &str, row: i64, deed: Deed) -> Unit {
    Unit { held: Some((held.to_owned(), row)), deed, plan: Plan::default(), finisher: None }
}

/// Whether a limit, a pause or a worker's own rate is about a message.
pub(super) fn restricted(rules: &Rules, caps: &[TaskCap], queue: &str, headers: &Headers) -> bool {
    let task = headers.task().unwrap_or_default();
    if caps.iter().any(|cap| cap.task == task) {
        return true;
    }
    if rules.is_empty() {
        return false;
    }
    let key = key_of(headers);
    rules.pauses(queue, task, key)
        || rules.limits().iter().any(|rule| rule.counter(queue, task, key).is_some())
}

/// Writes what does not go to the worker.
async fn put_away(core: &Core, units: Vec<Unit>) -> Result<(), StoreError> {
    if units.is_empty() {
        return Ok(());
    }
    let dead = |unit: &Unit| matches!(unit.deed, Deed::Dead { .. });
    let (letters, others): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(dead);
    if !others.is_empty() {
        commit::write(core, others, commit::Limits::SizeOnly).await?;
    }
    let held_of = |unit: &Unit| (unit.held.clone(), unit.deed.clone());
    let each: Vec<_> = letters.iter().map(held_of).collect();
    match commit::write(core, letters, commit::Limits::SizeOnly).await {
        // There is no room for all of them: perhaps for some.
        Err(full) if full.kind() == ErrorKind::DeadFull => {}
        written => return written.map(drop),
    }
    for (held, deed) in each {
        let (plan, finisher) = (Plan::default(), None);
        let letter = Unit { held: held.clone(), deed, plan, finisher };
        match commit::write(core, vec![letter], commit::Limits::SizeOnly).await {
            Ok(_) => {}
            // It waits behind the others until there is room for it.
            Err(full) if full.kind() == ErrorKind::DeadFull => {
                let back = Deed::Back { place: Place::Tail, record: Vec::new() };
                let back = Unit { held, deed: back, plan: Plan::default(), finisher: None };
                let _written: Vec<Written> =
                    commit::write(core, vec![back], commit::Limits::SizeOnly).await?;
                return Err(full);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Which of the tasks are revoked.
async fn revoked_of(core: &Core, records: &[Vec<u8>]) -> Result<BTreeSet<String>, StoreError> {
    let id = |record: &Vec<u8>| {
        let (_, payload) = split(record)?;
        let mut packet = Packet::parse(payload).ok()?;
        let old = packet.upgrade();
        old.as_ref().unwrap_or(&packet.message.headers).id().map(str::to_owned)
    };
    let ids: Vec<String> = records.iter().filter_map(id).collect();
    super::control::revoked_among(core, &ids).await
}

fn delivery(core: &Core, request: &FetchRequest, taken: Taken) -> Delivery {
    let Taken { row, head, packet, revoked } = taken;
    let queue = request.queues.iter().find(|queue| queue.as_str() == head.queue).cloned();
    Delivery {
        lease: lease_of(request.node.0, row),
        queue: queue.unwrap_or_else(QueueName::celery),
        revoked,
        redelivered: packet.notes.redelivered,
        acknowledged: packet.notes.lost,
        suspicion: packet.notes.suspicion,
        enqueued_at: packet.notes.enqueued.map_or_else(|| core.now(), micros_to_time),
        history: packet.notes.history,
        message: packet.message,
    }
}

/// When the next scheduled message of these queues is due, or the next of their lanes opens.
pub(super) async fn next_due(
    core: &Core,
    queues: &[QueueName],
) -> Result<Option<Timestamp>, StoreError> {
    let mut pipeline = redis::Pipeline::new();
    let now = core.now().as_microsecond();
    for queue in queues {
        pipeline.cmd("ZSCORE").arg(core.keys.own("due")).arg(queue.as_str());
        let lanes = core.keys.own(&format!("lanes:{queue}"));
        pipeline.cmd("ZRANGEBYSCORE").arg(lanes).arg(format!("({now}")).arg("+inf");
        pipeline.arg("WITHSCORES").arg("LIMIT").arg(0).arg(1);
    }
    let answers = core.link.pipeline("look for scheduled messages", &pipeline).await?;
    let time = |answer: &Answer| match answer {
        Answer::BulkString(text) => {
            std::str::from_utf8(text).ok()?.parse::<f64>().ok().map(|at| at as i64)
        }
        Answer::Double(at) => Some(*at as i64),
        _ => None,
    };
    let found = answers.iter().filter_map(|answer| match answer {
        Answer::Array(pair) => pair.get(1).and_then(time),
        other => time(other),
    });
    Ok(found.min().map(micros_to_time))
}

/// The rules in force, with the version they were read at.
pub(super) type Known = Arc<(i64, Rules)>;
