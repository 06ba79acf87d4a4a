//! The rules and pauses of a store: which messages they are about, and how they are kept.

use super::error::{corrupt, wrap};
use celeriac_core::throttle::{LimitRule, RULES_MAX, RuleOrigin, Target, parse_rates};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use rusqlite::Connection;
use std::collections::BTreeSet;

/// The rules and pauses of a store.
#[derive(Debug, Default)]
pub(super) struct Rules {
    limits: Vec<LimitRule>,
    paused: BTreeSet<Target>,
}

impl Rules {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let fail = wrap("read the limits");
        let any: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM limit_rule) OR EXISTS (SELECT 1 FROM paused)",
            )
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(&fail)?;
        if !any {
            return Ok(Self::default());
        }
        let mut limits = all_rules(connection)?;
        // The operator's rule stands before the application's of the same target.
        let operators: BTreeSet<Target> = limits
            .iter()
            .filter(|rule| rule.origin == RuleOrigin::Operator)
            .map(|rule| rule.target.clone())
            .collect();
        limits.retain(|rule| {
            rule.origin == RuleOrigin::Operator || !operators.contains(&rule.target)
        });
        let paused: Vec<(String, String)> = connection
            .prepare_cached("SELECT kind, name FROM paused")
            .and_then(|mut statement| {
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(&fail)?;
        let paused = paused.iter().filter_map(|(kind, name)| Target::of(kind, name)).collect();
        Ok(Self { limits, paused })
    }

    /// The rules that hold.
    pub(super) fn limits(&self) -> &[LimitRule] {
        &self.limits
    }

    /// Whether messages of this task in this queue need a lane even without a key.
    pub(super) fn restricts(&self, queue: &str, task: &str) -> bool {
        let about = |target: &Target| match target {
            Target::Everything => true,
            Target::Queue(name) => name == queue,
            Target::Task(name) => name == task,
            Target::Key(_) => false,
        };
        self.limits.iter().any(|rule| about(&rule.target))
            || self.paused.iter().any(|target| matches!(target, Target::Task(name) if name == task))
    }

    /// Whether a fetch takes nothing from this queue.
    pub(super) fn stops_queue(&self, queue: &str) -> bool {
        !self.paused.is_empty()
            && (self.paused.contains(&Target::Everything)
                || self.paused.contains(&Target::Queue(queue.to_owned())))
    }

    /// Whether a pause holds a message.
    pub(super) fn pauses(&self, queue: &str, task: &str, key: &str) -> bool {
        !self.paused.is_empty()
            && (self.stops_queue(queue)
                || self.paused.contains(&Target::Task(task.to_owned()))
                || (!key.is_empty() && self.paused.contains(&Target::Key(key.to_owned()))))
    }

    /// The longest time that any rate looks back.
    pub(super) fn window_max(&self) -> i64 {
        let periods = self.limits.iter().flat_map(|rule| &rule.rates).map(|rate| rate.per);
        periods.max().map_or(0, |per| i64::try_from(per.as_micros()).unwrap_or(i64::MAX / 4))
    }
}

/// Every rule in the store, those of the application first.
pub(super) fn all_rules(connection: &Connection) -> Result<Vec<LimitRule>, StoreError> {
    type Row = (String, String, i64, bool, String, Option<u32>);
    let rows: Vec<Row> = connection
        .prepare_cached(
            "SELECT kind, name, origin, per_key, rates, concurrency FROM limit_rule \
             ORDER BY kind, name, origin",
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
        .map_err(wrap("read the limits"))?;
    let rule = |(kind, name, origin, per_key, rates, concurrency): Row| {
        let target = Target::of(&kind, &name)
            .ok_or_else(|| corrupt(format!("a limit has the unknown kind {kind:?}")))?;
        let rates = if rates.is_empty() {
            Vec::new()
        } else {
            parse_rates(&rates)
                .map_err(|error| corrupt(format!("the limit of {target}: {error}")))?
        };
        let origin = if origin == 0 { RuleOrigin::Application } else { RuleOrigin::Operator };
        Ok(LimitRule { target, per_key, rates, concurrency, origin })
    };
    rows.into_iter().map(rule).collect()
}

/// Refuses one rule or pause too many: all of them are looked at with each message.
pub(super) fn check_count(
    connection: &Connection,
    sql: &str,
    what: &str,
) -> Result<(), StoreError> {
    let count: i64 = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(wrap("count the rules"))?;
    if count < RULES_MAX as i64 {
        return Ok(());
    }
    let text = format!("there are {count} {what}, at most {RULES_MAX} are kept");
    Err(StoreError::new(ErrorKind::Full, text)
        .hint("limit or pause a queue or each key instead of one key after another"))
}

/// Sets, or with an empty rule removes, what an origin says about a target.
pub(super) fn put_rule(connection: &Connection, rule: &LimitRule) -> Result<bool, StoreError> {
    let fail = wrap("store a limit");
    if let Target::Queue(name) = &rule.target {
        QueueName::parse(name)?;
    }
    check_count(connection, "SELECT count(*) FROM limit_rule", "limits")?;
    let (kind, name) = (rule.target.kind(), rule.target.name());
    let rates: Vec<String> = rule.rates.iter().map(ToString::to_string).collect();
    connection
        .prepare_cached(
            "INSERT INTO limit_rule VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (kind, name, origin) DO UPDATE SET per_key = excluded.per_key, \
             rates = excluded.rates, concurrency = excluded.concurrency \
             WHERE (per_key, rates, concurrency) IS NOT \
             (excluded.per_key, excluded.rates, excluded.concurrency)",
        )
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                kind,
                name,
                rule.origin as i64,
                rule.per_key,
                rates.join(", "),
                rule.concurrency,
            ])
        })
        .map(|changed| changed > 0)
        .map_err(&fail)
}

/// Takes a rule away.
pub(super) fn drop_rule(
    connection: &Connection,
    target: &Target,
    origin: RuleOrigin,
) -> Result<bool, StoreError> {
    connection
        .prepare_cached("DELETE FROM limit_rule WHERE kind = ?1 AND name = ?2 AND origin = ?3")
        .and_then(|mut statement| statement.execute((target.kind(), target.name(), origin as i64)))
        .map(|gone| gone > 0)
        .map_err(wrap("take a limit away"))
}
