use super::*;

fn calls(text: &str) -> std::result::Result<String, String> {
    let options: Options = syn::parse_str(text).map_err(|error| error.to_string())?;
    Ok(options.calls.iter().map(ToString::to_string).collect::<String>().replace(' ', ""))
}

#[test]
fn options_become_calls() {
    for (text, expected) in [
        (r#"queue = "q", max_retries = 5"#, r#".queue("q").max_retries(5u32)"#),
        (r#"max_retries = "forever""#, ".retry_forever()"),
        (
            r#"jitter = false, backoff = "2s..10m""#,
            ".backoff(2u32,::core::time::Duration::from_millis(600000u64)).jitter(false)",
        ),
        ("time_limit = 60", ".time_limit(::core::time::Duration::from_millis(60000u64))"),
        (
            r#"priority = "high", ignore_result"#,
            ".priority(::celeriac::Priority::High).ignore_result()",
        ),
    ] {
        assert_eq!(calls(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn wrong_options_say_what_is_right() {
    for (text, expected) in [
        (r#"quue = "q""#, "did you mean `queue`?"),
        (r#"rate_limit = "10""#, "expected a rate"),
        (r#"rate_limit = "10/s, 20/m""#, "is one rate"),
        (r#"global_rate_limit = "10/0s""#, "expected a rate"),
        ("concurrency_limit = 0", "lets nothing run"),
        (r#"unique_until = "later""#, "started or finished"),
        (r#"unique_for = "1h""#, "needs `unique`"),
        (r#"time_limit = "soon""#, "expected a duration"),
        (r#"soft_time_limit = "60s", time_limit = "60s""#, "must be shorter"),
        (r#"backoff = "1s..1m", retry_schedule = ["1s"]"#, "exclude each other"),
        ("ignore_result = true", "takes no value"),
        (r#"queue = "a", queue = "b""#, "given twice"),
        (r#"backoff = "10s""#, "2s..10m"),
        (r#"backoff = "1500ms..10m""#, "whole number of seconds"),
        (r#"backoff = "10m..2s""#, "below"),
        (r#"retry_delay = "3m", jitter = false"#, "exclude each other"),
        ("retry_schedule = []", "max_retries = 0"),
        (r#"time_limit = "0s""#, "leave it out"),
        (r#"queue = "celeriac:x""#, "celeriac:"),
        (r#"name = "a\nb""#, "control"),
        ("retry_backoff = true", "backoff = "),
        ("bind = true", "cx: Context"),
        ("max_retries = -1", "forever"),
        ("time_limit = 99999999999999999999", "number too large"),
    ] {
        let error = calls(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
