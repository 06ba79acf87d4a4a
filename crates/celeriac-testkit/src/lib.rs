//! What the tests of celeriac share: a ledger of what happened, the invariants that must hold over
//! it, a simulation of workers and faults that replays from a seed, helpers that kill processes, a
//! TCP proxy that breaks connections, and the servers and Pythons that tests talk to. Only tests
//! depend on it; `docs/testing.md` is its guide.

pub mod dice;
pub mod evidence;
pub mod invariants;
pub mod ledger;
pub mod process;
pub mod proxy;
pub mod services;
pub mod sim;
