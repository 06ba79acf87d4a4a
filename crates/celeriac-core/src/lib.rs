//! Policies, state machines and store traits of celeriac: no I/O, no clock, no randomness
