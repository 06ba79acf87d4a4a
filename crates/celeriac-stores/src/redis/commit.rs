//! Writes plans and settlements: the arguments of `lua/commit.lua`, and the chords that need a plan.

use super::Core;
use super::exchanges::{self, Tables};
use super::pack::Pack;
use super::packet::{self, Packet, split};
use super::redbeat::{self, Shared};
use super::results;
use super::schedules::{self, Firing};
use super::script::COMMIT;
use celeriac_core::dead::{DeadReason, remember};
use celeriac_core::failpoint::{Step, reach};
use celeriac_core::lease::Lease;
use celeriac_core::limits::{CHORD_CASCADE_MAX, TASK_ID_BYTES_MAX};
use celeriac_core::store::{
    ChordDone, ChordFinisher, ChordPart, ChordStart, Duplicate, Fate, ONCE_KEPT, Outgoing, Place,
    Plan, Published, Settled, Settlement,
};
use celeriac_core::throttle::KEY_BYTES_MAX;
use celeriac_core::workflow::members_named;
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{Map, Message, Signature, State, Value};
use redis::{Pipeline, Value as Answer};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much a message may grow while it lives: a retry adds an eta and counts up.
const RETRY_ROOM: usize = 1024;
/// How long the parts of a chord are kept where results are kept for ever, in seconds: ten years.
const CHORD_KEPT: i64 = 10 * 365 * 86_400;
/// How often a unit is tried again because others counted parts of its chord at the same time.
const RACES_MAX: usize = 16;

/// Which of a publisher's limits are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limits {
    /// A client: size, depth and uniqueness.
    Enforced,
    /// An operator who puts something back: it must not vanish as a duplicate.
    NotUnique,
    /// A beat: size and uniqueness.
    NoDepth,
    /// A worker: what was accepted is never refused for depth.
    SizeOnly,
}

/// What becomes of a held record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deed {
    /// Nothing is held.
    Nothing,
    /// It leaves.
    Done,
    /// It goes back; a new record replaces it unless that is empty.
    Back { place: Place, record: Vec<u8> },
    /// It is set aside.
    Dead { letter: Vec<u8>, task_id: String },
    /// It is not held, but stands among what is lost, and is set aside from there.
    DeadLost { record: Vec<u8>, letter: Vec<u8>, task_id: String },
    /// It waits for its time, in microseconds.
    Later { due: i64, record: Vec<u8> },
    /// It waits in a lane.
    Lane { record: Vec<u8> },
    /// It stays held, and counts in a lane from now on.
    CountInLane { record: Vec<u8> },
    /// Nothing is held: an occurrence is noted, and its entry goes on.
    Fire(Box<Firing>),
}

impl Deed {
    /// What a fire writes into RedBeat's keys.
    fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Fire(firing) => firing.shared.as_ref(),
            _ => None,
        }
    }
}

/// One atomic write.
pub(super) struct Unit {
    /// The hash that has to hold the row, behind `celeriac:`, and the row.
    pub(super) held: Option<(String, i64)>,
    pub(super) deed: Deed,
    pub(super) plan: Plan,
    pub(super) finisher: Option<ChordFinisher>,
}

/// What became of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Fenced,
    Done(Vec<Duplicate>),
    /// Nobody listens to a fanout, and nothing else was to go with it: nothing was written.
    Unheard,
    /// The entry has another version: nothing was written.
    Changed,
    /// The entry has a line for this time: it goes on, and nothing else was written.
    Taken,
}

/// A complete chord for which a plan was made.
struct Finished {
    key: String,
    parts_before: i64,
    plan: Plan,
}

/// A unit on its way.
struct Attempt {
    unit: Unit,
    finished: Vec<Finished>,
    races: usize,
}

/// Writes a plan as a client or an operator.
pub(super) async fn publish(
    core: &Core,
    mut plan: Plan,
    finisher: Option<ChordFinisher>,
) -> Result<Published, StoreError> {
    if plan.is_empty() {
        return Ok(Published::default());
    }
    reach(Step::PublishBegins);
    let direct = plan.publish.len();
    let places = exchanges::route(core, &mut Tables::default(), &mut plan).await?;
    let fanouts: Vec<String> = plan.routed.iter().map(|one| one.exchange.name.clone()).collect();
    let unit = Unit { held: None, deed: Deed::Nothing, plan, finisher };
    let written = write(core, vec![unit], Limits::Enforced).await?.pop();
    reach(Step::PublishCommitted);
    core.bell.ring();
    match written {
        Some(Written::Done(mut duplicates)) => {
            for one in &mut duplicates {
                let routed = one.index.checked_sub(direct).and_then(|index| places.get(index));
                one.index = routed.map_or(one.index, |place| direct + place);
            }
            Ok(Published { duplicates })
        }
        Some(Written::Unheard) => {
            let text = format!("nobody listens to the fanout exchange {}", fanouts.join(", "));
            Err(StoreError::new(ErrorKind::NotFound, text).hint(
                "on Redis a fanout reaches the workers that listen now, and keeps nothing for others; \
                 an ACL user needs the permission to publish to its channel",
            ))
        }
        _ => Ok(Published::default()),
    }
}

/// Puts dead letters back: their messages go out, and they go, in one step.
///
/// # Errors
/// `Conflict` when one of them is gone: nothing was written.
pub(super) async fn replay(
    core: &Core,
    plan: Plan,
    numbers: &[i64],
    forget: &[String],
) -> Result<(), StoreError> {
    let unit = Unit { held: None, deed: Deed::Nothing, plan, finisher: None };
    let open = [(0, Attempt { unit, finished: Vec::new(), races: 0 })];
    let argument = pack(core, &open, Limits::NotUnique, numbers, forget)?;
    let answer = core.link.script("replay dead letters", &COMMIT, argument).await;
    answer.map_err(|error| full(core, error))?;
    core.bell.ring();
    Ok(())
}

/// Settles deliveries.
pub(super) async fn settle(
    core: &Core,
    settlements: Vec<Settlement>,
) -> Result<Vec<Settled>, StoreError> {
    reach(Step::SettleBegins);
    let records = records_of(core, &settlements).await?;
    let mut units = Vec::with_capacity(settlements.len());
    let mut tables = Tables::default();
    for (settlement, record) in settlements.into_iter().zip(records) {
        let Settlement { lease, fate, mut plan, finisher } = settlement;
        exchanges::route(core, &mut tables, &mut plan).await?;
        let deed = deed_of(core, fate, lease.row, record.as_deref())?;
        let held = Some((held_by(lease), lease.row));
        units.push(Unit { held, deed, plan, finisher });
    }
    let freed = units.iter().any(|unit| !matches!(unit.deed, Deed::Done | Deed::Dead { .. }));
    let written = write(core, units, Limits::SizeOnly).await?;
    reach(Step::SettleCommitted);
    if freed {
        core.bell.ring();
    }
    Ok(written
        .into_iter()
        .map(|one| if one == Written::Fenced { Settled::Fenced } else { Settled::Done })
        .collect())
}

/// The hash that holds a lease's record, behind `celeriac:`.
pub(super) fn held_by(lease: Lease) -> String {
    format!("held:{}", node_of(lease))
}

/// The node of a lease, which is the upper part of its token.
pub(super) fn node_of(lease: Lease) -> i64 {
    lease.token >> 40
}

/// The lease of a row that a node holds.
pub(super) fn lease_of(node: i64, row: i64) -> Lease {
    Lease { row, token: (node << 40) | (row & 0xff_ffff_ffff) }
}

/// Reads the held records that have to be written anew or set aside.
async fn records_of(
    core: &Core,
    settlements: &[Settlement],
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let wanted = |fate: &Fate| match fate {
        Fate::Done => false,
        Fate::Release { .. } | Fate::Lost { .. } | Fate::Dead { .. } => true,
    };
    let mut pipeline = Pipeline::new();
    let mut places = Vec::new();
    for (index, settlement) in settlements.iter().enumerate() {
        if wanted(&settlement.fate) {
            let key = core.keys.own(&held_by(settlement.lease));
            pipeline.cmd("HGET").arg(key).arg(settlement.lease.row);
            places.push(index);
        }
    }
    let mut records = vec![None; settlements.len()];
    let answers = core.link.pipeline("read what is held", &pipeline).await?;
    for (index, answer) in places.into_iter().zip(answers) {
        if let Answer::BulkString(record) = answer {
            records[index] = Some(record);
        }
    }
    Ok(records)
}

fn deed_of(core: &Core, fate: Fate, row: i64, record: Option<&[u8]>) -> Result<Deed, StoreError> {
    let now = core.now();
    Ok(match fate {
        Fate::Done => Deed::Done,
        Fate::Release { place, attempt } => {
            let change = |packet: &mut Packet| {
                keep_place(packet, place, row);
                if let Some(attempt) = attempt {
                    remember(&mut packet.notes.history, attempt);
                    packet.notes.redelivered = true;
                }
            };
            let record = match place {
                Place::Head => rewritten(core, record, change),
                // Among all of the queue, for stock workers too; the next fetch finds its lane again.
                Place::Tail => rewritten_in(core, record, Some(""), change),
            };
            Deed::Back { place, record }
        }
        Fate::Lost { suspicion, attempt } => {
            let record = rewritten(core, record, |packet| {
                keep_place(packet, Place::Head, row);
                remember(&mut packet.notes.history, attempt);
                packet.notes.suspicion = suspicion;
                packet.notes.redelivered = true;
            });
            Deed::Back { place: Place::Head, record }
        }
        Fate::Dead { reason, detail, attempt } => {
            // A lease that is lost is found to be so by the script.
            let Some((head, payload)) = record.and_then(split) else {
                return Ok(Deed::Dead { letter: Vec::new(), task_id: String::new() });
            };
            let mut letter =
                super::dead::Letter::of_payload(&head.queue, payload, reason, &detail, now);
            if let Some(attempt) = attempt {
                remember(&mut letter.history, attempt);
            }
            let task_id = letter.task_id().to_owned();
            Deed::Dead { letter: letter.to_bytes(), task_id }
        }
    })
}

/// Notes where a message that goes back stood: before everything that was taken after it.
pub(super) fn keep_place(packet: &mut Packet, place: Place, row: i64) {
    packet.notes.rank = match place {
        Place::Head => packet.notes.rank.or(Some(row)),
        Place::Tail => None,
    };
}

/// A record with its notes changed; empty, which leaves it as it is, for one that is no message.
pub(super) fn rewritten(
    core: &Core,
    record: Option<&[u8]>,
    change: impl FnOnce(&mut Packet),
) -> Vec<u8> {
    rewritten_in(core, record, None, change)
}

/// The same in another lane, if one is given; the empty one is none.
fn rewritten_in(
    core: &Core,
    record: Option<&[u8]>,
    lane: Option<&str>,
    change: impl FnOnce(&mut Packet),
) -> Vec<u8> {
    let Some((head, payload)) = record.and_then(split) else { return Vec::new() };
    let Ok(mut packet) = Packet::parse(payload) else { return Vec::new() };
    change(&mut packet);
    packet.record(&head.queue, lane.unwrap_or(&head.lane), &*core.entropy)
}

/// Writes units; the answers are in their order.
pub(super) async fn write(
    core: &Core,
    units: Vec<Unit>,
    limits: Limits,
) -> Result<Vec<Written>, StoreError> {
    let mut answers: Vec<Option<Written>> = vec![None; units.len()];
    let start = |unit| Attempt { unit, finished: Vec::new(), races: 0 };
    let mut open: Vec<(usize, Attempt)> = units.into_iter().map(start).enumerate().collect();
    while !open.is_empty() {
        let argument = pack(core, &open, limits, &[], &[])?;
        let answer = core.link.script("write", &COMMIT, argument).await;
        let Answer::Array(replies) = answer.map_err(|error| full(core, error))? else {
            return Err(StoreError::new(ErrorKind::Internal, "a script gave no list"));
        };
        let mut again = Vec::new();
        for ((index, mut attempt), reply) in open.into_iter().zip(replies) {
            match reply {
                Answer::Int(0) => answers[index] = Some(Written::Fenced),
                Answer::Int(3) => answers[index] = Some(Written::Changed),
                Answer::Int(4) => answers[index] = Some(Written::Taken),
                // It comes behind one whose chord needs a plan first.
                Answer::Int(5) => again.push((index, attempt)),
                Answer::Int(2) if attempt.unit.deed == Deed::Nothing => {
                    answers[index] = Some(Written::Unheard);
                }
                Answer::Int(2) => {
                    // The task has ended, or its time has come: what was sent is told, not undone.
                    tracing::warn!("nobody listens to a fanout exchange that was to be called");
                    answers[index] = Some(Written::Done(Vec::new()));
                }
                Answer::Array(list) if !is_duplicates(&list) => {
                    reach(Step::ChordCompleted);
                    finish(core, &mut attempt, &list).await?;
                    again.push((index, attempt));
                }
                Answer::Array(list) => answers[index] = Some(Written::Done(duplicates(&list))),
                _ => answers[index] = Some(Written::Done(Vec::new())),
            }
        }
        open = again;
    }
    Ok(answers.into_iter().map(|one| one.unwrap_or(Written::Fenced)).collect())
}

fn is_duplicates(list: &[Answer]) -> bool {
    matches!(list.first(), Some(Answer::BulkString(first)) if first.is_empty())
}

fn duplicates(list: &[Answer]) -> Vec<Duplicate> {
    let pair = |pair: &[Answer]| match pair {
        [Answer::Int(index), Answer::BulkString(task_id)] => Some(Duplicate {
            index: usize::try_from(*index).ok()?,
            task_id: String::from_utf8_lossy(task_id).into_owned(),
        }),
        _ => None,
    };
    list[1..].chunks(2).filter_map(pair).collect()
}

/// Says in a store's words which bound refused the write.
fn full(core: &Core, error: StoreError) -> StoreError {
    let text = error.to_string();
    let after = |word: &str| text.split_once(word).map(|(_, rest)| rest.trim().to_owned());
    if let Some(rest) = after("CELERIACFULL") {
        let (depth, queue) = rest.split_once(' ').unwrap_or((&rest, ""));
        let max = core.limits.queue_depth_max;
        let text = format!("queue {queue} holds {depth} messages, its limit is {max}");
        return StoreError::new(ErrorKind::Full, text)
            .hint("start more workers, purge the queue, or raise queue_depth_max");
    }
    if let Some(rest) = after("CELERIACDEADFULL") {
        let (letters, bytes) = rest.split_once(' ').unwrap_or((&rest, ""));
        let text = format!("there are {letters} dead letters of {bytes} bytes, no more fit");
        return StoreError::new(ErrorKind::DeadFull, text)
            .hint("replay or discard dead letters, or raise dead_letters_max or dead_bytes_max");
    }
    if text.contains("CELERIACGONE") {
        return StoreError::new(ErrorKind::Conflict, "somebody else took one of the dead letters");
    }
    error
}

/// Makes the plans for chords that an attempt would complete.
async fn finish(core: &Core, attempt: &mut Attempt, keys: &[Answer]) -> Result<(), StoreError> {
    for key in keys {
        let Answer::BulkString(key) = key else { continue };
        let key = String::from_utf8_lossy(key).into_owned();
        if attempt.finished.iter().any(|finished| finished.key == key) {
            // Others counted meanwhile: what rests on the old parts is thrown away.
            attempt.finished.clear();
            attempt.races += 1;
            if attempt.races > RACES_MAX {
                let text = format!("the chord {key} changes all the time");
                return Err(StoreError::new(ErrorKind::Conflict, text));
            }
            return Ok(());
        }
        if attempt.finished.len() >= CHORD_CASCADE_MAX {
            let text = format!("more than {CHORD_CASCADE_MAX} nested chords completed at once");
            return Err(StoreError::new(ErrorKind::Internal, text));
        }
        let (parts_before, done) = complete(core, attempt, &key).await?;
        if let Some(size) = members_named(&done) {
            resize(core, attempt, &key, size);
            return Ok(());
        }
        let mut plan = match &attempt.unit.finisher {
            None => Plan::default(),
            Some(finisher) => {
                catch_unwind(AssertUnwindSafe(|| finisher(&done))).map_err(|_panic| {
                    StoreError::new(ErrorKind::Internal, "a chord's finisher panicked")
                })?
            }
        };
        exchanges::route(core, &mut Tables::default(), &mut plan).await?;
        attempt.finished.push(Finished { key, parts_before, plan });
    }
    Ok(())
}

/// Sets the size of a chord that was set too small; its part is counted, and it goes on waiting.
fn resize(core: &Core, attempt: &mut Attempt, key: &str, size: u32) {
    let group = key.strip_prefix(&core.keys.chord("")).unwrap_or(key).to_owned();
    let chords = &mut attempt.unit.plan.chords;
    chords.retain(|chord| chord.group != group);
    chords.push(ChordStart { group, size });
}

/// The parts of a chord with those that an attempt adds, and how many of them are stored already.
async fn complete(
    core: &Core,
    attempt: &Attempt,
    key: &str,
) -> Result<(i64, ChordDone), StoreError> {
    let words = ["ZRANGE", &format!("{key}.j"), "0", "-1", "WITHSCORES"].map(str::to_owned);
    let stored = match results::call(core, "read a chord's parts", &words).await? {
        Answer::Array(stored) => stored,
        _ => Vec::new(),
    };
    let mut read = redis::cmd("GET");
    read.arg(core.keys.own(&format!("chord:{key}")));
    let body = match core.link.call("read a chord's body", &read).await? {
        Answer::BulkString(body) => Value::parse(&body).ok(),
        _ => None,
    };
    let ours: Vec<&ChordPart> = attempt
        .unit
        .plan
        .parts
        .iter()
        .chain(attempt.finished.iter().flat_map(|finished| &finished.plan.parts))
        .filter(|part| core.keys.chord(&part.group) == key)
        .collect();
    let body = body.and_then(|body| Signature::from_value(body).ok());
    let body = body.or_else(|| ours.first().map(|part| part.body.clone()));
    let body = body.unwrap_or_else(|| Signature::new(""));
    let group = key.strip_prefix(&core.keys.chord("")).unwrap_or(key);
    let mut parts = Vec::new();
    for pair in stored.chunks(2) {
        if let [Answer::BulkString(text), Answer::BulkString(score)] = pair {
            parts.push(read_part(group, text, score, &body)?);
        }
    }
    let before = parts.len() as i64;
    for part in ours {
        let same = |old: &ChordPart| old.task_id == part.task_id && old.index == part.index;
        if !parts.iter().any(same) {
            parts.push(part.clone());
        }
    }
    parts.sort_by_key(|part| part.index);
    let layout = layout(core, key).await?;
    Ok((before, ChordDone { parts, layout }))
}

/// The group's result as its sender has saved it; Celery does where a member of the header ends in a group.
async fn layout(core: &Core, key: &str) -> Result<Option<Value>, StoreError> {
    let words = ["GET", key].map(str::to_owned);
    let Answer::BulkString(saved) = results::call(core, "read a chord's header", &words).await?
    else {
        return Ok(None);
    };
    let saved = results::plain(&saved).ok().and_then(|text| Value::parse(&text).ok());
    Ok(saved.as_ref().and_then(|saved| saved.get("result")).cloned())
}

/// Reads a part as Celery keeps it: `[1, task id, state, result]` (wire specification 4.8), compressed
/// like a result.
pub(super) fn read_part(
    group: &str,
    text: &[u8],
    score: &[u8],
    body: &Signature,
) -> Result<ChordPart, StoreError> {
    let corrupt = || {
        StoreError::new(ErrorKind::Corrupt, format!("a part of the chord {group} cannot be read"))
    };
    let text = results::plain(text).map_err(|_| corrupt())?;
    let value = Value::parse(&text).map_err(|_| corrupt())?;
    let at = |index: usize| value.as_array().and_then(|parts| parts.get(index));
    let score: f64 = std::str::from_utf8(score).ok().and_then(|s| s.parse().ok()).unwrap_or(0.0);
    Ok(ChordPart {
        group: group.to_owned(),
        index: score as i64,
        task_id: at(1).and_then(Value::as_str).ok_or_else(corrupt)?.to_owned(),
        state: State::parse(at(2).and_then(Value::as_str).ok_or_else(corrupt)?),
        result: at(3).cloned().unwrap_or(Value::Null),
        body: body.clone(),
    })
}

/// The argument of the script.
fn pack(
    core: &Core,
    open: &[(usize, Attempt)],
    limits: Limits,
    take: &[i64],
    forget: &[String],
) -> Result<Vec<u8>, StoreError> {
    let mut units = Pack::default();
    units.array(open.len());
    let mut depth: BTreeMap<&str, i64> = BTreeMap::new();
    let (mut letters, mut letter_bytes) = (0, 0);
    for (_, attempt) in open {
        if let Deed::Dead { letter, .. } | Deed::DeadLost { letter, .. } = &attempt.unit.deed {
            letters += 1;
            letter_bytes += letter.len() as i64;
        }
        for outgoing in &attempt.unit.plan.publish {
            *depth.entry(outgoing.queue.as_str()).or_default() += 1;
        }
        pack_unit(core, &mut units, attempt, limits)?;
    }
    if matches!(limits, Limits::SizeOnly | Limits::NoDepth) {
        depth.clear();
    }
    let mut argument = Pack::default();
    argument.map(15);
    core.pack_head(&mut argument);
    core.pack_results(&mut argument);
    schedules::pack_bounds(core, &mut argument);
    let shared = open.iter().find_map(|(_, attempt)| attempt.unit.deed.shared());
    redbeat::pack_place(core, &mut argument, shared.map(|shared| &*shared.place));
    argument.text("units").value(&units);
    argument.text("alone").truth(core.alone);
    let bound = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX).min(1 << 52);
    argument.text("dead_max").number(bound(core.limits.dead_letters_max));
    argument.text("dead_bytes_max").number(bound(core.limits.dead_bytes_max));
    argument.text("dead_new").number(letters);
    argument.text("dead_bytes_new").number(letter_bytes);
    argument.text("depth").array(depth.len());
    for (queue, count) in depth {
        argument.array(3).text(queue).number(count).number(bound(core.limits.queue_depth_max));
    }
    argument.text("take").array(take.len());
    for number in take {
        argument.text(&number.to_string());
    }
    argument.text("forget").array(forget.len());
    for id in forget {
        argument.array(2).text(&core.keys.result(id)).text(id);
    }
    let kept = core.limits.result_expires.map_or(CHORD_KEPT, |span| span.as_secs().max(1) as i64);
    argument.text("chord_ttl").number(kept);
    Ok(argument.into_bytes())
}

/// Refuses what one of these units may not be written with; nothing is written.
pub(super) fn check_units<'a>(
    core: &Core,
    units: impl Iterator<Item = &'a Unit>,
) -> Result<(), StoreError> {
    for plan in units.map(|unit| &unit.plan) {
        let routed = plan.routed.iter().map(|routed| &routed.message);
        for message in plan.publish.iter().map(|outgoing| &outgoing.message).chain(routed) {
            check(core, message, Limits::SizeOnly)?;
        }
        for record in &plan.results {
            results::pack(core, &mut Pack::default(), record)?;
        }
    }
    Ok(())
}

fn pack_unit(
    core: &Core,
    pack: &mut Pack,
    attempt: &Attempt,
    limits: Limits,
) -> Result<(), StoreError> {
    let unit = &attempt.unit;
    let plans = || std::iter::once(&unit.plan).chain(attempt.finished.iter().map(|one| &one.plan));
    let (fate, record, due) = match &unit.deed {
        Deed::Nothing | Deed::Fire(_) => (0, &[][..], 0),
        Deed::Done => (1, &[][..], 0),
        Deed::Back { place: Place::Head, record } => (2, &record[..], 0),
        Deed::Back { place: Place::Tail, record } => (3, &record[..], 0),
        Deed::Dead { .. } => (4, &[][..], 0),
        Deed::Later { due, record } => (5, &record[..], *due),
        Deed::Lane { record } => (6, &record[..], 0),
        Deed::CountInLane { record } => (7, &record[..], 0),
        Deed::DeadLost { record, .. } => (8, &record[..], 0),
    };
    let (key, row) = unit.held.as_ref().map_or(("", 0), |(key, row)| (key.as_str(), *row));
    match &unit.deed {
        Deed::Fire(firing) => pack.map(14).text("fire").value(&firing.pack()),
        _ => pack.map(13),
    };
    pack.text("held").text(key);
    pack.text("row").text(&row.to_string());
    pack.text("fate").number(fate);
    pack.text("rec").bytes(record);
    pack.text("due").number(due);
    pack.text("dead").array(3);
    if let Deed::Dead { letter, task_id } | Deed::DeadLost { letter, task_id, .. } = &unit.deed {
        pack.bytes(letter).text(task_id).number(letter.len() as i64);
    } else {
        pack.text("").text("").number(0);
    }
    pack.text("pub").array(plans().map(|plan| plan.publish.len()).sum());
    for outgoing in plans().flat_map(|plan| &plan.publish) {
        pack_message(core, pack, outgoing, limits)?;
    }
    pack.text("fan").array(plans().map(|plan| plan.routed.len()).sum());
    for routed in plans().flat_map(|plan| &plan.routed) {
        check(core, &routed.message, limits)?;
        let (channel, payload) = exchanges::broadcast(core, routed);
        pack.array(2).text(&channel).bytes(&payload);
    }
    pack.text("res").array(plans().map(|plan| plan.results.len()).sum());
    for record in plans().flat_map(|plan| &plan.results) {
        results::pack(core, pack, record)?;
    }
    pack.text("chords").array(plans().map(|plan| plan.chords.len()).sum());
    for chord in plans().flat_map(|plan| &plan.chords) {
        pack.array(2).text(&core.keys.chord(&chord.group)).number(chord.size.into());
    }
    pack.text("parts").array(plans().map(|plan| plan.parts.len()).sum());
    for part in plans().flat_map(|plan| &plan.parts) {
        let text = Value::from(vec![
            Value::from(1),
            Value::from(part.task_id.as_str()),
            Value::from(part.state.as_str()),
            part.result.clone(),
        ]);
        pack.array(5)
            .text(&core.keys.chord(&part.group))
            .text(&part.index.to_string())
            .text(&part.task_id)
            .text(&text.to_string())
            .text(&Value::Object(part.body.clone().into_map()).to_string());
    }
    pack.text("watch").array(plans().map(|plan| plan.watched.len()).sum());
    for chord in plans().flat_map(|plan| &plan.watched) {
        let body = Value::Object(chord.body.clone().into_map()).to_string();
        pack.array(2).text(&core.keys.chord(&chord.group)).text(&body);
    }
    pack.text("claims").array(attempt.finished.len());
    for finished in &attempt.finished {
        pack.array(2).text(&finished.key).number(finished.parts_before);
    }
    Ok(())
}

/// One message on its way into a queue: {record, due, whether it goes to the head, its wish, its key if it
/// goes once}.
fn pack_message(
    core: &Core,
    pack: &mut Pack,
    outgoing: &Outgoing,
    limits: Limits,
) -> Result<(), StoreError> {
    check(core, &outgoing.message, limits)?;
    let now = core.now();
    let new =
        matches!(limits, Limits::Enforced | Limits::NoDepth) && outgoing.enqueued_at.is_none();
    let wish = packet::wish(&outgoing.message.headers, new, core.entropy.next_u64());
    // An unreadable eta is found by the worker, which sets the message aside with its bytes.
    let due = outgoing.message.headers.eta().ok().flatten().filter(|eta| *eta > now);
    let due = due.map_or(0, jiff::Timestamp::as_microsecond);
    let queue = outgoing.queue.as_str();
    let record = match raw_payload(outgoing) {
        Some(payload) => {
            let mut record = format!("{queue}\n0\nr\n\n\n\n").into_bytes();
            record.extend(payload);
            record
        }
        None => Packet::outgoing(outgoing.clone(), now).record(queue, "", &*core.entropy),
    };
    let once = outgoing.once.as_deref();
    pack.array(if once.is_some() { 5 } else { 4 }).bytes(&record).number(due).truth(false);
    match wish {
        Some(wish) => pack.value(&wish),
        None => pack.truth(false),
    };
    if let Some(key) = once {
        let id = outgoing.message.headers.id().unwrap_or_default();
        pack.array(3).text(key).text(id).number(ONCE_KEPT.as_secs() as i64);
    }
    Ok(())
}

/// The bytes of a dead letter that is no message: they go back as they came.
fn raw_payload(outgoing: &Outgoing) -> Option<&[u8]> {
    let headers: &Map = outgoing.message.headers.as_map();
    headers.contains_key(super::dead::RAW_HEADER).then_some(&outgoing.message.body[..])
}

/// Refuses what is too large, before anything is written.
pub(super) fn check(core: &Core, message: &Message, limits: Limits) -> Result<(), StoreError> {
    let id = message.headers.id().unwrap_or_default();
    if id.len() > TASK_ID_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a task id has {} bytes, at most {TASK_ID_BYTES_MAX} are allowed",
            id.len()
        )));
    }
    let key = packet::key_of(&message.headers);
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a key has {} bytes, at most {KEY_BYTES_MAX} are allowed",
            key.len()
        )));
    }
    let bytes = Packet::size(message);
    let max = core.limits.message_bytes_max;
    let room = if limits == Limits::SizeOnly { RETRY_ROOM } else { 0 };
    if bytes > max.saturating_add(room) {
        return Err(StoreError::new(
            ErrorKind::TooLarge,
            format!("the message of task {id} has {bytes} bytes, the limit is {max}"),
        )
        .hint("store large data elsewhere and send its address, or raise message_bytes_max"));
    }
    Ok(())
}

/// Sets a held record aside on behalf of the store itself.
pub(super) fn bury(
    core: &Core,
    queue: &str,
    payload: &[u8],
    reason: DeadReason,
    detail: &str,
) -> Deed {
    let letter = super::dead::Letter::of_payload(queue, payload, reason, detail, core.now());
    let task_id = letter.task_id().to_owned();
    Deed::Dead { letter: letter.to_bytes(), task_id }
}
