//! From the outcome of a run to what is written about it: fate, result, retry, workflow, history.

use crate::clock;
use crate::dead::{Attempt, DeadLetters, DeadReason, remember};
use crate::lease::Recovery;
use crate::outcome::{Acks, ChildDeath, Disposition, Failure, Outcome, Traced, TracedState};
use crate::record::Recorder;
use crate::retry::{RetryFor, RetryPolicy};
use crate::store::{Delivery, Fate, Outgoing, Place, Plan};
use crate::trail::CHILDREN_MAX;
use crate::workflow::{self, Followed, Sender};
use celeriac_wire::{Embed, ExceptionInfo, Headers, Message, State, Value, value_repr};
use jiff::Timestamp;
use std::borrow::Cow;

/// The header that counts how often a task has asked to run later.
pub const SNOOZES_HEADER: &str = "celeriac_snoozes";

/// A delivery and what its worker knows when it ends.
#[derive(Debug)]
pub struct Run<'a> {
    /// What was delivered.
    pub delivery: &'a Delivery,
    /// Its embed, empty when the body cannot be read.
    pub embed: &'a Embed,
    /// When and how often it may run again.
    pub retry: &'a RetryPolicy,
    /// Which failures that is about.
    pub retry_for: &'a RetryFor,
    /// Which final failures are kept.
    pub dead_letters: &'a DeadLetters,
    /// What happens to its message when its run is cut off.
    pub acks: Acks,
    /// Whether results are not wanted.
    pub ignore_result: bool,
    /// Who ran it, from when to when.
    pub recorder: &'a Recorder<'a>,
    /// 64 random bits for jitter.
    pub random: u64,
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// What becomes of the message.
    pub fate: Fate,
    /// What is written with it.
    pub plan: Plan,
    /// The word for logs, events and metrics.
    pub verdict: Verdict,
}

/// How a delivery ended, for logs, events and metrics.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// SUCCESS with this value.
    Succeeded(Returned),
    /// FAILURE and a dead letter.
    Failed(Failure),
    /// It runs again at this time.
    Retried {
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
    },
    /// It runs again at this time, at its own wish.
    Snoozed {
        /// When.
        at: Timestamp,
    },
    /// REVOKED.
    Revoked {
        /// It ran and was cancelled.
        terminated: bool,
        /// It came too late.
        expired: bool,
    },
    /// Given back or set aside at its own wish.
    Rejected {
        /// Back in the queue.
        requeue: bool,
    },
    /// Nothing is stored.
    Ignored,
    /// Back in the queue, not its fault.
    Returned,
    /// Back in the queue as a suspect: its child died.
    ChildLost(Failure),
}

/// What a successful run returned, for events.
#[derive(Clone, Debug, PartialEq)]
pub enum Returned {
    /// The value.
    Value(Value),
    /// Its `repr`, made where it was returned.
    Text(String),
}

impl Returned {
    /// The value as Python shows it.
    pub fn repr(&self) -> Cow<'_, str> {
        match self {
            Self::Value(value) => Cow::Owned(value_repr(value)),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

/// Concludes a run.
pub fn conclude(run: &Run<'_>, mut outcome: Outcome, sender: &mut Sender<'_>) -> Conclusion {
    let bases = match &mut outcome {
        Outcome::Traced(traced) => std::mem::take(&mut traced.bases),
        _ => Vec::new(),
    };
    let mut conclusion = concluded(run, outcome, sender);
    if let (Fate::Dead { reason: DeadReason::Failed, .. }, Verdict::Failed(failure)) =
        (&conclusion.fate, &conclusion.verdict)
    {
        let exception = &failure.exception;
        let own = (exception.exc_module.as_str(), exception.exc_type.as_str());
        let bases = bases.iter().map(|(module, name)| (module.as_str(), name.as_str()));
        let retries = run.delivery.message.headers.retries();
        if !run.dead_letters.keeps(retries, std::iter::once(own).chain(bases)) {
            conclusion.fate = Fate::Done;
        }
    }
    conclusion
}

fn concluded(run: &Run<'_>, outcome: Outcome, sender: &mut Sender<'_>) -> Conclusion {
    match outcome {
        Outcome::Success(value) => succeed(run, value, sender),
        Outcome::Failure(failure) => fail_or_retry(run, None, failure, sender),
        Outcome::Retry { delay, failure } => fail_or_retry(run, delay, failure, sender),
        Outcome::Reject { requeue: true, reason } => Conclusion {
            fate: Fate::Release {
                place: Place::Tail,
                attempt: Some(attempt(run, "rejected", reason)),
            },
            plan: Plan::default(),
            verdict: Verdict::Rejected { requeue: true },
        },
        Outcome::Reject { requeue: false, reason } => {
            let exception = ExceptionInfo::new(
                "celery.exceptions",
                "Reject",
                vec![Value::from(reason.as_str()), Value::from(false)],
            );
            let mut conclusion =
                set_aside(run, DeadReason::Rejected, Failure::permanent(exception), sender);
            conclusion.verdict = Verdict::Rejected { requeue: false };
            conclusion
        }
        Outcome::Snooze { delay } => snooze(run, delay),
        Outcome::Ignore => done(Plan::default(), Verdict::Ignored),
        Outcome::Cancelled => revoke(run, true, false, sender),
        Outcome::Interrupted if !run.acks.late => {
            let text = "the worker shut down while it ran, after its message was acknowledged";
            let failure = Failure::permanent(ExceptionInfo::worker_lost(text));
            set_aside(run, DeadReason::Shutdown, failure, sender)
        }
        Outcome::Interrupted => give_back(run, "the worker shut down".to_owned()),
        Outcome::Returned { reason, begun: true } if !run.acks.late => {
            let failure = Failure::permanent(ExceptionInfo::worker_lost(&reason));
            set_aside(run, DeadReason::WorkerLost, failure, sender)
        }
        Outcome::Returned { begun: false, .. } => Conclusion {
            fate: Fate::Release { place: Place::Head, attempt: None },
            plan: Plan::default(),
            verdict: Verdict::Returned,
        },
        Outcome::Returned { reason, .. } => give_back(run, reason),
        Outcome::ChildLost(death) => lose_child(run, &death, sender),
        Outcome::Traced(traced) => settle_traced(run, *traced),
    }
}

/// What Celery's tracer did stands: the result is written and the message settled, nothing is sent.
fn settle_traced(run: &Run<'_>, traced: Traced) -> Conclusion {
    let Traced { state, disposition, result, .. } = traced;
    let mut plan = Plan::default();
    plan.watched.extend(workflow::watch_of(&run.delivery.message.headers, run.embed));
    plan.results
        .extend(result.map(|meta| run.recorder.traced(&run.delivery.message.headers, meta)));
    let verdict = match state {
        TracedState::Succeeded(text) => {
            Verdict::Succeeded(Returned::Text(text.unwrap_or_else(|| "None".to_owned())))
        }
        TracedState::Failed(failure) => Verdict::Failed(failure),
        TracedState::Retried(failure) => Verdict::Retried { at: run.recorder.now, failure },
        TracedState::Ignored => Verdict::Ignored,
        TracedState::Rejected { reason } if disposition == Disposition::Requeue => {
            let attempt = Some(attempt(run, "rejected", reason));
            let fate = Fate::Release { place: Place::Tail, attempt };
            return Conclusion { fate, plan, verdict: Verdict::Rejected { requeue: true } };
        }
        TracedState::Rejected { reason } => {
            let fate = dead(run, DeadReason::Rejected, reason);
            return Conclusion { fate, plan, verdict: Verdict::Rejected { requeue: false } };
        }
        TracedState::Revoked { terminated, expired } => Verdict::Revoked { terminated, expired },
    };
    let fate = match (&verdict, disposition) {
        (_, Disposition::Requeue) => Fate::Release { place: Place::Tail, attempt: None },
        (Verdict::Failed(failure), _) => dead_of(run, failure),
        _ => Fate::Done,
    };
    Conclusion { fate, plan, verdict }
}

fn dead(run: &Run<'_>, reason: DeadReason, detail: String) -> Fate {
    let attempt = Some(attempt(run, reason.as_str(), detail.clone()));
    Fate::Dead { reason, detail, attempt }
}

/// A failure, and the last words of a child that died of it.
fn dead_of(run: &Run<'_>, failure: &Failure) -> Fate {
    let mut fate = dead(run, failure.reason, failure.exception.summary());
    if let (DeadReason::WorkerLost, Some(stderr)) = (failure.reason, &failure.traceback)
        && let Fate::Dead { attempt: Some(attempt), .. } = &mut fate
    {
        let words = end_of(stderr, STDERR_IN_HISTORY);
        attempt.detail = format!("{}\n{words}", attempt.detail);
    }
    fate
}

/// Back to its place, without blame.
fn give_back(run: &Run<'_>, reason: String) -> Conclusion {
    Conclusion {
        fate: Fate::Release {
            place: Place::Head,
            attempt: Some(attempt(run, "interrupted", reason)),
        },
        plan: Plan::default(),
        verdict: Verdict::Returned,
    }
}

/// A message whose time has not come, in the form that says so to the store: the same message once
/// more, which waits until its `eta`.
pub fn postpone(run: &Run<'_>) -> Conclusion {
    let message = run.delivery.message.clone();
    let plan = Plan { publish: vec![once_more(run.delivery, message)], ..Plan::default() };
    Conclusion { fate: Fate::Done, plan, verdict: Verdict::Returned }
}

/// The same message, and when it asks to run again.
fn snooze(run: &Run<'_>, delay: std::time::Duration) -> Conclusion {
    let at = clock::after(run.recorder.now, delay);
    let mut message = run.delivery.message.clone();
    let times = snoozes(&message.headers).saturating_add(1);
    message.headers.set_eta(Some(at)).insert(SNOOZES_HEADER, times);
    let plan = Plan { publish: vec![once_more(run.delivery, message)], ..Plan::default() };
    done(plan, Verdict::Snoozed { at })
}

/// How often a task has asked to run later.
pub fn snoozes(headers: &Headers) -> u64 {
    headers.get(SNOOZES_HEADER).and_then(Value::as_u64).unwrap_or(0)
}

/// A message that goes to its queue again with what is known of it.
fn once_more(delivery: &Delivery, message: Message) -> Outgoing {
    Outgoing {
        once: None,
        queue: delivery.queue.clone(),
        message,
        history: delivery.history.clone(),
        enqueued_at: Some(delivery.enqueued_at),
    }
}

/// The death of the child that ran exactly this message counts; after so many it is poison.
fn lose_child(run: &Run<'_>, death: &ChildDeath, sender: &mut Sender<'_>) -> Conclusion {
    let recovery = run.delivery.suspicion.after_child_death();
    let (Recovery::Requeue(suspicion) | Recovery::Isolate(suspicion) | Recovery::Poison(suspicion)) =
        recovery;
    let number = suspicion.counted;
    let exception = ExceptionInfo::worker_lost(&format!("{}; death {number}", death.summary()));
    let traceback = Some(death.stderr_tail.clone()).filter(|tail| !tail.is_empty());
    let failure = Failure { traceback, ..Failure::permanent(exception) };
    let detail = match &failure.traceback {
        None => death.summary(),
        Some(stderr) => format!("{}\n{}", death.summary(), end_of(stderr, STDERR_IN_HISTORY)),
    };
    let noted = attempt(run, "child-lost", detail);
    if !run.acks.requeue_lost {
        let mut conclusion = set_aside(run, DeadReason::WorkerLost, failure, sender);
        if let Fate::Dead { attempt, .. } = &mut conclusion.fate {
            *attempt = Some(noted);
        }
        return conclusion;
    }
    if !matches!(recovery, Recovery::Poison(_)) {
        let fate = Fate::Lost { suspicion, attempt: noted };
        return Conclusion { fate, plan: Plan::default(), verdict: Verdict::ChildLost(failure) };
    }
    let mut conclusion = set_aside(run, DeadReason::Poison, failure, sender);
    if let Fate::Dead { attempt, .. } = &mut conclusion.fate {
        *attempt = Some(noted);
    }
    conclusion
}

/// How much of a child's last words an entry of the history has room for.
const STDERR_IN_HISTORY: usize = 3 << 10;

/// The end of a text, at most `max` bytes.
fn end_of(text: &str, max: usize) -> &str {
    let from = text.len().saturating_sub(max);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

fn done(plan: Plan, verdict: Verdict) -> Conclusion {
    Conclusion { fate: Fate::Done, plan, verdict }
}

fn succeed(run: &Run<'_>, value: Value, sender: &mut Sender<'_>) -> Conclusion {
    let headers = &run.delivery.message.headers;
    match workflow::after_success(headers, run.embed, &value, sender) {
        Ok(Followed { mut plan, children }) => {
            if !run.ignore_result {
                // What follows is sent by the task, for Celery.
                let mut recorder = run.recorder.clone();
                recorder.children.extend(children);
                recorder.children.truncate(CHILDREN_MAX);
                plan.results.push(recorder.of(headers, State::Success, value.clone(), None));
            }
            done(plan, Verdict::Succeeded(Returned::Value(value)))
        }
        // Celery 5.7 trace.py: a callback or chain that cannot be sent fails the task.
        Err(error) => {
            let exception = ExceptionInfo::new(
                "celeriac.exceptions",
                "WorkflowError",
                vec![Value::from(format!("what follows this task cannot be sent: {error}"))],
            );
            set_aside(run, DeadReason::Failed, Failure::permanent(exception), sender)
        }
    }
}

fn fail_or_retry(
    run: &Run<'_>,
    asked: Option<std::time::Duration>,
    failure: Failure,
    sender: &mut Sender<'_>,
) -> Conclusion {
    let headers = &run.delivery.message.headers;
    let exception = &failure.exception;
    let is_final =
        failure.permanent || !run.retry_for.allows(&exception.exc_module, &exception.exc_type);
    let allowed = if is_final { None } else { run.retry.next(headers.retries(), run.random) };
    match allowed {
        Some(policy) => retry(run, asked.unwrap_or(policy), failure),
        None => set_aside(run, failure.reason, failure, sender),
    }
}

/// The same message again: same id, one retry more, an eta, its history (5.13).
fn retry(run: &Run<'_>, delay: std::time::Duration, failure: Failure) -> Conclusion {
    let at = clock::after(run.recorder.now, delay);
    let old = run.delivery;
    let mut message = old.message.clone();
    let retries = message.headers.retries().saturating_add(1);
    message.headers.set_retries(retries).set_eta(Some(at));
    let mut history = old.history.clone();
    remember(&mut history, attempt(run, "retry", failure.exception.summary()));
    let mut plan = Plan::default();
    if !run.ignore_result {
        let (result, traceback) = (failure.exception.to_value(), failure.traceback.as_deref());
        plan.results.push(run.recorder.of(&message.headers, State::Retry, result, traceback));
    }
    plan.publish.push(Outgoing { history, ..once_more(old, message) });
    done(plan, Verdict::Retried { at, failure })
}

/// A final failure: FAILURE where somebody may wait for it, and a dead letter.
pub fn set_aside(
    run: &Run<'_>,
    reason: DeadReason,
    failure: Failure,
    sender: &mut Sender<'_>,
) -> Conclusion {
    let headers = &run.delivery.message.headers;
    let exception = &failure.exception;
    let mut plan = workflow::after_failure(
        headers,
        run.embed,
        &State::Failure,
        exception,
        run.recorder,
        sender,
    );
    if !run.ignore_result && headers.id().is_some() {
        let traceback = failure.traceback.as_deref();
        plan.results.push(run.recorder.of(
            headers,
            State::Failure,
            exception.to_value(),
            traceback,
        ));
    }
    let summary = exception.summary();
    Conclusion {
        fate: Fate::Dead {
            reason,
            detail: summary.clone(),
            attempt: Some(attempt(run, reason.as_str(), summary)),
        },
        plan,
        verdict: Verdict::Failed(failure.because(reason)),
    }
}

/// A task that will not run, or was cancelled: REVOKED, for it and for what hangs on it.
pub fn revoke(
    run: &Run<'_>,
    terminated: bool,
    expired: bool,
    sender: &mut Sender<'_>,
) -> Conclusion {
    let headers = &run.delivery.message.headers;
    let why = match (expired, terminated) {
        (true, _) => "expired",
        (false, true) => "terminated",
        (false, false) => "revoked",
    };
    let exception =
        ExceptionInfo::new("celery.exceptions", "TaskRevokedError", vec![Value::from(why)]);
    let mut plan = workflow::after_failure(
        headers,
        run.embed,
        &State::Revoked,
        &exception,
        run.recorder,
        sender,
    );
    if !run.ignore_result {
        plan.results.push(run.recorder.of(headers, State::Revoked, exception.to_value(), None));
    }
    done(plan, Verdict::Revoked { terminated, expired })
}

fn attempt(run: &Run<'_>, outcome: &str, detail: String) -> Attempt {
    Attempt {
        retries: run.delivery.message.headers.retries(),
        worker: run.recorder.worker.to_owned(),
        started_at: run.recorder.started_at,
        ended_at: run.recorder.now,
        outcome: outcome.to_owned(),
        detail,
    }
}

/// Whether a message came too late at `now` (5.16): its `expires` has passed.
pub fn is_expired(expires: Option<Timestamp>, now: Timestamp) -> bool {
    expires.is_some_and(|expires| expires < now)
}

#[cfg(test)]
mod tests;
