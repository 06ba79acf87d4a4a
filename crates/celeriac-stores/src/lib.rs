//! The stores of celeriac.
//!
//! A store keeps messages, leases, results, dead letters, revocations, pauses, nodes and events
//! behind the traits of `celeriac_core::store`. [`connect`] is the only place that looks at a URL's
//! scheme; everybody else asks for `Capabilities`.

#[cfg(windows)]
compile_error!("celeriac runs on Linux and macOS; on Windows use it inside WSL 2");

#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod listing;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod rules;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod schedules;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod turn;

pub use connect::{Resources, connect, diagnose, exists, keeps_results, redacted, transport};
#[cfg(feature = "redis")]
pub use redis::{RedisStore, TimeSource, read_redbeat};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
