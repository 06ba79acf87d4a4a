//! A Celery-compatible task queue: define tasks, send them, run workers.
//!
//! Tasks stay ordinary functions. `#[task]` adds a value beside each, which makes calls; a client
//! sends calls to a store (an embedded SQLite file by default), workers run them at least once.
//!
//! ```
//! use celeriac::prelude::*;
//!
//! /// Adds two numbers.
//! #[task(name = "tasks.add")]
//! async fn add(x: i64, y: i64) -> Result<i64> {
//!     Ok(x + y)
//! }
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
//! # async fn main() -> celeriac::Result {
//! let app = App::at("memory://")?.tasks(tasks![add]);
//! let client = app.client().await?;
//! let sum = client.send(add::call(2, 3)).await?;
//! app.worker().stop_when_idle(1.millis()).run().await?;
//! assert_eq!(sum.get(1.secs()).await?, 5);
//! assert_eq!(add(2, 3).await?, 5); // still a function
//! # Ok(())
//! # }
//! ```

#[cfg(windows)]
compile_error!("celeriac runs on Linux and macOS; on Windows use it inside WSL 2");

// The macro writes paths that begin with `::celeriac`; the demo's tasks use it inside the crate.
extern crate self as celeriac;

mod app;
mod arguments;
mod beat;
mod call;
mod canvas;
mod client;
pub mod config;
mod context;
mod durations;
mod error;
pub mod events;
mod handler;
pub mod hooks;
mod job;
mod job_set;
mod lines;
#[cfg(feature = "cli")]
mod moving;
mod node;
mod pool;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod python;
mod remote;
pub mod schedule;
pub mod seal;
mod task;
#[cfg(feature = "sqlite")]
pub mod test;
mod worker;

#[cfg(feature = "otel")]
pub mod otel;

#[cfg(feature = "web")]
mod http;
#[cfg(feature = "web")]
mod tokens;

#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
pub mod demo;

pub use app::App;
pub use arguments::{Arguments, Param};
pub use beat::{BeatBuilder, BeatStatus, BeatStop};
pub use call::Call;
pub use canvas::{Chain, Chord, Group, Header, Workflow, chain, chord, group};
pub use celeriac_core::outcome::{Classifier, Condition};
pub use celeriac_core::priority::Level as Priority;
pub use celeriac_core::throttle::Rate;
pub use celeriac_core::trace::TraceContext;
pub use celeriac_core::unique::{Unique, Until};
pub use celeriac_macros::task;
pub use celeriac_runtime::{StopHandle, UnknownTasks, WorkerReport};
pub use celeriac_wire::codec::{Compression, Serializer};
pub use client::{Client, SendError};
pub use context::{Context, FromContext, Progress, State};
pub use durations::DurationExt;
pub use error::{Result, TaskError};
pub use handler::TaskDef;
pub use job::{GroupJob, Job, JobError};
pub use job_set::{Completed, JobSet};
pub use pool::Pool;
pub use remote::{Ask, Remote};
pub use task::{Requirements, Task, TaskOptions};
pub use worker::WorkerBuilder;

/// What programs with tasks need: `use celeriac::prelude::*;`.
pub mod prelude {
    pub use crate::{
        App, Call, Client, Context, DurationExt, Job, Priority, Result, State, Task, TaskError,
        chain, chord, group, task, tasks,
    };
}

/// Lists tasks for [`App::tasks`]: `tasks![add, report]`.
#[macro_export]
macro_rules! tasks {
    ($($task:path),* $(,)?) => { ::std::vec![$($crate::TaskDef::of::<$task>()),*] };
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The guide for Rust developers compiles and runs, chapter by chapter.
#[cfg(doctest)]
mod rust_guide {
    #[doc = include_str!("../../../docs/guides/rust.md")]
    struct Tasks;
    #[doc = include_str!("../../../docs/guides/rust/results.md")]
    struct Results;
    #[doc = include_str!("../../../docs/guides/rust/retries.md")]
    struct Retries;
    #[doc = include_str!("../../../docs/guides/rust/hooks.md")]
    struct Hooks;
    #[doc = include_str!("../../../docs/guides/rust/testing.md")]
    struct Testing;
    #[doc = include_str!("../../../docs/guides/rust/python.md")]
    struct Python;
}
