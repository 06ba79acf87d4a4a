//! Peek and removal, for purge and move; the way back to stock workers.

use super::Core;
use super::commit::{self, Deed, Unit, Written};
use super::dead::Letter;
use super::micros_to_time;
use super::pack::Pack;
use super::packet::{Packet, split};
use super::script::{CHECK, RELEASE, REMOVE};
use super::walk::{self, Entry};
use celeriac_core::dead::{DeadReason, worker_lost};
use celeriac_core::record::Recorder;
use celeriac_core::store::{Finding, Outgoing, Page, Plan, Released, Stored};
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::{ExceptionInfo, Message, State};
use redis::Value as Answer;
use std::collections::{BTreeMap, BTreeSet};

/// The most entries of pages that are remembered, so that what was shown can be removed by its name.
const PEEKED_MAX: usize = 20_000;

/// What the last pages showed.
#[derive(Debug, Default)]
pub(super) struct Peeked {
    entries: BTreeMap<i64, Entry>,
    /// Where the last page ended: queue, row, number of the source, place in it.
    last: Option<(QueueName, i64, usize, usize)>,
}

/// A page of a queue. `after` is found again where it was or nearer to the head; when it is gone,
/// everything before it is gone too.
pub(super) async fn peek(
    core: &Core,
    queue: &QueueName,
    page: Page,
) -> Result<Vec<Stored>, StoreError> {
    let sources = walk::sources(core, queue).await?;
    let (first, mut offset) = start(core, queue, &sources, page.after).await?;
    let mut stored = Vec::new();
    for (number, source) in sources.iter().enumerate().skip(first) {
        loop {
            let chunk = walk::read(core, source, offset).await?;
            if walk::is_last(&chunk) {
                break;
            }
            for entry in chunk {
                if stored.len() == page.count_max {
                    return Ok(stored);
                }
                offset += 1;
                let row = entry.row;
                stored.push(Stored { row, outgoing: outgoing(queue, &entry) });
                let mut peeked = core.peeked();
                if peeked.entries.len() >= PEEKED_MAX {
                    peeked.entries.clear();
                }
                peeked.last = Some((queue.clone(), row, number, offset));
                peeked.entries.insert(row, entry);
            }
        }
        offset = 0;
    }
    Ok(stored)
}

/// The source and the place in it where a page begins.
async fn start(
    core: &Core,
    queue: &QueueName,
    sources: &[walk::Source],
    after: i64,
) -> Result<(usize, usize), StoreError> {
    if after == 0 {
        return Ok((0, 0));
    }
    let last = core.peeked().last.clone();
    let known = last.filter(|(name, row, ..)| name == queue && *row == after);
    if let Some((_, _, number, end)) = known {
        // Entries before it may have gone: it is at its place or nearer to the head.
        let mut from = end.saturating_sub(1);
        while let Some(source) = sources.get(number) {
            let chunk = walk::read(core, source, from).await?;
            if let Some(at) = chunk.iter().position(|entry| entry.row == after) {
                return Ok((number, from + at + 1));
            }
            if from == 0 {
                return Ok((number, 0));
            }
            from = from.saturating_sub(400);
        }
        return Ok((0, 0));
    }
    // Another process showed the page before: look for its end from the beginning.
    for (number, source) in sources.iter().enumerate() {
        let mut offset = 0;
        loop {
            let chunk = walk::read(core, source, offset).await?;
            if walk::is_last(&chunk) {
                break;
            }
            if let Some(at) = chunk.iter().position(|entry| entry.row == after) {
                return Ok((number, offset + at + 1));
            }
            offset += chunk.len();
        }
    }
    Ok((0, 0))
}

/// An entry as it was sent; bytes that are no message are shown as the body of one.
pub(super) fn outgoing(queue: &QueueName, entry: &Entry) -> Outgoing {
    let Some(Packet { message, notes }) = entry.packet() else {
        let mut message = Message::new("", "", entry.payload.clone());
        message.headers.insert(super::dead::RAW_HEADER, true);
        return Outgoing::new(queue.clone(), message);
    };
    Outgoing {
        queue: queue.clone(),
        message,
        history: notes.history,
        enqueued_at: notes.enqueued.map(micros_to_time),
        once: None,
    }
}

/// What is known of rows, in their order; what is gone is left out.
pub(super) async fn entries(core: &Core, rows: &[i64]) -> Result<Vec<(i64, Entry)>, StoreError> {
    let unknown: BTreeSet<i64> = {
        let peeked = core.peeked();
        rows.iter().copied().filter(|row| !peeked.entries.contains_key(row)).collect()
    };
    if !unknown.is_empty() {
        find(core, unknown).await?;
    }
    let mut found = Vec::new();
    let mut peeked = core.peeked();
    let mut seen = BTreeSet::new();
    for row in rows.iter().filter(|row| seen.insert(**row)) {
        if let Some(entry) = peeked.entries.remove(row) {
            found.push((*row, entry));
        }
    }
    Ok(found)
}

pub(super) async fn remove(core: &Core, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
    let found = entries(core, rows).await?;
    let mut argument = Pack::default();
    let mut removed = Vec::new();
    for some in found.chunks(500) {
        argument.map(3);
        core.pack_head(&mut argument);
        argument.text("rows").array(some.len());
        for (_, entry) in some {
            argument.array(3).text(entry.source.kind()).text(entry.source.key());
            argument.bytes(&entry.member);
        }
        let bytes = std::mem::take(&mut argument).into_bytes();
        if let Answer::Array(answers) = core.link.script("remove messages", &REMOVE, bytes).await? {
            let gone = |(one, answer): (&(i64, Entry), &Answer)| {
                matches!(answer, Answer::Int(count) if *count > 0).then_some(one.0)
            };
            removed.extend(some.iter().zip(&answers).filter_map(gone));
        }
    }
    Ok(removed)
}

/// Looks for rows in all queues.
async fn find(core: &Core, mut rows: BTreeSet<i64>) -> Result<(), StoreError> {
    for queue in walk::queues(core).await? {
        for source in walk::sources(core, &queue).await? {
            let mut offset = 0;
            loop {
                let chunk = walk::read(core, &source, offset).await?;
                if walk::is_last(&chunk) || rows.is_empty() {
                    break;
                }
                offset += chunk.len();
                for entry in chunk {
                    if rows.remove(&entry.row) {
                        core.peeked().entries.insert(entry.row, entry);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Puts what waits under our keys into the lists of stock workers.
pub(super) async fn release(
    core: &Core,
    queue: &QueueName,
    count_max: usize,
) -> Result<Released, StoreError> {
    let mut argument = Pack::default();
    argument.map(4);
    core.pack_head(&mut argument);
    argument.text("queue").text(queue.as_str()).text("n").number(count_max.min(1000) as i64);
    let answer = core.link.script("release a queue", &RELEASE, argument.into_bytes()).await?;
    let Answer::Array(counts) = answer else { return Ok(Released::default()) };
    let count = |index: usize| match counts.get(index) {
        Some(Answer::Int(count)) => count.unsigned_abs(),
        _ => 0,
    };
    let released = Released { scheduled: count(0), limited: count(1), suspects: count(2), lost: 0 };
    let left = (count_max as u64).saturating_sub(released.total());
    Ok(Released { lost: bury_lost(core, queue, left).await?, ..released })
}

/// Sets aside what must not run again, with a result: no stock worker may get it.
async fn bury_lost(core: &Core, queue: &QueueName, count_max: u64) -> Result<u64, StoreError> {
    if count_max == 0 {
        return Ok(0);
    }
    let mut range = redis::cmd("LRANGE");
    let first = i64::try_from(count_max.min(1000)).unwrap_or(1);
    range.arg(core.keys.own(&format!("lost:{queue}"))).arg(-first).arg(-1);
    let answer = core.link.call("look for messages of lost workers", &range).await?;
    let Answer::Array(records) = answer else { return Ok(0) };
    let unit = |record| match record {
        Answer::BulkString(record) => lost_unit(core, queue, record),
        _ => None,
    };
    let units: Vec<Unit> = records.into_iter().filter_map(unit).collect();
    let written = commit::write(core, units, commit::Limits::SizeOnly).await?;
    Ok(written.iter().filter(|one| **one != Written::Fenced).count() as u64)
}

fn lost_unit(core: &Core, queue: &QueueName, record: Vec<u8>) -> Option<Unit> {
    let exception = ExceptionInfo::worker_lost(worker_lost(true));
    let (_, payload) = split(&record)?;
    let (reason, now) = (DeadReason::WorkerLost, core.now());
    let letter = Letter::of_payload(queue.as_str(), payload, reason, &exception.summary(), now);
    let mut plan = Plan::default();
    if let Ok(mut packet) = Packet::parse(payload) {
        let old = packet.upgrade();
        let headers = old.as_ref().unwrap_or(&packet.message.headers);
        let recorder = Recorder {
            worker: "",
            queue: queue.as_str(),
            enqueued_at: packet.notes.enqueued.map(micros_to_time),
            started_at: None,
            now,
            children: Vec::new(),
            arguments: None,
        };
        if headers.id().is_some() && !headers.ignore_result().unwrap_or(false) {
            let result = exception.to_value();
            plan.results.push(recorder.of(headers, State::Failure, result, None));
        }
    }
    let (task_id, letter) = (letter.task_id().to_owned(), letter.to_bytes());
    let deed = Deed::DeadLost { record, letter, task_id };
    Some(Unit { held: None, deed, plan, finisher: None })
}

/// Compares the counters with what they count. The server does nothing else meanwhile.
pub(super) async fn check(core: &Core, mend: bool) -> Result<Vec<Finding>, StoreError> {
    let mut argument = Pack::default();
    argument.map(3);
    core.pack_head(&mut argument);
    argument.text("mend").truth(mend);
    let answer = core.link.script("check the counters", &CHECK, argument.into_bytes()).await?;
    let found = super::dead::texts(answer);
    let finding = |pair: &[String]| match pair {
        [place, what] => Some(Finding { place: place.clone(), what: what.clone(), mended: mend }),
        _ => None,
    };
    Ok(found.chunks(2).filter_map(finding).collect())
}
