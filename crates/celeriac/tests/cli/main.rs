//! The command line as people and scripts see it: exit codes, tables and JSON.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]

#[path = "../kit/mod.rs"]
mod kit;
