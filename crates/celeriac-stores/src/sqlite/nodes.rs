//! Nodes: registration, heartbeats, and the sweep that returns a dead node's messages.

use super::Context;
use super::error::{corrupt, wrap};
use super::rows::{
    ALIVE, BY_ITS_WORKER, BY_ONE_THAT_LEFT, DIED, SIGNED_OFF, history_of, history_text, instant,
    micros, queue_of, waiting_state,
};
use celeriac_core::dead::{Attempt, remember, worker_lost};
use celeriac_core::lease::{Lease, LeaseTimes, Recovery, Suspicion, is_dead};
use celeriac_core::store::{Heartbeat, NodeId, NodeInfo, NodeView, Sweep};
use celeriac_core::{QueueName, StoreError};
use celeriac_wire::Value;
use rusqlite::{Connection, OptionalExtension as _, Row};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a dead node is still listed.
const REMEMBERED: Duration = Duration::from_hours(24);

pub(super) fn register(
    connection: &Connection,
    context: &Context,
    info: &NodeInfo,
) -> Result<NodeId, StoreError> {
    let list = |names: Vec<Value>| Value::Array(names).to_string();
    let now = micros(context.clock.wall());
    connection
        .prepare_cached(
            "INSERT INTO node (name, pid, queues, concurrency, pool, tasks, heartbeat_us, expiry_us, \
             boot, beat, started_at, seen_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                info.name,
                info.pid,
                list(info.queues.iter().map(|queue| Value::from(queue.as_str())).collect()),
                info.concurrency,
                info.pool,
                list(info.tasks.iter().map(|task| Value::from(task.as_str())).collect()),
                info.times.heartbeat.as_micros() as i64,
                info.times.expiry.as_micros() as i64,
                context.boot_id,
                context.clock.boot().as_micros() as i64,
                now,
            ])
        })
        .map_err(wrap("register a worker"))?;
    Ok(NodeId(connection.last_insert_rowid()))
}

pub(super) fn heartbeat(
    connection: &Connection,
    context: &Context,
    node: NodeId,
    heartbeat: Heartbeat,
) -> Result<bool, StoreError> {
    let renewed = connection
        .prepare_cached(
            "UPDATE node SET beat = ?2, seen_at = ?3, active = ?4, processed = ?5 \
             WHERE id = ?1 AND state = 0",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                node.0,
                context.clock.boot().as_micros() as i64,
                micros(context.clock.wall()),
                heartbeat.active,
                heartbeat.processed as i64,
            ])
        })
        .map_err(wrap("renew a worker's leases"))?;
    Ok(renewed == 1)
}

pub(super) fn revise(
    connection: &Connection,
    node: NodeId,
    queues: &[QueueName],
    concurrency: u32,
) -> Result<bool, StoreError> {
    connection
        .prepare_cached("UPDATE node SET queues = ?2, concurrency = ?3 WHERE id = ?1 AND state = 0")
        .and_then(|mut statement| {
            let names: Value = queues.iter().map(QueueName::as_str).collect();
            statement.execute((node.0, names.to_string(), concurrency))
        })
        .map(|changed| changed == 1)
        .map_err(wrap("note what a worker consumes"))
}

/// Whether nobody has declared a node dead.
pub(super) fn stands(connection: &Connection, node: NodeId) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM node WHERE id = ?1 AND state = 0)")
        .and_then(|mut statement| statement.query_row([node.0], |row| row.get(0)))
        .map_err(wrap("look for a worker's leases"))
}

pub(super) fn deregister(
    connection: &Connection,
    context: &Context,
    node: NodeId,
) -> Result<u64, StoreError> {
    let fail = wrap("sign a worker off");
    let mut returned = 0;
    for row in leased_by(connection, node)? {
        // Unlike a release, this says nothing of what had begun: the next owner has to be told.
        leave_behind(connection, context, node, &row)?;
        returned += 1;
    }
    connection
        .prepare_cached("UPDATE node SET state = ?2, seen_at = ?3 WHERE id = ?1 AND state = 0")
        .and_then(|mut statement| {
            statement.execute((node.0, SIGNED_OFF, micros(context.clock.wall())))
        })
        .map_err(&fail)?;
    Ok(returned)
}

/// Gives back what a node holds and does not know of.
pub(super) fn return_strays(
    connection: &Connection,
    context: &Context,
    node: NodeId,
    known: &[Lease],
) -> Result<u64, StoreError> {
    let known: BTreeSet<&Lease> = known.iter().collect();
    let mut returned = 0;
    for leased in leased_by(connection, node)? {
        if !known.contains(&Lease { row: leased.row, token: leased.token }) {
            leave_behind(connection, context, node, &leased)?;
            returned += 1;
        }
    }
    Ok(returned)
}

struct LeasedRow {
    row: i64,
    token: i64,
    suspicion: Suspicion,
    started_at: Option<i64>,
    retries: u32,
    history: Option<String>,
    acknowledged: i64,
}

impl LeasedRow {
    /// Its history with the run that its worker did not end.
    fn history_after(&self, context: &Context, node: &str) -> Result<Option<String>, StoreError> {
        let attempt = Attempt {
            retries: self.retries,
            worker: node.to_owned(),
            started_at: self.started_at.map(instant),
            ended_at: context.clock.wall(),
            outcome: "worker-lost".to_owned(),
            detail: worker_lost(self.acknowledged >= BY_ITS_WORKER).to_owned(),
        };
        // A history that cannot be read must not keep the messages from coming back.
        let mut history = history_of(self.history.as_deref()).unwrap_or_default();
        remember(&mut history, attempt);
        history_text(&history)
    }
}

/// Returns what a living node leaves behind; what it has acknowledged did not end.
fn leave_behind(
    connection: &Connection,
    context: &Context,
    node: NodeId,
    leased: &LeasedRow,
) -> Result<(), StoreError> {
    let history = if leased.acknowledged == BY_ITS_WORKER {
        leased.history_after(context, &name_of(connection, node.0)?)?
    } else {
        None
    };
    return_row(connection, leased.row, leased.suspicion, history.as_deref(), Mark::Kept)
}

fn leased_by(connection: &Connection, node: NodeId) -> Result<Vec<LeasedRow>, StoreError> {
    connection
        .prepare_cached(
            "SELECT row, deaths_seen, deaths_counted, started_at, retries, history, token, \
             acknowledged FROM message WHERE state = 2 AND node = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_map([node.0], |row| {
                    Ok(LeasedRow {
                        row: row.get(0)?,
                        suspicion: Suspicion { seen: row.get(1)?, counted: row.get(2)? },
                        started_at: row.get(3)?,
                        retries: row.get(4)?,
                        history: row.get(5)?,
                        token: row.get(6)?,
                        acknowledged: row.get(7)?,
                    })
                })?
                .collect()
        })
        .map_err(wrap("find a worker's messages"))
}

/// What becomes of the mark that a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Its worker left it behind: it must not run again.
    Kept,
    /// Its own worker gives it back, and knows what it does.
    Taken,
}

impl Mark {
    /// The least `message.acknowledged` with which a message is lost.
    pub(super) fn least(self) -> i64 {
        match self {
            Self::Kept => BY_ITS_WORKER,
            Self::Taken => BY_ONE_THAT_LEFT,
        }
    }
}

/// Puts a leased message back: among what waits, or among what is lost.
pub(super) fn return_row(
    connection: &Connection,
    row: i64,
    suspicion: Suspicion,
    history: Option<&str>,
    mark: Mark,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE message SET state = iif(acknowledged >= ?6, 4, ?2), \
             acknowledged = iif(acknowledged >= ?6, 2, 0), lane = iif(acknowledged >= ?6, 0, lane), \
             node = NULL, token = NULL, started_at = NULL, \
             deaths_seen = ?3, deaths_counted = ?4, history = coalesce(?5, history), \
             redelivered = 1 WHERE row = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                row,
                waiting_state(suspicion),
                suspicion.seen,
                suspicion.counted,
                history,
                mark.least(),
            ])
        })
        .map_err(wrap("return a message"))?;
    Ok(())
}

/// Finds dead nodes and returns what they held.
pub(super) fn sweep(connection: &Connection, context: &Context) -> Result<Sweep, StoreError> {
    let fail = wrap("look for dead workers");
    let now = context.clock.boot();
    let alive: Vec<(i64, String, i64, i64, String, i64)> = connection
        .prepare_cached(
            "SELECT id, name, heartbeat_us, expiry_us, boot, beat FROM node WHERE state = 0",
        )
        .and_then(|mut statement| {
            statement
                .query_map([], |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                        row.get(4)?,
                        row.get(5)?,
                    ))
                })?
                .collect()
        })
        .map_err(&fail)?;
    let span = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let mut swept = Sweep::default();
    for (id, name, heartbeat, expiry, boot, beat) in alive {
        let times = LeaseTimes { heartbeat: span(heartbeat), expiry: span(expiry) };
        if !is_dead(span(beat), boot == context.boot_id, now, times) {
            continue;
        }
        connection
            .prepare_cached("UPDATE node SET state = ?2 WHERE id = ?1")
            .and_then(|mut statement| statement.execute((id, DIED)))
            .map_err(&fail)?;
        for leased in leased_by(connection, NodeId(id))? {
            recover(connection, context, &name, &leased, &mut swept)?;
        }
        swept.dead_nodes.push(name);
    }
    super::unique::expire(connection, context)?;
    super::moves::expire(connection, context)?;
    super::lanes::forget_starts(connection, micros(context.clock.wall()))?;
    connection
        .prepare_cached("DELETE FROM node WHERE state <> 0 AND seen_at < ?1")
        .and_then(|mut statement| {
            statement.execute([micros(context.clock.wall()) - REMEMBERED.as_micros() as i64])
        })
        .map_err(&fail)?;
    Ok(swept)
}

fn recover(
    connection: &Connection,
    context: &Context,
    node: &str,
    leased: &LeasedRow,
    swept: &mut Sweep,
) -> Result<(), StoreError> {
    let verdict = leased.suspicion.after_worker_death();
    let (Recovery::Requeue(suspicion) | Recovery::Isolate(suspicion) | Recovery::Poison(suspicion)) =
        verdict;
    let history = leased.history_after(context, node)?;
    return_row(connection, leased.row, suspicion, history.as_deref(), Mark::Kept)?;
    swept.requeued += 1;
    if leased.acknowledged >= BY_ITS_WORKER {
        swept.lost += 1;
        return Ok(());
    }
    // The worker that fetches a poison message sets it aside with all that hangs on it.
    swept.poisoned += u64::from(matches!(verdict, Recovery::Poison(_)));
    Ok(())
}

pub(super) fn list(
    connection: &Connection,
    context: &Context,
) -> Result<Vec<NodeView>, StoreError> {
    let fail = wrap("list the workers");
    let mut statement =
        connection.prepare_cached("SELECT * FROM node ORDER BY id").map_err(&fail)?;
    let mut rows = statement.query([]).map_err(&fail)?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        nodes.push(view(row, context)?);
    }
    Ok(nodes)
}

fn view(row: &Row<'_>, context: &Context) -> Result<NodeView, StoreError> {
    let fail = wrap("read a worker");
    let names = |column: &str| -> Result<Vec<String>, StoreError> {
        let text: String = row.get(column).map_err(&fail)?;
        Value::parse(text.as_bytes())
            .and_then(celeriac_wire::from_value)
            .map_err(|error| corrupt(format!("read a worker's {column}: {error}")))
    };
    let span = |column: &str| -> Result<Duration, StoreError> {
        Ok(Duration::from_micros(row.get::<_, i64>(column).map_err(&fail)?.unsigned_abs()))
    };
    let times = LeaseTimes { heartbeat: span("heartbeat_us")?, expiry: span("expiry_us")? };
    let boot: String = row.get("boot").map_err(&fail)?;
    let stands = row.get::<_, i64>("state").map_err(&fail)? == ALIVE;
    let silent = is_dead(span("beat")?, boot == context.boot_id, context.clock.boot(), times);
    let queues: Result<Vec<QueueName>, StoreError> =
        names("queues")?.iter().map(|name| queue_of(name)).collect();
    Ok(NodeView {
        id: NodeId(row.get("id").map_err(&fail)?),
        info: NodeInfo {
            name: row.get("name").map_err(&fail)?,
            pid: row.get("pid").map_err(&fail)?,
            queues: queues?,
            concurrency: row.get("concurrency").map_err(&fail)?,
            pool: row.get("pool").map_err(&fail)?,
            times,
            tasks: names("tasks")?,
        },
        heartbeat: Heartbeat {
            active: row.get("active").map_err(&fail)?,
            processed: row.get::<_, i64>("processed").map_err(&fail)?.unsigned_abs(),
        },
        started_at: instant(row.get("started_at").map_err(&fail)?),
        seen_at: instant(row.get("seen_at").map_err(&fail)?),
        alive: stands && !silent,
    })
}

/// Nodes that consume a queue now, for queue lists.
pub(super) fn consumers(nodes: &[NodeView], queue: &str) -> Vec<NodeId> {
    let consumes =
        |node: &&NodeView| node.alive && node.info.queues.iter().any(|name| name.as_str() == queue);
    nodes.iter().filter(consumes).map(|node| node.id).collect()
}

/// The name of a node, for task views.
pub(super) fn name_of(connection: &Connection, node: i64) -> Result<String, StoreError> {
    let name: Option<String> = connection
        .prepare_cached("SELECT name FROM node WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([node], |row| row.get(0)).optional())
        .map_err(wrap("read a worker's name"))?;
    Ok(name.unwrap_or_else(|| format!("node {node}")))
}
