//! What the fuzz targets run: the promises of `celeriac-wire`, which CI also tries for a moment,
//! and those of the parsers above it.

#[path = "../../crates/celeriac-wire/tests/wire/fuzzed.rs"]
mod fuzzed;

use std::sync::Once;

use celeriac_core::exchange::Binding;
use celeriac_core::schedule::{Crontab, DstRule, Schedule, Zone};
use celeriac_core::throttle::Rate;
use celeriac_core::trace::TraceContext;
use celeriac_wire::Value;

/// Targets whose parsers stand in `celeriac-core`.
const ABOVE_WIRE: [fuzzed::Target; 4] =
    [("binding", binding), ("rate", rate), ("schedule", schedule), ("trace", trace)];

/// Runs one target on one input; a broken promise is a panic.
pub fn run(target: &str, bytes: &[u8]) {
    static HOOK: Once = Once::new();
    // libFuzzer's hook ends the process at any panic, also at one of a decoder that is caught.
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    let mut all = fuzzed::TARGETS.iter().chain(&ABOVE_WIRE);
    let (_, promises) = all.find(|(name, _)| *name == target).expect("a target of this name");
    promises(bytes);
}

/// `10/s`, as the request `rate_limit` and settings have it.
fn rate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(Some(rate)) = Rate::parse(text) else { return };
    assert!(rate.count > 0 && !rate.per.is_zero());
    let again = Rate::parse(&rate.to_string());
    // Fractions are rounded.
    if rate.per.subsec_nanos() == 0 {
        assert_eq!(again, Ok(Some(rate)));
    }
}

/// A line of cron or a schedule in JSON, the name of a zone, and an instant in seconds, a line each.
fn schedule(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, zone, at) = (line(), line(), line());
    let zone = Zone::named(zone).unwrap_or_else(|_| Zone::utc());
    let read = match Value::parse(first.as_bytes()) {
        Ok(value) => Schedule::from_value(&value),
        Err(_) => Crontab::from_string(first).map(Schedule::Crontab),
    };
    let Ok(schedule) = read else { return };
    if let Schedule::Crontab(crontab) = &schedule {
        assert_eq!(Crontab::from_string(&crontab.to_string()).as_ref(), Ok(crontab));
    }
    assert_eq!(Schedule::from_value(&schedule.to_value()).as_ref(), Ok(&schedule));
    assert!(!schedule.sentence(&zone).is_empty());
    let Ok(at) = at.parse().map_or(Ok(jiff::Timestamp::UNIX_EPOCH), jiff::Timestamp::from_second)
    else {
        return;
    };
    let dst = DstRule::default();
    let Some(next) = schedule.next(at, at, &zone, dst) else { return };
    assert!(next > at);
    assert_eq!(schedule.previous(next, at, &zone, dst), Some(next));
    assert_eq!(schedule.count(at, next, at, &zone, dst, 5), 1);
}

/// The two headers of W3C trace context, a line each.
fn trace(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (parent, state) = text.split_once('\n').unwrap_or((text, ""));
    let Some(trace) = TraceContext::parse(parent, Some(state)) else { return };
    assert_eq!(TraceContext::parse(&trace.to_string(), trace.state()).as_ref(), Some(&trace));
    assert_eq!(trace.run("1", 0).trace_id(), trace.trace_id());
}

/// A member of kombu's table of bindings, and a routing key to try it with, a line each.
fn binding(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (member, key) = text.split_once('\n').unwrap_or((text, text));
    let Some(binding) = Binding::of_member("x", member, None) else { return };
    assert_eq!(Binding::of_member("x", &binding.member(), None).as_ref(), Some(&binding));
    std::hint::black_box(binding.takes(key));
}
