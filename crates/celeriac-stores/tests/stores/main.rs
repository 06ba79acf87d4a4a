//! The conformance suite over every store.
