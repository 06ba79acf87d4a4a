//! The whole product: programs and their processes, the demo, the library against real stores.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]
#![allow(clippy::print_stdout, reason = "measurements belong to the output of a test")]

mod demo;
#[path = "../kit/mod.rs"]
mod kit;
mod library;
mod pool;
mod process;
#[cfg(target_os = "linux")]
mod python;
mod redis;
mod running;
#[cfg(feature = "web")]
mod web;
mod workflows;
