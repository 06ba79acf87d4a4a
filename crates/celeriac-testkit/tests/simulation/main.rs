//! The simulation: many seeds hold all promises, one seed repeats, and each checker can fail.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]
#![allow(clippy::print_stdout, reason = "which seed, and what it showed")]

mod sabotage;
mod seeds;

use celeriac_testkit::evidence::Evidence;
use celeriac_testkit::sim::{self, Sabotage};

/// Plays one seed in a runtime of its own.
fn play(seed: u64, sabotage: Option<Sabotage>) -> Evidence {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(sim::play(seed, sabotage)).unwrap()
}
