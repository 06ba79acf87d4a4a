//! What Celery wrote must be read and printed again byte by byte, and nothing may panic.

mod codecs;
mod fixtures;
mod golden;
mod golden_control;
mod golden_events;
mod parts;
mod python;
mod random;
mod serde_types;
