//! Understands values; every error is what would be accepted.

use celeriac_core::QueueName;
use celeriac_runtime::UnknownTasks;
use celeriac_wire::codec::{Accept, Compression};
use std::time::Duration;

pub(super) fn text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("expected a text".to_owned())
    } else {
        Ok(text.trim().to_owned())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all parsers of values have one signature")]
pub(super) fn text_or_empty(text: &str) -> Result<String, String> {
    Ok(text.trim().to_owned())
}

pub(super) fn queue(text: &str) -> Result<String, String> {
    QueueName::parse(text.trim()).map(|name| name.to_string()).map_err(|error| error.to_string())
}

pub(super) fn queues(text: &str) -> Result<Vec<String>, String> {
    text.split(',').filter(|name| !name.trim().is_empty()).map(queue).collect()
}

/// Nothing, or the name of a compression.
pub(super) fn compression(text: &str) -> Result<Option<Compression>, String> {
    match text.trim() {
        "" => Ok(None),
        name => name.parse().map(Some),
    }
}

/// Names of serializers; raw bytes and text are always accepted.
pub(super) fn accept(text: &str) -> Result<Accept, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::parse).collect::<Result<Vec<_>, _>>().map(Accept::only)
}

/// The one parser of booleans (T-43, T-44): whatever is not plainly yes or no is an error.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other if other.contains('#') => {
            Err("expected true or false; a comment behind a value is part \
            of it for `docker --env-file`, put it on a line of its own"
                .to_owned())
        }
        _ => Err("expected 1, 0, true, false, yes, no, on or off".to_owned()),
    }
}

pub(super) fn unknown_tasks(text: &str) -> Result<UnknownTasks, String> {
    match text.trim() {
        "park" => Ok(UnknownTasks::Park),
        "dead-letter" => Ok(UnknownTasks::DeadLetter),
        _ => Err("expected park or dead-letter".to_owned()),
    }
}

pub(super) fn concurrency(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err("expected a number from 1 to 10000".to_owned()),
    }
}

/// The most and the fewest slots, as Celery's `--autoscale` has them; the fewest may be left out.
pub(super) fn autoscale(text: &str) -> Result<Option<(usize, usize)>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let (max, min) = text.split_once(',').unwrap_or((text, "0"));
    let wrong = || "expected the most and the fewest slots, such as 10,3".to_owned();
    let max = concurrency(max).map_err(|_| wrong())?;
    match min.trim().parse() {
        Ok(min) if min <= max => Ok(Some((max, min))),
        Ok(min) => Err(format!("the fewest slots ({min}) must not be more than the most ({max})")),
        Err(_) => Err(wrong()),
    }
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    match text.trim().replace('_', "").parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

/// A hundred years: an instant this far ahead still exists on every clock.
const DURATION_SECONDS_MAX: f64 = 36_500.0 * 86_400.0;

/// `500ms`, `10s`, `5m`, `2h`, `1d`; a bare number is seconds, as in Celery.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wanted = || {
        "expected a duration such as 500ms, 10s, 5m, 2h or 1d; a bare number is seconds".to_owned()
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wanted())?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(wanted()),
    };
    if seconds > DURATION_SECONDS_MAX {
        return Err("expected at most 36500d".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wanted())
}

/// A duration; empty, `never`, `none` and 0 mean none.
pub(super) fn optional_duration(text: &str) -> Result<Option<Duration>, String> {
    match text.trim() {
        "" | "never" | "none" => Ok(None),
        text => duration(text)
            .map(|span| Some(span).filter(|span| !span.is_zero()))
            .map_err(|error| format!("{error}; 0, none or never for none")),
    }
}

pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span < Duration::from_millis(200) {
        return Err("expected at least 200ms: a lease must outlive a few heartbeats".to_owned());
    }
    Ok(span)
}

/// Empty is none.
pub(super) fn optional_count(text: &str) -> Result<Option<u64>, String> {
    if text.trim().is_empty() { Ok(None) } else { count(text).map(Some) }
}

/// Empty is none.
pub(super) fn optional_size(text: &str) -> Result<Option<u64>, String> {
    if text.trim().is_empty() { Ok(None) } else { size(text).map(|bytes| Some(bytes as u64)) }
}

/// The range of proc(5)'s `oom_score_adj`.
pub(super) fn oom_score(text: &str) -> Result<i32, String> {
    match text.trim().parse() {
        Ok(score @ -1000..=1000) => Ok(score),
        _ => Err("expected a number from -1000 to 1000".to_owned()),
    }
}

/// `16MiB`, `512KiB`, `1GiB`, `200MB`, or bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let wanted = || "expected a size such as 16MiB, 512KiB or a number of bytes".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: usize = number.parse().map_err(|_| wanted())?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wanted()),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(wanted)
}

/// Celery's level names, in any case.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let level = text.trim().to_ascii_lowercase();
    match level.as_str() {
        "debug" | "info" | "warning" | "warn" | "error" | "critical" | "fatal" => Ok(level),
        _ => Err("expected debug, info, warning, error, critical or fatal".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<String, String> {
    match text.trim() {
        "text" | "json" => Ok(text.trim().to_owned()),
        _ => Err("expected text or json".to_owned()),
    }
}

/// Celery's node name with its `%h`, `%n` and `%d` (`celery/utils/nodenames.py` 5.7).
pub(super) fn node_name(text: &str) -> Result<String, String> {
    let host = hostname::get()
        .map_or_else(|_| "localhost".to_owned(), |host| host.to_string_lossy().into_owned());
    let (short, domain) = host.split_once('.').unwrap_or((&host, ""));
    let mut name = String::new();
    let mut letters = text.trim().chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            name.push(letter);
            continue;
        }
        match letters.next() {
            Some('h') => name.push_str(&host),
            Some('n') => name.push_str(short),
            Some('d') => name.push_str(domain),
            // The worker itself is process 0; its children have no names of their own (wire 9.1).
            Some('i') => name.push('0'),
            Some('I') => {}
            Some('%') => name.push('%'),
            _ => return Err("expected %h, %n, %d, %i, %I or %% behind a percent sign".to_owned()),
        }
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("expected a name such as celery@%h".to_owned());
    }
    // A word alone is the host (celery 5.7.0 utils/nodenames.py `default_nodename`).
    Ok(if name.contains('@') { name } else { format!("celery@{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_expand_once() {
        let host = hostname::get().unwrap().to_string_lossy().into_owned();
        assert_eq!(node_name("w1").unwrap(), "celery@w1");
        assert_eq!(node_name("w%i%I@%h").unwrap(), format!("w0@{host}"));
        assert_eq!(node_name("w%%h@%h").unwrap(), format!("w%h@{host}"));
        assert!(node_name("w%x@h").unwrap_err().contains("%h"));
    }

    #[test]
    fn durations_end_where_clocks_do() {
        for (text, expected) in [("1.5s", 1500), ("500ms", 500), ("2", 2000), ("1 min", 60_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(expected), "{text}");
        }
        for text in ["99999999999d", "-1", "1w", "", "s", "1e9", "nan", "."] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
