//! Policies, state machines and store traits of celeriac.
//!
//! Core decides; `celeriac-stores` and `celeriac-runtime` act. Nothing here does I/O, reads a clock
//! or draws random numbers: the time and the random bits are arguments, so that every decision can
//! be tested as a table and replayed in simulation.
//!
//! ```
//! use celeriac_core::retry::RetryPolicy;
//! use std::time::Duration;
//!
//! let policy = RetryPolicy::schedule([60, 300, 900].map(Duration::from_secs));
//! assert_eq!(policy.next(1, 0), Some(Duration::from_secs(300)));
//! assert_eq!(policy.next(3, 0), None);
//! ```

pub mod beat;
pub mod clock;
pub mod control;
mod error;
pub mod failpoint;
pub mod limits;
mod queue;

pub mod conclude;
pub mod dead;
pub mod doctor;
pub mod document;
pub mod event;
pub mod exchange;
pub mod lease;
pub mod monitor;
pub mod operate;
pub mod outcome;
pub mod pattern;
pub mod priority;
pub mod record;
pub mod retry;
pub mod route;
pub mod schedule;
pub mod seal;
pub mod state;
pub mod throttle;
pub mod trace;
pub mod trail;
pub mod unique;
pub mod why;
pub mod workflow;

pub mod store;
pub mod testing;

pub use clock::{Clock, Entropy, Lamport};
pub use error::{ErrorKind, StoreError};
pub use queue::{QUEUE_NAME_BYTES_MAX, QueueName};
