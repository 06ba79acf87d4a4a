//! The rules of limits: declared by applications, set by operators, shown to both.

use super::Context;
use super::lanes::{move_held, open_all, running};
use super::rows::{instant, micros};
use super::rules::{self, all_rules, drop_rule, put_rule};
use celeriac_core::StoreError;
use celeriac_core::store::LimitView;
use celeriac_core::throttle::{LimitRule, RuleOrigin, Spread, Target};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::BTreeSet;

pub(super) fn declare(
    connection: &Connection,
    tasks: &[String],
    rules: &[LimitRule],
) -> Result<(), StoreError> {
    let mut changed = false;
    for rule in rules {
        changed |= put_rule(connection, rule)?;
    }
    let kept: BTreeSet<&Target> = rules.iter().map(|rule| &rule.target).collect();
    for task in tasks {
        let target = Target::Task(task.clone());
        if !kept.contains(&target) {
            changed |= drop_rule(connection, &target, RuleOrigin::Application)?;
        }
    }
    if changed {
        move_held(connection)?;
        open_all(connection)?;
    }
    Ok(())
}

pub(super) fn set(connection: &Connection, rule: &LimitRule) -> Result<(), StoreError> {
    put_rule(connection, rule)?;
    move_held(connection)?;
    open_all(connection)
}

pub(super) fn remove(
    connection: &Connection,
    target: &Target,
    origin: RuleOrigin,
) -> Result<bool, StoreError> {
    let removed = drop_rule(connection, target, origin)?;
    open_all(connection)?;
    Ok(removed)
}

pub(super) fn views(
    connection: &Connection,
    context: &Context,
) -> Result<Vec<LimitView>, StoreError> {
    let rules = rules::load(connection)?;
    let counts = running(connection, &rules)?;
    let now = micros(context.clock.wall());
    let mut views = Vec::new();
    for rule in all_rules(connection)? {
        // Rules of keys count under the key alone, those for each key under their name and the key.
        let name = match &rule.target {
            Target::Key(key) if key != "*" => format!("key of {key}"),
            Target::Key(_) => "key".to_owned(),
            other => other.to_string(),
        };
        let each = rule.per_key || rule.target == Target::Key("*".to_owned());
        let of_rule = |counter: &str| {
            counter
                .strip_prefix(name.as_str())
                .is_some_and(|rest| if each { rest.starts_with(" of ") } else { rest.is_empty() })
        };
        let running =
            counts.iter().filter(|(counter, _)| of_rule(counter)).map(|(_, count)| count).sum();
        let mut next_at = None;
        for rate in rule.rates.iter().filter(|rate| !rate.burst && !each) {
            let stored: Option<i64> = connection
                .prepare_cached("SELECT next_at FROM spread WHERE counter = ?1 || ' ' || ?2")
                .and_then(|mut statement| {
                    statement.query_row((&name, rate.to_string()), |row| row.get(0)).optional()
                })
                .map_err(super::error::wrap("read a limit's state"))?;
            let next = Spread(stored.unwrap_or(0)).next(*rate);
            next_at = next_at.max((next > now).then(|| instant(next)));
        }
        let in_force = rules.limits().contains(&rule);
        views.push(LimitView { rule, in_force, running, next_at });
    }
    Ok(views)
}
