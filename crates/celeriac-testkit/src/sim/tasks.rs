//! The tasks of the simulation. Each writes into the ledger when it begins and when it ends.

use super::record::{Record, yes};
use super::time::Gate;
use crate::ledger::What;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::retry::{Delay, RetryPolicy};
use celeriac_runtime::{CancelReason, Handler, Registry, RunContext, TaskPolicy};
use celeriac_wire::{Body, ExceptionInfo, Map, State, Value, value_repr};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// The text of every panic that is part of the simulation; [`super::quiet_panics`] hides it.
pub(crate) const PANIC: &str = "simulated panic";

/// The kinds of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Takes `ms` and returns which run it was.
    Works,
    /// Says every 100 ms how far it is.
    Reports,
    /// Stores no result.
    Quiet,
    /// Fails for good.
    Fails,
    /// Fails `times` times, then works.
    Flaky,
    /// Panics, and once more.
    Panics,
    /// Takes longer than its soft limit, and listens.
    Soft,
    /// Takes longer than its hard limit, and does not.
    Hard,
    /// Goes on until it is told to stop.
    Endless,
    /// Gives its message back `times` times, then works.
    Returns,
    /// Rejects its message for good.
    Rejects,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Works,
        Self::Reports,
        Self::Quiet,
        Self::Fails,
        Self::Flaky,
        Self::Panics,
        Self::Soft,
        Self::Hard,
        Self::Endless,
        Self::Returns,
        Self::Rejects,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Works => "sim.works",
            Self::Reports => "sim.reports",
            Self::Quiet => "sim.quiet",
            Self::Fails => "sim.fails",
            Self::Flaky => "sim.flaky",
            Self::Panics => "sim.panics",
            Self::Soft => "sim.soft",
            Self::Hard => "sim.hard",
            Self::Endless => "sim.endless",
            Self::Returns => "sim.returns",
            Self::Rejects => "sim.rejects",
        }
    }

    fn policy(self) -> TaskPolicy {
        let delays = |millis: &[u64]| RetryPolicy {
            max_retries: Some(millis.len() as u32),
            delay: Delay::Schedule(millis.iter().copied().map(Duration::from_millis).collect()),
        };
        let never = TaskPolicy { retry: RetryPolicy::never(), ..TaskPolicy::default() };
        let limit = Some(Duration::from_millis(500));
        match self {
            Self::Flaky => TaskPolicy { retry: delays(&[100, 300, 900]), ..never },
            Self::Panics => TaskPolicy { retry: delays(&[200]), ..never },
            Self::Soft => TaskPolicy { soft_time_limit: limit, ..never },
            Self::Hard => TaskPolicy { time_limit: limit, ..never },
            Self::Quiet => TaskPolicy { ignore_result: true, ..never },
            _ => never,
        }
    }
}

/// What a task finds in its keyword arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub(crate) ms: u64,
    pub(crate) times: u64,
}

impl Arguments {
    pub(crate) fn to_kwargs(self) -> Map {
        Map::from([("ms", Value::from(self.ms)), ("times", Value::from(self.times))])
    }

    fn of(body: &Body) -> Self {
        let number = |name| body.kwargs.get(name).and_then(Value::as_u64).unwrap_or(0);
        Self { ms: number("ms"), times: number("times") }
    }
}

struct SimTask {
    kind: Kind,
    policy: TaskPolicy,
    who: String,
    gate: Arc<Gate>,
    record: Arc<Record>,
}

/// All tasks, for one worker.
pub(crate) fn registry(who: &str, gate: &Arc<Gate>, record: &Arc<Record>) -> Registry {
    let mut registry = Registry::default();
    for kind in Kind::ALL {
        let task = SimTask {
            kind,
            policy: kind.policy(),
            who: who.to_owned(),
            gate: Arc::clone(gate),
            record: Arc::clone(record),
        };
        registry.add(Arc::new(task)).expect("each kind has a name of its own");
    }
    registry
}

impl Handler for SimTask {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn policy(&self) -> &TaskPolicy {
        &self.policy
    }

    fn run(&self, run: RunContext, body: Body) -> BoxFuture<'static, Outcome> {
        let script = Script {
            kind: self.kind,
            arguments: Arguments::of(&body),
            who: self.who.clone(),
            record: Arc::clone(&self.record),
            run,
        };
        Box::pin(self.gate.hold(script.play()))
    }
}

struct Script {
    kind: Kind,
    arguments: Arguments,
    who: String,
    record: Arc<Record>,
    run: RunContext,
}

impl Script {
    fn line(&self, what: What) -> crate::ledger::Line {
        let headers = &self.run.delivery.message.headers;
        let line = self.record.line(what, headers.id().unwrap_or_default(), &self.who);
        line.attempt(headers.retries()).note("token", self.run.delivery.lease.token)
    }

    async fn play(self) -> Outcome {
        let redelivered = yes(self.run.delivery.redelivered);
        self.record.append(self.line(What::Started).note("redelivered", redelivered));
        let outcome = self.act().await;
        let word = match &outcome {
            Outcome::Success(_) => "ok",
            Outcome::Failure(_) => "failed",
            Outcome::Reject { .. } => "rejected",
            _ => "cancelled",
        };
        let line = self.line(What::Ended).note("outcome", word);
        self.record.append(match &outcome {
            Outcome::Success(value) => line.note("value", value_repr(value)),
            _ => line,
        });
        outcome
    }

    async fn act(&self) -> Outcome {
        let span = Duration::from_millis(self.arguments.ms);
        let retries = u64::from(self.run.delivery.message.headers.retries());
        match self.kind {
            Kind::Endless => {
                self.run.cancellation.cancelled().await;
                return Outcome::Cancelled;
            }
            Kind::Soft => {
                let over = tokio::time::timeout(span, self.run.cancellation.cancelled()).await;
                return match over {
                    Ok(CancelReason::SoftLimit) => {
                        failure(ExceptionInfo::soft_time_limit_exceeded(), true)
                    }
                    Ok(_) => Outcome::Cancelled,
                    Err(_elapsed) => self.success(),
                };
            }
            Kind::Reports => self.report_progress(span).await,
            _ => tokio::time::sleep(span).await,
        }
        let times = self.arguments.times;
        let returned = self.run.delivery.history.iter().filter(|one| one.outcome == "rejected");
        match self.kind {
            Kind::Fails => failure(broken("it always does"), true),
            Kind::Flaky if retries < times => failure(broken("this time"), false),
            Kind::Panics => panic!("{PANIC}"),
            Kind::Returns if (returned.count() as u64) < times => {
                Outcome::Reject { requeue: true, reason: "not yet".to_owned() }
            }
            Kind::Rejects => Outcome::Reject { requeue: false, reason: "never".to_owned() },
            _ => self.success(),
        }
    }

    async fn report_progress(&self, span: Duration) {
        let step = Duration::from_millis(100);
        let mut left = span;
        while !left.is_zero() {
            tokio::time::sleep(left.min(step)).await;
            left = left.saturating_sub(step);
            let meta = Value::from(left.as_millis() as u64);
            // Progress may be lost; the task goes on.
            let _stored = self.run.store_state(State::parse("PROGRESS"), meta).await;
        }
    }

    /// The value names the run, so that every result can be told from every other.
    fn success(&self) -> Outcome {
        Outcome::Success(Value::from(self.run.delivery.lease.token))
    }
}

fn broken(why: &str) -> ExceptionInfo {
    ExceptionInfo::new("builtins", "ValueError", vec![Value::from(why)])
}

fn failure(exception: ExceptionInfo, permanent: bool) -> Outcome {
    Outcome::Failure(Failure { permanent, ..Failure::new(exception) })
}
