//! What Celery wrote must be read and printed again byte by byte, and nothing may panic.

mod codecs;
mod fixtures;
mod fuzz_smoke;
mod fuzzed;
mod golden;
mod golden_control;
mod golden_events;
mod page;
mod parts;
mod python;
mod random;
mod serde_types;
