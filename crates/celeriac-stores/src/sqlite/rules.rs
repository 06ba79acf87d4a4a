//! How the rules and pauses are kept.

use super::error::{corrupt, wrap};
use crate::rules::Rules;
use celeriac_core::throttle::{LimitRule, RULES_MAX, RuleOrigin, Target, parse_rates};
use celeriac_core::{ErrorKind, QueueName, StoreError};
use rusqlite::Connection;

/// Reads the rules and pauses of a store.
pub(super) fn load(connection: &Connection) -> Result<Rules, StoreError> {
    let fail = wrap("read the limits");
    let any: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM limit_rule) OR EXISTS (SELECT 1 FROM paused)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(&fail)?;
    if !any {
        return Ok(Rules::default());
    }
    let limits = all_rules(connection)?;
    let paused: Vec<(String, String)> = connection
        .prepare_cached("SELECT kind, name FROM paused")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .map_err(&fail)?;
    let paused = paused.iter().filter_map(|(kind, name)| Target::of(kind, name)).collect();
    Ok(Rules::new(limits, paused))
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
