//! Durable orders: limits, pauses and revocations.

use super::commit::{self, Deed, Unit};
use super::dead::texts;
use super::fetch::{PLAIN_LANE, restricted};
use super::limits;
use super::pack::Pack;
use super::packet::{Packet, key_of, lane_name, split};
use super::script::CONTROL;
use super::{Core, micros_to_time};
use crate::rules::Rules;
use celeriac_core::store::{LimitView, Pause, Plan, Revoke};
use celeriac_core::throttle::{LimitRule, RULES_MAX, RuleOrigin, Spread, Target, parse_rates};
use celeriac_core::{ErrorKind, QueueName, StoreError, clock};
use celeriac_wire::{Map, Value};
use redis::{Pipeline, Value as Answer};
use std::collections::{BTreeMap, BTreeSet};

/// The most revocations in one answer.
const REVOKES_MAX: usize = 10_000;
/// How many held records are looked at in one step.
const HELD_PAGE: usize = 200;

/// Separates the parts of a field's name; no target's name contains it.
const PART: char = '\0';

/// Reads all rules and pauses, with the version they stand at.
pub(super) async fn load(core: &Core) -> Result<(i64, Rules), StoreError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("GET").arg(core.keys.own("rules"));
    pipeline.cmd("HGETALL").arg(core.keys.own("limits"));
    pipeline.cmd("HKEYS").arg(core.keys.own("paused"));
    let mut answers = core.link.pipeline("read the limits", &pipeline).await?.into_iter();
    let version = match answers.next() {
        Some(Answer::BulkString(text)) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
        _ => 0,
    };
    let rules = rules_of(&texts(answers.next().unwrap_or_default()))?;
    let paused = texts(answers.next().unwrap_or_default());
    let paused = paused.iter().filter_map(|field| target_of(field)).collect();
    Ok((version, Rules::new(rules, paused)))
}

fn target_of(field: &str) -> Option<Target> {
    let (kind, name) = field.split_once(PART)?;
    Target::of(kind, name)
}

fn rules_of(pairs: &[String]) -> Result<Vec<LimitRule>, StoreError> {
    let mut rules = Vec::new();
    for pair in pairs.chunks(2) {
        let [field, value] = pair else { continue };
        let corrupt = |what: &str| {
            StoreError::new(ErrorKind::Corrupt, format!("a stored limit {field:?}: {what}"))
        };
        let (target, origin) = field.rsplit_once(PART).ok_or_else(|| corrupt("no origin"))?;
        let target = target_of(target).ok_or_else(|| corrupt("unknown kind"))?;
        let value = Value::parse(value.as_bytes()).map_err(|_| corrupt("no JSON"))?;
        let text = value.get("rates").and_then(Value::as_str).unwrap_or_default();
        let rates = if text.is_empty() {
            Vec::new()
        } else {
            parse_rates(text).map_err(|error| corrupt(&error))?
        };
        let concurrency = value.get("concurrency").and_then(Value::as_u64);
        rules.push(LimitRule {
            target,
            per_key: value.get("per_key").and_then(Value::as_bool).unwrap_or_default(),
            rates,
            concurrency: concurrency.and_then(|max| u32::try_from(max).ok()),
            origin: if origin == "0" { RuleOrigin::Application } else { RuleOrigin::Operator },
        });
    }
    rules.sort_by_key(|rule| (rule.target.kind(), rule.target.name().to_owned(), rule.origin));
    Ok(rules)
}

fn rule_field(target: &Target, origin: RuleOrigin) -> String {
    format!("{}{PART}{}{PART}{}", target.kind(), target.name(), origin as u8)
}

/// Sets a field of a hash; there are never more than [`RULES_MAX`].
async fn put(
    core: &Core,
    hash: &str,
    field: &str,
    value: Value,
    what: &str,
) -> Result<(), StoreError> {
    let mut argument = Pack::default();
    argument.map(7);
    core.pack_head(&mut argument);
    argument.text("op").text("put").text("hash").text(hash).text("field").text(field);
    argument.text("value").text(&value.to_string()).text("max").number(RULES_MAX as i64);
    let answer = core.link.script("set a rule", &CONTROL, argument.into_bytes()).await?;
    if answer == Answer::Int(1) {
        return Ok(());
    }
    let text = format!("there are {RULES_MAX} {what}, and no more are kept");
    Err(StoreError::new(ErrorKind::Full, text)
        .hint("limit or pause a queue or each key instead of one key after another"))
}

async fn drop_fields(core: &Core, hash: &str, fields: &[String]) -> Result<bool, StoreError> {
    let mut argument = Pack::default();
    argument.map(5);
    core.pack_head(&mut argument);
    argument.text("op").text("drop").text("hash").text(hash).text("fields").array(fields.len());
    for field in fields {
        argument.text(field);
    }
    let answer = core.link.script("take a rule away", &CONTROL, argument.into_bytes()).await?;
    core.bell.ring();
    Ok(matches!(answer, Answer::Int(gone) if gone > 0))
}

async fn put_rule(core: &Core, rule: &LimitRule) -> Result<(), StoreError> {
    if let Target::Queue(name) = &rule.target {
        QueueName::parse(name)?;
    }
    let rates: Vec<String> = rule.rates.iter().map(ToString::to_string).collect();
    let mut map = Map::new();
    map.insert("rates", rates.join(", "));
    map.insert("per_key", rule.per_key);
    if let Some(max) = rule.concurrency {
        map.insert("concurrency", u64::from(max));
    }
    let field = rule_field(&rule.target, rule.origin);
    put(core, "limits", &field, Value::Object(map), "limits").await
}

pub(super) async fn declare(
    core: &Core,
    tasks: &[String],
    rules: &[LimitRule],
) -> Result<(), StoreError> {
    let before = core.reload_rules().await?.0;
    for rule in rules {
        put_rule(core, rule).await?;
    }
    let kept: BTreeSet<&Target> = rules.iter().map(|rule| &rule.target).collect();
    let gone: Vec<String> = tasks
        .iter()
        .map(|task| Target::Task(task.clone()))
        .filter(|target| !kept.contains(target))
        .map(|target| rule_field(&target, RuleOrigin::Application))
        .collect();
    if !gone.is_empty() {
        drop_fields(core, "limits", &gone).await?;
    }
    if core.reload_rules().await?.0 != before {
        count_held(core).await?;
    }
    Ok(())
}

pub(super) async fn set_limit(core: &Core, rule: &LimitRule) -> Result<(), StoreError> {
    put_rule(core, rule).await?;
    core.reload_rules().await?;
    count_held(core).await
}

pub(super) async fn remove_limit(
    core: &Core,
    target: &Target,
    origin: RuleOrigin,
) -> Result<bool, StoreError> {
    drop_fields(core, "limits", &[rule_field(target, origin)]).await
}

/// Gives what is held, and stands in no lane, the lane that a rule wants for it: a concurrency limit
/// counts what runs already.
async fn count_held(core: &Core) -> Result<(), StoreError> {
    let rules = core.rules().await?;
    let mut nodes = redis::cmd("ZRANGE");
    nodes.arg(core.keys.own("nodes")).arg(0).arg(-1);
    for node in texts(core.link.call("list the workers", &nodes).await?) {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(core.keys.own(&format!("held:{node}"))).arg(&cursor);
            scan.arg("COUNT").arg(HELD_PAGE);
            let Answer::Array(page) = core.link.call("look at what is held", &scan).await? else {
                break;
            };
            let mut page = page.into_iter();
            cursor = match page.next() {
                Some(Answer::BulkString(next)) => String::from_utf8_lossy(&next).into_owned(),
                _ => "0".to_owned(),
            };
            let Some(Answer::Array(pairs)) = page.next() else { break };
            let units = counted(&rules.1, &node, &pairs);
            if !units.is_empty() {
                commit::write(core, units, commit::Limits::SizeOnly).await?;
            }
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(())
}

fn counted(rules: &Rules, node: &str, pairs: &[Answer]) -> Vec<Unit> {
    let one = |pair: &[Answer]| {
        let [Answer::BulkString(row), Answer::BulkString(record)] = pair else { return None };
        let (head, payload) = split(record)?;
        let headers = Packet::parse(payload).ok()?.message.headers;
        let unsorted = head.lane.is_empty() || head.lane == PLAIN_LANE;
        if !unsorted || !restricted(rules, &[], &head.queue, &headers) {
            return None;
        }
        let lane = lane_name(headers.task().unwrap_or_default(), key_of(&headers));
        let mut fields = record.splitn(7, |byte| *byte == b'\n');
        let mut counted = Vec::with_capacity(record.len() + lane.len());
        for index in 0..7 {
            let field = fields.next()?;
            counted.extend_from_slice(if index == 3 { lane.as_bytes() } else { field });
            if index < 6 {
                counted.push(b'\n');
            }
        }
        let row = String::from_utf8_lossy(row).parse().ok()?;
        Some(Unit {
            held: Some((format!("held:{node}"), row)),
            deed: Deed::CountInLane { record: counted },
            plan: Plan::default(),
            finisher: None,
        })
    };
    pairs.chunks(2).filter_map(one).collect()
}

pub(super) async fn limit_views(core: &Core) -> Result<Vec<LimitView>, StoreError> {
    let known = core.reload_rules().await?;
    let counts = limits::running(core, &known.1).await?;
    let now = core.store_now().await?;
    let mut all = redis::cmd("HGETALL");
    all.arg(core.keys.own("limits"));
    let mut views = Vec::new();
    for rule in rules_of(&texts(core.link.call("read the limits", &all).await?))? {
        views.push(view(core, &known.1, &counts, now, rule).await?);
    }
    Ok(views)
}

async fn view(
    core: &Core,
    rules: &Rules,
    counts: &BTreeMap<String, u64>,
    now: i64,
    rule: LimitRule,
) -> Result<LimitView, StoreError> {
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
    let running = counts.iter().filter(|(counter, _)| of_rule(counter)).map(|(_, n)| n).sum();
    let mut next_at = None;
    for rate in rule.rates.iter().filter(|rate| !rate.burst && !each) {
        let mut get = redis::cmd("GET");
        get.arg(limits::spread_key(core, &name, *rate));
        let stored = match core.link.call("read a rate", &get).await? {
            Answer::BulkString(text) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
            _ => 0,
        };
        let next = Spread(stored).next(*rate);
        next_at = next_at.max((next > now).then(|| micros_to_time(next)));
    }
    let in_force = rules.limits().contains(&rule);
    Ok(LimitView { rule, in_force, running, next_at })
}

pub(super) async fn pause(core: &Core, target: &Target, reason: &str) -> Result<(), StoreError> {
    if let Target::Queue(name) = target {
        QueueName::parse(name)?;
    }
    let before = pauses(core).await?.into_iter().find(|pause| pause.target == *target);
    let since = before.map_or_else(|| core.now(), |pause| pause.since);
    let mut map = Map::new();
    map.insert("since", since.as_microsecond());
    map.insert("reason", reason);
    let field = format!("{}{PART}{}", target.kind(), target.name());
    put(core, "paused", &field, Value::Object(map), "pauses").await?;
    core.reload_rules().await.map(drop)
}

pub(super) async fn resume(core: &Core, target: &Target) -> Result<bool, StoreError> {
    let field = format!("{}{PART}{}", target.kind(), target.name());
    let gone = drop_fields(core, "paused", &[field]).await?;
    core.reload_rules().await?;
    core.bell.ring();
    Ok(gone)
}

pub(super) async fn pauses(core: &Core) -> Result<Vec<Pause>, StoreError> {
    let mut all = redis::cmd("HGETALL");
    all.arg(core.keys.own("paused"));
    let pairs = texts(core.link.call("read the pauses", &all).await?);
    let mut pauses: Vec<Pause> = pairs
        .chunks(2)
        .filter_map(|pair| {
            let [field, value] = pair else { return None };
            let value = Value::parse(value.as_bytes()).ok()?;
            Some(Pause {
                target: target_of(field)?,
                since: micros_to_time(value.get("since").and_then(Value::as_i64)?),
                reason: value.get("reason").and_then(Value::as_str)?.to_owned(),
            })
        })
        .collect();
    pauses.sort_by_key(|pause| (pause.target.kind(), pause.target.name().to_owned()));
    Ok(pauses)
}

pub(super) async fn revoke(
    core: &Core,
    task_ids: &[String],
    terminate: bool,
) -> Result<(), StoreError> {
    let expires = clock::after(core.now(), core.limits.revoke_expires).as_microsecond();
    for some in task_ids.chunks(1000) {
        let mut argument = Pack::default();
        argument.map(6);
        core.pack_head(&mut argument);
        argument.text("op").text("revoke").text("terminate").truth(terminate);
        argument.text("expires").number(expires).text("ids").array(some.len());
        for id in some {
            argument.text(id);
        }
        core.link.script("revoke tasks", &CONTROL, argument.into_bytes()).await?;
    }
    core.bell.ring();
    Ok(())
}

pub(super) async fn unrevoke(core: &Core, task_ids: &[String]) -> Result<u64, StoreError> {
    let mut stood = 0;
    for some in task_ids.chunks(1000) {
        let mut argument = Pack::default();
        argument.map(4);
        core.pack_head(&mut argument);
        argument.text("op").text("unrevoke").text("ids").array(some.len());
        for id in some {
            argument.text(id);
        }
        let answer = core.link.script("withdraw revocations", &CONTROL, argument.into_bytes());
        if let Answer::Int(count) = answer.await? {
            stood += count.unsigned_abs();
        }
    }
    Ok(stood)
}

/// Reads `t<micros>` or `w<micros>`: whether it terminates, and until when it holds.
fn order_of(text: &str) -> Option<(bool, i64)> {
    let terminate = text.starts_with('t');
    Some((terminate, text.get(1..)?.parse().ok()?))
}

pub(super) async fn revokes_since(core: &Core, after: i64) -> Result<Vec<Revoke>, StoreError> {
    let mut range = redis::cmd("ZRANGEBYSCORE");
    range.arg(core.keys.own("revokes")).arg(format!("({after}")).arg("+inf");
    range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(REVOKES_MAX);
    let pairs = texts(core.link.call("read the revocations", &range).await?);
    let ids: Vec<&String> = pairs.iter().step_by(2).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut orders = redis::cmd("HMGET");
    orders.arg(core.keys.own("revoked")).arg(&ids);
    let Answer::Array(orders) = core.link.call("read the revocations", &orders).await? else {
        return Ok(Vec::new());
    };
    let now = core.now().as_microsecond();
    let mut revokes = Vec::new();
    for (pair, order) in pairs.chunks(2).zip(orders) {
        let ([id, number], Answer::BulkString(order)) = (pair, order) else { continue };
        let Some((terminate, until)) = order_of(&String::from_utf8_lossy(&order)) else { continue };
        if until > now {
            let number = number.parse::<f64>().unwrap_or(0.0) as i64;
            revokes.push(Revoke { number, task_id: id.clone(), terminate });
        }
    }
    Ok(revokes)
}

/// Which of these tasks are revoked now.
pub(super) async fn revoked_among(
    core: &Core,
    ids: &[String],
) -> Result<BTreeSet<String>, StoreError> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut orders = redis::cmd("HMGET");
    orders.arg(core.keys.own("revoked")).arg(ids);
    let Answer::Array(orders) = core.link.call("look for revocations", &orders).await? else {
        return Ok(BTreeSet::new());
    };
    let now = core.now().as_microsecond();
    let stands = |order: &Answer| match order {
        Answer::BulkString(text) => {
            order_of(&String::from_utf8_lossy(text)).is_some_and(|(_, until)| until > now)
        }
        _ => false,
    };
    Ok(ids
        .iter()
        .zip(&orders)
        .filter(|(_, order)| stands(order))
        .map(|(id, _)| id.clone())
        .collect())
}
