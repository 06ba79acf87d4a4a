//! Which lanes may go in one fetch: the state of the limits is read, judged by the arithmetic of
//! `celeriac_core::throttle`, and the script takes by that only if nothing has changed since.

use super::fetch::PLAIN_LANE;
use super::pack::Pack;
use super::packet::{lane_parts, split};
use super::{Core, dead::texts};
use crate::rules::Rules;
use celeriac_core::store::TaskCap;
use celeriac_core::throttle::{Rate, Spread};
use celeriac_core::{QueueName, StoreError};
use redis::{Pipeline, Value as Answer};
use std::collections::{BTreeMap, BTreeSet};

/// The most lanes of a queue that one fetch looks at; the next one goes on behind them.
const LANES_MAX: usize = 256;
/// The most suspects of a queue whose lanes are looked at.
const SUSPECTS_MAX: isize = 16;
/// How long an unused state of a rate is kept beyond its use, in milliseconds.
const SPARE: i64 = 60_000;

/// What may go.
#[derive(Debug, Default)]
pub(super) struct Choice {
    gate: i64,
    lanes: Vec<(usize, String, Vec<usize>)>,
    allowances: Vec<Allowance>,
}

/// How many may go under one limit, and what to write for those that went.
#[derive(Debug)]
struct Allowance {
    left: usize,
    grant: Grant,
}

#[derive(Debug)]
enum Grant {
    /// Nothing: a worker's own cap, or a concurrency limit, which is counted by lane.
    Nothing,
    /// The states of an evenly spread rate after one, two, three … more, and how long they matter.
    Spread { key: String, states: Vec<i64>, millis: i64 },
    /// A log of starts, which rates look back into for so many microseconds.
    Burst { key: String, window: i64 },
}

impl Choice {
    pub(super) fn pack(&self, pack: &mut Pack) {
        pack.text("gate").number(self.gate);
        pack.text("lanes").array(self.lanes.len());
        for (queue, lane, allowances) in &self.lanes {
            pack.array(3).number(*queue as i64 + 1).text(lane).array(allowances.len());
            for index in allowances {
                pack.number(*index as i64 + 1);
            }
        }
        pack.text("allow").array(self.allowances.len());
        for allowance in &self.allowances {
            pack.number(allowance.left as i64);
        }
        let writes = |allowance: &&Allowance| !matches!(allowance.grant, Grant::Nothing);
        pack.text("grants").array(self.allowances.iter().filter(writes).count());
        for (index, allowance) in self.allowances.iter().enumerate() {
            match &allowance.grant {
                Grant::Nothing => {}
                Grant::Spread { key, states, millis } => {
                    pack.array(4 + states.len()).number(index as i64 + 1).text(key);
                    pack.text("spread").number(*millis);
                    for state in states {
                        pack.number(*state);
                    }
                }
                Grant::Burst { key, window } => {
                    pack.array(4).number(index as i64 + 1).text(key);
                    pack.text("burst").number(*window);
                }
            }
        }
    }

    /// The argument of a fetch that looks at no lane.
    pub(super) fn pack_none(pack: &mut Pack) {
        pack.text("gate").number(-1);
        for list in ["lanes", "allow", "grants"] {
            pack.text(list).array(0);
        }
    }
}

/// A lane on its way to a decision.
struct Candidate {
    queue: usize,
    name: String,
    task: String,
    key: String,
}

/// Reads the state and decides.
pub(super) async fn choose(
    core: &Core,
    rules: &Rules,
    queues: &[QueueName],
    caps: &[TaskCap],
    count: usize,
) -> Result<Choice, StoreError> {
    let now = core.store_now().await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("GET").arg(core.keys.own("gate"));
    pipeline.cmd("HGETALL").arg(core.keys.own("running"));
    for queue in queues {
        let lanes = core.keys.own(&format!("lanes:{queue}"));
        let from = core.lane_cursor(queue);
        pipeline.cmd("ZRANGEBYSCORE").arg(&lanes).arg("-inf").arg(now);
        pipeline.arg("LIMIT").arg(from).arg(LANES_MAX);
        // Closed for longer than any rate does: the clock was set back since.
        let far = now.saturating_add(rules.window_max()).saturating_add(SPARE * 1000);
        pipeline.cmd("ZRANGEBYSCORE").arg(&lanes).arg(far).arg("+inf");
        pipeline.arg("LIMIT").arg(0).arg(LANES_MAX);
        let suspects = core.keys.own(&format!("suspects:{queue}"));
        pipeline.cmd("ZRANGE").arg(suspects).arg(0).arg(SUSPECTS_MAX - 1);
    }
    let mut answers = core.link.pipeline("read the limits", &pipeline).await?.into_iter();
    let gate = match answers.next() {
        Some(Answer::BulkString(text)) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
        _ => 0,
    };
    let running = running_of(rules, &texts(answers.next().unwrap_or_default()));
    let mut candidates = Vec::new();
    for (index, queue) in queues.iter().enumerate() {
        let lanes = texts(answers.next().unwrap_or_default());
        let full = lanes.len() == LANES_MAX;
        let far = texts(answers.next().unwrap_or_default());
        core.set_lane_cursor(queue, if full { core.lane_cursor(queue) + LANES_MAX } else { 0 });
        let mut seen = BTreeSet::new();
        let of_suspects = match answers.next() {
            Some(Answer::Array(members)) => members.iter().filter_map(lane_of_suspect).collect(),
            _ => Vec::new(),
        };
        for name in lanes.into_iter().chain(far).chain(of_suspects) {
            let Some((task, key)) = lane_parts(&name) else { continue };
            if seen.insert(name.clone()) {
                candidates.push(Candidate { queue: index, name, task, key });
            }
        }
    }
    let mut choice = Choice { gate, ..Choice::default() };
    let rates = read_rates(core, rules, queues, &candidates, now).await?;
    let mut judge =
        Judge { core, rules, queues, caps, running, rates, now, count, known: BTreeMap::new() };
    let mut closed = Vec::new();
    for candidate in candidates {
        match judge.passage(&candidate, &mut choice.allowances) {
            Passage::Open(allowances) => {
                choice.lanes.push((candidate.queue, candidate.name, allowances));
            }
            Passage::Until(at) => closed.push((candidate, at)),
            Passage::Closed => {}
        }
    }
    if !closed.is_empty() {
        let mut pipeline = Pipeline::new();
        for (candidate, at) in closed {
            let lanes = core.keys.own(&format!("lanes:{}", queues[candidate.queue]));
            pipeline.cmd("ZADD").arg(lanes).arg("XX").arg(at).arg(candidate.name);
        }
        core.link.pipeline("note when lanes open", &pipeline).await?;
    }
    Ok(choice)
}

fn lane_of_suspect(member: &Answer) -> Option<String> {
    let Answer::BulkString(member) = member else { return None };
    let end = member.iter().position(|byte| *byte == b'\n')?;
    let (head, _) = split(&member[end + 1..])?;
    Some(head.lane).filter(|lane| !lane.is_empty())
}

/// How many messages of each counter run, from the numbers of each lane.
fn running_of(rules: &Rules, pairs: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for pair in pairs.chunks(2) {
        let [field, count] = pair else { continue };
        let Some((queue, lane)) = field.split_once(super::keys::SEPARATOR) else { continue };
        let Some((task, key)) = lane_parts(lane) else { continue };
        let count: u64 = count.parse().unwrap_or(0);
        // Two rules may share a counter.
        let counters: BTreeSet<String> = rules
            .limits()
            .iter()
            .filter(|rule| rule.concurrency.is_some())
            .filter_map(|rule| rule.counter(queue, &task, &key))
            .collect();
        for counter in counters {
            *counts.entry(counter).or_default() += count;
        }
    }
    counts
}

/// How many messages of each counter run.
pub(super) async fn running(
    core: &Core,
    rules: &Rules,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut all = redis::cmd("HGETALL");
    all.arg(core.keys.own("running"));
    Ok(running_of(rules, &texts(core.link.call("count running tasks", &all).await?)))
}

/// Where rates stand.
#[derive(Default)]
struct Rates {
    spreads: BTreeMap<(String, String), Spread>,
    bursts: BTreeMap<String, Vec<i64>>,
}

pub(super) fn spread_key(core: &Core, counter: &str, rate: Rate) -> String {
    core.keys.own(&format!("spread:{counter} {rate}"))
}

fn burst_key(core: &Core, counter: &str) -> String {
    core.keys.own(&format!("grants:{counter}"))
}

async fn read_rates(
    core: &Core,
    rules: &Rules,
    queues: &[QueueName],
    candidates: &[Candidate],
    now: i64,
) -> Result<Rates, StoreError> {
    let (mut spreads, mut bursts) = (BTreeMap::new(), BTreeSet::new());
    for candidate in candidates {
        let queue = queues[candidate.queue].as_str();
        for rule in rules.limits() {
            let Some(counter) = rule.counter(queue, &candidate.task, &candidate.key) else {
                continue;
            };
            for rate in &rule.rates {
                if rate.burst {
                    bursts.insert(counter.clone());
                } else {
                    spreads.insert((counter.clone(), rate.to_string()), *rate);
                }
            }
        }
    }
    let mut pipeline = Pipeline::new();
    for ((counter, _), rate) in &spreads {
        pipeline.cmd("GET").arg(spread_key(core, counter, *rate));
    }
    for counter in &bursts {
        pipeline.cmd("ZRANGEBYSCORE").arg(burst_key(core, counter));
        pipeline.arg(format!("({}", now - rules.window_max())).arg("+inf").arg("WITHSCORES");
    }
    let mut answers = core.link.pipeline("read the rates", &pipeline).await?.into_iter();
    let mut rates = Rates::default();
    // What has to be written because the clock was set back.
    let mut ahead = Pipeline::new();
    for (name, rate) in spreads {
        let stored = match answers.next() {
            Some(Answer::BulkString(text)) => String::from_utf8_lossy(&text).parse().unwrap_or(0),
            _ => 0,
        };
        // A clock that was set back must not close the rate until it has caught up.
        let spread = Spread(stored).at_most(rate, now);
        if spread.0 != stored {
            let millis = (spread.0 - now).max(0) / 1000 + SPARE;
            ahead.cmd("SET").arg(spread_key(core, &name.0, rate)).arg(spread.0);
            ahead.arg("PX").arg(millis);
        }
        rates.spreads.insert(name, spread);
    }
    for counter in bursts {
        let pairs = texts(answers.next().unwrap_or_default());
        let mut starts = Vec::new();
        for pair in pairs.chunks(2) {
            let [member, at] = pair else { continue };
            let at = at.parse::<f64>().unwrap_or(0.0) as i64;
            if at > now {
                ahead.cmd("ZADD").arg(burst_key(core, &counter)).arg("XX").arg(now).arg(member);
            }
            starts.push(at.min(now));
        }
        starts.sort_unstable();
        rates.bursts.insert(counter, starts);
    }
    core.link.pipeline("set rates right after the clock", &ahead).await?;
    Ok(rates)
}

/// Whether a lane may go.
enum Passage {
    /// As far as these allowances reach.
    Open(Vec<usize>),
    /// Not before this time.
    Until(i64),
    /// Not until something changes.
    Closed,
}

/// Decides lane by lane; limits that several lanes share have one allowance.
struct Judge<'a> {
    core: &'a Core,
    rules: &'a Rules,
    queues: &'a [QueueName],
    caps: &'a [TaskCap],
    running: BTreeMap<String, u64>,
    rates: Rates,
    now: i64,
    count: usize,
    known: BTreeMap<String, usize>,
}

impl Judge<'_> {
    fn passage(&mut self, lane: &Candidate, allowances: &mut Vec<Allowance>) -> Passage {
        let queue = self.queues[lane.queue].as_str();
        if lane.name == PLAIN_LANE {
            return Passage::Open(Vec::new());
        }
        if self.rules.pauses(queue, &lane.task, &lane.key) {
            return Passage::Closed;
        }
        let mut mine = BTreeSet::new();
        if let Some(cap) = self.caps.iter().find(|cap| cap.task == lane.task) {
            if cap.count_max == 0 {
                return Passage::Closed;
            }
            let allowance = || Allowance { left: cap.count_max, grant: Grant::Nothing };
            mine.insert(self.index(format!("cap {}", cap.task), allowances, allowance));
        }
        let mut until = None;
        for rule in self.rules.limits() {
            let Some(counter) = rule.counter(queue, &lane.task, &lane.key) else { continue };
            if let Some(max) = rule.concurrency {
                let running = self.running.get(&counter).copied().unwrap_or(0);
                let left = u64::from(max).saturating_sub(running) as usize;
                if left == 0 {
                    return Passage::Closed;
                }
                let allowance = || Allowance { left, grant: Grant::Nothing };
                let name = format!("running {max} {counter}");
                mine.insert(self.index(name, allowances, allowance));
            }
            for rate in &rule.rates {
                match self.rate(&counter, *rate, allowances) {
                    Ok(index) => _ = mine.insert(index),
                    Err(at) => until = until.max(Some(at)),
                }
            }
        }
        match until {
            Some(at) => Passage::Until(at),
            None => Passage::Open(mine.into_iter().collect()),
        }
    }

    fn index(
        &mut self,
        name: String,
        allowances: &mut Vec<Allowance>,
        make: impl FnOnce() -> Allowance,
    ) -> usize {
        *self.known.entry(name).or_insert_with(|| {
            allowances.push(make());
            allowances.len() - 1
        })
    }

    /// The allowance of a rate, or when it lets the next one go.
    fn rate(
        &mut self,
        counter: &str,
        rate: Rate,
        allowances: &mut Vec<Allowance>,
    ) -> Result<usize, i64> {
        let now = self.now;
        if rate.burst {
            let starts = self.rates.bursts.get(counter).map_or(&[][..], Vec::as_slice);
            let per = i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX / 4);
            let recent: Vec<i64> =
                starts.iter().copied().filter(|at| at.saturating_add(per) > now).collect();
            let left = (rate.count as usize).saturating_sub(recent.len());
            if left == 0 {
                // The one `count` places before the next has to be out of the window.
                let blocking = recent[recent.len() - rate.count as usize];
                return Err(blocking.saturating_add(per));
            }
            // A start is logged once for all rates of its counter.
            let log = format!("log {counter}");
            let first = !self.known.contains_key(&log);
            let window = self.rules.window_max();
            let key = burst_key(self.core, counter);
            let grant = if first { Grant::Burst { key, window } } else { Grant::Nothing };
            let name = format!("burst {counter} {rate}");
            let index = self.index(name, allowances, || Allowance { left, grant });
            self.known.entry(log).or_insert(index);
            return Ok(index);
        }
        let name = (counter.to_owned(), rate.to_string());
        let mut spread = self.rates.spreads.get(&name).copied().unwrap_or_default();
        let left = spread.free(rate, now).min(self.count.max(1));
        if left == 0 {
            return Err(spread.next(rate));
        }
        let mut states = Vec::with_capacity(left);
        for _ in 0..left {
            spread = spread.after_one(rate, now);
            states.push(spread.0);
        }
        let millis = (spread.0 - now).max(0) / 1000 + SPARE;
        let key = spread_key(self.core, counter, rate);
        let name = format!("spread {counter} {rate}");
        let grant = Grant::Spread { key, states, millis };
        Ok(self.index(name, allowances, || Allowance { left, grant }))
    }
}

/// Whether a limit holds messages of this task and key back now.
pub(super) async fn holds_back(
    core: &Core,
    rules: &Rules,
    queue: &QueueName,
    task: &str,
    key: &str,
) -> Result<bool, StoreError> {
    if rules.limits().is_empty() {
        return Ok(false);
    }
    let now = core.store_now().await?;
    let running = running(core, rules).await?;
    let queues = std::slice::from_ref(queue);
    let name = super::packet::lane_name(task, key);
    let lane = [Candidate { queue: 0, name, task: task.to_owned(), key: key.to_owned() }];
    let rates = read_rates(core, rules, queues, &lane, now).await?;
    let known = BTreeMap::new();
    let mut judge = Judge { core, rules, queues, caps: &[], running, rates, now, count: 1, known };
    Ok(!matches!(judge.passage(&lane[0], &mut Vec::new()), Passage::Open(_)))
}
