//! W3C trace context: which trace a message belongs to, and which span sent it. Pure.
//!
//! <https://www.w3.org/TR/trace-context/>. The two headers stand at the top of a message's headers, where
//! OpenTelemetry's instrumentation of Celery reads and writes them, so that a trace goes through native and
//! Python tasks alike. What cannot be read is left as it is and continues nothing.

use celeriac_wire::{Headers, Value};
use std::fmt;

/// The header with trace id, span id and flags.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what vendors add.
pub const TRACESTATE: &str = "tracestate";
/// The longest `tracestate` that is carried on, in bytes (W3C trace context 3.3.1.5 asks for 512 at least).
pub const TRACESTATE_BYTES_MAX: usize = 4096;

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// Reads the two headers; `None` for anything but a valid `traceparent`. A `tracestate` that is too long
    /// is dropped, as the standard has it.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim();
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let (trace, span, flags) =
            (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        // A later version may add fields; version 0 has none, and 255 is none (section 3.2.2).
        if version == 255 || (version == 0 && parts.next().is_some()) || trace == 0 || span == 0 {
            return None;
        }
        let state = tracestate
            .map(str::trim)
            .filter(|state| !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX)
            .filter(|state| state.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        Some(Self { trace, span: span as u64, flags: flags as u8, state: state.map(str::to_owned) })
    }

    /// What a message says.
    pub fn of(headers: &Headers) -> Option<Self> {
        let text = |name| headers.get(name).and_then(Value::as_str);
        Self::parse(text(TRACEPARENT)?, text(TRACESTATE))
    }

    /// The first place of a trace; `None` for zeros, which stand for nothing.
    pub fn root(trace: u128, span: u64, sampled: bool) -> Option<Self> {
        let usable = trace != 0 && span != 0;
        usable.then(|| Self { trace, span, flags: u8::from(sampled), state: None })
    }

    /// Another place of the same trace; `None` for a span of zero.
    pub fn at(&self, span: u64) -> Option<Self> {
        (span != 0).then(|| Self { span, ..self.clone() })
    }

    /// The place of one run of a task that was sent from here: the same trace, a span of its own. The same
    /// run has the same span wherever it is asked for; a retry has another.
    pub fn run(&self, task_id: &str, retries: u32) -> Self {
        // FNV-1a over both, then the finalizer of SplitMix64: near ids give far spans.
        let bytes = task_id.bytes().chain(retries.to_be_bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64 ^ self.span, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self { span: (hash ^ (hash >> 31)).max(1), ..self.clone() }
    }

    /// The place of the run that a message is delivered to; what that run sends comes from there.
    pub fn of_run(headers: &Headers) -> Option<Self> {
        let sent = Self::of(headers)?;
        Some(sent.run(headers.id().unwrap_or_default(), headers.retries()))
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span id: 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether somebody records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What vendors added.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Writes it into a new message.
    pub fn write(&self, headers: &mut Headers) {
        headers.insert(TRACEPARENT, self.to_string());
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.as_str());
        }
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Exactly so many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_what_the_standard_allows_is_a_context() {
        for (text, valid) in [
            (PARENT, true),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
            ("", false),
            ("ä", false),
        ] {
            assert_eq!(TraceContext::parse(text, None).is_some(), valid, "{text}");
        }
        let long = "a".repeat(TRACESTATE_BYTES_MAX + 1);
        assert_eq!(TraceContext::parse(PARENT, Some(&long)).unwrap().state(), None);
        let context = TraceContext::parse(PARENT, Some("v=1")).unwrap();
        assert_eq!((context.to_string().as_str(), context.state()), (PARENT, Some("v=1")));
        assert!(context.is_sampled());
    }

    #[test]
    fn each_run_has_a_span_of_its_own_in_the_same_trace() {
        let sent = TraceContext::parse(PARENT, Some("v=1")).unwrap();
        let (first, again, retry) = (sent.run("a", 0), sent.run("a", 0), sent.run("a", 1));
        assert_eq!(first, again);
        assert_eq!((first.trace_id(), first.state()), (sent.trace_id(), Some("v=1")));
        let spans = [&sent, &first, &retry, &sent.run("b", 0)].map(TraceContext::span_id);
        let mut distinct = spans.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), spans.len(), "{spans:?}");
    }
}
