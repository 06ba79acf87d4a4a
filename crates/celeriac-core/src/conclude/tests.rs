//! The table of outcomes: fate, results, messages, verdict.

use super::*;
use crate::QueueName;
use crate::dead::Keep;
use crate::lease::{Lease, Suspicion};
use crate::limits::HISTORY_MAX;
use crate::pattern::ExceptionNames;
use crate::retry::Delay;
use crate::route::Router;
use celeriac_wire::{Body, Headers, Map, Message, Signature};
use std::time::Duration;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn delivery(retries: u32) -> Delivery {
    let mut message =
        Message::new("app.add", "a", Body::new(vec![Value::from(1)], Map::new()).to_bytes());
    message
        .headers
        .set_root_id("root")
        .set_parent_id(Some("parent"))
        .set_retries(retries)
        .insert("x-unknown", "kept");
    message.properties.set_priority(3);
    Delivery {
        lease: Lease { row: 1, token: 2 },
        queue: QueueName::parse("reports").unwrap(),
        message,
        enqueued_at: "2026-11-21T11:00:00Z".parse().unwrap(),
        redelivered: false,
        suspicion: Suspicion::default(),
        history: Vec::new(),
        revoked: false,
        acknowledged: false,
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy { max_retries: Some(3), delay: Delay::Fixed(Duration::from_mins(1)) }
}

fn error() -> ExceptionInfo {
    ExceptionInfo::new("builtins", "ValueError", vec![Value::from("no rows")])
}

fn failed() -> Failure {
    Failure { traceback: Some("line 1".to_owned()), ..Failure::new(error()) }
}

fn concluded(
    delivery: &Delivery,
    embed: &Embed,
    ignore_result: bool,
    outcome: Outcome,
) -> Conclusion {
    let (retry_for, dead_letters) = (RetryFor::default(), DeadLetters::default());
    concluded_by(delivery, embed, ignore_result, (&retry_for, &dead_letters), outcome)
}

fn concluded_by(
    delivery: &Delivery,
    embed: &Embed,
    ignore_result: bool,
    (retry_for, dead_letters): (&RetryFor, &DeadLetters),
    outcome: Outcome,
) -> Conclusion {
    let recorder = Recorder {
        worker: "celery@a",
        queue: delivery.queue.as_str(),
        enqueued_at: Some(delivery.enqueued_at),
        started_at: Some("2026-11-21T11:59:00Z".parse().unwrap()),
        now: now(),
        children: Vec::new(),
        arguments: None,
    };
    let retry = policy();
    let run = Run {
        delivery,
        embed,
        retry: &retry,
        retry_for,
        dead_letters,
        acks: Acks::default(),
        ignore_result,
        recorder: &recorder,
        random: 0,
    };
    let router = Router::new(QueueName::celery());
    let mut ids = 0;
    let mut new_id = || {
        ids += 1;
        format!("id{ids}")
    };
    let mut sender = Sender { router: &router, new_id: &mut new_id, now: now(), origin: "gen1@vm" };
    conclude(&run, outcome, &mut sender)
}

/// Fate, stored states, messages sent, and verdict, each in a word.
fn words(conclusion: &Conclusion) -> [String; 4] {
    let fate = match &conclusion.fate {
        Fate::Done => "done".to_owned(),
        Fate::Release { place, attempt } => {
            format!("{place:?} {}", attempt.as_ref().map_or("-", |one| one.outcome.as_str()))
        }
        Fate::Lost { attempt, .. } => format!("lost {}", attempt.outcome),
        Fate::Dead { reason, .. } => format!("dead {reason}"),
    };
    let states: Vec<_> = conclusion
        .plan
        .results
        .iter()
        .map(|record| record.meta.state().as_str().to_owned())
        .collect();
    let verdict = match &conclusion.verdict {
        Verdict::Succeeded(_) => "succeeded",
        Verdict::Failed(_) => "failed",
        Verdict::Retried { .. } => "retried",
        Verdict::Snoozed { .. } => "snoozed",
        Verdict::Revoked { terminated: true, expired: false } => "terminated",
        Verdict::Revoked { .. } => "revoked",
        Verdict::Rejected { requeue: true } => "rejected back",
        Verdict::Rejected { requeue: false } => "rejected",
        Verdict::Ignored => "ignored",
        Verdict::Returned => "returned",
        Verdict::ChildLost(_) => "child lost",
    };
    [fate, states.join(" "), conclusion.plan.publish.len().to_string(), verdict.to_owned()]
}

#[test]
fn every_outcome_with_and_without_retries_and_results() {
    let reject = |requeue| Outcome::Reject { requeue, reason: "no".to_owned() };
    let asked = |delay| Outcome::Retry { delay, failure: failed() };
    let permanent = || Failure { permanent: true, ..failed() };
    let unblamed = || Outcome::Returned { reason: "its child stood still".to_owned(), begun: true };
    let stubborn = || Outcome::Retry { delay: None, failure: permanent() };
    let snooze = || Outcome::Snooze { delay: Duration::from_mins(1) };
    let (left, none) = (0, 3);
    for (outcome, retries, [fate, state, sent, verdict]) in [
        (Outcome::Success(Value::from(7)), left, ["done", "SUCCESS", "0", "succeeded"]),
        (Outcome::Success(Value::from(7)), none, ["done", "SUCCESS", "0", "succeeded"]),
        (Outcome::Failure(failed()), left, ["done", "RETRY", "1", "retried"]),
        (Outcome::Failure(failed()), none, ["dead failed", "FAILURE", "0", "failed"]),
        (Outcome::Failure(permanent()), left, ["dead failed", "FAILURE", "0", "failed"]),
        (asked(None), left, ["done", "RETRY", "1", "retried"]),
        (asked(Some(Duration::ZERO)), 2, ["done", "RETRY", "1", "retried"]),
        (asked(None), none, ["dead failed", "FAILURE", "0", "failed"]),
        (asked(Some(Duration::ZERO)), none, ["dead failed", "FAILURE", "0", "failed"]),
        (stubborn(), left, ["dead failed", "FAILURE", "0", "failed"]),
        (reject(true), left, ["Tail rejected", "", "0", "rejected back"]),
        (reject(true), none, ["Tail rejected", "", "0", "rejected back"]),
        (reject(false), left, ["dead rejected", "FAILURE", "0", "rejected"]),
        (snooze(), left, ["done", "", "1", "snoozed"]),
        (snooze(), none, ["done", "", "1", "snoozed"]),
        (Outcome::Ignore, left, ["done", "", "0", "ignored"]),
        (Outcome::Cancelled, left, ["done", "REVOKED", "0", "terminated"]),
        (Outcome::Interrupted, left, ["Head interrupted", "", "0", "returned"]),
        (Outcome::Interrupted, none, ["Head interrupted", "", "0", "returned"]),
        (unblamed(), none, ["Head interrupted", "", "0", "returned"]),
        (Outcome::ChildLost(death()), left, ["lost child-lost", "", "0", "child lost"]),
        (Outcome::ChildLost(death()), none, ["lost child-lost", "", "0", "child lost"]),
    ] {
        for ignore_result in [false, true] {
            let what = format!("{outcome:?} at {retries}, ignore {ignore_result}");
            let conclusion =
                concluded(&delivery(retries), &Embed::new(), ignore_result, outcome.clone());
            let state = if ignore_result { "" } else { state };
            assert_eq!(words(&conclusion), [fate, state, sent, verdict], "{what}");
        }
    }
}

fn names(names: &[&str]) -> ExceptionNames {
    let mut found = ExceptionNames::default();
    for name in names {
        found.add(name).unwrap();
    }
    found
}

#[test]
fn a_policy_says_which_failures_are_retried_and_which_are_kept() {
    let all = RetryFor::default;
    let dead = |keep, except: &[&str]| DeadLetters { keep, except: names(except) };
    let always = || dead(Keep::Always, &[]);
    let only = |only: &[&str]| RetryFor { only: names(only), ..all() };
    let but = |except: &[&str]| RetryFor { except: names(except), ..all() };
    for (retries, retry_for, dead_letters, fate, verdict) in [
        (0, only(&["ValueError"]), always(), "done", "retried"),
        (0, only(&["KeyError"]), always(), "dead failed", "failed"),
        (0, but(&["Value*"]), always(), "dead failed", "failed"),
        (0, but(&["Value*"]), dead(Keep::Never, &[]), "done", "failed"),
        (3, all(), dead(Keep::Never, &[]), "done", "failed"),
        (3, all(), dead(Keep::Always, &["ValueError"]), "done", "failed"),
        (3, all(), dead(Keep::Always, &["KeyError"]), "dead failed", "failed"),
        (3, all(), dead(Keep::WhenRetriesEnd(Some(3)), &[]), "dead failed", "failed"),
        (2, but(&["*"]), dead(Keep::WhenRetriesEnd(Some(3)), &[]), "done", "failed"),
        (9, but(&["*"]), dead(Keep::WhenRetriesEnd(None), &[]), "done", "failed"),
    ] {
        let what = format!("{retries} {retry_for:?} {dead_letters:?}");
        let (message, outcome) = (delivery(retries), Outcome::Failure(failed()));
        let by = (&retry_for, &dead_letters);
        let conclusion = concluded_by(&message, &Embed::new(), false, by, outcome);
        let [found, states, _, found_verdict] = words(&conclusion);
        assert_eq!((found.as_str(), found_verdict.as_str()), (fate, verdict), "{what}");
        assert_eq!(states, if verdict == "retried" { "RETRY" } else { "FAILURE" }, "{what}");
    }
    // What is lost or rejected is known to nobody else.
    let never = (&all(), &dead(Keep::Never, &["*"]));
    let rejected = Outcome::Reject { requeue: false, reason: "no".to_owned() };
    for (outcome, fate) in
        [(rejected, "dead rejected"), (Outcome::ChildLost(death()), "lost child-lost")]
    {
        let conclusion = concluded_by(&delivery(0), &Embed::new(), false, never, outcome);
        assert_eq!(words(&conclusion)[0], fate);
    }
}

#[test]
fn what_an_exception_is_derived_from_counts_for_a_traced_run() {
    let traced = || {
        Outcome::Traced(Box::new(Traced {
            state: TracedState::Failed(failed()),
            disposition: Disposition::Ack,
            result: None,
            events: None,
            bases: vec![("app.errors".to_owned(), "Expected".to_owned())],
            look_again: None,
        }))
    };
    for (except, fate) in [("app.*", "done"), ("ValueError", "done"), ("Expected", "dead failed")] {
        let letters = DeadLetters { except: names(&[except]), ..DeadLetters::default() };
        let by = (&RetryFor::default(), &letters);
        let conclusion = concluded_by(&delivery(0), &Embed::new(), false, by, traced());
        assert_eq!(words(&conclusion)[0], fate, "{except}");
    }
}

fn death() -> ChildDeath {
    ChildDeath {
        signal: Some(11),
        exit_code: None,
        memory_peak: Some(12_582_912),
        stderr_tail: "é".repeat(30_000) + "last words",
        reason: "killed by signal 11 (SIGSEGV)".to_owned(),
    }
}

#[test]
fn the_third_death_of_its_child_makes_a_message_poison() {
    // covers: S2-26
    let before = |seen, counted| Suspicion { seen, counted };
    for (suspicion, after) in [
        (before(0, 0), Some(before(2, 1))),
        (before(1, 0), Some(before(2, 1))),
        (before(2, 1), Some(before(2, 2))),
        (before(4, 1), Some(before(4, 2))),
        (before(2, 2), None),
        (before(4, 2), None),
    ] {
        let mut message = delivery(0);
        message.suspicion = suspicion;
        let conclusion = concluded(&message, &Embed::new(), false, Outcome::ChildLost(death()));
        match (&conclusion.fate, after) {
            (Fate::Lost { suspicion, attempt }, Some(after)) => {
                assert_eq!(*suspicion, after);
                assert!(
                    attempt.detail.contains("SIGSEGV") && attempt.detail.contains("last words")
                );
            }
            (Fate::Dead { reason: DeadReason::Poison, detail, attempt: Some(last) }, None) => {
                assert!(
                    detail.contains("WorkerLostError") && detail.contains("SIGSEGV"),
                    "{detail}"
                );
                assert!(detail.contains("12.0 MiB") && detail.contains("death 3"), "{detail}");
                assert!(last.detail.len() <= crate::limits::DETAIL_BYTES_MAX);
                let meta = &conclusion.plan.results[0].meta;
                assert_eq!(meta.state(), State::Failure);
                assert_eq!(meta.traceback(), Some(death().stderr_tail.as_str()));
            }
            (fate, _) => panic!("{suspicion:?}: {fate:?}"),
        }
    }
}

#[test]
fn a_retry_is_the_same_message_again() {
    let mut old = delivery(1);
    let mut embed = Embed::new();
    embed.set_chain(vec![Signature::new("app.next")]);
    embed.insert("x-unknown", Value::Null);
    let body = Body { embed: embed.clone(), ..Body::new(vec![Value::from(1)], Map::new()) };
    old.message.body = body.to_bytes().into();
    old.message.content_encoding = "x-odd".to_owned();
    let delay = Some(Duration::from_secs(5));
    let outcome = Outcome::Retry { delay, failure: failed() };
    let conclusion = concluded(&old, &embed, false, outcome);
    let at = clock::after(now(), Duration::from_secs(5));
    assert_eq!(conclusion.verdict, Verdict::Retried { at, failure: failed() });
    let sent = &conclusion.plan.publish[0];
    let mut expected = old.message.clone();
    expected.headers.set_retries(2).set_eta(Some(at));
    assert_eq!(sent.message, expected, "id, root, parent, embed, unknown fields and bytes");
    assert_eq!(sent.message.headers.parent_id(), Some("parent"));
    assert_eq!((&sent.queue, sent.enqueued_at), (&old.queue, Some(old.enqueued_at)));
    let record = &conclusion.plan.results[0];
    assert_eq!((record.retries, record.meta.task_id()), (2, Some("a")));
    assert_eq!(record.meta.exception().unwrap(), Some(error()));
    assert_eq!(record.meta.traceback(), Some("line 1"));
}

#[test]
fn without_a_delay_of_its_own_the_policy_decides() {
    for outcome in [Outcome::Failure(failed()), Outcome::Retry { delay: None, failure: failed() }] {
        let conclusion = concluded(&delivery(0), &Embed::new(), false, outcome);
        let eta = conclusion.plan.publish[0].message.headers.eta().unwrap();
        assert_eq!(eta, Some(clock::after(now(), Duration::from_mins(1))));
    }
}

#[test]
fn the_history_of_a_retry_grows_and_is_bounded() {
    let mut message = delivery(0);
    for retries in 0..40 {
        let outcome = Outcome::Retry { delay: Some(Duration::ZERO), failure: failed() };
        let mut now_at = message.clone();
        now_at.message.headers.set_retries(retries % 3);
        let conclusion = concluded(&now_at, &Embed::new(), false, outcome);
        let sent = &conclusion.plan.publish[0];
        let expected = (retries as usize + 1).min(HISTORY_MAX);
        assert_eq!(sent.history.len(), expected);
        message.history = sent.history.clone();
    }
    let last = message.history.last().unwrap();
    assert_eq!((last.worker.as_str(), last.outcome.as_str()), ("celery@a", "retry"));
    assert!(last.detail.contains("no rows") && last.started_at.is_some());
    assert_eq!(last.ended_at, now());
}

#[test]
fn a_dead_letter_says_why_in_one_line_and_in_its_history() {
    let mut old = delivery(3);
    old.history = vec![Attempt {
        retries: 2,
        worker: "celery@b".to_owned(),
        started_at: None,
        ended_at: now(),
        outcome: "retry".to_owned(),
        detail: "before".to_owned(),
    }];
    let conclusion = concluded(&old, &Embed::new(), false, Outcome::Failure(failed()));
    let Fate::Dead { reason, detail, attempt: Some(last) } = &conclusion.fate else {
        panic!("{conclusion:?}")
    };
    assert_eq!((*reason, detail.as_str()), (DeadReason::Failed, error().summary().as_str()));
    assert_eq!((last.retries, last.outcome.as_str()), (3, "failed"));
    assert_eq!(last.detail, error().summary());
    let record = &conclusion.plan.results[0];
    assert_eq!(record.meta.traceback(), Some("line 1"));
    assert_eq!(record.meta.parent_id(), Some("parent"));
    assert_eq!(record.meta.date_done().unwrap(), Some(now()));
    assert_eq!(record.queue.as_deref(), Some("reports"));
    assert_eq!((record.enqueued_at, record.retries), (Some(old.enqueued_at), 3));
}

/// A chord member and first step of a chain, with callbacks and errbacks.
fn busy() -> (Delivery, Embed) {
    let mut embed = Embed::new();
    embed
        .set_callbacks(vec![Signature::new("app.done")])
        .set_errbacks(vec![Signature::new("app.err")])
        .set_chain(vec![Signature::new("app.next").with_option("task_id", "next")])
        .set_chord(Some(Signature::new("app.sum").with_option("task_id", "body")));
    let mut busy = delivery(0);
    busy.message.headers.set_group(Some("g")).set_group_index(Some(1));
    (busy, embed)
}

#[test]
fn what_hangs_on_a_task_follows_its_end_and_only_its_end() {
    let (busy, embed) = busy();
    let names = |conclusion: &Conclusion| -> String {
        let tasks = conclusion.plan.publish.iter().map(|one| one.message.headers.task().unwrap());
        tasks.collect::<Vec<_>>().join(" ")
    };
    let permanent = || Failure { permanent: true, ..failed() };
    let reject = |requeue| Outcome::Reject { requeue, reason: "no".to_owned() };
    for (outcome, sent, parts, results) in [
        (Outcome::Success(Value::from(7)), "app.done app.next", 1, 1),
        (Outcome::Failure(permanent()), "app.err", 1, 2),
        (reject(false), "app.err", 1, 2),
        (Outcome::Cancelled, "", 1, 2),
        (Outcome::Failure(failed()), "app.add", 0, 1),
        (Outcome::Ignore, "", 0, 0),
        (reject(true), "", 0, 0),
        (Outcome::Interrupted, "", 0, 0),
    ] {
        let what = format!("{outcome:?}");
        let conclusion = concluded(&busy, &embed, false, outcome);
        assert_eq!(names(&conclusion), sent, "{what}");
        let plan = &conclusion.plan;
        assert_eq!((plan.parts.len(), plan.results.len()), (parts, results), "{what}");
    }
}

#[test]
fn a_next_step_that_cannot_be_sent_fails_the_task() {
    let mut embed = Embed::new();
    embed.set_callbacks(vec![Signature::new("app.done")]);
    embed.set_chain(vec![Signature::new("app.next").with_option("eta", "soon")]);
    let conclusion = concluded(&delivery(0), &embed, false, Outcome::Success(Value::from(7)));
    assert_eq!(words(&conclusion), ["dead failed", "FAILURE", "0", "failed"]);
    let text = conclusion.plan.results[0].meta.exception().unwrap().unwrap().summary();
    assert!(text.contains("options.eta"), "{text}");
}

#[test]
fn a_message_without_an_id_can_be_set_aside() {
    let mut nameless = delivery(3);
    nameless.message.headers = Headers::parse(b"{}").unwrap();
    let failure = Failure { permanent: true, ..failed() };
    let conclusion = concluded(&nameless, &Embed::new(), false, Outcome::Failure(failure));
    assert_eq!(words(&conclusion), ["dead failed", "", "0", "failed"]);
}

#[test]
fn a_message_is_expired_after_its_time_and_not_at_it() {
    for (expires, expired) in [
        (None, false),
        (Some("2026-11-21T11:59:59.999999Z"), true),
        (Some("2026-11-21T12:00:00Z"), false),
        (Some("2026-11-21T12:00:01Z"), false),
    ] {
        let expires = expires.map(|text| text.parse().unwrap());
        assert_eq!(is_expired(expires, now()), expired, "{expires:?}");
    }
}
