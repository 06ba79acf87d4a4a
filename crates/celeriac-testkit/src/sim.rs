//! A simulation of workers, producers and the store in one thread, with time and faults from a seed.
//!
//! The code under test is the real one: `celeriac_runtime::Worker`, its heartbeat and settler, and
//! the SQLite engine in memory. What is simulated is time (tokio's paused clock, which jumps to the
//! next timer), the way to the store, and the death and freezing of workers. The same seed gives
//! the same ledger, byte by byte.
//!
//! [`play`] wants a current-thread runtime with paused time; [`replay_command`] says how to see one
//! seed again.

mod link;
mod record;
mod sabotage;
mod scenario;
mod store;
mod tasks;
#[cfg(test)]
mod tests;
mod time;
mod world;

pub use sabotage::Sabotage;

use crate::evidence::Evidence;
use celeriac_core::StoreError;

/// Plays the scenario of a seed, on the real system or on one that is broken on purpose.
///
/// # Errors
/// The store cannot be made.
pub async fn play(seed: u64, sabotage: Option<Sabotage>) -> Result<Evidence, StoreError> {
    let world = world::World::new(seed, scenario::Scenario::of_seed(seed), sabotage)?;
    Ok(Box::pin(world.play()).await)
}

/// How to play one seed again and see its ledger.
pub fn replay_command(seed: u64) -> String {
    format!(
        "CELERIAC_SEED={seed} cargo nextest run -p celeriac-testkit --no-capture -E 'test(one_seed)'"
    )
}

/// Hides the panics that are part of the simulation from the terminal; others are shown.
pub fn quiet_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(tasks::PANIC) {
            shown(panic);
        }
    }));
}
