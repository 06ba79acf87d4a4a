//! Lanes: which messages have to wait behind a limit or a pause, and which of them may go now.
//!
//! A fetch asks the [`Gate`] for every message outside lane 0. What a limit counts is in the store and
//! changes in the transaction of the fetch, so all workers together keep it.

use super::error::wrap;
use super::rows::READY;
use super::rules;
use crate::rules::Rules;
use celeriac_core::store::{FetchRequest, TaskCap};
use celeriac_core::throttle::{Rate, Spread};
use celeriac_core::{QueueName, StoreError};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::{BTreeMap, BTreeSet};

/// The most lanes of one queue in one page of a fetch.
const LANES_MAX: i64 = 256;
/// The most pages of lanes that a fetch looks at for one queue; the others come next time.
pub(super) const PAGES_MAX: usize = 64;
/// The most messages that one fetch moves out of lane 0 after a limit was set.
const MOVE_MAX: i64 = 20_000;

/// A lane and what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) id: i64,
    pub(super) queue: String,
    pub(super) task: String,
    pub(super) key: String,
}

/// The lane in which a message stands; made when it is the first.
pub(super) fn lane_of(
    connection: &Connection,
    queue: &str,
    task: &str,
    key: &str,
) -> Result<i64, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT id FROM lane WHERE queue = ?1 AND task = ?2 AND key = ?3")
        .and_then(|mut statement| {
            statement.query_row((queue, task, key), |row| row.get(0)).optional()
        })
        .map_err(wrap("look for a lane"))?;
    if let Some(id) = found {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO lane (queue, task, key) VALUES (?1, ?2, ?3) RETURNING id")
        .and_then(|mut statement| statement.query_row((queue, task, key), |row| row.get(0)))
        .map_err(wrap("make a lane"))
}

/// A lane by its number, for messages that are looked at one by one.
pub(super) fn lane_by_id(connection: &Connection, id: i64) -> Result<Option<Lane>, StoreError> {
    connection
        .prepare_cached("SELECT id, queue, task, key FROM lane WHERE id = ?1")
        .and_then(|mut statement| {
            let lane = |row: &rusqlite::Row<'_>| {
                Ok(Lane {
                    id: row.get(0)?,
                    queue: row.get(1)?,
                    task: row.get(2)?,
                    key: row.get(3)?,
                })
            };
            statement.query_row([id], lane).optional()
        })
        .map_err(wrap("read a lane"))
}

/// `lane.open_at` of a lane in which nothing is ready; a trigger opens it again.
const NOTHING_READY: i64 = i64::MAX;

/// Goes through the lanes of a queue page by page: first those that a rate had closed and that may go
/// again, the longest waiting first, then the rest, beginning behind the last one that was looked at.
pub(super) struct Lanes<'a> {
    connection: &'a Connection,
    queue: &'a QueueName,
    now: i64,
    far: i64,
    /// Where the rest begins and ends; `None` before the first page.
    from: i64,
    after: Option<i64>,
    wrapped: bool,
}

impl<'a> Lanes<'a> {
    pub(super) fn of(
        connection: &'a Connection,
        rules: &Rules,
        queue: &'a QueueName,
        now: i64,
        from: i64,
    ) -> Self {
        // A clock that was set back must not keep a lane closed until it has caught up.
        let far = now.saturating_add(rules.window_max());
        Self { connection, queue, now, far, from, after: None, wrapped: false }
    }

    /// The next page; empty at the end.
    pub(super) fn page(&mut self) -> Result<Vec<Lane>, StoreError> {
        let Some(after) = self.after else {
            self.after = Some(self.from);
            let opened = self.opened()?;
            return if opened.is_empty() { self.page() } else { Ok(opened) };
        };
        let until = if self.wrapped { self.from } else { i64::MAX };
        let page = self.rest(after, until)?;
        if let Some(last) = page.last() {
            self.after = Some(last.id);
            return Ok(page);
        }
        if self.wrapped || self.from == 0 {
            return Ok(Vec::new());
        }
        self.wrapped = true;
        self.after = Some(0);
        self.page()
    }

    /// The lane behind which the next fetch begins.
    pub(super) fn cursor(&self) -> i64 {
        self.after.unwrap_or(self.from)
    }

    fn opened(&self) -> Result<Vec<Lane>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT id, task, key FROM lane WHERE queue = ?1 AND open_at <> 0 \
                 AND (open_at <= ?2 OR (open_at > ?3 AND open_at < ?5)) ORDER BY open_at LIMIT ?4",
            )
            .and_then(|mut statement| {
                let far = self.far;
                let values = (self.queue.as_str(), self.now, far, LANES_MAX, NOTHING_READY);
                statement.query_map(values, |row| self.lane(row))?.collect()
            })
            .map_err(wrap("look for lanes"))
    }

    fn rest(&self, after: i64, until: i64) -> Result<Vec<Lane>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT id, task, key FROM lane WHERE queue = ?1 AND open_at = 0 \
                 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4",
            )
            .and_then(|mut statement| {
                let values = (self.queue.as_str(), after, until, LANES_MAX);
                statement.query_map(values, |row| self.lane(row))?.collect()
            })
            .map_err(wrap("look for lanes"))
    }

    fn lane(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Lane> {
        Ok(Lane {
            id: row.get(0)?,
            queue: self.queue.as_str().to_owned(),
            task: row.get(1)?,
            key: row.get(2)?,
        })
    }
}

/// When the next lane of these queues opens.
pub(super) fn next_open(
    connection: &Connection,
    queues: &[QueueName],
    now: i64,
) -> Result<Option<i64>, StoreError> {
    let mut next = None;
    for queue in queues {
        let at: Option<i64> = connection
            .prepare_cached("SELECT min(open_at) FROM lane WHERE queue = ?1 AND open_at > ?2")
            .and_then(|mut statement| statement.query_row((queue.as_str(), now), |row| row.get(0)))
            .map_err(wrap("look for lanes"))?;
        next = [next, at].into_iter().flatten().min();
    }
    Ok(next)
}

fn set_open_at(connection: &Connection, lane: i64, at: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE lane SET open_at = ?2 WHERE id = ?1")
        .and_then(|mut statement| statement.execute((lane, at)))
        .map_err(wrap("note when a lane opens"))?;
    Ok(())
}

/// Lets every lane be looked at again, after a rule has changed.
pub(super) fn open_all(connection: &Connection) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET open_at = 0 WHERE open_at <> 0 AND open_at <> 9223372036854775807",
        )
        .and_then(|mut statement| statement.execute([]))
        .map_err(wrap("open the lanes"))?;
    Ok(())
}

/// Notes that nothing in a lane is ready, or deletes it when nothing stands in it in any state.
pub(super) fn put_by(connection: &Connection, lane: i64) -> Result<(), StoreError> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM lane WHERE id = ?1 \
             AND NOT EXISTS (SELECT 1 FROM message WHERE lane = ?1 AND lane <> 0)",
        )
        .and_then(|mut statement| statement.execute([lane]))
        .map_err(wrap("delete an empty lane"))?;
    if gone == 0 { set_open_at(connection, lane, NOTHING_READY) } else { Ok(()) }
}

/// Gives messages that are held or suspect, and stand in no lane, the lane that a rule wants for them:
/// a concurrency limit counts what runs already.
pub(super) fn move_held(connection: &Connection) -> Result<(), StoreError> {
    let rules = rules::load(connection)?;
    let held: Vec<(i64, String, String)> = connection
        .prepare_cached(
            "SELECT row, queue, task FROM message WHERE state = 2 AND node IS NOT NULL AND lane = 0 \
             UNION ALL SELECT row, queue, task FROM message WHERE state = 3 AND lane = 0",
        )
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(wrap("look for held messages"))?;
    for (row, queue, task) in held {
        if rules.restricts(&queue, &task) {
            let lane = lane_of(connection, &queue, &task, "")?;
            connection
                .prepare_cached("UPDATE message SET lane = ?2 WHERE row = ?1")
                .and_then(|mut statement| statement.execute((row, lane)))
                .map_err(wrap("sort held messages into lanes"))?;
        }
    }
    Ok(())
}

/// Moves what came before a limit or pause was set out of lane 0; returns how many moved.
pub(super) fn move_restricted(
    connection: &Connection,
    queue: &QueueName,
    task: &str,
) -> Result<usize, StoreError> {
    let lane = lane_of(connection, queue.as_str(), task, "")?;
    connection
        .prepare_cached(
            "UPDATE message SET lane = ?1 WHERE row IN (SELECT row FROM \
             (SELECT row, task FROM message WHERE state = 0 AND queue = ?2 AND lane = 0 \
             ORDER BY step, rank LIMIT ?4) WHERE task = ?3)",
        )
        .and_then(|mut statement| statement.execute((lane, queue.as_str(), task, MOVE_MAX)))
        .map_err(wrap("sort messages into lanes"))
}

const _: () = assert!(READY == 0);

/// Whether a message may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// Now.
    Open,
    /// Not before this time.
    Until(i64),
    /// Not until something changes: a pause, a running task, this worker's own rate.
    Closed,
}

/// Decides which lanes may go in one fetch, and counts what goes.
pub(super) struct Gate<'a> {
    connection: &'a Connection,
    rules: &'a Rules,
    now: i64,
    caps: BTreeMap<&'a str, usize>,
    running: Option<BTreeMap<String, u64>>,
    spreads: BTreeMap<(String, String), Spread>,
    bursts: BTreeMap<String, Vec<i64>>,
    started: Vec<(String, i64)>,
    /// Counters with starts in the future: the clock was set back since.
    ahead: BTreeSet<String>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        rules: &'a Rules,
        caps: &'a [TaskCap],
        now: i64,
    ) -> Self {
        Self {
            connection,
            rules,
            now,
            caps: caps.iter().map(|cap| (cap.task.as_str(), cap.count_max)).collect(),
            running: None,
            spreads: BTreeMap::new(),
            bursts: BTreeMap::new(),
            started: Vec::new(),
            ahead: BTreeSet::new(),
        }
    }

    pub(super) fn of(
        connection: &'a Connection,
        rules: &'a Rules,
        request: &'a FetchRequest,
        now: i64,
    ) -> Self {
        Self::new(connection, rules, &request.caps, now)
    }

    /// Whether the next message of a lane may go.
    pub(super) fn passage(&mut self, lane: &Lane) -> Result<Passage, StoreError> {
        if self.rules.pauses(&lane.queue, &lane.task, &lane.key)
            || self.caps.get(lane.task.as_str()) == Some(&0)
        {
            return Ok(Passage::Closed);
        }
        let mut until = None;
        for rule in self.rules.limits() {
            let Some(counter) = rule.counter(&lane.queue, &lane.task, &lane.key) else { continue };
            if let Some(max) = rule.concurrency
                && self.running(&counter)? >= u64::from(max)
            {
                return Ok(Passage::Closed);
            }
            for rate in &rule.rates {
                if let Some(at) = self.rate_closes(&counter, *rate)? {
                    until = until.max(Some(at));
                }
            }
        }
        Ok(until.map_or(Passage::Open, Passage::Until))
    }

    /// Counts one message that goes.
    pub(super) fn take(&mut self, lane: &Lane) -> Result<(), StoreError> {
        if let Some(left) = self.caps.get_mut(lane.task.as_str()) {
            *left = left.saturating_sub(1);
        }
        // A rule for each key and one for this key share a counter: one start counts once in it.
        let (mut running, mut logged, mut spread) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for rule in self.rules.limits() {
            let Some(counter) = rule.counter(&lane.queue, &lane.task, &lane.key) else { continue };
            for rate in &rule.rates {
                if rate.burst {
                    logged.insert(counter.clone());
                } else if spread.insert((counter.clone(), rate.to_string())) {
                    let after = self.spread(&counter, *rate)?.after_one(*rate, self.now);
                    self.spreads.insert((counter.clone(), rate.to_string()), after);
                }
            }
            if rule.concurrency.is_some() {
                running.insert(counter);
            }
        }
        for counter in running {
            self.running(&counter)?;
            if let Some(running) = &mut self.running {
                *running.entry(counter).or_default() += 1;
            }
        }
        for counter in logged {
            let now = self.now;
            self.burst(&counter)?.push(now);
            self.started.push((counter, now));
        }
        Ok(())
    }

    /// Writes what was counted, and when the lanes that a rate closes open again.
    pub(super) fn save(self, closed: &[(i64, i64)]) -> Result<(), StoreError> {
        let fail = wrap("count what a limit let go");
        for ((counter, rate), spread) in &self.spreads {
            self.connection
                .prepare_cached(
                    "INSERT INTO spread VALUES (?1 || ' ' || ?2, ?3) ON CONFLICT (counter) \
                     DO UPDATE SET next_at = excluded.next_at WHERE next_at <> excluded.next_at",
                )
                .and_then(|mut statement| statement.execute((counter, rate, spread.0)))
                .map_err(&fail)?;
        }
        for counter in &self.ahead {
            self.connection
                .prepare_cached("UPDATE grant_log SET at = ?2 WHERE counter = ?1 AND at > ?2")
                .and_then(|mut statement| statement.execute((counter, self.now)))
                .map_err(&fail)?;
        }
        for (counter, at) in &self.started {
            self.connection
                .prepare_cached("INSERT INTO grant_log VALUES (?1, ?2)")
                .and_then(|mut statement| statement.execute((counter, at)))
                .map_err(&fail)?;
        }
        for counter in self.started.iter().map(|(counter, _)| counter).collect::<BTreeSet<_>>() {
            self.connection
                .prepare_cached("DELETE FROM grant_log WHERE counter = ?1 AND at <= ?2")
                .and_then(|mut statement| {
                    statement.execute((counter, self.now - self.rules.window_max()))
                })
                .map_err(&fail)?;
        }
        for (lane, at) in closed {
            set_open_at(self.connection, *lane, *at)?;
        }
        Ok(())
    }

    /// Until when a rate closes; `None` when one more may go.
    fn rate_closes(&mut self, counter: &str, rate: Rate) -> Result<Option<i64>, StoreError> {
        if !rate.burst {
            let spread = self.spread(counter, rate)?;
            let free = spread.free(rate, self.now) > 0;
            return Ok((!free).then(|| spread.next(rate)));
        }
        let per = i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX / 4);
        let (now, count) = (self.now, rate.count as usize);
        let grants = self.burst(counter)?;
        // The one `count` places before the next has to be out of the window.
        let blocking = grants.len().checked_sub(count).map(|index| grants[index]);
        Ok(blocking.map(|at| at.saturating_add(per)).filter(|free_at| *free_at > now))
    }

    fn spread(&mut self, counter: &str, rate: Rate) -> Result<Spread, StoreError> {
        let name = (counter.to_owned(), rate.to_string());
        if let Some(spread) = self.spreads.get(&name) {
            return Ok(*spread);
        }
        let stored: Option<i64> = self
            .connection
            .prepare_cached("SELECT next_at FROM spread WHERE counter = ?1 || ' ' || ?2")
            .and_then(|mut statement| {
                statement.query_row((&name.0, &name.1), |row| row.get(0)).optional()
            })
            .map_err(wrap("read a limit's state"))?;
        // A clock that was set back must not close the rate until it has caught up.
        let spread = Spread(stored.unwrap_or(0)).at_most(rate, self.now);
        self.spreads.insert(name, spread);
        Ok(spread)
    }

    fn burst(&mut self, counter: &str) -> Result<&mut Vec<i64>, StoreError> {
        if !self.bursts.contains_key(counter) {
            let since = self.now - self.rules.window_max();
            let mut grants: Vec<i64> = self
                .connection
                .prepare_cached(
                    "SELECT at FROM grant_log WHERE counter = ?1 AND at > ?2 ORDER BY at",
                )
                .and_then(|mut statement| {
                    statement.query_map((counter, since), |row| row.get(0))?.collect()
                })
                .map_err(wrap("read a limit's state"))?;
            if grants.last().is_some_and(|last| *last > self.now) {
                self.ahead.insert(counter.to_owned());
                for at in &mut grants {
                    *at = self.now.min(*at);
                }
            }
            self.bursts.insert(counter.to_owned(), grants);
        }
        Ok(self.bursts.entry(counter.to_owned()).or_default())
    }

    fn running(&mut self, counter: &str) -> Result<u64, StoreError> {
        if self.running.is_none() {
            self.running = Some(running(self.connection, self.rules)?);
        }
        Ok(self.running.as_ref().and_then(|counts| counts.get(counter)).copied().unwrap_or(0))
    }
}

/// How many messages of each counter are leased. A concurrency limit is counted from the leases
/// themselves, so it can neither leak nor outlive a worker.
pub(super) fn running(
    connection: &Connection,
    rules: &Rules,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let rows: Vec<(String, String, String, i64)> = connection
        .prepare_cached(
            "SELECT lane.queue, lane.task, lane.key, count(*) FROM message \
             JOIN lane ON lane.id = message.lane WHERE message.state = 2 AND message.lane <> 0 \
             GROUP BY message.lane",
        )
        .and_then(|mut statement| {
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })
        .map_err(wrap("count running tasks"))?;
    let mut counts = BTreeMap::new();
    for (queue, task, key, count) in rows {
        // Two rules may share a counter.
        let counters: BTreeSet<String> = rules
            .limits()
            .iter()
            .filter(|rule| rule.concurrency.is_some())
            .filter_map(|rule| rule.counter(&queue, &task, &key))
            .collect();
        for counter in counters {
            *counts.entry(counter).or_default() += count.unsigned_abs();
        }
    }
    Ok(counts)
}

/// Forgets what no rate looks back at any more: keys that are never seen again would stay for ever.
pub(super) fn forget_starts(connection: &Connection, now: i64) -> Result<(), StoreError> {
    let fail = wrap("forget old starts");
    let since = now.saturating_sub(rules::load(connection)?.window_max());
    for (sql, before) in [
        ("DELETE FROM spread WHERE next_at < ?1", now),
        ("DELETE FROM grant_log WHERE at <= ?1", since),
    ] {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([before]))
            .map_err(&fail)?;
    }
    Ok(())
}
