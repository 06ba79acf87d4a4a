use super::*;
use crate::dead::DeadReason;
use crate::store::ResultRecord;
use crate::throttle::{LimitRule, RuleOrigin};
use celeriac_wire::Message;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn view(phase: Phase) -> TaskView {
    TaskView {
        task_id: "t-1".to_owned(),
        phase,
        task: Some("mail".to_owned()),
        queue: Some("post".to_owned()),
        enqueued_at: Some(at(-60)),
        retries: 2,
        message: Some(Message::new("mail", "t-1", Vec::new())),
        result: None,
        history: Vec::new(),
    }
}

fn waits(position: u64, paused: bool, limited: bool, revoked: bool) -> TaskView {
    view(Phase::Queued { position: Some(position), paused, limited, revoked })
}

fn worker() -> WorkerFacts {
    WorkerFacts {
        name: "w@h".to_owned(),
        queues: vec!["post".to_owned()],
        tasks: vec!["mail".to_owned()],
        is_free: Some(true),
    }
}

fn facts<'a>(view: &'a TaskView, workers: &'a [WorkerFacts]) -> WhyFacts<'a> {
    WhyFacts {
        view,
        now: at(0),
        workers,
        pauses: &[],
        limits: &[],
        said: None,
        revoked: false,
        elsewhere: None,
    }
}

#[track_caller]
fn says(verdict: &Verdict, cause: Cause, sentence: &str, next: &str) {
    assert_eq!(verdict.cause, cause, "{verdict:?}");
    assert!(verdict.sentence.contains(sentence), "{verdict:?}");
    assert!(verdict.next.contains(next), "{verdict:?}");
}

#[test]
fn the_workers_say_why_a_ready_task_waits() {
    let ready = waits(0, false, false, false);
    says(&why(&facts(&ready, &[worker()])), Cause::Waiting, "is next", "pool_grow");
    let behind = waits(7, false, false, false);
    says(&why(&facts(&behind, &[worker()])), Cause::Waiting, "7 are before it", "post");
    let none = why(&facts(&ready, &[]));
    says(&none, Cause::NoConsumer, "No worker consumes the queue post", "worker -Q post");
    let other = WorkerFacts { queues: vec!["other".to_owned()], ..worker() };
    let verdict = why(&facts(&ready, &[other]));
    says(&verdict, Cause::NoConsumer, "post", "-Q post");
    assert!(verdict.evidence[0].contains("consume other"), "{verdict:?}");
    let ignorant = WorkerFacts { tasks: vec!["other".to_owned()], ..worker() };
    says(
        &why(&facts(&ready, std::slice::from_ref(&ignorant))),
        Cause::Unregistered,
        "knows the task mail",
        "imports",
    );
    // One that knows it, or did not say, is enough.
    let silent = WorkerFacts { tasks: Vec::new(), ..worker() };
    assert_eq!(why(&facts(&ready, &[ignorant.clone(), worker()])).cause, Cause::Waiting);
    assert_eq!(why(&facts(&ready, &[silent])).cause, Cause::Waiting);
}

#[test]
fn orders_come_before_workers() {
    let orders = [Pause {
        target: Target::Task("mail".to_owned()),
        since: at(-5),
        reason: "provider is down".to_owned(),
    }];
    let paused = waits(0, true, false, false);
    let mut told = facts(&paused, &[]);
    told.pauses = &orders;
    let verdict = why(&told);
    says(&verdict, Cause::Paused, "paused", "resume --task mail");
    assert!(verdict.evidence[0].contains("provider is down"), "{verdict:?}");
    let rule = LimitRule {
        target: Target::Queue("post".to_owned()),
        per_key: false,
        rates: Vec::new(),
        concurrency: Some(1),
        origin: RuleOrigin::Operator,
    };
    let limits = [LimitView { rule, in_force: true, running: 1, next_at: None }];
    let (limited, workers) = (waits(0, false, true, false), [worker()]);
    let mut told = facts(&limited, &workers);
    told.limits = &limits;
    let verdict = why(&told);
    says(&verdict, Cause::Limited, "limit", "limit list");
    assert!(verdict.evidence[0].contains("queue post: 1 running"), "{verdict:?}");
    // A limit is not what it waits for where nobody works.
    assert_eq!(why(&facts(&limited, &[])).cause, Cause::NoConsumer);
    let revoked = waits(0, true, true, true);
    says(&why(&facts(&revoked, &[])), Cause::Revoked, "throws it away", "again");
    let ready = waits(0, false, false, false);
    let mut remembered = facts(&ready, &workers);
    remembered.revoked = true;
    assert_eq!(why(&remembered).cause, Cause::Revoked);
    let mut expired = waits(0, true, false, false);
    expired.message.as_mut().unwrap().headers.set_expires(Some(at(-1)));
    says(&why(&facts(&expired, &[])), Cause::Expired, "expire", "later");
}

#[test]
fn time_is_told() {
    let later = view(Phase::Scheduled { until: at(90), retry: false });
    says(&why(&facts(&later, &[])), Cause::Eta, "in 90 s", "task retry t-1");
    let retry = view(Phase::Scheduled { until: at(90), retry: true });
    says(&why(&facts(&retry, &[])), Cause::Retry, "retry 2", "task retry t-1");
    // Past its time it waits for a worker like any other.
    let due = view(Phase::Scheduled { until: at(0), retry: false });
    assert_eq!(why(&facts(&due, &[])).cause, Cause::NoConsumer);
}

#[test]
fn who_holds_it_is_named() {
    let (running, reserved) = (
        view(Phase::Running { worker: "w@h".to_owned(), since: at(-30) }),
        view(Phase::Reserved { worker: "w@h".to_owned() }),
    );
    let workers = [worker()];
    says(&why(&facts(&running, &workers)), Cause::Running, "w@h, for 30 s", "-d w@h");
    says(&why(&facts(&reserved, &workers)), Cause::Prefetched, "w@h has taken it", "-d w@h");
    says(&why(&facts(&running, &[])), Cause::WorkerSilent, "w@h holds it and is gone", "status");
    let gone = view(Phase::Unknown);
    for (said, cause, text) in [
        (Said::Active, Cause::Running, "runs on stock@h"),
        (Said::Reserved, Cause::Prefetched, "taken it ahead"),
        (Said::Scheduled(Some(at(5))), Cause::Eta, "holds it until"),
    ] {
        let mut told = facts(&gone, &[]);
        told.said = Some(("stock@h".to_owned(), said));
        says(&why(&told), cause, text, "stock@h");
    }
    let mut told = facts(&gone, &[]);
    told.elsewhere = Some(HeldElsewhere { since: at(-10), returns_at: at(3590) });
    says(&why(&told), Cause::WorkerSilent, "gives it back at", "status");
}

fn result(text: &str) -> ResultRecord {
    let meta = celeriac_wire::ResultMeta::parse(text.as_bytes()).unwrap();
    ResultRecord {
        meta,
        task: None,
        queue: None,
        worker: None,
        enqueued_at: None,
        started_at: None,
        written_at: at(-1),
        retries: 0,
    }
}

#[test]
fn ends_are_told_with_their_reason() {
    let failure = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["bad"],
        "exc_module": "builtins"}, "task_id": "t-1"}"#;
    for (text, cause, next) in [
        (r#"{"status": "SUCCESS", "result": 1, "task_id": "t-1"}"#, Cause::Finished, "result t-1"),
        (failure, Cause::Failed, "task retry t-1"),
        (r#"{"status": "REVOKED", "result": null, "task_id": "t-1"}"#, Cause::Revoked, "again"),
    ] {
        let mut done = view(Phase::Done);
        done.result = Some(result(text));
        says(&why(&facts(&done, &[])), cause, "", next);
    }
    let mut dead = view(Phase::Dead { number: 9, reason: DeadReason::Failed });
    dead.result = Some(result(failure));
    let verdict = why(&facts(&dead, &[]));
    says(&verdict, Cause::Dead, "dead letter 9", "dead replay 9");
    assert!(verdict.evidence[0].contains("bad"), "{verdict:?}");
    let mut lost = view(Phase::Unknown);
    lost.result = Some(result(r#"{"status": "STARTED", "result": null, "task_id": "t-1"}"#));
    says(&why(&facts(&lost, &[])), Cause::Lost, "STARTED", "Send it again");
    says(
        &why(&facts(&view(Phase::Unknown), &[])),
        Cause::Unknown,
        "Nobody knows it",
        "config show",
    );
}
