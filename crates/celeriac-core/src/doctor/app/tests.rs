use super::*;

fn settings(text: &str) -> Map {
    Value::parse(text.as_bytes()).unwrap().as_object().unwrap().clone()
}

fn app(text: &str) -> AppFacts {
    AppFacts { settings: settings(text), ..AppFacts::default() }
}

fn task(name: &str) -> TaskFacts {
    TaskFacts { name: name.to_owned(), ..TaskFacts::default() }
}

fn codes(app: &AppFacts) -> Vec<&'static str> {
    check_app(app).iter().map(|finding| finding.code.name).collect()
}

fn worker(pool: &str, concurrency: Option<&str>) -> CommandFacts {
    CommandFacts {
        role: "worker".to_owned(),
        pool: Some(pool.to_owned()),
        concurrency: concurrency.map(str::to_owned),
        ..CommandFacts::default()
    }
}

fn redis() -> Transport {
    Transport { redelivers_after: Some(Duration::from_hours(1)), network: true }
}

#[test]
fn entries_that_come_often_have_to_expire() {
    for (schedule, expected) in [
        ("60.0", true),
        ("3600", true),
        ("7200", false),
        (r#"{"repr": "<crontab: */5 * * * * (m/h/dM/MY/d)>"}"#, true),
        (r#"{"repr": "<crontab: 0 4 * * * (m/h/dM/MY/d)>"}"#, false),
        (r#"{"repr": "crontab(minute='*/5')"}"#, true),
        (r#"{"repr": "crontab()"}"#, true),
        (r#"{"repr": "crontab(hour=4, minute=0)"}"#, false),
    ] {
        let text =
            format!(r#"{{"beat_schedule": {{"e": {{"task": "t", "schedule": {schedule}}}}}}}"#);
        assert_eq!(codes(&app(&text)).contains(&"D-APP-BEAT-EXPIRES"), expected, "{schedule}");
    }
    let expires =
        r#"{"beat_schedule": {"e": {"task": "t", "schedule": 60, "options": {"expires": 50}}}}"#;
    assert!(codes(&app(expires)).is_empty());
}

#[test]
fn names_of_the_schedule_and_of_routes_are_tasks() {
    let text = r#"{"beat_schedule": {"e": {"task": "old.clean", "schedule": 86400}},
        "task_routes": {"app.*": {"queue": "celery"}, "gone.*": "celery"}}"#;
    let mut facts = app(text);
    assert!(codes(&facts).is_empty(), "the tasks are not known");
    (facts.loaded, facts.tasks) = (true, vec![task("app.clean")]);
    let found = check_app(&facts);
    assert_eq!(codes(&facts), ["D-APP-BEAT-UNREGISTERED", "D-APP-ROUTE-UNREGISTERED"]);
    assert!(found[0].fix.contains("app.clean"), "{found:?}");
}

#[test]
fn what_is_sent_is_consumed() {
    let mut facts = app(r#"{"task_routes": {"a.*": {"queue": "reports"}}}"#);
    facts.tasks = vec![TaskFacts { queue: Some("celery".to_owned()), ..task("a.b") }];
    assert_eq!(codes(&facts), ["D-APP-QUEUE-UNDECLARED"]);
    // A written worker consumes it.
    facts.commands = vec![CommandFacts {
        role: "worker".to_owned(),
        queues: Some("celery,reports".to_owned()),
        ..CommandFacts::default()
    }];
    assert!(codes(&facts).is_empty());
    let unused = r#"{"task_queues": {"default": {}, "high": {}}, "task_default_queue": "default"}"#;
    assert_eq!(codes(&app(unused)), ["D-APP-QUEUE-UNUSED"]);
    // What has to be computed is not guessed.
    let computed = r#"{"task_queues": {"repr": "make()"}, "task_routes": {"a.*": "reports"}}"#;
    assert!(codes(&app(computed)).is_empty());
}

#[test]
fn pools_are_asked_for_what_they_can() {
    for (pool, concurrency, text, expected) in [
        ("solo", None, r#"{"task_soft_time_limit": 5}"#, Some("soft time limits")),
        ("solo", Some("4"), "{}", Some("a concurrency above 1")),
        ("solo", Some("1"), "{}", None),
        ("gevent", Some("100"), r#"{"task_time_limit": 5}"#, None),
        (
            "gevent",
            Some("100"),
            r#"{"worker_max_tasks_per_child": 5}"#,
            Some("max-tasks-per-child"),
        ),
        ("threads", None, r#"{"task_time_limit": 5}"#, Some("hard time limits")),
        ("prefork", Some("4"), r#"{"task_time_limit": 5, "worker_max_tasks_per_child": 5}"#, None),
    ] {
        let mut facts = app(text);
        facts.commands = vec![worker(pool, concurrency)];
        let found = check_app(&facts);
        match expected {
            None => assert!(found.is_empty(), "{pool} {text}: {found:?}"),
            Some(part) => {
                assert_eq!(found.len(), 1, "{pool} {text}");
                assert_eq!(found[0].code.name, "D-APP-POOL");
                assert!(found[0].what.contains(part), "{found:?}");
            }
        }
    }
}

#[test]
fn messages_are_not_held_longer_than_the_broker_waits() {
    let late = |limit| TaskFacts { acks_late: true, time_limit: limit, ..task("t") };
    let early = |limit| TaskFacts { time_limit: limit, ..task("t") };
    for (multiplier, task, expected) in [
        // One prefetched behind one that runs: twice the limit.
        ("1", late(Some(1800.0)), true),
        ("1", late(Some(1799.0)), false),
        ("4", early(Some(900.0)), true),
        ("4", early(Some(899.0)), false),
        ("1", late(None), true),
        ("1", early(None), false),
        ("0", early(Some(1.0)), true),
    ] {
        let mut facts = app(&format!(r#"{{"worker_prefetch_multiplier": {multiplier}}}"#));
        (facts.transport, facts.tasks) = (redis(), vec![task.clone()]);
        let found = codes(&facts).contains(&"D-APP-VISIBILITY");
        assert_eq!(found, expected, "{multiplier} {task:?}");
        facts.transport = Transport::default();
        assert!(!codes(&facts).contains(&"D-APP-VISIBILITY"), "no timeout");
    }
    let longer = r#"{"broker_transport_options": {"visibility_timeout": 7200}, "worker_prefetch_multiplier": 1}"#;
    let mut facts = app(longer);
    (facts.transport, facts.tasks) = (redis(), vec![late(Some(1800.0))]);
    assert!(codes(&facts).is_empty());
    facts.calls = vec![CallFacts { countdown: Some(Value::from(7200)), ..CallFacts::default() }];
    assert_eq!(codes(&facts), ["D-APP-ETA"]);
}

#[test]
fn settings_that_endanger_are_named() {
    let late = r#"{"task_acks_late": true, "task_reject_on_worker_lost": true}"#;
    let mut facts = app(late);
    facts.tasks = vec![task("t")];
    assert_eq!(codes(&facts), ["D-APP-REDELIVERY", "D-APP-PREFETCH"]);
    for (text, code) in [
        (r#"{"task_default_priority": 5}"#, "D-APP-PRIORITY"),
        (r#"{"accept_content": ["json", "pickle"]}"#, "D-APP-PICKLE"),
        (r#"{"result_expires": null, "result_backend": "redis://"}"#, "D-APP-RESULT-EXPIRY"),
    ] {
        assert_eq!(codes(&app(text)), [code]);
    }
    let call = |file: &str, priority: i64| CallFacts {
        spot: Spot { file: file.to_owned(), line: Some(1) },
        priority: Some(Value::from(priority)),
        ..CallFacts::default()
    };
    let mut calls = app("{}");
    calls.calls = vec![call("a.py", 5), call("a.py", 5), call("a.py", 9), call("b.py", 5)];
    assert_eq!(codes(&calls), ["D-APP-PRIORITY"; 3]);
    let mut far = app("{}");
    (far.loaded, far.transport) = (true, redis());
    assert_eq!(codes(&far), ["D-APP-SOCKET"]);
    far.settings = settings(
        r#"{"broker_transport_options": {"socket_timeout": 10, "health_check_interval": 5}}"#,
    );
    assert!(codes(&far).is_empty());
}

#[test]
fn the_worst_comes_first() {
    let at = |code, place| Finding::new(code, place, "", "");
    let mut found = vec![
        at("D-APP-SOCKET", "x"),
        at("D-CODE-WAIT", "a.py:10"),
        at("D-CODE-WAIT", "a.py:9"),
        at("D-APP-LOAD", "x"),
        at("D-APP-SOCKET", "x"),
    ];
    crate::doctor::sort(&mut found);
    let order: Vec<&str> = found.iter().map(|finding| finding.place.as_str()).collect();
    assert_eq!(order, ["x", "a.py:9", "a.py:10", "x"]);
}
