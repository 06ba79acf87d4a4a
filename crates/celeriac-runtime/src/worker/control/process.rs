//! What the process uses, from `/proc`; other systems do not tell without unsafe code.

use celeriac_wire::{Map, Value};

/// The page size of every system that this runs on at present is a multiple of this; `/proc/self/status`
/// counts in KiB, so no page size is needed.
const KIB: u64 = 1024;
/// Blocks of `getrusage` are of 512 bytes.
const BLOCK: u64 = 512;

/// The fields of Python's `resource.getrusage(RUSAGE_SELF)`, or `"N/A"` (Celery's own word for a
/// system without it).
pub(super) fn rusage() -> Value {
    read_rusage().map_or_else(|| Value::from("N/A"), Value::Object)
}

fn read_rusage() -> Option<Map> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    // Not readable for a process that has changed its user; zeros then, as on kernels without it.
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    // The name, in parentheses, may hold anything; what follows it is numbers (proc(5)).
    let numbers: Vec<u64> = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let seconds = |at: usize| Value::from(number(at) as f64 / ticks);
    let count = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let status = |name| Value::from(count(&status, name).unwrap_or(0));
    let blocks = |name| Value::from(count(&io, name).unwrap_or(0) / BLOCK);
    Some(Map::from([
        ("utime", seconds(10)),
        ("stime", seconds(11)),
        ("maxrss", status("VmHWM")),
        ("ixrss", Value::from(0)),
        ("idrss", Value::from(0)),
        ("isrss", Value::from(0)),
        ("minflt", Value::from(number(6))),
        ("majflt", Value::from(number(8))),
        ("nswap", Value::from(0)),
        ("inblock", blocks("read_bytes")),
        ("oublock", blocks("write_bytes")),
        ("msgsnd", Value::from(0)),
        ("msgrcv", Value::from(0)),
        ("nsignals", Value::from(0)),
        ("nvcsw", status("voluntary_ctxt_switches")),
        ("nivcsw", status("nonvoluntary_ctxt_switches")),
    ]))
}

/// Resident memory in bytes.
pub(super) fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * KIB)
}

/// The load of the last 1, 5 and 15 minutes with two decimals; zeros where the system does not tell.
pub(in super::super) fn load_average() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut loads = text.split_whitespace().map(|load| load.parse().unwrap_or(0.0));
    std::array::from_fn(|_| loads.next().unwrap_or(0.0))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = rusage();
        assert_eq!(usage.as_object().map(Map::len), Some(16));
        let number = |name: &str| usage.get(name).and_then(Value::as_f64).unwrap();
        assert!(number("maxrss") > 1000.0 && number("minflt") > 0.0, "{usage}");
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(load_average().iter().all(|load| *load >= 0.0));
    }
}
