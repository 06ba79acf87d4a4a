use super::*;
use crate::config::{Inputs, Settings};
use std::path::PathBuf;

fn resolved(text: &str) -> Result<Settings, String> {
    let file = Some((PathBuf::from("celeriac.toml"), text.to_owned()));
    Settings::resolve(Inputs { file, ..Inputs::default() }).map_err(|error| error.to_string())
}

fn policy(settings: &Settings, task: &str) -> TaskPolicy {
    let mut policy = TaskPolicy::default();
    if let Some(additions) = settings.tasks().of(task) {
        additions.add_to(&mut policy);
    }
    policy
}

#[test]
fn one_section_holds_and_the_operators_stands_before_it() {
    let text = "[tasks.\"reports.*\"]\nconcurrency_limit = 2\nmax_retries = 1\n\
                [tasks.'/daily$/']\nconcurrency_limit = 9\n\
                [tasks.\"reports.daily\"]\nconcurrency_limit = 3\n\
                [override.tasks.\"reports.*\"]\nglobal_rate_limit = [\"5/s\", \"100/m burst\"]\n";
    let settings = resolved(text).unwrap();
    let limit = |task: &str| policy(&settings, task).limit;
    assert_eq!(limit("reports.daily").concurrency, Some(3));
    assert_eq!(limit("reports.weekly").concurrency, Some(2));
    assert_eq!(limit("other.daily").concurrency, Some(9));
    assert_eq!(limit("other").concurrency, None);
    let rates: Vec<_> = limit("reports.daily").rates.iter().map(ToString::to_string).collect();
    assert_eq!(rates, ["5/s", "100/m burst"]);
    assert_eq!(policy(&settings, "reports.weekly").retry.max_retries, Some(1));
    let rows = settings.rows();
    let shown: Vec<_> = rows.iter().filter(|row| row.key == "tasks").collect();
    assert_eq!(shown[0].value, "reports.*: concurrency_limit = 2, max_retries = 1");
    assert_eq!(shown[0].source, "celeriac.toml, line 1");
    assert!(shown[3].source.starts_with("celeriac.toml [override], line 8"), "{}", shown[3].source);
}

#[test]
fn retries_are_said_as_native_tasks_say_them() {
    let seconds = |n| Duration::from_secs(n);
    let backoff = |factor, max, jitter| Delay::Backoff { factor, max: seconds(max), jitter };
    for (text, most, delay) in [
        ("max_retries = 7", Some(7), backoff(1, 600, true)),
        (
            "max_retries = \"forever\"\nbackoff = \"2s..5m\"\njitter = false",
            None,
            backoff(2, 300, false),
        ),
        ("jitter = false", Some(3), backoff(1, 600, false)),
        ("retry_delay = 30", Some(3), Delay::Fixed(seconds(30))),
        (
            "retry_schedule = [\"1s\", \"1m\"]",
            Some(2),
            Delay::Schedule(vec![seconds(1), seconds(60)]),
        ),
    ] {
        let policy = policy(&resolved(&format!("[tasks.t]\n{text}\n")).unwrap(), "t");
        assert_eq!(policy.retry, RetryPolicy { max_retries: most, delay }, "{text}");
    }
    let text = "[tasks.t]\nretry_for = [\"OSError\"]\nretry_except = [\"a.*\"]\n";
    let which = policy(&resolved(text).unwrap(), "t").retry_for;
    assert!(which.allows("builtins", "OSError") && !which.allows("a.b", "Gone"));
    assert!(!which.allows("builtins", "ValueError"));
}

#[test]
fn children_are_told_what_they_do() {
    let text = "[tasks.t]\nfailure_if = { status = \"error\", meta.code = [5, 6] }\n\
                retry_schedule = [0.5, 2]\nretry_for = [\"OSError\"]\ndead_letter = \"never\"\n";
    let additions = resolved(text).unwrap().tasks().of("t").unwrap();
    let rules = r#""failure_if":[[["status"],["error"]],[["meta","code"],[5,6]]]"#;
    let retry = r#""retry":{"max_retries":2,"delay":{"delays":[0.5,2.0]},"retry_for":["OSError"],"retry_except":[]}"#;
    let expected = |text: String| Value::parse(text.as_bytes()).unwrap();
    let told = |with_retries| Value::Object(additions.for_children(with_retries).unwrap());
    assert_eq!(told(true), expected(format!("{{{retry},{rules}}}")));
    assert_eq!(told(false), expected(format!("{{{rules}}}")));
    let limits = resolved("[tasks.t]\nconcurrency_limit = 1\n").unwrap().tasks().of("t").unwrap();
    assert_eq!(limits.for_children(true), None);
}

#[test]
fn what_cannot_be_is_refused_with_file_line_and_key() {
    for (lines, expected) in [
        (
            "global_rate_limit = \"10/y\"",
            "celeriac.toml, line 2: task \"t\": global_rate_limit = \"10/y\": ",
        ),
        ("global_rate_limit = 10", "expected a rate such as \"10/s\""),
        ("concurrency_limit = 0", "concurrency_limit = 0: expected a whole number of at least 1"),
        ("per_key = \"yes\"", "expected true or false"),
        (
            "\nmax_retries = -1",
            "line 3: task \"t\": max_retries = -1: expected a number, or \"forever\"",
        ),
        ("backoff = \"10s\"", "such as \"2s..10m\""),
        ("backoff = \"500ms..10m\"", "a whole number of seconds"),
        ("backoff = \"10s..1s\"", "the ceiling is below"),
        ("retry_schedule = []", "expected a list of delays"),
        (
            "retry_schedule = [1]\nmax_retries = 2",
            "line 3: task \"t\": retry_schedule and max_retries exclude",
        ),
        ("retry_for = \"OSError\"", "expected a list of exceptions"),
        ("retry_for = [\"a b\"]", "is no exception"),
        ("failure_if = \"error\"", "expected members and their values"),
        ("dead_letter = \"sometimes\"", "expected always, never or when-retries-end"),
        ("globl_rate_limit = \"1/s\"", "did you mean \"global_rate_limit\"?"),
        (
            "unique = true",
            "unique cannot be said here\nhint: whether a task is unique is decided when it is sent",
        ),
        ("unique = true", "celery-singleton"),
        (
            "time_limit = 5",
            "hint: for an app's task it is Celery's own: [override] task_annotations",
        ),
        ("concurrency = 5", "it is concurrency_limit"),
    ] {
        let error = resolved(&format!("[tasks.t]\n{lines}\n")).unwrap_err();
        assert!(error.contains(expected), "{lines}: {error}");
    }
    assert!(
        resolved("[tasks]\nt = 3\n").unwrap_err().contains("line 2: task \"t\" must be a section")
    );
    assert!(resolved("tasks = 3\n").unwrap_err().contains("tasks is a section"));
    let error = resolved("[tasks.'/(/']\nmax_retries = 1\n").unwrap_err();
    assert!(
        error.contains("celeriac.toml, line 1: task \"/(/\" is not a valid regular"),
        "{error}"
    );
}
