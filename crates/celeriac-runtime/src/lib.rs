//! The long-running roles of celeriac.
//!
//! Today that is the worker: it fetches, runs, stores, advances and settles. It knows stores only
//! by their traits and tasks only as [`Handler`]s; the command line and the configuration live in
//! the crate `celeriac`.

#[cfg(windows)]
compile_error!("celeriac runs on Linux and macOS; on Windows use it inside WSL 2");

mod builtin;
mod clock;

pub mod beat;
pub mod cancel;
pub mod handler;
pub mod pool;
pub mod worker;

pub use beat::{Beat, BeatOptions, BeatParts, BeatStatus, BeatStop, Dispatch, Prepared};
pub use cancel::{CancelReason, Cancellation};
pub use clock::{OsEntropy, SystemClock};
pub use handler::{Handler, Registry, RunContext, SharedLimit, TaskPolicy};
pub use worker::{
    Autoscale, Background, ControlOptions, Limits, Notice, Observer, RenewHandle, Renewal, Restart,
    Spill, SpilledLetter, Stop, StopHandle, UnknownTasks, Worker, WorkerError, WorkerOptions,
    WorkerParts, WorkerReport,
};
