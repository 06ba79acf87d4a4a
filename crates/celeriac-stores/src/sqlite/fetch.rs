//! Takes ready messages and leases them.

use super::Context;
use super::error::wrap;
use super::lanes::{
    Gate, Lane, Lanes, PAGES_MAX, Passage, lane_by_id, lane_of, move_restricted, next_open, put_by,
};
use super::plan::store_result;
use super::rows::{
    ALIVE, BY_ITS_WORKER, BY_ONE_THAT_LEFT, LEASED, LOST, READY, SCHEDULED, SUSPECT, history_of,
    instant, message_of, micros, queue_of, waiting_state,
};
use super::rules;
use super::settle::set_aside;
use super::unique::{UNTIL_TAKEN, unlock};
use crate::rules::Rules;
use crate::turn::Turn;
use celeriac_core::dead::DeadReason;
use celeriac_core::lease::{Lease, Suspicion};
use celeriac_core::record::Recorder;
use celeriac_core::store::{Begun, Delivery, FetchRequest, NodeId, TaskCap};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use celeriac_wire::{ExceptionInfo, State, Value};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeSet;

/// The most scheduled messages that one fetch makes ready.
const PROMOTE_MAX: i64 = 1000;
/// How often one fetch moves messages out of lane 0 because of a limit that came after them.
const MOVE_ROUNDS_MAX: usize = 4;
/// The most suspects of a queue that a fetch looks at to find one that may go.
const SUSPECTS_MAX: i64 = 16;

/// A message that a fetch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    step: i64,
    /// The place of its queue in this turn.
    queue: usize,
    /// Suspects go first, so that they are not put off for ever: `false` sorts before `true`.
    unsuspected: bool,
    rank: i64,
    row: i64,
    /// Its lane, by its place among the lanes of this fetch.
    lane: Option<usize>,
}

/// Leases up to `count_max` messages for a node.
pub(super) fn fetch(
    connection: &Connection,
    context: &Context,
    request: &FetchRequest,
    turn: &Turn,
) -> Result<Fetched, StoreError> {
    check_alive(connection, request.node)?;
    promote_due(connection, context)?;
    let rules = rules::load(connection)?;
    let now = micros(context.clock.wall());
    let mut gate = Gate::of(connection, &rules, request, now);
    let mut lanes = Vec::new();
    let mut closed = Vec::new();
    let mut candidates = Vec::new();
    let mut again = false;
    for (place, queue) in turn.order(open_queues(&rules, &request.queues)).iter().enumerate() {
        let caps = &request.caps[..];
        let count = request.count_max;
        let mut look =
            Look { connection, context, rules: &rules, caps, queue, place, count, moving: false };
        if request.suspects {
            look.suspects(&mut gate, &mut lanes, &mut candidates)?;
        }
        look.free(&mut candidates)?;
        look.in_lanes(&mut gate, &mut lanes, &mut closed, now, &mut candidates)?;
        again |= look.moving;
    }
    candidates.sort_unstable();
    let (lost, revokes) = any_lost_or_revoked(connection)?;
    let mut rows = if lost { lost_rows(connection, request)? } else { Vec::new() };
    let left = request.count_max - rows.len();
    rows.extend(choose(&candidates, &lanes, &mut gate, &mut closed, left)?);
    gate.save(&closed)?;
    let mut deliveries = Vec::with_capacity(rows.len());
    for row in rows {
        match lease(connection, context, request.node, row, Purpose::Run { revokes }) {
            Ok(delivery) => deliveries.push(delivery),
            // One row that cannot be read must not keep its whole queue from being read.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                match quarantine(connection, context, row, &error) {
                    // It waits behind the others until there is room for it.
                    Err(full) if full.kind() == ErrorKind::DeadFull => put_last(connection, row)?,
                    other => other?,
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Fetched { deliveries, again })
}

/// What a fetch took, and whether another will find more although nothing changes.
pub(super) struct Fetched {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) again: bool,
}

/// The rows that are only to be set aside. They do not run, so neither pauses nor limits hold them.
fn lost_rows(connection: &Connection, request: &FetchRequest) -> Result<Vec<i64>, StoreError> {
    let mut rows = Vec::new();
    let queues: BTreeSet<&QueueName> = request.queues.iter().collect();
    for queue in queues {
        let left = (request.count_max - rows.len()) as i64;
        let found: Vec<i64> = connection
            .prepare_cached(
                "SELECT row FROM message WHERE state = 4 AND queue = ?1 ORDER BY step, rank LIMIT ?2",
            )
            .and_then(|mut statement| {
                statement.query_map((queue.as_str(), left), |row| row.get(0))?.collect()
            })
            .map_err(wrap("look for messages of lost workers"))?;
        rows.extend(found);
    }
    Ok(rows)
}

/// Undoes a lease and sends the message to the tail.
fn put_last(connection: &Connection, row: i64) -> Result<(), StoreError> {
    let rank = super::rows::take_numbers(connection, 1)?;
    connection
        .prepare_cached(
            "UPDATE message SET state = iif(acknowledged = 2, 4, 0), node = NULL, token = NULL, \
             rank = ?2 WHERE row = ?1",
        )
        .and_then(|mut statement| statement.execute((row, rank)))
        .map_err(wrap("put a damaged message behind the others"))?;
    Ok(())
}

/// Sets a row that this program cannot read aside with its bytes, and tells who waits for it.
fn quarantine(
    connection: &Connection,
    context: &Context,
    row: i64,
    error: &StoreError,
) -> Result<(), StoreError> {
    let (task_id, task): (String, String) = connection
        .prepare_cached("SELECT task_id, task FROM message WHERE row = ?1")
        .and_then(|mut statement| statement.query_row([row], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(wrap("set a damaged message aside"))?;
    tracing::error!(row, task_id, %error, "a stored message is damaged; it is a dead letter now");
    let detail = format!("the stored message is damaged: {error}");
    set_aside(connection, context, row, DeadReason::Undecodable, &detail, None)?;
    let recorder = Recorder {
        worker: "",
        queue: "",
        enqueued_at: None,
        started_at: None,
        now: context.clock.wall(),
        children: Vec::new(),
        arguments: None,
    };
    let exception =
        ExceptionInfo::new("kombu.exceptions", "DecodeError", vec![Value::from(detail)]);
    let record = recorder.failed(&task_id, Some(&task), State::Failure, &exception);
    store_result(connection, context, &record)?;
    Ok(())
}

/// Takes the first candidates whose lanes let them go, and at most one suspect.
fn choose(
    candidates: &[Candidate],
    lanes: &[Lane],
    gate: &mut Gate<'_>,
    closed: &mut Vec<(i64, i64)>,
    count_max: usize,
) -> Result<Vec<i64>, StoreError> {
    let mut rows = Vec::new();
    let mut suspected = false;
    let mut shut = BTreeSet::new();
    for candidate in candidates {
        if rows.len() == count_max {
            break;
        }
        if !candidate.unsuspected && suspected {
            continue;
        }
        if let Some(index) = candidate.lane {
            let lane = &lanes[index];
            if shut.contains(&lane.id) {
                continue;
            }
            match gate.passage(lane)? {
                Passage::Open => gate.take(lane)?,
                Passage::Until(at) => {
                    closed.push((lane.id, at));
                    shut.insert(lane.id);
                    continue;
                }
                Passage::Closed => {
                    shut.insert(lane.id);
                    continue;
                }
            }
        }
        suspected |= !candidate.unsuspected;
        rows.push(candidate.row);
    }
    Ok(rows)
}

/// Looks for candidates in one queue.
struct Look<'a> {
    connection: &'a Connection,
    context: &'a Context,
    rules: &'a Rules,
    caps: &'a [TaskCap],
    queue: &'a QueueName,
    place: usize,
    count: usize,
    /// More stands in the way than one fetch moves.
    moving: bool,
}

impl Look<'_> {
    /// Whether messages of a task need a lane. A worker's own rate holds also where another program
    /// has declared the task without one.
    fn restricts(&self, task: &str) -> bool {
        self.rules.restricts(self.queue.as_str(), task)
            || self.caps.iter().any(|cap| cap.task == task)
    }

    /// Messages that stand in no lane.
    fn free(&mut self, candidates: &mut Vec<Candidate>) -> Result<(), StoreError> {
        for _round in 0..MOVE_ROUNDS_MAX {
            let heads: Vec<(i64, i64, i64, String)> = self
                .connection
                .prepare_cached(
                    "SELECT step, rank, row, task FROM message \
                     WHERE state = 0 AND queue = ?1 AND lane = 0 ORDER BY step, rank LIMIT ?2",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map((self.queue.as_str(), self.count as i64), |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                        })?
                        .collect()
                })
                .map_err(wrap("look for ready messages"))?;
            let tasks: BTreeSet<&str> = heads
                .iter()
                .map(|(.., task)| task.as_str())
                .filter(|task| self.restricts(task))
                .collect();
            if tasks.is_empty() {
                let candidate = |(step, rank, row, _)| Candidate {
                    step,
                    queue: self.place,
                    unsuspected: true,
                    rank,
                    row,
                    lane: None,
                };
                candidates.extend(heads.into_iter().map(candidate));
                return Ok(());
            }
            // They came before the limit or the pause was set.
            for task in tasks {
                move_restricted(self.connection, self.queue, task)?;
            }
        }
        // More than one fetch can move: what stands behind them waits for the next, which follows at once.
        self.moving = true;
        Ok(())
    }

    /// The heads of the lanes.
    fn in_lanes(
        &mut self,
        gate: &mut Gate<'_>,
        lanes: &mut Vec<Lane>,
        closed: &mut Vec<(i64, i64)>,
        now: i64,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        let from = self.context.lane_cursor(self.queue);
        let mut pages = Lanes::of(self.connection, self.rules, self.queue, now, from);
        let enough = candidates.len() + self.count;
        for _page in 0..PAGES_MAX {
            let page = pages.page()?;
            if page.is_empty() {
                break;
            }
            for lane in page {
                match gate.passage(&lane)? {
                    Passage::Open => self.heads_of(lane, lanes, candidates)?,
                    Passage::Until(at) => closed.push((lane.id, at)),
                    Passage::Closed => {}
                }
            }
            if candidates.len() >= enough {
                break;
            }
        }
        self.context.set_lane_cursor(self.queue, pages.cursor());
        Ok(())
    }

    /// The first ready messages of a lane that is open.
    fn heads_of(
        &self,
        lane: Lane,
        lanes: &mut Vec<Lane>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        let heads: Vec<(i64, i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT step, rank, row FROM message \
                 WHERE state = 0 AND queue = ?1 AND lane = ?2 ORDER BY step, rank LIMIT ?3",
            )
            .and_then(|mut statement| {
                statement
                    .query_map((self.queue.as_str(), lane.id, self.count as i64), |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })?
                    .collect()
            })
            .map_err(wrap("look for ready messages"))?;
        if heads.is_empty() {
            return put_by(self.connection, lane.id);
        }
        let index = lanes.len();
        lanes.push(lane);
        candidates.extend(heads.into_iter().map(|(step, rank, row)| Candidate {
            step,
            queue: self.place,
            unsuspected: true,
            rank,
            row,
            lane: Some(index),
        }));
        Ok(())
    }

    /// The first suspects, with the lanes in which they stand.
    fn suspects(
        &mut self,
        gate: &mut Gate<'_>,
        lanes: &mut Vec<Lane>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        let heads: Vec<(i64, i64, i64, i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT step, rank, row, lane, task FROM message WHERE state = 3 AND queue = ?1 \
                 ORDER BY step, rank LIMIT ?2",
            )
            .and_then(|mut statement| {
                statement
                    .query_map((self.queue.as_str(), SUSPECTS_MAX), |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                    })?
                    .collect()
            })
            .map_err(wrap("look for suspects"))?;
        for (step, rank, row, lane, task) in heads {
            let lane = if lane != 0 {
                lane_by_id(self.connection, lane)?
            } else if self.restricts(&task) {
                let (queue, key) = (self.queue.as_str().to_owned(), String::new());
                let id = lane_of(self.connection, &queue, &task, &key)?;
                self.connection
                    .prepare_cached("UPDATE message SET lane = ?2 WHERE row = ?1")
                    .and_then(|mut statement| statement.execute((row, id)))
                    .map_err(wrap("sort a suspect into its lane"))?;
                Some(Lane { id, queue, task, key })
            } else {
                None
            };
            let lane = match lane {
                Some(lane) if gate.passage(&lane)? != Passage::Open => continue,
                Some(lane) => {
                    lanes.push(lane);
                    Some(lanes.len() - 1)
                }
                None => None,
            };
            let (queue, unsuspected) = (self.place, false);
            candidates.push(Candidate { step, queue, unsuspected, rank, row, lane });
        }
        Ok(())
    }
}

/// A sweep looks only at nodes that are alive: what another one leased would never come back.
pub(super) fn check_alive(connection: &Connection, node: NodeId) -> Result<(), StoreError> {
    let state: Option<i64> = connection
        .prepare_cached("SELECT state FROM node WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([node.0], |row| row.get(0)).optional())
        .map_err(wrap("look for the fetching node"))?;
    if state == Some(ALIVE) {
        return Ok(());
    }
    let what = format!("fetch for node {}, which is not alive", node.0);
    Err(StoreError::new(ErrorKind::Conflict, what).hint("the worker has to register anew"))
}

/// Makes due messages ready, in the order of their times.
fn promote_due(connection: &Connection, context: &Context) -> Result<(), StoreError> {
    let fail = wrap("make scheduled messages ready");
    let now = micros(context.clock.wall());
    let mut due = connection
        .prepare_cached(
            "SELECT row, deaths_seen, deaths_counted FROM message \
             WHERE state = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
        )
        .map_err(&fail)?;
    let rows: Vec<(i64, Suspicion)> = due
        .query_map((now, PROMOTE_MAX), |row| {
            Ok((row.get(0)?, Suspicion { seen: row.get(1)?, counted: row.get(2)? }))
        })
        .and_then(Iterator::collect)
        .map_err(&fail)?;
    if rows.is_empty() {
        return Ok(());
    }
    let first = super::rows::take_numbers(connection, rows.len())?;
    for (rank, (row, suspicion)) in (first..).zip(rows) {
        connection
            .prepare_cached("UPDATE message SET state = ?2, rank = ?3 WHERE row = ?1")
            .and_then(|mut statement| statement.execute((row, waiting_state(suspicion), rank)))
            .map_err(&fail)?;
    }
    Ok(())
}

/// The queues that are not paused.
fn open_queues(rules: &Rules, queues: &[QueueName]) -> Vec<QueueName> {
    let mut named = BTreeSet::new();
    queues
        .iter()
        .filter(|queue| !rules.stops_queue(queue.as_str()) && named.insert(queue.as_str()))
        .cloned()
        .collect()
}

/// Two questions of every fetch in one: most of the time the answers are no.
fn any_lost_or_revoked(connection: &Connection) -> Result<(bool, bool), StoreError> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM message WHERE state = 4), EXISTS (SELECT 1 FROM revoked)",
        )
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(wrap("read the revocations"))
}

/// What a message is leased for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A worker runs it.
    Run {
        /// Whether anything is revoked.
        revokes: bool,
    },
    /// It goes to another place.
    Move,
}

pub(super) fn lease(
    connection: &Connection,
    context: &Context,
    node: NodeId,
    row: i64,
    purpose: Purpose,
) -> Result<Delivery, StoreError> {
    let fail = wrap("lease a message");
    // Positive, so that it reads well in a table.
    let token = (context.entropy.next_u64() >> 1) as i64;
    connection
        .prepare_cached(
            "UPDATE message SET state = ?2, node = ?3, token = ?4, started_at = NULL WHERE row = ?1",
        )
        .and_then(|mut statement| statement.execute((row, LEASED, node.0, token)))
        .map_err(&fail)?;
    let mut statement = connection
        .prepare_cached(
            "SELECT m.queue, m.enqueued_at, m.redelivered, m.deaths_seen, m.deaths_counted, \
             m.history, m.task_id, m.locks, m.acknowledged, b.headers, b.properties, \
             b.content_type, b.content_encoding, b.body \
             FROM message m JOIN message_body b USING (row) WHERE m.row = ?1",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([row]).map_err(&fail)?;
    let found = rows
        .next()
        .map_err(&fail)?
        .ok_or_else(|| super::error::corrupt(format!("message {row} has no body")))?;
    let history: Option<String> = found.get(5).map_err(&fail)?;
    let task_id: String = found.get(6).map_err(&fail)?;
    let runs = purpose != Purpose::Move;
    if runs && found.get::<_, i64>(7).map_err(&fail)? == UNTIL_TAKEN {
        unlock(connection, row)?;
    }
    Ok(Delivery {
        lease: Lease { row, token },
        queue: queue_of(&found.get::<_, String>(0).map_err(&fail)?)?,
        enqueued_at: instant(found.get(1).map_err(&fail)?),
        redelivered: found.get(2).map_err(&fail)?,
        suspicion: Suspicion {
            seen: found.get(3).map_err(&fail)?,
            counted: found.get(4).map_err(&fail)?,
        },
        history: history_of(history.as_deref())?,
        message: message_of(found, 9)?,
        revoked: purpose == (Purpose::Run { revokes: true })
            && is_revoked(connection, context, &task_id)?,
        acknowledged: found.get::<_, i64>(8).map_err(&fail)? == BY_ONE_THAT_LEFT,
    })
}

/// Whether a revocation of this task stands.
pub(super) fn is_revoked(
    connection: &Connection,
    context: &Context,
    task_id: &str,
) -> Result<bool, StoreError> {
    let now = micros(context.clock.wall());
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM revoked WHERE task_id = ?1 AND expires_at > ?2)",
        )
        .and_then(|mut statement| statement.query_row((task_id, now), |row| row.get(0)))
        .map_err(wrap("read a revocation"))
}

/// Notes when deliveries began to run, and which of them are acknowledged.
pub(super) fn mark_started(connection: &Connection, started: &[Begun]) -> Result<(), StoreError> {
    for Begun { lease, at, acknowledged } in started {
        let mark = if *acknowledged { BY_ITS_WORKER } else { 0 };
        connection
            .prepare_cached(
                "UPDATE message SET started_at = ?3, acknowledged = max(acknowledged, ?4) \
                 WHERE row = ?1 AND token = ?2",
            )
            .and_then(|mut statement| {
                statement.execute((lease.row, lease.token, micros(*at), mark))
            })
            .map_err(wrap("note that a task runs"))?;
    }
    Ok(())
}

/// When the next scheduled message of these queues becomes due, or a rate lets the next one go.
pub(super) fn next_due(
    connection: &Connection,
    context: &Context,
    queues: &[QueueName],
) -> Result<Option<Timestamp>, StoreError> {
    let opens = next_open(connection, queues, micros(context.clock.wall()))?.map(instant);
    let due = next_scheduled(connection, queues)?;
    Ok([opens, due].into_iter().flatten().min())
}

fn next_scheduled(
    connection: &Connection,
    queues: &[QueueName],
) -> Result<Option<Timestamp>, StoreError> {
    let fail = wrap("look for scheduled messages");
    let mut statement = connection
        .prepare_cached(
            "SELECT due_at, queue FROM message WHERE state = 1 ORDER BY due_at LIMIT 1000",
        )
        .map_err(&fail)?;
    let mut rows = statement.query([]).map_err(&fail)?;
    let mut last = None;
    while let Some(row) = rows.next().map_err(&fail)? {
        let (due, queue): (i64, String) = (row.get(0).map_err(&fail)?, row.get(1).map_err(&fail)?);
        if queues.iter().any(|name| name.as_str() == queue) {
            return Ok(Some(instant(due)));
        }
        last = Some(instant(due));
    }
    // A thousand earlier ones belong to others: looking again then is early enough.
    Ok(last)
}

/// Whether a lease stands, with the queue of its message.
pub(super) fn held(connection: &Connection, lease: Lease) -> Result<Option<String>, StoreError> {
    connection
        .prepare_cached("SELECT queue FROM message WHERE row = ?1 AND token = ?2 AND state = 2")
        .and_then(|mut statement| {
            statement.query_row((lease.row, lease.token), |row| row.get(0)).optional()
        })
        .map_err(wrap("check a lease"))
}

const _: () = assert!(READY == 0 && SCHEDULED == 1 && LEASED == 2 && SUSPECT == 3 && LOST == 4);
const _: () = assert!(BY_ITS_WORKER == 1 && BY_ONE_THAT_LEFT == 2);
