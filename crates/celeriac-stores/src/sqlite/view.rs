//! What is true of tasks and queues, read in one snapshot.

use super::Context;
use super::error::wrap;
use super::lanes::{Gate, Lane, Passage, lane_by_id};
use super::nodes;
use super::rows::{
    LEASED, LOST, READY, RECORD, SCHEDULED, SUSPECT, history_of, instant, message_of, micros,
    record_of,
};
use super::rules;
use crate::listing::{Found, Marks, Places, foreign};
use crate::rules::Rules;
use celeriac_core::StoreError;
use celeriac_core::store::{
    DeadFilter, Page, Phase, QueueView, ResultRecord, TaskFilter, TaskPage, TaskView,
};
use celeriac_core::throttle::Target;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Row, params_from_iter};
use std::collections::BTreeMap;

/// Positions beyond this are not counted.
const POSITION_MAX: i64 = 10_000;

/// The columns of a message that [`of_message`] reads.
const MESSAGE: &str = "m.row, m.queue, m.step, m.rank, m.state, m.due_at, m.enqueued_at, m.task_id, \
                       m.task, m.retries, m.node, m.started_at, m.history, b.headers, b.properties, \
                       b.content_type, b.content_encoding, b.body, m.lane";

pub(super) fn task(
    connection: &Connection,
    context: &Context,
    task_id: &str,
) -> Result<TaskView, StoreError> {
    let fail = wrap("look for a task");
    let result = super::results::read(connection, task_id)?;
    let sql = format!(
        "SELECT {MESSAGE} FROM message m JOIN message_body b USING (row) \
         WHERE m.task_id = ?1 ORDER BY m.row DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(&fail)?;
    let mut rows = statement.query([task_id]).map_err(&fail)?;
    if let Some(row) = rows.next().map_err(&fail)? {
        let rules = rules::load(connection)?;
        let mut gate = Gate::new(connection, &rules, &[], micros(context.clock.wall()));
        let mut view = of_message(connection, context, row, Position::Counted, &rules, &mut gate)?;
        view.result = result;
        return Ok(view);
    }
    let filter = DeadFilter { ids: vec![task_id.to_owned()], ..DeadFilter::default() };
    let dead = super::dead::list(connection, &filter, Page { after: 0, count_max: 1000 })?;
    let dead = dead.into_iter().rfind(|letter| letter.message.headers.id() == Some(task_id));
    Ok(match (dead, result) {
        (Some(letter), result) => TaskView {
            task_id: task_id.to_owned(),
            phase: Phase::Dead { number: letter.number, reason: letter.reason },
            task: letter.message.headers.task().map(str::to_owned),
            queue: Some(letter.queue.to_string()),
            enqueued_at: Some(letter.enqueued_at),
            retries: letter.message.headers.retries(),
            message: Some(letter.message),
            result,
            history: letter.history,
        },
        (None, Some(record)) => of_result(record),
        (None, None) => TaskView::bare(task_id, Phase::Unknown),
    })
}

fn of_result(record: ResultRecord) -> TaskView {
    TaskView {
        task_id: record.meta.task_id().unwrap_or_default().to_owned(),
        phase: if record.meta.state().is_ready() { Phase::Done } else { Phase::Unknown },
        task: record.task.clone(),
        queue: record.queue.clone(),
        enqueued_at: record.enqueued_at,
        retries: record.retries,
        message: None,
        result: Some(record),
        history: Vec::new(),
    }
}

/// Whether a queued task's place is counted, which reads up to [`POSITION_MAX`] rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Counted,
    Skipped,
}

fn of_message(
    connection: &Connection,
    context: &Context,
    row: &Row<'_>,
    position: Position,
    rules: &Rules,
    gate: &mut Gate<'_>,
) -> Result<TaskView, StoreError> {
    let fail = wrap("read a task");
    let queue: String = row.get(1).map_err(&fail)?;
    let task_id: String = row.get(7).map_err(&fail)?;
    let retries: u32 = row.get(9).map_err(&fail)?;
    let history: Option<String> = row.get(12).map_err(&fail)?;
    let phase = match row.get::<_, i64>(4).map_err(&fail)? {
        SCHEDULED => {
            let due: Option<i64> = row.get(5).map_err(&fail)?;
            Phase::Scheduled { until: instant(due.unwrap_or_default()), retry: retries > 0 }
        }
        LEASED => {
            let worker = nodes::name_of(connection, row.get(10).map_err(&fail)?)?;
            match row.get::<_, Option<i64>>(11).map_err(&fail)? {
                Some(since) => Phase::Running { worker, since: instant(since) },
                None => Phase::Reserved { worker },
            }
        }
        // It waits for nothing but a worker that sets it aside.
        LOST => Phase::Queued { position: None, paused: false, limited: false, revoked: false },
        _ => {
            let held = Held::of(connection, row, &queue, rules, gate)?;
            Phase::Queued {
                position: match position {
                    Position::Counted => place(connection, row, &queue)?,
                    Position::Skipped => None,
                },
                paused: held == Held::Paused,
                limited: held == Held::Limited,
                revoked: super::fetch::is_revoked(connection, context, &task_id)?,
            }
        }
    };
    Ok(TaskView {
        task_id,
        phase,
        task: Some(row.get(8).map_err(&fail)?),
        queue: Some(queue),
        enqueued_at: Some(instant(row.get(6).map_err(&fail)?)),
        retries,
        message: Some(message_of(row, 13)?),
        result: None,
        history: history_of(history.as_deref())?,
    })
}

/// How many messages of the queue run before this one.
fn place(connection: &Connection, row: &Row<'_>, queue: &str) -> Result<Option<u64>, StoreError> {
    let fail = wrap("find a task's place");
    let (step, rank): (i64, i64) = (row.get(2).map_err(&fail)?, row.get(3).map_err(&fail)?);
    let before: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM message WHERE state = 0 AND queue = ?1 \
             AND (step < ?2 OR (step = ?2 AND rank < ?3)) LIMIT ?4)",
        )
        .and_then(|mut statement| {
            statement.query_row((queue, step, rank, POSITION_MAX + 1), |row| row.get(0))
        })
        .map_err(&fail)?;
    Ok((before <= POSITION_MAX).then_some(before.unsigned_abs()))
}

/// What holds a message that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Paused,
    Limited,
}

impl Held {
    fn of(
        connection: &Connection,
        row: &Row<'_>,
        queue: &str,
        rules: &Rules,
        gate: &mut Gate<'_>,
    ) -> Result<Self, StoreError> {
        let fail = wrap("read a task");
        let task: String = row.get(8).map_err(&fail)?;
        let lane = lane_by_id(connection, row.get(18).map_err(&fail)?)?;
        let lane = lane.unwrap_or_else(|| Lane {
            id: 0,
            queue: queue.to_owned(),
            task,
            key: String::new(),
        });
        if rules.pauses(&lane.queue, &lane.task, &lane.key) {
            return Ok(Self::Paused);
        }
        Ok(if gate.passage(&lane)? == Passage::Open { Self::Nothing } else { Self::Limited })
    }
}

/// Messages, dead letters and results that match, newest first. A task that is in several places is listed by
/// what comes first of them: each place leaves out what the ones before it have, so that no page needs
/// to know of another.
pub(super) fn tasks(
    connection: &Connection,
    context: &Context,
    filter: &TaskFilter,
) -> Result<TaskPage, StoreError> {
    let marks = Marks::of(filter)?;
    let below = |mark: &Option<String>| match mark.as_deref().map(str::parse) {
        None => Ok(i64::MAX),
        Some(row) => row.map_err(|_| foreign(filter.after.as_deref().unwrap_or_default())),
    };
    let (message, letter, row) =
        (below(&marks.message)?, below(&marks.dead)?, below(&marks.result)?);
    let wants = |words: &[&str]| filter.state.as_deref().is_none_or(|state| words.contains(&state));
    let mut places = Places::default();
    if wants(&["queued", "scheduled", "retry", "reserved", "running"]) {
        places.messages = waiting(connection, context, filter, message)?;
    }
    if wants(&["dead"]) {
        places.dead = dead(connection, context, filter, letter)?;
    }
    let is_state = filter.state.as_deref().is_some_and(|s| s.chars().any(char::is_uppercase));
    if wants(&["done"]) || is_state {
        places.results = finished(connection, filter, row)?;
    }
    Ok(places.page(marks, filter.count_max))
}

/// One more than the page has, which tells whether there are more.
fn limit(filter: &TaskFilter) -> SqlValue {
    SqlValue::Integer(i64::try_from(filter.count_max).unwrap_or(i64::MAX).saturating_add(1))
}

/// Name and queue of a filter as SQL.
fn name_condition(filter: &TaskFilter, prefix: &str) -> (String, Vec<SqlValue>) {
    let mut sql = String::new();
    let mut values = Vec::new();
    if let Some(queue) = &filter.queue {
        sql = format!(" AND {prefix}queue = ?");
        values.push(SqlValue::Text(queue.clone()));
    }
    if let Some(task) = &filter.task {
        let (text, name) = match task.strip_suffix('*') {
            Some(start) => (format!(" AND instr({prefix}task, ?) = 1"), start),
            None => (format!(" AND {prefix}task = ?"), task.as_str()),
        };
        sql.push_str(&text);
        values.push(SqlValue::Text(name.to_owned()));
    }
    (sql, values)
}

fn waiting(
    connection: &Connection,
    context: &Context,
    filter: &TaskFilter,
    below: i64,
) -> Result<Vec<Found>, StoreError> {
    let fail = wrap("list tasks");
    let state = match filter.state.as_deref() {
        Some("queued") => " AND m.state IN (0, 3, 4)",
        Some("scheduled") => " AND m.state = 1 AND m.retries = 0",
        Some("retry") => " AND m.state = 1 AND m.retries > 0",
        Some("reserved") => " AND m.state = 2 AND m.started_at IS NULL",
        Some("running") => " AND m.state = 2 AND m.started_at IS NOT NULL",
        _ => "",
    };
    let (names, mut values) = name_condition(filter, "m.");
    values.extend([SqlValue::Integer(below), limit(filter)]);
    let sql = format!(
        "SELECT {MESSAGE} FROM message m JOIN message_body b USING (row) \
         WHERE 1{state}{names} AND m.row < ? AND NOT EXISTS \
         (SELECT 1 FROM message n WHERE n.task_id = m.task_id AND n.row > m.row) \
         ORDER BY m.row DESC LIMIT ?"
    );
    let mut statement = connection.prepare(&sql).map_err(&fail)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(&fail)?;
    // Read once for the whole list.
    let rules = rules::load(connection)?;
    let mut gate = Gate::new(connection, &rules, &[], micros(context.clock.wall()));
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let mark: i64 = row.get(0).map_err(&fail)?;
        let view = of_message(connection, context, row, Position::Skipped, &rules, &mut gate)?;
        found.push(Found { at: view.enqueued_at, mark: mark.to_string(), view });
    }
    Ok(found)
}

/// Tasks with dead letters; one that was sent again meanwhile is listed as what it is now, with its message.
fn dead(
    connection: &Connection,
    context: &Context,
    filter: &TaskFilter,
    below: i64,
) -> Result<Vec<Found>, StoreError> {
    let fail = wrap("list dead tasks");
    let (names, mut values) = name_condition(filter, "");
    values.extend([SqlValue::Integer(below), limit(filter)]);
    let sql = format!(
        "SELECT number, task_id, died_at FROM dead WHERE 1{names} AND number < ? \
         AND NOT EXISTS (SELECT 1 FROM message m WHERE m.task_id = dead.task_id) \
         AND NOT EXISTS (SELECT 1 FROM dead d WHERE d.task_id = dead.task_id AND d.number > dead.number) \
         ORDER BY number DESC LIMIT ?"
    );
    let mut statement = connection.prepare(&sql).map_err(&fail)?;
    let letters: Vec<(i64, String, i64)> = statement
        .query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .map_err(&fail)?;
    let found = letters.into_iter().map(|(number, id, died)| {
        let view = task(connection, context, &id)?;
        Ok(Found { at: Some(instant(died)), mark: number.to_string(), view })
    });
    found.collect()
}

fn finished(
    connection: &Connection,
    filter: &TaskFilter,
    below: i64,
) -> Result<Vec<Found>, StoreError> {
    let fail = wrap("list results");
    let (names, mut values) = name_condition(filter, "");
    let condition = match filter.state.as_deref() {
        // A dead letter's failed result is the same task: the dead letter says more.
        None => {
            " AND status IN ('SUCCESS', 'FAILURE', 'REVOKED') \
             AND NOT EXISTS (SELECT 1 FROM message m WHERE m.task_id = result.task_id) \
             AND NOT EXISTS (SELECT 1 FROM dead d WHERE d.task_id = result.task_id)"
        }
        Some("done") => " AND status IN ('SUCCESS', 'FAILURE', 'REVOKED')",
        Some(state) => {
            values.push(SqlValue::Text(state.to_owned()));
            " AND status = ?"
        }
    };
    values.extend([SqlValue::Integer(below), limit(filter)]);
    let sql = format!(
        "SELECT {RECORD}, row FROM result WHERE 1{names}{condition} AND row < ? \
         ORDER BY row DESC LIMIT ?"
    );
    let mut statement = connection.prepare(&sql).map_err(&fail)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(&fail)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(&fail)? {
        let mark: i64 = row.get("row").map_err(&fail)?;
        let record = record_of(row)?;
        let at = Some(record.written_at);
        found.push(Found { at, mark: mark.to_string(), view: of_result(record) });
    }
    Ok(found)
}

pub(super) fn queues(
    connection: &Connection,
    context: &Context,
) -> Result<Vec<QueueView>, StoreError> {
    let fail = wrap("list the queues");
    let mut queues: BTreeMap<String, QueueView> = BTreeMap::new();
    let counts: Vec<(String, i64, i64, i64)> = connection
        .prepare_cached(
            "SELECT queue, state, count(*), min(enqueued_at) FROM message GROUP BY 1, 2",
        )
        .and_then(|mut statement| {
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })
        .map_err(&fail)?;
    for (queue, state, count, oldest) in counts {
        let view = queues.entry(queue).or_default();
        let count = count.unsigned_abs();
        match state {
            READY | SUSPECT | LOST => {
                view.ready += count;
                let oldest = instant(oldest);
                view.oldest = Some(view.oldest.map_or(oldest, |known| known.min(oldest)));
            }
            SCHEDULED => view.scheduled += count,
            _ => view.leased += count,
        }
    }
    let dead: Vec<(String, i64)> = connection
        .prepare_cached("SELECT queue, count(*) FROM dead GROUP BY 1")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .map_err(&fail)?;
    for (queue, count) in dead {
        queues.entry(queue).or_default().dead = count.unsigned_abs();
    }
    let mut all_paused = false;
    for pause in super::control::pauses(connection)? {
        match pause.target {
            Target::Queue(name) => queues.entry(name).or_default().paused = true,
            Target::Everything => all_paused = true,
            Target::Task(_) | Target::Key(_) => {}
        }
    }
    let nodes = nodes::list(connection, context)?;
    for node in nodes.iter().filter(|node| node.alive) {
        for queue in &node.info.queues {
            queues.entry(queue.to_string()).or_default();
        }
    }
    if all_paused {
        for view in queues.values_mut() {
            view.paused = true;
        }
    }
    Ok(queues
        .into_iter()
        .map(|(name, view)| QueueView { consumers: nodes::consumers(&nodes, &name), name, ..view })
        .collect())
}
