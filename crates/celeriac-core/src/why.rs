//! Why a task does not run, or what became of it: one verdict from what the store and the workers say.
//! Pure.

use crate::clock::between;
use crate::store::{HeldElsewhere, LimitView, Pause, Phase, TaskView};
use crate::throttle::{KEY_HEADER, Target};
use celeriac_wire::State;
use jiff::Timestamp;
use std::fmt;

/// The one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nobody knows the task.
    Unknown,
    /// It is done.
    Finished,
    /// It has failed.
    Failed,
    /// It was revoked, or will be thrown away for that.
    Revoked,
    /// It is a dead letter.
    Dead,
    /// It runs.
    Running,
    /// A worker holds it and has not begun it.
    Prefetched,
    /// Its worker does not answer.
    WorkerSilent,
    /// It waits for its time.
    Eta,
    /// It waits for its retry.
    Retry,
    /// Its time to expire has passed.
    Expired,
    /// It is paused.
    Paused,
    /// A limit holds it back.
    Limited,
    /// No worker consumes its queue.
    NoConsumer,
    /// No worker of its queue knows it.
    Unregistered,
    /// All workers are busy, or others are before it.
    Waiting,
    /// A state was written and its message is gone.
    Lost,
}

impl Cause {
    /// Its word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
            Self::Dead => "dead",
            Self::Running => "running",
            Self::Prefetched => "prefetched",
            Self::WorkerSilent => "worker-silent",
            Self::Eta => "eta",
            Self::Retry => "retry",
            Self::Expired => "expired",
            Self::Paused => "paused",
            Self::Limited => "limited",
            Self::NoConsumer => "no-consumer",
            Self::Unregistered => "unregistered",
            Self::Waiting => "waiting",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What a worker of Celery says of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It runs.
    Active,
    /// It is held and has not begun.
    Reserved,
    /// It is held until its time.
    Scheduled(Option<Timestamp>),
}

/// A worker that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its name.
    pub name: String,
    /// The queues it consumes.
    pub queues: Vec<String>,
    /// The tasks it knows.
    pub tasks: Vec<String>,
    /// Whether it has a free slot, if that is known.
    pub is_free: Option<bool>,
}

/// All that the verdict is made from.
#[derive(Clone, Debug)]
pub struct WhyFacts<'a> {
    /// What the store says of the task.
    pub view: &'a TaskView,
    /// The store's time.
    pub now: Timestamp,
    /// Workers whose leases stand, and those that answered.
    pub workers: &'a [WorkerFacts],
    /// Pauses in force.
    pub pauses: &'a [Pause],
    /// Limits in force.
    pub limits: &'a [LimitView],
    /// Which worker of Celery holds it, by its own word.
    pub said: Option<(String, Said)>,
    /// Whether a worker of Celery remembers that it was revoked.
    pub revoked: bool,
    /// Where the store says that a worker of Celery holds it.
    pub elsewhere: Option<HeldElsewhere>,
}

/// Why, what shows it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// It in a sentence.
    pub sentence: String,
    /// What shows it.
    pub evidence: Vec<String>,
    /// A command, or what to do; empty where nothing is to be done.
    pub next: String,
}

fn verdict(cause: Cause, sentence: impl Into<String>, next: impl Into<String>) -> Verdict {
    Verdict { cause, sentence: sentence.into(), evidence: Vec::new(), next: next.into() }
}

impl Verdict {
    fn with(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn seconds(facts: &WhyFacts<'_>, from: Timestamp) -> u64 {
    between(from, facts.now).as_secs()
}

/// The verdict.
pub fn why(facts: &WhyFacts<'_>) -> Verdict {
    let view = facts.view;
    match &view.phase {
        Phase::Dead { number, reason } => dead(facts, *number, &reason.to_string()),
        Phase::Done => done(facts),
        Phase::Running { worker, since } => {
            let text = format!("It runs on {worker}, for {} s so far.", seconds(facts, *since));
            held(
                facts,
                worker,
                verdict(Cause::Running, text, format!("celeriac inspect active -d {worker}")),
            )
        }
        Phase::Reserved { worker } => {
            let text = format!("{worker} has taken it and has not begun it yet.");
            held(
                facts,
                worker,
                verdict(Cause::Prefetched, text, format!("celeriac inspect active -d {worker}")),
            )
        }
        Phase::Scheduled { until, retry } => scheduled(facts, *until, *retry),
        Phase::Queued { position, paused, limited, revoked } => {
            queued(facts, *position, *paused, *limited, *revoked)
        }
        Phase::Unknown => unseen(facts),
    }
}

fn dead(facts: &WhyFacts<'_>, number: i64, reason: &str) -> Verdict {
    let next = format!("celeriac dead show {number}, then celeriac dead replay {number}");
    let made = verdict(Cause::Dead, format!("It is dead letter {number}: {reason}."), next);
    match failure(facts) {
        Some(text) => made.with(text),
        None => made,
    }
}

/// What its result says went wrong.
fn failure(facts: &WhyFacts<'_>) -> Option<String> {
    let exception = facts.view.result.as_ref()?.meta.exception().ok()??;
    Some(exception.summary())
}

fn done(facts: &WhyFacts<'_>) -> Verdict {
    let view = facts.view;
    let next = format!("celeriac result {}", view.task_id);
    let Some(record) = &view.result else {
        return verdict(Cause::Finished, "It is done, and its result is not kept.", "");
    };
    let at = format!("its result was written at {}", clock(record.written_at));
    match record.meta.state() {
        State::Failure => {
            let made = verdict(
                Cause::Failed,
                "It ran and failed.",
                format!("celeriac task retry {}, or look at {next}", view.task_id),
            );
            match failure(facts) {
                Some(text) => made.with(at).with(text),
                None => made.with(at),
            }
        }
        State::Revoked => verdict(
            Cause::Revoked,
            "It was revoked and did not run to its end.",
            "Send it again, if it is wanted.",
        )
        .with(at),
        _ => verdict(Cause::Finished, "It has finished.", next).with(at),
    }
}

/// A task in a worker's hands: is the worker there?
fn held(facts: &WhyFacts<'_>, worker: &str, made: Verdict) -> Verdict {
    if facts.workers.iter().any(|one| one.name == worker) {
        return made;
    }
    let text =
        format!("{worker} holds it and is gone: within 10 s the store gives it to another worker.");
    verdict(Cause::WorkerSilent, text, "celeriac status")
        .with("no worker of this name has a lease that stands")
}

fn scheduled(facts: &WhyFacts<'_>, until: Timestamp, retry: bool) -> Verdict {
    if until <= facts.now {
        return runnable(facts, Some(0)).with(format!("it was due at {}", clock(until)));
    }
    let (left, at) = (between(facts.now, until).as_secs(), clock(until));
    let now = format!("to run it now: celeriac task retry {}", facts.view.task_id);
    if retry {
        let text = format!(
            "It failed and waits for its retry {} at {at}, in {left} s.",
            facts.view.retries
        );
        let made = verdict(Cause::Retry, text, now);
        return match failure(facts) {
            Some(text) => made.with(text),
            None => made,
        };
    }
    verdict(Cause::Eta, format!("It waits for its time, {at}, in {left} s."), now)
        .with("it was sent with an eta or a countdown")
}

fn queued(
    facts: &WhyFacts<'_>,
    position: Option<u64>,
    paused: bool,
    limited: bool,
    revoked: bool,
) -> Verdict {
    let view = facts.view;
    let id = &view.task_id;
    if revoked || facts.revoked {
        return verdict(
            Cause::Revoked,
            "It was revoked: the worker that takes it throws it away.",
            "Send it again, if it is wanted.",
        );
    }
    let expires =
        view.message.as_ref().and_then(|message| message.headers.expires().ok().flatten());
    if let Some(expires) = expires.filter(|expires| *expires <= facts.now) {
        let text = "Its time to expire has passed: the worker that takes it throws it away.";
        let next = "Send it again, with a later `expires`.";
        return verdict(Cause::Expired, text, next)
            .with(format!("it expired at {}", clock(expires)));
    }
    if paused {
        return held_back(facts);
    }
    if limited {
        let rules = facts
            .limits
            .iter()
            .filter(|limit| limit.in_force && is_about(facts, &limit.rule.target));
        let mut made = verdict(Cause::Limited, "A limit holds it back.", "celeriac limit list");
        for limit in rules {
            let next = limit.next_at.map_or(String::new(), |at| format!(", next at {}", clock(at)));
            made = made
                .with(format!("limit for {}: {} running{next}", limit.rule.target, limit.running));
        }
        if facts.workers.iter().any(|worker| consumes(facts, worker)) {
            return made;
        }
        // The limit is not what it waits for.
        return runnable(facts, position);
    }
    let made = runnable(facts, position);
    match view.enqueued_at {
        Some(at) => {
            made.with(format!("{id} was sent at {}, {} s ago", clock(at), seconds(facts, at)))
        }
        None => made,
    }
}

/// Whether a pause or a limit is about the task.
fn is_about(facts: &WhyFacts<'_>, target: &Target) -> bool {
    let view = facts.view;
    let key = view.message.as_ref().and_then(|message| message.headers.get(KEY_HEADER)?.as_str());
    match target {
        Target::Everything => true,
        Target::Queue(name) => view.queue.as_ref() == Some(name),
        Target::Task(name) => view.task.as_ref() == Some(name),
        Target::Key(name) => key.is_some_and(|key| name == "*" || name == key),
    }
}

fn held_back(facts: &WhyFacts<'_>) -> Verdict {
    let about: Vec<&Pause> =
        facts.pauses.iter().filter(|pause| is_about(facts, &pause.target)).collect();
    let next = match about.first().map(|pause| &pause.target) {
        Some(Target::Queue(name)) => format!("celeriac resume --queue {name}"),
        Some(Target::Task(name)) => format!("celeriac resume --task {name}"),
        Some(Target::Key(name)) => format!("celeriac resume --key {name}"),
        Some(Target::Everything) => "celeriac resume --all".to_owned(),
        None => "celeriac pauses".to_owned(),
    };
    let mut made = verdict(Cause::Paused, "It is paused.", next);
    for pause in about {
        let reason = if pause.reason.is_empty() { "no reason was given" } else { &pause.reason };
        made = made.with(format!("{} since {}: {reason}", pause.target, clock(pause.since)));
    }
    made
}

fn consumes(facts: &WhyFacts<'_>, worker: &WorkerFacts) -> bool {
    facts.view.queue.as_ref().is_some_and(|queue| worker.queues.contains(queue))
}

/// Nothing holds it back but the workers.
fn runnable(facts: &WhyFacts<'_>, position: Option<u64>) -> Verdict {
    let (queue, task) = (
        facts.view.queue.as_deref().unwrap_or("its queue"),
        facts.view.task.as_deref().unwrap_or("the task"),
    );
    let consumers: Vec<&WorkerFacts> =
        facts.workers.iter().filter(|one| consumes(facts, one)).collect();
    if consumers.is_empty() {
        let text = format!("No worker consumes the queue {queue}.");
        let mut all: Vec<&str> =
            facts.workers.iter().flat_map(|one| &one.queues).map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        let there = if facts.workers.is_empty() {
            "no worker is there at all".to_owned()
        } else {
            format!("{} workers consume {}", facts.workers.len(), all.join(", "))
        };
        return verdict(Cause::NoConsumer, text, format!("celeriac worker -Q {queue}")).with(there);
    }
    // A worker that names no tasks was not asked, or did not answer.
    let told: Vec<&&WorkerFacts> = consumers.iter().filter(|one| !one.tasks.is_empty()).collect();
    let names: Vec<&str> = consumers.iter().map(|one| one.name.as_str()).collect();
    if !told.is_empty() && told.iter().all(|one| !one.tasks.iter().any(|known| known == task)) {
        let text = format!("No worker of the queue {queue} knows the task {task}.");
        let next =
            "Start a worker that imports it; celeriac inspect registered shows who knows what.";
        return verdict(Cause::Unregistered, text, next)
            .with(format!("{queue} is consumed by {}", names.join(", ")));
    }
    let free = consumers.iter().filter(|one| one.is_free == Some(true)).count();
    let ahead = position.map_or("more than 10,000 are".to_owned(), |count| match count {
        0 => "none is".to_owned(),
        1 => "1 is".to_owned(),
        count => format!("{count} are"),
    });
    let text = match (free, position) {
        (1.., Some(0)) => format!("It is next in the queue {queue}, and a worker is free."),
        _ => format!("It waits for its turn in the queue {queue}: {ahead} before it."),
    };
    verdict(
        Cause::Waiting,
        text,
        format!("celeriac queue show {queue}; more slots: celeriac control pool_grow 1"),
    )
    .with(format!(
        "{free} of {} workers have a free slot: {}",
        consumers.len(),
        names.join(", ")
    ))
}

/// The store has no message of it: a worker of Celery may.
fn unseen(facts: &WhyFacts<'_>) -> Verdict {
    if let Some((worker, said)) = &facts.said {
        let next = format!("celeriac inspect active -d {worker}");
        let says = format!("{worker} says so");
        return match said {
            Said::Active => verdict(Cause::Running, format!("It runs on {worker}."), next),
            Said::Reserved => verdict(
                Cause::Prefetched,
                format!(
                    "{worker}, a worker of Celery, has taken it ahead and works on others first."
                ),
                next,
            ),
            Said::Scheduled(at) => {
                let at = at.map_or(String::new(), |at| format!(" until {}", clock(at)));
                verdict(Cause::Eta, format!("{worker}, a worker of Celery, holds it{at}."), next)
            }
        }
        .with(says);
    }
    if let Some(HeldElsewhere { since, returns_at }) = &facts.elsewhere {
        let text = format!(
            "A worker of Celery took it and does not answer: the broker gives it back at {}.",
            clock(*returns_at)
        );
        return verdict(
            Cause::WorkerSilent,
            text,
            "celeriac status; any running worker gives it back then",
        )
        .with(format!("it is in `unacked` since {}", clock(*since)));
    }
    match &facts.view.result {
        Some(record) => {
            let state = record.meta.state();
            let text = format!(
                "Its state is {state}, and nobody has its message: most likely its worker died after it acknowledged it."
            );
            verdict(
                Cause::Lost,
                text,
                "Send it again. Late acknowledgement, or celeriac's worker, does not lose it.",
            )
            .with(format!("{state} was written at {}", clock(record.written_at)))
        }
        None => verdict(
            Cause::Unknown,
            "Nobody knows it: it was never sent here, or its result has expired.",
            "celeriac config show, to see whether this is the store that it was sent to",
        )
        .with("no message, no result, no dead letter, and no worker that answered has it"),
    }
}

#[cfg(test)]
mod tests;
