//! The nine promises, each a function over the [`Evidence`] of one run.
//!
//! A checker says `Fail` with what it saw, `Inconclusive` when the run never put the promise to the
//! test (no fault hit running work, nothing was fenced …), and `Pass` otherwise. That each can fail
//! is shown by `tests/simulation/sabotage.rs`, on builds that are broken on purpose.

use crate::evidence::{Evidence, Expected, Standing};
use crate::ledger::{Line, What};
use celeriac_core::dead::DeadReason;
use celeriac_core::store::Phase;
use celeriac_wire::State;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

/// What a checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise was put to the test and held.
    Pass,
    /// It was broken; what was seen, one line for each case.
    Fail(Vec<String>),
    /// The run did not put it to the test, and why.
    Inconclusive(&'static str),
}

impl Verdict {
    fn of(faults: Vec<String>, exercised: bool, why_not: &'static str) -> Self {
        if !faults.is_empty() {
            Self::Fail(faults)
        } else if exercised {
            Self::Pass
        } else {
            Self::Inconclusive(why_not)
        }
    }
}

/// A promise and its checker.
#[derive(Clone, Copy)]
pub struct Invariant {
    /// Its short name, `I1` to `I9`.
    pub name: &'static str,
    /// The word for the table.
    pub word: &'static str,
    /// What it promises.
    pub promise: &'static str,
    check: fn(&Evidence) -> Verdict,
}

impl fmt::Debug for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.promise)
    }
}

impl Invariant {
    /// Checks it.
    pub fn check(&self, evidence: &Evidence) -> Verdict {
        (self.check)(evidence)
    }
}

/// All of them.
pub const ALL: [Invariant; 9] = [
    Invariant {
        name: "I1",
        word: "lost",
        promise: "no confirmed task is lost",
        check: nothing_lost,
    },
    Invariant {
        name: "I2",
        word: "doubled",
        promise: "a task runs again only for a fault, and is told so",
        check: no_unexplained_runs,
    },
    Invariant {
        name: "I3",
        word: "late",
        promise: "a lost worker's leases are taken within the bound",
        check: recovery_in_time,
    },
    Invariant {
        name: "I4",
        word: "fenced",
        promise: "nothing of a fenced owner is accepted",
        check: fenced_owners_are_refused,
    },
    Invariant {
        name: "I5",
        word: "stuck",
        promise: "every task ends, and nothing is held by nobody",
        check: everything_ends,
    },
    Invariant {
        name: "I6",
        word: "result",
        promise: "a result is that of the one run that was accepted",
        check: results_are_of_the_accepted_run,
    },
    Invariant {
        name: "I7",
        word: "counts",
        promise: "counters equal the ledger",
        check: counters_are_right,
    },
    Invariant {
        name: "I8",
        word: "held",
        promise: "what is held is bounded",
        check: nothing_leaks,
    },
    Invariant {
        name: "I9",
        word: "order",
        promise: "steps and lines keep their order",
        check: order_is_kept,
    },
];

/// The verdicts of all invariants, in their order.
#[derive(Clone, Debug)]
pub struct Judgement(pub Vec<(Invariant, Verdict)>);

/// Checks everything.
pub fn judge(evidence: &Evidence) -> Judgement {
    Judgement(ALL.iter().map(|one| (*one, one.check(evidence))).collect())
}

impl Judgement {
    /// The verdict of an invariant by its name.
    ///
    /// # Panics
    /// If there is no such invariant.
    pub fn of(&self, name: &str) -> &Verdict {
        let found = self.0.iter().find(|(invariant, _)| invariant.name == name);
        &found.unwrap_or_else(|| panic!("no invariant {name}")).1
    }

    /// The names of those that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self.0.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Fail(_)));
        failed.map(|(invariant, _)| invariant.name).collect()
    }

    /// A table for people: one row for each promise.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for (Invariant { name, word, promise, .. }, verdict) in &self.0 {
            let (count, says) = match verdict {
                Verdict::Pass => ("0".to_owned(), "pass".to_owned()),
                Verdict::Fail(cases) => (cases.len().to_string(), "FAIL".to_owned()),
                Verdict::Inconclusive(why) => ("-".to_owned(), format!("inconclusive: {why}")),
            };
            let row = format!("{name}  {word:<8} {count:>3}  {promise}: {says}\n");
            table.push_str(&row);
            if let Verdict::Fail(cases) = verdict {
                for case in cases {
                    // Writing to a String cannot fail.
                    let _infallible = writeln!(table, "      {case}");
                }
            }
        }
        table
    }
}

fn is_poison(evidence: &Evidence, id: &str) -> bool {
    evidence.view.dead_reason(id) == Some(DeadReason::Poison)
}

/// Whether a final state is one of the expected: a poison message, and what comes after one, may
/// fail instead.
fn is_right(evidence: &Evidence, id: &str, expected: &Expected, state: &State) -> bool {
    let mut before: Vec<&str> = vec![id];
    let mut poisoned = false;
    while let Some(id) = before.pop() {
        poisoned |= is_poison(evidence, id);
        let after = evidence.expected.get(id).map(|one| one.after.as_slice()).unwrap_or_default();
        before.extend(after.iter().map(String::as_str));
    }
    expected.states.contains(state) || (poisoned && *state == State::Failure)
}

/// The runs of each task that reached their end well.
fn good_ends(evidence: &Evidence) -> BTreeMap<&str, Vec<&Line>> {
    let mut ends: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in evidence.lines(&What::Ended) {
        if line.get("outcome").is_none_or(|outcome| outcome == "ok") {
            ends.entry(&line.id).or_default().push(line);
        }
    }
    ends
}

fn has_ended(evidence: &Evidence, id: &str) -> bool {
    let over = |one: &Standing| matches!(one.phase, Phase::Done | Phase::Dead { .. });
    let quiet = evidence.expected.get(id).is_some_and(|expected| !expected.result);
    evidence.view.tasks.get(id).is_some_and(over) || (quiet && good_ends(evidence).contains_key(id))
}

/// I1: what was confirmed is in the store in some form, and what is called done did run.
fn nothing_lost(evidence: &Evidence) -> Verdict {
    let confirmed = evidence.confirmed();
    let ends = good_ends(evidence);
    let ran = |id: &str| ends.contains_key(id);
    let settled: BTreeSet<&str> = evidence
        .lines(&What::Settled)
        .filter(|line| line.says("accepted") && line.get("fate") == Some("done"))
        .map(|line| line.id.as_str())
        .collect();
    let mut lost = Vec::new();
    for id in &confirmed {
        let Some(expected) = evidence.expected.get(*id) else { continue };
        let standing = evidence.view.tasks.get(*id);
        // A task without a result may also end without a run: revoked or expired.
        let done = !expected.result && (ran(id) || settled.contains(id));
        let gone = standing.is_none_or(|one| one.phase == Phase::Unknown && one.state.is_none());
        // A later step is inside the messages of those before it until they have ended.
        let carried = expected.after.iter().any(|before| !has_ended(evidence, before));
        if gone && !carried && !done {
            lost.push(format!("{id} was confirmed and is nowhere"));
        }
        if standing.is_some_and(|one| one.state == Some(State::Success)) && !ran(id) {
            lost.push(format!("{id} is called a success and never ran to its end"));
        }
    }
    let touched = evidence.touched().into_iter().any(|(_, faults)| faults > 0);
    Verdict::of(lost, touched && !confirmed.is_empty(), "no fault touched a task")
}

/// I2: executions <= those without faults + the faults that could touch the task, and all but the
/// first of one message say that they are redelivered.
fn no_unexplained_runs(evidence: &Evidence) -> Verdict {
    let touched = evidence.touched();
    let mut starts: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in evidence.lines(&What::Started) {
        starts.entry(&line.id).or_default().push(line);
    }
    let (mut doubled, mut again) = (Vec::new(), false);
    for (id, starts) in starts {
        let Some(expected) = evidence.expected.get(id) else { continue };
        let faults = touched.get(id).copied().unwrap_or(0);
        if starts.len() as u32 > expected.runs + faults {
            let (count, runs) = (starts.len(), expected.runs);
            doubled
                .push(format!("{id} ran {count} times, {runs} and {faults} faults explain less"));
        }
        // A frozen worker may begin the first run after others have ended theirs: one run of a
        // message was told of no other, whichever began first.
        let (mut attempts, mut untold) = (BTreeSet::new(), BTreeSet::new());
        for line in starts {
            again |= !attempts.insert(line.attempt);
            let told = line.get("redelivered").is_none() || line.says("redelivered");
            if !told && !untold.insert(line.attempt) {
                let (who, micros) = (&line.who, line.micros);
                doubled.push(format!("{id} ran again on {who} at {micros} and was not told"));
            }
        }
    }
    Verdict::of(doubled, again, "no task ran twice")
}

/// I3: whoever is lost while it holds something is swept, or its tasks begin elsewhere, in time.
/// Judged only where some other worker was there and healthy for the whole time.
fn recovery_in_time(evidence: &Evidence) -> Verdict {
    let faults = evidence.faults();
    let bound = evidence.recovery_max.as_micros() as i64;
    let ending = evidence.ledger.last().map_or(0, |line| line.micros);
    let holds = evidence.holds();
    let (mut late, mut judged) = (Vec::new(), false);
    for lost in faults.iter().filter(|fault| fault.kind == "kill") {
        let limit = lost.from + bound;
        // The guard of a sweeper must have seen the store for one lease before.
        if limit > ending || !healthy_sweeper(evidence, lost.from - bound, limit, &lost.who) {
            continue;
        }
        for (id, holds) in &holds {
            let held = |hold: &&crate::evidence::Hold| {
                hold.who == lost.who && hold.from <= lost.from && hold.until > lost.from
            };
            if !holds.iter().any(|hold| held(&hold)) {
                continue;
            }
            judged = true;
            let back = evidence.ledger.iter().any(|line| {
                let later = line.micros >= lost.from && line.micros <= limit;
                let swept = line.what == What::Swept && line.who == lost.who;
                let elsewhere = matches!(line.what, What::Leased | What::Started)
                    && line.id == *id
                    && line.who != lost.who;
                later && (swept || elsewhere)
            });
            if !back {
                let (who, at) = (&lost.who, lost.from);
                late.push(format!("{id} was with {who}, killed at {at}, and not back in {bound}"));
            }
        }
    }
    Verdict::of(late, judged, "no kill hit a task while another worker was healthy")
}

/// Whether one worker was registered before and untouched until the end of a span.
fn healthy_sweeper(evidence: &Evidence, from: i64, until: i64, except: &str) -> bool {
    let faults = evidence.faults();
    evidence.lines(&What::Registered).any(|line| {
        let hurt = |fault: &crate::evidence::Fault| {
            // Whoever was killed stays dead.
            let lasts = fault.until >= from || fault.kind == "kill";
            fault.blinds() && fault.hits(&line.who) && fault.from <= until && lasts
        };
        let left = evidence.ledger.iter().any(|other| {
            let away = matches!(other.what, What::SignedOff | What::Report);
            away && other.who == line.who && other.micros <= until
        });
        line.who != except && line.micros <= from && !left && !faults.iter().any(hurt)
    })
}

/// Runs that reached their end after somebody else had been given the task: their worker did not
/// stop them when its lease was over. A frozen worker cannot.
fn runs_beyond_their_lease(evidence: &Evidence) -> Vec<String> {
    let frozen: BTreeSet<String> = evidence
        .faults()
        .into_iter()
        .filter(|fault| fault.kind == "freeze")
        .map(|fault| fault.who)
        .collect();
    let mut latest: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    let mut late = Vec::new();
    for line in &evidence.ledger {
        if line.what == What::Leased {
            latest.insert(&line.id, line.get("token"));
        }
        let owner = latest.get(line.id.as_str());
        let taken = owner.is_some_and(|token| *token != line.get("token"));
        if line.what == What::Ended && taken && !frozen.contains(&line.who) {
            late.push(format!("{line} ended after somebody else had it"));
        }
    }
    late
}

/// I4: a settlement or state is accepted only from the latest owner of a row, and only until its
/// worker signed off or was swept; a worker past its lease stops what it runs.
fn fenced_owners_are_refused(evidence: &Evidence) -> Verdict {
    let mut owners: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let mut nodes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    let (mut accepted, mut refused) = (Vec::new(), false);
    for line in &evidence.ledger {
        let (row, token) = (line.get("row"), line.get("token"));
        match line.what {
            What::Registered => {
                let node = line.get("node").unwrap_or_default();
                nodes.entry(&line.who).or_default().insert(node);
            }
            What::SignedOff => drop(gone.insert(line.get("node").unwrap_or_default())),
            // A worker that registered twice may have lost only its first identity.
            What::Swept => {
                if let Some(node) = nodes.get(line.who.as_str()).filter(|nodes| nodes.len() == 1) {
                    gone.extend(node);
                }
            }
            What::Leased => {
                let node = line.get("node").unwrap_or_default();
                owners.insert(row.unwrap_or_default(), (token.unwrap_or_default(), node));
            }
            What::Settled | What::State if !line.says("accepted") => refused = true,
            What::Settled | What::State => {
                let owner = owners.get(row.unwrap_or_default());
                let stands = owner
                    .is_some_and(|(latest, node)| Some(*latest) == token && !gone.contains(node));
                if !stands {
                    accepted.push(format!("{line} was accepted, the owner is {owner:?}"));
                }
                if line.what == What::Settled {
                    owners.remove(row.unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    accepted.extend(runs_beyond_their_lease(evidence));
    Verdict::of(accepted, refused, "no owner was fenced")
}

/// I5: every task that is known to the store ends in an expected state, and the queues are empty.
fn everything_ends(evidence: &Evidence) -> Verdict {
    let mut stuck = Vec::new();
    for queue in &evidence.view.queues {
        let left = (queue.ready, queue.scheduled, queue.leased);
        if left != (0, 0, 0) {
            let name = &queue.name;
            stuck.push(format!("queue {name} has {left:?} ready, scheduled, leased"));
        }
    }
    let confirmed: BTreeSet<&str> = evidence.confirmed().into_iter().collect();
    for (id, expected) in &evidence.expected {
        let Some(Standing { phase, state, .. }) = evidence.view.tasks.get(id) else { continue };
        let never_sent = *phase == Phase::Unknown && state.is_none();
        if never_sent && (!confirmed.contains(id.as_str()) || !expected.result) {
            continue;
        }
        let ended = matches!(phase, Phase::Done | Phase::Dead { .. });
        let right = match state {
            Some(state) => is_right(evidence, id, expected, state),
            None => !expected.result,
        };
        if !ended || !right {
            let wanted = &expected.states;
            stuck.push(format!("{id} is {phase:?} with {state:?}, not one of {wanted:?}"));
        }
    }
    Verdict::of(stuck, !evidence.expected.is_empty(), "nothing was sent")
}

/// I6: where a success stands, exactly one run was accepted, and the value is what it returned.
fn results_are_of_the_accepted_run(evidence: &Evidence) -> Verdict {
    let ends = good_ends(evidence);
    let settles = evidence.lines(&What::Settled).next().is_some();
    let mut accepted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in evidence.lines(&What::Settled).filter(|line| line.says("accepted")) {
        if line.get("success") == Some("yes") {
            accepted.entry(&line.id).or_default().push(line.get("token").unwrap_or_default());
        }
    }
    let (mut wrong, mut again) = (Vec::new(), false);
    for (id, expected) in &evidence.expected {
        let Some(standing) = evidence.view.tasks.get(id) else { continue };
        let tokens = accepted.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        if tokens.len() > 1 {
            wrong.push(format!("{id} has {} accepted runs: {tokens:?}", tokens.len()));
        }
        if standing.state != Some(State::Success) || !expected.result {
            continue;
        }
        let ends = ends.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let starts = || evidence.lines(&What::Started).filter(|line| line.id == *id);
        again |= starts().count() > 1;
        let run = if settles {
            tokens.first().and_then(|token| ends.iter().find(|end| end.get("token") == Some(token)))
        } else {
            // Without the store's answers: the last owner is the one that was accepted.
            let last = starts().next_back().map(|line| line.who.as_str());
            ends.iter().rev().find(|end| Some(end.who.as_str()) == last)
        };
        let returned = run.map(|end| end.get("value").unwrap_or(&end.who).to_owned());
        let stored = standing.value.as_ref().map(|value| value.replace(char::is_whitespace, "_"));
        if returned.is_none() || returned != stored {
            wrong.push(format!("{id} has the result {stored:?}, the accepted run {returned:?}"));
        }
    }
    Verdict::of(wrong, again, "no task that succeeded ran twice")
}

/// I7: workers count what the ledger has, the store counts what it shows.
fn counters_are_right(evidence: &Evidence) -> Verdict {
    let (mut wrong, mut exercised) = (Vec::new(), false);
    let faults = evidence.faults();
    for (who, report) in &evidence.reports {
        let ended = |outcome: &str| {
            let lines = evidence.lines(&What::Ended).filter(|line| line.who == *who);
            lines.filter(|line| line.get("outcome") == Some(outcome)).count() as u64
        };
        let ok = ended("ok");
        // A run whose lease was lost between its end and its settlement is not counted.
        let healthy = !faults.iter().any(|fault| fault.hits(who));
        exercised |= healthy && ok > 0;
        if report.succeeded > ok || (healthy && report.succeeded != ok) {
            wrong.push(format!("{who} reports {} successes, {ok} ended well", report.succeeded));
        }
        if report.succeeded + report.failed > report.processed {
            wrong.push(format!("{who} reports more ends than tasks: {report:?}"));
        }
    }
    let view = &evidence.view;
    wrong.extend(view.findings.iter().cloned());
    let shown =
        |word: &str| view.tasks.values().filter(|one| one.phase.as_str() == word).count() as u64;
    let (dead, counted) = (shown("dead"), view.dead);
    if dead != counted {
        wrong.push(format!("the store counts {counted} dead letters and shows {dead}"));
    }
    let by_queue: u64 = view.queues.iter().map(|queue| queue.dead).sum();
    if by_queue != counted {
        wrong.push(format!("the queues count {by_queue} dead letters, the store {counted}"));
    }
    let waiting: u64 = view.queues.iter().map(|q| q.ready + q.scheduled + q.leased).sum();
    let words = ["queued", "scheduled", "retry", "reserved", "running"];
    let known: u64 = words.iter().map(|word| shown(word)).sum();
    if waiting < known {
        wrong.push(format!("{known} tasks wait or run, the queues count {waiting}"));
    }
    Verdict::of(wrong, exercised, "no untouched worker reported")
}

/// I8: buffers, rows, descriptors and memory stay within their bounds.
fn nothing_leaks(evidence: &Evidence) -> Verdict {
    let over = evidence.held.iter().filter(|held| held.count > held.max);
    let over = over.map(|held| format!("{} {}, at most {}", held.count, held.what, held.max));
    Verdict::of(over.collect(), !evidence.held.is_empty(), "nothing was counted")
}

/// I9: a step begins after the one before succeeded; a line on one slot begins as it was sent.
fn order_is_kept(evidence: &Evidence) -> Verdict {
    let mut first_start: BTreeMap<&str, usize> = BTreeMap::new();
    let mut first_end: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, line) in evidence.ledger.iter().enumerate() {
        match line.what {
            What::Started => drop(first_start.entry(&line.id).or_insert(at)),
            What::Ended if line.get("outcome").is_none_or(|outcome| outcome == "ok") => {
                first_end.entry(&line.id).or_insert(at);
            }
            _ => {}
        }
    }
    let (mut wrong, mut exercised) = (Vec::new(), false);
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, expected) in &evidence.expected {
        let Some(start) = first_start.get(id.as_str()) else { continue };
        for before in &expected.after {
            exercised = true;
            if first_end.get(before.as_str()).is_none_or(|end| end > start) {
                wrong.push(format!("{id} began before {before} had succeeded"));
            }
        }
    }
    for id in evidence.confirmed() {
        if let Some(line) = evidence.expected.get(id).and_then(|one| one.line.as_deref()) {
            lines.entry(line).or_default().push(id);
        }
    }
    let touched = evidence.touched();
    for (line, sent) in lines {
        // A fault lets those behind begin before the one that comes back.
        if sent.iter().any(|id| touched.get(id).is_some_and(|faults| *faults > 0)) {
            continue;
        }
        exercised |= sent.len() > 1;
        let mut began = sent.clone();
        began.sort_by_key(|id| first_start.get(id).copied().unwrap_or(usize::MAX));
        if began != sent {
            wrong.push(format!("{line} was sent as {sent:?} and began as {began:?}"));
        }
    }
    Verdict::of(wrong, exercised, "nothing had an order")
}
